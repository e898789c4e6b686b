"""Which worker sends the events, against a model: workers begin, follow, let go, get stuck and die in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.sender_choice import SILENT_SECS, Dismiss, Follow, Order, SenderChoice, StandBy


@dataclass(eq=False)
class Worker:
    """One worker, as it behaves: what it was told stands in ``watches``."""

    name: int
    serves: bool = True
    is_stuck: bool = False
    watches: bool = False
    has_said_so: bool = False


class Workers(RuleBasedStateMachine):
    """What is told to a stuck worker reaches it when it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.choice: SenderChoice[Worker] = SenderChoice()
        self.workers: list[Worker] = []
        self.unread: dict[Worker, list[Order[Worker]]] = {}
        self.count = 0

    def perform(self, orders: Sequence[Order[Worker]]) -> None:
        for order in orders:
            assert order.worker in self.workers, "nobody speaks to the dead"
            if order.worker.is_stuck:
                self.unread[order.worker].append(order)
            else:
                self.obey(order)

    def obey(self, order: Order[Worker]) -> None:
        worker = order.worker
        match order:
            case Follow():
                worker.watches, worker.has_said_so = True, False
            case StandBy():
                worker.watches = False
            case Dismiss():
                worker.watches = False
                if worker.serves:
                    self.perform(self.choice.offers(worker, self.now))

    def one(self, data: st.DataObject, *, is_stuck: bool = False) -> Worker | None:
        there = [worker for worker in self.workers if worker.is_stuck is is_stuck]
        return data.draw(st.sampled_from(there)) if there else None

    @precondition(lambda self: len(self.workers) < 5)
    @rule()
    def begin(self) -> None:
        self.count += 1
        worker = Worker(self.count)
        self.workers.append(worker)
        self.choice.is_alive(worker, self.now)
        self.perform(self.choice.offers(worker, self.now))

    @rule(data=st.data())
    def say_that_it_watches(self, data: st.DataObject) -> None:
        worker = self.one(data)
        if worker is not None and worker.watches and not worker.has_said_so:
            worker.has_said_so = True
            self.perform(self.choice.watches(worker))

    @rule(data=st.data())
    def hand_over(self, data: st.DataObject) -> None:
        worker = self.one(data)
        if worker is not None and worker.serves:
            worker.serves = False
            self.perform(self.choice.lets_go(worker, self.now))

    @rule(data=st.data(), is_stuck=st.booleans())
    def die(self, data: st.DataObject, is_stuck: bool) -> None:
        worker = self.one(data, is_stuck=is_stuck)
        if worker is not None:
            self.workers.remove(worker)
            self.unread.pop(worker, None)
            self.perform(self.choice.is_gone(worker, self.now))

    @rule(data=st.data())
    def get_stuck(self, data: st.DataObject) -> None:
        worker = self.one(data)
        if worker is not None:
            worker.is_stuck, self.unread[worker] = True, []

    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        worker = self.one(data, is_stuck=True)
        if worker is not None:
            worker.is_stuck = False
            self.choice.is_alive(worker, self.now)
            for order in self.unread.pop(worker):
                self.obey(order)

    @rule(secs=st.floats(0.1, 2 * SILENT_SECS))
    def wait(self, secs: float) -> None:
        self.now += secs
        for worker in self.workers:
            if not worker.is_stuck:
                self.choice.is_alive(worker, self.now)
        self.perform(self.choice.look(self.now))

    @invariant()
    def at_most_one_sends(self) -> None:
        if self.choice.watching:
            assert sum(self.choice.sends(worker) for worker in self.workers) == 1

    @invariant()
    def who_watches_is_known(self) -> None:
        """Whoever watches leads or follows, or a word to it is on its way: nobody does so unheard for ever."""
        for worker in self.workers:
            if worker.watches and not self.unread.get(worker):
                assert worker in self.choice.watching

    @invariant()
    def somebody_is_to_lead(self) -> None:
        if any(worker.serves and not worker.is_stuck for worker in self.workers):
            assert self.choice.watching

    def teardown(self) -> None:
        """Left alone, those that serve and are not stuck bring forth one that leads."""
        for _ in range(3 * len(self.workers) + 3):
            self.wait(2 * SILENT_SECS)
            for worker in [one for one in self.workers if one.watches and not one.is_stuck and not one.has_said_so]:
                worker.has_said_so = True
                self.perform(self.choice.watches(worker))
        if any(worker.serves and not worker.is_stuck for worker in self.workers):
            leader = self.choice.leader
            assert leader is not None
            assert leader.serves
            assert not leader.is_stuck
            assert leader.watches
            assert self.choice.follower is None


TestWorkers = pytest.mark.slow(Workers.TestCase)
TestWorkers.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_lead_changes_hands_without_a_gap() -> None:
    """As at a reload: the old one leads until the new one watches."""
    choice: SenderChoice[str] = SenderChoice()
    assert choice.offers("old", 0) == [Follow("old")]
    assert choice.sends("old")
    assert choice.watches("old") == []
    assert choice.lets_go("old", 1) == []
    assert choice.leader == "old"
    assert choice.offers("new", 1) == [Follow("new")]
    assert (choice.sends("old"), choice.sends("new")) == (True, False)
    assert choice.watching == ("old", "new")
    assert choice.watches("new") == [Dismiss("old")]
    assert choice.watching == ("new",)


def test_who_is_not_needed_stands_by() -> None:
    """And leads when the other one dies."""
    choice: SenderChoice[str] = SenderChoice()
    choice.offers("first", 0)
    assert choice.offers("second", 0) == [StandBy("second")]
    assert choice.watches("second") == []
    assert choice.is_gone("first", 1) == [Follow("second")]


def test_a_stuck_worker_goes_on_where_nobody_else_serves() -> None:
    """Taking the lead from it would help nobody."""
    choice: SenderChoice[str] = SenderChoice()
    choice.offers("only", 0)
    choice.watches("only")
    choice.is_alive("only", 0)
    assert choice.look(1000) == []
    assert choice.leader == "only"
    assert choice.offers("second", 1000) == [StandBy("second")]
    assert choice.look(1001) == [Follow("second")]
