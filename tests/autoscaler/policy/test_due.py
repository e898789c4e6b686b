"""Which pools a look must decide."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.due import Due, sign_of
from autoscaler.policy.observing import RunSeen
from gateway.core.lifecycle import Readiness
from gateway.core.standby import PoolKey

POOL = PoolKey(target_id="actor", user_id="user")
OTHER = PoolKey(target_id="other", user_id="user")
RUN = RunSeen(run_id="a", state=Readiness.SERVING)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        pytest.param({"now": 11.9}, False, id="as it was"),
        pytest.param({"now": 12.0}, True, id="its time has come"),
        pytest.param({"sign": "other"}, True, id="something has changed"),
        pytest.param({"pool": OTHER}, True, id="another one, never decided"),
    ],
)
def test_what_is_due(after: dict[str, Any], expected: bool) -> None:
    """What is new, what has changed, what has waited for its time."""
    due = Due(every_secs=2.0)
    due.decided(POOL, "sign", 10.0, None)
    assert due.is_due(**{"pool": POOL, "sign": "sign", "now": 10.5, **after}) is expected


@pytest.mark.parametrize(
    ("look_again", "expected"),
    [
        pytest.param(None, 2.0, id="nothing by time alone: at the next tick"),
        pytest.param(30.0, 2.0, id="later than that"),
        pytest.param(0.25, 0.25, id="an idle limit before it"),
    ],
)
def test_when_the_next_one_is(look_again: float | None, expected: float) -> None:
    """The earliest of all; of those that are kept."""
    due = Due(every_secs=2.0)
    assert due.secs_to_next(0.0) == math.inf
    due.decided(OTHER, "sign", 9.0, 0.5)
    due.decided(POOL, "sign", 10.0, look_again)
    assert due.secs_to_next(10.0) == 0.0
    due.keep({POOL})
    assert due.secs_to_next(10.0) == expected
    assert due.is_due(OTHER, "sign", 9.1)


def test_who_is_held_back_is_due_at_every_look() -> None:
    """And makes none come earlier."""
    due = Due(every_secs=2.0)
    due.decided(POOL, "sign", 10.0, 0.5)
    due.still_wants(POOL)
    assert due.is_due(POOL, "sign", 10.1)
    assert due.secs_to_next(10.1) == math.inf


@given(
    st.sampled_from(
        [
            {"run_id": "b"},
            {"state": Readiness.DRAINING},
            {"in_flight": 1},
            {"viewers": 1},
            {"retires_because": "a newer build"},
        ]
    )
)
def test_a_sign_shows_what_counts(change: dict[str, Any]) -> None:
    """Whatever changes who is there and what is open, and the settings."""
    assert sign_of([RUN], 1) != sign_of([replace(RUN, **change)], 1)
    assert sign_of([RUN], 1) != sign_of([RUN, replace(RUN, run_id="c")], 1)
    assert sign_of([RUN], 1) != sign_of([RUN], 2)


def test_a_sign_does_not_show_what_passes() -> None:
    """Age, idle time and load, which wait for the next tick."""
    older = replace(RUN, age_secs=9.0, idle_secs=8.0, overloaded_ratio=0.5, cpu_ratio=0.1)
    assert sign_of([RUN]) == sign_of([older])
