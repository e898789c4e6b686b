"""
No I/O: the hybrid histogram policy of "Serverless in the Wild" (Shahrad et al., USENIX ATC 2020), for comparison.

A histogram of the times without any request: its head (5th percentile) says when to start again before the next one is
expected, its tail (99th) for how long to keep the last run. Where it says too little (few entries, or no concentration)
the run is kept for the whole range. The paper's bins are minutes over four hours, for functions that are called some
times a day; here they are seconds, since these traces last two hours and a start takes three seconds. Beyond one run it
is the simplest policy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from loadtests.simulation.engine import Glimpse
from loadtests.simulation.fixed import slots_for

_FEW = 10
_CONCENTRATED = 2.0
_HEAD_RATIO = 0.05
_MARGIN_RATIO = 0.1


@dataclass(slots=True)
class Hybrid:
    """
    One pool with its histogram: ``bin_secs`` wide bins up to ``range_secs``.

    ``tail_ratio``: the percentile of the gaps for which the last run is kept.
    """

    tail_ratio: float = 0.99
    bin_secs: float = 1.0
    range_secs: float = 300.0
    _bins: Counter[int] = field(default_factory=Counter)
    _quiet_since: float | None = None

    def choose(self, seen: Glimpse) -> tuple[int, Sequence[int]]:
        """Unload, start ahead of the expected next request, or keep, by the histogram."""
        live = seen.live
        load = sum(run.in_flight for run in live) + seen.waiting
        if load or seen.arrivals:
            self._ended(seen)
        if not load and self._quiet_since is None:
            self._quiet_since = seen.now - min((run.idle_secs(seen.now) for run in live), default=0.0)
        idle = [run for run in live if run.state == "serving" and not run.in_flight]
        if load or self._quiet_since is None:
            missing = max(0, slots_for(seen) - len(live))
            return missing, [run.id for run in idle if run.idle_secs(seen.now) >= self.range_secs]
        quiet, (head, tail) = seen.now - self._quiet_since, self.windows()
        if head <= quiet < tail:
            return max(0, 1 - len(live)), [run.id for run in idle[1:]]
        return 0, [run.id for run in idle]

    def _ended(self, seen: Glimpse) -> None:
        if self._quiet_since is not None and seen.now > self._quiet_since:
            self._bins[int((seen.now - self._quiet_since) / self.bin_secs)] += 1
        self._quiet_since = None

    def windows(self) -> tuple[float, float]:
        """From when to when after the last request there is a run: with margins of a tenth, as in the paper."""
        inside = Counter({number: count for number, count in self._bins.items() if number < self._bin_count})
        total = sum(inside.values())
        if total < _FEW or self._variation(inside) < _CONCENTRATED or total < sum(self._bins.values()) / 2:
            return 0.0, self.range_secs
        head = _percentile(inside, _HEAD_RATIO) * self.bin_secs * (1 - _MARGIN_RATIO)
        tail = (_percentile(inside, self.tail_ratio) + 1) * self.bin_secs * (1 + _MARGIN_RATIO)
        # A start takes longer than so short a sleep is worth.
        return (head if head >= 2 * self.bin_secs + 3 else 0.0), tail

    @property
    def _bin_count(self) -> int:
        return int(self.range_secs / self.bin_secs)

    def _variation(self, bins: Counter[int]) -> float:
        """The coefficient of variation over all bins: large where the gaps are much alike."""
        mean = sum(bins.values()) / self._bin_count
        square = sum(count * count for count in bins.values()) / self._bin_count
        return math.sqrt(max(0.0, square - mean * mean)) / mean


def _percentile(bins: Counter[int], ratio: float) -> int:
    wanted, so_far = ratio * sum(bins.values()), 0
    for number in sorted(bins):
        so_far += bins[number]
        if so_far >= wanted:
            return number
    return max(bins)
