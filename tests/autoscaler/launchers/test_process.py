"""What the process launcher promises beyond the port: its shim, its fork server, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop
from launcher_builds import PORTS, ScriptedBuilds, is_alive, start_run, until

from autoscaler.launchers.base import Exited
from autoscaler.launchers.environments import Prepared
from autoscaler.launchers.process import SYSTEM_PATH, ProcessLauncher, actor_environment
from gateway.core.errors import LaunchError


@pytest.fixture
def builds(tmp_path) -> ScriptedBuilds:
    return ScriptedBuilds(tmp_path)


@pytest.fixture
async def launcher(tmp_path, builds) -> AsyncIterator[ProcessLauncher]:
    async with ProcessLauncher(tmp_path / "root", builds, port_range=PORTS) as launcher:
        yield launcher


@pytest.mark.parametrize(
    ("memory", "cores", "expected"),
    [
        pytest.param(1024, 4, 1.0, id="a small run has one core"),
        pytest.param(4096, 4, 1.0, id="one by memory"),
        pytest.param(6144, 4, 1.5, id="fractions"),
        pytest.param(8192, 4, 2.0, id="two by memory"),
        pytest.param(32768, 4, 4.0, id="no more than there are"),
        pytest.param(128, 1, 1.0, id="a machine of one core"),
    ],
)
def test_cpu_share(builds, tmp_path, monkeypatch, memory, cores, expected):
    """min(cores, max(1, memory ÷ 4096))."""
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    launcher = ProcessLauncher(tmp_path / "root", builds, port_range=PORTS)
    assert launcher.cpu_share(memory) == expected


async def test_killed_shim_takes_its_run_along(launcher, builds, tmp_path):
    """When somebody kills the shim the Actor dies, with every process it has detached; the end says what happened."""
    build = builds.script("""
        import os, time
        if os.fork() == 0:
            os.setsid()
        os.write(1, f"{os.getpid()}\\n".encode())
        time.sleep(60)
    """)
    run = await start_run(launcher, build, tmp_path)
    await until(lambda: len(run.log()) == 2)
    pids = [int(line) for line in run.log()]
    os.kill(run.placement["shim_pid"], signal.SIGKILL)
    async with asyncio.timeout(10):
        end = await launcher.wait(run.id)
    assert end.exit_code == 137
    assert "guard process was killed" in (end.reason or "")
    assert not any(map(is_alive, pids))
    assert await launcher.list() == []


async def test_a_run_killed_with_its_shim_leaves_no_folder(builds, tmp_path):
    """Where shim and Greenroom die together: the next launcher finds no run, and removes what is left of it."""
    async with ProcessLauncher(tmp_path / "root", builds, port_range=PORTS) as launcher:
        run = await start_run(launcher, builds.script("import time; time.sleep(60)"), tmp_path)
    os.kill(run.placement["shim_pid"], signal.SIGKILL)
    await until(lambda: not is_alive(run.placement["shim_pid"]))
    async with ProcessLauncher(tmp_path / "root", builds, port_range=PORTS) as successor:
        assert await successor.list() == []
    assert not is_alive(run.placement["actor_pid"])
    assert list((tmp_path / "root/runs").iterdir()) == []


async def test_stopped_shim_is_killed_in_the_end(launcher, builds, tmp_path, monkeypatch):
    """A shim that can't act any more doesn't keep a run from being stopped."""
    monkeypatch.setattr("autoscaler.launchers.process._STUCK_SECS", 0.1)
    run = await start_run(launcher, builds.script("import time; time.sleep(60)"), tmp_path)
    os.kill(run.placement["shim_pid"], signal.SIGSTOP)
    await launcher.stop(run.id, grace_secs=0.1)
    async with asyncio.timeout(10):
        assert (await launcher.wait(run.id)).exit_code == 137
    assert not is_alive(run.placement["actor_pid"])


async def test_killed_fork_server_is_started_again(launcher, builds, tmp_path):
    """Runs outlive the fork server, and the next starts, many at once, find a new one."""
    old = await start_run(launcher, builds.script("import time; time.sleep(60)"), tmp_path)
    first = launcher._fork_server.pid
    os.kill(first, signal.SIGKILL)
    build = builds.script("raise SystemExit(5)")
    runs = await asyncio.gather(*(start_run(launcher, build, tmp_path) for _ in range(5)))
    assert {(await launcher.wait(run.id)).exit_code for run in runs} == {5}
    assert launcher._fork_server.pid != first
    await launcher.stop(old.id, grace_secs=10)
    assert await launcher.wait(old.id) == Exited(exit_code=143)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL])
async def test_signal_to_the_waiting_shim(launcher, builds, tmp_path, number):
    """A signal to the shim that waits for the next run (as when a whole service is stopped) doesn't end that run."""
    await launcher.wait((await start_run(launcher, builds.script(""), tmp_path)).id)
    helper = launcher._fork_server.pid

    def waiting() -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{helper}/task/{helper}/children").read_text().split()]

    await until(lambda: len(waiting()) == 1)
    os.kill(waiting()[0], number)
    run = await start_run(launcher, builds.script("raise SystemExit(3)"), tmp_path)
    assert await launcher.wait(run.id) == Exited(exit_code=3)


# A launcher that is killed amid its start of a run: before it says "go", or right after it, with the shim at a halt.
KILLED_LAUNCHER = """
import asyncio, json, os, signal, sys
from pathlib import Path
from autoscaler.launchers import shim_client
from launcher_builds import PORTS, ProcessLauncher, ScriptedBuilds, start_run, until

folder, moment = Path(sys.argv[1]), sys.argv[2]


async def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


async def halt_shim():
    if moment == "before go":
        await die()
    await until(lambda: list((folder / "root/runs").glob("*/starting.json")))
    (mark,) = (folder / "root/runs").glob("*/starting.json")
    shim = json.loads(mark.read_bytes())["shim_pid"]
    await until(Path(f"/proc/{shim}/task/{shim}/children").read_text)
    os.kill(shim, signal.SIGSTOP)
    shim_client._receive_exactly = die  # it is after "go" that the answer is waited for


async def main():
    builds = ScriptedBuilds(folder)
    async with ProcessLauncher(folder / "root", builds, port_range=PORTS) as launcher:
        build = builds.script(f"import time; open({str(folder / 'begun')!r}, 'a').write('x'); time.sleep(60)")
        await start_run(launcher, build, folder, may_begin=halt_shim)

asyncio.run(main())
"""


async def start_and_be_killed(folder: Path, moment: str) -> None:
    """As KILLED_LAUNCHER does it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED_LAUNCHER, str(folder), moment, env={**os.environ, "PYTHONPATH": "tests:."}
    )
    assert await process.wait() == -signal.SIGKILL


async def test_a_launcher_killed_after_go_leaves_a_run_that_lives(builds, tmp_path):
    """The next one waits for a start that is under way, and has the run then: it has begun, so it is no other's."""
    await start_and_be_killed(tmp_path, "after go")
    (mark,) = (tmp_path / "root/runs").glob("*/starting.json")
    async with ProcessLauncher(tmp_path / "root", builds, port_range=PORTS) as successor, asyncio.TaskGroup() as group:
        listing = group.create_task(successor.list())
        await until((tmp_path / "begun").exists)
        assert not listing.done()
        os.kill(json.loads(mark.read_bytes())["shim_pid"], signal.SIGCONT)
        (found,) = await listing
        assert found.is_alive
        assert await successor.adopt(found.run_id, found.placement)
        await successor.stop(found.run_id, grace_secs=0)
        assert (await successor.wait(found.run_id)).exit_code == 137
    assert (tmp_path / "begun").read_text() == "x"


async def test_a_launcher_killed_before_go_has_started_nothing(builds, tmp_path):
    """The next launcher finds neither the run nor an end of it, nor its folder."""
    await start_and_be_killed(tmp_path, "before go")
    async with ProcessLauncher(tmp_path / "root", builds, port_range=PORTS) as successor:
        assert await successor.list() == []
    assert list((tmp_path / "root/runs").iterdir()) == []
    assert not (tmp_path / "begun").exists()


async def test_start_that_was_given_up_leaves_no_log(launcher, builds, tmp_path):
    """However late the shim comes to it: an empty log of a run that nobody knows would stay for ever."""

    async def may_begin() -> None:
        raise KeyError("no record")

    for _ in range(5):
        with pytest.raises(KeyError):
            await start_run(launcher, builds.script(""), tmp_path, may_begin=may_begin)
    await until(lambda: not list(tmp_path.glob("*.log")))


async def test_cancelled_start_leaves_nothing(launcher, builds, tmp_path):
    """Whenever the caller of start gives up, nothing keeps running that nobody knows of."""
    build = builds.script("import time; time.sleep(60)")
    known = []
    for number in range(30):
        try:
            async with asyncio.timeout(number * 0.0003):
                known.append(await start_run(launcher, build, tmp_path))
        except TimeoutError:
            pass
    mark = str(tmp_path).encode()

    def living() -> int:
        return sum(mark in cmdline for cmdline in cmdlines())

    await until(lambda: living() == len(known))
    for run in known:
        await launcher.stop(run.id, grace_secs=0)
        await launcher.wait(run.id)
    await until(lambda: living() == 0)  # also of one whose process was not to be seen before
    assert not [found for found in await launcher.list() if found.is_alive]


def cmdlines() -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return found


async def test_secrets_stay_in_the_environment(launcher, builds, tmp_path):
    """A secret of the run's environment is in no command line and in no file, and its folder is its user's alone."""
    secret = secrets.token_hex(20)
    run = await start_run(launcher, builds.script("import time; time.sleep(60)"), tmp_path, env={"API_KEY": secret})
    folder = tmp_path / "root" / "runs" / run.id
    await until((folder / "shim.json").exists)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not any(secret.encode() in cmdline for cmdline in cmdlines())
    assert not any(secret in path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    await launcher.stop(run.id, grace_secs=0)
    await launcher.wait(run.id)


async def test_nothing_leaks(launcher, builds, tmp_path):
    """Thirty runs later there are as many open files and child processes as before, and no zombie."""
    build = builds.script("print('here')")

    async def whole_life() -> None:
        run = await start_run(launcher, build, tmp_path)
        await launcher.wait(run.id)
        await launcher.forget(run.id)

    def open_files() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    def children() -> int:
        me = (str(os.getpid()), str(launcher._fork_server.pid))
        stats = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                stats.append(path.read_text())
            except OSError:
                continue
        return sum(stat[stat.rindex(")") + 2 :].split()[1] in me for stat in stats)

    await whole_life()
    before = (open_files(), children())
    for _ in range(30):
        await whole_life()
    await until(lambda: (open_files(), children()) == before)
    assert list((tmp_path / "root" / "runs").iterdir()) == []


async def test_full_disk_does_not_end_the_actor(launcher, builds, tmp_path):
    """An Actor whose log can't be written runs on and keeps its exit code."""
    build = builds.script("for n in range(10_000): print(n)\nraise SystemExit(8)")
    run = await start_run(launcher, build, tmp_path, log_path=Path("/dev/full"))
    assert await launcher.wait(run.id) == Exited(exit_code=8)


async def test_log_that_cannot_be_opened_is_told(launcher, builds, tmp_path):
    """A missing log folder is a LaunchError, not a run without a log."""
    with pytest.raises(LaunchError, match="its log can't be opened"):
        await start_run(launcher, builds.script(""), tmp_path, log_path=tmp_path / "none" / "run.log")


async def test_forget_removes_what_an_actor_locked(launcher, builds, tmp_path):
    """Folders without write permission, as package caches leave them, don't stay behind."""
    build = builds.script("""
        import os
        os.makedirs(os.environ["HOME"] + "/cache/deep")
        open(os.environ["HOME"] + "/cache/deep/file", "w").close()
        os.chmod(os.environ["HOME"] + "/cache/deep", 0o500)
        os.symlink("/", os.environ["HOME"] + "/root")
    """)
    run = await start_run(launcher, build, tmp_path)
    await launcher.wait(run.id)
    await launcher.forget(run.id)
    assert not (tmp_path / "root" / "runs" / run.id).exists()


async def test_room_for_the_exit_code_is_taken_at_the_start(launcher, builds, tmp_path):
    """The exit code is written into a file that has its size since the run began, so a full disk can't lose it."""
    run = await start_run(launcher, builds.script("import time; time.sleep(60)"), tmp_path)
    folder = tmp_path / "root" / "runs" / run.id
    await until(lambda: (folder / "exit.new").exists() and (folder / "exit.new").stat().st_size)
    reserved = (folder / "exit.new").stat()
    await launcher.stop(run.id, grace_secs=0)
    assert await launcher.wait(run.id) == Exited(exit_code=137)
    kept = (folder / "exit.json").stat()
    assert (kept.st_ino, kept.st_size) == (reserved.st_ino, reserved.st_size)


async def test_abandoned_folders_are_removed(builds, tmp_path):
    """A folder in which no run ever came to life is cleared away by list, unless a run is just being started in it."""
    async with ProcessLauncher(tmp_path / "root", builds, port_range=PORTS) as launcher:
        (tmp_path / "root" / "runs" / "Abandoned").mkdir()
        is_made, may_begin = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            is_made.set()
            await may_begin.wait()

        async with asyncio.TaskGroup() as group:
            build = builds.script("import time; time.sleep(60)")
            starting = group.create_task(start_run(launcher, build, tmp_path, may_begin=wait))
            await is_made.wait()
            assert await launcher.list() == []
            may_begin.set()
        run = starting.result()
        assert [folder.name for folder in (tmp_path / "root" / "runs").iterdir()] == [run.id]
        await launcher.stop(run.id, grace_secs=0)
        await launcher.wait(run.id)


async def test_close_lets_runs_live(builds, tmp_path):
    """Closing the launcher ends its helper but no run; the next launcher takes them up."""
    async with ProcessLauncher(tmp_path / "root", builds, port_range=PORTS) as first:
        helper = first._fork_server.pid
        run = await start_run(first, builds.script("import time; time.sleep(60)"), tmp_path)
    assert not is_alive(helper)
    async with ProcessLauncher(tmp_path / "root", builds, port_range=PORTS) as second:
        await until((tmp_path / "root" / "runs" / run.id / "shim.json").exists)
        assert [found.is_alive for found in await second.list()] == [True]
        assert await second.adopt(run.id, run.placement)
        await second.stop(run.id, grace_secs=0)
        assert await second.wait(run.id) == Exited(exit_code=137)


@pytest.mark.parametrize("run_id", ["", "..", "a/b", "x" * 65])
async def test_odd_run_ids_reach_no_other_folder(launcher, run_id):
    """A run id is a plain name; nothing else is looked up, let alone removed."""
    with pytest.raises(LaunchError, match="not a run id"):
        await launcher.forget(run_id)


async def test_root_that_cannot_be_made_is_told(builds, tmp_path):
    """A root that is a file is a LaunchError in words."""
    (tmp_path / "root").touch()
    with pytest.raises(LaunchError, match="folder for runs can't be made"):
        async with ProcessLauncher(tmp_path / "root", builds, port_range=PORTS):
            pass


def test_under_uvloop(tmp_path):
    """The whole life of a run is the same under uvloop, and none of its files reach the Actor."""

    async def life() -> tuple[list[str], Exited]:
        builds = ScriptedBuilds(tmp_path)
        build = builds.script("import os, time; print(*sorted(os.listdir('/proc/self/fd'))[:-1]); time.sleep(60)")
        async with ProcessLauncher(tmp_path / "root", builds, port_range=PORTS) as launcher:
            run = await start_run(launcher, build, tmp_path)
            await until(run.log)
            await launcher.stop(run.id, grace_secs=10)
            return run.log(), await launcher.wait(run.id)

    assert uvloop.run(life()) == (["0 1 2"], Exited(exit_code=143))


def test_without_pidfds(tmp_path, monkeypatch):
    """Where the system has no pidfds, ends are still noticed, by looking."""
    monkeypatch.delattr(os, "pidfd_open")

    async def life() -> Exited:
        builds = ScriptedBuilds(tmp_path)
        async with ProcessLauncher(tmp_path / "root", builds, port_range=PORTS) as launcher:
            run = await start_run(launcher, builds.script("import time; time.sleep(60)"), tmp_path)
            await launcher.stop(run.id, grace_secs=10)
            return await launcher.wait(run.id)

    assert asyncio.run(life()) == Exited(exit_code=143)


@pytest.mark.parametrize(
    ("env", "node_dir", "path"),
    [
        pytest.param({}, None, ("/venv/bin", *SYSTEM_PATH), id="the build's, then the system's"),
        pytest.param({"PATH": "/own"}, None, ("/venv/bin", "/own", *SYSTEM_PATH), id="the Actor's own between"),
        pytest.param({}, "/opt/node/bin", ("/venv/bin", *SYSTEM_PATH, "/opt/node/bin"), id="node from elsewhere"),
        pytest.param({}, "/usr/bin", ("/venv/bin", *SYSTEM_PATH), id="node from the system"),
    ],
)
def test_path(env, node_dir, path):
    """PATH is extended, never replaced."""
    prepared = Prepared(cwd=Path("/"), argv=("x",), path_dirs=(Path("/venv/bin"),))
    assert actor_environment(env, prepared, Path("/run"), node_dir)["PATH"] == ":".join(path)


def test_contract_wins_over_helpers():
    """What the run's contract sets stands above the build's variables, and those above the launcher's."""
    prepared = Prepared(cwd=Path("/"), argv=("x",), extra_env={"VIRTUAL_ENV": "/venv", "LANG": "C", "HOME": "/h"})
    env = actor_environment({"LANG": "cs_CZ.UTF-8"}, prepared, Path("/run"), None)
    assert (env["VIRTUAL_ENV"], env["LANG"], env["HOME"], env["TMPDIR"]) == ("/venv", "cs_CZ.UTF-8", "/h", "/run/tmp")
