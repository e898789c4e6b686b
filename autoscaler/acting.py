"""
All that the autoscaler does while it leads: keeps the runs, decides, makes builds, cleans up. Composed anew for each
term of its lead, so that nothing of an earlier one is left.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from autoscaler.build_jobs import BuildJobs
from autoscaler.image_cleaning import HasImages, ImageCleaning
from autoscaler.keeper_tools import KeeperTools
from autoscaler.launchers.base import Launcher
from autoscaler.launchers.choice import open_launcher
from autoscaler.leading import Term
from autoscaler.loop import Autoscaler
from autoscaler.patient_signals import patient
from autoscaler.room_keeping import Other
from autoscaler.strangers import Strangers
from autoscaler.supervisor import Supervisor
from gateway.builds import Builder
from gateway.decision_retention import DecisionRetention
from gateway.live_logs import Logs
from gateway.observability import Metrics
from gateway.secret_box import SecretBox
from gateway.settings import Settings
from gateway.state.directory import Directory
from gateway.state.ports import State
from gateway.urls import Urls

_LOOK_AGAIN_SECS = 10.0
_ADOPTION_SECS = 2.0


@dataclass(slots=True)
class _Work:
    """What is under way in the present term."""

    supervisor: Supervisor
    scaling: asyncio.Task[None]


@dataclass(slots=True, kw_only=True)
class Acting:
    """
    ``act`` is one term. *is_shared*: other processes may lead, or write what this one has to do.

    ``hands_over``, once set: the builds under way are begun anew by whoever leads next, else they end FAILED.
    """

    settings: Settings
    state: State
    logs: Logs
    box: SecretBox
    urls: Urls
    builder: Builder
    directory: Directory
    metrics: Metrics
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    is_shared: bool
    hands_over: bool = False
    _opened: AsyncExitStack | None = None
    _launcher: Launcher | None = None
    _work: _Work | None = None

    @asynccontextmanager
    async def prepared(self) -> AsyncIterator[None]:
        """Opens the launcher for the first term, which then begins the sooner, and can't fail for it."""
        async with AsyncExitStack() as stack:
            self._launcher = await stack.enter_async_context(open_launcher(self.settings, self.state.blobs, self.logs))
            self._opened = stack
            try:
                yield
            finally:
                self._launcher = None  # unless a term has it, it is closed now

    @asynccontextmanager
    async def act(self, term: Term) -> AsyncIterator[None]:
        """
        Take over what lives, then act until it is left; the runs live on.

        Raises LaunchError where there is no launcher, and StateUnavailable.
        """
        async with AsyncExitStack() as stack:
            launcher = await self._take_launcher(stack)
            if self.is_shared:  # changes may have been missed
                await self.directory.load()
            supervisor, autoscaler, jobs = self._composed(launcher, term)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            await stack.enter_async_context(supervisor.running())
            if self.is_shared:
                await supervisor.routes_are_told(_ADOPTION_SECS)
                await self.state.signals.publish_routes()
            await stack.enter_async_context(jobs.running())
            retention = DecisionRetention(
                records=self.state.records,
                keep=timedelta(days=self.settings.decision_keep_days),
                keep_per_pool=self.settings.decisions_per_pool,
                now=self.now,
            )
            chores = [group.create_task(retention.forget_for_ever())]
            if isinstance(launcher, HasImages):
                cleaning = ImageCleaning(
                    store=launcher.images,
                    records=self.state.records,
                    keep=timedelta(days=self.settings.image_keep_days),
                    now=self.now,
                )
                chores.append(group.create_task(cleaning.clean_for_ever()))
            scaling = group.create_task(autoscaler.run())
            self._work = _Work(supervisor, scaling)
            try:
                yield
            finally:
                self._work = None
                for task in (scaling, *chores):
                    task.cancel()
                await asyncio.wait([scaling])  # nothing is begun from here on
                if self.hands_over:
                    jobs.hand_over()

    async def end_runs(self, reason: str, timeout_secs: float) -> None:
        """Greenroom stops: nothing more is decided, and all runs end, within *timeout_secs* or then at once."""
        work = self._work
        if work is not None:
            work.scaling.cancel()
            await work.supervisor.stop_all(reason, timeout_secs)

    async def _take_launcher(self, stack: AsyncExitStack) -> Launcher:
        if self._launcher is None or self._opened is None:
            return await stack.enter_async_context(open_launcher(self.settings, self.state.blobs, self.logs))
        launcher, self._launcher = self._launcher, None
        # From now on it is closed with this term.
        stack.push_async_exit(self._opened.pop_all())
        return launcher

    def _composed(self, launcher: Launcher, term: Term) -> tuple[Supervisor, Autoscaler, BuildJobs]:
        settings, metrics = self.settings, self.metrics
        supervisor = Supervisor(
            tools=KeeperTools(
                settings=settings,
                state=replace(self.state, signals=patient(self.state.signals)) if self.is_shared else self.state,
                logs=self.logs,
                box=self.box,
                urls=self.urls,
                now=self.now,
                new_id=self.new_id,
                cores=os.cpu_count() or 1,
                on_start=lambda _, outcome: metrics.count_start(outcome),
                on_news=lambda news: autoscaler.hear(news),  # which is made below
                on_end=metrics.count_end,
                on_freeze=metrics.freezes.inc,
                on_resume=metrics.resumes.inc,
            ),
            launcher=launcher,
            on_gone=lambda: autoscaler.room_is_free(),
            confirm=term.confirm if self.is_shared else None,
            look_again_secs=_LOOK_AGAIN_SECS if self.is_shared else None,
        )
        autoscaler = Autoscaler(
            settings=settings,
            state=self.state,
            # The gateway's own picture, where there is one: what a request waits for, the autoscaler knows.
            directory=self.directory,
            supervisor=supervisor,
            now=self.now,
            new_id=self.new_id,
            on_decision=metrics.decisions.inc,
            on_pause=metrics.count_quarantine,
            on_quarantined=metrics.quarantined_pools.set,
            builds=lambda: [
                Other(run_id=build_id, owner=owner, memory_mbytes=settings.build_memory_mbytes, is_run=False)
                for build_id, owner in jobs.under_way().items()
                if self.builder.makes_images
            ],
        )
        jobs = BuildJobs(
            maker=self.builder.maker,
            state=self.state,
            logs=self.logs,
            prepare=launcher.prepare if self.builder.makes_images else None,
            strangers=Strangers(settings.launcher, settings, self.urls.local_port),
            max_builds=settings.max_builds,
            timeout_secs=settings.build_timeout_secs,
            on_gone=autoscaler.room_is_free,
            takes_over=self.is_shared,
            is_ours=(lambda: term.holds) if self.is_shared else (lambda: True),
        )
        return supervisor, autoscaler, jobs
