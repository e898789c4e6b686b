"""
Makes the builds that are not made at once: those of images, and those whose source is fetched.

They are found by their records, and by what is told of changes: whoever creates or aborts a build only writes its
record. So many are made at once as the settings say; the others wait, oldest first, and say so in their logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from autoscaler.strangers import Strangers
from gateway.build_maker import BuildMaker, Prepare, Say
from gateway.core.errors import GreenroomError
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build
from gateway.live_logs import Logs
from gateway.state.ports import State, StateUnavailable
from gateway.state.steady import steadily

_log = logging.getLogger(__name__)

# Signals may be lost, so records are looked at again at least so often.
_LOOK_AGAIN_SECS = 5.0
# A build that takes no time is made by whoever creates it; one that has not ended after so long never will.
_LONGEST_AT_ONCE = timedelta(seconds=60)
_AT_ONCE = timedelta(0)


@dataclass(slots=True, kw_only=True)
class BuildJobs:
    """
    All builds that this process makes. ``running`` owns every job.

    *prepare* makes what runs need of a build; None where launchers make it on first need. *strangers* says whose builds
    may be prepared here. ``on_gone`` is told when one takes no more memory.

    *takes_over*: builds that another process has begun and left are begun anew. What is broken off ends FAILED, or is
    handed over, only while *is_ours* is true; else somebody else takes it over, and may be making it already.
    """

    maker: BuildMaker
    state: State
    logs: Logs
    prepare: Prepare | None
    strangers: Strangers
    max_builds: int
    timeout_secs: float
    on_gone: Callable[[], None] = lambda: None
    takes_over: bool = False
    is_ours: Callable[[], bool] = lambda: True
    _under_way: dict[str, str] = field(default_factory=dict)
    _jobs: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _group: asyncio.TaskGroup | None = None
    _slots: asyncio.Semaphore = field(init=False)
    _gives_back: bool = False

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.max_builds)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Makes builds until it is left; those under way end FAILED then, unless they were handed over."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            if self.takes_over:
                await self._take_over(_AT_ONCE)
            watching = group.create_task(steadily("the watch for builds", self._watch))
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.wait([watching])
                if self._gives_back:
                    await self._put_back()
                for job in self._jobs.values():
                    job.cancel()

    def under_way(self) -> Mapping[str, str]:
        """The builds that are being made now, not those that wait; each with whose it is."""
        return self._under_way

    def hand_over(self) -> None:
        """When ``running`` is left now, the builds under way are READY again: the next worker begins them anew."""
        self._gives_back = True

    async def _put_back(self) -> None:
        for build_id in list(self._jobs):
            if not self.is_ours():
                return
            with contextlib.suppress(GreenroomError, StateUnavailable):
                await self.maker.put_back(build_id, "Greenroom is reloaded: the build begins anew.")

    async def _put_back_left(self) -> None:
        """Those that this process has made and could not end: one that stays RUNNING would be for ever."""
        for build_id in list(self.maker.left):
            with contextlib.suppress(GreenroomError):
                await self.maker.put_back(build_id, "The end of this build could not be recorded: it begins anew.")
            self.maker.left.discard(build_id)

    async def _take_over(self, least_age: timedelta) -> None:
        """Builds that nobody makes any more wait again. Those without images gateways make, within a moment each."""
        for build in await self.state.records.active_builds():
            is_old = datetime.now(UTC) - build.started_at >= least_age
            if build.status is RunStatus.RUNNING and build.id not in self._jobs and is_old:
                with contextlib.suppress(GreenroomError):
                    await self.maker.put_back(build.id, "Whoever made this build has ended: it begins anew.")

    async def _watch(self) -> None:
        while True:
            if self.takes_over:
                await self._take_over(_LONGEST_AT_ONCE)
            await self._put_back_left()
            async with self.state.signals.watch_changes() as changes:
                await self._look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_AGAIN_SECS):
                        async for change in changes:
                            if change.kind == "build":
                                break

    async def _look(self) -> None:
        """Begin what is READY, and end what somebody else has ended."""
        active = {build.id: build for build in await self.state.records.active_builds()}
        for build_id, job in list(self._jobs.items()):
            if build_id not in active:
                await self._end(build_id, job)
        for build in sorted(active.values(), key=lambda build: (build.started_at, build.id)):
            if build.status is RunStatus.READY and build.id not in self._jobs:
                self._begin(build)

    async def _end(self, build_id: str, job: asyncio.Task[None]) -> None:
        # The record may have been read just before the job wrote its own end.
        build = await self.state.records.build(build_id)
        if build is None or build.status in (RunStatus.ABORTED, RunStatus.ABORTING):
            job.cancel()

    def _begin(self, build: Build) -> None:
        assert self._group is not None
        job = self._jobs[build.id] = self._group.create_task(self._work(build))
        job.add_done_callback(lambda _: self._jobs.pop(build.id, None))

    async def _work(self, build: Build) -> None:
        """One build; its trouble must not end the others."""
        has_begun = False
        try:
            if self._slots.locked():
                self.logs.append(
                    build.id,
                    f"Waiting: {self.max_builds} builds are under way, and more may not be (setting: max_builds).",
                )
            async with self._slots:
                has_begun = True
                self._under_way[build.id] = build.user_id
                try:
                    ended = await self.maker.make(
                        build, self._prepared, timeout_secs=self.timeout_secs, is_ours=self.is_ours
                    )
                finally:
                    del self._under_way[build.id]
                    self.on_gone()
            how = ended.status_message or ended.status
            _log.info("build %s of %s: %s", ended.build_number, ended.actor_id, how)
        except asyncio.CancelledError:
            if not has_begun and self.is_ours():
                with contextlib.suppress(Exception):
                    await self.maker.interrupted(build.id)
            raise
        except Exception:
            _log.exception("a build could not be made", extra={"build_id": build.id})

    async def _prepared(self, build: Build, say: Say) -> None:
        if self.prepare is None:
            return
        await self.strangers.refuse_build(build, self.state.records)

        def tell(line: str) -> None:
            say(line)
            _log.info("build %s: %s", build.build_number, line)

        await self.prepare(build, tell)
