"""
The Docker Swarm launcher: an Actor is a service of one task, on whichever node has room for what it reserves.

Greenroom speaks to one manager: it places runs, and tells how they fare and what they print. What a manager can't do
(end one program by a signal, tell an end for want of memory, change a limit) the engine of the run's own node does, if
it is in reach: the manager's own always, the others by the setting ``swarm_node_engines``. Then a drained node leaves
its runs their time; without it Swarm sends them SIGTERM at once. Runs are never frozen here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker

from autoscaler.launchers.base import Exited, FoundRun, LaunchSpec, Leaving, Placement
from autoscaler.launchers.chores import Chores
from autoscaler.launchers.docker.containers import ContainerRules, cpu_share, start_problem
from autoscaler.launchers.docker.engine import Engine, NotInEngine
from autoscaler.launchers.swarm.board import Board, Snapshot
from autoscaler.launchers.swarm.engines import NodeEngines
from autoscaler.launchers.swarm.images import SwarmImages
from autoscaler.launchers.swarm.meters import NodeMeters
from autoscaler.launchers.swarm.networks import ensure_config, ensure_network
from autoscaler.launchers.swarm.run_service import RunService
from autoscaler.launchers.swarm.service_maker import ServiceMaker
from autoscaler.launchers.swarm.services import ServiceRules, service_body
from autoscaler.launchers.swarm.tasks import waiting_problem
from gateway.core.errors import LaunchError
from gateway.core.load import Usage
from gateway.core.model import Address, Build
from gateway.installation import INSTALLATION_LABEL, RUN_LABEL, Installation

_log = logging.getLogger(__name__)

WEB_SERVER_PORT = 4321  # each container has an address of its own, so all may have the platform's port

_PULL_SECS = 600.0  # for a node to get an image and to start its container
_TRIES = 3  # a node may be drained or lost between the choice of it and the start


class SwarmLauncher:
    """
    Runs as services of the Swarm that *engine* manages; see the module. An async context manager.

    *placement_secs* is how long a run may wait for a node with room, *stop_grace_secs* how long it may live on once
    Swarm wants it gone. *containers* are the rules that hold for all containers, *constraints* where they may be.
    """

    name = "swarm"
    first_probe_secs = 0.01

    def __init__(
        self,
        engine: Engine,
        installation: Installation,
        images: SwarmImages,
        *,
        containers: ContainerRules,
        constraints: Sequence[str],
        node_engines: str | None,
        placement_secs: float,
        stop_grace_secs: float,
        log_path: Callable[[str], Path],
        max_log_chars: int,
    ) -> None:
        self._engine = engine
        self._installation = installation
        self._images = images
        self._containers = containers
        self._constraints = tuple(constraints)
        self._node_engines = node_engines
        self._placement_secs = placement_secs
        self._stop_grace_secs = stop_grace_secs
        self._log_path = log_path
        self._max_log_chars = max_log_chars
        self._chores = Chores()
        self._maker = ServiceMaker(engine, self._chores)
        self._board = Board(engine, installation, self._on_snapshot)
        self._nodes = NodeEngines(engine, "", node_engines)
        self._meters = NodeMeters(engine)
        self._configured: set[str] = set()
        self._rules: ServiceRules | None = None
        self._runs: dict[str, RunService] = {}
        self._starting: set[str] = set()
        self._being_removed: set[str] = set()
        self._leaving: asyncio.Queue[Leaving] = asyncio.Queue()  # each run at most once

    async def __aenter__(self) -> Self:
        """Raises LaunchError: no engine, no manager, or no network."""
        info = await self._engine.ask(lambda client: client.info())
        swarm = swarm_of(info, self._engine.url)
        self._nodes = NodeEngines(self._engine, swarm["NodeID"], self._node_engines)
        await self._configure(await self._board.read())
        network = await ensure_network(self._engine, self._installation, by_config=self._nodes.reach_all)
        constraints = list(self._constraints)
        if not self._images.reach_all:
            constraints.append(f"node.id=={swarm['NodeID']}")
            if len(self._board.nodes) > 1:
                _log.warning("without the setting registry only the node that builds images runs them")
        self._rules = ServiceRules(
            containers=self._containers,
            network=network,
            constraints=constraints,
            stop_grace_secs=self._stop_grace_secs,
            stops_by_itself=not self._nodes.reach_all,
        )
        await self._chores.__aenter__()
        self._chores.do(self._board.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of all runs, which live on; what was about to be removed is removed by the next Greenroom."""
        for run in self._runs.values():
            run.let_go()
        await self._chores.__aexit__(None, None, None)
        self._nodes.close()
        self._engine.close()

    @property
    def images(self) -> SwarmImages:
        """Those of its runs."""
        return self._images

    def cpu_share(self, memory_mbytes: int) -> float:
        """Memory ÷ 4096 cores: reserved, and the limit where the node's engine is in reach."""
        return cpu_share(memory_mbytes, self._containers.cores)

    # -- starting -----------------------------------------------------------------------------------------------

    async def prepare(self, build: Build, progress: Callable[[str], None]) -> None:
        """Build the image unless it is there, and push it to the registry."""
        await self._images.prepare(build, progress)

    def is_prepared(self, build: Build) -> bool:
        """Whether the image was there when it was last looked for."""
        return self._images.is_there(build)

    async def place(self, run_id: str, wanted_port: int | None) -> Placement:
        """Only the port: where it will be, the Swarm decides at the start, and the placement tells then."""
        port = wanted_port or WEB_SERVER_PORT
        return Placement(address=Address(host="0.0.0.0", port=port), port=port)

    async def start(
        self, spec: LaunchSpec, may_begin: Callable[[], Awaitable[None]] | None = None
    ) -> Mapping[str, Any]:
        """
        Start the Actor's service; returns once its program has been started, which waits for *may_begin*.

        Raises LaunchError when no node can; nothing is left of it then, nor when the caller is cancelled.
        """
        known = self._runs.get(spec.run_id)
        if known is not None and not known.ended.is_set():
            raise LaunchError(f"Run {spec.run_id} is running already.")
        self._starting.add(spec.run_id)
        try:
            image = await self._images.reference(spec.build)
            if may_begin is not None:
                await may_begin()
            with self._board.hurry():
                for tries_left in reversed(range(_TRIES)):
                    run = await self._begin(spec, image, is_last_try=not tries_left)
                    if run is not None:
                        return self._hold(run, spec)
            raise AssertionError("the last try raises or succeeds")
        finally:
            self._starting.discard(spec.run_id)

    async def _begin(self, spec: LaunchSpec, image: str, *, is_last_try: bool) -> RunService | None:
        """A service whose program has begun; None where Swarm took its node away, and another one may do."""
        creation = self._chores.begin(self._create(spec, image))
        try:
            run = self._new_run(spec.run_id, await asyncio.shield(creation), spec.log_path, spec.max_log_chars)
            run.cpus_after_boot = self.cpu_share(spec.memory_mbytes)
            self._runs[spec.run_id] = run
            if await self._has_begun(run, is_last_try=is_last_try):
                return run
        except BaseException:
            self._runs.pop(spec.run_id, None)
            self._chores.do(self._undo(creation))
            raise
        del self._runs[spec.run_id]
        self._chores.do(self._undo(creation))
        return None

    async def _create(self, spec: LaunchSpec, image: str) -> str:
        assert self._rules is not None, "the launcher is not open"
        # A restart in place makes a second service of the same run, so the run's id alone would not do.
        name = f"greenroom-{self._installation.id}-{spec.run_id}-{secrets.token_hex(2)}"
        return await self._maker.create(service_body(spec, name, image, self._rules))

    async def _has_begun(self, run: RunService, *, is_last_try: bool) -> bool:
        """Until its program runs or has run; False where the node was taken away. Raises LaunchError."""
        began = time.monotonic()
        while True:
            task, waited_secs = run.task, time.monotonic() - began
            if task is None or task.is_unplaced:
                left_secs = self._placement_secs - waited_secs
            else:
                left_secs = _PULL_SECS - waited_secs
                if task.has_begun:
                    return True
                is_taken_away = task.state == "shutdown" or not task.is_wanted or (run.node and run.node.is_lost)
                if is_taken_away and task.state not in ("failed", "rejected") and not is_last_try:
                    return False
                if task.has_ended or is_taken_away:
                    raise LaunchError(start_problem(task.problem or f"its node was taken away ({task.state})"))
            if left_secs <= 0:
                raise LaunchError(waiting_problem(task, waited_secs))
            run.seen.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_secs):
                    await run.seen.wait()

    def _hold(self, run: RunService, spec: LaunchSpec) -> Mapping[str, Any]:
        run.placement = {
            "launcher": self.name,
            "service": run.service_id,
            "node": run.node.name if run.node is not None else None,
            "host": run.node.address if run.node is not None else None,
            "port": run.task.port if run.task is not None else None,
        }
        run.is_held = True
        self._chores.do(run.end_boot_in_time())
        return run.placement

    def _new_run(self, run_id: str, service_id: str, log_path: Path, max_log_chars: int) -> RunService:
        return RunService(
            run_id=run_id,
            service_id=service_id,
            log_path=log_path,
            max_log_chars=max_log_chars,
            engine=self._engine,
            nodes=self._nodes,
            board=self._board,
            chores=self._chores,
            on_leaving=lambda run_id, why: self._leaving.put_nowait(Leaving(run_id=run_id, reason=why)),
        )

    async def _undo(self, creation: asyncio.Future[str]) -> None:
        with contextlib.suppress(LaunchError):
            await self._remove(await creation)

    # -- while it lives -----------------------------------------------------------------------------------------

    async def has_booted(self, run_id: str) -> None:
        """It serves: from now on it has the processor share that its memory pays for, where that can be told."""
        await self._known(run_id).has_booted()

    async def stop(self, run_id: str, *, grace_secs: float) -> None:
        """
        SIGTERM to the Actor's program, SIGKILL to all of the run after *grace_secs* (0: at once).

        With its node's engine out of reach, SIGTERM by Swarm and SIGKILL after *stop_grace_secs* in every case.
        """
        self._known(run_id).stop(grace_secs)

    async def freeze(self, run_id: str) -> None:
        """Raises LaunchError."""
        raise LaunchError("Freezing is not offered on Docker Swarm: it would take a frozen task for a dead one.")

    async def resume(self, run_id: str) -> None:
        """Nothing to do: none stands still."""

    async def usage(self) -> Mapping[str, Usage]:
        """What runs use, on those nodes whose engines are in reach; a manager does not measure."""
        return await self._meters.usage(self._runs.values())

    async def leaving(self) -> AsyncIterator[Leaving]:
        """The runs that Swarm wants gone from their nodes, as it does: each is killed after *stop_grace_secs*."""
        while True:
            yield await self._leaving.get()

    async def wait(self, run_id: str) -> Exited:
        """Until the task has ended, or its node is lost, and its last line is in the log."""
        run = self._known(run_id)
        await run.ended.wait()
        assert run.exited is not None
        return run.exited

    def _known(self, run_id: str) -> RunService:
        try:
            return self._runs[run_id]
        except KeyError:
            raise LaunchError(f"The Docker Swarm launcher knows no run {run_id}.") from None

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        for run in [*self._runs.values()]:
            run.see(snapshot)
        if any(node.id not in self._configured for node in snapshot.nodes.values()):
            self._chores.do(self._configure(snapshot))

    async def _configure(self, snapshot: Snapshot) -> None:
        """Where engines are in reach, each node learns how the runs' bridge is made; one that joins later, then."""
        for node in snapshot.nodes.values():
            if node.id in self._configured or node.is_lost or not self._nodes.reach_all:
                continue
            self._configured.add(node.id)
            engine = self._nodes.of(node)
            assert engine is not None, "all are in reach"
            try:
                await ensure_config(engine, self._installation)
            except LaunchError as error:
                self._configured.discard(node.id)
                _log.warning("node %s can't run Actors yet: %s", node.name, error.message)

    # -- what there is ------------------------------------------------------------------------------------------

    async def list(self) -> Sequence[FoundRun]:
        """Every service of a run; of several of one run (a restart in place) the newest. The others are removed."""
        services = await self._services()
        snapshot = await self._board.read()
        found: dict[str, FoundRun] = {}
        for service in sorted(services, key=lambda one: str(one["CreatedAt"]), reverse=True):
            run_id = service["Spec"]["Labels"][RUN_LABEL]
            if run_id in self._starting or service["ID"] in self._being_removed:
                continue
            task = snapshot.tasks.get(service["ID"])
            if task is None or not (task.has_begun or task.has_ended) or run_id in found:
                if not self._holds(service["ID"]):  # its start has not happened
                    self._chores.do(self._remove(service["ID"]))
                continue
            node = snapshot.node_of(task)
            found[run_id] = FoundRun(
                run_id=run_id,
                is_alive=task.is_running and not (node is not None and node.is_lost),
                placement={
                    "launcher": self.name,
                    "service": service["ID"],
                    "node": node.name if node is not None else None,
                    "host": node.address if node is not None else None,
                    "port": task.port,
                },
            )
        return [*found.values()]

    async def _services(self) -> Sequence[Mapping[str, Any]]:
        filters = {"label": self._installation.label}

        def ask(client: docker.APIClient) -> Sequence[Mapping[str, Any]]:
            services: Sequence[Mapping[str, Any]] = client.services(filters=filters)  # type: ignore[no-untyped-call]
            return services

        # The manager takes one label, so whether it is a run's is looked at here.
        return [one for one in await self._engine.ask(ask) if RUN_LABEL in one["Spec"].get("Labels", {})]

    def _holds(self, service_id: str) -> bool:
        return any(run.service_id == service_id for run in self._runs.values())

    async def adopt(self, run_id: str, placement: Mapping[str, Any]) -> bool:
        """Take up a run by its service, alive or ended; False where there is none."""
        if run_id in self._runs:
            return True
        service_id = placement.get("service")
        if service_id is None:
            placement = next((found.placement for found in await self.list() if found.run_id == run_id), {})
            service_id = placement.get("service")
        if service_id is None or service_id in self._being_removed:
            return False
        try:
            found = await self._engine.ask(lambda client: client.inspect_service(service_id))  # type: ignore[no-untyped-call]
        except NotInEngine:
            return False
        labels = found["Spec"].get("Labels", {})
        if labels.get(INSTALLATION_LABEL) != self._installation.id or labels.get(RUN_LABEL) != run_id:
            return False
        run = self._new_run(run_id, service_id, self._log_path(run_id), self._max_log_chars)
        run.placement, run.is_held = placement, True
        snapshot = await self._board.read()
        self._runs[run_id] = run
        run.see(snapshot)
        return True

    async def forget(self, run_id: str) -> None:
        """Remove the service, in the background. Raises LaunchError while it lives."""
        run = self._runs.get(run_id)
        if run is not None:
            if not run.ended.is_set():
                raise _still_running(run_id)
            del self._runs[run_id]
            self._chores.do(self._remove(run.service_id))
            return
        for found in await self.list():
            if found.run_id == run_id:
                if found.is_alive:
                    raise _still_running(run_id)
                self._chores.do(self._remove(found.placement["service"]))

    async def _remove(self, service_id: str) -> None:
        self._being_removed.add(service_id)
        await self._maker.remove(service_id)


def swarm_of(info: Mapping[str, Any], url: str) -> Mapping[str, Any]:
    """What an engine says of its Swarm. Raises LaunchError unless it is a manager of one."""
    swarm: Mapping[str, Any] = info.get("Swarm") or {}
    if not swarm.get("ControlAvailable"):
        state = swarm.get("LocalNodeState") or "inactive"
        raise LaunchError(
            f"The Docker engine at {url} is no manager of a Swarm (its state: {state}): make it one by "
            "'docker swarm init', name a manager by DOCKER_HOST or --set docker_host=URL, or use --launcher docker."
        )
    return swarm


def _still_running(run_id: str) -> LaunchError:
    return LaunchError(f"Run {run_id} is still running: stop it, and wait for its end.")
