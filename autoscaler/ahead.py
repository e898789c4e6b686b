"""
Runs made ahead: for a pool that is to be quick there is one run whose container only has to be started.

Such a run is in nobody's records, costs no memory, and becomes a run like any other when the pool needs its next one.
Pools are those with ``minRuns``: who keeps runs warm wants the next one soon, too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from autoscaler.keeper_tools import KeeperTools
from autoscaler.launch import Launch
from autoscaler.launchers.base import Launcher, MakesAhead
from gateway.core.errors import GreenroomError, LaunchError
from gateway.core.model import Actor, Build, Run, User
from gateway.core.standby import Generation, PoolKey

_log = logging.getLogger(__name__)

# Its variable ACTOR_STARTED_AT is of the moment at which it was made.
_LONGEST_SECS = 3600.0


@dataclass(frozen=True, slots=True)
class _Made:
    run: Run
    generation: Generation
    at: float

    def serves(self, generation: Generation, now: float) -> bool:
        """Whether it may become the next run of its pool."""
        return self.generation == generation and now - self.at < _LONGEST_SECS


@dataclass(slots=True)
class Ahead:
    """What is made ahead for each pool; *clock* is monotonic."""

    tools: KeeperTools
    launcher: Launcher
    clock: Callable[[], float] = time.monotonic
    _made: dict[PoolKey, _Made] = field(default_factory=dict)
    _busy: set[PoolKey] = field(default_factory=set)
    _is_over: bool = False

    def claim(self, pool: PoolKey, generation: Generation) -> bool:
        """
        Whether one of *generation* is to be made for *pool*: it could be, is not there or too old, and nobody makes it.

        True only once: whoever hears it calls ``make``.
        """
        made = self._made.get(pool)
        is_fresh = made is not None and made.serves(generation, self.clock())
        is_able = isinstance(self.launcher, MakesAhead) and not self._is_over
        if not is_able or pool in self._busy or is_fresh:
            return False
        self._busy.add(pool)
        return True

    async def make(self, pool: PoolKey, run: Run, generation: Generation, known: tuple[Actor, User, Build]) -> None:
        """Make *run* ready for ``take``, in the place of what was there. A failure is the next start's to tell."""
        assert isinstance(self.launcher, MakesAhead), "claim first"
        try:
            await self.drop(pool)
            launch = Launch(
                run=lambda: run,
                known=known,
                tools=self.tools,
                launcher=self.launcher,
                say=lambda line: None,
                is_unwanted=lambda: False,
                news=asyncio.Event(),
            )
            try:
                _, spec = await launch.prepare()
                await self.launcher.make_ahead(spec)
            except GreenroomError as error:
                _log.info("no run is made ahead: %s", error.message)
                await self._forget(run.id)
            except Exception:
                _log.exception("making a run ahead failed")
            else:
                self._made[pool] = _Made(run, generation, self.clock())
                if self._is_over:
                    await self.drop(pool)
        finally:
            self._busy.discard(pool)

    def take(self, pool: PoolKey, generation: Generation) -> Run | None:
        """The run that was made for *pool*, if it is of *generation* and not too old; it is the caller's now."""
        made = self._made.get(pool)
        if made is None or not made.serves(generation, self.clock()):
            return None
        del self._made[pool]
        return made.run

    def unwanted(self, is_wanted: Callable[[PoolKey], bool]) -> list[PoolKey]:
        """The pools for which something was made and that are not to have it any more: it holds their secrets."""
        return [pool for pool in self._made if not is_wanted(pool)]

    async def drop(self, pool: PoolKey) -> None:
        """Remove what was made for *pool*."""
        made = self._made.pop(pool, None)
        if made is not None:
            await self._forget(made.run.id)

    async def drop_all(self) -> None:
        """Remove what was made for every pool, and what is being made as soon as it is; from now on nothing is made."""
        self._is_over = True
        for pool in list(self._made):
            await self.drop(pool)

    async def _forget(self, run_id: str) -> None:
        """What can't be removed now is removed after the next start of Greenroom; no reason to end anything else."""
        try:
            await self.launcher.forget(run_id)
        except LaunchError as error:
            _log.warning("what was made ahead is not removed: %s", error.message, extra={"run_id": run_id})
