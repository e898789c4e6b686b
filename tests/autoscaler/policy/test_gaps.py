"""For how long it pays to keep the last run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.gaps import EDGES, Gaps


def gaps(*secs: float) -> Gaps:
    made = Gaps()
    for one in secs:
        made = made.add(one)
    return made


@pytest.mark.parametrize(
    ("seen", "wake_costs", "least", "most"),
    [
        pytest.param(gaps(*[10.0] * 20), 40.0, 10.0, 12.0, id="all alike: just longer than they are"),
        pytest.param(gaps(*[10.0] * 20, 3600.0), 40.0, 10.0, 12.0, id="an hour now and then is not waited for"),
        pytest.param(gaps(*[3000.0] * 20), 40.0, 0.0, 0.0, id="always long: at once"),
        pytest.param(gaps(*[200.0] * 20), 500.0, 0.0, 0.0, id="longer than the owner wants: it would not help"),
        pytest.param(gaps(*[30.0] * 20), 10.0, 0.0, 0.0, id="a wake that costs less than to keep it"),
        pytest.param(gaps(*[30.0] * 20, *[50.0] * 20), 100.0, 50.0, 65.0, id="two kinds, both worth it"),
        pytest.param(gaps(*[80.0] * 20), 500.0, 90.0, 90.0, id="never longer than the owner wants"),
    ],
)
def test_how_long_to_keep(seen: Gaps, wake_costs: float, least: float, most: float) -> None:
    """As long as would have cost least over the gaps that were seen."""
    longest = 90.0
    assert least <= seen.best_keep_secs(wake_costs, longest) <= most


def test_short_gaps_are_not_kept() -> None:
    """Nobody would wind a run down for them."""
    assert gaps(0.0, 1.0, 4.9).total == 0


def test_old_gaps_fade() -> None:
    """A pool that has changed its ways is believed."""
    changed = gaps(*[10.0] * 500, *[60.0] * 500)
    assert sum(changed.counts[: len(EDGES) // 4]) < changed.total / 5


@given(st.lists(st.floats(0, 1e6), max_size=40), st.floats(0, 1e4), st.floats(0, 5000))
def test_it_is_bounded(secs: list[float], wake_costs: float, longest: float) -> None:
    """By zero and the owner's limit, whatever was seen."""
    assert 0 <= gaps(*secs).best_keep_secs(wake_costs, longest) <= longest


@given(st.lists(st.floats(5, 5000), min_size=1, max_size=40), st.floats(0, 1000), st.floats(0, 1000))
def test_who_pays_more_for_a_wake_keeps_longer(secs: list[float], one: float, other: float) -> None:
    """Or as long."""
    cheap, dear = sorted((one, other))
    seen = gaps(*secs)
    assert seen.best_keep_secs(cheap, 5000) <= seen.best_keep_secs(dear, 5000)
