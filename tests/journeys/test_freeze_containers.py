"""Unused containers are paused and go on for whoever needs them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from journeys.greenroom import Greenroom, eventually

from autoscaler.launchers.docker.engine import Engine
from gateway.installation import RUN_LABEL

pytestmark = pytest.mark.slow  # an image is built

MAIN = """
import http.server, os, signal, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["ACTOR_RUN_ID"].encode())

    def log_message(self, *_):
        pass

def leave(*_):
    print("asked to end", flush=True)
    os._exit(0)

signal.signal(signal.SIGTERM, leave)
http.server.ThreadingHTTPServer(("", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Handler).serve_forever()
"""


def actor(parent: Path, idle_timeout_secs: float) -> Path:
    folder = parent / "still"
    (folder / ".actor").mkdir(parents=True)
    definition = {
        "actorSpecification": 1,
        "name": "still",
        "version": "0.1",
        "usesStandbyMode": True,
        "defaultMemoryMbytes": 256,
        "actorStandby": {"idleTimeoutSecs": idle_timeout_secs, "freezeAfterSecs": 0.5},
    }
    (folder / ".actor" / "actor.json").write_text(json.dumps(definition))
    (folder / "main.py").write_text(MAIN)
    (folder / "Dockerfile").write_text(
        'FROM greenroom-tests:base\nWORKDIR /app\nCOPY . ./\nCMD ["python3", "-u", "main.py"]\n'
    )
    return folder


async def until_state(docker_host: str, run_id: str, state: str) -> None:
    """Until the engine says that of the run's container."""
    client = Engine(docker_host).connect()

    def look() -> bool:
        return any(
            one["State"] == state for one in client.containers(all=True, filters={"label": f"{RUN_LABEL}={run_id}"})
        )

    try:
        await eventually(look, within_secs=30, what=f"a container that is {state}")
    finally:
        client.close()


async def test_a_container_is_paused_goes_on_and_is_wound_down(
    docker_host: str, docker_data: Path, tmp_path: Path
) -> None:
    """The same container answers; after ``kill -9`` of Greenroom, too; in the end it hears of its end."""
    settings = {"launcher": "docker", "readiness_timeout_secs": 60, "tick_secs": 0.5}
    greenroom = Greenroom(docker_data, (actor(tmp_path, 60),), settings)
    async with greenroom:
        run_id = (await greenroom.call("still")).text
        for _ in range(2):
            await until_state(docker_host, run_id, "paused")
            answers = await asyncio.gather(*(greenroom.call("still") for _ in range(3)))
            assert {answer.text for answer in answers} == {run_id}
        await until_state(docker_host, run_id, "paused")
        await greenroom.kill()
    await until_state(docker_host, run_id, "paused")
    async with Greenroom(docker_data, settings=settings, port=greenroom.port) as again:
        assert (await again.call("still")).text == run_id
        await until_state(docker_host, run_id, "paused")
        run = await again.run(run_id)
        await again.data_of("PUT", f"/actors/{run['actId']}", json={"actorStandby": {"idleTimeoutSecs": 1}})
        ended = await again.ended(run_id, within_secs=30)
        assert (ended["status"], ended["exitCode"]) == ("SUCCEEDED", 0)
        assert "asked to end" in await again.log_of(run_id)
