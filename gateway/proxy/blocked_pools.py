"""No I/O: for which pools the autoscaler starts nothing for now, and what their callers are told meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable

from gateway.core.errors import (
    GreenroomError,
    StandbyNoRoom,
    StandbyQuarantined,
    StandbyRunFailed,
)
from gateway.core.standby import Generation, PoolKey
from gateway.state.ports import PoolBlocked

_MOST_KEPT = 10_000


class BlockedPools:
    """What was said of blocked pools, each until its time is over. *clock* is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._blocks: dict[PoolKey, tuple[float, PoolBlocked]] = {}
        self._late: dict[PoolKey, tuple[float, PoolBlocked]] = {}

    def block(self, blocked: PoolBlocked) -> None:
        """From now on, unless it only speaks to those who wait at this moment."""
        if blocked.retry_after_secs is None:
            return
        blocks, now = self._late if blocked.is_late else self._blocks, self._clock()
        if len(blocks) >= _MOST_KEPT:
            for pool in [pool for pool, (until, _) in blocks.items() if until <= now]:
                del blocks[pool]
            if len(blocks) >= _MOST_KEPT:
                blocks.clear()  # who is forgotten too early is only held, and hears again
        blocks[blocked.pool] = now + blocked.retry_after_secs, blocked

    def free(self, pool: PoolKey) -> None:
        """It is no longer so."""
        self._blocks.pop(pool, None)
        self._late.pop(pool, None)

    def forget_all(self) -> None:
        """Changes were missed: nobody is refused by what may have changed."""
        self._blocks.clear()
        self._late.clear()

    def late_words(self, pool: PoolKey) -> str | None:
        """What those are told besides who have waited in vain."""
        until, blocked = self._late.get(pool, (0.0, None))
        return blocked.message if blocked is not None and until > self._clock() else None

    def refusal(self, pool: PoolKey, generation: Generation, *, is_owner: bool) -> GreenroomError | None:
        """What a request is told for which a run of *generation* would have to be started; None: it may wait for it."""
        kept = self._blocks.get(pool)
        if kept is None:
            return None
        until, blocked = kept
        left_secs = until - self._clock()
        if left_secs <= 0 or blocked.generation not in (None, generation):
            del self._blocks[pool]
            return None
        return refusal_of(blocked, left_secs, is_owner=is_owner)


def refusal_of(blocked: PoolBlocked, left_secs: float | None, *, is_owner: bool) -> GreenroomError:
    """The error that *blocked* means, for another *left_secs*; only owners see the log of a run."""
    facts = dict(blocked.facts)
    if is_owner and blocked.log_tail:
        facts["logTail"] = list(blocked.log_tail)
    if blocked.error_type == StandbyRunFailed.error_type or left_secs is None:
        return StandbyRunFailed(blocked.message, data=facts)
    retry_after_secs = max(1, math.ceil(left_secs))
    if blocked.error_type == StandbyQuarantined.error_type:
        return StandbyQuarantined(blocked.message, retry_after_secs=retry_after_secs, data=facts)
    return StandbyNoRoom(blocked.message, retry_after_secs=retry_after_secs, data=facts)
