"""
No I/O: Knative's pod autoscaler (KPA), for comparison, by its published algorithm and defaults.

Averages of in-flight plus waiting over 60 s (stable) and 6 s (panic), against 0.7 of what a run takes at once; panic at
twice what serves, until 60 s after the last such moment, in which nothing shrinks; at most down to half a decision; to
zero 30 s after the stable window is empty. It decides every 2 s, and at once when the first request finds no run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.policy.windows import Window
from loadtests.simulation.engine import Glimpse, Run

_ALMOST = 1e-9


@dataclass(slots=True)
class Kpa:
    """
    One pool's autoscaler with its memory.

    ``max_scale_up_rate`` and ``max_scale_down_rate`` bound one decision against the runs that serve.
    """

    stable_secs: int = 60
    panic_secs: int = 6
    utilization_ratio: float = 0.7
    panic_factor: float = 2.0
    grace_secs: float = 30.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    _loads: Window | None = None
    _panic_at: float | None = None
    _most_in_panic: int = 0
    _empty_since: float | None = None

    def choose(self, seen: Glimpse) -> tuple[int, Sequence[int]]:
        """Start or drain what the wanted number asks for; the emptiest, then the youngest, go first."""
        loads = self._loads or Window(seen.now, seen.now)
        self._loads = loads.add(seen.now, seen.average_load)
        live = seen.live
        if seen.is_poke:
            # The activator pokes for the first request of a sleeping revision only.
            return (0 if live else 1), ()
        ready = sum(run.state == "serving" for run in live)
        wanted = self.wanted(self._loads.mean(self.stable_secs), self._loads.mean(self.panic_secs), ready, seen)
        return max(0, wanted - len(live)), [run.id for run in to_drain(live)[: max(0, len(live) - wanted)]]

    def wanted(self, stable: float, panic: float, ready: int, seen: Glimpse) -> int:
        """
        Runs for these averages. E.g. 4 at once a run: the target is 2.8, so a stable average of 9 is 4 runs.

        With one that is ready, a panic average above 2.8 means panic.
        """
        target = seen.limit * self.utilization_ratio
        serving = max(1, ready)
        most, least = math.ceil(self.max_scale_up_rate * serving), math.floor(ready / self.max_scale_down_rate)
        for_stable = math.ceil(stable / target - _ALMOST)
        for_panic = math.ceil(panic / target - _ALMOST)
        if for_panic / serving >= self.panic_factor:
            self._panic_at = seen.now
        elif self._panic_at is not None and self._panic_at + self.stable_secs < seen.now:
            self._panic_at, self._most_in_panic = None, 0
        wanted = min(max(for_stable, least), most)
        if self._panic_at is not None:
            self._most_in_panic = max(self._most_in_panic, wanted, min(max(for_panic, least), most))
            wanted = self._most_in_panic
        return self._not_at_once_to_zero(wanted, seen)

    def _not_at_once_to_zero(self, wanted: int, seen: Glimpse) -> int:
        if wanted or not seen.live:
            self._empty_since = None
            return wanted
        self._empty_since = seen.now if self._empty_since is None else self._empty_since
        return 0 if seen.now - self._empty_since >= self.grace_secs else 1


def to_drain(live: Sequence[Run]) -> list[Run]:
    """The emptiest first, then the youngest."""
    return sorted(live, key=lambda run: (run.in_flight, -run.born))
