"""How much of the machine's CPU lies idle."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from autoscaler.machine_cpu import MachineCpu, read_times
from gateway.settings import Settings


def machine(*samples: tuple[float, float] | None) -> MachineCpu:
    """One whose kernel tells these, one after the other."""
    told: Iterator[tuple[float, float] | None] = iter(samples)
    return MachineCpu(read=lambda: next(told))


def test_the_share_of_the_last_seconds() -> None:
    """Between the samples at hand, not since the machine's start."""
    cpu = machine((1000, 5000), (1150, 5200), (1150, 5400))
    assert cpu.idle_ratio(10.0) is None
    assert cpu.idle_ratio(11.0) == 0.75
    assert cpu.idle_ratio(12.0) == 0.375


def test_what_was_long_ago_is_forgotten() -> None:
    """After five seconds or so, however seldom somebody asks."""
    cpu = machine((0, 0), (100, 100), (100, 200), (100, 300), (100, 400), (100, 500), (100, 600))
    for now in range(6):
        cpu.idle_ratio(float(now))
    assert cpu.idle_ratio(6.0) == 0.0


def test_who_asks_often_makes_no_samples() -> None:
    """A poke a millisecond after the last look: the same answer, without asking the kernel."""
    cpu = machine((0, 0), (50, 100))
    cpu.idle_ratio(0.0)
    assert cpu.idle_ratio(1.0) == 0.5
    assert [cpu.idle_ratio(1.0 + part / 10) for part in range(9)] == [0.5] * 9


@pytest.mark.parametrize(
    ("samples", "least", "expected"),
    [
        pytest.param([(0, 0), (10, 100)], 0.1, True, id="as much as must be"),
        pytest.param([(0, 0), (9, 100)], 0.1, False, id="less"),
        pytest.param([(0, 0), (0, 100)], 0.0, True, id="nothing must be"),
        pytest.param([(0, 0), None], 0.1, True, id="nobody knows any more"),
        pytest.param([None, None], 0.1, True, id="nobody knows"),
        pytest.param([(0, 0), (0, 0)], 0.1, True, id="a clock that stands"),
    ],
)
def test_whether_any_is_left(samples: list[tuple[float, float] | None], least: float, expected: bool) -> None:
    """Only what is known to be used up holds anything back."""
    cpu = machine(*samples)
    cpu.has_cpu_left(0.0, least)
    assert cpu.has_cpu_left(1.0, least) is expected


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_kernel_tells() -> None:
    """Of this very machine: idle time is a part of all time, and both only grow."""
    before, after = read_times(), read_times()
    assert before is not None
    assert after is not None
    assert 0 < before[0] <= before[1] <= after[1]
    assert after[0] >= before[0]


@pytest.mark.parametrize(
    ("settings", "is_here"),
    [
        pytest.param({}, True, id="processes"),
        pytest.param({"launcher": "docker"}, True, id="this machine's engine"),
        pytest.param({"launcher": "docker", "docker_host": "unix:///run/other.sock"}, True, id="another one of its"),
        pytest.param({"launcher": "docker", "docker_host": "tcp://10.0.0.7:2376"}, False, id="another machine's"),
        pytest.param({"launcher": "swarm"}, False, id="many machines"),
    ],
)
def test_only_the_machine_that_runs_the_actors_counts(settings: dict[str, Any], is_here: bool) -> None:
    """Nothing is held back elsewhere by what is busy here."""
    assert (MachineCpu.where_runs_are(Settings(**settings)).read() is not None) is (is_here and sys.platform == "linux")
