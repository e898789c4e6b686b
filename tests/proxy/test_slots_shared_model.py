"""
Many gateways, autoscalers that take turns, and a network that loses and delays: what holds whatever happens.

All that decides is real: the desks, what they borrow and give back, the ledger, what a demand report says and when a
run counts as drained. What is simple is the autoscaler: whoever leads starts a run where somebody waits and there is a
place for one, drains one that nobody uses, and ends it when it is drained; its writes arrive late, or never.
"""

from __future__ import annotations

import copy
from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from proxy.slot_world import Flight, Gateway, Letter, World

from gateway.core.demand import is_drained
from gateway.core.lifecycle import Readiness
from gateway.core.slot_leases import LEASE_SECS, SlotLedger

_PLACES = 2
_LEAD_SECS = 4.0
_COPY_LAG_SECS = 1.0


@dataclass(eq=False)
class Start:
    """What an autoscaler has decided: a run for a place, by what it had read of the records."""

    place: int
    version: int
    token: int


@dataclass(eq=False)
class Autoscaler:
    """*token* is that of its lead, as far as it knows."""

    token: int = 0
    under_way: list[Start] = field(default_factory=list)


class SharedSlots(RuleBasedStateMachine):
    """One pool of at most two runs."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.began_at = self.world.now
        self.autoscalers = [Autoscaler(), Autoscaler()]
        self.newest_token, self.leader, self.lead_until = 0, self.autoscalers[0], 0.0
        self.places: dict[int, str] = {}
        self.places_version = 0
        self.draining: dict[str, int] = {}
        self.copies: deque[tuple[float, SlotLedger]] = deque()
        self.lost_at = self.world.now

    @initialize(limit=st.sampled_from([1, 2, 3, 7]), gateways=st.integers(1, 3), is_new=st.booleans())
    def begin(self, limit: int, gateways: int, is_new: bool) -> None:
        """All is well, with one run that serves."""
        self.world.limit = limit
        for _ in range(gateways):
            self.world.add_gateway()
        self.world.settle_down(0.0 if is_new else LEASE_SECS + 1, 7.0)
        self.places[0] = self.world.serving_run()
        for gateway in self.world.gateways:
            gateway.request()
        self.world.settle_down(0.0 if is_new else 2.0)

    # gateways and requests

    @precondition(lambda self: len(self.world.gateways) < 4)
    @rule()
    def a_gateway_joins(self) -> None:
        self.world.add_gateway()

    def some(self, data: st.DataObject) -> Gateway:
        return self.world.gateways[data.draw(st.integers(0, len(self.world.gateways) - 1))]

    @precondition(lambda self: self.world.gateways)
    @rule(data=st.data(), times=st.integers(1, 3))
    def requests_come(self, data: st.DataObject, times: int) -> None:
        self.call(self.some(data), times)

    def call(self, gateway: Gateway, times: int) -> None:
        for _ in range(times):
            if len(gateway.waiting) < 5:
                gateway.request()

    @property
    def flights(self) -> list[Flight]:
        return [flight for gateway in self.world.gateways for flight in gateway.flights]

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def a_request_ends(self, data: st.DataObject) -> None:
        flight = self.flights[data.draw(st.integers(0, len(self.flights) - 1))]
        flight.gateway.finish(flight)

    @precondition(lambda self: self.world.gateways)
    @rule(data=st.data())
    def a_gateway_has_time(self, data: st.DataObject) -> None:
        gateway = self.some(data)
        if gateway.news and not gateway.is_cut_off:
            gateway.hear()
        gateway.step()

    @precondition(lambda self: len(self.world.gateways) > 1)
    @rule(data=st.data(), is_proven=st.booleans())
    def a_gateway_dies(self, data: st.DataObject, is_proven: bool) -> None:
        self.world.kill(self.some(data), is_proven=is_proven)

    # the network

    @precondition(lambda self: self.world.air)
    @rule(data=st.data(), is_lost=st.sampled_from([False, False, False, True]))
    def something_is_under_way(self, data: st.DataObject, is_lost: bool) -> None:
        letter: Letter = self.world.air[data.draw(st.integers(0, len(self.world.air) - 1))]
        if is_lost:
            self.world.air.remove(letter)
            return
        self.copies.append((self.world.now, copy.deepcopy(self.world.ledger)))
        self.world.arrive(letter)

    @precondition(lambda self: any(gateway.call for gateway in self.world.gateways))
    @rule(data=st.data())
    def a_call_is_given_up(self, data: st.DataObject) -> None:
        calling = [gateway for gateway in self.world.gateways if gateway.call]
        calling[data.draw(st.integers(0, len(calling) - 1))].give_up()

    @precondition(lambda self: self.world.gateways)
    @rule(data=st.data())
    def a_gateway_is_cut_off_or_no_more(self, data: st.DataObject) -> None:
        gateway = self.some(data)
        gateway.is_cut_off = not gateway.is_cut_off

    @precondition(lambda self: self.world.now - self.lost_at > LEASE_SECS)
    @rule()
    def all_signals_are_lost(self) -> None:
        self.lost_at = self.world.now
        self.copies.clear()
        self.world.lose_all()

    @precondition(lambda self: self.copies and self.world.now - self.lost_at > LEASE_SECS)
    @rule()
    def another_server_takes_over(self) -> None:
        """It lacks the last second."""
        self.lost_at = self.world.now
        self.world.take_over(self.copies[0][1])
        self.copies.clear()

    @rule(secs=st.sampled_from([0.05, 0.5, 3.0, 20.0, 74.0, 91.0]))
    def time_passes(self, secs: float) -> None:
        """Nobody does anything meanwhile."""
        self.world.pass_time(secs)
        self.forget_old_copies()

    @rule(secs=st.sampled_from([0.2, 2.0, 20.0, 80.0, 95.0]), times=st.integers(0, 8), data=st.data())
    def all_is_well_for_a_while(self, secs: float, times: int, data: st.DataObject) -> None:
        """But for those that are cut off; meanwhile requests come to one gateway, and nobody's end."""
        for at in range(10):
            self.world.pass_time(secs / 10)
            if times and self.world.gateways and at in (2, 8):
                self.call(self.some(data), times)
            for gateway in self.world.gateways:
                if gateway.call is not None and not self.world.air:
                    gateway.give_up()
                while gateway.news and not gateway.is_cut_off:
                    gateway.hear()
                gateway.step()
            while self.world.air:
                self.copies.append((self.world.now, copy.deepcopy(self.world.ledger)))
                self.world.arrive(self.world.air[0])
        self.forget_old_copies()

    def forget_old_copies(self) -> None:
        while self.copies and self.world.now - self.copies[0][0] > _COPY_LAG_SECS:
            self.copies.popleft()

    # autoscalers

    @rule(number=st.integers(0, 1))
    def an_autoscaler_asks_for_the_lead(self, number: int) -> None:
        asking = self.autoscalers[number]
        if self.leader is asking or self.world.now >= self.lead_until:
            if self.leader is not asking or self.world.now >= self.lead_until or not asking.token:
                self.newest_token += 1
            self.leader, self.lead_until = asking, self.world.now + _LEAD_SECS
            asking.token = self.newest_token

    @rule(number=st.integers(0, 1))
    def an_autoscaler_decides(self, number: int) -> None:
        """Also one that leads no more and has not heard of it."""
        deciding = self.autoscalers[number]
        waiting = any(gateway.waiting for gateway in self.world.gateways)
        free = [place for place in range(_PLACES) if place not in self.places]
        if deciding.token and waiting and free:
            deciding.under_way.append(Start(free[0], self.places_version, deciding.token))

    @precondition(lambda self: any(one.under_way for one in self.autoscalers))
    @rule(number=st.integers(0, 1), is_lost=st.booleans())
    def a_write_arrives(self, number: int, is_lost: bool) -> None:
        writing = self.autoscalers[number]
        if not writing.under_way:
            return
        start = writing.under_way.pop(0)
        if is_lost or start.token < self.newest_token or start.version != self.places_version:
            return
        assert start.place not in self.places, "started twice for one place"
        self.places_version += 1
        self.places[start.place] = self.world.start_run().run_id

    @precondition(lambda self: self.world.routes)
    @rule(data=st.data(), readiness=st.sampled_from([None, Readiness.SERVING, Readiness.FROZEN, Readiness.DRAINING]))
    def a_run_goes_on(self, data: st.DataObject, readiness: Readiness | None) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.world.routes)))
        if self.world.routes[run_id].readiness is Readiness.DRAINING:
            return
        if readiness is None or self.world.routes[run_id].address is None:
            self.world.place(run_id)
        elif readiness is Readiness.DRAINING:
            self.draining[run_id] = self.world.turn(run_id, readiness)
        else:
            self.world.turn(run_id, readiness)

    @precondition(lambda self: self.draining)
    @rule()
    def what_is_drained_ends(self) -> None:
        """No request is in it, whoever hears of its end whenever."""
        for run_id, version in list(self.draining.items()):
            reports = [gateway.desk.report() for gateway in self.world.gateways]
            if is_drained(run_id, version, reports):
                assert not [flight for flight in self.flights if flight.run.route.run_id == run_id]
                del self.draining[run_id]
                self.places = {place: other for place, other in self.places.items() if other != run_id}
                self.places_version += 1
                self.world.end_run(run_id)

    # what holds

    @invariant()
    def no_run_is_above_its_limit(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        """When all has been quiet for a while, whoever asks is served, and one gateway may use all there is."""
        world = self.world
        for gateway in world.gateways:
            gateway.is_cut_off = False
        for run_id in list(world.routes):
            if world.routes[run_id].readiness is not Readiness.DRAINING:
                world.turn(run_id, Readiness.SERVING)
        if not any(one.readiness is Readiness.SERVING for one in world.routes.values()):
            world.serving_run()
        world.settle_down(LEASE_SECS + 10, 5.0)
        self.whoever_asks_has_what_is_free()
        for _ in range(60):
            for flight in self.flights:
                flight.gateway.finish(flight)
            world.settle_down(0.4, 0.2)
            if not any(gateway.waiting or gateway.flights for gateway in world.gateways):
                break
        assert not any(gateway.waiting or gateway.flights for gateway in world.gateways), "somebody is never served"
        world.settle_down(10.0, 0.5)
        serving = [one for one in world.routes.values() if one.readiness is Readiness.SERVING]
        for gateway in world.gateways:
            for _ in range(world.limit * len(serving)):
                gateway.request()
            world.settle_down(10.0, 0.5)
            assert not gateway.waiting, "a slot that was borrowed did not come back"
            for flight in list(gateway.flights):
                gateway.finish(flight)

    def whoever_asks_has_what_is_free(self) -> None:
        """Though those that had waited have left, and whatever is in flight stays."""
        world = self.world
        for gateway in world.gateways:
            while gateway.waiting:
                gateway.desk.leave(gateway.waiting.pop())
        world.settle_down(10.0, 0.5)
        serving = [one.run_id for one in world.routes.values() if one.readiness is Readiness.SERVING]
        in_use = Counter(flight.run.route.run_id for flight in self.flights)
        if all(in_use[run_id] >= world.limit for run_id in serving):
            return
        for gateway in world.gateways:
            before = list(gateway.flights)
            gateway.request()
            world.settle_down(5.0, 0.5)
            assert not gateway.waiting, "a slot is free, and somebody waits for it"
            (flight,) = (flight for flight in gateway.flights if flight not in before)
            gateway.finish(flight)


SharedSlots.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestSharedSlots = pytest.mark.slow(SharedSlots.TestCase)
