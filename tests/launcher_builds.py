"""Builds whose Actor is a script written in the test, and what tests of launchers need around them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from autoscaler.launchers.base import Launcher, LaunchSpec
from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.docker.images import Images
from autoscaler.launchers.docker.launcher import DockerLauncher
from autoscaler.launchers.environments import Prepared
from autoscaler.launchers.process import ProcessLauncher
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build, Origin
from gateway.installation import BUILD_LABEL, INSTALLATION_LABEL, installation_of
from gateway.state.blobs import open_blobs

PORTS = (21000, 30999)
MEMORY_MBYTES = 128

# What every script may use: `wait_for_knock()` returns when the test has knocked at the run's port.
_PRELUDE = """
def wait_for_knock():
    import os, socket
    with socket.create_server(("0.0.0.0", int(os.environ["KNOCK_PORT"]))) as server:
        os.write(1, b"listening\\n")
        server.accept()[0].close()
"""


class Builds(Protocol):
    """Makes builds of one kind of launcher out of scripts."""

    folder: Path

    def script(self, source: str) -> Build:
        """A build that runs *source* by a bare, unbuffered Python, with ``wait_for_knock`` in its reach."""
        ...


def _build(**fields: Any) -> Build:
    return Build(
        id=secrets.token_hex(8),
        actor_id="actor",
        user_id="user",
        version_number="0.0",
        build_number="0.0.1",
        status=RunStatus.SUCCEEDED,
        started_at=datetime.now(UTC),
        origin=Origin.API,
        **fields,
    )


class ScriptedBuilds:
    """Stands in for Environments: every build is a command, ready at once; ``is_slow`` builds want preparing first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prepared_count = 0
        self._by_id: dict[str, Prepared] = {}
        self._not_ready: set[str] = set()

    def script(self, source: str, *, is_slow: bool = False, **prepared: Any) -> Build:
        """See Builds."""
        path = self.folder / f"{secrets.token_hex(4)}.py"
        path.write_text(_PRELUDE + textwrap.dedent(source))
        return self.command(sys.executable, "-I", "-S", "-u", str(path), is_slow=is_slow, **prepared)

    def command(self, *argv: str, cwd: Path | None = None, is_slow: bool = False, **prepared: Any) -> Build:
        """A build that runs just this command."""
        build = _build()
        self._by_id[build.id] = Prepared(cwd=cwd or self.folder, argv=argv, **prepared)
        if is_slow:
            self._not_ready.add(build.id)
        return build

    async def prepare(self, build: Build, progress: Callable[[str], None]) -> Prepared:
        await asyncio.sleep(0)
        progress("preparing")
        self.prepared_count += 1
        self._not_ready.discard(build.id)
        return self._by_id[build.id]

    def ready(self, build: Build) -> Prepared | None:
        return None if build.id in self._not_ready else self._by_id[build.id]


class ContainerBuilds:
    """Images of one installation in a real engine, made of the base image of the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._installation = installation_of(folder)
        self._client = Engine().connect()

    def script(self, source: str) -> Build:
        """See Builds; the script goes by a variable, so that no image has to be made for it."""
        return replace(
            self.command("python3", "-I", "-S", "-u", "-c", "import os; exec(os.environ.pop('SCRIPT'))"),
            definition={"script": _PRELUDE + textwrap.dedent(source)},
        )

    def command(self, *argv: str) -> Build:
        """A build that runs just this command."""
        build = _build()
        container = self._client.create_container(
            "greenroom-tests:base", ["true"], labels={INSTALLATION_LABEL: self._installation.id}
        )
        self._client.commit(
            container["Id"],
            self._installation.image_name,
            build.id,
            conf={
                "Cmd": list(argv),
                "Labels": {INSTALLATION_LABEL: self._installation.id, BUILD_LABEL: build.id},
            },
        )
        self._client.remove_container(container["Id"])
        return build

    def close(self) -> None:
        self._client.close()


@asynccontextmanager
async def open_launcher(kind: str, folder: Path, builds: Any) -> AsyncIterator[Launcher]:
    """A launcher of *kind* that keeps its things below *folder*, in which a log is named by its run."""
    if kind == "process":
        async with ProcessLauncher(folder / "root", builds, port_range=PORTS) as process:
            yield process
        return
    engine, installation = Engine(), installation_of(folder)
    async with (
        Images(engine, installation, open_blobs(folder / "blobs")) as images,
        DockerLauncher(
            engine, installation, images, log_path=lambda run_id: folder / f"{run_id}.log", max_log_chars=10_000_000
        ) as docker,
    ):
        yield docker


@dataclass(frozen=True, kw_only=True)
class StartedRun:
    """A run that a test started; ``mark`` is a word that stands in the environment of each of its processes."""

    id: str
    log_path: Path
    placement: Mapping[str, Any]
    mark: str = ""

    def log(self) -> list[str]:
        """The lines of its log without their times."""
        return [line[25:] for line in self.log_path.read_text().splitlines()] if self.log_path.exists() else []

    async def knock(self) -> None:
        """Let its ``wait_for_knock`` return, as soon as that has begun."""
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection(self.placement["host"], self.placement["port"])
                except OSError:
                    await asyncio.sleep(0.01)
                    continue
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
                return

    def processes(self) -> list[int]:
        """The living processes that have its mark, wherever they are."""
        return marked_processes(self.mark)


async def spec_of(
    launcher: Launcher,
    build: Build,
    folder: Path,
    *,
    run_id: str | None = None,
    env: Mapping[str, str] | None = None,
    max_log_chars: int = 10_000_000,
    log_path: Path | None = None,
    memory_mbytes: int = MEMORY_MBYTES,
) -> LaunchSpec:
    """All that starts a run of *build*; its log lies in *folder*."""
    run_id = run_id or "Run" + secrets.token_hex(7)
    placement = await launcher.place(run_id, None)
    given = {"KNOCK_PORT": str(placement.port), "MARK": run_id} if env is None else dict(env)
    if (script := build.definition.get("script")) is not None:
        given["SCRIPT"] = script
    return LaunchSpec(
        run_id=run_id,
        build=build,
        env=given,
        placement=placement,
        memory_mbytes=memory_mbytes,
        log_path=log_path or folder / f"{run_id}.log",
        max_log_chars=max_log_chars,
    )


async def start_run(
    launcher: Launcher,
    build: Build,
    folder: Path,
    *,
    may_begin: Callable[[], Awaitable[None]] | None = None,
    **options: Any,
) -> StartedRun:
    """Place and start a run of *build*; *options* as ``spec_of`` has them."""
    spec = await spec_of(launcher, build, folder, **options)
    placement = await launcher.start(spec, may_begin)
    return StartedRun(id=spec.run_id, log_path=spec.log_path, placement=placement, mark=spec.run_id)


async def until(condition: Callable[[], object], *, limit_secs: float = 20) -> None:
    """Wait for *condition* to hold."""
    async with asyncio.timeout(limit_secs):
        while not condition():  # noqa: ASYNC110 - other processes' doings raise no event here
            await asyncio.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Whether the process lives; one that only waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def marked_processes(mark: str) -> list[int]:
    """The living processes whose environment holds ``MARK=<mark>``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"MARK={mark}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return [pid for pid in found if is_alive(pid)]


_FIRST_LIFE = """
import asyncio, json, sys
from pathlib import Path
from launcher_builds import ContainerBuilds, ScriptedBuilds, open_launcher, start_run

async def main(kind, folder, source):
    builds = {"process": ScriptedBuilds, "docker": ContainerBuilds}[kind](folder)
    async with open_launcher(kind, folder, builds) as launcher:
        run = await start_run(launcher, builds.script(source), folder)
        server = getattr(launcher, "_fork_server", None)
        print(json.dumps({"id": run.id, "log_path": str(run.log_path), "placement": dict(run.placement),
                          "helper": server.pid if server else None}), flush=True)
        await asyncio.Event().wait()

asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
"""


async def start_in_a_first_life(kind: str, folder: Path, source: str) -> StartedRun:
    """Start a run from a process that is then killed by SIGKILL, with all its helpers."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    first = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _FIRST_LIFE, kind, str(folder), textwrap.dedent(source)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(paths)},
    )
    assert first.stdout is not None
    line = await first.stdout.readline()
    first.kill()
    await first.communicate()
    told = json.loads(line)
    helper = told.pop("helper")
    with contextlib.suppress(ProcessLookupError):  # it may have noticed by itself
        if helper is not None:
            os.kill(helper, signal.SIGKILL)
    return StartedRun(id=told["id"], log_path=Path(told["log_path"]), placement=told["placement"], mark=told["id"])
