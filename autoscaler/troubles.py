"""Pools in quarantine, between those who know of it: keepers tell of failures, callers and owners hear of pauses."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from autoscaler.policy.quarantine import Quarantine, RunNews, Standing, Trouble, whole_secs
from gateway.core.errors import StandbyQuarantined
from gateway.core.standby import Generation, PoolKey
from gateway.core.trouble import RETRY, PoolTrouble
from gateway.live_logs import Logs
from gateway.state.ports import PoolBlocked, PoolFreed, Signals

_log = logging.getLogger(__name__)

_LOG_TAIL_LINES = 20


@dataclass(slots=True, kw_only=True)
class Troubles:
    """
    The quarantine of one autoscaler. *clock* is monotonic; ``on_pause`` is told of each pause that begins, and whether
    it is one for crashes, ``on_count`` how many pools are in quarantine now.
    """

    signals: Signals
    logs: Logs
    ttl_secs: float
    clock: Callable[[], float] = time.monotonic
    on_pause: Callable[[bool], None] = lambda _: None
    on_count: Callable[[int], None] = lambda _: None
    _quarantine: Quarantine = field(default_factory=Quarantine)
    _freed: list[PoolKey] = field(default_factory=list)
    _has_reported: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, news: RunNews) -> None:
        """What became of a run."""
        now = self.clock()
        was_paused = self.standing(news.pool, news.generation).quarantined is not None
        trouble = self._quarantine.hear(news, now)
        if trouble is not None:
            _log.warning(
                "a pool is quarantined for %.0f s: %s", trouble.pause_secs, trouble.in_words(),
                extra={"run_id": news.run_id, "pool": news.pool.id},
            )  # fmt: skip
            self.on_pause(bool(trouble.crashes))
            self._changed.set()
        elif was_paused and self.standing(news.pool, news.generation).quarantined is None:
            self._freed.append(news.pool)
            self._changed.set()

    def standing(self, pool: PoolKey, generation: Generation, *, starting: int = 0) -> Standing:
        """What *pool* may do now."""
        return self._quarantine.standing(pool, generation, self.clock(), starting=starting)

    async def begin_anew(self) -> None:
        """A new lead: what an earlier one held against pools is not known, so those who were refused may come."""
        known = {trouble.pool for trouble in await self.signals.troubles()}
        self._freed += {*self._quarantine.clear_all(), *known}
        self._has_reported = self._has_reported or bool(known)

    async def tell_waiting(self, pool: PoolKey, generation: Generation, standing: Standing, name: str) -> None:
        """
        Those who wait for a run of *pool*, and those who come during the pause, hear why none is started; *name* is the
        Actor's.
        """
        trouble = standing.quarantined
        if trouble is None:
            return
        await self.signals.block_pool(
            PoolBlocked(
                pool=pool,
                message=f"{_in_words(trouble, standing.left_secs)} Its owner mends that by a new build, or has it "
                f"tried at once by 'greenroom retry {name}'.",
                error_type=StandbyQuarantined.error_type,
                retry_after_secs=standing.left_secs,
                generation=generation,
                facts={"runId": trouble.run_id, **_counts(trouble)},
                log_tail=await self.logs.tail(trouble.run_id, _LOG_TAIL_LINES),
            )
        )

    async def report(self) -> None:
        """Tell the gateways what is over, and everybody which pools are in quarantine."""
        for pool in self._freed:
            await self.signals.free_pool(PoolFreed(pool=pool))
        self._freed.clear()
        now = self.clock()
        self._quarantine.forget_old(now)
        troubles = [
            PoolTrouble(
                pool=pool,
                generation=generation,
                failed_starts=trouble.failed_starts,
                crashes=len(trouble.crashes),
                message=_in_words(trouble, trouble.left_secs(now)),
                run_id=trouble.run_id,
                retry_after_secs=trouble.left_secs(now),
            )
            for pool, generation, trouble in self._quarantine.quarantined()
        ]
        self.on_count(len(troubles))
        if troubles or self._has_reported:
            await self.signals.report_troubles(troubles, ttl_secs=self.ttl_secs)
        self._has_reported = bool(troubles)

    async def report_changes(self) -> None:
        """For ever: everybody hears of a pause when it begins and when it is over before its time."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.report()

    async def follow_retries(self) -> None:
        """For ever: pools that somebody wants to be tried again are free."""
        async with self.signals.watch_changes() as changes:
            async for change in changes:
                if change.kind == RETRY:
                    self._freed += self._quarantine.clear(change.id)
                    self._changed.set()


def _in_words(trouble: Trouble, left_secs: float) -> str:
    if left_secs <= 0:
        return f"{trouble.in_words()} The next request has it tried again."
    return f"{trouble.in_words()} Nothing is started for another {whole_secs(left_secs)} s."


def _counts(trouble: Trouble) -> dict[str, object]:
    return {"crashes": len(trouble.crashes)} if trouble.crashes else {"failedStarts": trouble.failed_starts}
