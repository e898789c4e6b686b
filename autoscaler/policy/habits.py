"""
No I/O: when a pool was woken, by the clock on the wall: what it is asked for every day, or every week, at one time.

The clock is UTC. Where the callers' clocks change for the summer, their habits are learned anew within some days.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autoscaler.policy.chances import Chance

DAY_SECS = 86_400.0
WEEK_SECS = 7 * DAY_SECS
HORIZON_SECS = 3600.0
"""How far ahead it is looked."""
LEAST_QUIET_SECS = 300.0
"""After less quiet than that somebody who comes has woken nobody: it is the same stretch of use."""
_MOST_WAKES = 128
_MOST_DAYS, _MOST_WEEKS = 7, 4
_FEWEST_DAYS, _FEWEST_WEEKS = 3, 2
_MARGIN_SECS = 20.0


@dataclass(frozen=True, slots=True)
class Habits:
    """``wakes``: the moments, the oldest first; ``since``: from when on none is missing; None: nothing is known."""

    wakes: tuple[float, ...] = ()
    since: float | None = None

    def watched(self, clock_secs: float) -> Habits:
        """From *clock_secs* on, where it wasn't before."""
        return self if self.since is not None else Habits((), clock_secs)

    def woken(self, clock_secs: float) -> Habits:
        """With one more wake. One that is not later than the last (a clock was set back) is left out."""
        if self.wakes and clock_secs <= self.wakes[-1]:
            return self
        wakes = (*self.wakes, clock_secs)
        if len(wakes) <= _MOST_WAKES:
            return Habits(wakes, self.since if self.since is not None else clock_secs)
        return Habits(wakes[1:], wakes[1])

    def chances(self, clock_secs: float) -> tuple[Sequence[Chance], float, str]:
        """
        What came of this time in earlier weeks, where two are known, else on earlier days, where three are; how often
        nobody came within an hour; and which of both it is: "week" or "day".
        """
        weeks = self._earlier(clock_secs, WEEK_SECS, _MOST_WEEKS)
        if len(weeks) >= _FEWEST_WEEKS:
            return (*self._next_wakes(weeks), "week")
        days = self._earlier(clock_secs, DAY_SECS, _MOST_DAYS)
        if len(days) >= _FEWEST_DAYS:
            return (*self._next_wakes(days), "day")
        return (), 0.0, "day"

    def _earlier(self, clock_secs: float, period_secs: float, most: int) -> list[float]:
        if self.since is None:
            return []
        moments = (clock_secs - number * period_secs for number in range(1, most + 1))
        return [moment for moment in moments if moment >= self.since]

    def _next_wakes(self, moments: Sequence[float]) -> tuple[Sequence[Chance], float]:
        found = []
        for moment in moments:
            number = bisect_left(self.wakes, moment - _MARGIN_SECS)
            if number < len(self.wakes) and (after := self.wakes[number] - moment) <= HORIZON_SECS:
                found.append(Chance(max(0.0, after - _MARGIN_SECS), after + _MARGIN_SECS))
        return found, float(len(moments) - len(found))

    def to_json(self) -> dict[str, Any]:
        """What is stored with a decision."""
        return {"wakes": list(self.wakes), "since": self.since}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Habits:
        """The habits again, exactly."""
        return cls(tuple(stored["wakes"]), stored["since"])
