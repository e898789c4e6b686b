"""The traffic that policies are compared on: recorded (``loadtests/traces``) and made, all of it by fixed seeds."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable
from pathlib import Path

from loadtests.simulation.engine import START_SECS, Workload

TRACES = ("azure_fn19_one", "azure_llm23_conv", "azure_llm23_code_thin", "nasa95_quiet")
SERVICE_SECS = 0.5
SPREAD_SEED, SERVICE_SEED = 7, 1
_FOLDER = Path(__file__).parent.parent / "traces"


def recorded(name: str, *, spread_seed: int = SPREAD_SEED, service_seed: int = SERVICE_SEED) -> Workload:
    """One of ``TRACES``: its counts spread over their seconds, with exponential service times."""
    with (_FOLDER / f"{name}.csv").open() as file:
        rows = [(int(row["second"]), int(row["requests"])) for row in csv.DictReader(file)]
    dice = random.Random(spread_seed)
    arrivals = sorted(second + dice.random() for second, requests in rows for _ in range(requests))
    return served(name, arrivals, service_seed)


def served(name: str, arrivals: list[float], seed: int = SERVICE_SEED, *, start_spread: float = 0.0) -> Workload:
    """
    *arrivals* with service times drawn for each.

    *start_spread* makes starts differ: each takes 3 s times a log-normal factor of that deviation.
    """
    dice = random.Random(seed)
    services = [dice.expovariate(1 / SERVICE_SECS) for _ in arrivals]
    starts = [START_SECS * math.exp(dice.gauss(0, start_spread)) for _ in range(997)] if start_spread else [START_SECS]
    return Workload(name, arrivals, services, starts)


def made(rate: Callable[[float], float], most: float, secs: float, seed: int) -> list[float]:
    """A Poisson process of ``rate(second)`` requests a second, which never exceeds *most*, by thinning."""
    dice = random.Random(seed)
    arrivals, now = [], 0.0
    while (now := now + dice.expovariate(most)) < secs:
        if dice.random() * most < rate(now):
            arrivals.append(now)
    return arrivals


def _spike(now: float) -> float:
    return 40.0 if 600 <= now < 630 else 2.0


def _ramp(now: float) -> float:
    return 40.0 * (now / 900 if now < 900 else max(0.0, 2 - now / 900))


def _daily_wave(now: float) -> float:
    return 10.0 * (1 + math.sin(2 * math.pi * now / 3600)) + 0.1


def _on_off(now: float) -> float:
    return 6.0 if now % 240 < 60 else 0.0


def _flash_crowd(now: float) -> float:
    return 0.2 if now < 300 else 0.2 + 80.0 * math.exp(-(now - 300) / 120)


def _slow_drip(_now: float) -> float:
    return 1 / 120


_PATTERNS: dict[str, tuple[Callable[[float], float], float, float]] = {
    "spike": (_spike, 40.0, 1200.0),
    "ramp": (_ramp, 40.0, 1800.0),
    "daily_wave": (_daily_wave, 20.1, 7200.0),
    "on_off": (_on_off, 6.0, 3600.0),
    "flash_crowd": (_flash_crowd, 80.2, 1200.0),
    "slow_drip": (_slow_drip, 1 / 120, 7200.0),
}


def _every_ten_minutes(dice: random.Random) -> list[float]:
    """A health checker, a cron job: for eight hours, a few seconds early or late."""
    return [600.0 * number + dice.uniform(0, 10) for number in range(48)]


def _twice_a_day(dice: random.Random) -> list[float]:
    """A minute's work at nine and at one o'clock, for a week; half a minute early or late at most."""
    starts = (86_400.0 * day + 3600.0 * hour + dice.uniform(-15, 15) for day in range(7) for hour in (9, 13))
    return [start + secs for start in starts for secs in sorted(dice.uniform(0, 60) for _ in range(30))]


_SCHEDULED: dict[str, Callable[[random.Random], list[float]]] = {
    "every_ten_minutes": _every_ten_minutes,
    "twice_a_day": _twice_a_day,
}
PATTERNS = (*_PATTERNS, *_SCHEDULED)


def pattern(name: str, *, seed: int = SPREAD_SEED, start_spread: float = 0.0) -> Workload:
    """One of ``PATTERNS``."""
    if name in _SCHEDULED:
        arrivals = _SCHEDULED[name](random.Random(seed))
    else:
        rate, most, secs = _PATTERNS[name]
        arrivals = made(rate, most, secs, seed)
    return served(name, arrivals, seed, start_spread=start_spread)
