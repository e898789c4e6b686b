"""Builds whose Actor is a script written in the test, and what tests of launchers need around them."""

from __future__ import annotations

import asyncio
import secrets
import sys
import textwrap
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autoscaler.launchers.base import Launcher, LaunchSpec
from autoscaler.launchers.environments import Prepared
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build, Origin

PORTS = (21000, 30999)


class ScriptedBuilds:
    """Stands in for Environments: every build is a command, ready at once; ``is_slow`` builds want preparing first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prepared_count = 0
        self._by_id: dict[str, Prepared] = {}
        self._not_ready: set[str] = set()

    def script(self, source: str, *, is_slow: bool = False, **prepared: Any) -> Build:
        """A build that runs *source* by a bare, unbuffered Python."""
        path = self.folder / f"{secrets.token_hex(4)}.py"
        path.write_text(textwrap.dedent(source))
        return self.command(sys.executable, "-I", "-S", "-u", str(path), is_slow=is_slow, **prepared)

    def command(self, *argv: str, cwd: Path | None = None, is_slow: bool = False, **prepared: Any) -> Build:
        """A build that runs just this command."""
        build = Build(
            id=secrets.token_hex(8),
            actor_id="actor",
            user_id="user",
            version_number="0.0",
            build_number="0.0.1",
            status=RunStatus.SUCCEEDED,
            started_at=datetime.now(UTC),
            origin=Origin.API,
        )
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


@dataclass(frozen=True, kw_only=True)
class StartedRun:
    """A run that a test started."""

    id: str
    log_path: Path
    placement: Mapping[str, Any]

    def log(self) -> list[str]:
        """The lines of its log without their times."""
        return [line[25:] for line in self.log_path.read_text().splitlines()] if self.log_path.exists() else []


async def start_run(
    launcher: Launcher,
    build: Build,
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    max_log_chars: int = 10_000_000,
    log_path: Path | None = None,
    may_begin: Callable[[], Awaitable[None]] | None = None,
) -> StartedRun:
    """Place and start a run of *build*; its log lies in *folder*."""
    run_id = "Run" + secrets.token_hex(7)
    log_path = log_path or folder / f"{run_id}.log"
    spec = LaunchSpec(
        run_id=run_id,
        build=build,
        env=env or {},
        placement=await launcher.place(run_id, None),
        memory_mbytes=128,
        log_path=log_path,
        max_log_chars=max_log_chars,
    )
    return StartedRun(id=run_id, log_path=log_path, placement=await launcher.start(spec, may_begin))


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
