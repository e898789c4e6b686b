"""From a run's record to all that starts it: who may run here, its build prepared, a place, an environment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from autoscaler.keeper_tools import KeeperTools
from autoscaler.launchers.base import Launcher, LaunchSpec, Placement
from autoscaler.run_environment import RunContext, opened, run_environment, wanted_port
from autoscaler.strangers import Strangers
from gateway.auth import events_secret, run_token
from gateway.core.errors import GreenroomError, LaunchError
from gateway.core.ids import shown_standby_label
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Actor, Address, Build, Run, User
from gateway.core.standby import effective, parse_standby
from gateway.input_secrets import private_key

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """
    The launch of one run. ``run`` gives its record as it stands; *news* is set when that, or ``is_unwanted``, changes.

    ``known``: the records that it is made from, where they are at hand. ``say`` writes a line into its log.
    """

    run: Callable[[], Run]
    known: tuple[Actor, User, Build] | None
    tools: KeeperTools
    launcher: Launcher
    say: Callable[[str], None]
    is_unwanted: Callable[[], bool]
    news: asyncio.Event

    async def prepare(self) -> tuple[Address, LaunchSpec]:
        """
        Where it will listen, and what starts it. May take minutes, while its environment is made.

        Raises LaunchError: it may not run here, it can't be prepared, or somebody has stopped it meanwhile.
        """
        actor, owner, build = self.known or await self._records()
        strangers = Strangers(self.launcher.name, self.tools.settings, self.tools.urls.local_port)
        await strangers.refuse(owner, f"{owner.username}/{actor.name}")
        await self._prepare(build)
        env_vars = opened(build.env_vars, self.tools.box.open)
        run = self.run()
        input_key = await private_key(self.tools.state.blobs, self.tools.box, run)
        placement = await self.launcher.place(run.id, wanted_port(env_vars))
        context = replace(self._context(run, actor, owner, placement), input_key=input_key)
        spec = LaunchSpec(
            run_id=run.id,
            build=build,
            env=run_environment(run, actor, build, context, env_vars),
            placement=placement,
            memory_mbytes=run.options.memory_mbytes,
            log_path=self.tools.logs.path(run.id),
            max_log_chars=self.tools.settings.max_log_chars,
        )
        return placement.address, spec

    async def start(self, spec: LaunchSpec, may_begin: Callable[[], Awaitable[None]]) -> Mapping[str, Any]:
        """As the launcher's, but not for longer than it may take: a launcher that hangs must not hold up the pool."""
        limit_secs = self.tools.settings.launch_timeout_secs
        limit = asyncio.timeout(limit_secs)
        try:
            async with limit:
                return await self.launcher.start(spec, may_begin)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise LaunchError(
                f"The launcher has not started it within {limit_secs:g} s (setting: launch_timeout_secs)."
            ) from error

    async def _prepare(self, build: Build) -> None:
        """What may take minutes gives way to an abort; the work itself goes on for whoever needs it next."""
        if self.launcher.is_prepared(build) and not self._is_stopped():
            return
        problem: GreenroomError | None = None

        async def prepare() -> None:
            nonlocal problem
            try:
                await self.launcher.prepare(build, self._tell_progress)
            except GreenroomError as error:  # kept aside: a TaskGroup would wrap it
                problem = error

        async with asyncio.TaskGroup() as group:
            work = group.create_task(prepare())
            while not work.done() and not self._is_stopped():
                self.news.clear()
                news = group.create_task(self.news.wait())
                await asyncio.wait([work, news], return_when=asyncio.FIRST_COMPLETED)
                news.cancel()
            work.cancel()
        if self._is_stopped():
            raise LaunchError("The run was stopped before it was started.")
        if problem is not None:
            raise problem

    def _tell_progress(self, line: str) -> None:
        """In the run's log, and on the terminal: somebody waits there for the first answer."""
        self.say(line)
        _log.info("preparing a build: %s", line, extra={"run_id": self.run().id})

    def _is_stopped(self) -> bool:
        return self.run().status is RunStatus.ABORTING or self.is_unwanted()

    async def _records(self) -> tuple[Actor, User, Build]:
        records = self.tools.state.records
        actor = await records.actor(self.run().actor_id)
        build = await records.build(self.run().build_id)
        owner = await records.user(actor.user_id) if actor else None
        if actor is None or build is None or owner is None:
            raise LaunchError("The Actor or its build was deleted before the run was started.")
        return actor, owner, build

    def _context(self, run: Run, actor: Actor, owner: User, placement: Placement) -> RunContext:
        standby = effective(actor)
        is_standby = standby is not None and parse_standby(standby).is_enabled
        label = shown_standby_label(owner.username, actor.name, actor.id)
        urls, box = self.tools.urls, self.tools.box
        return RunContext(
            owner_name=owner.username,
            token=run_token(box, run.id),
            api_url=urls.local,
            public_api_url=urls.public,
            events_url=urls.events(run.id, events_secret(box, run.id)),
            live_view_url=urls.live_view(run.live_view_label),
            standby_url=urls.standby(label) if is_standby else None,
            web_server_port=placement.port,
            dedicated_cpus=self.launcher.cpu_share(run.options.memory_mbytes),
        )
