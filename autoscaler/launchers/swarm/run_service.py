"""One run's service, from its creation to the moment at which its exit code and its last line are known."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import docker

from autoscaler.launchers.base import Exited
from autoscaler.launchers.chores import Chores
from autoscaler.launchers.docker.engine import Engine, EngineError, EngineUnavailable
from autoscaler.launchers.docker.log_follower import LogFollower
from autoscaler.launchers.swarm.board import Board, Snapshot
from autoscaler.launchers.swarm.engines import NodeEngines
from autoscaler.launchers.swarm.services import NOWHERE, nano_cpus
from autoscaler.launchers.swarm.tasks import KILLED_CODE, Node, Task, end_of
from gateway.core.errors import LaunchError

_log = logging.getLogger(__name__)

_RETRY_SECS = 0.5
_STUCK_SECS = 15.0  # until SIGKILL is sent again
_LOG_END_SECS = 10.0  # for the last lines of a task that has ended
_LOST_LOG_SECS = 1.0  # the same, where its node is lost: what has not come by now is not to come
_LONGEST_BOOT_SECS = 30.0  # for what never serves; then it has its normal share

_LEAVING_SECS = 0.3

REMOVED = "The service was removed by somebody else than Greenroom."


@dataclass(slots=True, kw_only=True, eq=False)
class RunService:
    """
    The service of one run; ``ended`` is set once ``exited`` is known and the log is whole, ``seen`` at each news.

    *on_leaving* is called once, should Swarm itself want the run gone from its node, with the reason.
    """

    run_id: str
    service_id: str
    log_path: Path
    max_log_chars: int
    engine: Engine
    nodes: NodeEngines
    board: Board
    chores: Chores
    on_leaving: Callable[[str, str], None]
    cpus_after_boot: float | None = None
    placement: Mapping[str, Any] = field(default_factory=dict)
    task: Task | None = None
    node: Node | None = None
    exited: Exited | None = None
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _created_at: float = field(default_factory=time.monotonic)
    _log_ended: asyncio.Event = field(default_factory=asyncio.Event)
    _follower: LogFollower | None = None
    _is_asked_to_end: bool = False
    _is_leaving: bool = False
    _is_finishing: bool = False
    is_held: bool = False  # its program has begun: an end is the run's own from now on

    def let_go(self) -> None:
        """It lives on without us."""
        if self._follower is not None:
            self._follower.close()

    @property
    def container_id(self) -> str | None:
        """Its container, on whichever node."""
        return self.task.container_id if self.task is not None else None

    def way(self) -> tuple[Engine, str] | None:
        """The engine that holds its container, and the container, where both are in reach."""
        engine, container_id = self.nodes.of(self.node), self.container_id
        return None if engine is None or container_id is None else (engine, container_id)

    # What the manager says

    def see(self, snapshot: Snapshot) -> None:
        """News: follow its log, note that it leaves or has ended."""
        task = snapshot.tasks.get(self.service_id)
        if task is not None:
            self.task, self.node = task, snapshot.node_of(task)
            self.seen.set()
        if not self.is_held or self._is_finishing:
            return
        exited = self._end_in(task, snapshot)
        if task is not None and self._is_thrown_out(task) and not self._is_leaving and not self._is_asked_to_end:
            self._is_leaving = True
            self.on_leaving(self.run_id, self._why_leaving())
        if exited is not None:
            self._is_finishing = True
            self.chores.do(self._finish(exited))
        elif task is not None and task.is_running and self._wants_follower():
            self._follow(task)

    def _is_thrown_out(self, task: Task) -> bool:
        """By Swarm, or whoever told it to, from a node that is there: what went with its node can't migrate."""
        is_there = self.node is None or not self.node.is_lost
        return is_there and not task.is_wanted and (task.is_running or task.state == "shutdown")

    def _wants_follower(self) -> bool:
        return self._follower is None or (self._log_ended.is_set() and not self._follower.is_full)

    def _end_in(self, task: Task | None, snapshot: Snapshot) -> Exited | None:
        if task is not None:
            return end_of(task, snapshot.node_of(task), is_asked=self._is_asked_to_end)
        if self.task is None or snapshot.began < self._created_at:
            return None  # its task is still to come
        return Exited(exit_code=KILLED_CODE, reason=None if self._is_asked_to_end else REMOVED)

    def _why_leaving(self) -> str:
        if self.node is not None and self.node.is_drained:
            return f"node {self.node.name} is being drained"
        return "Docker Swarm clears its node" if self.node is None else f"Docker Swarm clears node {self.node.name}"

    async def _finish(self, exited: Exited) -> None:
        is_lost = self.node is not None and self.node.is_lost
        if self._is_leaving:  # perhaps only since now: that it is to go on elsewhere comes on record before its end
            await asyncio.sleep(_LEAVING_SECS)
        if self._follower is not None:
            self._follower.close()
            await _wait(self._log_ended, _LOST_LOG_SECS)
        if self.task is not None and not is_lost:
            self._follow(self.task, has_ended=True)
            await _wait(self._log_ended, _LOG_END_SECS)
            if self._follower is not None:
                self._follower.close()
        if exited.exit_code == KILLED_CODE and not self._is_asked_to_end and await self._was_out_of_memory():
            exited = replace(exited, out_of_memory=True)
        self.exited = exited
        self.ended.set()

    async def _was_out_of_memory(self) -> bool:
        """Only the engine of its node can tell; where that is out of reach, an exit code of 137 has to do."""
        found: Mapping[str, Any] = {}
        if (way := self.way()) is not None:
            engine, container_id = way
            with contextlib.suppress(LaunchError):
                found = await engine.ask(lambda client: client.inspect_container(container_id))
        return bool(found.get("State", {}).get("OOMKilled"))

    def _follow(self, task: Task, *, has_ended: bool = False) -> None:
        loop = asyncio.get_running_loop()
        log_ended = self._log_ended = asyncio.Event()

        def ended() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and we with it
                loop.call_soon_threadsafe(log_ended.set)

        self._follower = LogFollower(
            self.engine, task.id, self.log_path, self.max_log_chars, ended, has_ended=has_ended, kind="tasks"
        )
        self._follower.start()

    # What is wanted of it

    async def has_booted(self) -> None:
        """From now on it has the processor share that its memory pays for, where its node's engine is in reach."""
        cpus, self.cpus_after_boot = self.cpus_after_boot, None
        way = self.way()
        if cpus is None or way is None or self.ended.is_set():
            return
        engine, container_id = way

        def update(client: docker.APIClient) -> None:
            # By hand: the library's own call knows the older way of saying it, and the two don't mix.
            url = f"{client.base_url}/v{client.api_version}/containers/{container_id}/update"
            response = client.post(url, json={"NanoCpus": nano_cpus(cpus)})
            if response.status_code >= 300:
                _log.warning("a run keeps its CPU of the start: %s", response.text, extra={"run_id": self.run_id})

        with contextlib.suppress(LaunchError):  # it has just ended, or its node has trouble of its own
            await engine.ask(update)

    async def end_boot_in_time(self) -> None:
        """What never serves has had its time."""
        await _wait(self.ended, _LONGEST_BOOT_SECS)
        await self.has_booted()

    def stop(self, grace_secs: float) -> None:
        """Ask it to end, kill it after *grace_secs*."""
        self._is_asked_to_end = True
        if not self.ended.is_set():
            self.chores.do(self._stop(grace_secs))

    async def _stop(self, grace_secs: float) -> None:
        with self.board.hurry():
            if grace_secs > 0:
                await self._signal("SIGTERM")
                await _wait(self.ended, grace_secs)
            while not self.ended.is_set():
                await self._signal("SIGKILL")
                await _wait(self.ended, _STUCK_SECS)

    async def _signal(self, name: str) -> None:
        """By its node's engine; where that is out of reach by Swarm, which has one way to stop a task."""
        while not self.ended.is_set() and not self._is_finishing:
            way = self.way()
            try:
                await (self.engine.ask(self._shut_down) if way is None else _kill(*way, name))
            except EngineUnavailable as error:
                _log.warning("%s can't be sent yet: %s", name, error.message, extra={"run_id": self.run_id})
                await _wait(self.ended, _RETRY_SECS)
            except EngineError as error:
                if error.status not in (404, 409):  # gone, or not running: the manager says the rest
                    _log.warning("%s was refused: %s", name, error.message, extra={"run_id": self.run_id})
                return
            else:
                return

    def _shut_down(self, client: docker.APIClient) -> None:
        """
        Move its service to where there is no node: the task is stopped, and its exit code kept.

        (Scaled to none or removed, it would be forgotten the moment that it ends.)
        """
        found = client.inspect_service(self.service_id)  # type: ignore[no-untyped-call]
        body = {**found["Spec"]}
        body["TaskTemplate"] = {**body["TaskTemplate"], "Placement": {"Constraints": [NOWHERE]}}
        url = f"{client.base_url}/v{client.api_version}/services/{self.service_id}/update"
        response = client.post(url, params={"version": found["Version"]["Index"]}, json=body)
        if response.status_code >= 300:
            raise EngineError(f"Docker: {response.text}", response.status_code)


async def _kill(engine: Engine, container_id: str, signal: str) -> None:
    await engine.ask(lambda client: client.kill(container_id, signal))


async def _wait(event: asyncio.Event, secs: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(secs):
            await event.wait()
