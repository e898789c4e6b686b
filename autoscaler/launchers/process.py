"""
The process launcher: an Actor is a process group of this machine, under its shim. Quick, and without any isolation.

A run can read whatever the user that Greenroom runs as can read, its memory limit is not enforced, and it shares the
machine's network: this launcher is for Actors that one trusts. What it promises is that a run never outlives its end:
every process that it started, whatever it did to detach itself, is gone before ``wait`` returns (Linux).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from autoscaler.launchers.base import Exited, FoundRun, LaunchSpec, Placement
from autoscaler.launchers.environments import Prepared
from autoscaler.launchers.ports import Ports
from autoscaler.launchers.run_folders import (
    RunFolders,
    boot_id,
    end_leftovers,
    read_exit_code,
    read_mark,
    read_record,
    remove_tree,
)
from autoscaler.launchers.shim_client import ForkServer, ShimHandle
from autoscaler.launchers.usage import Meter
from gateway.core.errors import LaunchError
from gateway.core.load import Usage
from gateway.core.model import Address, Build

SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

_START_SECS = 10.0  # for a start whose launcher was killed to come to its end; takes milliseconds
_STUCK_SECS = 15.0  # a shim that has not ended so long after SIGKILL to its run is killed itself


class PreparesBuilds(Protocol):
    """What makes builds startable (``environments.Environments``)."""

    async def prepare(self, build: Build, progress: Callable[[str], None]) -> Prepared: ...
    def ready(self, build: Build) -> Prepared | None: ...


@dataclass(slots=True, kw_only=True)
class _Run:
    """What this process knows of one run that it started or adopted; ``shim`` is None once it has ended."""

    folder: Path
    record: Mapping[str, Any]
    shim: ShimHandle | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    escalations: list[asyncio.TimerHandle] = field(default_factory=list)
    exited: Exited | None = None

    def watch(self) -> None:
        """Note the shim's end when it comes, or at once where there is none."""
        if self.shim is None:
            self.ended.set()
        else:
            self.shim.on_exit(self.let_go)

    def let_go(self) -> None:
        """The shim has ended, or is left to itself."""
        for escalation in self.escalations:
            escalation.cancel()
        if self.shim is not None:
            self.shim.close()
            self.shim = None
        self.ended.set()

    def send(self, number: signal.Signals) -> None:
        """Send the shim a signal, if it still lives."""
        if self.shim is not None:
            self.shim.send(number)

    def kill(self) -> None:
        """SIGKILL to all of the run; and to its shim, should that be stuck."""
        self.send(signal.SIGQUIT)
        self.later(_STUCK_SECS, lambda: self.send(signal.SIGKILL))

    def later(self, delay_secs: float, act: Callable[[], None]) -> None:
        """Call *act* after a while, unless the run has ended by then."""
        if self.shim is not None:
            self.escalations.append(asyncio.get_running_loop().call_later(delay_secs, act))


class ProcessLauncher:
    """
    Runs as process groups of this machine; see the module. An async context manager, or ``open`` and ``close``.

    Everything it keeps lies below *root*. It has no background work of its own: the kernel tells it of ends, and the
    event loop's timers escalate a stop; ``close`` cancels both, and the runs live on under their shims.
    """

    name = "process"
    first_probe_secs = 0.002

    def __init__(
        self, root: Path, environments: PreparesBuilds, *, port_range: tuple[int, int], host: str = "127.0.0.1"
    ) -> None:
        self._folders = RunFolders(root.absolute())
        self._environments = environments
        self._host = host
        self._ports = Ports(*port_range)
        self._meter = Meter()
        self._cores = float(os.cpu_count() or 1)  # the kernel is slow to tell, and is asked for each run at each look
        self._fork_server = ForkServer()
        self._runs: dict[str, _Run] = {}
        self._starting: set[str] = set()
        self._boot_id = boot_id()
        self._node_dir: str | None = None

    async def open(self) -> None:
        """Get ready to start runs within milliseconds. Raises LaunchError."""
        self._folders.open()
        if node := shutil.which("node"):
            self._node_dir = os.path.dirname(node)  # noqa: PTH120 - as it stands in PATH, links and all
        await self._fork_server.open()

    async def close(self) -> None:
        """Let go of all runs, which live on; a stop under way is not escalated any more."""
        for run in self._runs.values():
            run.let_go()
        self._runs.clear()
        await self._fork_server.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def cpu_share(self, memory_mbytes: int) -> float:
        """What a run may count on: min(cores, max(1, memory ÷ 4096)), e.g. 2 for 8192 MiB on 4 cores. Not enforced."""
        return min(self._cores, max(1.0, memory_mbytes / 4096))

    async def prepare(self, build: Build, progress: Callable[[str], None]) -> None:
        """Unpack the source and make its environment, unless that was done before."""
        await self._environments.prepare(build, progress)

    def is_prepared(self, build: Build) -> bool:
        """Whether its environment is there."""
        return self._environments.ready(build) is not None

    async def place(self, run_id: str, wanted_port: int | None) -> Placement:
        """Reserve a free port of the range, or exactly *wanted_port*, until ``forget``. Raises LaunchError."""
        if wanted_port is None:
            port = self._ports.take(run_id)
        else:
            port = wanted_port
            self._ports.take_this(run_id, port)
        return Placement(address=Address(host=self._host, port=port), port=port)

    async def start(
        self, spec: LaunchSpec, may_begin: Callable[[], Awaitable[None]] | None = None
    ) -> Mapping[str, Any]:
        """
        Start the Actor under a shim of its own; returns once its program has been loaded, which waits for *may_begin*.

        Raises LaunchError when the command can't be executed; nothing is left of it then. So it is when the caller is
        cancelled. The memory limit is not enforced.
        """
        known = self._runs.get(spec.run_id)
        if known is not None and not known.ended.is_set():
            raise LaunchError(f"Run {spec.run_id} is running already.")
        prepared = self._environments.ready(spec.build)
        if prepared is None:
            prepared = await self._environments.prepare(spec.build, lambda line: None)
        self._starting.add(spec.run_id)
        try:
            folder = self._folders.make(spec.run_id)
            self._runs.pop(spec.run_id, None)
            record = await self._fork_server.launch(
                {
                    "folder": str(folder),
                    "log_path": str(spec.log_path.absolute()),
                    "max_log_chars": spec.max_log_chars,
                    "cwd": str(prepared.cwd),
                    "argv": [str(word) for word in prepared.argv],
                    "env": actor_environment(spec.env, prepared, folder, self._node_dir),
                    "record": {
                        "launcher": self.name,
                        "boot_id": self._boot_id,
                        "host": spec.placement.address.host,
                        "port": spec.placement.port,
                    },
                },
                may_begin,
            )
            self._ports.keep(spec.run_id, spec.placement.port)
            self._hold(spec.run_id, folder, record)
        finally:
            self._starting.discard(spec.run_id)
        return record

    async def has_booted(self, run_id: str) -> None:
        """Nothing to do: it has had all that it can get from its first moment on."""

    async def stop(self, run_id: str, *, grace_secs: float) -> None:
        """SIGTERM to all of the run, SIGKILL after *grace_secs* (0: at once). A run that has ended is fine."""
        run = self._known(run_id)
        if grace_secs <= 0:
            run.kill()
            return
        run.send(signal.SIGTERM)
        run.later(grace_secs, run.kill)

    async def freeze(self, run_id: str) -> None:
        """Stop every process of the run where it stands, within a moment of returning. Its memory is kept."""
        self._known(run_id).send(signal.SIGUSR1)

    async def resume(self, run_id: str) -> None:
        """Let a frozen run go on."""
        self._known(run_id).send(signal.SIGUSR2)

    async def wait(self, run_id: str) -> Exited:
        """Until the run has ended and nothing of it is left."""
        run = self._known(run_id)
        await run.ended.wait()
        if run.exited is None:
            exit_code = read_exit_code(run.folder)
            if exit_code is None:
                await asyncio.to_thread(end_leftovers, run.folder, run.record)
                run.exited = Exited(
                    exit_code=128 + signal.SIGKILL,
                    reason="The run's guard process was killed from outside Greenroom, and the run with it.",
                )
            else:
                run.exited = Exited(exit_code=exit_code)
        return run.exited

    async def usage(self) -> Mapping[str, Usage]:
        """What each living run uses, in one pass over the process table; nothing where there is no ``/proc``."""
        shims = {
            run_id: (run.record["shim_pid"], run.record["shim_started"])
            for run_id, run in self._runs.items()
            if run.shim is not None
        }
        return await asyncio.to_thread(self._meter.measure, shims)

    async def list(self) -> Sequence[FoundRun]:
        """
        Every run that lives or whose exit code is kept. Folders of runs of which neither is true are removed.

        Where an earlier process of this Greenroom, killed by now, was about to start a run, its shim is waited for: it
        gives up, or the run lives.
        """
        return await asyncio.to_thread(self._list)

    async def adopt(self, run_id: str, placement: Mapping[str, Any]) -> bool:
        """
        Take up a run by its shim's pid, start time and boot, or by the exit code that is kept.

        Where neither is there, processes that the run may have left are killed, and the answer is False.
        """
        known = self._runs.get(run_id)
        if known is not None:
            return True
        folder = self._folders.of(run_id)
        record = placement if "shim_pid" in placement else read_record(folder)
        if record is None:
            return False
        is_alive = self._is_alive(record)
        if not is_alive and read_exit_code(folder) is None:
            own = read_record(folder)
            if own is not None and self._is_alive(own):
                return False  # there is a run of this name, but not the one that was asked for
            # It may have ended between the two looks, so only a second one without a code says that there is none.
            await asyncio.to_thread(end_leftovers, folder, record)
            if read_exit_code(folder) is None:
                return False
        if isinstance(port := record.get("port"), int):
            self._ports.keep(run_id, port)
        self._hold(run_id, folder, record)
        return True

    async def forget(self, run_id: str) -> None:
        """Drop the run's exit code, folder and port. Raises LaunchError while it lives."""
        run = self._runs.get(run_id)
        folder = self._folders.of(run_id)
        record = run.record if run is not None else read_record(folder)
        if record is not None and self._is_alive(record):
            raise LaunchError(f"Run {run_id} is still running: stop it, and wait for its end.")
        await asyncio.to_thread(remove_tree, folder)
        if run is not None:
            run.let_go()
        self._runs.pop(run_id, None)
        self._ports.give_back(run_id)

    def _hold(self, run_id: str, folder: Path, record: Mapping[str, Any]) -> None:
        run = _Run(folder=folder, record=record)
        if record.get("boot_id") == self._boot_id:
            run.shim = ShimHandle.find(record["shim_pid"], record["shim_started"])
        self._runs[run_id] = run
        run.watch()

    def _known(self, run_id: str) -> _Run:
        try:
            return self._runs[run_id]
        except KeyError:
            raise LaunchError(f"The process launcher knows no run {run_id}.") from None

    def _is_alive(self, record: Mapping[str, Any]) -> bool:
        return record.get("boot_id") == self._boot_id and self._lives(record)

    @staticmethod
    def _lives(record: Mapping[str, Any]) -> bool:
        handle = ShimHandle.find(record["shim_pid"], record["shim_started"])
        if handle is None:
            return False
        handle.close()
        return True

    def _list(self) -> Sequence[FoundRun]:
        found = []
        self._folders.remove_set_aside()
        for run_id in self._folders.all():
            folder = self._folders.of(run_id)
            is_starting = run_id in self._starting  # asked first: this is another thread, and one that ends is known
            run = self._runs.get(run_id)
            if run is None and not is_starting:
                self._wait_for_start(folder)
            record = run.record if run is not None else read_record(folder)
            is_alive = record is not None and self._is_alive(record)
            if record is not None and (is_alive or read_exit_code(folder) is not None):
                found.append(FoundRun(run_id=run_id, is_alive=is_alive, placement=record))
            elif run is None and not is_starting:
                end_leftovers(folder, record or {})
                self._folders.remove_unless_starting(run_id, self._lives)
        return found

    def _wait_for_start(self, folder: Path) -> None:
        """Where a shim without a launcher is just starting a run, until it has or has given up (bounded)."""
        until = time.monotonic() + _START_SECS
        while (mark := read_mark(folder)) is not None and time.monotonic() < until:
            if mark and not self._lives(mark):
                return
            time.sleep(0.005)


def actor_environment(
    spec_env: Mapping[str, str], prepared: Prepared, folder: Path, node_dir: str | None
) -> dict[str, str]:
    """
    The whole environment of an Actor: what the run's contract says, and the little that any program needs.

    The contract wins, but its PATH stands between the folders of the build and those of the system. Nothing of
    Greenroom's own environment is in it.
    """
    path = [*map(str, prepared.path_dirs)]
    if own_path := spec_env.get("PATH"):
        path.append(own_path)
    path += SYSTEM_PATH
    if node_dir is not None and node_dir not in SYSTEM_PATH:
        path.append(node_dir)
    return {
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        **prepared.extra_env,
        **spec_env,
        "PATH": ":".join(path),
    }
