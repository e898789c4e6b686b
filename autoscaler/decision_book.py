"""Decisions on their way into the records: beside the loop, in batches, and each of them once."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from gateway.core.errors import NameNotUnique
from gateway.core.model import DecisionRecord
from gateway.state.ports import Records, StateUnavailable

_log = logging.getLogger(__name__)

_MOST_UNWRITTEN = 10_000
_BATCH_SECS = 0.5
# Who leads next, or the end of this process, waits for the last ones.
_LAST_WRITE_SECS = 2.0


class DecisionBook:
    """
    ``note`` what was decided; ``write`` goes on until it is cancelled, and leaves nothing unwritten behind where the
    records can be written then.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._unwritten: asyncio.Queue[DecisionRecord] = asyncio.Queue(_MOST_UNWRITTEN)
        self._batch: list[DecisionRecord] = []

    def note(self, decision: DecisionRecord) -> None:
        """It will be written soon: writing what was decided for one pool must not delay the wake of the next."""
        if self._unwritten.full():
            _log.warning("decisions come faster than they can be written: one is not kept")
            return
        self._unwritten.put_nowait(decision)

    async def write(self) -> None:
        """For ever; in the end at once. Raises StateUnavailable: what it had then comes first when it begins anew."""
        try:
            while True:
                await self._write_batch()
                self._batch = [await self._unwritten.get()]
                await asyncio.sleep(_BATCH_SECS)
                self._batch += self._all_unwritten()
        except asyncio.CancelledError:
            await self._write_the_last()
            raise

    async def _write_batch(self) -> None:
        # Whose first write was cancelled or failed may be on record all the same.
        with contextlib.suppress(NameNotUnique):
            await self._records.add_decisions(self._batch)
        self._batch = []

    async def _write_the_last(self) -> None:
        try:
            async with asyncio.timeout(_LAST_WRITE_SECS):
                await self._write_batch()
                self._batch = self._all_unwritten()
                await self._write_batch()
        except (StateUnavailable, TimeoutError) as error:
            _log.warning("the last decisions are not kept: %s", error or "the records are too slow")

    def _all_unwritten(self) -> list[DecisionRecord]:
        return [self._unwritten.get_nowait() for _ in range(self._unwritten.qsize())]
