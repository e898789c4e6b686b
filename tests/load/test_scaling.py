"""Straight lines through two sizes, held to a third."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.figures import Report
from loadtests.scaling import Line, hold

NUMBERS = st.integers(-1000, 1000)


@given(NUMBERS, NUMBERS, st.integers(1, 1000), st.integers(1001, 5000), st.integers(1, 100_000))
def test_a_line_goes_through_what_it_was_drawn_of(at_rest, each, small, middle, large):
    """Costs that do add up are told exactly, at any size."""
    line = Line.through((small, at_rest + each * small), (middle, at_rest + each * middle))
    assert line.at(large) == pytest.approx(at_rest + each * large, abs=1e-3)


@pytest.mark.parametrize(
    ("third", "holds"),
    [
        pytest.param(40.0, True, id="as the line says"),
        pytest.param(30.0, True, id="less is needed than it says"),
        pytest.param(60.0, False, id="more is needed than it says"),
    ],
)
def test_a_line_that_asks_for_too_little_does_not_hold(third, holds):
    """Who reckons by the line must not run out."""
    report = Report()
    hold(report, "things", "cost_of_each", "us", 1e6, [(10, 10.0), (20, 20.0), (40, third)])
    assert report.holds is holds
    assert report.figures[0].value == pytest.approx(1e6)
