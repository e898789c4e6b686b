"""
A run that nobody uses stands still, and goes on for whoever needs it.

First it is told, then it is done: the route says FROZEN, every gateway confirms that it has seen that and has nothing
in flight there, and only then do the processes stand still. Who comes meanwhile is held; that takes the freeze back.
The way back is the other way round: the processes go on, and then the route says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field

from autoscaler.policy.freezing import is_needed
from autoscaler.run_readiness import RunReadiness
from gateway.core.demand import is_drained
from gateway.core.errors import LaunchError
from gateway.core.lifecycle import Readiness, RunStatus

_log = logging.getLogger(__name__)

_PATIENCE_SECS = 5.0  # with gateways that don't confirm; then the run serves on


@dataclass(slots=True, kw_only=True, eq=False)
class RunFreezing(RunReadiness):
    """``freeze`` and ``resume`` say what is wanted and return at once; ``_watch_frost`` does it."""

    _freeze_because: str | None = None  # None: it is to be awake
    _frost_news: asyncio.Event = field(default_factory=asyncio.Event)
    _stands_still: bool = False
    _can_freeze: bool = True
    _at_launcher: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def may_freeze(self) -> bool:
        """Whether it may be frozen at all: a pool's run that goes on as it is, on a launcher that can do that."""
        is_staying = self.run.status is RunStatus.RUNNING and self.run.restart_wish is None
        return self.pool is not None and self._can_freeze and is_staying

    def freeze(self, reason: str) -> None:
        """Have it stand still for *reason*, unless somebody needs it by then."""
        if self.readiness is Readiness.SERVING and self.may_freeze and self._freeze_because is None:
            self._freeze_because = reason
            self._frost_news.set()

    def resume(self, reason: str) -> None:
        """Have it go on for *reason*, or not stand still in the first place."""
        if self._freeze_because is not None:
            _log.info("a frozen run goes on: %s", reason, extra={"run_id": self.run.id})
        self._freeze_because = None
        self._frost_news.set()

    def probe_again(self) -> None:
        """One that stands still goes on; if it refuses then, too, it is probed."""
        if self.readiness is Readiness.FROZEN:
            self.resume("it refused a connection")
        else:
            RunReadiness.probe_again(self)

    def _forget_frost(self) -> None:
        """A new program begins."""
        self._freeze_because = None
        self._frost_news.clear()
        self._stands_still = False

    async def _watch_frost(self) -> None:
        while True:
            await self._frost_news.wait()
            self._frost_news.clear()
            if self._freeze_because is not None:
                await self._freeze(self._freeze_because)
            elif self.readiness is Readiness.FROZEN:
                await self._thaw()

    async def _freeze(self, reason: str) -> None:
        # The events of the system would be missed, "aborting" among them, and what waits for an answer would break.
        if self.run.id not in await self.tools.state.signals.connected_runs() and self._become(Readiness.FROZEN):
            version = await self._publish()
            if await self._is_unneeded(version) and await self._stand_still():
                _log.info("froze a run: %s", reason, extra={"run_id": self.run.id})
                self.tools.on_freeze()
                return
        await self._serve_on()

    async def _is_unneeded(self, routes_version: int) -> bool:
        """Once every gateway has confirmed that; False as soon as somebody needs it, or it is to be awake again."""
        assert self.pool is not None
        signals = self.tools.state.signals
        deadline = time.monotonic() + _PATIENCE_SECS
        while self._freeze_because is not None and (left := deadline - time.monotonic()) > 0:
            reports = await signals.demand_reports()
            if self.readiness is not Readiness.FROZEN or is_needed(self.run.id, self.pool, reports):
                return False
            # Whether sockets that are silent hold it off was decided with its freezing.
            holders = await signals.slots.holders(self.run.id)
            if is_drained(self.run.id, routes_version, reports, holders=holders, may_have_silent=True):
                return True
            await signals.wait_for_report(min(left, 1.0))
        return False

    async def _stand_still(self) -> bool:
        """Whether it does; what has begun to end it meanwhile goes first."""
        async with self._at_launcher:
            if self.readiness is not Readiness.FROZEN or not self.may_freeze:
                return False
            try:
                await self.launcher.freeze(self.run.id)
            except LaunchError as error:
                self._can_freeze = False
                self._say(f"Actor run is not frozen, nor will be: {error.message}")
                with contextlib.suppress(LaunchError):  # it may have been done all the same
                    await self.launcher.resume(self.run.id)
                return False
            self._stands_still = True
            return True

    async def _thaw(self) -> None:
        """Whoever waits for it is let in right behind; where it fails, the next who is decided for it tries again."""
        if not self._stands_still or await self._go_on():
            await self._serve_on()

    async def _go_on(self) -> bool:
        """
        Whether its processes run. To be called before whatever ends or tells it something; once it is being ended, or
        drains, it is not frozen any more.
        """
        async with self._at_launcher:
            if self._stands_still:
                try:
                    await self.launcher.resume(self.run.id)
                except LaunchError as error:
                    _log.warning("a frozen run can't be resumed: %s", error, extra={"run_id": self.run.id})
                    return False
                self._stands_still = False
                self.tools.on_resume()
        return True

    async def _go_on_after_restart(self) -> bool:
        """Whether it does: of a run of an earlier Greenroom nobody knows whether it stands still."""
        if self.pool is None:
            return True
        try:
            await self.launcher.resume(self.run.id)
        except LaunchError:
            return False
        return True

    async def _serve_on(self) -> None:
        self._freeze_because = None
        if self.readiness is Readiness.FROZEN and self._become(Readiness.SERVING):
            await self._publish()
