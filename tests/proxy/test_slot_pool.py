"""
A lone run: the usual case, which the desk decides by what it has found out before.

Whatever changes between two requests of one want counts from the next one on, as if nothing had been remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from proxy.slots_bench import NEW, Bench, ended, route, waits, want

from gateway.core.lifecycle import Readiness


def warm() -> Bench:
    """A run that was asked for twice by the same want: the second time, what was found out the first time is used."""
    bench = Bench()
    bench.apply(route("a"))
    return bench


def overload(bench: Bench) -> None:
    bench.apply(replace(route("a"), is_overloaded=True))


def none_left(bench: Bench) -> None:
    bench.run("a").quota = 2


def quotas_over(bench: Bench) -> None:
    bench.desk.quotas_until = bench.now


def somebody_waits(bench: Bench) -> None:
    bench.run("a").quota = 2
    waits(bench, WANT)
    bench.run("a").quota = 3


WANT = want(3)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda _: None, "a", id="nothing"),
        pytest.param(lambda bench: bench.apply(route("a", Readiness.DRAINING)), None, id="it is to end"),
        pytest.param(lambda bench: bench.apply(route("a", Readiness.FROZEN)), None, id="it stands still"),
        pytest.param(lambda bench: bench.apply(ended("a")), None, id="it has ended"),
        pytest.param(lambda bench: bench.desk.refused(bench.run("a")), None, id="it refused"),
        pytest.param(lambda bench: bench.apply(route("b")), "b", id="another one has come, and is emptier"),
        pytest.param(lambda bench: bench.apply(route("b", generation=NEW)), "a", id="one of another build has come"),
        pytest.param(overload, "a", id="it is overloaded, but there is no other"),
        pytest.param(none_left, None, id="no more of its slots may be used here"),
        pytest.param(quotas_over, None, id="what was borrowed is over"),
        pytest.param(somebody_waits, None, id="others were there before"),
    ],
)
def test_what_changes_counts_from_the_next_request_on(change: Callable[[Bench], object], expected: str | None) -> None:
    """Two slots are taken; *expected* is the run of the third, None where it has to wait."""
    bench = warm()
    assert bench.desk.take(WANT) is bench.desk.take(WANT) is bench.run("a")
    change(bench)
    got = bench.desk.take(WANT)
    assert (got.route.run_id if got is not None else None) == expected


def test_the_limit_is_that_of_who_asks() -> None:
    """Wants of other settings may alternate: after a change some connections still have the old one."""
    bench = warm()
    old, new = want(3), want(2)
    assert bench.desk.take(old)
    assert bench.desk.take(new)
    assert bench.desk.take(new) is None
    assert bench.desk.take(old)
    assert bench.desk.take(old) is None


def test_it_is_whoever_avoids_it_who_gets_nothing() -> None:
    """He has just been refused by it."""
    bench = warm()
    assert bench.desk.take(WANT)
    assert bench.desk.take(WANT, avoid=frozenset({"a"})) is None
    assert bench.desk.take(WANT)


def test_the_autoscaler_is_told_from_the_first_request_above_the_desired_load_on() -> None:
    """Not before."""
    bench = warm()
    one = want(5, desired=2)
    told = []
    for _ in range(4):
        before = bench.pokes
        bench.desk.take(one)
        told.append(bench.pokes > before)
    assert told == [False, False, True, True]


def test_the_sums_are_the_same_as_without() -> None:
    """All arrivals count, and the time of each from when it took its slot."""
    bench = warm()
    for _ in range(3):
        assert bench.desk.take(WANT)
        bench.now += 1.0
    (demand,) = bench.desk.report().pools.values()
    assert (demand.arrivals, demand.in_flight, demand.in_flight_secs) == (3, 3, 6.0)
