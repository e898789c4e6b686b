"""
Once a second: how busy each run is, told to the run itself and to the signals.

One look at the process table serves all runs, in a thread, so that it holds up nobody's wake; a look that takes long
only makes the next one late. What comes of it is one figure for all who ask: the Actor by its events socket, the
autoscaler by the signals, and in the end the run's record.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.core.load import Load, Usage
from gateway.core.model import Run
from gateway.core.system_events import load_frames
from gateway.state.ports import RunEvent, Signals

_log = logging.getLogger(__name__)

BEAT_SECS = 1.0
_LOAD_TTL_SECS = 5.0


class Measured(Protocol):
    """A live run that wants to know its load."""

    @property
    def run(self) -> Run:
        """Its record."""
        ...

    def measured(self, usage: Usage, at: float) -> Load | None:
        """Take one more sample, of the time *at*; its load as far as it is known by now."""
        ...


@dataclass(slots=True, kw_only=True)
class Pulse:
    """*runs* gives those that live, *measure* what they use; *clock* is monotonic, *now* the time of day."""

    runs: Callable[[], Sequence[Measured]]
    measure: Callable[[], Awaitable[Mapping[str, Usage]]]
    signals: Signals
    now: Callable[[], datetime]
    clock: Callable[[], float] = time.monotonic

    async def beat_for_ever(self) -> None:
        """A beat a second; one that takes longer delays the next, and none is made up for."""
        due = self.clock()
        while True:
            due = max(due + BEAT_SECS, self.clock())
            await asyncio.sleep(max(0.0, due - self.clock()))
            await self.beat()

    async def beat(self) -> None:
        """Measure all runs once, and tell. Raises StateUnavailable."""
        if not self.runs():
            return
        asked_at = self.clock()
        try:
            usages = await self.measure()
        except (OSError, ValueError) as error:
            _log.warning("the load of the runs can't be measured: %s", error)
            return
        at = (asked_at + self.clock()) / 2
        loads: dict[str, Load] = {}
        alive = self.runs()
        for one in alive:
            usage = usages.get(one.run.id)
            load = one.measured(usage, at) if usage is not None else None
            if load is not None:
                loads[one.run.id] = load
        await self.signals.report_load(loads, ttl_secs=_LOAD_TTL_SECS)
        connected = await self.signals.connected_runs()
        now = self.now()
        for one in alive:
            if one.run.id in loads and one.run.id in connected:
                frames = load_frames(now, loads[one.run.id], one.run.options.memory_mbytes)
                await self.signals.send_event(RunEvent(run_id=one.run.id, frames=frames))
