"""Crawlee on Greenroom: each page of a site once, and slower when the run is told that its CPU is overloaded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from journeys.greenroom import Greenroom
from journeys.sdk import sdk_actors
from journeys.sdk.sdk_actors import Sdk, needs_npm
from journeys.sdk.site import PAGES, serve_site

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400), pytest.mark.slow]

CRAWLERS = (sdk_actors.CRAWL_PYTHON, sdk_actors.CRAWL_JAVASCRIPT)
each_crawler = pytest.mark.parametrize(
    "crawler",
    [
        pytest.param(sdk_actors.CRAWL_PYTHON, id="python"),
        pytest.param(sdk_actors.CRAWL_JAVASCRIPT, id="javascript", marks=needs_npm),
    ],
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def greenroom(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Greenroom]:
    """One server with both crawlers."""
    folder = tmp_path_factory.mktemp("crawls")
    actors = [crawler.lay_out(folder / "actors") for crawler in CRAWLERS]
    data = sdk_actors.with_packages(folder / "data", sdk_actors.packages_for_all(tmp_path_factory))
    async with Greenroom(data, tuple(actors)) as server:
        yield server


async def crawled(greenroom: Greenroom, crawler: Sdk, given: Any) -> dict[str, Any]:
    """A crawl with this input, once it has succeeded."""
    started = await sdk_actors.start(greenroom, crawler, given, memory=2048)
    run = await greenroom.ended(started["id"], within_secs=300)
    assert run["status"] == "SUCCEEDED", await greenroom.log_of(run["id"])
    return run


@each_crawler
async def test_each_page_is_crawled_and_stored_once(greenroom: Greenroom, crawler: Sdk) -> None:
    """All pages are in the dataset, none twice; the queue says that all were handled, and each was fetched once."""
    async with serve_site() as site:
        run = await crawled(greenroom, crawler, {"start": site.url})
        items = await sdk_actors.items_of(greenroom, run)
        assert len(items) == PAGES
        assert {item["url"] for item in items} == site.urls
        assert set(site.hits.values()) == {1}
    queue = await greenroom.data_of("GET", f"/request-queues/{run['defaultRequestQueueId']}")
    counted = {name: queue[f"{name}RequestCount"] for name in ("total", "handled", "pending")}
    assert counted == {"total": PAGES, "handled": PAGES, "pending": 0}
    assert await sdk_actors.record_of(greenroom, run, "OUTPUT") == {"finished": PAGES, "failed": 0}


@each_crawler
async def test_a_crawl_slows_down_while_its_cpu_is_overloaded(greenroom: Greenroom, crawler: Sdk) -> None:
    """
    Children of the crawl's own take all of its CPU: the pool, told so by the events alone, wants less at once than it
    began with. All pages are still crawled, each once.
    """
    async with serve_site() as site:
        run = await crawled(greenroom, crawler, {"start": site.url, "overload": True})
        slowed = await sdk_actors.record_of(greenroom, run, "SLOWED")
        assert slowed["lowest"] < slowed["first"], slowed
        items = await sdk_actors.items_of(greenroom, run)
        assert sorted(item["url"] for item in items) == sorted(site.urls)
