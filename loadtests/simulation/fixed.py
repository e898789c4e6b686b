"""No I/O: the simplest policy: as many runs as hold all requests, each kept for a fixed time after its last one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.simulation.engine import Glimpse


@dataclass(frozen=True, slots=True)
class FixedIdle:
    """It remembers nothing."""

    idle_secs: float = 60.0

    def choose(self, seen: Glimpse) -> tuple[int, Sequence[int]]:
        """Start what is missing; drain what was idle for so long."""
        return max(0, slots_for(seen) - len(seen.live)), [
            run.id
            for run in seen.live
            if run.state == "serving" and not run.in_flight and run.idle_secs(seen.now) >= self.idle_secs
        ]


def slots_for(seen: Glimpse) -> int:
    """Runs that hold all requests that are there."""
    return math.ceil((sum(run.in_flight for run in seen.live) + seen.waiting) / seen.limit)
