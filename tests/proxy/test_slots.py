"""Who gets which slot: the examples, by name. ``test_slots_model.py`` has the rules of all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from proxy.slots_bench import (
    ELSEWHERE,
    NEW,
    POOL,
    Bench,
    ended,
    failed,
    granted,
    route,
    waits,
    want,
)

from gateway.core.demand import PoolDemand
from gateway.core.errors import (
    GreenroomError,
    ShuttingDown,
    StandbyRunFailed,
    StandbyRunFinished,
    StandbyRunNotReady,
    WaitedTooLong,
    WaitingRoomFull,
)
from gateway.core.lifecycle import Readiness
from gateway.core.standby import PoolKey
from gateway.proxy.route_table import LiveRun
from gateway.proxy.slots import Held
from gateway.state.ports import PoolBlocked, RoutesReset, RunRoute


def test_a_warm_request_takes_a_slot_at_once() -> None:
    """And gives it back: the run is idle from then on."""
    bench = Bench()
    bench.apply(route("a"))
    run = bench.desk.take(want())
    assert run is bench.run("a")
    assert (run.taken, bench.desk.in_flight) == (1, 1)
    bench.now = 130.0
    bench.desk.give_back(run)
    assert (run.taken, run.used_at, bench.desk.in_flight) == (0, 130.0, 0)


def test_exactly_as_many_are_let_through_as_there_is_room_for() -> None:
    """25 wait; a run with 10 slots begins to serve: 10 go in, with their slots taken, and 15 wait on."""
    bench = Bench()
    bench.apply(route("a", Readiness.STARTING))
    waiters = [waits(bench, want(10)) for _ in range(25)]
    bench.apply(route("a"))
    assert granted(waiters) == waiters[:10]
    assert (bench.run("a").taken, bench.desk.held) == (10, 15)
    bench.desk.give_back(bench.run("a"))
    assert granted(waiters) == waiters[:11]
    assert bench.run("a").taken == 10


def test_only_those_whom_no_other_run_will_serve_hear_of_a_failed_start() -> None:
    """25 wait for 3 starting runs of 10, and one fails: 5 are told, those who have waited longest."""
    bench = Bench()
    bench.apply(*(route(run_id, Readiness.STARTING) for run_id in "abc"))
    waiters = [waits(bench, want(10)) for _ in range(25)]
    bench.apply(ended("a", StandbyRunFinished.error_type))
    assert failed(waiters) == waiters[:5]
    bench.apply(ended("b", StandbyRunFinished.error_type))
    assert failed(waiters) == waiters[:15]
    bench.apply(ended("c", StandbyRunFinished.error_type))
    assert failed(waiters) == waiters


def test_never_more_are_told_than_the_failed_run_would_have_served() -> None:
    """25 wait for one run of 10 (the next is not started yet): 10 hear, 15 wait for the next."""
    bench = Bench()
    bench.apply(route("a", Readiness.STARTING))
    waiters = [waits(bench, want(10)) for _ in range(25)]
    pokes = bench.pokes
    bench.apply(ended("a", StandbyRunFinished.error_type))
    assert len(failed(waiters)) == 10
    assert bench.desk.held == 15
    assert bench.pokes > pokes


def test_when_a_serving_run_dies_the_autoscaler_looks_at_once() -> None:
    """Those who wait are told nothing, for the next run will serve them; but it must be started now."""
    bench = Bench()
    bench.apply(route("a"))
    taken = bench.desk.take(want(1))
    waiter = waits(bench, want(1))
    pokes = bench.pokes
    assert bench.apply(ended("a")) == [taken]
    assert bench.pokes > pokes
    assert waiter.outcome is None
    assert taken is not None
    bench.desk.give_back(taken)
    assert waiter.outcome is None


@pytest.mark.parametrize(
    ("error_type", "is_owner", "kind"),
    [
        pytest.param("standby-run-finished", True, StandbyRunFinished, id="ended, to its owner"),
        pytest.param("standby-run-finished", False, StandbyRunFinished, id="ended, to another"),
        pytest.param("standby-run-not-ready", False, StandbyRunNotReady, id="never listened"),
        pytest.param("standby-run-failed", False, StandbyRunFailed, id="could not be started"),
        pytest.param("something-new", False, StandbyRunFailed, id="a type of a newer supervisor"),
    ],
)
def test_the_reason_of_a_failed_start(error_type: str, is_owner: bool, kind: type[GreenroomError]) -> None:
    """Run id and exit code for everybody, the end of its log for its owner only."""
    bench = Bench()
    bench.apply(route("a", Readiness.STARTING))
    waiter = waits(bench, want(is_owner=is_owner))
    bench.apply(ended("a", error_type))
    assert type(waiter.outcome) is kind
    facts = {"runId": "a", "exitCode": 3}
    assert waiter.outcome.data == (facts | {"logTail": ["last line"]} if is_owner else facts)
    assert bench.desk.report().pools == {}


def test_a_full_waiting_room_is_told_exactly() -> None:
    """The last place is taken, the next request is refused, and its refusal changes nothing."""
    bench = Bench(room_size=2)
    first, second = waits(bench, want()), waits(bench, want())
    assert bench.desk.take(want()) is None
    with pytest.raises(WaitingRoomFull) as full:
        bench.desk.hold(Held(caller="ann", want=want(), settle=lambda _: pytest.fail("was never held")))
    assert full.value.held == 2
    bench.desk.leave(first.held)
    third = waits(bench, want())
    bench.apply(route("a"))
    assert granted([first, second, third]) == [second, third]


def test_pools_do_not_see_each_other() -> None:
    """One pool's slots, places and failures are none of another's."""
    bench = Bench(room_size=1)
    here, there = waits(bench, want()), waits(bench, want(pool=ELSEWHERE))
    bench.apply(route("b", pool=ELSEWHERE))
    assert (here.outcome, there.outcome) == (None, bench.run("b"))
    bench.apply(PoolBlocked(pool=ELSEWHERE, message=""))
    assert here.outcome is None
    report = bench.desk.report()
    now = {key: (demand.in_flight, demand.waiting) for key, demand in report.pools.items()}
    assert now == {POOL: (0, 1), ELSEWHERE: (1, 0)}


def test_newcomers_never_overtake() -> None:
    """While somebody waits nobody takes a slot, and callers go in turn."""
    bench = Bench()
    bench.apply(route("a"))
    run = bench.desk.take(want(1))
    assert run is not None
    waiters = [waits(bench, want(1, caller=caller)) for caller in ("ann", "ann", "ann", "bob")]
    order = []
    for _ in waiters:
        bench.desk.give_back(run)
        order.append(next(n for n, waiter in enumerate(waiters) if waiter.outcome is run and n not in order))
    assert order == [0, 3, 1, 2]


def test_nothing_goes_to_a_draining_run() -> None:
    """What it has is finished; when its last one ends, the autoscaler hears of it."""
    bench = Bench()
    bench.apply(route("a"))
    run = bench.desk.take(want())
    assert run is not None
    bench.desk.view(run)
    bench.apply(route("a", Readiness.DRAINING))
    waiter = waits(bench, want())
    pokes = bench.pokes
    bench.desk.give_back(run)
    assert bench.pokes == pokes
    bench.desk.end_view(run)
    assert bench.pokes == pokes + 1
    assert waiter.outcome is None


def test_an_older_generation_takes_only_what_the_new_one_has_no_room_for() -> None:
    """All while the new one starts, nothing while that has a free slot, the rest of it when that is full."""
    bench = Bench()
    bench.apply(route("a"), route("b", Readiness.STARTING, generation=NEW))
    assert bench.desk.take(want(generation=NEW)) is bench.run("a")
    bench.apply(route("b", generation=NEW))
    for _ in range(10):
        assert bench.desk.take(want(generation=NEW)) is bench.run("b")
    for _ in range(9):
        assert bench.desk.take(want(generation=NEW)) is bench.run("a")
    assert bench.desk.take(want(generation=NEW)) is None
    assert (bench.run("a").taken, bench.run("b").taken) == (10, 10)


def test_who_waits_gets_a_slot_of_whichever_generation_has_one() -> None:
    """A deploy under load is no gap: a slot that the old build's run gets free is used until that run is retired."""
    bench = Bench()
    bench.apply(route("a"), route("b", generation=NEW))
    for run_id in "ba":
        assert bench.desk.take(want(1, generation=NEW)) is bench.run(run_id)
    waiters = [waits(bench, want(1, generation=NEW)) for _ in range(3)]
    bench.desk.give_back(bench.run("a"))
    bench.desk.give_back(bench.run("b"))
    assert [waiter.outcome for waiter in waiters] == [bench.run("a"), bench.run("b"), None]
    bench.apply(route("a", Readiness.DRAINING))
    bench.desk.give_back(bench.run("a"))
    assert waiters[2].outcome is None


def test_who_avoids_the_new_build_goes_to_the_old_one() -> None:
    """The new build's only run refused this request: it does not wait beside a free slot."""
    bench = Bench()
    bench.apply(route("a"), route("b", generation=NEW))
    assert bench.desk.take(want(generation=NEW), avoid=frozenset({"b"})) is bench.run("a")


def test_who_leaves_takes_nothing_of_the_present_settings_along() -> None:
    """A request from before the new build gives up; those after it still go to the new build's run first."""
    bench = Bench()
    bench.apply(route("a", Readiness.STARTING), route("b", Readiness.STARTING, generation=NEW))
    early, late = waits(bench, want(1)), waits(bench, want(1, generation=NEW))
    bench.desk.leave(early.held)
    bench.apply(RoutesReset(routes=(route("a"), route("b", generation=NEW))))
    assert (early.outcome, late.outcome) == (None, bench.run("b"))


def test_who_borrows_slots_hears_of_a_run_that_is_there_after_a_reset() -> None:
    """As of one that came by itself: somebody waits for it."""
    bench, told = Bench(), list[PoolKey]()
    waiter = waits(bench, want(1))
    bench.desk.on_change = told.append
    bench.desk.routes.first_quota = 0
    bench.apply(RoutesReset(routes=(route("a"),)))
    assert (waiter.outcome, told) == (None, [POOL])
    bench.desk.grant(bench.run("a"), 1)
    assert waiter.outcome is bench.run("a")


def test_a_raised_limit_helps_those_who_wait_already() -> None:
    """They go first, into the slots that the new limit gave, when the first request knows of it."""
    bench = Bench()
    bench.apply(route("a"))
    assert bench.desk.take(want(1)) is not None
    early = waits(bench, want(1))
    late = waits(bench, want(3))
    assert granted([early, late]) == [early, late]
    assert bench.run("a").taken == 3
    assert bench.desk.held == 0


def test_a_raised_limit_helps_those_who_wait_also_where_no_more_may() -> None:
    """The request that brings the news finds the room full; that it is refused keeps nobody waiting."""
    bench = Bench(room_size=2)
    bench.apply(route("a"))
    assert bench.desk.take(want(1)) is not None
    early = [waits(bench, want(1)), waits(bench, want(1))]
    assert bench.desk.take(want(3)) is None
    with pytest.raises(WaitingRoomFull):
        bench.desk.hold(Held(caller="ann", want=want(3), settle=lambda _: pytest.fail("was never held")))
    assert granted(early) == early


def test_a_run_that_was_avoided_may_serve_in_the_end() -> None:
    """It refused, was probed and serves again: a request that still avoids it does not wait beside a free slot."""
    bench = Bench()
    bench.apply(route("a"))
    first = bench.desk.take(want())
    assert first is not None
    bench.desk.refused(first)
    bench.desk.give_back(first)
    bench.apply(route("a", Readiness.STARTING), route("a"))
    assert bench.desk.take(want(), avoid=frozenset({"a"})) is None
    told: list[LiveRun | GreenroomError] = []
    bench.desk.hold(Held(caller="ann", want=want(), settle=told.append))
    assert told == [first]


def test_a_run_that_refuses_gets_nothing_until_it_serves_again() -> None:
    """The autoscaler is told, at once and in the report."""
    bench = Bench()
    bench.apply(route("a"))
    run = bench.desk.take(want())
    assert run is not None
    bench.desk.refused(run)
    assert bench.pokes == 1
    bench.desk.give_back(run)
    waiter = waits(bench, want())
    assert bench.desk.report().runs["a"].has_refused
    bench.apply(route("a", Readiness.STARTING))
    assert waiter.outcome is None
    bench.apply(route("a"))
    assert waiter.outcome is run


def test_an_overloaded_run_gets_what_no_other_has_room_for() -> None:
    """New requests go to the others as long as they have room; then to it, and to it before a former build's."""
    bench = Bench()
    tired = replace(route("tired", generation=NEW), is_overloaded=True)
    bench.apply(tired, route("fresh", generation=NEW), route("former"))
    taken = [bench.desk.take(want(2, generation=NEW)) for _ in range(5)]
    names = [run.route.run_id for run in taken if run is not None]
    assert names == ["fresh", "fresh", "tired", "tired", "former"]
    for run in taken[:4]:
        assert run is not None
        bench.desk.give_back(run)
    bench.apply(replace(tired, is_overloaded=False))
    rested = [bench.desk.take(want(2, generation=NEW)) for _ in range(2)]
    assert {run.route.run_id for run in rested if run is not None} == {"fresh", "tired"}


def test_above_desired_everywhere_asks_for_one_ahead() -> None:
    """Below or at it, nobody is troubled."""
    bench = Bench()
    bench.apply(route("a"), route("b"))
    for _ in range(4):
        bench.desk.take(want(4, desired=2))
    assert bench.pokes == 0
    bench.desk.take(want(4, desired=2))
    assert bench.pokes == 0
    bench.desk.take(want(4, desired=2))
    assert bench.pokes == 1


def test_a_request_to_an_old_build_asks_for_the_new_one() -> None:
    """Its caller does not wait for it."""
    bench = Bench()
    bench.apply(route("a"))
    assert bench.desk.take(want(generation=NEW)) is bench.run("a")
    assert bench.pokes == 1


def test_thousands_who_are_gone_already_are_passed_over() -> None:
    """A waiter whose caller left in that very moment gives the slot back from within; the next one gets it."""
    bench = Bench(room_size=5001)
    for _ in range(5000):
        held = Held(caller="ann", want=want(1))
        held.settle = lambda run: bench.desk.give_back(run) if isinstance(run, LiveRun) else None
        assert bench.desk.take(want(1)) is None
        bench.desk.hold(held)
    last = waits(bench, want(1))
    bench.apply(route("a"))
    assert last.outcome is bench.run("a")
    assert (bench.run("a").taken, bench.desk.held) == (1, 0)


def test_a_blocked_pool_tells_everybody_why() -> None:
    """In the autoscaler's own words."""
    bench = Bench()
    waiters = [waits(bench, want()) for _ in range(3)]
    bench.apply(PoolBlocked(pool=POOL, message="Its build was deleted."))
    assert failed(waiters) == waiters
    error = waiters[0].outcome
    assert type(error) is StandbyRunFailed
    assert (error.http_status, error.error_type, error.message) == (503, "standby-run-failed", "Its build was deleted.")
    assert (bench.desk.held, bench.desk.report().pools) == (0, {})


def test_when_greenroom_stops_everybody_is_told() -> None:
    """Nobody waits on."""
    bench = Bench()
    waiters = [waits(bench, want(pool=pool)) for pool in (POOL, ELSEWHERE)]
    bench.desk.refuse_all(ShuttingDown())
    assert failed(waiters) == waiters
    assert (bench.desk.held, bench.desk.report().pools) == (0, {})


def test_the_report_tells_all_demand() -> None:
    """Per pool and per run, with viewers as use but not as requests, and the route change that was seen last."""
    bench = Bench()
    bench.apply(route("a"), route("b", Readiness.STARTING), route("batch", pool=None))
    bench.desk.take(want(1))
    bench.desk.view(bench.run("batch"))
    waits(bench, want(1))
    bench.now = 107.0
    report = bench.desk.report()
    assert (report.gateway_id, report.routes_seen) == ("gateway", 3)
    assert report.pools == {
        POOL: PoolDemand(
            in_flight=1, waiting=1, in_flight_secs=7.0, waiting_secs=7.0, arrivals=2, began_secs=bench.now - 7
        )
    }
    assert {run_id: (use.in_flight, use.viewers, use.idle_secs) for run_id, use in report.runs.items()} == {
        "a": (1, 0, 0.0),
        "b": (0, 0, 7.0),
        "batch": (0, 1, 0.0),
    }
    assert (bench.desk.held, bench.desk.in_flight) == (1, 2)


def test_the_next_idle_limit_is_known() -> None:
    """The soonest of the unused runs' limits that is still to come; none while nothing is unused."""
    bench = Bench()
    assert bench.desk.secs_to_idle_limit() == float("inf")
    bench.apply(route("a"))
    run = bench.desk.take(want())
    assert run is not None
    assert bench.desk.secs_to_idle_limit() == float("inf")
    bench.now = 110.0
    bench.desk.give_back(run)
    bench.now = 115.0
    assert bench.desk.secs_to_idle_limit() == 25.0
    bench.apply(route("b"))
    assert bench.desk.secs_to_idle_limit() == 25.0
    bench.now = 141.0
    assert bench.desk.secs_to_idle_limit() == 4.0
    bench.desk.view(bench.run("b"))
    assert bench.desk.secs_to_idle_limit() == float("inf")


def test_a_pool_without_runs_and_waiters_is_forgotten() -> None:
    """However it came to be empty: else each caller of a day would be reported for ever."""
    bench = Bench()
    bench.apply(route("a"))
    run = bench.desk.take(want(1))
    assert run is not None
    bench.desk.give_back(run)
    bench.apply(RoutesReset(routes=()))
    assert bench.desk.report().pools == {}
    waiter = waits(bench, want())
    bench.desk.leave(waiter.held)
    bench.desk.leave(waiter.held)
    assert bench.desk.report().pools == {}


def test_the_report_adds_up_what_happened_since_the_last_one() -> None:
    """Requests times seconds, who came, who ended with a run and who without: of all that was between two reports."""
    bench = Bench(room_size=1)
    bench.apply(route("a"))
    first = bench.desk.take(want(1))
    assert first is not None
    waiter = waits(bench, want(1))
    with pytest.raises(WaitingRoomFull):
        waits(bench, want(1))
    bench.now += 2.0
    bench.desk.give_back(first)
    assert waiter.outcome is first
    bench.now += 3.0
    before = bench.desk.report().pools[POOL]
    assert (before.in_flight, before.in_flight_secs, before.waiting, before.waiting_secs) == (1, 5.0, 0, 2.0)
    assert (before.arrivals, before.finished, before.refused) == (3, 1, 1)
    waits(bench, want(1))
    bench.now += 1.0
    bench.apply(route("b", Readiness.STARTING), ended("a"))
    bench.now += 1.0
    bench.desk.give_back(first)
    after = bench.desk.report().pools[POOL]
    assert (after.in_flight, after.in_flight_secs, after.waiting, after.waiting_secs) == (0, 6.0, 1, 4.0)
    assert (after.arrivals, after.finished, after.refused) == (4, 2, 1)
    assert after.began_secs == before.began_secs


@pytest.mark.parametrize(
    ("routes", "kind"),
    [
        pytest.param([], WaitedTooLong, id="no run"),
        pytest.param([route("a")], WaitedTooLong, id="none had room"),
        pytest.param([route("a", Readiness.STARTING)], StandbyRunNotReady, id="one never listened"),
    ],
)
def test_what_the_late_are_told(routes: list[RunRoute], kind: type[GreenroomError]) -> None:
    """How long they waited, which setting bounds it and why."""
    bench = Bench()
    bench.apply(*routes)
    error = bench.desk.error_for_late(want(), 120.04)
    assert type(error) is kind
    assert "120 s" in error.message
    assert error.data["waitedSecs"] == 120.0
    assert error.data["setting"] == "pick_timeout_secs"
