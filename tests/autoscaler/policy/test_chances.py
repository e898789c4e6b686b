"""From when to when a run is worth having though nobody asks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.chances import Chance, Span, best_span


def span(chances: Sequence[Chance], never: float = 0.0, **given: float) -> Span | None:
    return best_span(chances, never, **{"wake_costs_secs": 143.0, "start_secs": 3.0, **given})


@pytest.mark.parametrize(
    ("chances", "never", "expected"),
    [
        pytest.param([], 0, None, id="nothing is known"),
        pytest.param([], 10, None, id="nobody ever came"),
        pytest.param([Chance(600, 610, 9)], 1, Span(600, 610), id="a punctual caller"),
        pytest.param([Chance(600, 610, 1)], 1, Span(600, 610), id="every other time: half a wake is worth 13 s"),
        pytest.param([Chance(600, 610, 1)], 20, None, id="one time of twenty"),
        pytest.param([Chance(600, 800)], 0, None, id="waiting costs more than the wake"),
        pytest.param([Chance(600, 610), Chance(615, 625)], 0, Span(600, 625), id="neighbours: both"),
        pytest.param([Chance(600, 610, 5), Chance(900, 910, 1)], 0, Span(600, 610), id="far apart: the likely one"),
        pytest.param([Chance(-15, 25)], 0, Span(0, 25), id="it may come at once"),
    ],
)
def test_the_best_span(chances: list[Chance], never: float, expected: Span | None) -> None:
    """That which costs least over all the times that were seen."""
    assert span(chances, never) == expected


def test_who_asks_little_for_a_wake_pays_for_none() -> None:
    """Below the price of a start nothing is started ahead."""
    assert span([Chance(600, 601, 9)], wake_costs_secs=3.0) is None
    assert span([Chance(600, 601, 9)], wake_costs_secs=5.0) == Span(600, 601)


some_chances = st.lists(
    st.builds(
        lambda begins, secs, weight: Chance(begins, begins + secs, weight),
        st.floats(0, 1000),
        st.floats(0, 200),
        st.floats(0.1, 10),
    ),
    max_size=12,
)


@given(some_chances, st.floats(0, 20))
def test_a_span_pays(chances: list[Chance], never: float) -> None:
    """By the cost of each time that was seen, summed one by one."""
    found = span(chances, never)
    if found is None:
        return
    assert 0 <= found.begins <= found.ends
    paid = 0.0
    for chance in chances:
        if chance.begins < found.begins:
            continue
        is_inside = chance.ends <= found.ends
        waits = (chance.ends if is_inside else found.ends) - found.begins
        paid += chance.weight * ((143.0 if is_inside else 0.0) - waits - 3.0)
    assert paid - never * (found.ends - found.begins + 3.0) > -1e-6
