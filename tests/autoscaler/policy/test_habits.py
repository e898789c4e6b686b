"""What a pool is asked for every day, or every week, at one time."""

from __future__ import annotations

import json

import pytest

from autoscaler.policy.chances import Chance
from autoscaler.policy.habits import DAY_SECS, WEEK_SECS, Habits

MORNING = 20_000 * DAY_SECS + 9 * 3600.0


def woken(*moments: float) -> Habits:
    habits = Habits()
    for moment in moments:
        habits = habits.woken(moment)
    return habits


@pytest.mark.parametrize(
    ("habits", "chances", "never", "period"),
    [
        pytest.param(Habits(), [], 0, "day", id="nothing is known"),
        pytest.param(woken(MORNING - DAY_SECS), [], 0, "day", id="one day is no habit"),
        pytest.param(
            woken(*(MORNING - days * DAY_SECS + 60 for days in (4, 3, 2, 1))),
            [Chance(40, 80)] * 3,
            0,
            "day",
            id="a minute past, each day; the oldest came when nothing was known yet",
        ),
        pytest.param(
            Habits(tuple(MORNING - days * DAY_SECS - 10 for days in (3, 1)), MORNING - 4 * DAY_SECS),
            [Chance(0, 10)] * 2,
            2,
            "day",
            id="ten seconds ago, on two days of four",
        ),
        pytest.param(
            woken(*(MORNING - days * DAY_SECS + 2 * 3600 for days in (4, 3, 2, 1))),
            [],
            3,
            "day",
            id="two hours later is too far to look",
        ),
        pytest.param(
            Habits((MORNING - 2 * WEEK_SECS + 60, MORNING - WEEK_SECS + 60), MORNING - 3 * WEEK_SECS),
            [Chance(40, 80)] * 2,
            1,
            "week",
            id="weeks are believed where they are known",
        ),
        pytest.param(
            Habits(tuple(MORNING - days * DAY_SECS for days in range(13, 7, -1)), MORNING - 3 * WEEK_SECS),
            [],
            3,
            "week",
            id="every day, but never on this one",
        ),
    ],
)
def test_what_came_at_this_time(habits: Habits, chances: list[Chance], never: float, period: str) -> None:
    """Of weeks where two are known, else of days where three are."""
    found, none, of = habits.chances(MORNING)
    assert list(found) == [Chance(pytest.approx(one.begins), pytest.approx(one.ends)) for one in chances]
    assert (none, of) == (never, period)


def test_the_oldest_wakes_are_forgotten() -> None:
    """And it is known from when on none is missing."""
    habits = woken(*(MORNING + 600.0 * number for number in range(200)))
    assert len(habits.wakes) == 128
    assert habits.since == habits.wakes[0] == MORNING + 600.0 * 72


def test_a_clock_that_is_set_back_adds_nothing() -> None:
    """Wakes stay in their order, or none would be found again."""
    habits = woken(MORNING, MORNING + 600)
    assert habits.woken(MORNING + 300) == habits
    assert habits.watched(MORNING - 600) == habits


def test_stored_and_read_again() -> None:
    """Exactly."""
    for habits in (Habits(), woken(MORNING + 0.1, MORNING + 600.7), Habits().watched(MORNING)):
        assert Habits.from_json(json.loads(json.dumps(habits.to_json()))) == habits
