"""Actors that never serve or crash soon after, end to end: left alone for a while, told at once, tried again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from journeys.greenroom import Greenroom, error_of, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def greenroom(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Greenroom]:
    """One server for all of these tests, which lets the Actors of all its users run."""
    data = tmp_path_factory.mktemp("quarantine") / "data"
    async with Greenroom(data, settings={"wind_down_grace_secs": 1}, arguments=("--trust-users",)) as server:
        yield server


async def fail_three_times(greenroom: Greenroom, name: str, **options: Any) -> list[str]:
    """The types of the first three errors."""
    return [error_of(await greenroom.call(name, **options))[1] for _ in range(3)]


async def test_after_three_failed_starts_callers_hear_at_once(greenroom: Greenroom) -> None:
    """503 with its own type, the reason, how long it lasts and, for the owner, the log; and no run is started."""
    actor = await greenroom.probe("never", environmentVariables={"PROBE_START": "exit:3"})
    assert await fail_three_times(greenroom, "never") == ["standby-run-finished"] * 3
    for _ in range(5):
        refused = await greenroom.call("never")
        assert error_of(refused) == (503, "standby-quarantined")
        error = refused.json()["error"]
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert error["data"]["failedStarts"] == 3
        assert "exit code 3" in error["message"]
        assert f"greenroom retry {actor['id']}" in error["message"]
        assert any(line.endswith("told to exit with 3") for line in error["data"]["logTail"])
    assert len(await greenroom.runs_of(actor)) == 3
