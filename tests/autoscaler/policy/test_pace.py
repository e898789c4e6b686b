"""How fast runs may be started."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.pace import Pace


def use_up(pace: Pace, now: float) -> int:
    allowed = pace.allowance(now)
    for _ in range(allowed):
        pace.started(now)
    return allowed


def test_one_seconds_worth_may_come_at_once() -> None:
    """Then as many as time has brought, and never more than a second's worth."""
    pace = Pace(starts_per_sec=4)
    assert use_up(pace, 100.0) == 4
    assert use_up(pace, 100.0) == 0
    assert use_up(pace, 100.2) == 0
    assert use_up(pace, 100.5) == 2
    assert use_up(pace, 1000.0) == 4


def test_less_than_one_per_second() -> None:
    """One may come at once, the next when its time has come."""
    pace = Pace(starts_per_sec=0.25)
    assert use_up(pace, 100.0) == 1
    assert use_up(pace, 103.0) == 0
    assert use_up(pace, 104.0) == 1


@given(rate=st.integers(1, 60), steps=st.lists(st.floats(0, 3), max_size=60))
def test_the_rate_is_kept_over_any_time(rate: int, steps: list[float]) -> None:
    """However it is asked: never more than a second's worth and the rate times the time that has gone."""
    pace = Pace(starts_per_sec=rate)
    now, started = 50.0, 0
    for step in steps:
        now += step
        started += use_up(pace, now)
        assert pace.allowance(now) == 0
        assert started <= rate + rate * (now - 50.0) + 1e-6


def test_a_clock_that_jumps_lets_nothing_loose() -> None:
    """Hours later, as after a suspended night, a second's worth may come at once; a step back takes nothing away."""
    pace = Pace(starts_per_sec=4)
    assert use_up(pace, 100.0) == 4
    assert use_up(pace, 100.0 + 9 * 3600) == 4
    assert use_up(pace, 50.0) == 0
    assert use_up(pace, 51.0) == 4
