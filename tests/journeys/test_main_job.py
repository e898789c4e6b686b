"""The main job, end to end: a sleeping Actor answers at its own URL, stays warm, and is wound down when idle."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from journeys.greenroom import Greenroom, actor_folder, eventually


async def test_a_sleeping_actor_answers_serves_on_and_is_wound_down(tmp_path: Path) -> None:
    """Nothing runs; a request starts a run and is answered by it; the next use the same; idle, it ends SUCCEEDED."""
    folder = actor_folder(tmp_path / "actors", "probe", {"idleTimeoutSecs": 1})
    async with Greenroom(tmp_path / "data", (folder,)) as greenroom:
        assert await greenroom.runs() == []
        cold = await greenroom.call("probe")
        assert cold.status_code == 200
        run_id = cold.text.removeprefix("hello from ")
        assert re.fullmatch(r"[A-Za-z0-9]{17}", run_id)
        assert re.fullmatch(
            r"held;dur=[\d.]+, start;dur=[\d.]+, ready;dur=[\d.]+, forward;dur=[\d.]+", cold.headers["server-timing"]
        )
        warm = await greenroom.call("probe")
        assert warm.text == cold.text
        assert "server-timing" not in warm.headers  # nothing happened to it that its caller would have to be told
        assert re.fullmatch(r"[0-9a-f]{24}", warm.headers["x-actor-request-id"])
        assert warm.headers["x-actor-request-id"] != cold.headers["x-actor-request-id"]

        async def is_running() -> bool:
            return (await greenroom.run(run_id))["status"] == "RUNNING"

        await eventually(is_running, what="the record, which follows the first answer")
        run = await greenroom.run(run_id)
        assert run["meta"]["origin"] == "STANDBY"
        assert run["isContainerServerReady"] is True
        (run,) = await greenroom.wait_until_no_run_lives()
        assert (run["id"], run["status"]) == (run_id, "SUCCEEDED")
        log = await greenroom.log_of(run_id)
        assert re.search(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z probe starts$", log, re.MULTILINE), log
        assert "idle for 1 s" in log
        again = await greenroom.call("probe")
        assert again.status_code == 200
        assert again.text != cold.text


async def test_fifty_callers_at_once_on_a_sleeping_actor(tmp_path: Path) -> None:
    """All get 200, at most 5 runs are started, none ever has more than 10 at once, none is left 20 s later."""
    standby = {"desiredRequestsPerActorRun": 10, "maxRequestsPerActorRun": 10, "idleTimeoutSecs": 5}
    folder = actor_folder(tmp_path / "actors", "probe", standby)
    async with Greenroom(tmp_path / "data", (folder,)) as greenroom:
        answers = await asyncio.gather(*(greenroom.call("probe", "/slow?ms=300") for _ in range(50)))
        assert [answer.status_code for answer in answers] == [200] * 50
        assert max(answer.json()["busiest"] for answer in answers) <= 10
        runs = await greenroom.runs()
        assert len(runs) <= 5
        assert {answer.json()["runId"] for answer in answers} <= {run["id"] for run in runs}
        ended = await greenroom.wait_until_no_run_lives(within_secs=20)
        assert len(ended) <= 5
        assert {run["status"] for run in ended} == {"SUCCEEDED"}


@pytest.mark.slow
async def test_ctrl_c_drains_and_stops_all_runs(tmp_path: Path) -> None:
    """SIGTERM: the request in flight is answered, then the runs are wound down, and Greenroom ends with 0."""
    folder = actor_folder(tmp_path / "actors", "probe", {"idleTimeoutSecs": 300})
    async with Greenroom(tmp_path / "data", (folder,)) as greenroom:
        await greenroom.call("probe")
        (run,) = await greenroom.runs()

        async def is_in_flight() -> bool:
            return await greenroom.metric("greenroom_requests_in_flight") == 1

        async with asyncio.TaskGroup() as group:
            slow = group.create_task(greenroom.call("probe", "/slow?ms=1500"))
            await eventually(is_in_flight, what="the slow request's arrival")
            assert await greenroom.stop() == 0
        assert slow.result().status_code == 200
    async with Greenroom(tmp_path / "data") as greenroom:
        (ended,) = await greenroom.runs()
        assert (ended["id"], ended["status"]) == (run["id"], "SUCCEEDED")
        assert "Greenroom was stopped" in await greenroom.log_of(run["id"])
