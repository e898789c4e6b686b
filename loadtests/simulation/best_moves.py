"""
No I/O: when to start a second run and when to let it go, the best there is for who knows the rate of requests but not
their moments: dynamic programming over (requests there, runs that serve, how far a start has come).

Requests come at random at a known rate and take an exponential time; a start goes through four stages, which together
take what a start takes. A run costs a run-second a second, a late request its price.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from loadtests.simulation.engine import LATE_SECS, LIMIT, START_SECS
from loadtests.simulation.traffic import SERVICE_SECS

_STAGES = 4
_MOST_REQUESTS = 32
_STEPS = 6000
_PRECISION = 1e-4
_ONE, _TWO = 0, _STAGES + 1


@dataclass(frozen=True, slots=True)
class Moves:
    """With one run: start another from so many requests on; with two: drain one at so many or fewer. None: never."""

    start_from: int | None
    drain_at: int | None


@lru_cache(maxsize=4096)
def best_moves(rate: float, late_price_secs: float) -> Moves:
    """
    For *rate* requests a second, by value iteration. Sound up to what two runs carry: 16 a second of half a second.

    E.g. 8 a second, which one run can just carry: the second one always stays.
    """
    values = _values(rate, late_price_secs)
    starts = [n for n in range(_MOST_REQUESTS) if values[1][n] < values[_ONE][n] - _PRECISION]
    drains = [n for n in range(LIMIT + 1) if values[_ONE][n] + SERVICE_SECS < values[_TWO][n] - _PRECISION]
    return Moves(start_from=min(starts, default=None), drain_at=max(drains, default=None))


def _values(rate: float, price: float) -> list[list[float]]:
    """
    What each state costs more than another, in run-seconds, before one acts in it; the first index is how far it has
    come: one run, the stages of the second one's start, two runs.
    """
    per_sec = 1 / SERVICE_SECS
    stage_per_sec = _STAGES / START_SECS
    events = rate + 2 * LIMIT * per_sec + stage_per_sec  # a second, the same in all states
    forms = range(_TWO + 1)
    late = [[rate / events * price * _late(form, n) for n in range(_MOST_REQUESTS + 1)] for form in forms]
    cost = [(1 if form == _ONE else 2) / events for form in forms]
    slots = [2 * LIMIT if form == _TWO else LIMIT for form in forms]
    values = [[0.0] * (_MOST_REQUESTS + 1) for _ in forms]
    waited = values
    for _ in range(_STEPS):
        # After acting: a second run may be started, or left out, at once.
        acted = [list(row) for row in values]
        acted[_ONE] = [min(one, start) for one, start in zip(values[_ONE], values[1], strict=True)]
        acted[_TWO] = [
            min(two, one + SERVICE_SECS) if n <= LIMIT else two
            for n, (two, one) in enumerate(zip(values[_TWO], values[_ONE], strict=True))
        ]
        waited = []
        for form in forms:
            here = acted[form]
            onward = acted[form + 1] if _ONE < form < _TWO else here
            row = []
            for n in range(_MOST_REQUESTS + 1):
                leave = min(n, slots[form]) * per_sec
                stay = events - rate - leave - stage_per_sec
                total = rate * here[min(n + 1, _MOST_REQUESTS)] + stage_per_sec * onward[n] + stay * here[n]
                row.append(cost[form] + late[form][n] + (total + (leave * here[n - 1] if n else 0.0)) / events)
            waited.append(row)
        base = waited[_ONE][0]
        changes = [new - old for rows in zip(waited, values, strict=True) for new, old in zip(*rows, strict=True)]
        values = [[value - base for value in row] for row in waited]
        if (max(changes) - min(changes)) * events < _PRECISION * 10:
            break
    return values


def _late(form: int, requests: int) -> float:
    """How likely it is that who comes now, when so many are there, waits for too long: too few leave before him."""
    left = 0.0 if form == _TWO else math.inf if form == _ONE else (_STAGES + 1 - form) * START_SECS / _STAGES
    alone = min(left, LATE_SECS)
    slots = LIMIT if left >= LATE_SECS else 2 * LIMIT
    if requests < slots:
        return 0.0
    leave = LIMIT / SERVICE_SECS * (alone + 2 * (LATE_SECS - alone))
    term = total = math.exp(-leave)
    for number in range(1, requests - slots + 1):
        term *= leave / number
        total += term
    return min(1.0, total)
