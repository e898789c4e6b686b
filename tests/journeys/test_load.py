"""The load of real runs, as they hear it once a second, and as it stands in their records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import Greenroom, actor_folder, eventually
from websockets.asyncio.client import connect

from gateway.core.times import parse_iso

# Two processes, one of which detaches itself, use 1.5 s of CPU each; then all is quiet until FOLDER/go is there.
BUSY = """
import os, time
def burn(secs):
    until = time.process_time() + secs
    while time.process_time() < until:
        pass
print("events", os.environ["ACTOR_EVENTS_WEBSOCKET_URL"], flush=True)
while not os.path.exists(os.environ["FOLDER"] + "/burn"):
    time.sleep(0.01)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    block = bytearray(b"x" * 60_000_000)
    burn(1.5)
    print("the detached one has burnt", flush=True)
    while not os.path.exists(os.environ["FOLDER"] + "/go"):
        time.sleep(0.05)
    os._exit(0)
burn(1.5)
print("the first one has burnt", flush=True)
while not os.path.exists(os.environ["FOLDER"] + "/go"):
    time.sleep(0.05)
"""

EIGHT_FIELDS = {
    "memAvgBytes": int,
    "memCurrentBytes": int,
    "memMaxBytes": int,
    "cpuAvgUsage": float,
    "cpuMaxUsage": float,
    "cpuCurrentUsage": float,
    "isCpuOverloaded": bool,
    "createdAt": str,
}


@pytest.fixture
async def greenroom(tmp_path: Path) -> AsyncIterator[Greenroom]:
    folder = actor_folder(
        tmp_path / "actors",
        "busy",
        {"isEnabled": False},
        main=BUSY,
        environmentVariables={"FOLDER": str(tmp_path)},
    )
    async with Greenroom(tmp_path / "data", (folder,)) as running:
        yield running


@asynccontextmanager
async def hearing(greenroom: Greenroom, url: str) -> AsyncIterator[Any]:
    """The frames at an events socket, as they come."""
    async with connect(url, host="127.0.0.1", port=greenroom.port, proxy=None) as socket:

        async def frames() -> AsyncIterator[dict[str, Any]]:
            async for text in socket:
                yield json.loads(text)

        yield frames()


async def next_info(frames: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    """The data of the next systemInfo; right behind it comes the cpuInfo of the same measurement."""
    async with asyncio.timeout(10):
        info, cpu = await anext(frames), await anext(frames)
    assert (info["name"], cpu["name"]) == ("systemInfo", "cpuInfo")
    assert cpu["data"] == {"isCpuOverloaded": info["data"]["isCpuOverloaded"]}
    data = dict(info["data"])
    assert set(data) == set(EIGHT_FIELDS)
    assert all(isinstance(data[name], (kind, int) if kind is float else kind) for name, kind in EIGHT_FIELDS.items())
    return data


@pytest.mark.slow
async def test_a_busy_run_hears_how_busy_it_is(greenroom: Greenroom, tmp_path: Path) -> None:
    """All its processes count, one that detached itself too; when they are quiet, so are the figures and the record."""
    run = await greenroom.data_of("POST", "/actors/local~busy/runs?memory=512")

    async def has_logged(text: str) -> bool:
        return text in await greenroom.log_of(run["id"])

    await eventually(lambda: has_logged("events ws"), what="the address of its events")
    url = (await greenroom.log_of(run["id"])).partition("events ")[2].split()[0]
    async with hearing(greenroom, url) as frames:
        first = await next_info(frames)
        assert first["memMaxBytes"] == 512 * 1024 * 1024
        assert 0 < first["memCurrentBytes"] < 50_000_000
        (tmp_path / "burn").touch()
        infos = [first, await next_info(frames)]
        while infos[-1]["cpuAvgUsage"] < 1 or infos[-1]["cpuCurrentUsage"] > 20 or not await has_logged("detached one"):
            infos.append(await next_info(frames))
    last = infos[-1]
    seen_secs = (parse_iso(last["createdAt"]) - parse_iso(run["startedAt"])).total_seconds()
    assert 3 * 0.9 < last["cpuAvgUsage"] / 100 * seen_secs < 3 * 1.3
    assert max(info["cpuCurrentUsage"] for info in infos) == last["cpuMaxUsage"] > 20
    assert all(info["isCpuOverloaded"] is (info["cpuCurrentUsage"] > 95) for info in infos)
    assert not last["isCpuOverloaded"]
    assert last["memCurrentBytes"] > 60_000_000
    (tmp_path / "go").touch()
    stats = (await greenroom.ended(run["id"]))["stats"]
    assert stats["cpuMaxUsage"] == last["cpuMaxUsage"]
    assert 0 < stats["cpuAvgUsage"] <= stats["cpuMaxUsage"]
    assert stats["memMaxBytes"] >= stats["memAvgBytes"] > 0
    assert stats["memMaxBytes"] > 60_000_000
    assert all(isinstance(stats[name], int) for name in ("memMaxBytes", "memCurrentBytes"))


@pytest.mark.slow
async def test_a_standby_run_hears_it_once_a_second(greenroom: Greenroom) -> None:
    """From within a second after it has connected on, and again by a new connection."""
    await greenroom.probe("standing", {"idleTimeoutSecs": 60})
    url = (await greenroom.call("standing", "/env")).json()["env"]["ACTOR_EVENTS_WEBSOCKET_URL"]
    for _ in range(2):
        async with hearing(greenroom, url) as frames:
            asked = datetime.now(UTC)
            times = [parse_iso((await next_info(frames))["createdAt"]) for _ in range(3)]
    assert timedelta(0) < times[0] - asked < timedelta(seconds=2)
    assert timedelta(seconds=1) < times[2] - times[0] < timedelta(seconds=4)


@pytest.mark.slow
async def test_the_load_is_known_again_after_kill_9(tmp_path: Path, greenroom: Greenroom) -> None:
    """An adopted run hears its load; what it used before counts for no second of it."""
    actor = await greenroom.probe("standing", {"idleTimeoutSecs": 60})
    url = (await greenroom.call("standing", "/env")).json()["env"]["ACTOR_EVENTS_WEBSOCKET_URL"]
    await greenroom.serving(actor, 1)
    await greenroom.kill()
    async with Greenroom(tmp_path / "data", port=greenroom.port) as again, hearing(again, url) as frames:
        info = await next_info(frames)
        assert info["cpuCurrentUsage"] == info["cpuMaxUsage"] < 90
        assert info["memCurrentBytes"] > 0
