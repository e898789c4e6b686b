"""Greenroom is reloaded, or killed and started again, in the middle of runs on the SDKs: they end well all the same."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import Greenroom, eventually
from journeys.sdk import sdk_actors
from journeys.sdk.sdk_actors import Sdk, needs_npm
from journeys.sdk.site import PAGES, serve_site

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]

NUMBERS = 40
PAUSE_MS = 150
Trouble = Callable[[Greenroom], Awaitable[None]]


async def reload(greenroom: Greenroom) -> None:
    """New code takes over while the old one finishes what it has."""
    await greenroom.command("reload")


async def kill_and_start(greenroom: Greenroom) -> None:
    """As a power cut of the server alone, which then comes back at the same port."""
    await greenroom.client.aclose()
    await greenroom.kill()
    greenroom.start()
    await greenroom.wait_until_ready()


each_trouble = pytest.mark.parametrize("trouble", [reload, kill_and_start])


def _server(tmp_path: Path, factory: pytest.TempPathFactory, sdk: Sdk) -> Greenroom:
    data = sdk_actors.with_packages(tmp_path / "data", sdk_actors.packages_for_all(factory))
    folder = sdk.lay_out(tmp_path / "actors")
    path = folder / ".actor" / "actor.json"
    # A reload may take longer than these Actors' own idle timeout, and nobody calls them meanwhile.
    definition = json.loads(path.read_text())
    definition["actorStandby"] = definition.get("actorStandby", {}) | {"idleTimeoutSecs": 120}
    path.write_text(json.dumps(definition))
    return Greenroom(data, (folder,))


@each_trouble
@pytest.mark.parametrize(
    "sdk",
    [
        pytest.param(sdk_actors.PYTHON, id="python"),
        pytest.param(sdk_actors.JAVASCRIPT, id="javascript", marks=needs_npm),
    ],
)
async def test_a_batch_run_loses_nothing_acknowledged(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, sdk: Sdk, trouble: Trouble
) -> None:
    """
    Each number is stored once, in order, and the run succeeds with its output: what was under way when the server was
    killed, and is sent again by the SDK, is recognised.
    """
    async with _server(tmp_path, tmp_path_factory, sdk) as greenroom:
        started = await sdk_actors.start(greenroom, sdk, {"numbers": NUMBERS, "pauseMs": PAUSE_MS})
        await _has_logged(greenroom, started["id"], "acknowledged 10\n")
        await trouble(greenroom)
        run = await greenroom.ended(started["id"], within_secs=120)
        log = await greenroom.log_of(run["id"])
        assert (run["status"], run["exitCode"], run["statusMessage"]) == ("SUCCEEDED", 0, "all done"), log
        assert [f"acknowledged {number}" in log for number in range(NUMBERS)] == [True] * NUMBERS
        numbers = [item["number"] for item in await sdk_actors.items_of(greenroom, run)]
        assert numbers == list(range(NUMBERS))
        dataset = await greenroom.data_of("GET", f"/datasets/{run['defaultDatasetId']}")
        assert dataset["itemCount"] == len(numbers)
        assert (await sdk_actors.record_of(greenroom, run, "OUTPUT"))["numbers"] == NUMBERS


@pytest.mark.parametrize(
    ("sdk", "trouble"),
    [
        pytest.param(sdk_actors.PYTHON, reload, id="python-reload"),
        pytest.param(sdk_actors.PYTHON, kill_and_start, id="python-kill"),
        # Its socket can't outlive a kill, and this SDK never opens another one.
        pytest.param(sdk_actors.JAVASCRIPT, reload, id="javascript-reload", marks=needs_npm),
    ],
)
async def test_events_are_heard_afterwards(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, sdk: Sdk, trouble: Trouble
) -> None:
    """The same run goes on hearing of its load, and hears 'aborting' and 'persistState', each once, at last."""
    async with _server(tmp_path, tmp_path_factory, sdk) as greenroom:
        seen = (await greenroom.call(sdk.name, timeout=240)).json()
        await trouble(greenroom)

        async def hears_more() -> Any:
            now = (await greenroom.call(sdk.name)).json()
            assert now["runId"] == seen["runId"]
            return now["loads"] >= seen["loads"] + 5

        await eventually(hears_more, within_secs=30, what="more events")
        await greenroom.data_of("POST", f"/actor-runs/{seen['runId']}/abort", params={"gracefully": "true"})
        run = await greenroom.ended(seen["runId"], within_secs=20)
        assert (run["status"], run["statusMessage"]) == ("ABORTED", "left politely")
        assert await sdk_actors.record_of(greenroom, run, "LAST-WORD") == ["aborting", "persistState"]


@each_trouble
@pytest.mark.parametrize(
    "crawler",
    [
        pytest.param(sdk_actors.CRAWL_PYTHON, id="python"),
        pytest.param(sdk_actors.CRAWL_JAVASCRIPT, id="javascript", marks=needs_npm),
    ],
)
async def test_a_crawl_handles_each_page_once(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, crawler: Sdk, trouble: Trouble
) -> None:
    """All pages are in the dataset, each once and from one handling of it, and the queue counts them as handled."""
    async with _server(tmp_path, tmp_path_factory, crawler) as greenroom, serve_site(delay_secs=0.4) as site:
        started = await sdk_actors.start(greenroom, crawler, {"start": site.url}, memory=2048)
        await site.wait_for_pages(60, within_secs=200)
        assert len(site.hits) < PAGES
        await trouble(greenroom)
        run = await greenroom.ended(started["id"], within_secs=250)
        assert run["status"] == "SUCCEEDED", await greenroom.log_of(run["id"])
        items = await sdk_actors.items_of(greenroom, run)
        assert sorted(item["url"] for item in items) == sorted(site.urls)
        queue = await greenroom.data_of("GET", f"/request-queues/{run['defaultRequestQueueId']}")
        counted = {name: queue[f"{name}RequestCount"] for name in ("total", "handled", "pending")}
        assert counted == {"total": PAGES, "handled": PAGES, "pending": 0}


async def _has_logged(greenroom: Greenroom, run_id: str, text: str) -> None:
    async def logged() -> Any:
        return text in await greenroom.log_of(run_id)

    await eventually(logged, within_secs=200, what=f"{text!r} in the log")
