"""
No I/O: how long a pool is quiet between requests, and for how long it therefore pays to keep its last run.

Keeping costs a run-second a second; a wake costs what its late requests are worth. Of all keep-alives the one that
would have cost least over the gaps that were seen is the one to have: a pool whose gaps never exceed 50 s keeps its run
for 50 s, one that sleeps for hours between two busy minutes gives it up soon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.policy.chances import Chance

_SHORTEST_SECS = 5.0
_GROWTH = 1.15
EDGES = tuple(_SHORTEST_SECS * _GROWTH**number for number in range(48))
"""Upper borders of the buckets: 5 s, 5.75 s, … an hour or so; what is longer falls into the last one."""
_FADING = 0.995


@dataclass(frozen=True, slots=True)
class Gaps:
    """Counts by length, the older the less; gaps of less than five seconds are of no interest: a start is as long."""

    counts: tuple[float, ...] = ()

    @property
    def total(self) -> float:
        """How many, the older ones for less."""
        return sum(self.counts)

    def add(self, secs: float) -> Gaps:
        """With one more of *secs*."""
        if secs < _SHORTEST_SECS:
            return self
        number = next((n for n, edge in enumerate(EDGES) if secs <= edge), len(EDGES) - 1)
        counts = self.counts or (0.0,) * len(EDGES)
        return Gaps(tuple(count * _FADING + (n == number) for n, count in enumerate(counts)))

    def best_keep_secs(self, wake_costs_secs: float, longest_secs: float) -> float:
        """
        The keep-alive of at most *longest_secs* that costs least over these gaps, where a wake costs as much as
        *wake_costs_secs* of a run; one bucket more, since the next gap may be a little longer than the longest so far.

        E.g. gaps of 10 s and of an hour, a wake at 40 s: 11.6 s.
        """
        best, least = 0.0, self._costs(0.0, wake_costs_secs)
        for edge in EDGES:
            if edge > longest_secs:
                break
            costs = self._costs(edge, wake_costs_secs)
            if costs < least:
                best, least = edge, costs
        return min(longest_secs, best * _GROWTH)

    def chances(self, after_secs: float) -> tuple[Sequence[Chance], float]:
        """
        What came of gaps that were longer than *after_secs*: when they ended, counted from their beginning, and how
        many were so long that nothing is known of their end.
        """
        counted = zip(EDGES, EDGES[1:-1], self.counts[1:-1], strict=False)
        known = [Chance(least, most, count) for least, most, count in counted if count and least >= after_secs]
        return known, self.counts[-1] if self.counts else 0.0

    def _costs(self, keep_secs: float, wake_costs_secs: float) -> float:
        return sum(
            count * (edge if edge <= keep_secs else keep_secs + wake_costs_secs)
            for edge, count in zip(EDGES, self.counts, strict=False)
            if count
        )
