"""
Crawls the site at *start* with Crawlee and stores each page; with *overload* it keeps the run's CPU busy meanwhile,
by children of its own, until the pool has slowed down.
"""

import asyncio
import multiprocessing
import re
import uuid
from datetime import timedelta

from apify import Actor, Event
from crawlee import ConcurrencySettings
from crawlee.crawlers import HttpCrawler, HttpCrawlingContext

CONCURRENCY = 20
FREE_PAGES = 40
loads = []


def be_busy():
    while True:
        pass


async def note_load(event):
    loads.append(round(event.cpu_info.used_ratio, 2))


async def watch(pool, has_begun, slowed):
    """What the pool does, from the first page on until it wants less than it began with."""
    await has_begun.wait()
    status, lowest = pool._system_status, pool.desired_concurrency
    while not slowed.is_set():
        lowest = min(lowest, pool.desired_concurrency)
        is_overloaded = status.get_historical_system_info().cpu_info.is_overloaded
        if lowest < CONCURRENCY and is_overloaded:
            await Actor.set_value("SLOWED", {"first": CONCURRENCY, "lowest": lowest, "loads": loads})
            slowed.set()
        await asyncio.sleep(0.1)


async def main():
    async with Actor:
        Actor.on(Event.SYSTEM_INFO, note_load)
        given = await Actor.get_input()
        overload = given.get("overload", False)
        has_begun, slowed = asyncio.Event(), asyncio.Event()
        seen = 0
        crawler = HttpCrawler(
            concurrency_settings=ConcurrencySettings(
                min_concurrency=1, max_concurrency=CONCURRENCY, desired_concurrency=CONCURRENCY
            ),
            request_handler_timeout=timedelta(seconds=120),
        )

        @crawler.router.default_handler
        async def handle(context: HttpCrawlingContext):
            nonlocal seen
            seen += 1
            has_begun.set()
            text = (await context.http_response.read()).decode()
            base = given["start"].rsplit("/", 1)[0]
            await context.add_requests([f"{base}/{name}" for name in re.findall(r'href="/(\d+)"', text)])
            if overload and seen > FREE_PAGES:
                await slowed.wait()
            await Actor.push_data({"url": context.request.url, "push": uuid.uuid4().hex})

        busy = [multiprocessing.Process(target=be_busy, daemon=True) for _ in range(2)] if overload else []
        for child in busy:
            child.start()
        async with asyncio.TaskGroup() as group:
            if overload:
                group.create_task(watch(crawler._autoscaled_pool, has_begun, slowed))
            statistics = await crawler.run([given["start"]])
            has_begun.set()
            slowed.set()
        for child in busy:
            child.kill()
        output = {"finished": statistics.requests_finished, "failed": statistics.requests_failed}
        await Actor.set_value("OUTPUT", output)


if __name__ == "__main__":
    asyncio.run(main())
