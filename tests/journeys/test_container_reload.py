"""``greenroom reload`` with containers: the new worker takes them over, and nothing of them is lost or left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import docker
import pytest
from journeys.greenroom import Greenroom, eventually
from journeys.test_container_kills import folder_of
from journeys.test_made_ahead import warm_actor
from journeys.test_reload import one_worker, worker_of

from gateway.installation import installation_of

pytestmark = pytest.mark.slow  # servers and images of its own

COUNTS = """
import os, time
for number in range(60):
    os.write(1, f"line {number}\\n".encode())
    time.sleep(0.1)
raise SystemExit(7)
"""


async def test_containers_live_through_a_reload(docker_data: Path, docker_host: str, tmp_path: Path) -> None:
    """Runs go on, starts under way come to their end, each line of a log is there once, one container is made ahead."""
    counting = folder_of(tmp_path / "actors", "counting")
    (counting / "main.py").write_text(COUNTS)
    folders = (counting, folder_of(tmp_path / "actors", "cold"), warm_actor(tmp_path / "actors" / "warm"))
    client = docker.DockerClient(docker_host)
    async with Greenroom(docker_data, folders, {"launcher": "docker"}) as greenroom:
        batch = await greenroom.data_of("POST", "/actors/local~counting/runs")
        warm = (await greenroom.call("warm")).text
        label = installation_of(docker_data).label

        def made_ahead() -> list[str]:
            filters = {"label": [label, "greenroom.run"], "status": "created"}
            return [found["Id"] for found in client.api.containers(all=True, filters=filters)]

        async def runs() -> bool:
            return bool((await greenroom.run(batch["id"]))["status"] == "RUNNING")

        await eventually(runs, within_secs=20, what="the start of the batch run")
        first = await eventually(made_ahead, within_secs=20, what="a container that was made ahead")
        before = worker_of(greenroom)
        async with asyncio.TaskGroup() as group:
            group.create_task(greenroom.command("reload"))
            await asyncio.sleep(0.3)
            cold = group.create_task(greenroom.call("cold"))
        await one_worker(greenroom, but=before)
        assert cold.result().status_code == 200
        assert (await greenroom.call("warm")).text == warm
        ended = await greenroom.ended(batch["id"], within_secs=60)
        assert (ended["status"], ended["exitCode"]) == ("FAILED", 7)
        lines = [line[25:] for line in (await greenroom.log_of(batch["id"])).splitlines() if " line " in line]
        assert lines == [f"line {number}" for number in range(60)]

        def made_anew() -> bool:
            found = made_ahead()
            return len(found) == 1 and found != first

        await eventually(made_anew, within_secs=20, what="another container that was made ahead")
    assert client.api.containers(all=True, filters={"label": [label, "greenroom.run"]}) == []
    client.close()
