"""How many runs there are, end to end: a crowd at a limit of one, and the first minute after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import Greenroom, actor_folder, eventually

CROWD = 100


async def crowd_is_served(greenroom: Greenroom) -> None:
    """All get 200, never two at once in a run as it counts them itself, by at most ten runs."""
    answers = await asyncio.gather(*(greenroom.call("probe", "/slow?ms=300") for _ in range(CROWD)))
    assert [answer.status_code for answer in answers] == [200] * CROWD
    assert {answer.json()["busiest"] for answer in answers} == {1}
    runs = {run["id"] for run in await greenroom.runs()}
    assert {answer.json()["runId"] for answer in answers} <= runs
    assert len(runs) <= 10


def crowded(parent: Path) -> Path:
    """An Actor whose runs take one request each, and of which there are ten at most."""
    standby = {"desiredRequestsPerActorRun": 1, "maxRequestsPerActorRun": 1, "maxRuns": 10}
    return actor_folder(parent, "probe", standby)


@pytest.mark.slow
async def test_a_hundred_callers_of_ten_processes(tmp_path: Path) -> None:
    """On a sleeping Actor, 300 ms each."""
    settings = {"pick_timeout_secs": 50, "readiness_timeout_secs": 50}
    async with Greenroom(tmp_path / "data", (crowded(tmp_path / "actors"),), settings) as greenroom:
        await crowd_is_served(greenroom)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_hundred_callers_of_ten_containers(docker_data: Path, tmp_path: Path) -> None:
    """The same, and each in a container of its own."""
    folder = crowded(tmp_path / "actors")
    program = (folder / "main.py").read_text()
    (folder / "main.py").write_text(program.replace('Server(("127.0.0.1"', 'Server((""'))
    (folder / "Dockerfile").write_text('FROM greenroom-tests:base\nCOPY main.py ./\nCMD ["python3", "main.py"]\n')
    settings = {"launcher": "docker", "pick_timeout_secs": 240, "readiness_timeout_secs": 120}
    async with Greenroom(docker_data, (folder,), settings) as greenroom:
        greenroom.client.timeout = 250
        await crowd_is_served(greenroom)


async def decisions(greenroom: Greenroom, actor: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the owner's pool, the oldest first."""
    pool = f"{actor['id']}.{actor['userId']}"
    return list((await greenroom.data_of("GET", f"/greenroom/pools/{pool}/decisions?limit=1000"))["items"])


@pytest.mark.slow
async def test_after_a_restart_nothing_shrinks_but_by_the_idle_rule(tmp_path: Path) -> None:
    """What the runs are for is not known before a whole window was seen; who is idle for his whole timeout goes."""
    standby = {"desiredRequestsPerActorRun": 1, "maxRequestsPerActorRun": 1, "idleTimeoutSecs": 300}
    folder = actor_folder(tmp_path / "actors", "probe", standby)
    gate = tmp_path / "gate"
    greenroom = Greenroom(tmp_path / "data", (folder,), {"tick_secs": 0.5})
    async with greenroom:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(greenroom.call("probe", f"/until?file={gate}"))
            await greenroom.serving({"id": "local~probe"}, 2)
            gate.touch()
        actor = await greenroom.data_of("GET", "/actors/local~probe")
        known = {one["id"] for one in await decisions(greenroom, actor)}
        await greenroom.kill()
    async with Greenroom(tmp_path / "data", settings={"tick_secs": 0.5}, port=greenroom.port) as again:

        async def first_decision() -> dict[str, Any] | None:
            new = [one for one in await decisions(again, actor) if one["id"] not in known and one["presentRuns"] == 2]
            return new[0] if new else None

        first = await eventually(first_decision, what="a decision after the restart")
        assert (first["wantedRuns"], first["decision"]["drain"]) == (2, [])
        assert "no fewer before a whole window was seen" in "; ".join(first["reasons"])
        assert len(await again.serving({"id": "local~probe"}, 2)) == 2
        await again.data_of("PUT", f"/actors/{actor['id']}", json={"actorStandby": {"idleTimeoutSecs": 1}})
        runs = await again.wait_until_no_run_lives()
        assert [run["status"] for run in runs] == ["SUCCEEDED"] * 2
