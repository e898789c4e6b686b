"""Three gateways' brokers on a real Redis, as fast as they can: no run is ever above its limit."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from proxy.slot_world import ADDRESS
from proxy.slots_bench import NEW, route, want
from redis_server import new_namespace, running

from gateway.core.errors import GreenroomError
from gateway.core.lifecycle import Readiness
from gateway.proxy.route_table import LiveRun
from gateway.proxy.slot_broker import SlotBroker
from gateway.proxy.slots import Held, SlotDesk
from gateway.state.ports import RunRoute
from gateway.state.signals_opening import open_signals


@dataclass(eq=False)
class Running:
    """One gateway's desk and broker, and those who call there."""

    name: str
    desk: SlotDesk
    broker: SlotBroker
    flying: Counter[str]
    limit: int
    done: int = 0
    highest: int = 0
    longest_secs: float = 0.0
    version: int = 0

    def hear(self, one: RunRoute) -> None:
        self.version += 1
        self.desk.apply(one, self.version)

    async def call(self, times: int, chance: random.Random) -> None:
        """So many requests, one after the other, each in whatever run there is."""
        for _ in range(times):
            began = time.monotonic()
            run = await self._slot()
            self.longest_secs = max(self.longest_secs, time.monotonic() - began)
            run_id = run.route.run_id
            self.flying[run_id] += 1
            self.highest = max(self.highest, self.flying[run_id])
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            self.flying[run_id] -= 1
            self.done += 1
            self.desk.give_back(run)

    async def _slot(self) -> LiveRun:
        wanted = want(self.limit, caller=self.name, generation=NEW)
        run = self.desk.take(wanted)
        if run is not None:
            return run
        settled: asyncio.Future[LiveRun | GreenroomError] = asyncio.get_running_loop().create_future()
        self.desk.hold(Held(caller=self.name, want=wanted, settle=settled.set_result))
        outcome = await settled
        assert isinstance(outcome, LiveRun), outcome
        return outcome


@asynccontextmanager
async def gateways(url: str, count: int, limit: int, runs: int) -> AsyncIterator[list[Running]]:
    """Each with signals of its own, as a process has; all have seen the runs come."""
    namespace, flying = new_namespace(), Counter[str]()
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        made, works = [], []
        for number in range(count):
            signals = await stack.enter_async_context(open_signals(url, namespace=namespace))
            desk = SlotDesk(
                f"gateway{number}",
                room_size=10_000,
                clock=time.monotonic,
                chance=random.Random(number).random,
                poke=lambda: None,
            )
            broker = SlotBroker(f"gateway{number}", desk, signals.slots, poke=lambda: None)
            works.append(group.create_task(broker.run()))
            made.append(Running(f"gateway{number}", desk, broker, flying, limit))
        await until(lambda: all(one.desk.routes.epoch for one in made))
        for number in range(runs):
            first = route(f"run{number}", Readiness.STARTING, generation=NEW)
            for one in made:
                one.hear(first)
                one.hear(replace(first, readiness=Readiness.SERVING, address=ADDRESS))
        try:
            yield made
        finally:
            for work in works:
                work.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


def _is_done(made: list[Running], share: int) -> bool:
    return sum(one.done for one in made) >= share


async def call_all(made: list[Running], callers: int, times: int) -> None:
    """At each gateway so many callers, each with so many requests."""
    async with asyncio.timeout(100), asyncio.TaskGroup() as group:
        for one in made:
            for number in range(callers):
                group.create_task(one.call(times, random.Random(number)))


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_no_run_is_above_its_limit(redis_server: Any, limit: int) -> None:
    """
    Thousands of requests by three gateways; nobody waits for long, and few slots cost a call or so each: the fewest of
    three rounds, since a busy machine only ever adds some.
    """
    fewest = math.inf
    for _ in range(3):
        async with gateways(redis_server.url(), 3, limit, runs=2) as made:
            await call_all(made, callers=10, times=100)
            assert [one.highest <= limit for one in made] == [True] * 3
            assert sum(one.done for one in made) == 3000
            assert max(one.longest_secs for one in made) < 5.0
            fewest = min(fewest, sum(one.broker.calls for one in made))
        if fewest < 1.5 * 3000:
            return
    raise AssertionError(f"at best {fewest} calls for 3000 requests")


@pytest.mark.slow
async def test_a_redis_that_loses_everything_breaks_no_limit(tmp_path: Path) -> None:
    """It is killed amid the requests and comes back empty, twice; they wait for that and go on."""
    with running(tmp_path / "redis") as server:
        async with gateways(server.url(), 3, 1, runs=2) as made, asyncio.TaskGroup() as group:
            calling = group.create_task(call_all(made, callers=5, times=300))
            for share in (1000, 2500):
                await until(partial(_is_done, made, share))
                await asyncio.to_thread(server.restart)
            await calling
        assert [one.highest for one in made] == [1, 1, 1]
        assert sum(one.done for one in made) == 4500
