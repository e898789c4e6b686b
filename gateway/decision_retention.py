"""The autoscaler's decisions are kept for a while, and so many of each pool; the others are forgotten beside it all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.state.ports import Records
from gateway.state.steady import steadily

_log = logging.getLogger(__name__)

_EVERY_SECS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRetention:
    """
    Forgets what is older than *keep*, or beyond *keep_per_pool*, at once and then every ten minutes.

    Any process may do it, and several at once: what is gone is gone.
    """

    records: Records
    keep: timedelta
    keep_per_pool: int
    now: Callable[[], datetime]

    async def forget_for_ever(self) -> None:
        """Until cancelled; trouble with the records only delays it."""
        await steadily("the forgetting of old decisions", self._forget_for_ever)

    async def forget(self) -> int:
        """Once; how many are gone."""
        forgotten = await self.records.forget_decisions(self.now() - self.keep, self.keep_per_pool)
        if forgotten:
            _log.info("forgot %d old decisions of the autoscaler", forgotten)
        return forgotten

    async def _forget_for_ever(self) -> None:
        while True:
            await self.forget()
            await asyncio.sleep(_EVERY_SECS)
