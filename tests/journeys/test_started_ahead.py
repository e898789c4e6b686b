"""A caller who comes at regular times finds a run that was started for him; the past outlives a kill."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from journeys.greenroom import Greenroom, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

GAP_SECS = 12.0
SETTINGS = {"autoscaler_thresholds": json.dumps({"starts_ahead": True, "gaps_needed": 1}), "tick_secs": 0.5}


async def test_a_regular_caller_is_awaited(tmp_path: Path) -> None:
    """
    After four quiet times of twelve seconds the fifth ends with a run that is there already, and says why. After a kill
    of Greenroom the first call is cold again, and the next one is awaited.
    """
    greenroom = Greenroom(tmp_path / "data", settings=SETTINGS)
    async with greenroom:
        actor = await greenroom.probe("punctual", {"idleTimeoutSecs": 1})
        for number in range(5):
            assert (await greenroom.call("punctual")).status_code == 200
            assert len(await greenroom.runs_of(actor)) == number + 1
            if number < 4:
                # The quiet between calls is what is learned here, not a wait for something to happen.
                await asyncio.sleep(GAP_SECS)
        first = {run["id"] for run in await greenroom.runs_of(actor)}
        (ahead,) = await _next_run(greenroom, actor, first)
        assert (await greenroom.call("punctual", "/count")).json()["runId"] == ahead
        user = await greenroom.data_of("GET", "/users/me")
        decisions = f"/greenroom/pools/{actor['id']}.{user['id']}/decisions?limit=1000"

        async def says_why() -> bool:  # decisions are written beside the loop
            page = await greenroom.data_of("GET", decisions)
            return any("one ahead, since" in reason for one in page["items"] for reason in one["reasons"])

        await eventually(says_why, what="the reason")
        await greenroom.ended(ahead)
        await greenroom.kill()
    async with Greenroom(tmp_path / "data", settings=SETTINGS) as again:
        await again.wait_until_no_run_lives()
        cold = (await again.call("punctual", "/count")).json()["runId"]
        known = {run["id"] for run in await again.runs_of(actor)}
        assert cold in known
        (ahead,) = await _next_run(again, actor, known)
        assert (await again.call("punctual", "/count")).json()["runId"] == ahead


async def _next_run(greenroom: Greenroom, actor: dict[str, object], known: set[str]) -> list[str]:
    """The run that serves next, though nobody has asked for it."""

    async def look() -> list[str] | None:
        found = [run["id"] for run in await greenroom.runs_of(actor) if run["id"] not in known]
        return found if found and await greenroom.serving(actor, 1) else None

    found: list[str] = await eventually(look, within_secs=30, what="a run ahead")
    return found
