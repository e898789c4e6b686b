"""Decisions on their way into the records: beside the loop, in batches, and each of them once."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from gateway.core.errors import NameNotUnique
from gateway.core.model import DecisionRecord
from gateway.state.ports import Records

_log = logging.getLogger(__name__)

_MOST_UNWRITTEN = 10_000
_BATCH_SECS = 0.5


class DecisionBook:
    """``note`` what was decided; ``write`` goes on until it is cancelled, and leaves nothing unwritten behind."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._unwritten: asyncio.Queue[DecisionRecord] = asyncio.Queue(_MOST_UNWRITTEN)

    def note(self, decision: DecisionRecord) -> None:
        """It will be written soon: writing what was decided for one pool must not delay the wake of the next."""
        if self._unwritten.full():
            _log.warning("decisions come faster than they can be written: one is not kept")
            return
        self._unwritten.put_nowait(decision)

    async def write(self) -> None:
        """For ever; in the end at once."""
        batch: list[DecisionRecord] = []
        try:
            while True:
                batch = [await self._unwritten.get()]
                await asyncio.sleep(_BATCH_SECS)
                batch += self._all_unwritten()
                await self._records.add_decisions(batch)
                batch = []
        finally:
            # Cancelled while it is written, it may be on record all the same.
            with contextlib.suppress(NameNotUnique):
                await self._records.add_decisions(batch)
            await self._records.add_decisions(self._all_unwritten())

    def _all_unwritten(self) -> list[DecisionRecord]:
        return [self._unwritten.get_nowait() for _ in range(self._unwritten.qsize())]
