"""The preset ``platform``, step by step as apify-platform.md §1.6 has it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.deciding import Decision, decide
from autoscaler.policy.memory import Memory
from autoscaler.policy.observing import Limits, Observation, RunSeen
from autoscaler.policy.thresholds import PLATFORM
from gateway.core.lifecycle import Readiness


def run(run_id: str, in_flight: int = 0, *, state: Readiness = Readiness.SERVING, **facts: Any) -> RunSeen:
    return RunSeen(run_id=run_id, state=state, age_secs=100.0, in_flight=in_flight, **facts)


def decided(*runs: RunSeen, waiting: int = 0, memory: Memory | None = None, **facts: Any) -> Decision:
    seen = Observation(limits=Limits(), runs=runs, waiting=waiting, memory=memory or Memory(), **facts)
    return decide(PLATFORM, seen, 1000.0)


def test_step_1_without_a_build_there_are_no_runs() -> None:
    """Nobody is served by a target that can't have runs."""
    decision = decided(run("a", 1), waiting=5, is_on=False)
    assert (decision.wanted_runs, decision.start, [one for one, _ in decision.drain]) == (0, 0, ["a"])


def test_step_2_runs_that_end_are_forgotten() -> None:
    """One that drains holds nothing for those who wait."""
    assert decided(run("a", state=Readiness.DRAINING), waiting=1).start == 1


def test_step_3_runs_of_another_build_are_retired() -> None:
    """One of the new build is started first; once it serves, the old one takes nothing new."""
    old = run("old", 2, retires_because="a newer build")
    first = decided(old)
    assert (first.start, first.drain) == (1, ())
    then = decided(old, run("new"))
    assert (then.start, [run_id for run_id, _ in then.drain]) == (0, ["old"])


@pytest.mark.parametrize(
    ("busy", "waiting", "start"),
    [
        pytest.param([3], 1, 0, id="one has a free slot: it takes it"),
        pytest.param([4], 1, 1, id="none has: one is started"),
        pytest.param([4, 4, 2], 2, 0, id="one of three has"),
        pytest.param([4, 4, 4], 5, 2, id="none has, for five"),
    ],
)
def test_step_4_a_run_is_started_when_none_has_a_free_slot(busy: list[int], waiting: int, start: int) -> None:
    """Below ``maxRequestsPerActorRun``, nobody needs another."""
    memory = Memory(ahead_at=100)
    assert decided(*(run(f"r{n}", load) for n, load in enumerate(busy)), waiting=waiting, memory=memory).start == start


def test_step_5_a_burst_on_an_empty_pool_starts_as_many_as_hold_it() -> None:
    """10 requests start ceil(10 / 4) = 3 runs, not 10; while those start, no more."""
    assert decided(waiting=10, memory=Memory(ahead_at=100)).start == 3
    runs = [run(f"r{n}", state=Readiness.STARTING) for n in range(3)]
    assert decided(*runs, waiting=10, memory=Memory(ahead_at=100)).start == 0


@pytest.mark.parametrize(
    ("busy", "start"),
    [
        pytest.param([3], 0, id="at the desired load"),
        pytest.param([4], 1, id="above it"),
        pytest.param([4, 3], 0, id="one of two is not above"),
        pytest.param([4, 4], 1, id="both are"),
    ],
)
def test_step_6_one_more_ahead_of_demand(busy: list[int], start: int) -> None:
    """When every run has more than ``desiredRequestsPerActorRun`` in flight."""
    assert decided(*(run(f"r{n}", load) for n, load in enumerate(busy))).start == start


def test_the_one_ahead_is_remembered() -> None:
    """It is started once for one load, not at every look."""
    first = decided(run("a", 4))
    assert first.start == 1
    assert decided(run("a", 4), memory=first.memory).start == 0


def test_idle_runs_are_wound_down() -> None:
    """After ``idleTimeoutSecs`` without a request, each by itself; a request in flight protects its run for ever."""
    decision = decided(run("a", idle_secs=300), run("b", idle_secs=299), run("c", 1, idle_secs=999))
    assert [run_id for run_id, _ in decision.drain] == ["a"]


@given(st.floats(0, 99), st.floats(0, 99), st.integers(0, 999), st.floats(0, 1))
def test_averages_and_load_change_nothing(flying: float, held: float, arrivals: int, overloaded: float) -> None:
    """The platform scales by requests in flight alone."""
    plain = decided(run("a", 3), waiting=2)
    other = decided(
        run("a", 3, overloaded_ratio=overloaded),
        waiting=2,
        average_in_flight=flying,
        average_waiting=held,
        arrivals=arrivals,
    )
    assert other == plain
