"""What a gateway asks for and gives back: the examples, by name. ``test_slots_shared_model.py`` has what must hold."""

from __future__ import annotations

import pytest
from proxy.slot_world import Gateway, World, world

from gateway.boot_clock import boot_time
from gateway.core.slot_leases import HOLD_SECS, LEASE_SECS, SlotMessage
from gateway.proxy.slot_broker import SlotBroker
from gateway.state.signals_memory import MemorySignals


def fly(gateway: Gateway, times: int) -> None:
    for _ in range(times):
        gateway.request()


def land(gateway: Gateway) -> None:
    """Until nobody waits there."""
    while gateway.flights:
        gateway.finish(gateway.flights[0])


@pytest.mark.parametrize(
    ("limit", "gateways"),
    [
        pytest.param(1, 1, id="one gateway"),
        pytest.param(2, 1, id="one gateway, two slots"),
        pytest.param(6, 3, id="twice the number of gateways"),
        pytest.param(10, 3, id="more"),
    ],
)
def test_warm_requests_make_no_call(limit: int, gateways: int) -> None:
    """A thousand at each gateway, one after the other: only the calls that time asks for are made."""
    shared = world(limit, gateways)
    for _ in range(1000):
        for gateway in shared.gateways:
            gateway.request()
            assert len(gateway.flights) == 1
            land(gateway)
            gateway.step()
    assert [gateway.calls for gateway in shared.gateways] == [0] * gateways
    assert [gateway.pokes for gateway in shared.gateways] == [0] * gateways


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_few_slots_take_one_call_for_each_request_at_most(limit: int) -> None:
    """Three gateways under pressure, one run: each request that is through makes one call, of whoever gives back."""
    shared = world(limit, 3)
    for gateway in shared.gateways:
        fly(gateway, 50)
    done = 0
    while any(gateway.flights or gateway.waiting for gateway in shared.gateways):
        shared.round(0.001)
        for gateway in shared.gateways:
            if gateway.flights:
                gateway.finish(gateway.flights[0])
                done += 1
        assert shared.now < 1100
    assert done == 150
    assert sum(gateway.calls for gateway in shared.gateways) <= 150 + 10 * (shared.now - 1000)


def test_a_gateway_that_waits_gets_the_idle_slots_of_others() -> None:
    """At once, not when they have been idle for a while; of those that were just used, others keep one."""
    shared = world(12, 3)
    busy, *others = shared.gateways
    for other in others:
        fly(other, 1)
        land(other)
    fly(busy, 12)
    shared.round(0.01)
    assert (len(busy.flights), len(busy.waiting)) == (10, 2)
    shared.settle_down(3.0)
    assert (len(busy.flights), len(busy.waiting)) == (12, 0)


def test_a_gateway_under_load_leaves_others_their_part() -> None:
    """Its slots go as its requests end, down to its fair part: who comes later waits for a request or two."""
    shared = world(4, 2)
    first, second = shared.gateways
    fly(first, 30)
    shared.settle_down(3.0)
    assert len(first.flights) == 4
    fly(second, 2)
    shared.round()
    for flight in first.flights[:2]:
        first.finish(flight)
    shared.round()
    assert (len(first.flights), len(second.flights)) == (2, 2)


def test_what_was_idle_for_a_while_goes_back_down_to_the_fair_part() -> None:
    """Where nobody asks for it."""
    shared = world(12, 3)
    busy = shared.gateways[0]
    fly(busy, 12)
    shared.settle_down(3.0)
    land(busy)
    shared.settle_down(2.0)
    (run,) = busy.desk.routes.all_runs()
    assert run.quota > 4
    shared.settle_down(3.0)
    assert run.quota == 4


@pytest.mark.parametrize(
    ("cut_off_secs", "may_go_on"),
    [
        pytest.param(HOLD_SECS - 2, True, id="for less than it may hold"),
        pytest.param(HOLD_SECS + 1, False, id="for longer"),
    ],
)
def test_a_gateway_that_is_cut_off_goes_on_for_a_while(cut_off_secs: float, may_go_on: bool) -> None:
    """With what it has; then it takes nothing new, also where it was stopped and nobody could tell it the time."""
    shared = world(4, 2)
    first, _ = shared.gateways
    first.is_cut_off = True
    shared.pass_time(cut_off_secs)
    first.request()
    assert len(first.flights) == may_go_on
    assert len(first.waiting) == (not may_go_on)
    first.is_cut_off = False
    shared.settle_down(3.0)
    assert (len(first.flights), len(first.waiting)) == (1, 0)


@pytest.mark.parametrize("slept_secs", [HOLD_SECS - 2, HOLD_SECS + 1])
def test_a_gateway_whose_machine_sleeps_counts_that_time_too(slept_secs: float) -> None:
    """What it had is lent to others meanwhile; the first request that comes is not given a slot of it."""
    shared = world(4, 2)
    first, _ = shared.gateways
    first.request()
    land(first)
    shared.pass_time(slept_secs)
    first.slept_secs += slept_secs
    first.request()
    assert len(first.flights) == (slept_secs < HOLD_SECS)
    shared.settle_down(3.0)
    assert (len(first.flights), len(first.waiting)) == (1, 0)


def test_a_process_reads_the_clock_that_goes_on_while_its_machine_sleeps() -> None:
    """For what it has borrowed."""
    desk = world(4, 1).gateways[0].desk
    SlotBroker("gateway", desk, MemorySignals().slots, poke=lambda: None)
    assert desk.quota_clock is boot_time


def test_others_get_what_a_silent_one_had_after_its_time() -> None:
    """Not before; of one that is proven dead at once."""
    shared = world(4, 3)
    silent, dead, other = shared.gateways
    shared.kill(silent, is_proven=False)
    shared.kill(dead, is_proven=True)
    fly(other, 4)
    shared.settle_down(LEASE_SECS - 5)
    assert len(other.flights) == 3
    shared.settle_down(6.0)
    assert len(other.flights) == 4


def test_a_newcomer_has_slots_within_a_moment() -> None:
    """All who are there say at once that they know it."""
    shared = world(4, 2)
    new = shared.add_gateway()
    for _ in range(3):
        shared.round()
    new.request()
    shared.round()
    shared.round()
    assert (len(new.flights), len(new.waiting)) == (1, 0)
    fly(new, 1)


def test_after_a_loss_of_everything_all_goes_on_when_all_have_spoken() -> None:
    """Warm requests at once; what has to be lent anew as soon as every gateway has told what it has."""
    shared = world(2, 2)
    first, second = shared.gateways
    fly(first, 1)
    shared.lose_all()
    assert len(first.flights) == 1
    fly(second, 2)
    shared.settle_down(2.0)
    assert (len(first.flights), len(second.flights), len(second.waiting)) == (1, 1, 1)
    land(first)
    shared.settle_down(3.0)
    assert len(second.flights) == 2


def test_a_limit_that_is_lowered_is_kept_as_requests_end() -> None:
    """Over all gateways, though none of them alone is above it."""
    shared = world(6, 2)
    first, second = shared.gateways
    fly(first, 3)
    fly(second, 3)
    shared.limit = 2
    shared.check = lambda: None  # type: ignore[method-assign]
    fly(first, 1)
    fly(second, 1)
    shared.settle_down(2.0)
    for _ in range(3):
        for gateway in shared.gateways:
            gateway.finish(gateway.flights[0])
        shared.round()
    del shared.check  # type: ignore[method-assign]
    shared.check()
    shared.settle_down(3.0)
    assert not first.waiting
    assert not second.waiting
    assert len(first.flights) + len(second.flights) == 2


def test_a_gateway_that_stops_gives_back_what_it_does_not_use() -> None:
    """The rest as its requests end; the next worker gets it."""
    shared = world(4, 1)
    (old,) = shared.gateways
    fly(old, 3)
    new = shared.add_gateway()
    shared.settle_down(1.0)
    old.book.retire()
    fly(new, 4)
    shared.settle_down(1.0)
    assert (len(old.flights), len(new.flights)) == (3, 1)
    old.finish(old.flights[0])
    shared.settle_down(1.5)
    assert (len(old.flights), len(new.flights)) == (2, 2)


def test_a_run_that_was_gone_for_a_moment_is_not_overfilled() -> None:
    """Its requests count on, when it is there again after signals were lost."""
    shared = world(2, 1)
    (gateway,) = shared.gateways
    fly(gateway, 2)
    routes = dict(shared.routes)
    shared.routes.clear()
    shared.lose_all()
    shared.hear_all()
    shared.routes.update(routes)
    shared.lose_all()
    shared.hear_all()
    fly(gateway, 1)
    shared.settle_down(2.0)
    assert (len(gateway.flights), len(gateway.waiting)) == (2, 1)
    gateway.finish(gateway.flights[0])
    shared.settle_down(2.0)
    assert (len(gateway.flights), len(gateway.waiting)) == (2, 0)


def test_what_is_in_flight_counts_though_its_run_was_gone_for_a_moment() -> None:
    """For others too, and though nobody has asked its gateway for a slot since."""
    shared = world(2, 2)
    first, second = shared.gateways
    fly(first, 2)
    shared.settle_down(3.0)
    assert len(first.flights) == 2
    routes = dict(shared.routes)
    shared.routes.clear()
    shared.lose_all()
    shared.round(1.0)
    shared.routes.update(routes)
    shared.lose_all()
    fly(second, 2)
    shared.settle_down(LEASE_SECS + 10, 2.0)
    assert (len(first.flights), len(second.flights)) == (2, 0)
    land(first)
    shared.settle_down(3.0)
    assert len(second.flights) == 2


def test_where_no_slot_is_to_be_had_the_autoscaler_is_poked() -> None:
    """But not for a request that only waits for a slot to be borrowed."""
    shared = world(1, 2)
    first, second = shared.gateways
    fly(first, 1)
    shared.round()
    first.pokes = second.pokes = 0
    fly(second, 1)
    assert second.pokes == 0
    shared.round()
    assert second.pokes > 0


def test_an_answer_that_comes_too_late_is_none() -> None:
    """What it granted was taken back by the next call, which did not know of it."""
    shared = world(3, 2)
    first, second = shared.gateways
    fly(first, 1)
    first.step()
    fly(first, 1)
    first.step()
    (call,) = [letter for letter in shared.air if letter.gateway is first]
    shared.arrive(call)
    (late,) = [letter for letter in shared.air if letter.gateway is first]
    shared.air.clear()
    first.give_up()
    land(first)
    for _ in range(3):
        shared.round(1.0)
    fly(second, 3)
    shared.settle_down(3.0)
    first.step()
    shared.air.insert(0, late)
    shared.arrive(late)
    shared.settle_down(3.0)
    assert len(second.flights) == 3
    shared.check()


def test_a_slot_that_was_granted_by_a_lost_message_comes_back() -> None:
    """Within moments, also where nobody needs it any more who could ask."""
    shared = world(1, 3)
    first, second, third = shared.gateways
    fly(first, 1)
    fly(second, 1)
    shared.round()
    first.finish(first.flights[0])
    first.step()
    shared.arrive(shared.air[0])
    shared.air.clear()
    first.give_up()
    second.desk.leave(second.waiting.pop())
    shared.settle_down(1.5)
    fly(third, 1)
    shared.settle_down(1.5)
    assert len(third.flights) == 1


def test_nobody_waits_for_one_that_had_left_before_everything_was_lost() -> None:
    """Also where the ledger was closed when it left: the others have heard that it is not named any more."""
    shared = World(limit=1)
    shared.began_at = shared.now
    first, second, dead = (shared.add_gateway() for _ in range(3))
    shared.settle_down(1.0)
    shared.serving_run()
    shared.kill(dead, is_proven=True)
    shared.settle_down(2.0)
    shared.lose_all()
    fly(first, 1)
    shared.settle_down(1.0)
    assert len(first.flights) == 1
    fly(second, 1)
    land(first)
    shared.settle_down(1.0)
    assert len(second.flights) == 1


def test_a_slot_that_was_granted_while_its_gateway_stood_still_is_none() -> None:
    """Its time may be over; the next call tells."""
    shared = world(1, 2)
    first, second = shared.gateways
    fly(first, 1)
    shared.settle_down(1.0)
    fly(second, 1)
    shared.round()
    first.finish(first.flights[0])
    first.step()
    shared.arrive(shared.air[0])
    (granted,) = [letter for letter in shared.air if isinstance(letter.words, SlotMessage)]
    assert granted.gateway is second
    shared.air.clear()
    shared.pass_time(HOLD_SECS + 1)
    fly(second, 1)
    shared.air.append(granted)
    shared.arrive(granted)
    assert second.flights == []
    shared.settle_down(3.0)
    assert len(second.flights) == 1


def test_a_busy_gateway_names_all_that_it_has_before_the_store_forgets_it() -> None:
    """Of a run in which nothing changes too, while somebody waits for another one and is asked for all the time."""
    shared = World(limit=2)
    other, busy = (shared.add_gateway() for _ in range(2))
    shared.settle_down(1.0)
    shared.serving_run()
    fly(other, 2)
    shared.settle_down(1.0)
    unchanged = shared.serving_run()
    fly(busy, 2)
    shared.settle_down(1.0)
    assert {flight.run.route.run_id for flight in busy.flights} == {unchanged}
    fly(busy, 1)
    shared.settle_down(700.0, 0.25)
    assert len(busy.waiting) == 1
    assert busy.calls > 700 / 0.5
    assert shared.now - shared.named_at[busy.name, unchanged] < 650


def test_who_was_to_give_slots_back_gets_others_once_nobody_wants_them() -> None:
    """Whoever wanted them has left: the rest is free for all, though they are too few to keep any."""
    shared = world(4, 3)
    busy, hasty, _ = shared.gateways
    for _ in range(3):
        fly(busy, 1)
        shared.settle_down(1.0)
    fly(hasty, 2)
    shared.settle_down(1.0)
    assert (len(busy.flights), len(hasty.flights), len(hasty.waiting)) == (3, 1, 1)
    hasty.desk.leave(hasty.waiting.pop())
    land(hasty)
    fly(busy, 1)
    shared.settle_down(4.0)
    assert (len(busy.flights), len(busy.waiting)) == (4, 0)


def test_who_is_to_give_slots_back_and_needs_more_has_the_autoscaler_poked() -> None:
    """It asks for none, since others wait for those that it has, but one more run would help it."""
    shared = world(4, 3)
    busy, other, _ = shared.gateways
    for _ in range(4):
        fly(busy, 1)
        shared.settle_down(1.0)
    fly(other, 1)
    shared.settle_down(1.0)
    fly(busy, 1)
    busy.pokes = 0
    shared.settle_down(1.5)
    assert (len(other.waiting), len(busy.waiting)) == (1, 1)
    assert busy.pokes > 0


@pytest.mark.parametrize(("limit", "gateways"), [(2, 2), (3, 2), (5, 3), (4, 2)])
def test_a_stream_that_outlives_an_outage_keeps_nobody_from_free_slots(limit: int, gateways: int) -> None:
    """Of the same run, in its gateway."""
    shared = world(limit, gateways)
    streaming = shared.gateways[0]
    fly(streaming, 1)
    shared.settle_down(1.0)
    for gateway in shared.gateways:
        gateway.is_cut_off = True
    for _ in range(80):
        shared.round(1.0)
    for gateway in shared.gateways:
        gateway.is_cut_off = False
    fly(streaming, 1)
    shared.settle_down(5.0)
    assert (len(streaming.flights), len(streaming.waiting)) == (2, 0)


def test_a_stream_in_a_run_that_was_gone_for_a_moment_keeps_nobody_from_free_slots() -> None:
    """As after an outage."""
    shared = world(3, 2)
    streaming = shared.gateways[0]
    fly(streaming, 1)
    shared.settle_down(1.0)
    routes = dict(shared.routes)
    shared.routes.clear()
    shared.lose_all()
    shared.round(1.0)
    shared.routes.update(routes)
    shared.lose_all()
    shared.settle_down(LEASE_SECS + 10, 2.0)
    fly(streaming, 1)
    shared.settle_down(5.0)
    assert (len(streaming.flights), len(streaming.waiting)) == (2, 0)
