"""Out of memory, told apart from whatever else may kill a container; with a real engine."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from launcher_builds import ContainerBuilds, open_launcher, start_run, until

from autoscaler.launchers.base import Exited
from autoscaler.launchers.chores import Chores
from autoscaler.launchers.docker import run_container
from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.docker.run_container import RunContainer

# As a program of its own, since a child by fork shares the memory of its parent.
_HOG = "import time; blocks = [bytearray(b'x' * (8 << 20)) for _ in range(100)]; time.sleep(60)"
_CHILD = f"""
    import os, subprocess, sys, time
    ended = subprocess.run([sys.executable, "-c", {_HOG!r}])
    print("child", ended.returncode, flush=True)
"""


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(_HOG, Exited(exit_code=137, out_of_memory=True), id="its program"),
        pytest.param(
            _CHILD + "    sys.exit(ended.returncode != 0)",
            Exited(exit_code=1, out_of_memory=True),
            id="a child, and so it",
        ),
        pytest.param(_CHILD, Exited(exit_code=0), id="a child, which it survives"),
        pytest.param("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Exited(exit_code=137), id="by itself"),
        pytest.param("raise MemoryError", Exited(exit_code=1), id="only in its own words"),
    ],
)
async def test_out_of_memory(
    launcher: Any, builds: ContainerBuilds, tmp_path: Path, script: str, expected: Exited
) -> None:
    """Only where the kernel has killed for want of memory, and the run has failed with that."""
    run = await start_run(launcher, builds.script(script), tmp_path)
    assert await launcher.wait(run.id) == expected
    assert ("child -9" in run.log()) is (script.startswith(_CHILD))


SLEEPS = "import time; print('up', flush=True); time.sleep(60)"


async def test_a_kill_from_outside_is_not_out_of_memory(launcher: Any, builds: ContainerBuilds, tmp_path: Path) -> None:
    """The same exit code, another end."""
    run = await start_run(launcher, builds.script(SLEEPS), tmp_path)
    await until(lambda: run.log() == ["up"])
    os.kill(run.processes()[0], signal.SIGKILL)
    assert await launcher.wait(run.id) == Exited(exit_code=137)


async def test_what_was_long_ago_is_no_reason(
    launcher: Any, builds: ContainerBuilds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that lives on after the kernel has killed a child of it, and fails later, has failed for another reason."""
    monkeypatch.setattr(run_container, "_CAUSE_SECS", 0.2)
    run = await start_run(launcher, builds.script(_CHILD + "    wait_for_knock()\n    sys.exit(3)"), tmp_path)
    await until(lambda: "listening" in run.log())
    held = launcher._runs[run.id]
    async with asyncio.timeout(10):
        await held._out_of_memory.wait()
    await asyncio.sleep(0.3)
    await run.knock()
    assert await launcher.wait(run.id) == Exited(exit_code=3)


async def test_who_was_asked_to_end_was_not_out_of_memory(
    launcher: Any, builds: ContainerBuilds, tmp_path: Path
) -> None:
    """Even if the kernel has killed a child of it just before."""
    run = await start_run(launcher, builds.script(_CHILD + "    time.sleep(60)"), tmp_path)
    await until(lambda: run.log() == ["child -9"])
    await launcher.stop(run.id, grace_secs=0)
    assert await launcher.wait(run.id) == Exited(exit_code=137)


async def test_an_end_that_nobody_has_seen(builds: ContainerBuilds, tmp_path: Path) -> None:
    """A later Greenroom believes what the engine has noted."""
    async with open_launcher("docker", tmp_path, builds) as first:
        run = await start_run(first, builds.script("wait_for_knock()\n" + _HOG), tmp_path)
        await until(lambda: run.log() == ["listening"])
    await run.knock()
    await until(lambda: not run.processes())
    async with open_launcher("docker", tmp_path, builds) as again:
        assert await again.adopt(run.id, run.placement)
        assert await again.wait(run.id) == Exited(exit_code=137, out_of_memory=True)


async def test_the_news_may_come_after_the_end(docker_host: str, tmp_path: Path) -> None:
    """The engine tells of both by different ways; a kill that nobody explains is not settled at once."""
    engine = Engine(docker_host)
    run = RunContainer(
        run_id="r",
        container_id="c",
        placement={},
        log_path=tmp_path / "log",
        max_log_chars=1,
        engine=engine,
        chores=Chores(),
        quiet=lambda: asyncio.sleep(0),
        disk_mbytes=1,
    )
    async with asyncio.TaskGroup() as group:
        verdict = group.create_task(run._is_out_of_memory({"OOMKilled": False}, 137, time.monotonic()))
        await asyncio.sleep(0)
        run.has_run_out_of_memory()
    assert verdict.result() is True
    engine.close()
