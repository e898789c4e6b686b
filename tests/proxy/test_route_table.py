"""This process's picture of the live runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.demand import RunUse
from gateway.core.lifecycle import Readiness
from gateway.core.model import Address
from gateway.core.standby import Generation, PoolKey
from gateway.proxy.route_table import LiveRun, RouteTable
from gateway.state.ports import PoolBlocked, RouteEnded, RoutesReset, RunRoute

POOL = PoolKey(target_id="actor", user_id="user")
OLD, NEW = Generation(build_id="old", memory_mbytes=1024), Generation(build_id="new", memory_mbytes=1024)
HERE, THERE = Address(host="127.0.0.1", port=21000), Address(host="127.0.0.1", port=21001)


def route(run_id: str, readiness: Readiness = Readiness.SERVING, generation: Generation = OLD) -> RunRoute:
    return RunRoute(
        run_id=run_id,
        actor_id="actor",
        user_id="user",
        live_view_label=f"label-{run_id}",
        readiness=readiness,
        pool=POOL,
        generation=generation,
        address=HERE,
    )


def table(*routes: RunRoute) -> RouteTable:
    made = RouteTable()
    for version, one in enumerate(routes, 1):
        assert made.apply(one, version, now=10.0) == []
    return made


def ids(runs: list[LiveRun]) -> list[str]:
    return [run.route.run_id for run in runs]


def ended(run_id: str) -> RouteEnded:
    return RouteEnded(run_id=run_id, live_view_label=f"label-{run_id}")


def known(made: RouteTable, run_id: str) -> LiveRun:
    run = made.run(run_id)
    assert run is not None
    return run


def test_a_run_is_found_by_id_label_and_pool() -> None:
    """Until it ends; then by none of them, and it knows that it is gone."""
    made = table(route("a"), route("b"))
    run = known(made, "a")
    assert made.by_label("label-a") is run
    assert ids(list(made.runs_of(POOL))) == ["a", "b"]
    assert made.apply(ended("a"), 3, now=11.0) == [run]
    assert run.is_gone
    assert made.run("a") is made.by_label("label-a") is None
    assert ids(list(made.runs_of(POOL))) == ["b"]
    assert made.apply(ended("a"), 4, now=11.0) == []
    made.apply(ended("b"), 5, now=11.0)
    assert (list(made.pools()), list(made.all_runs()), made.version) == ([], [], 5)


def test_a_batch_run_has_a_live_view_and_no_pool() -> None:
    """It is never among those that serve."""
    made = table(replace(route("a"), pool=None, generation=None))
    assert made.by_label("label-a") is not None
    assert list(made.pools()) == []
    assert made.apply(ended("a"), 2, now=11.0) != []


def test_a_reset_drops_what_is_not_in_it_and_keeps_the_rest() -> None:
    """Slots that are taken in a run which is still there stay taken."""
    made = table(route("a"), route("b"))
    kept, dropped = known(made, "a"), known(made, "b")
    kept.taken = 3
    gone = made.apply(RoutesReset(routes=(route("a", Readiness.DRAINING), route("c"))), 9, now=20.0)
    assert gone == [dropped]
    assert made.run("a") is kept
    assert (kept.taken, kept.used_at, kept.route.readiness) == (3, 10.0, Readiness.DRAINING)
    assert known(made, "c").used_at == 20.0
    assert made.version == 9


def test_a_blocked_pool_changes_no_route() -> None:
    """It speaks to those who wait; the version counts all the same."""
    made = table(route("a"))
    assert made.apply(PoolBlocked(pool=POOL, message=""), 2, now=1.0) == []
    assert (made.version, ids(list(made.runs_of(POOL)))) == (2, ["a"])


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        pytest.param([], ([], []), id="no run"),
        pytest.param([route("a", Readiness.STARTING, NEW)], ([], []), id="starting"),
        pytest.param([route("a", Readiness.FROZEN, NEW)], ([], []), id="frozen"),
        pytest.param([route("a", Readiness.DRAINING, NEW)], ([], []), id="draining"),
        pytest.param([route("a", generation=NEW), route("b", generation=NEW)], (["a", "b"], []), id="all that serve"),
        pytest.param([route("a"), route("b")], ([], ["a", "b"]), id="older ones while no new one serves"),
        pytest.param([route("a"), route("b", Readiness.STARTING, NEW)], ([], ["a"]), id="while the new one starts"),
        pytest.param([route("a"), route("b", generation=NEW)], (["b"], ["a"]), id="then both, apart"),
        pytest.param(
            [route("a", Readiness.DRAINING), route("b", generation=NEW)], (["b"], []), id="until the old one is retired"
        ),
        pytest.param(
            [route("a", Readiness.DRAINING), route("b", Readiness.STARTING, NEW)], ([], []), id="never one that drains"
        ),
        pytest.param([replace(route("a"), pool=None, generation=None)], ([], []), id="a batch run"),
    ],
)
def test_which_runs_may_take_a_new_request(routes: list[RunRoute], expected: tuple[list[str], list[str]]) -> None:
    """Those of the wanted generation, and apart from them those of others that have not been retired yet."""
    current, older = table(*routes).serving(POOL, NEW)
    assert (ids(current), ids(older)) == expected


def test_a_run_that_refused_takes_nothing_until_it_was_probed() -> None:
    """It counts as starting meanwhile. The same route again is no news; another readiness or address is."""
    made = table(route("a"))
    run = known(made, "a")
    run.has_refused = True
    assert (made.serving(POOL, OLD), made.serving(POOL, NEW), made.starting(POOL)) == (([], []), ([], []), 1)
    made.apply(route("a"), 2, now=11.0)
    assert made.serving(POOL, OLD) == ([], [])
    made.apply(route("a", Readiness.STARTING), 3, now=11.0)
    assert (made.serving(POOL, OLD), made.starting(POOL)) == (([], []), 1)
    made.apply(route("a"), 4, now=11.0)
    assert (made.serving(POOL, OLD), made.starting(POOL)) == (([run], []), 0)
    run.has_refused = True
    made.apply(replace(route("a"), address=THERE), 5, now=11.0)
    assert (made.serving(POOL, OLD), made.serving(POOL, NEW)) == (([run], []), ([], [run]))


@pytest.mark.parametrize(
    ("taken", "viewers", "now", "expected"),
    [
        pytest.param(0, 0, 25.0, RunUse(in_flight=0, idle_secs=15.0), id="idle since it was first seen"),
        pytest.param(2, 0, 25.0, RunUse(in_flight=2, idle_secs=0.0), id="requests"),
        pytest.param(0, 1, 25.0, RunUse(in_flight=0, viewers=1, idle_secs=0.0), id="a viewer keeps it in use"),
        pytest.param(2, 1, 25.0, RunUse(in_flight=2, viewers=1, idle_secs=0.0), id="both"),
        pytest.param(0, 0, 9.0, RunUse(in_flight=0, idle_secs=0.0), id="never less than 0"),
    ],
)
def test_what_the_autoscaler_is_told(taken: int, viewers: int, now: float, expected: RunUse) -> None:
    """In flight and viewers now, apart; where there is neither, how long it has been idle."""
    run = known(table(route("a")), "a")
    run.taken, run.viewers = taken, viewers
    assert run.use(now) == expected
    run.has_refused = True
    assert run.use(now) == replace(expected, has_refused=True)
