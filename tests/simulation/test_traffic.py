"""The traffic: what was recorded, whole and in its seconds, and what is made, by fixed seeds."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from loadtests.simulation.traffic import PATTERNS, TRACES, pattern, recorded

FOLDER = Path(__file__).parent.parent.parent / "loadtests" / "traces"


@pytest.mark.parametrize("name", TRACES)
def test_a_recorded_second_keeps_its_requests(name: str) -> None:
    """Spread inside it, whatever the seed."""
    with (FOLDER / f"{name}.csv").open() as file:
        counts = {int(row["second"]): int(row["requests"]) for row in csv.DictReader(file)}
    load = recorded(name, spread_seed=3)
    assert Counter(map(int, load.arrivals)) == counts
    assert list(load.arrivals) == sorted(load.arrivals)
    assert len(load.services) == len(load.arrivals)
    assert load == recorded(name, spread_seed=3)
    assert load.arrivals != recorded(name, spread_seed=4).arrivals


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        pytest.param("spike", 3300, 3900, id="40 a second for 30 s, else 2"),
        pytest.param("ramp", 35_300, 36_700, id="0 to 40 to 0"),
        pytest.param("daily_wave", 71_500, 74_000, id="two waves around 10"),
        pytest.param("on_off", 5100, 5700, id="6 a second, one minute in four"),
        pytest.param("flash_crowd", 9400, 10_300, id="80 a second, fading"),
        pytest.param("slow_drip", 35, 85, id="one every two minutes"),
    ],
)
def test_made_traffic_is_what_it_is_called(name: str, least: int, most: int) -> None:
    """As many requests as its rate gives, the same each time."""
    load = pattern(name, start_spread=0.3)
    assert least < len(load.arrivals) < most
    assert load == pattern(name, start_spread=0.3)
    starts = sorted(load.start_secs)
    assert starts[0] < 2.5 < starts[len(starts) // 2] < 3.5 < starts[-1]
    assert set(PATTERNS) >= {name}
