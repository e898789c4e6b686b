"""How many runs the CPU asks for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.load_rule import asked_by_load
from autoscaler.policy.observing import Limits, Observation, RunSeen
from autoscaler.policy.thresholds import GREENROOM
from gateway.core.lifecycle import Readiness


def runs(*ratios: float, state: Readiness = Readiness.SERVING) -> list[RunSeen]:
    return [
        RunSeen(run_id=f"{state}{number}", state=state, overloaded_ratio=ratio) for number, ratio in enumerate(ratios)
    ]


def asked(seen: list[RunSeen], *, has_cpu_left: bool = True) -> tuple[int, str | None]:
    return asked_by_load(GREENROOM, Observation(limits=Limits(), runs=seen, has_cpu_left=has_cpu_left), seen)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param([], 0, id="no run: that is for requests"),
        pytest.param(runs(0.5), 0, id="for half of the time is not most of it"),
        pytest.param(runs(0.6), 2, id="the only one"),
        pytest.param(runs(0.6, 0.0), 3, id="half of them"),
        pytest.param(runs(0.6, 0.0, 0.0), 3, id="fewer: as many as there are"),
        pytest.param(runs(1.0, state=Readiness.STARTING), 0, id="booting is not overload"),
        pytest.param([*runs(1.0), *runs(0.0, state=Readiness.STARTING)], 2, id="the one more is on its way"),
    ],
)
def test_what_load_asks_for(seen: list[RunSeen], expected: int) -> None:
    """One more where half are overloaded, as many as there are where fewer are."""
    number, reason = asked(seen)
    assert number == expected
    assert (reason is None) == (expected == 0)


def test_without_cpu_nothing_is_started_for_load() -> None:
    """And it says so; what is there stays."""
    number, reason = asked(runs(1.0, 1.0), has_cpu_left=False)
    assert number == 2
    assert "no CPU left" in (reason or "")


@given(st.lists(st.floats(0, 1), max_size=8), st.booleans())
def test_load_never_makes_one_of_none(ratios: list[float], has_cpu_left: bool) -> None:
    """Nor more than one at a time."""
    number, _ = asked(runs(*ratios), has_cpu_left=has_cpu_left)
    assert number == 0 if not ratios else number <= len(ratios) + has_cpu_left
