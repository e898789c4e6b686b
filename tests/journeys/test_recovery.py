"""After ``kill -9`` a new start on the same data loses nothing, adopts what lives, and tells the truth of the rest."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from journeys.greenroom import Greenroom, actor_folder, eventually, workers_of

pytestmark = pytest.mark.slow


async def test_kill_9_and_a_new_start_adopts_the_runs_that_live(tmp_path: Path) -> None:
    """The Actor's process goes on through the crash; afterwards it serves the same host and is wound down when idle."""
    folder = actor_folder(tmp_path / "actors", "probe", {"idleTimeoutSecs": 60})
    greenroom = Greenroom(tmp_path / "data", (folder,))
    async with greenroom:
        before = (await greenroom.call("probe")).text
        await greenroom.kill()
    async with Greenroom(tmp_path / "data", port=greenroom.port) as again:
        assert (await again.call("probe")).text == before
        (run,) = await again.runs()

        async def is_running() -> bool:
            return (await again.run(run["id"]))["status"] == "RUNNING"

        await eventually(is_running, what="the record, which follows the answer")
        await again.data_of("PUT", f"/actors/{run['actId']}", json={"actorStandby": {"idleTimeoutSecs": 1}})
        (ended,) = await again.wait_until_no_run_lives()
        assert (ended["id"], ended["status"]) == (run["id"], "SUCCEEDED")
        assert (await again.log_of(run["id"])).count("probe starts") == 1


async def test_what_ended_meanwhile_gets_its_real_exit_code(tmp_path: Path) -> None:
    """A run that died while Greenroom was down ends with the code that it really had; one that was lost says so."""
    folder = actor_folder(tmp_path / "actors", "probe", {"idleTimeoutSecs": 60, "maxRequestsPerActorRun": 3})
    async with Greenroom(tmp_path / "data", (folder,)) as greenroom:
        first = (await greenroom.call("probe", "/env")).json()["env"]
        await greenroom.kill()
    os.kill(_pid_listening_on(int(first["ACTOR_WEB_SERVER_PORT"])), signal.SIGSEGV)
    exit_file = tmp_path / "data" / "process" / "runs" / first["ACTOR_RUN_ID"] / "exit.json"
    await eventually(exit_file.exists, what="the shim's record of the exit")
    async with Greenroom(tmp_path / "data") as again:
        (run,) = await again.wait_until_no_run_lives()
        assert (run["id"], run["status"]) == (first["ACTOR_RUN_ID"], "FAILED")
        whole = await again.data_of("GET", f"/actor-runs/{run['id']}")
        assert whole["exitCode"] == 128 + signal.SIGSEGV
        assert not exit_file.exists()
        assert (await again.call("probe")).text != f"hello from {run['id']}"


@pytest.mark.slow
async def test_a_crash_of_the_worker_alone_is_mended_by_the_parent(tmp_path: Path) -> None:
    """The parent holds the sockets and starts another worker; the Actor's run goes on serving."""
    folder = actor_folder(tmp_path / "actors", "probe", {"idleTimeoutSecs": 60})
    async with Greenroom(tmp_path / "data", (folder,)) as greenroom:
        before = (await greenroom.call("probe")).text
        assert greenroom.process is not None
        (worker,) = workers_of(greenroom.process.pid)
        os.kill(worker, signal.SIGKILL)
        await eventually(lambda: "the new worker serves" in greenroom.log, within_secs=20)
        assert (await greenroom.call("probe")).text == before


@pytest.mark.slow
async def test_every_acknowledged_write_is_there_after_kill_9(tmp_path: Path) -> None:
    """Actors, versions and users that were answered before the kill are there after it."""
    async with Greenroom(tmp_path / "data") as greenroom:
        await greenroom.user("somebody")
        made = [
            (await greenroom.data_of("POST", "/actors", json={"name": f"actor-{number}"}))["id"] for number in range(20)
        ]
        await greenroom.kill()
    async with Greenroom(tmp_path / "data") as again:
        listed = await again.data_of("GET", "/actors?my=1")
        assert [actor["id"] for actor in listed["items"]] == made
        assert "somebody" in await again.command("user", "list")


def _pid_listening_on(port: int) -> int:
    """The process that has the listening socket of *port*, by the kernel's own tables."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inode = next(line[9] for line in lines if line[3] == "0A" and int(line[1].rpartition(":")[2], 16) == port)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(link.readlink()) == f"socket:[{inode}]" for link in (folder / "fd").iterdir()):
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError(f"nobody listens on {port}")


async def test_what_a_kill_left_half_done_is_tidied_up(tmp_path: Path) -> None:
    """The log of an ended run that was not moved yet, that of a run without a record, a folder without a run."""
    data = tmp_path / "data"
    folder = actor_folder(tmp_path / "actors", "probe")
    async with Greenroom(data, (folder,)) as greenroom:
        await greenroom.call("probe", "/die?code=0")
        (run,) = await greenroom.wait_until_no_run_lives()
        await greenroom.stop()
    live = data / "live" / "logs"
    (live / f"{run['id']}.log").write_text("2026-01-02T03:04:05.678Z not moved yet\n")
    (live / "RunWithoutARecord.log").write_text("2026-01-02T03:04:05.678Z never on record\n")
    (data / "process" / "runs" / "RunWithoutARecord" / "home").mkdir(parents=True)
    async with Greenroom(data) as again:
        assert await again.log_of(run["id"]) == "2026-01-02T03:04:05.678Z not moved yet\n"
        assert list(live.iterdir()) == list((data / "process" / "runs").iterdir()) == []
