"""What the autoscaler of a real server has decided can be decided again, and its settings are checked at its start."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import Greenroom, actor_folder, eventually

from autoscaler.policy.deciding import replay

POOLS = 8


async def all_decisions(greenroom: Greenroom) -> list[dict[str, Any]]:
    """Those of all pools, as they are stored."""
    user = await greenroom.data_of("GET", "/users/me")
    found: list[dict[str, Any]] = []
    for actor in (await greenroom.data_of("GET", "/actors?my=1&limit=1000"))["items"]:
        page = await greenroom.data_of("GET", f"/greenroom/pools/{actor['id']}.{user['id']}/decisions?limit=1000")
        found += page["items"]
    return found


async def live(greenroom: Greenroom, name: str, chance: random.Random, enough: asyncio.Event) -> None:
    """Bursts on one Actor: as many callers as chance has it; then quiet, at times past its idle limit."""
    while not enough.is_set():
        async with asyncio.TaskGroup() as group:
            for _ in range(chance.randint(1, 5)):
                group.create_task(greenroom.call(name, f"/slow?ms={chance.randint(1, 900)}"))
        # How long it is quiet is what the decisions are about, not a wait for something to happen.
        await asyncio.sleep(chance.choice([0.0, 0.3, 1.3]))


@pytest.mark.parametrize(
    ("preset", "number"),
    [
        pytest.param("greenroom", 25, id="greenroom, a few"),
        pytest.param("platform", 25, id="platform, a few"),
        pytest.param("greenroom", 1000, id="greenroom, a thousand", marks=[pytest.mark.timeout(900)]),
    ],
)
@pytest.mark.slow
async def test_stored_decisions_are_made_again(tmp_path: Path, preset: str, number: int) -> None:
    """From what is stored with each: the very same, with every reason, of pools that wake, grow, shrink and sleep."""
    standby = {"idleTimeoutSecs": 1, "maxRequestsPerActorRun": 2, "desiredRequestsPerActorRun": 1, "maxRuns": 3}
    names = [f"probe-{n}" for n in range(POOLS)]
    for name in names:
        actor_folder(tmp_path / "actors", name, standby)
    settings = {
        "autoscaler_preset": preset,
        "autoscaler_thresholds": json.dumps({"scale_down_delay_secs": 0.5, "panic_hold_secs": 1}),
        "tick_secs": 0.2,
        "pick_timeout_secs": 120,
        "readiness_timeout_secs": 60,
        "log_level": "warning",
    }
    async with Greenroom(tmp_path / "data", (tmp_path / "actors",), settings) as greenroom:
        enough = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for at, name in enumerate(names):
                group.create_task(live(greenroom, name, random.Random(at), enough))

            async def many() -> bool:
                await asyncio.sleep(0.5)  # nobody tells of decisions; they are written twice a second
                return len(await all_decisions(greenroom)) >= number

            await eventually(many, within_secs=800, what=f"{number} decisions")
            enough.set()
        stored = await all_decisions(greenroom)
    assert [one for one in stored if replay(one["inputs"]).to_json() != one["decision"]] == []
    assert {one["inputs"]["policy"]["requests_rule"] for one in stored} == {
        "slots" if preset == "platform" else "windows"
    }
    assert any(one["decision"]["start"] for one in stored)
    assert any(one["decision"]["drain"] for one in stored)


async def test_a_threshold_that_does_not_exist_is_refused_at_the_start(tmp_path: Path) -> None:
    """With its name, and those that exist."""
    greenroom = Greenroom(tmp_path / "data", settings={"autoscaler_thresholds": '{"panik": 1}'})
    greenroom.start()
    process = greenroom.process
    assert process is not None
    assert await asyncio.to_thread(process.wait, 30) != 0
    assert "autoscaler_thresholds: panik: no such threshold. Known ones: " in greenroom.log
    assert "Traceback" not in greenroom.log
