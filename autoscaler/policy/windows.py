"""
No I/O: averages over the last seconds, of a value that was only ever known as an average since one looked before.

A window is a value that knows no clock: times are passed in, adding gives a new window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SECS = 60
NOTHING = (0.0,) * SECS


@dataclass(frozen=True, slots=True)
class Window:
    """
    A minute in buckets of one second, the newest last; a moment on the border belongs to the bucket that ends there.

    ``areas`` are value times seconds; ``since`` is when the first value began, ``until`` when the last one ended.
    """

    since: float
    until: float
    areas: tuple[float, ...] = NOTHING

    def add(self, now: float, average: float) -> Window:
        """The window after *average* since ``until``. Costs one copy of the buckets."""
        if now <= self.until:
            return self
        last, newest = _bucket(self.until), _bucket(now)
        ahead = newest - last
        if not average:
            # Most pools sleep most of the time.
            areas = NOTHING if ahead >= SECS else self.areas[ahead:] + NOTHING[:ahead] if ahead else self.areas
            return Window(self.since, now, areas)
        if not ahead:
            return Window(self.since, now, (*self.areas[:-1], self.areas[-1] + average * (now - self.until)))
        first = self.areas[-1] + average * (last + 1 - self.until)
        between = (average,) * min(ahead - 1, SECS)
        areas = (*self.areas[:-1], first, *between, average * (now - newest))[-SECS:]
        return Window(self.since, now, areas)

    def mean(self, secs: int) -> float:
        """
        The average over the last *secs* buckets, the one that has begun among them, or over as much as was seen.

        E.g. a value of 1 for 0.5 s that were all that was seen is an average of 1, not of a sixtieth of it.
        """
        covered = self.covered(secs)
        return sum(self.areas[-secs:]) / covered if covered > 0 else 0.0

    def covered(self, secs: int) -> float:
        """How many seconds of the last *secs* buckets were seen."""
        return min(self.until - self.since, secs - 1 + self.until - _bucket(self.until))

    def to_json(self) -> dict[str, Any]:
        """What is stored; buckets before the first with a value are left out."""
        first = next((number for number, area in enumerate(self.areas) if area), SECS)
        return {"since": self.since, "until": self.until, "areas": list(self.areas[first:])}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Window:
        """The window again, exactly."""
        areas = tuple(stored["areas"])
        return cls(stored["since"], stored["until"], NOTHING[len(areas) :] + areas)


def _bucket(moment: float) -> int:
    return math.ceil(moment) - 1
