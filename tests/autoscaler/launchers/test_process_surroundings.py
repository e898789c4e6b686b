"""What an Actor that runs as a process finds around itself, and how the process launcher knows it again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator

import pytest
from launcher_builds import (
    PORTS,
    ScriptedBuilds,
    is_alive,
    start_in_a_first_life,
    start_run,
    until,
)

from autoscaler.launchers.base import Exited
from autoscaler.launchers.process import ProcessLauncher
from gateway.core.errors import LaunchError

SLEEPS = "import time; time.sleep(60)"


@pytest.fixture
def builds(tmp_path) -> ScriptedBuilds:
    return ScriptedBuilds(tmp_path)


@pytest.fixture
async def launcher(tmp_path, builds) -> AsyncIterator[ProcessLauncher]:
    """A launcher; whatever a test leaves running is ended."""
    async with ProcessLauncher(tmp_path / "root", builds, port_range=PORTS) as launcher:
        yield launcher
        for found in await launcher.list():
            await launcher.adopt(found.run_id, found.placement)
            await launcher.stop(found.run_id, grace_secs=0)
            await launcher.wait(found.run_id)


async def test_signals_are_not_ignored(launcher, builds, tmp_path):
    """An Actor finds no signal ignored; Python ignores SIGPIPE, and that would be inherited."""
    run = await start_run(launcher, builds.command("/bin/sh", "-c", "kill -PIPE $$"), tmp_path)
    assert await launcher.wait(run.id) == Exited(exit_code=141)


async def test_environment_is_exact(launcher, builds, tmp_path, monkeypatch):
    """The Actor sees its contract, PATH, HOME and the few variables any program needs: nothing of Greenroom's own."""
    monkeypatch.setenv("GREENROOM_TOKEN", "of Greenroom")
    run = await start_run(
        launcher,
        builds.script("import json, os; print(json.dumps(dict(os.environ)))"),
        tmp_path,
        env={"ACTOR_RUN_ID": "abc", "LANG": "cs_CZ.UTF-8", "ODD": "a=b\n \u017elu\u0165"},
    )
    await launcher.wait(run.id)
    env = json.loads("".join(run.log()))
    assert set(env) - {"LC_CTYPE"} == {
        *("ACTOR_RUN_ID", "LANG", "ODD"),
        *("PATH", "HOME", "TMPDIR", "PYTHONUNBUFFERED"),
    }
    assert (env["ACTOR_RUN_ID"], env["LANG"], env["ODD"]) == ("abc", "cs_CZ.UTF-8", "a=b\n \u017elu\u0165")
    assert env["HOME"] != os.environ.get("HOME")


async def test_surroundings(launcher, builds, tmp_path):
    """Own process group, nothing to read, no file of Greenroom's left open, HOME and TMPDIR to write to, no cores."""
    build = builds.script("""
        import json, os, resource, sys
        print(json.dumps({
            "stdin": sys.stdin.read(),
            "is_group_leader": os.getpgrp() == os.getpid(),
            "session": os.getsid(0),
            "descriptors": sorted(os.listdir("/proc/self/fd"), key=int)[:-1],
            "are_writable": [os.access(os.environ[name], os.W_OK) for name in ("HOME", "TMPDIR")],
            "core": resource.getrlimit(resource.RLIMIT_CORE),
        }))
    """)
    run = await start_run(launcher, build, tmp_path)
    await launcher.wait(run.id)
    seen = json.loads("".join(run.log()))
    assert seen.pop("session") != os.getsid(0)
    assert seen == {
        "stdin": "",
        "is_group_leader": True,
        "descriptors": ["0", "1", "2"],
        "are_writable": [True, True],
        "core": [0, 0],
    }


async def test_rest_of_the_group_may_finish_too(launcher, builds, tmp_path):
    """A shell that dies of SIGTERM at once doesn't take the time to finish from the server that it started."""
    (tmp_path / "server.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(.2), print('saved'), sys.exit()))\n"
        "print('up')\n"
        "time.sleep(60)\n"
    )
    build = builds.command("/bin/sh", "-c", f"{sys.executable} -I -S -u server.py; true")
    run = await start_run(launcher, build, tmp_path)
    await until(lambda: run.log() == ["up"])
    await launcher.stop(run.id, grace_secs=20)
    assert await launcher.wait(run.id) == Exited(exit_code=143)
    assert run.log() == ["up", "saved"]


async def test_start_prepares_what_is_not_ready(launcher, builds, tmp_path):
    """A build whose environment is missing is prepared by start; prepare tells its progress."""
    build = builds.script("raise SystemExit(2)", is_slow=True)
    assert (await launcher.wait((await start_run(launcher, build, tmp_path)).id)).exit_code == 2
    told: list[str] = []
    await launcher.prepare(build, told.append)
    assert told == ["preparing"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        pytest.param(("no-such-command-here",), "command not found: no-such-command-here", id="not in PATH"),
        pytest.param(("./missing.sh",), "command not found: ./missing.sh", id="no such file"),
        pytest.param(("./plain.sh",), "command not executable: ./plain.sh", id="not executable"),
        pytest.param(("./lost.sh",), "the interpreter named in its first line was not found", id="no interpreter"),
        pytest.param(("./data.bin",), "is not a program", id="not a program"),
        pytest.param(("sh", "-c", "x" * 4_000_000), "too large", id="too large"),
        pytest.param(("sh", "-c", "\0"), "null byte", id="NUL in an argument"),
    ],
)
async def test_command_that_cannot_be_executed(launcher, builds, tmp_path, argv, message):
    """start tells in words why the command could not be executed, and leaves nothing behind."""
    for name, mode, text in (
        ("plain.sh", 0o600, "#!/bin/sh"),
        ("lost.sh", 0o700, "#!/no/such/interpreter\n"),
        ("data.bin", 0o700, "data"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    with pytest.raises(LaunchError, match=re.escape(message)):
        await start_run(launcher, builds.command(*argv), tmp_path)
    assert await launcher.list() == []


async def test_missing_folder_is_told(launcher, builds, tmp_path):
    """An Actor folder that has gone is named."""
    with pytest.raises(LaunchError, match="folder can't be entered"):
        await start_run(launcher, builds.command("sh", "-c", "true", cwd=tmp_path / "gone"), tmp_path)


async def test_ports_are_reserved(launcher):
    """No two runs are placed at one port; one that an Actor insists on is told to be taken, with what to do."""
    placements = [await launcher.place(f"run{number}", None) for number in range(5)]
    ports = {placement.port for placement in placements}
    assert len(ports) == 5
    assert all(placement.address.port == placement.port for placement in placements)
    port = placements[0].port
    with pytest.raises(LaunchError, match=rf"port {port}, which is not free.*ACTOR_WEB_SERVER_PORT"):
        await launcher.place("other", port)
    await launcher.forget("run0")
    assert (await launcher.place("other", port)).port == port


@pytest.mark.parametrize("forged", ["shim_started", "boot_id"])
async def test_other_start_time_is_not_adopted(launcher, tmp_path, forged):
    """A process with the same pid that was started at another time, or in another boot, is not the run."""
    run = await start_in_a_first_life("process", tmp_path, SLEEPS)
    assert not await launcher.adopt(run.id, {**run.placement, forged: "1"})
    assert is_alive(run.placement["actor_pid"])


async def test_recycled_pid_is_not_adopted(launcher, tmp_path):
    """Where the run's pid belongs to a stranger by now, the run is not adopted, and the stranger left alone."""
    run = await start_in_a_first_life("process", tmp_path, SLEEPS)
    os.kill(run.placement["shim_pid"], signal.SIGKILL)
    await until(lambda: not is_alive(run.placement["actor_pid"]))
    stranger = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    assert not await launcher.adopt(run.id, {**run.placement, "shim_pid": stranger.pid})
    assert is_alive(stranger.pid)
    stranger.kill()
    await stranger.wait()
    assert [found.run_id for found in await launcher.list()] == []


async def test_lines_of_both_streams_have_one_order(launcher, builds, tmp_path):
    """stdout and stderr are one pipe, so the log has what the Actor said in the order in which it said it."""
    build = builds.script("""
        import sys
        for number in range(1000):
            print(number, file=(sys.stdout, sys.stderr)[number % 2], flush=True)
    """)
    run = await start_run(launcher, build, tmp_path)
    await launcher.wait(run.id)
    assert run.log() == [str(number) for number in range(1000)]


async def test_an_adopted_run_keeps_its_port(launcher, tmp_path):
    """Nobody who insists on it gets it."""
    run = await start_in_a_first_life("process", tmp_path, SLEEPS)
    assert await launcher.adopt(run.id, run.placement)
    with pytest.raises(LaunchError, match="not free"):
        await launcher.place("other", run.placement["port"])
