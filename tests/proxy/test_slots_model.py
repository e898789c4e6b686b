"""
Who gets which slot: the desk against a model that only knows the rules.

Each rule of the model is something that happens to a gateway; after each the promises hold: no run above its limit, no
waiter left while a slot is free, no older generation while the current one has a free slot, each ticket settled
exactly once, callers in turn.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from proxy.slots_bench import (
    GENERATIONS,
    NEW,
    OLD,
    POOL,
    Bench,
    Waiter,
    ended,
    route,
    want,
)

from gateway.core.demand import PoolDemand
from gateway.core.errors import (
    GreenroomError,
    StandbyRunFailed,
    WaitingRoomFull,
)
from gateway.core.lifecycle import Readiness, may_become
from gateway.core.standby import Generation
from gateway.proxy.route_table import LiveRun
from gateway.proxy.slots import Held, Want
from gateway.state.ports import PoolBlocked, RoutesReset, RunRoute


class DeskModel(RuleBasedStateMachine):
    """One pool: runs come, serve, refuse, drain and end; requests take, wait, leave and give back; settings change."""

    ROOM = 8

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(room_size=self.ROOM)
        self.desk = self.bench.desk
        self.numbers = count(1)
        self.routes: dict[str, RunRoute] = {}
        self.refused: set[str] = set()
        self.limit, self.generation = 2, OLD
        self.queues: dict[str, list[Waiter]] = {}
        self.waiting: list[Waiter] = []
        self.settled: list[Waiter] = []
        self.granted: list[LiveRun] = []
        self.told = (self.bench.now, PoolDemand())

    # what the rules say

    def eligible(self) -> list[LiveRun]:
        return [
            self.bench.run(run_id)
            for run_id, one in self.routes.items()
            if one.readiness is Readiness.SERVING and run_id not in self.refused
        ]

    def free(self, avoided: AbstractSet[str] = frozenset()) -> list[LiveRun]:
        return [run for run in self.eligible() if run.taken < self.limit and run.route.run_id not in avoided]

    def want(self, caller: str) -> Want:
        return want(self.limit, caller=caller, generation=self.generation)

    def settle(self, waiter: Waiter, outcome: LiveRun | GreenroomError) -> None:
        assert waiter in self.waiting, "settled twice, or after it had left"
        if isinstance(outcome, LiveRun):
            assert waiter is self.next_in_turn()
            self.check_grant(outcome)
            self.queues[waiter.held.caller] = self.queues.pop(waiter.held.caller)
        self.forget(waiter)
        waiter.told.append(outcome)
        self.settled.append(waiter)

    def check_grant(self, run: LiveRun, avoided: AbstractSet[str] = frozenset()) -> None:
        assert run in self.eligible()
        assert run.taken <= self.limit
        if run.route.generation != self.generation:
            assert [other for other in self.free(avoided) if other.route.generation == self.generation] == []
        self.granted.append(run)

    def next_in_turn(self) -> Waiter:
        return next(iter(self.queues.values()))[0]

    def forget(self, waiter: Waiter) -> None:
        self.waiting.remove(waiter)
        queue = self.queues[waiter.held.caller]
        queue.remove(waiter)
        if not queue:
            del self.queues[waiter.held.caller]

    # what happens to a gateway

    @initialize(generations=st.lists(st.sampled_from(GENERATIONS), max_size=3), limit=st.integers(1, 3))
    def a_gateway_begins(self, generations: list[Generation], limit: int) -> None:
        """Also amid a deploy, with runs of both builds serving."""
        self.limit, self.generation = limit, NEW
        for generation in generations:
            self.a_run_comes(Readiness.SERVING, generation)
        self.a_request(caller="ann", avoided=set())

    @rule(readiness=st.sampled_from([Readiness.STARTING, Readiness.SERVING]), generation=st.sampled_from(GENERATIONS))
    @precondition(lambda self: len(self.routes) < 5)
    def a_run_comes(self, readiness: Readiness, generation: Generation) -> None:
        run_id = f"run{next(self.numbers)}"
        self.put(route(run_id, readiness, generation=generation))

    def put(self, one: RunRoute) -> None:
        before = self.routes.get(one.run_id)
        if before is not None and before.readiness is not one.readiness:
            self.refused.discard(one.run_id)
        self.routes[one.run_id] = one
        self.bench.apply(one)

    @rule(data=st.data(), readiness=st.sampled_from(Readiness))
    @precondition(lambda self: self.routes)
    def a_run_changes(self, data: st.DataObject, readiness: Readiness) -> None:
        one = self.routes[data.draw(st.sampled_from(sorted(self.routes)))]
        if one.readiness is readiness or may_become(one.readiness, readiness):
            self.put(replace(one, readiness=readiness))

    @rule(data=st.data(), error_type=st.sampled_from([None, "standby-run-finished", "standby-run-not-ready"]))
    @precondition(lambda self: self.routes)
    def a_run_ends(self, data: st.DataObject, error_type: str | None) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.routes)))
        del self.routes[run_id]
        self.refused.discard(run_id)
        starting = sum(
            one.readiness is Readiness.STARTING or (one.readiness is Readiness.SERVING and one.run_id in self.refused)
            for one in self.routes.values()
        )
        uncovered = max(0, min(self.limit, len(self.waiting) - starting * self.limit)) if error_type else 0
        expected = self.waiting[:uncovered]
        self.settled.clear()
        pokes = self.bench.pokes
        (gone,) = self.bench.apply(ended(run_id, error_type))
        assert gone.is_gone
        assert self.settled == expected
        assert all(isinstance(waiter.outcome, GreenroomError) for waiter in expected)
        if self.waiting:
            assert self.bench.pokes > pokes

    @rule(data=st.data())
    @precondition(lambda self: self.routes)
    def a_gateway_missed_changes(self, data: st.DataObject) -> None:
        kept = data.draw(st.sets(st.sampled_from(sorted(self.routes))))
        self.routes = {run_id: one for run_id, one in self.routes.items() if run_id in kept}
        self.refused &= kept
        self.bench.apply(RoutesReset(routes=tuple(self.routes.values())))

    @rule()
    def the_pool_is_blocked(self) -> None:
        expected = list(self.waiting)
        self.settled.clear()
        self.bench.apply(PoolBlocked(pool=POOL, message="no"))
        assert self.settled == expected
        assert all(type(waiter.outcome) is StandbyRunFailed for waiter in expected)

    @rule(data=st.data())
    @precondition(lambda self: self.eligible())
    def a_run_refuses(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.eligible()))
        self.refused.add(run.route.run_id)
        self.desk.refused(run)

    @rule(limit=st.integers(1, 3), generation=st.sampled_from(GENERATIONS))
    def settings_change(self, limit: int, generation: Generation) -> None:
        """Known to the desk with the next request, which this rule therefore sends."""
        self.limit, self.generation = limit, generation
        self.a_request(caller="settings", avoided=set())

    @rule(
        caller=st.sampled_from(["ann", "bob", "cyd"]),
        avoided=st.just(set()) | st.sets(st.sampled_from(["run1", "run2", "run3"]), max_size=2),
    )
    def a_request(self, caller: str, avoided: set[str]) -> None:
        wanted = self.want(caller)
        others_wait = bool(self.waiting)
        run = self.desk.take(wanted, avoid=frozenset(avoided))
        if run is not None:
            assert not others_wait
            assert run.route.run_id not in avoided
            self.check_grant(run, avoided)
            return
        assert others_wait or self.free(avoided) == []
        waiter = Waiter(Held(caller=caller, want=wanted))
        waiter.held.settle = lambda outcome: self.settle(waiter, outcome)
        if len(self.waiting) == self.ROOM:
            with pytest.raises(WaitingRoomFull):
                self.desk.hold(waiter.held)
            return
        self.waiting.append(waiter)
        self.queues.setdefault(caller, []).append(waiter)
        self.desk.hold(waiter.held)

    @rule(data=st.data(), secs=st.floats(0, 10))
    @precondition(lambda self: self.granted)
    def a_request_ends(self, data: st.DataObject, secs: float) -> None:
        self.bench.now += secs
        run = self.granted.pop(data.draw(st.integers(0, len(self.granted) - 1)))
        self.desk.give_back(run)
        assert run.used_at == self.bench.now

    @rule(data=st.data())
    @precondition(lambda self: self.waiting)
    def a_waiter_leaves(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.waiting))
        self.forget(waiter)
        self.desk.leave(waiter.held)

    @rule(data=st.data())
    @precondition(lambda self: self.settled)
    def a_settled_request_says_goodbye_to_the_room(self, data: st.DataObject) -> None:
        """As every request does, whatever it was told; it changes nothing."""
        self.desk.leave(data.draw(st.sampled_from(self.settled)).held)

    @rule(chance=st.floats(0, 1, exclude_max=True))
    def luck_changes(self, chance: float) -> None:
        self.bench.chance = chance

    # what always holds

    @invariant()
    def slots_are_counted_exactly(self) -> None:
        for run in {id(run): run for run in [*self.granted, *map(self.bench.run, self.routes)]}.values():
            assert run.taken == sum(other is run for other in self.granted)

    @invariant()
    def nobody_waits_while_a_slot_is_free(self) -> None:
        if self.waiting:
            assert self.free() == []

    @invariant()
    def who_waits_has_heard_nothing(self) -> None:
        assert [waiter for waiter in self.waiting if waiter.outcome is not None] == []
        assert self.desk.held == len(self.waiting)

    @invariant()
    def the_report_is_true(self) -> None:
        report = self.desk.report()
        demand = report.pools.get(POOL, PoolDemand())
        assert demand.waiting == len(self.waiting)
        assert demand.in_flight == sum(not run.is_gone for run in self.granted) == self.desk.in_flight
        assert report.runs.keys() == self.routes.keys()
        assert (POOL in report.pools) == bool(self.routes or self.waiting)
        before, self.told = self.told, (report.at_secs, demand)
        since, was = before
        if was.began_secs == demand.began_secs:
            # Time passes before something happens, so all of it was passed as it was told before.
            passed = report.at_secs - since
            assert demand.in_flight_secs == pytest.approx(was.in_flight_secs + was.in_flight * passed, abs=1e-6)
            assert demand.waiting_secs == pytest.approx(was.waiting_secs + was.waiting * passed, abs=1e-6)
        known = demand.in_flight + demand.waiting + demand.finished + demand.refused
        assert demand.arrivals >= known  # the others have left


TestDesk = DeskModel.TestCase
