"""Which run takes the request."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.balancer import in_turn, pick_run


@dataclass
class Run:
    taken: int
    is_overloaded: bool = False
    quota: int = 1_000


def pick(taken: list[int], *, desired: int = 3, limit: int = 4, chance: float = 0.0) -> int | None:
    return pick_run([Run(count) for count in taken], desired=desired, limit=limit, chance=chance)


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        pytest.param([], None, id="no run"),
        pytest.param([4], None, id="at its limit"),
        pytest.param([5], None, id="above its limit, which was lowered"),
        pytest.param([4, 4], None, id="all at their limit"),
        pytest.param([3], 0, id="the last slot"),
        pytest.param([4, 3], 1, id="the one below its limit"),
        pytest.param([3, 1, 2], 1, id="the fewest requests"),
    ],
)
def test_the_fewest_below_the_limit(taken: list[int], expected: int | None) -> None:
    """The platform's rule: fewest in flight among those below the limit."""
    assert pick(taken) == expected


@pytest.mark.parametrize(
    ("chance", "expected"),
    [
        pytest.param(0.0, 0, id="low"),
        pytest.param(0.34, 2, id="middle"),
        pytest.param(0.99999999999999, 4, id="high"),
    ],
)
def test_ties_go_at_random(chance: float, expected: int) -> None:
    """Over those with the fewest only."""
    assert pick([3, 4, 3, 4, 3], chance=chance) == expected


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        pytest.param([0, 0], 0, id="one caller at a time leaves the second unused"),
        pytest.param([1, 1], 0, id="three fit into one run at three each"),
        pytest.param([2, 2], 1, id="five don't"),
        pytest.param([1, 1, 1], 0, id="four fit into two of three"),
        pytest.param([2, 2, 2], 2, id="seven don't"),
        pytest.param([0], 0, id="a single run"),
    ],
)
def test_ties_go_to_the_first_where_one_run_fewer_would_do(taken: list[int], expected: int) -> None:
    """So that the last ones fall idle and can be wound down."""
    assert pick(taken, chance=0.99) == expected


@given(
    taken=st.lists(st.integers(0, 12), max_size=8),
    desired=st.integers(1, 10),
    extra=st.integers(0, 5),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_never_above_the_limit_and_none_only_when_full(
    taken: list[int], desired: int, extra: int, chance: float
) -> None:
    """Whatever the tie: a picked run is below the limit and nobody has fewer; None means that none is."""
    limit = desired + extra
    picked = pick(taken, desired=desired, limit=limit, chance=chance)
    if picked is None:
        assert all(count >= limit for count in taken)
    else:
        assert taken[picked] < limit
        assert taken[picked] == min(taken)


@pytest.mark.parametrize(
    ("overloaded", "expected"),
    [
        pytest.param([], [], id="no run"),
        pytest.param([False, False], [[0, 1]], id="none"),
        pytest.param([True, False, True], [[1], [0, 2]], id="some: after the others"),
        pytest.param([True, True], [[0, 1]], id="all: as if none were"),
    ],
)
def test_the_overloaded_are_asked_last(overloaded: list[bool], expected: list[list[int]]) -> None:
    """In groups, of which the next one is for when the one before has no room."""
    runs = [Run(number, is_overloaded=one) for number, one in enumerate(overloaded)]
    assert [[run.taken for run in group] for group in in_turn(runs)] == expected
