"""How fast runs may be started, and how long after failures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.pace import Pace
from gateway.core.standby import PoolKey

POOL, OTHER = PoolKey(target_id="a", user_id="u"), PoolKey(target_id="b", user_id="u")


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


@pytest.mark.parametrize(
    ("failures", "pause"),
    [
        pytest.param(1, 2.0, id="one"),
        pytest.param(2, 4.0, id="two"),
        pytest.param(3, 8.0, id="three"),
        pytest.param(8, 256.0, id="eight"),
        pytest.param(9, 300.0, id="nine: the longest pause"),
        pytest.param(5000, 300.0, id="thousands"),
    ],
)
def test_pauses_grow_with_failures(failures: int, pause: float) -> None:
    """min(300, 2ⁿ) seconds after the last of n failures in a row, and from that very moment on."""
    pace = Pace(starts_per_sec=1)
    for number in range(failures):
        pace.start_went(POOL, False, 100.0 + number)
    last = 100.0 + failures - 1
    assert not pace.may_start_unasked(POOL, last)
    assert not pace.may_start_unasked(POOL, last + pause - 0.001)
    assert pace.may_start_unasked(POOL, last + pause)


def test_a_success_ends_the_pause() -> None:
    """And the count begins anew; other pools never had one."""
    pace = Pace(starts_per_sec=1)
    assert pace.may_start_unasked(POOL, 0.0)
    for _ in range(5):
        pace.start_went(POOL, False, 100.0)
    assert pace.may_start_unasked(OTHER, 100.0)
    pace.start_went(POOL, True, 101.0)
    assert pace.may_start_unasked(POOL, 101.0)
    pace.start_went(POOL, False, 102.0)
    assert pace.may_start_unasked(POOL, 104.0)
