"""The other policies and the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from autoscaler.policy.observing import Limits
from autoscaler.policy.thresholds import GREENROOM, PLATFORM
from loadtests.simulation.engine import Workload, simulate
from loadtests.simulation.fixed import FixedIdle
from loadtests.simulation.hybrid import Hybrid
from loadtests.simulation.kpa import Kpa
from loadtests.simulation.oracle import oracle_run_secs
from loadtests.simulation.ours import Ours
from loadtests.simulation.traffic import pattern, recorded


def load(arrivals: Sequence[float], service: float = 0.5, limit: int = 4) -> Workload:
    return Workload("test", arrivals, [service] * len(arrivals), (3.0,), limit)


@pytest.mark.parametrize(
    ("gap", "idle", "starts"),
    [
        pytest.param(20.0, 30.0, 1, id="gaps shorter than the timeout"),
        pytest.param(40.0, 30.0, 5, id="longer: each request is cold"),
    ],
)
def test_a_fixed_idle_timeout(gap: float, idle: float, starts: int) -> None:
    """Cold if and only if the gap was longer."""
    outcome = simulate(load([gap * n for n in range(5)]), FixedIdle(idle))
    assert (outcome.starts, outcome.late) == (starts, starts)


def test_hybrid_starts_ahead_of_a_punctual_caller() -> None:
    """Who calls every two minutes finds a run soon, and pays for a few seconds each time."""
    calls = load([120.0 * n for n in range(60)])
    hybrid, fixed = simulate(calls, Hybrid()), simulate(calls, FixedIdle(119.0))
    assert hybrid.late <= 12
    assert hybrid.run_secs < 0.4 * fixed.run_secs


def test_hybrid_keeps_the_run_where_it_knows_too_little() -> None:
    """For the whole range, before it has seen ten gaps."""
    assert Hybrid(range_secs=240).windows() == (0.0, 240)
    assert simulate(load([100.0 * n for n in range(5)]), Hybrid()).starts == 1


def test_ours_is_the_policy_of_the_autoscaler() -> None:
    """With the platform's preset: a burst of ten starts three runs and no more, each idle one goes by itself."""
    outcome = simulate(
        load([1.0 + 0.001 * n for n in range(10)] + [100.0]), Ours(PLATFORM, Limits(idle_timeout_secs=20))
    )
    assert (outcome.starts, outcome.late) == (4, 11)


def test_ours_starts_ahead_of_a_punctual_caller() -> None:
    """Once it has seen enough gaps: nearly nobody is late then, for less than half of what keeping the run costs."""
    calls = pattern("every_ten_minutes")
    limits = Limits(idle_timeout_secs=60)
    plain = simulate(calls, Ours(limits=limits))
    ahead = simulate(calls, Ours(replace(GREENROOM, starts_ahead=True), limits))
    assert plain.late == len(calls.arrivals)
    assert ahead.late < 16
    assert ahead.run_secs < 0.25 * simulate(calls, FixedIdle(700.0)).run_secs


@pytest.mark.slow
def test_ours_learns_the_hours_of_the_day() -> None:
    """After three days; what it costs stays within a fifth beyond what it did before."""
    work = pattern("twice_a_day")
    plain = simulate(work, Ours())
    ahead = simulate(work, Ours(replace(GREENROOM, starts_ahead=True)))
    assert ahead.late <= 0.6 * plain.late
    assert ahead.run_secs <= 1.2 * plain.run_secs


@pytest.mark.parametrize(
    ("arrivals", "limit", "expected"),
    [
        pytest.param([10.0], 4, 3.5, id="one request: a start and its service"),
        pytest.param([10.0, 12.0], 4, 3.0 + 2.5, id="two seconds apart: the run stays"),
        pytest.param([10.0, 20.0], 4, 7.0, id="ten: it is started anew"),
        pytest.param([10.0, 10.6], 1, 3.0 + 1.0, id="one after the other, since the second may wait"),
        pytest.param([10.0, 10.0], 1, 2 * 3.5, id="both at once: two runs"),
    ],
)
def test_who_knows_the_future(arrivals: list[float], limit: int, expected: float) -> None:
    """Pays for starts and for what can't wait."""
    assert oracle_run_secs(load(arrivals, limit=limit)) == pytest.approx(expected)


def test_nobody_pays_less_than_who_knows_the_future() -> None:
    """On recorded traffic, whatever the policy."""
    code = recorded("azure_llm23_code_thin")
    for chooser in (FixedIdle(15.0), Kpa(), Hybrid(), Ours()):
        outcome = simulate(code, chooser)
        assert outcome.run_secs > oracle_run_secs(code)
        assert outcome.late > 0
