"""The launcher port's promises, kept by every platform: as processes, and as containers of a real Docker engine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from launcher_builds import (
    Builds,
    ContainerBuilds,
    ScriptedBuilds,
    StartedRun,
    marked_processes,
    open_launcher,
    spec_of,
    start_in_a_first_life,
    start_run,
    until,
)

from autoscaler.launchers.base import Exited, Launcher
from gateway.core.errors import LaunchError

Start = Callable[..., Awaitable[StartedRun]]

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "docker":
        request.getfixturevalue("docker_host")
    return str(request.param)


@pytest.fixture
def builds(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Builds]:
    if kind == "process":
        yield ScriptedBuilds(tmp_path)
        return
    import docker_engine

    from gateway.installation import installation_of

    made = ContainerBuilds(tmp_path)
    yield made
    made.close()
    docker_engine.remove_all(request.getfixturevalue("docker_host"), installation_of(tmp_path).label)


@pytest.fixture
async def launcher(kind: str, tmp_path: Path, builds: Builds) -> AsyncIterator[Launcher]:
    """A launcher; whatever a test leaves running is ended."""
    async with open_launcher(kind, tmp_path, builds) as launcher:
        yield launcher
        for found in await launcher.list():
            await launcher.adopt(found.run_id, found.placement)
            await launcher.stop(found.run_id, grace_secs=0)
            await launcher.wait(found.run_id)
            await launcher.forget(found.run_id)


@pytest.fixture
def start(launcher: Launcher, builds: Builds, tmp_path: Path) -> Start:
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


async def test_the_program_begins_when_it_may(launcher, start):
    """*may_begin* is called once; not a line of the Actor's program runs before it has returned."""
    asked, may_return = asyncio.Event(), asyncio.Event()
    asked_times = 0
    log_path = None

    async def may_begin() -> None:
        nonlocal asked_times
        asked_times += 1
        asked.set()
        await may_return.wait()

    async with asyncio.TaskGroup() as tasks:
        starting = tasks.create_task(start("print('began')", may_begin=may_begin, run_id="TheRun"))
        await asked.wait()
        done, _ = await asyncio.wait([starting], timeout=0.2)
        assert not done
        assert [found for found in await launcher.list() if found.is_alive] == []
        may_return.set()
    run = starting.result()
    log_path = run.log_path
    await launcher.wait(run.id)
    assert (run.log(), log_path.exists(), asked_times) == (["began"], True, 1)


async def test_nothing_is_left_of_a_run_that_may_not_begin(launcher, start, tmp_path):
    """When *may_begin* fails its exception is raised, and whatever was prepared for the run is gone."""

    async def may_begin() -> None:
        raise KeyError("no record")

    with pytest.raises(KeyError):
        await start("print('began')", may_begin=may_begin, run_id="NeverBegun")
    await until(lambda: not marked_processes("NeverBegun"))
    assert not [found for found in await launcher.list() if found.is_alive]
    assert "began" not in "".join(path.read_text() for path in tmp_path.glob("*.log"))


async def test_log_is_stamped_and_complete(launcher, start):
    """Each line of stdout and stderr is there, each of the two in order, with its time; also a last one's rest."""
    run = await start("""
        import sys
        for number in range(3000):
            print(number, "x" * (number % 200), file=(sys.stdout, sys.stderr)[number % 2], flush=True)
        print("\\nwindows\\r\\n \\u017elu\\u0165ou\\u010dk\\u00fd", end="")
    """)
    await launcher.wait(run.id)
    text = run.log_path.read_text()
    assert text.endswith("\n")
    assert all(STAMP.match(line) for line in text.splitlines())
    lines = run.log()
    expected = [f"{number} {'x' * (number % 200)}" for number in range(3000)]
    numbered = [line for line in lines if re.match(r"\d+ x*$", line)]
    evens, odds = ([line for line in numbered if int(line.split()[0]) % 2 == rest] for rest in (0, 1))
    assert (evens, odds) == (expected[::2], expected[1::2])
    assert [line for line in lines if line not in set(expected)] == ["", "windows", " \u017elu\u0165ou\u010dk\u00fd"]


async def test_lines_have_the_order_of_their_times(launcher, start):
    """What goes to one stream stands in the log as it was said."""
    run = await start("for number in range(5000): print(number)")
    await launcher.wait(run.id)
    assert run.log() == [str(number) for number in range(5000)]
    stamps = [line[:24] for line in run.log_path.read_text().splitlines()]
    assert sorted(stamps) == stamps


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
        os.write(1, f"{name}\\n".encode())
        time.sleep(60)
        os._exit(0)
detached("daemon")
detached("own session")
if os.fork() == 0:
    os.write(1, b"child\\n")
    time.sleep(60)
wait_for_knock()
sys.exit(4)
"""


@pytest.mark.parametrize("how", ["ends by itself", "is killed"])
async def test_nothing_outlives_a_run(launcher, start, how):
    """When wait returns, the children are gone too, whatever they did to detach themselves; the exit code is main's."""
    run = await start(FAMILY)
    await until(lambda: {"daemon", "own session", "child", "listening"} <= set(run.log()))
    assert len(run.processes()) >= 4
    if how == "is killed":
        await launcher.stop(run.id, grace_secs=0)
    else:
        await run.knock()
    assert (await launcher.wait(run.id)).exit_code == (137 if how == "is killed" else 4)
    assert run.processes() == []


COUNTER = """
    import itertools, os, sys, time
    name = "child" if os.fork() == 0 else "main"
    if name == "child":
        os.setsid()
    for number in itertools.count(1):
        os.write(1, f"{name} {number}\\n".encode())
        time.sleep(.002)
"""


def counts(run: StartedRun) -> dict[str, int]:
    """The last number that each process of COUNTER has said."""
    return {name: int(number) for name, number in (line.split() for line in run.log())}


async def test_freeze_and_resume(launcher, start):
    """A frozen run stands still, all of its processes; resumed it goes on where it was."""
    run = await start(COUNTER)
    await until(lambda: len(counts(run)) == 2)
    await launcher.freeze(run.id)
    await asyncio.sleep(0.3)  # for what was said before to get into the log
    frozen = counts(run)
    await asyncio.sleep(0.3)
    assert counts(run) == frozen
    await launcher.resume(run.id)
    await until(lambda: all(counts(run)[name] > number for name, number in frozen.items()))


async def test_freeze_and_resume_at_once(launcher, start):
    """A resume right behind a freeze wins, however the kernel orders the two."""
    run = await start(COUNTER)
    await until(lambda: len(counts(run)) == 2)
    for _ in range(20):
        await launcher.freeze(run.id)
        await launcher.resume(run.id)
        count = counts(run)["main"]
        await until(lambda count=count: counts(run)["main"] > count + 2)


async def test_a_run_that_is_not_frozen_can_be_resumed(launcher, start):
    """After a restart nobody knows which runs stand still, so all of them are told to go on."""
    run = await start(COUNTER)
    await until(lambda: len(counts(run)) == 2)
    await launcher.resume(run.id)
    before = counts(run)
    await until(lambda: all(counts(run)[name] > number for name, number in before.items()))


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


async def test_frozen_run_can_be_killed(launcher, start):
    """A frozen run does not hold up its end."""
    run = await start("import time; print('up'); time.sleep(60)")
    await until(lambda: run.log() == ["up"])
    await launcher.freeze(run.id)
    await launcher.stop(run.id, grace_secs=0)
    async with asyncio.timeout(10):
        assert await launcher.wait(run.id) == Exited(exit_code=137)


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
    build = builds.script("wait_for_knock()\nraise SystemExit(6)")
    run = await start_run(launcher, build, tmp_path)
    spec = await spec_of(launcher, build, tmp_path, run_id=run.id)
    with pytest.raises(LaunchError, match="running already"):
        await launcher.start(spec)
    await run.knock()
    await launcher.wait(run.id)
    again = StartedRun(id=run.id, log_path=run.log_path, placement=await launcher.start(spec))
    assert again.placement != run.placement
    await until(lambda: again.log() == ["listening", "listening"])
    await again.knock()
    assert await launcher.wait(run.id) == Exited(exit_code=6)
    assert [found.run_id for found in await launcher.list()] == [run.id]


async def test_burst_of_starts(launcher, builds, tmp_path):
    """Twenty starts at once are twenty runs, each with its own address and exit code."""
    scripts = [builds.script(f"raise SystemExit({number})") for number in range(20)]
    runs = await asyncio.gather(*(start_run(launcher, build, tmp_path) for build in scripts))
    ends = await asyncio.gather(*(launcher.wait(run.id) for run in runs))
    assert [end.exit_code for end in ends] == list(range(20))
    assert len({(run.placement["host"], run.placement["port"]) for run in runs}) == 20


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
    assert usages[run.id].processes - usages[idle.id].processes == 1


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
    await launcher.start(await spec_of(launcher, build, tmp_path, run_id=run.id))
    await until(lambda: run.log() == ["up", "up"])
    assert (await launcher.usage())[run.id].life != first.life


# --- A second life --------------------------------------------------------------------------------------------------

WAITS_FOR_KNOCK = """
    import itertools, os, threading, time
    def count():
        for number in itertools.count():
            os.write(1, f"{number}\\n".encode())
            time.sleep(.01)
    threading.Thread(target=count, daemon=True).start()
    wait_for_knock()
    os.write(1, b"went\\n")
    os._exit(9)
"""


def numbers(run: StartedRun) -> list[int]:
    return [int(line) for line in run.log() if line.isdigit()]


async def test_living_run_is_adopted(kind, launcher, tmp_path):
    """After kill -9 of Greenroom a run lives on and logs on; adopted, its wait tells the real exit code."""
    run = await start_in_a_first_life(kind, tmp_path, WAITS_FOR_KNOCK)
    await asyncio.sleep(0.2)  # in which nobody looks after it
    assert [(found.run_id, found.is_alive) for found in await launcher.list()] == [(run.id, True)]
    assert await launcher.adopt(run.id, run.placement)
    seen = len(numbers(run))
    await until(lambda: len(numbers(run)) > seen + 5)
    await run.knock()
    assert await launcher.wait(run.id) == Exited(exit_code=9)
    assert numbers(run) == [*range(len(numbers(run)))]
    assert (run.log().count("listening"), run.log().count("went")) == (1, 1)


async def test_adopted_run_can_be_stopped(kind, launcher, tmp_path):
    """stop works on an adopted run, and nobody else gets its address."""
    run = await start_in_a_first_life(kind, tmp_path, WAITS_FOR_KNOCK)
    (found,) = await launcher.list()
    assert found.placement == run.placement
    assert await launcher.adopt(run.id, found.placement)
    others = [await launcher.place(f"other{number}", None) for number in range(3)]
    assert (run.placement["host"], run.placement["port"]) not in {(one.address.host, one.port) for one in others}
    await launcher.stop(run.id, grace_secs=10)
    assert await launcher.wait(run.id) == Exited(exit_code=143)


async def test_run_that_ended_meanwhile_is_adopted(kind, launcher, tmp_path):
    """A run that ended while Greenroom was down gives its real exit code and its whole log, by its id alone."""
    run = await start_in_a_first_life(kind, tmp_path, "wait_for_knock()\nprint('went')\nraise SystemExit(9)")
    await run.knock()
    await until(lambda: not run.processes())
    await until_listed(launcher, [(run.id, False)])
    assert await launcher.adopt(run.id, {})
    assert await launcher.wait(run.id) == Exited(exit_code=9)
    assert run.log() == ["listening", "went"]
    await launcher.forget(run.id)
    assert not await launcher.adopt(run.id, run.placement)


async def until_listed(launcher: Launcher, expected: list[tuple[str, bool]]) -> None:
    """Until the launcher lists just these runs, alive or not."""
    async with asyncio.timeout(10):
        while [(found.run_id, found.is_alive) for found in await launcher.list()] != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_unknown_run_is_not_adopted(launcher):
    """Of a run without a trace nothing is taken up."""
    assert not await launcher.adopt("NeverSeen", {})
