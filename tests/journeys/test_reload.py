"""``greenroom reload``: the worker is replaced under traffic, and nobody notices but by its new process."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest
from journeys.greenroom import Greenroom, actor_folder, eventually, holders_of, workers_of

from gateway.reload_status import read_status

pytestmark = pytest.mark.slow  # each starts servers of its own


def worker_of(greenroom: Greenroom) -> int:
    """The one worker, once there is exactly one."""
    assert greenroom.process is not None
    (worker,) = workers_of(greenroom.process.pid)
    return worker


async def one_worker(greenroom: Greenroom, *, but: int) -> int:
    """The worker, once it is the only one and another than *but*."""
    assert greenroom.process is not None
    pid = greenroom.process.pid

    def found() -> int | None:
        workers = workers_of(pid)
        return workers[0] if len(workers) == 1 and workers[0] != but else None

    return int(await eventually(found, within_secs=30, what="one worker, another one"))


async def test_no_request_fails_during_a_reload_and_the_gap_is_short(tmp_path: Path) -> None:
    """
    Requests on new connections, one each 10 ms, all end well; the longest pause between two answers is short. The run
    is the same, and one worker and one holder are left.
    """
    # However slow the machine: it is not the load that makes a second run.
    room = {"idleTimeoutSecs": 60, "desiredRequestsPerActorRun": 100, "maxRequestsPerActorRun": 100}
    folder = actor_folder(tmp_path / "actors", "probe", room)
    async with Greenroom(tmp_path / "data", (folder,)) as greenroom:
        before, run = worker_of(greenroom), (await greenroom.call("probe")).text
        problems: list[str] = []
        answered: list[float] = []
        is_over = asyncio.Event()

        async def ask() -> None:
            try:
                answer = await greenroom.call("probe")
            except httpx.TransportError as error:
                problems.append(repr(error))
                return
            answered.append(time.monotonic())
            if (answer.status_code, answer.text) != (200, run):
                problems.append(f"{answer.status_code} {answer.text}")

        async def keep_asking() -> None:
            async with asyncio.TaskGroup() as group:
                while not is_over.is_set():
                    group.create_task(ask())
                    await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as group:
            group.create_task(keep_asking())
            await eventually(lambda: len(answered) > 20)
            for _ in range(2):
                await greenroom.command("reload")
                before = await one_worker(greenroom, but=before)
            is_over.set()
        assert problems == []
        gap = max(later - earlier for earlier, later in itertools.pairwise(answered))
        print(f"longest pause between two of {len(answered)} answers: {gap:.3f} s")
        assert gap < 5  # some tenths on a quiet machine
        assert greenroom.process is not None
        assert len(holders_of(greenroom.process.pid)) == 1
        assert len(await greenroom.runs()) == 1


async def test_a_request_under_way_ends_well_and_keeps_its_run(tmp_path: Path) -> None:
    """
    It lasts longer than the idle timeout; the new worker, which has not seen it, leaves the run alone until then. And
    longer than Greenroom has to stop, which it does not.
    """
    folder, end = actor_folder(tmp_path / "actors", "probe", {"idleTimeoutSecs": 1}), tmp_path / "end"
    async with Greenroom(tmp_path / "data", (folder,), settings={"shutdown_timeout_secs": 1}) as greenroom:
        before = worker_of(greenroom)
        async with asyncio.TaskGroup() as group:
            slow = group.create_task(greenroom.call("probe", f"/until?file={end}"))
            await greenroom.serving({"id": "local~probe"}, 1)
            await greenroom.command("reload")
            await asyncio.sleep(3)  # the idle timeout, and a look of the new worker after it
            (run,) = await greenroom.runs()
            assert run["status"] == "RUNNING"
            end.touch()
        assert slow.result().status_code == 200
        assert slow.result().json()["runId"] == run["id"]
        await one_worker(greenroom, but=before)
        (ended,) = await greenroom.wait_until_no_run_lives()
        assert ended["status"] == "SUCCEEDED"


async def test_a_cold_request_is_served_over_a_reload(tmp_path: Path) -> None:
    """A request that waits for a run at that moment gets it, and it is started once."""
    main = "import time; time.sleep(1.5)\n" + (Path(__file__).parent.parent / "actors/probe/main.py").read_text()
    folder = actor_folder(tmp_path / "actors", "probe", {"idleTimeoutSecs": 60}, main=main)
    async with Greenroom(tmp_path / "data", (folder,)) as greenroom:
        async with asyncio.TaskGroup() as group:
            held = group.create_task(greenroom.call("probe"))
            await eventually(greenroom.runs, what="the run that it waits for")
            await greenroom.command("reload")
        (run,) = await greenroom.runs()
        assert held.result().text == f"hello from {run['id']}"


async def test_reload_takes_in_what_has_changed_in_the_folders(tmp_path: Path) -> None:
    """Changed files make a new build; what they break is told, and the old worker goes on."""
    folder = actor_folder(tmp_path / "actors", "probe", {"idleTimeoutSecs": 60})
    async with Greenroom(tmp_path / "data", (folder,)) as greenroom:
        before = worker_of(greenroom)
        definition = folder / ".actor" / "actor.json"
        good = definition.read_text()
        definition.write_text("{ broken")
        shown = await _refused_reload(greenroom)
        assert "the old worker goes on" in shown
        assert "actor.json" in shown
        assert worker_of(greenroom) == before
        assert (await greenroom.call("probe")).status_code == 200
        definition.write_text(json.dumps({**json.loads(good), "title": "changed"}))
        await greenroom.command("reload")
        await one_worker(greenroom, but=before)
        assert len((await greenroom.data_of("GET", "/actors/local~probe/builds"))["items"]) == 2


async def _refused_reload(greenroom: Greenroom) -> str:
    with pytest.raises(AssertionError) as told:  # of ``command``, which expects success
        await greenroom.command("reload")
    return str(told.value)


async def test_after_a_stop_no_process_is_left(tmp_path: Path) -> None:
    """Also where it was reloaded before, and while an old worker still has a request."""
    folder = actor_folder(tmp_path / "actors", "probe", {"idleTimeoutSecs": 60})
    async with Greenroom(tmp_path / "data", (folder,)) as greenroom:
        assert greenroom.process is not None
        async with asyncio.TaskGroup() as group:
            slow = group.create_task(greenroom.call("probe", "/slow?ms=4000"))
            await greenroom.serving({"id": "local~probe"}, 1)
            await greenroom.command("reload")
            family = psutil.Process(greenroom.process.pid).children(recursive=True)
            assert await greenroom.stop() == 0
        assert slow.result().status_code == 200
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []
        assert (tmp_path / "data" / "lock").read_text() == ""


async def test_a_stop_amid_a_reload_ends_all(tmp_path: Path) -> None:
    """The old worker waits to hand over, for a request whose run never begins: that run is ended, as by any stop."""
    folder = actor_folder(tmp_path / "actors", "probe", main="import time\ntime.sleep(600)\n")
    settings = {"readiness_timeout_secs": 300, "wind_down_grace_secs": 1}
    async with Greenroom(tmp_path / "data", (folder,), settings=settings) as greenroom:
        assert greenroom.process is not None
        async with asyncio.TaskGroup() as group:
            held = group.create_task(greenroom.call("probe"))
            await eventually(greenroom.runs, what="the run that it waits for")
            greenroom.process.send_signal(signal.SIGUSR1)
            await eventually(lambda: "hands over" in read_status(greenroom.data).step, within_secs=60)
            assert await greenroom.stop() == 0
        assert held.result().status_code == 503
    async with Greenroom(tmp_path / "data") as greenroom:
        (run,) = await greenroom.runs()
        assert run["status"] == "SUCCEEDED"  # it was wound down


async def test_what_an_old_worker_changes_the_new_one_hears(tmp_path: Path) -> None:
    """A call that the old worker still holds is answered when the new one ends the run; it waits for that alone."""
    main = "import os, time\nwhile not os.path.exists(os.environ['HOME'] + '/end'):\n    time.sleep(0.02)\n"
    folder = actor_folder(tmp_path / "actors", "waits", main=main, usesStandbyMode=False)
    async with Greenroom(tmp_path / "data", (folder,)) as greenroom:
        run = await greenroom.data_of("POST", "/actors/local~waits/runs")
        async with asyncio.TaskGroup() as group:
            held = group.create_task(greenroom.data_of("GET", f"/actor-runs/{run['id']}?waitForFinish=25"))
            await greenroom.command("reload")
            (greenroom.data / "process" / "runs" / run["id"] / "home" / "end").touch()
            started = time.monotonic()
        assert held.result()["status"] == "SUCCEEDED"
        assert time.monotonic() - started < 15
