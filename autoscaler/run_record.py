"""The record of one live run in its keeper's hands: stored, changed by compare-and-set, told, and its log written."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from autoscaler.keeper_tools import KeeperTools
from gateway.core.errors import Conflict, MachineTrouble
from gateway.core.model import Run
from gateway.core.storages import KeyValueRecord
from gateway.new_run import store_run
from gateway.state.changes import change_run
from gateway.state.ports import Changed, StateUnavailable

_log = logging.getLogger(__name__)

_RETRY_SECS = 1.0


@dataclass(slots=True, kw_only=True, eq=False)
class RunRecord:
    """
    ``run`` is the record as it was seen last. ``is_stored``: it exists, and not only here; else ``contents`` are stored
    with it.
    """

    run: Run
    tools: KeeperTools
    is_stored: bool = False
    contents: tuple[KeyValueRecord, ...] = ()
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _letting_go: asyncio.Event = field(default_factory=asyncio.Event)

    def look(self, run: Run | None = None) -> None:
        """The record may hold a new wish."""
        if run is not None and run.version > self.run.version:
            self.run = run
        self._news.set()

    def let_go(self) -> None:
        """Greenroom ends, the run goes on."""
        self._letting_go.set()

    async def _store(self) -> None:
        """Put the run on record, where that has not been done. No program of its begins before."""
        if self.is_stored:
            return
        self.is_stored = True
        try:
            await store_run(self.tools.state.records, self.run, self.tools.box, self.tools.new_id(), self.contents)
        except StateUnavailable as error:
            raise MachineTrouble(f"The run could not be put on record. {error}") from error
        await self._tell_changed()

    async def _change(self, change: Callable[[Run], Run | None]) -> bool:
        """
        Until it is stored: a disk that is full for a while must not end a run, nor hide its end.

        False where Greenroom ends before.
        """
        while True:
            try:
                await self._change_once(change)
            except StateUnavailable as error:
                _log.warning("a run's change waits to be recorded: %s", error, extra={"run_id": self.run.id})
                if self._letting_go.is_set():
                    return False
                await self._pause(_RETRY_SECS)
            else:
                return True

    async def _change_once(self, change: Callable[[Run], Run | None]) -> None:
        """Most changes of a run are its keeper's, so the record that he has is tried before it is read again."""
        wanted = change(self.run)
        try:
            if wanted is None:
                raise Conflict("The record at hand needs no change; the present one may.")
            changed = await self.tools.state.records.replace_run(wanted)
        except Conflict:
            changed = await change_run(self.tools.state.records, self.run.id, change)
        if changed.version > self.run.version:
            self.run = changed
        self._news.set()

    async def _pause(self, secs: float) -> None:
        """So long, but not longer than Greenroom lasts."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(secs):
                await self._letting_go.wait()

    async def _tell_changed(self) -> None:
        await self.tools.state.signals.changed(Changed(kind="run", id=self.run.id))

    def _say(self, line: str) -> None:
        """A line of the system's in the run's log; a full disk keeps it out and ends nothing."""
        with contextlib.suppress(OSError):
            self.tools.logs.append(self.run.id, f"ACTOR: {line}")
