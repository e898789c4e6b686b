"""Load as a reason: real Actors that use up their CPU get more runs by that alone, as the kernel measures it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from journeys.greenroom import Greenroom, actor_folder, eventually

pytestmark = pytest.mark.slow  # an image is built, and load is measured over seconds

PROGRAM = """
import http.server, json, os

is_resting = False

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        global is_resting
        if self.path == "/rest":
            is_resting = True
        while self.path == "/burn" and not is_resting:
            pass
        body = os.environ["ACTOR_RUN_ID"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Handler).serve_forever()
"""
ACTOR = {"id": "local~busy"}


@asynccontextmanager
async def serving(data: Path, thresholds: Mapping[str, Any], *, memory_mbytes: int) -> AsyncIterator[Greenroom]:
    """A server with the Actor in containers, whose requests by far don't ask for a second run."""
    standby = {
        "idleTimeoutSecs": 300,
        "memoryMbytes": memory_mbytes,
        "maxRequestsPerActorRun": 20,
        "desiredRequestsPerActorRun": 20,
    }
    folder = actor_folder(data.parent / "actors", "busy", {**standby, "maxRuns": 2}, main=PROGRAM)
    (folder / "Dockerfile").write_text('FROM greenroom-tests:base\nCOPY main.py ./\nCMD ["python3", "main.py"]\n')
    settings = {
        "launcher": "docker",
        "autoscaler_thresholds": json.dumps(thresholds),
        "tick_secs": 0.5,
        "readiness_timeout_secs": 60,
    }
    async with Greenroom(data, (folder,), settings) as greenroom:
        yield greenroom


async def reasons(greenroom: Greenroom) -> list[str]:
    """All reasons of the decisions so far, each decision's in one text, the oldest first."""
    actor = await greenroom.data_of("GET", f"/actors/{ACTOR['id']}")
    user = await greenroom.data_of("GET", "/users/me")
    page = await greenroom.data_of("GET", f"/greenroom/pools/{actor['id']}.{user['id']}/decisions?limit=1000")
    return ["; ".join(one["reasons"]) for one in page["items"]]


async def who_answers(greenroom: Greenroom) -> str:
    answer = await greenroom.call("busy")
    assert answer.status_code == 200, answer.text
    return answer.text


@asynccontextmanager
async def burning(greenroom: Greenroom, run_id: str) -> AsyncIterator[None]:
    """One request uses up all the CPU that the run has, until this is left."""
    async with asyncio.TaskGroup() as group:
        call = group.create_task(greenroom.call("busy", "/burn", timeout=300))
        try:
            yield
        finally:
            url = (await greenroom.run(run_id))["containerUrl"]
            await greenroom.at(urlsplit(url).netloc, "/rest")
    assert call.result().text == run_id


async def test_a_cpu_bound_actor_gets_a_second_run_by_its_load_alone(docker_data: Path) -> None:
    """One request that burns: another run is started and takes the new requests; after it, one is enough again."""
    async with serving(docker_data, {"cpu_left_ratio": 0}, memory_mbytes=256) as greenroom:
        first = await who_answers(greenroom)
        async with burning(greenroom, first):
            runs = await greenroom.serving(ACTOR, 2, within_secs=120)
            (other,) = (run_id for run_id in runs if run_id != first)

            async def all_to_the_other() -> bool:
                return {await who_answers(greenroom) for _ in range(5)} == {other}

            await eventually(all_to_the_other, within_secs=20, what="requests that spare the overloaded run")

            async def told() -> bool:
                return any("one more for load: 1 of 1 overloaded" in one for one in await reasons(greenroom))

            await eventually(told, what="the reason")  # decisions are written in batches

        # It has rested: one is enough again, and the youngest goes.
        assert await greenroom.serving(ACTOR, 1, within_secs=120) == [first]
        assert await who_answers(greenroom) == first


async def test_without_cpu_left_nothing_is_started_for_load(docker_data: Path) -> None:
    """Where all of the machine must lie idle for a start, the decision says what is missing; one run stays one."""
    async with serving(docker_data, {"cpu_left_ratio": 1}, memory_mbytes=256) as greenroom:
        first = await who_answers(greenroom)
        async with burning(greenroom, first):

            async def told() -> bool:
                words = "none for load, since the machine has no CPU left: 1 of 1 overloaded"
                return any(words in one for one in await reasons(greenroom))

            await eventually(told, within_secs=60, what="the reason")
            assert len(await greenroom.runs()) == 1


async def test_many_cheap_requests_are_no_load(docker_data: Path) -> None:
    """As many as three callers get answered in twenty seconds: the one run is enough, and load is no reason."""
    async with serving(docker_data, {"cpu_left_ratio": 0}, memory_mbytes=4096) as greenroom:
        ends = asyncio.get_running_loop().time() + 20
        answers = 0

        async def call() -> None:
            nonlocal answers
            while asyncio.get_running_loop().time() < ends:
                await who_answers(greenroom)
                answers += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(call())
        (run,) = await greenroom.runs()
        assert answers > 200
        assert (await greenroom.run(run["id"]))["stats"]["cpuAvgUsage"] > 0
        assert not any("load" in one for one in await reasons(greenroom))
