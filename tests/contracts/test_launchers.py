"""The launcher port's promises, kept by every platform."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from launcher_builds import PORTS, ScriptedBuilds, StartedRun, is_alive, start_run, until

from autoscaler.launchers.base import Exited, Launcher, LaunchSpec
from autoscaler.launchers.process import ProcessLauncher
from gateway.core.errors import LaunchError

Start = Callable[..., Awaitable[StartedRun]]

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")


@asynccontextmanager
async def open_launcher(kind: str, root: Path, builds: ScriptedBuilds) -> AsyncIterator[Launcher]:
    assert kind == "process"
    async with ProcessLauncher(root, builds, port_range=PORTS) as launcher:
        yield launcher


@pytest.fixture(params=["process"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def builds(tmp_path) -> ScriptedBuilds:
    return ScriptedBuilds(tmp_path)


@pytest.fixture
async def launcher(kind, tmp_path, builds) -> AsyncIterator[Launcher]:
    """A launcher; whatever a test leaves running is ended."""
    async with open_launcher(kind, tmp_path / "root", builds) as launcher:
        yield launcher
        for found in await launcher.list():
            await launcher.adopt(found.run_id, found.placement)
            await launcher.stop(found.run_id, grace_secs=0)
            await launcher.wait(found.run_id)
            await launcher.forget(found.run_id)


@pytest.fixture
def start(launcher, builds, tmp_path) -> Start:
    """Start a script as a run."""

    async def start(source: str, **options: Any) -> StartedRun:
        return await start_run(launcher, builds.script(source), tmp_path, **options)

    return start


@pytest.mark.parametrize(
    ("source", "exit_code"),
    [
        pytest.param("", 0, id="ends at once"),
        pytest.param("raise SystemExit(3)", 3, id="own code"),
        pytest.param("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137, id="SIGKILL"),
        pytest.param("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 139, id="SIGSEGV"),
        pytest.param("import os, signal; os.kill(os.getpid(), signal.SIGHUP)", 129, id="SIGHUP is not ignored"),
    ],
)
async def test_exit_code(launcher, start, source, exit_code):
    """wait tells the main process's real exit code, 128 + n for signal n, and may be asked again."""
    run = await start(source)
    assert await launcher.wait(run.id) == Exited(exit_code=exit_code)
    assert await launcher.wait(run.id) == Exited(exit_code=exit_code)


async def test_the_program_begins_when_it_may(start, tmp_path):
    """*may_begin* is called once; not a line of the Actor's program runs before it has returned."""
    began = tmp_path / "began"
    asked, may_return = asyncio.Event(), asyncio.Event()
    asked_times = 0

    async def may_begin() -> None:
        nonlocal asked_times
        asked_times += 1
        asked.set()
        await may_return.wait()

    async with asyncio.TaskGroup() as tasks:
        starting = tasks.create_task(start(f"open({str(began)!r}, 'w')", may_begin=may_begin))
        await asked.wait()
        done, _ = await asyncio.wait([starting], timeout=0.2)
        assert not done
        assert not began.exists()
        may_return.set()
    await until(began.exists)
    assert asked_times == 1


async def test_nothing_is_left_of_a_run_that_may_not_begin(launcher, start, tmp_path):
    """When *may_begin* fails its exception is raised, and the process that waited for it is gone."""
    began = tmp_path / "began"

    async def may_begin() -> None:
        raise KeyError("no record")

    before = _shims()
    with pytest.raises(KeyError):
        await start(f"open({str(began)!r}, 'w')", may_begin=may_begin)
    await until(lambda: len(_shims()) <= max(1, len(before)))
    assert not began.exists()
    assert not [found for found in await launcher.list() if found.is_alive]


def _shims() -> list[str]:
    """The processes that are still called as shims are: waiting shims, and what they forked and did not exec."""
    names = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            names.append(path.read_text().strip())
    return [name for name in names if name == "greenroom-shim"]


async def test_signals_are_not_ignored(launcher, builds, tmp_path):
    """An Actor finds no signal ignored; Python ignores SIGPIPE, and that would be inherited."""
    run = await start_run(launcher, builds.command("/bin/sh", "-c", "kill -PIPE $$"), tmp_path)
    assert await launcher.wait(run.id) == Exited(exit_code=141)


async def test_environment_is_exact(launcher, start, monkeypatch):
    """The Actor sees its contract, PATH, HOME and the few variables any program needs: nothing of Greenroom's own."""
    monkeypatch.setenv("GREENROOM_TOKEN", "of Greenroom")
    run = await start(
        "import json, os; print(json.dumps(dict(os.environ)))",
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


async def test_surroundings(launcher, start):
    """Own process group, nothing to read, no file of Greenroom's left open, HOME and TMPDIR to write to, no cores."""
    run = await start("""
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


async def test_log_is_stamped_and_complete(launcher, start):
    """Each line of stdout and stderr is there, in order, with its time; also the last one without its newline."""
    run = await start("""
        import sys
        for number in range(3000):
            print(number, "x" * (number % 200), file=(sys.stdout, sys.stderr)[number % 2], flush=True)
        print("\\nwindows\\r\\n \\u017elu\\u0165ou\\u010dk\\u00fd", end="")
    """)
    await launcher.wait(run.id)
    text = run.log_path.read_text()
    assert text.endswith("\n")
    stamps = [STAMP.match(line) for line in text.splitlines()]
    assert all(stamps)
    assert sorted(stamp[0] for stamp in stamps) == [stamp[0] for stamp in stamps]
    lines = run.log()
    assert lines[:3000] == [f"{number} {'x' * (number % 200)}" for number in range(3000)]
    assert lines[3000:] == ["", "windows", " \u017elu\u0165ou\u010dk\u00fd"]


async def test_very_long_line_becomes_several(launcher, start):
    """A line of 1 MB is cut into lines of at most 64 KiB, between characters, and nothing of it is lost."""
    run = await start("print('\\u017e' * 500_000 + 'end')")
    await launcher.wait(run.id)
    assert "".join(run.log()) == "\u017e" * 500_000 + "end"
    assert max(len(line.encode()) for line in run.log()) <= 64 * 1024


async def test_log_limit(launcher, start):
    """Beyond max_log_chars the log says so in one line and takes no more; the Actor goes on."""
    run = await start("for number in range(10_000): print(number)\nraise SystemExit(5)", max_log_chars=2000)
    assert await launcher.wait(run.id) == Exited(exit_code=5)
    *kept, notice = run.log()
    assert kept == [str(number) for number in range(len(kept))]
    assert 1900 < len(run.log_path.read_text()) - 25 - len(notice) - 1 <= 2000
    assert "2000 characters" in notice


async def test_stop_lets_the_actor_finish(launcher, start):
    """stop is a SIGTERM, and an Actor that ends by it in its own way keeps its own exit code."""
    run = await start("""
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("bye"), sys.exit(7)))
        print("up")
        time.sleep(60)
    """)
    await until(lambda: run.log() == ["up"])
    await launcher.stop(run.id, grace_secs=30)
    assert await launcher.wait(run.id) == Exited(exit_code=7)
    assert run.log() == ["up", "bye"]


@pytest.mark.parametrize("grace_secs", [0, 0.2], ids=["at once", "after the grace"])
async def test_stop_kills_in_the_end(launcher, start, grace_secs):
    """What ignores SIGTERM is killed when its grace is over; 0 waits for nothing. Stopping it again is fine."""
    run = await start("""
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("up")
        while True: time.sleep(60)
    """)
    await until(lambda: run.log() == ["up"])
    async with asyncio.timeout(10):
        await launcher.stop(run.id, grace_secs=grace_secs)
        assert await launcher.wait(run.id) == Exited(exit_code=137)
        await launcher.stop(run.id, grace_secs=grace_secs)


async def test_a_shorter_stop_wins(launcher, start):
    """A second stop with less grace, or none, is what counts."""
    run = await start("import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(60)")
    await until(lambda: run.log() == ["up"])
    async with asyncio.timeout(10):
        await launcher.stop(run.id, grace_secs=60)
        await launcher.stop(run.id, grace_secs=0)
        assert await launcher.wait(run.id) == Exited(exit_code=137)


FAMILY = """
    import os, sys, time
    def detached(name):
        if os.fork() == 0:
            os.setsid()
            if name == "daemon" and os.fork():
                os._exit(0)
            os.write(1, f"{name} {os.getpid()}\\n".encode())
            time.sleep(60)
            os._exit(0)
    detached("daemon")
    detached("own session")
    if os.fork() == 0:
        os.write(1, f"child {os.getpid()}\\n".encode())
        time.sleep(60)
"""


def family(run: StartedRun) -> list[int]:
    return [int(line.split()[-1]) for line in run.log() if line.startswith(("daemon", "own session", "child"))]


@pytest.mark.parametrize("how", ["ends by itself", "is killed"])
async def test_nothing_outlives_a_run(launcher, start, how, tmp_path):
    """When wait returns, the children are gone too, whatever they did to detach themselves; the exit code is main's."""
    go = tmp_path / "go"
    run = await start(f"{textwrap.dedent(FAMILY)}\nwhile not os.path.exists({str(go)!r}): time.sleep(.01)\nsys.exit(4)")
    await until(lambda: len(family(run)) == 3)
    pids = family(run)
    assert all(map(is_alive, pids))
    if how == "is killed":
        await launcher.stop(run.id, grace_secs=0)
    else:
        go.touch()
    assert (await launcher.wait(run.id)).exit_code == (137 if how == "is killed" else 4)
    assert not any(map(is_alive, pids))


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


COUNTER = """
    import itertools, os, sys, time
    if os.fork() == 0:
        os.setsid()
    path = f"{sys.argv[0]}.{'main' if os.getsid(0) != os.getpid() else 'child'}"
    for number in itertools.count(1):
        with open(path + ".new", "w") as file:
            file.write(str(number))
        os.rename(path + ".new", path)
        time.sleep(.002)
"""


async def test_freeze_and_resume(launcher, builds, tmp_path):
    """A frozen run stands still, all of its processes; resumed it goes on where it was."""
    run = await start_run(launcher, builds.script(COUNTER), tmp_path)

    def counts() -> list[int]:
        return [int(path.read_text()) for path in sorted(tmp_path.glob("*.py.*")) if path.suffix != ".new"]

    await until(lambda: len(counts()) == 2)
    await launcher.freeze(run.id)
    pid = run.placement["actor_pid"]
    await until(lambda: Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "T")
    await asyncio.sleep(0.1)  # for the child in its own session, which is stopped one look later
    frozen = counts()
    await asyncio.sleep(0.2)
    assert counts() == frozen
    await launcher.resume(run.id)
    await until(lambda: all(now > then for now, then in zip(counts(), frozen, strict=True)))


async def test_freeze_and_resume_at_once(launcher, builds, tmp_path):
    """A resume right behind a freeze wins, however the kernel orders the two."""
    run = await start_run(launcher, builds.script(COUNTER), tmp_path)
    path = tmp_path / f"{next(tmp_path.glob('*.py')).name}.main"
    await until(path.exists)
    for _ in range(20):
        await launcher.freeze(run.id)
        await launcher.resume(run.id)
        count = int(path.read_text())
        await until(lambda count=count: int(path.read_text()) > count + 2)


async def test_frozen_run_can_be_stopped(launcher, start):
    """SIGTERM wakes a frozen run, so that it can end in its own way."""
    run = await start("""
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        print("up")
        time.sleep(60)
    """)
    await until(lambda: run.log() == ["up"])
    await launcher.freeze(run.id)
    await launcher.stop(run.id, grace_secs=30)
    async with asyncio.timeout(10):
        assert await launcher.wait(run.id) == Exited(exit_code=7)


async def test_list_and_forget(launcher, start):
    """A run is listed alive, then ended, and after forget not at all; one that lives can't be forgotten."""
    run = await start("import time; time.sleep(60)")
    assert [(found.run_id, found.is_alive) for found in await launcher.list()] == [(run.id, True)]
    with pytest.raises(LaunchError, match="still running"):
        await launcher.forget(run.id)
    await launcher.stop(run.id, grace_secs=0)
    await launcher.wait(run.id)
    (found,) = await launcher.list()
    assert (found.run_id, found.is_alive, dict(found.placement)) == (run.id, False, dict(run.placement))
    await launcher.forget(run.id)
    assert await launcher.list() == []
    with pytest.raises(LaunchError, match="knows no run"):
        await launcher.wait(run.id)


async def test_a_run_starts_again_under_its_id(launcher, builds, tmp_path):
    """An ended run may be started again; a living one may not."""
    go = tmp_path / "go"
    build = builds.script(
        f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(.01)\nraise SystemExit(6)"
    )
    run = await start_run(launcher, build, tmp_path)
    spec = LaunchSpec(
        run_id=run.id,
        build=build,
        env={},
        placement=await launcher.place(run.id, None),
        memory_mbytes=128,
        log_path=run.log_path,
        max_log_chars=1000,
    )
    with pytest.raises(LaunchError, match="running already"):
        await launcher.start(spec)
    go.touch()
    await launcher.wait(run.id)
    assert await launcher.start(spec) != run.placement
    assert await launcher.wait(run.id) == Exited(exit_code=6)


async def test_burst_of_starts(launcher, builds, tmp_path):
    """Twenty starts at once are twenty runs, each with its own port and exit code."""
    scripts = [builds.script(f"raise SystemExit({number})") for number in range(20)]
    runs = await asyncio.gather(*(start_run(launcher, build, tmp_path) for build in scripts))
    ends = await asyncio.gather(*(launcher.wait(run.id) for run in runs))
    assert [end.exit_code for end in ends] == list(range(20))
    assert len({run.placement["port"] for run in runs}) == 20


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


# A little more than what must be seen of it: the kernel tells whole ticks of 10 ms, of user and of system time, for
# each process that lives.
USES_CPU = """
    import os, sys, time
    def burn(secs):
        until = time.process_time() + secs
        while time.process_time() < until: pass
    if os.fork() == 0:
        burn(.43)
        os._exit(0)
    os.wait()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        block = bytearray(50_000_000)
        block[::1000] = b"x" * 50_000
        burn(.33)
        os.write(1, b"burnt\\n")
        time.sleep(60)
    os.wait()
    time.sleep(60)
"""


async def test_usage_is_of_the_whole_process_tree(launcher, start):
    """CPU of children that have ended, or have detached themselves, counts; and the memory that is in use."""
    idle = await start("import time; print('up'); time.sleep(60)")
    run = await start(USES_CPU)
    await until(lambda: run.log() == ["burnt"] and idle.log() == ["up"])
    usages = await launcher.usage()
    assert set(usages) == {idle.id, run.id}
    assert 0.7 <= usages[run.id].cpu_secs < 1.2
    assert usages[idle.id].cpu_secs < 0.4
    assert 50_000_000 <= usages[run.id].memory_bytes < 100_000_000
    assert 0 < usages[idle.id].memory_bytes < 20_000_000
    assert (usages[run.id].processes, usages[idle.id].processes) == (2, 1)


async def test_what_ended_processes_have_used_stays_in_the_sum(launcher, start):
    """
    Children come and go, and one look may miss what ends at that moment, but no more; of a run that has ended nothing
    is told.
    """
    run = await start("""
        import os, time
        for number in range(15):
            if os.fork() == 0:
                until = time.process_time() + .035
                while time.process_time() < until: pass
                os._exit(0)
            os.wait()
        print("done")
        time.sleep(60)
    """)
    seen = []
    while run.log() != ["done"]:
        seen.append((await launcher.usage())[run.id].cpu_secs)
    assert all(later > earlier - 0.1 for earlier, later in pairwise(seen))
    assert (await launcher.usage())[run.id].cpu_secs >= 0.45
    await launcher.stop(run.id, grace_secs=0)
    await launcher.wait(run.id)
    assert await launcher.usage() == {}


async def test_usage_begins_anew_with_another_start(launcher, builds, tmp_path):
    """The same run started again is another life, and its log goes on in the same file."""
    build = builds.script("import time; print('up'); time.sleep(60)")
    run = await start_run(launcher, build, tmp_path)
    await until(lambda: run.log() == ["up"])
    first = (await launcher.usage())[run.id]
    await launcher.stop(run.id, grace_secs=0)
    assert await launcher.wait(run.id) == Exited(exit_code=137)
    await launcher.forget(run.id)
    spec = LaunchSpec(
        run_id=run.id,
        build=build,
        env={},
        placement=await launcher.place(run.id, None),
        memory_mbytes=128,
        log_path=run.log_path,
        max_log_chars=1000,
    )
    await launcher.start(spec)
    await until(lambda: run.log() == ["up", "up"])
    assert (await launcher.usage())[run.id].life != first.life


# --- A second life --------------------------------------------------------------------------------------------------

FIRST_LIFE = """
import asyncio, json, sys
from pathlib import Path
from launcher_builds import ScriptedBuilds, start_run
from test_launchers import open_launcher

async def main(kind, folder, source):
    builds = ScriptedBuilds(folder)
    async with open_launcher(kind, folder / "root", builds) as launcher:
        run = await start_run(launcher, builds.script(source), folder)
        print(json.dumps({"id": run.id, "log_path": str(run.log_path), "placement": dict(run.placement),
                          "helper": getattr(launcher, "_fork_server").pid}), flush=True)
        await asyncio.Event().wait()

asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
"""


async def start_in_a_first_life(kind: str, folder: Path, source: str) -> StartedRun:
    """Start a run from a process that is then killed by SIGKILL, with all its helpers."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    first = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FIRST_LIFE, kind, str(folder), textwrap.dedent(source)),
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
        os.kill(helper, signal.SIGKILL)
    return StartedRun(id=told["id"], log_path=Path(told["log_path"]), placement=told["placement"])


WAITS_FOR_GO = """
    import os, sys, time
    go = os.path.dirname(sys.argv[0]) + "/go"
    number = 0
    while not os.path.exists(go):
        print(number)
        number += 1
        time.sleep(.01)
    print("went")
    sys.exit(9)
"""


async def test_living_run_is_adopted(kind, launcher, tmp_path):
    """After kill -9 of Greenroom a run lives on and logs on; adopted, its wait tells the real exit code."""
    run = await start_in_a_first_life(kind, tmp_path, WAITS_FOR_GO)
    seen = len(run.log())
    await until(lambda: len(run.log()) > seen + 5)
    assert [(found.run_id, found.is_alive) for found in await launcher.list()] == [(run.id, True)]
    assert await launcher.adopt(run.id, run.placement)
    (tmp_path / "go").touch()
    assert await launcher.wait(run.id) == Exited(exit_code=9)
    assert run.log() == [*map(str, range(len(run.log()) - 1)), "went"]


async def test_adopted_run_can_be_stopped_and_keeps_its_port(kind, launcher, tmp_path):
    """stop works on an adopted run, and nobody else gets its port."""
    run = await start_in_a_first_life(kind, tmp_path, WAITS_FOR_GO)
    (found,) = await launcher.list()
    assert found.placement == run.placement
    assert await launcher.adopt(run.id, found.placement)
    with pytest.raises(LaunchError, match="not free"):
        await launcher.place("other", run.placement["port"])
    await launcher.stop(run.id, grace_secs=10)
    assert await launcher.wait(run.id) == Exited(exit_code=143)


async def test_run_that_ended_meanwhile_is_adopted(kind, launcher, tmp_path):
    """A run that ended while Greenroom was down gives its real exit code, also where only its id is known."""
    run = await start_in_a_first_life(kind, tmp_path, WAITS_FOR_GO)
    (tmp_path / "go").touch()
    await until(lambda: not is_alive(run.placement["shim_pid"]))
    assert [(found.run_id, found.is_alive) for found in await launcher.list()] == [(run.id, False)]
    assert await launcher.adopt(run.id, {})
    assert await launcher.wait(run.id) == Exited(exit_code=9)
    await launcher.forget(run.id)
    assert not await launcher.adopt(run.id, run.placement)


@pytest.mark.parametrize("forged", ["shim_started", "boot_id"])
async def test_other_start_time_is_not_adopted(kind, launcher, tmp_path, forged):
    """A process with the same pid that was started at another time, or in another boot, is not the run."""
    run = await start_in_a_first_life(kind, tmp_path, WAITS_FOR_GO)
    assert not await launcher.adopt(run.id, {**run.placement, forged: "1"})
    assert is_alive(run.placement["actor_pid"])


async def test_recycled_pid_is_not_adopted(kind, launcher, tmp_path):
    """Where the run's pid belongs to a stranger by now, the run is not adopted, and the stranger left alone."""
    run = await start_in_a_first_life(kind, tmp_path, WAITS_FOR_GO)
    os.kill(run.placement["shim_pid"], signal.SIGKILL)
    await until(lambda: not is_alive(run.placement["actor_pid"]))
    stranger = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    assert not await launcher.adopt(run.id, {**run.placement, "shim_pid": stranger.pid})
    assert is_alive(stranger.pid)
    stranger.kill()
    await stranger.wait()
    assert [found.run_id for found in await launcher.list()] == []


async def test_unknown_run_is_not_adopted(launcher):
    """Of a run without a trace nothing is taken up."""
    assert not await launcher.adopt("NeverSeen", {})
