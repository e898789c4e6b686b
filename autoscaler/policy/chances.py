"""
No I/O: from when to when a run is worth having though nobody asks, by what came of earlier times that were like now.

Having a run costs a run-second a second; a wake costs what its late requests are worth. The window to have one in is
that which would have cost least over all of those times, the ones in which nobody came among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chance:
    """Once, or *weight* times, somebody came between *begins* and *ends*: seconds from a moment like now."""

    begins: float
    ends: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when, in seconds from now."""

    begins: float
    ends: float


def best_span(chances: Sequence[Chance], never: float, *, wake_costs_secs: float, start_secs: float) -> Span | None:
    """
    The span in which a run pays best, *start_secs* before it included; None: in no one does it pay.

    *never*: how many times nobody came at all. Who came before the span found no run, whether there is a span or not.
    E.g. of ten times somebody came nine times after 600 to 610 s and once never, and a wake costs 143 s of a run: from
    600 to 610 s, for 9 wakes less and ten starts of 3 s.
    """
    ordered = sorted(chances, key=lambda chance: (chance.begins, chance.ends))
    left = never + sum(chance.weight for chance in ordered)
    best: Span | None = None
    most = 0.0
    for number, first in enumerate(ordered):
        begins = max(0.0, first.begins)
        later, ends, gain = left, begins, -left * start_secs
        for chance in ordered[number:]:
            ends = max(ends, chance.ends)
            later -= chance.weight
            gain += chance.weight * (wake_costs_secs - (chance.ends - begins))
            if (paid := gain - later * (ends - begins)) > most:
                most, best = paid, Span(begins, ends)
        left -= first.weight
    return best
