"""
No I/O: which pools a look must decide, and which have nothing new since they were decided.

A look costs what changes, not what is there: one request that finds no run must not wait for a decision about each of
hundreds of pools that are as they were, nor must pokes that follow one another keep the loop busy with them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from autoscaler.policy.observing import RunSeen
from gateway.core.standby import PoolKey


def sign_of(runs: Sequence[RunSeen], *settings: Hashable) -> Hashable:
    """What a decision about a pool that nobody waits for goes by, but for times, averages and load."""
    return (*settings, *((run.run_id, run.state, run.in_flight, run.viewers, run.retires_because) for run in runs))


@dataclass(slots=True)
class Due:
    """
    When each pool was decided, on what, and when it is to be decided again whatever happens.

    *every_secs* is the longest that averages and load wait for a decision. Times are of one monotonic clock.
    """

    every_secs: float
    _decided: dict[PoolKey, tuple[Hashable, float]] = field(default_factory=dict)

    def is_due(self, pool: PoolKey, sign: Hashable, now: float) -> bool:
        """Whether *pool* has changed or its time has come."""
        before = self._decided.get(pool)
        return before is None or now >= before[1] or before[0] != sign

    def decided(self, pool: PoolKey, sign: Hashable, now: float, look_again_in_secs: float | None) -> None:
        """It was, just now, and nothing changes by time alone before that."""
        secs = self.every_secs if look_again_in_secs is None else min(self.every_secs, look_again_in_secs)
        self._decided[pool] = (sign, now + secs)

    def still_wants(self, pool: PoolKey) -> None:
        """It was, but did not get what it wants: every look asks for it again."""
        self._decided.pop(pool, None)

    def secs_to_next(self, now: float) -> float:
        """Until the time of the next pool comes; inf where there is none."""
        return min((max(0.0, at - now) for _, at in self._decided.values()), default=math.inf)

    def keep(self, pools: AbstractSet[PoolKey]) -> None:
        """Forget all others."""
        for pool in self._decided.keys() - pools:
            del self._decided[pool]
