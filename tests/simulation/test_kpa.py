"""Knative's autoscaler against vectors that were worked by hand from its published algorithm."""

from __future__ import annotations

from typing import Any

import pytest

from loadtests.simulation.engine import Glimpse, Run, Workload, simulate
from loadtests.simulation.kpa import Kpa
from loadtests.simulation.traffic import made, served


def glimpse(now: float, live: int, *, load: float = 0.0, starting: int = 0, is_poke: bool = False) -> Glimpse:
    runs = [
        Run(id=n, born=0.0, idle_since=0.0, state="starting" if n >= live - starting else "serving")
        for n in range(live)
    ]
    facts: dict[str, Any] = {"average_in_flight": load, "average_waiting": 0.0, "arrivals": 0, "waiting": 0}
    return Glimpse(now=now, is_poke=is_poke, runs=runs, limit=4, **facts)


@pytest.mark.parametrize(
    ("stable", "panic", "ready", "expected"),
    [
        # The target is 0.7 · 4 = 2.8 requests a run.
        pytest.param(2.8, 2.8, 1, 1, id="just at the target"),
        pytest.param(2.81, 2.81, 2, 2, id="a little above: two"),
        pytest.param(9.0, 5.0, 4, 4, id="nine on average: 3.2, four"),
        pytest.param(2.0, 2.9, 1, 2, id="panic: ceil(2.9 / 2.8) = 2, twice the one that is ready"),
        pytest.param(2.0, 5.6, 2, 1, id="no panic: 2 for 2 that are ready, and one is enough on average"),
        pytest.param(2.0, 8.5, 2, 4, id="panic: 4 for 2"),
        pytest.param(20.0, 8.5, 2, 8, id="in panic the larger one counts"),
        pytest.param(1.0, 1.0, 9, 4, id="at most down to half: floor(9 / 2)"),
        pytest.param(1.0, 1.0, 3, 1, id="floor(3 / 2)"),
        pytest.param(0.1, 0.0, 1, 1, id="anything at all in a minute is one run"),
        pytest.param(5000.0, 0.0, 1, 1000, id="at most a thousand times as many"),
        pytest.param(3.0, 3.0, 0, 2, id="none is ready: as if one were"),
    ],
)
def test_one_decision(stable: float, panic: float, ready: int, expected: int) -> None:
    """From averages to runs."""
    assert Kpa().wanted(stable, panic, ready, glimpse(100.0, ready)) == expected


def test_panic_does_not_shrink_until_a_minute_after() -> None:
    """It keeps the most that it ever wanted; the next such moment begins the minute anew."""
    kpa = Kpa()
    assert kpa.wanted(1.0, 12.0, 2, glimpse(0.0, 2)) == 5
    assert kpa.wanted(1.0, 1.0, 5, glimpse(30.0, 5)) == 5
    assert kpa.wanted(1.0, 29.0, 5, glimpse(40.0, 5)) == 11
    assert kpa.wanted(1.0, 1.0, 11, glimpse(100.0, 11)) == 11
    assert kpa.wanted(1.0, 1.0, 11, glimpse(102.0, 11)) == 5
    assert kpa.wanted(1.0, 1.0, 5, glimpse(104.0, 5)) == 2


def test_to_zero_after_the_window_and_the_grace() -> None:
    """The last request at 0 s: the window is empty at 62 s, and 30 s later the run goes."""
    kpa = Kpa()
    kpa.choose(glimpse(0.0, 1))
    kpa.choose(glimpse(2.0, 1, load=1.0))
    gone = next(now for now in range(4, 200, 2) if kpa.choose(glimpse(float(now), 1))[1])
    assert gone == 62 + 30


def test_only_the_first_request_of_a_sleeping_pool_pokes() -> None:
    """One run for it, at once; nothing for others while there is a run."""
    kpa = Kpa()
    assert kpa.choose(glimpse(0.0, 0, load=1.0, is_poke=True)) == (1, ())
    assert kpa.choose(glimpse(0.1, 1, starting=1, load=9.0, is_poke=True)) == (0, ())


def test_the_emptiest_then_the_youngest_go() -> None:
    """As many as are too many."""
    runs = [
        Run(id=1, born=0.0, idle_since=0.0, state="serving", in_flight=1),
        Run(id=2, born=1.0, idle_since=0.0, state="serving"),
        Run(id=3, born=2.0, idle_since=0.0, state="serving"),
        Run(id=4, born=3.0, idle_since=0.0, state="serving", in_flight=1),
    ]
    facts: dict[str, Any] = {"average_in_flight": 1.0, "average_waiting": 0.0, "arrivals": 0, "waiting": 0}
    seen = Glimpse(now=10.0, is_poke=False, runs=runs, limit=4, **facts)
    assert Kpa().choose(seen) == (0, [3, 2])


def test_a_steady_load_settles_where_the_target_says() -> None:
    """14 in service on average, 2.8 a run: five runs, now and then one more or less for chance."""
    arrivals = made(lambda _: 28.0, 28.0, 600, 3)
    load: Workload = served("steady", arrivals, 3)
    late = [paid for now, paid, _ in simulate(load, Kpa()).timeline if now > 200]
    assert 4.7 < sum(late) / len(late) < 6.5
