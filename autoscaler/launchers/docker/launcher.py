"""
The Docker launcher: an Actor is a container of one engine, on a network of this Greenroom's own.

What the engine tells by its events is believed at once; after each (re)connection all containers are looked at, so that
nothing that happened unseen is missed. A container is known by its labels: this installation, its run. One that was
made and never started does not count: the start that made it has not happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from autoscaler.launchers.base import Exited, FoundRun, LaunchSpec, Placement
from autoscaler.launchers.chores import Chores
from autoscaler.launchers.docker.addresses import Addresses
from autoscaler.launchers.docker.container_maker import ContainerGone, ContainerMaker
from autoscaler.launchers.docker.containers import (
    PORT_LABEL,
    cpu_share,
)
from autoscaler.launchers.docker.disk_rules import disk_mbytes
from autoscaler.launchers.docker.disk_watch import DiskWatch
from autoscaler.launchers.docker.engine import Engine, EngineError, EngineUnavailable, NotInEngine
from autoscaler.launchers.docker.images import Images
from autoscaler.launchers.docker.meter import Meter
from autoscaler.launchers.docker.network import RunNetwork, ensure_network
from autoscaler.launchers.docker.quiet import Quiet
from autoscaler.launchers.docker.run_container import ENGINE_RESTARTED, RunContainer, left_of_boot
from autoscaler.launchers.docker.watch import ContainerEvent, Watch
from gateway.core.errors import LaunchError
from gateway.core.load import Usage
from gateway.core.model import Address, Build
from gateway.installation import INSTALLATION_LABEL, RUN_LABEL, Installation

_log = logging.getLogger(__name__)

WEB_SERVER_PORT = 4321  # each container has an address of its own, so all may have the platform's port

_ALIVE = ("running", "paused", "restarting")
_RETRY_SECS = 0.5
_REMOVAL_TRIES = 20
_ENDED_EARLY = 1000
_LAST_REMOVALS_SECS = 5.0
_NOT_PAUSED = "is not paused"


class DockerLauncher:
    """
    Runs as containers of *engine*; see the module. An async context manager.

    *log_path* says where a run's log is, for runs that an earlier Greenroom started; *max_log_chars* bounds it.
    *subnet* is that of the network; None: one that the engine finds free. *limits* are fields of ContainerRules.
    """

    name = "docker"

    def __init__(
        self,
        engine: Engine,
        installation: Installation,
        images: Images,
        *,
        log_path: Callable[[str], Path],
        max_log_chars: int,
        subnet: str | None = None,
        **limits: Any,
    ) -> None:
        self._engine = engine
        self._installation = installation
        self._images = images
        self._log_path = log_path
        self._max_log_chars = max_log_chars
        self._wanted_subnet = subnet
        self._maker = ContainerMaker(engine, installation, images, **limits)
        self._chores = Chores()
        self._runs: dict[str, RunContainer] = {}
        self._by_container: dict[str, RunContainer] = {}
        self._starting: set[str] = set()
        self._ahead: dict[str, str] = {}
        self._quiet = Quiet()
        self._meter = Meter.of(engine)
        self._ended_early: OrderedDict[str, None] = OrderedDict()
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._watch: Watch | None = None
        self._network: RunNetwork | None = None
        self._addresses: Addresses | None = None

    async def __aenter__(self) -> Self:
        """Raises LaunchError: no engine, or no network."""
        info = await self._engine.ask_patiently(lambda client: client.info())
        self._maker.learn(info)
        self._network = await ensure_network(self._engine, self._installation, self._wanted_subnet)
        self._addresses = Addresses(self._network.subnet)
        await self._chores.__aenter__()
        self._sorted_out(await self._containers())  # looked at only: another worker may still lead
        self._watch = Watch(self._engine, self._installation, on_event=self._on_event, on_connected=self._on_connected)
        self._watch.start()
        disk = DiskWatch(
            engine=self._engine,
            installation=self._installation,
            runs=lambda: [*self._runs.values()],
            meter=self._meter,
            has_quotas=lambda: self._maker.rules.disk_quota,
            root=DiskWatch.root_of(self._engine, info),
        )
        self._chores.do(disk.watch_for_ever())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of all runs, which live on; containers that are being removed are waited for, within a limit."""
        if self._watch is not None:
            self._watch.close()
        for run in self._runs.values():
            run.let_go()
        if self._removals:
            await asyncio.wait(self._removals.values(), timeout=_LAST_REMOVALS_SECS)
        await self._chores.__aexit__(None, None, None)
        self._engine.close()

    @property
    def first_probe_secs(self) -> float:
        """10 ms, more while many are being started: then each takes longer, and the processor is wanted for that."""
        return 0.01 * (1 + len(self._starting) / 4)

    @property
    def network(self) -> RunNetwork:
        """The network of its runs."""
        assert self._network is not None, "the launcher is not open"
        return self._network

    @property
    def images(self) -> Images:
        """The images of builds."""
        return self._images

    @property
    def addresses(self) -> Addresses:
        """Who has which address of that network."""
        assert self._addresses is not None, "the launcher is not open"
        return self._addresses

    def cpu_share(self, memory_mbytes: int) -> float:
        """Memory ÷ 4096 cores, enforced by the kernel."""
        return cpu_share(memory_mbytes, self._maker.rules.cores)

    # -- starting -----------------------------------------------------------------------------------------------

    async def prepare(self, build: Build, progress: Callable[[str], None]) -> None:
        """Build the image unless it is there."""
        await self._images.prepare(build, progress)

    def is_prepared(self, build: Build) -> bool:
        """Whether the image was there when it was last looked for."""
        return self._images.is_there(build)

    async def place(self, run_id: str, wanted_port: int | None) -> Placement:
        """An address of the network for this run alone, so that every port of it is free."""
        port = wanted_port or WEB_SERVER_PORT
        return Placement(address=Address(host=self.addresses.take(run_id), port=port), port=port)

    async def make_ahead(self, spec: LaunchSpec) -> None:
        """Create the container; until it is started it costs nothing but its place on disk."""
        self._starting.add(spec.run_id)
        try:
            self._ahead[spec.run_id] = await self._chores.begin(self._maker.create(spec))
        finally:
            self._starting.discard(spec.run_id)

    async def start(
        self, spec: LaunchSpec, may_begin: Callable[[], Awaitable[None]] | None = None
    ) -> Mapping[str, Any]:
        """
        Start the Actor's container; returns once its program has been started, which waits for *may_begin*.

        Raises LaunchError when the engine can't; nothing is left of it then, nor when the caller is cancelled.
        """
        known = self._runs.get(spec.run_id)
        if known is not None and not known.ended.is_set():
            raise LaunchError(f"Run {spec.run_id} is running already.")
        self._starting.add(spec.run_id)
        try:
            with self._quiet.starting():
                container_id = await self._start(spec, may_begin)
            return self._hold(spec, container_id)
        finally:
            self._starting.discard(spec.run_id)

    async def _start(self, spec: LaunchSpec, may_begin: Callable[[], Awaitable[None]] | None) -> str:
        asked_at = time.monotonic()
        is_made_ahead = spec.run_id in self._ahead
        creation = self._creation(spec)
        try:
            if may_begin is not None:
                await may_begin()
            container_id = await asyncio.shield(creation)
            created_at = time.monotonic()
            try:
                await self._maker.start(container_id)
            except ContainerGone:
                if not is_made_ahead:
                    raise
                # "docker container prune" removes what is not started, and this one may have waited for an hour.
                creation = self._creation(spec)
                container_id = await asyncio.shield(creation)
                await self._maker.start(container_id)
        except BaseException:
            self._chores.do(self._undo(creation))
            raise
        started_at = time.monotonic()
        _log.info(
            "started a container",
            extra={
                "run_id": spec.run_id,
                "create_ms": round((created_at - asked_at) * 1000, 1),
                "start_ms": round((started_at - created_at) * 1000, 1),
                "monotonic_secs": round(started_at, 4),
            },
        )
        return container_id

    def _creation(self, spec: LaunchSpec) -> asyncio.Future[str]:
        ahead = self._ahead.pop(spec.run_id, None)
        if ahead is None:
            return self._chores.begin(self._maker.create(spec))
        made: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        made.set_result(ahead)
        return made

    async def _undo(self, creation: asyncio.Future[str]) -> None:
        with contextlib.suppress(LaunchError):
            self._remove(await creation)

    def _hold(self, spec: LaunchSpec, container_id: str) -> Mapping[str, Any]:
        placement = {
            "launcher": self.name,
            "container": container_id,
            "host": spec.placement.address.host,
            "port": spec.placement.port,
        }
        self._take_up(
            RunContainer(
                run_id=spec.run_id,
                container_id=container_id,
                placement=placement,
                log_path=spec.log_path,
                max_log_chars=spec.max_log_chars,
                engine=self._engine,
                chores=self._chores,
                quiet=self._quiet,
                disk_mbytes=disk_mbytes(spec.memory_mbytes),
                cpus_after_boot=self.cpu_share(spec.memory_mbytes),
            )
        )
        return placement

    def _take_up(self, run: RunContainer) -> None:
        self._runs[run.run_id] = run
        self._by_container[run.container_id] = run
        run.take_up()
        if run.container_id in self._ended_early:
            self._chores.do(run.look())

    # -- while it lives -----------------------------------------------------------------------------------------

    async def has_booted(self, run_id: str) -> None:
        """It serves: from now on it has the processor share that its memory pays for."""
        self._known(run_id).has_booted()

    async def stop(self, run_id: str, *, grace_secs: float) -> None:
        """SIGTERM to the Actor's program, SIGKILL to all of the run after *grace_secs* (0: at once)."""
        self._known(run_id).stop(grace_secs)

    async def freeze(self, run_id: str) -> None:
        """Stop every process of the run where it stands. Its memory is kept."""
        run = self._known(run_id)
        await self._engine.ask(lambda client: client.pause(run.container_id))

    async def resume(self, run_id: str) -> None:
        """Let a frozen run go on; one that does already is fine."""
        run = self._known(run_id)
        try:
            await self._engine.ask(lambda client: client.unpause(run.container_id))
        except EngineError as error:
            if _NOT_PAUSED not in error.message:  # engines have no status of its own for that
                raise

    async def usage(self) -> Mapping[str, Usage]:
        """What the kernel says of each living container; of those that are out of its reach, what the engine says."""
        return await self._meter.usage([*self._runs.values()])

    async def wait(self, run_id: str) -> Exited:
        """Until the container has ended and its last line is in the log."""
        run = self._known(run_id)
        await run.ended.wait()
        assert run.exited is not None
        return run.exited

    def _known(self, run_id: str) -> RunContainer:
        try:
            return self._runs[run_id]
        except KeyError:
            raise LaunchError(f"The Docker launcher knows no run {run_id}.") from None

    def _on_event(self, event: ContainerEvent) -> None:
        run = self._by_container.get(event.container_id)
        if event.action == "oom":
            if run is not None:
                run.has_run_out_of_memory()
        elif run is not None:
            self._chores.do(run.look())
        else:  # the start of it may still be under way
            self._ended_early[event.container_id] = None
            if len(self._ended_early) > _ENDED_EARLY:
                self._ended_early.popitem(last=False)

    def _on_connected(self) -> None:
        for run in self._runs.values():
            self._chores.do(run.look(ENGINE_RESTARTED))

    # -- what there is ------------------------------------------------------------------------------------------

    async def list(self) -> Sequence[FoundRun]:
        """Every container of a run; of several of one run (a restart in place) the newest. The others are removed."""
        found, leftovers = self._sorted_out(await self._containers())
        for container_id in leftovers:
            self._remove(container_id)
        return found

    async def _containers(self) -> Sequence[Mapping[str, Any]]:
        filters = {"label": [self._installation.label, RUN_LABEL]}
        found: Sequence[Mapping[str, Any]] = await self._engine.ask_patiently(
            lambda client: client.containers(all=True, filters=filters)
        )
        return found

    def _sorted_out(self, containers: Sequence[Mapping[str, Any]]) -> tuple[Sequence[FoundRun], Sequence[str]]:
        """The runs among *containers*, whose addresses are taken from now on, and the ids of what is nobody's."""
        found: dict[str, FoundRun] = {}
        leftovers: list[str] = []
        for container in sorted(containers, key=lambda one: one["Created"], reverse=True):
            run_id = container["Labels"][RUN_LABEL]
            if run_id in self._starting or run_id in self._ahead or container["Id"] in self._removals:
                continue
            if container["State"] in ("created", "removing") or run_id in found:
                if container["Id"] not in self._by_container:
                    leftovers.append(container["Id"])
                continue
            one = FoundRun(
                run_id=run_id, is_alive=container["State"] in _ALIVE, placement=self._placement_of(container)
            )
            found[run_id] = one
            if one.is_alive and run_id not in self._runs and one.placement["host"]:
                self.addresses.keep(run_id, one.placement["host"])  # nobody else's, adopted or not
        return [*found.values()], leftovers

    def _placement_of(self, container: Mapping[str, Any]) -> Mapping[str, Any]:
        known = self._by_container.get(container["Id"])
        if known is not None:
            return known.placement
        network = container["NetworkSettings"]["Networks"].get(self._installation.network) or {}
        config = network.get("IPAMConfig") or {}
        return {
            "launcher": self.name,
            "container": container["Id"],
            "host": config.get("IPv4Address") or network.get("IPAddress"),
            "port": int(container["Labels"].get(PORT_LABEL, WEB_SERVER_PORT)),
        }

    async def adopt(self, run_id: str, placement: Mapping[str, Any]) -> bool:
        """Take up a run by its container, alive or ended; False where there is none."""
        if run_id in self._runs:
            return True
        container_id = placement.get("container")
        if container_id is None:
            placement = next((found.placement for found in await self.list() if found.run_id == run_id), {})
            container_id = placement.get("container")
        if container_id is None or container_id in self._removals:
            return False
        try:
            found = await self._engine.ask(lambda client: client.inspect_container(container_id))
        except NotInEngine:
            return False
        labels = found["Config"]["Labels"]
        if labels.get(INSTALLATION_LABEL) != self._installation.id or labels.get(RUN_LABEL) != run_id:
            return False
        if isinstance(host := placement.get("host"), str):
            self.addresses.keep(run_id, host)
        self._take_up(
            RunContainer(
                run_id=run_id,
                container_id=container_id,
                placement=placement,
                log_path=self._log_path(run_id),
                max_log_chars=self._max_log_chars,
                engine=self._engine,
                chores=self._chores,
                quiet=self._quiet,
                disk_mbytes=disk_mbytes(found["HostConfig"]["Memory"] // 1024**2),
                cpus_after_boot=left_of_boot(found["HostConfig"], self._maker.rules.cores),
            )
        )
        self._chores.do(self._runs[run_id].look())
        return True

    async def forget(self, run_id: str) -> None:
        """Remove the container, in the background, and give its address back. Raises LaunchError while it lives."""
        run = self._runs.get(run_id)
        if (ahead := self._ahead.pop(run_id, None)) is not None:
            self._remove(ahead)
        elif run is not None:
            if not run.ended.is_set():
                raise _still_running(run_id)
            del self._runs[run_id], self._by_container[run.container_id]
            self._remove(run.container_id)
        else:
            for found in await self.list():
                if found.run_id == run_id:
                    if found.is_alive:
                        raise _still_running(run_id)
                    self._remove(found.placement["container"])
        self.addresses.give_back(run_id)

    def _remove(self, container_id: str) -> None:
        """In the background, since it takes the engine longer than a start may wait for."""
        removal = self._chores.do(self._remove_with_patience(container_id))
        if removal is not None:
            self._removals[container_id] = removal
            removal.add_done_callback(lambda _: self._removals.pop(container_id, None))

    async def _remove_with_patience(self, container_id: str) -> None:
        """What can't be removed now is removed after the next start of Greenroom, which finds it."""
        for _ in range(_REMOVAL_TRIES):
            try:
                await self._engine.ask(lambda client: client.remove_container(container_id, v=True, force=True))
            except NotInEngine:
                return
            except (EngineUnavailable, EngineError):
                await asyncio.sleep(_RETRY_SECS)
            else:
                return


def _still_running(run_id: str) -> LaunchError:
    return LaunchError(f"Run {run_id} is still running: stop it, and wait for its end.")
