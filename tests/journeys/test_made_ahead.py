"""Pools that keep runs warm have their next container ready, not started."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import docker
import pytest
from journeys.greenroom import Greenroom, eventually

from gateway.installation import installation_of

pytestmark = pytest.mark.slow  # a server and an image of its own

PROGRAM = """
import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            time.sleep(1)
        body = os.environ["ACTOR_RUN_ID"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Handler).serve_forever()
"""


def warm_actor(folder: Path) -> Path:
    """An Actor of which one run is always warm, and each run takes one request at a time."""
    (folder / ".actor").mkdir(parents=True)
    standby = {"minRuns": 1, "maxRequestsPerActorRun": 1, "desiredRequestsPerActorRun": 1, "idleTimeoutSecs": 60}
    definition = {
        "actorSpecification": 1,
        "name": "warm",
        "version": "0.0",
        "usesStandbyMode": True,
        "defaultMemoryMbytes": 128,
        "actorStandby": standby,
    }
    (folder / ".actor" / "actor.json").write_text(json.dumps(definition))
    (folder / "main.py").write_text(PROGRAM)
    (folder / "Dockerfile").write_text('FROM greenroom-tests:base\nCOPY main.py /\nCMD ["python3", "-u", "/main.py"]\n')
    return folder


async def test_the_next_run_of_a_warm_pool_is_made_ahead(docker_data: Path, docker_host: str, tmp_path: Path) -> None:
    """
    One container lies ready, in no list of runs; the pool's next run is that one, and the next one is made; none for a
    pool that keeps no runs warm any more.
    """
    client = docker.DockerClient(docker_host)
    folders = (warm_actor(tmp_path / "actors" / "warm"),)
    async with Greenroom(docker_data, folders, {"launcher": "docker"}) as greenroom:

        def ready() -> list[Any]:
            filters = {"label": [installation_of(docker_data).label, "greenroom.run"], "status": "created"}
            return [one["Id"] for one in client.api.containers(all=True, filters=filters)]

        (made,) = await eventually(ready, within_secs=60, what="a container that was made ahead")
        assert len(await greenroom.runs()) == 1
        labels = client.api.inspect_container(made)["Config"]["Labels"]
        answers = await asyncio.gather(*(greenroom.call("warm", "/slow") for _ in range(2)))
        assert {answer.status_code for answer in answers} == {200}
        # Others may have been started besides it, and been quicker.
        assert labels["greenroom.run"] in {run["id"] for run in await greenroom.runs()}
        run = await greenroom.run(labels["greenroom.run"])
        variables = client.api.inspect_container(made)["Config"]["Env"]
        assert f"ACTOR_DEFAULT_DATASET_ID={run['defaultDatasetId']}" in variables
        await eventually(lambda: [one for one in ready() if one != made], within_secs=20, what="the next one")
        await greenroom.data_of("PUT", f"/actors/{run['actId']}", json={"actorStandby": {"minRuns": 0}})
        await eventually(lambda: not ready(), within_secs=20, what="none, since no run is kept warm")
    client.close()
    assert ready() == []
