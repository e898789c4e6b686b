"""Averages over the last seconds."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.windows import SECS, Window


def window(*parts: tuple[float, float], since: float = 0.0) -> Window:
    """One that was told *(until, average)*, one after the other."""
    made = Window(since, since)
    for until, average in parts:
        made = made.add(until, average)
    return made


@pytest.mark.parametrize(
    ("made", "secs", "expected"),
    [
        pytest.param(window(), 60, 0.0, id="nothing seen"),
        pytest.param(window((0.5, 1.0)), 60, 1.0, id="half a second is all that was seen"),
        pytest.param(window((2, 4.0)), 6, 4.0, id="two seconds"),
        pytest.param(window((30, 0.0), (60, 4.0)), 60, 2.0, id="half of a minute"),
        pytest.param(window((30, 0.0), (60, 4.0)), 6, 4.0, id="the last six seconds"),
        pytest.param(window((57, 0.0), (60, 4.0)), 6, 2.0, id="half of the last six"),
        pytest.param(window((60, 4.0), (120, 0.0)), 60, 0.0, id="a minute later it is forgotten"),
        pytest.param(window((60, 4.0), (119, 0.0)), 60, 4 / 60, id="but not a second sooner"),
        pytest.param(window((1, 4.0), (1000, 2.0)), 60, 2.0, id="a long time between two looks"),
        pytest.param(window((10.25, 1.0), (10.75, 3.0)), 1, (0.25 + 1.5) / 0.75, id="within a second that has begun"),
        pytest.param(window((1000, 1.0), since=994.0), 6, 1.0, id="a clock that does not begin at zero"),
        pytest.param(window((2, 4.0), (2, 9.0), (1, 9.0)), 6, 4.0, id="no time has passed, or less than none"),
    ],
)
def test_the_mean(made: Window, secs: int, expected: float) -> None:
    """Over the seconds that were seen, at most so many."""
    assert made.mean(secs) == pytest.approx(expected)


parts = st.lists(
    st.tuples(st.floats(0, 200, allow_subnormal=False), st.floats(0, 1000, allow_subnormal=False)), max_size=12
).map(sorted)


@given(parts, st.integers(1, SECS), st.floats(0, 5000))
def test_the_mean_lies_between_the_least_and_the_most(told: list[tuple[float, float]], secs: int, since: float) -> None:
    """Whatever was told."""
    made = window(*((since + until, average) for until, average in told), since=since)
    averages = [average for _, average in told] or [0.0]
    assert 0 <= made.mean(secs) <= max(averages) * (1 + 1e-6) + 1e-6
    assert len(made.areas) == SECS


@given(parts, st.integers(1, SECS))
def test_the_mean_is_the_integral(told: list[tuple[float, float]], secs: int) -> None:
    """The value times the seconds of each part that lie inside, over the seconds of the window."""
    made = window(*told)
    begins = math.ceil(made.until) - secs
    spans = pairwise([(0.0, 0.0), *told])
    area = sum(max(0.0, until - max(began, begins)) * average for (began, _), (until, average) in spans)
    covered = made.until - max(0.0, begins)
    assert made.mean(secs) * covered == pytest.approx(area, abs=1e-6 * (1 + area))


@given(parts)
def test_it_survives_being_stored(told: list[tuple[float, float]]) -> None:
    """As JSON and back, exactly."""
    made = window(*told)
    assert Window.from_json(json.loads(json.dumps(made.to_json()))) == made
