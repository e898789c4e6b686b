"""Actors in containers of a real Docker engine, built from their own Dockerfiles: on standby and as batch runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import ACTORS, TOKEN, Greenroom, eventually

pytestmark = pytest.mark.slow  # images are built

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
TEMPLATES = ("template-python", "template-javascript")


@pytest.fixture
async def greenroom(docker_data: Path) -> AsyncIterator[Greenroom]:
    folders = (EXAMPLES, *(ACTORS / name for name in TEMPLATES))
    async with Greenroom(docker_data, folders, {"launcher": "docker", "readiness_timeout_secs": 60}) as running:
        yield running


async def test_examples_and_templates(greenroom: Greenroom) -> None:
    """Every example does as a container what it does as a process, and Actors laid out as templates run unmodified."""
    await asyncio.gather(
        *(_is_built(greenroom, name) for name in (*TEMPLATES, "hello", "sdk-python", "sdk-javascript"))
    )
    sys.path.insert(0, str(EXAMPLES.parent))
    from calls import Api
    from sdk_examples import check

    await asyncio.to_thread(check, Api(greenroom.port, TOKEN))
    assert "Hello from run" in (await greenroom.call("hello")).text
    for name in TEMPLATES:
        await _template_on_standby(greenroom, name)
        await _template_as_batch(greenroom, name)


async def _is_built(greenroom: Greenroom, name: str) -> None:
    async def built() -> bool:
        builds = await greenroom.data_of("GET", f"/actors/local~{name}/builds")
        statuses = {build["status"] for build in builds["items"]}
        assert not statuses & {"FAILED", "ABORTED"}, await greenroom.log_of(builds["items"][-1]["id"])
        return "SUCCEEDED" in statuses

    await eventually(built, within_secs=300, what=f"the build of {name}")


async def _template_on_standby(greenroom: Greenroom, name: str) -> None:
    told: dict[str, Any] = (await greenroom.call(name)).json()
    assert told["user"] == "myuser"
    assert (told["memory"], told["cpus"]) == (1024, "0.25")
    assert "left-out.secret" not in told["files"]

    async def is_on_record() -> bool:  # written beside the first answer, not before it
        run = await greenroom.run(told["run"])
        return (run["status"], run["meta"]["origin"]) == ("RUNNING", "STANDBY")

    await eventually(is_on_record, what="a standby run that is RUNNING")


async def _template_as_batch(greenroom: Greenroom, name: str) -> None:
    run = await greenroom.data_of("POST", f"/actors/local~{name}/runs?memory=512", json={"words": ["a", "b", "c"]})
    ended = await greenroom.ended(run["id"])
    log = await greenroom.log_of(run["id"])
    assert (ended["status"], ended["exitCode"]) == ("SUCCEEDED", 0), log
    items = await greenroom.api("GET", f"/datasets/{run['defaultDatasetId']}/items")
    assert [item["word"] for item in items.json()] == ["a", "b", "c"]
    output = (await greenroom.api("GET", f"/key-value-stores/{run['defaultKeyValueStoreId']}/records/OUTPUT")).json()
    assert (output["user"], output["memory"], output["cpus"]) == ("myuser", 512, "0.125")
    assert "Saying 3 words" in log

    async def said() -> bool:
        return bool((await greenroom.run(run["id"]))["statusMessage"] == "Said 3 words")

    await eventually(said, what="the last word")
