"""``greenroom reload`` ten times while callers of every kind are at work: none of them is let down."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from journeys.greenroom import Greenroom, actor_folder, eventually, workers_of
from journeys.load_callers import Load, comes_anew, downloads, keeps_alive, listens, pipelines, talks, uploads

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

RELOADS = 10
REQUESTS = 20_000
SLEEPERS = 4
# One run, however many at once: its end would be a change of its own.
_ROOM = {"idleTimeoutSecs": 600, "desiredRequestsPerActorRun": 500, "maxRequestsPerActorRun": 500}


@pytest.mark.parametrize("path", ["splice", "asgi"])
async def test_ten_reloads_under_load_fail_no_request(tmp_path: Path, path: str) -> None:
    """
    On kept connections, on new ones and in pipelines; streams, slow bodies in both directions, WebSockets (which are
    told to come again), and requests that wait for a run: at least 20,000 in all, and each ends as it should.
    """
    awake = actor_folder(tmp_path / "actors", "awake", _ROOM)
    sleepers = [
        actor_folder(tmp_path / "actors", f"sleeper-{number}", {"idleTimeoutSecs": 1}) for number in range(SLEEPERS)
    ]
    settings = {"log_level": "warning", "proxy_protocol": path}
    async with Greenroom(tmp_path / "data", (awake, *sleepers), settings=settings) as greenroom:
        assert greenroom.process is not None
        host, sleeping = greenroom.host("awake"), [greenroom.host(folder.name) for folder in sleepers]
        assert (await greenroom.call("awake")).status_code == 200
        load = Load(greenroom)
        callers = [
            *[("kept alive", keeps_alive([host], 0.03)) for _ in range(8)],
            *[("kept alive, cold", keeps_alive([host, *sleeping], 0.3)) for _ in range(2)],
            *[("new connection", comes_anew(host, 0.05)) for _ in range(6)],
            *[("cold", comes_anew(one, 2.0 + 0.3 * at, "cold")) for at, one in enumerate(sleeping)],
            *[("pipelined", pipelines(host, 0.1)) for _ in range(4)],
            *[("stream", listens(host, 30, 100)) for _ in range(6)],
            *[("download", downloads(host)) for _ in range(2)],
            *[("upload", uploads(host)) for _ in range(2)],
            *[("socket", talks(host, 0.02)) for _ in range(10)],
        ]
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for kind, caller in callers:
                group.create_task(load.keep_up(kind, caller))
            took: list[float] = []
            for _ in range(RELOADS):
                started = time.monotonic()
                await greenroom.command("reload")
                took.append(time.monotonic() - started)
            await eventually(lambda: load.total >= REQUESTS, within_secs=180, what=f"{REQUESTS} requests")
            load.is_over.set()
        secs = time.monotonic() - began
        runs = await greenroom.runs()
        print(f"{load.total} requests in {secs:.0f} s, {len(runs)} runs, reloads took {max(took):.1f} s at most")
        print(dict(load.answered), [f"{secs:.1f}" for secs in took], *load.problems, sep="\n")
        assert load.problems == []
        assert {run["status"] for run in runs} <= {"RUNNING", "SUCCEEDED"}
        await eventually(lambda: len(workers_of(greenroom.process.pid)) == 1, within_secs=30, what="one worker")
