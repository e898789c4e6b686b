"""
Signals on Redis: routes, demand, leadership and messages between processes and machines.

What only listens costs Redis nothing; what is asked takes one round trip, mostly a script. Nothing here is on the way
of a warm request.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from gateway.core.demand import DemandReport
from gateway.core.load import Load
from gateway.core.trouble import PoolTrouble
from gateway.state.ports import (
    LEADER,
    Changed,
    NumberedChange,
    PoolBlocked,
    PoolFreed,
    RouteEnded,
    RunEvent,
    RunRoute,
)
from gateway.state.redis import route_scripts, socket_scripts, value_scripts
from gateway.state.redis.address import RedisAddress, check_namespace
from gateway.state.redis.client import RedisClient, open_client
from gateway.state.redis.ears import Ears
from gateway.state.redis.reading import reading
from gateway.state.redis.routes import Routes
from gateway.state.redis.slots import RedisSlots
from gateway.state.redis.sockets import Sockets
from gateway.state.signals_codec import (
    decode_changed,
    decode_loads,
    decode_presence,
    decode_reports,
    decode_routes,
    decode_troubles,
    encode_changed,
    encode_event,
    encode_facts,
    encode_load,
    encode_report,
    encode_troubles,
)
from gateway.state.steady import steadily
from gateway.state.subscriptions import QUEUE_BOUND, Subscription

_DEMAND, _LOADS = ("demand",), ("loads",)
_TROUBLES = "troubles"


class RedisSignals:
    """The Signals port over Redis; made by ``open_redis_signals``, which also does its work in the background."""

    def __init__(self, client: RedisClient, *, queue_bound: int = QUEUE_BOUND) -> None:
        self._client = client
        self._queue_bound = queue_bound
        self._ears = Ears(client, on_hearing=self._hears_again)
        self._routes = Routes(client, self._ears, queue_bound=queue_bound)
        self._sockets = Sockets(client, self._ears, secrets.token_hex(8), queue_bound=queue_bound)
        self.slots = RedisSlots(client, self._ears)
        self._works: list[asyncio.Task[None]] = []
        self._is_following = False
        self._follows = asyncio.Event()
        self._reported = asyncio.Event()

    async def put_route(self, route: RunRoute) -> int:
        return await self._routes.tell(route)

    async def end_route(self, ended: RouteEnded) -> int:
        return await self._routes.tell(ended)

    async def publish_routes(self) -> int:
        return await self._routes.publish()

    async def block_pool(self, blocked: PoolBlocked) -> None:
        await self._routes.tell(blocked)

    async def free_pool(self, freed: PoolFreed) -> None:
        await self._routes.tell(freed)

    def watch_routes(self) -> AbstractAsyncContextManager[AsyncIterator[NumberedChange]]:
        return self._routes.watch()

    async def routes(self) -> Sequence[RunRoute]:
        return reading(decode_routes, (await route_scripts.picture(self._client)).routes)

    async def report_demand(self, report: DemandReport, *, ttl_secs: float, is_poke: bool = False) -> None:
        await value_scripts.report_demand(
            self._client, report.gateway_id, encode_report(report), ttl_secs=ttl_secs, is_poke=is_poke
        )

    async def forget_demand(self, gateway_id: str) -> None:
        await value_scripts.drop_value(self._client, _DEMAND, gateway_id, channel=self._client.keys.channel("reports"))

    async def demand_reports(self) -> Sequence[DemandReport]:
        return reading(decode_reports, await value_scripts.kept_values(self._client, _DEMAND))

    async def wait_for_poke(self, timeout_secs: float) -> bool:
        return await self._client.wait_in_list(self._client.keys.key("pokes"), timeout_secs)

    async def poke(self) -> None:
        await value_scripts.poke(self._client)

    async def wait_for_report(self, timeout_secs: float) -> bool:
        if not self._is_following:  # only who leads ever waits, and then often: from now on it listens all the time
            self._is_following = True
            self._start(steadily("the hearing of reports", self._follow_reports))
        try:
            async with asyncio.timeout(timeout_secs):
                await self._follows.wait()
                await self._reported.wait()
        except TimeoutError:
            return False
        return True

    async def _follow_reports(self) -> None:
        async with self._ears.listen(self._client.keys.channel("reports"), bound=1) as heard:
            self._follows.set()
            try:
                async for _ in heard.read():
                    # Each report has an event of its own: whoever waits holds the next report's, however many wait.
                    self._reported.set()
                    self._reported = asyncio.Event()
            finally:
                self._follows.clear()

    async def changed(self, change: Changed) -> None:
        await self._client.command("PUBLISH", self._client.keys.channel("changes"), encode_changed(change))

    @asynccontextmanager
    async def watch_changes(self) -> AsyncIterator[AsyncIterator[Changed]]:
        async with self._ears.listen(self._client.keys.channel("changes"), bound=self._queue_bound) as heard:
            yield _changes(heard)

    async def send_event(self, event: RunEvent) -> int:
        return await socket_scripts.send_event(self._client, event.run_id, encode_event(event))

    def watch_events(self, run_id: str) -> AbstractAsyncContextManager[AsyncIterator[RunEvent]]:
        return self._sockets.watch(run_id)

    async def connected_runs(self) -> frozenset[str]:
        return await socket_scripts.connected_runs(self._client)

    async def report_load(self, loads: Mapping[str, Load], *, ttl_secs: float) -> None:
        if loads:
            encoded = {run_id: encode_load(load) for run_id, load in loads.items()}
            await value_scripts.keep_values(self._client, _LOADS, encoded, ttl_secs=ttl_secs, fence=self._routes.fence)

    async def loads(self) -> Mapping[str, Load]:
        return reading(decode_loads, await value_scripts.kept_values(self._client, _LOADS))

    async def report_troubles(self, troubles: Sequence[PoolTrouble], *, ttl_secs: float) -> None:
        fence, encoded = self._routes.fence, encode_troubles(troubles)
        await value_scripts.set_fenced(self._client, fence, _TROUBLES, encoded, ttl_secs=ttl_secs)

    async def troubles(self) -> Sequence[PoolTrouble]:
        found = await self._client.command("GET", self._client.keys.key(_TROUBLES))
        return reading(decode_troubles, found) if found is not None else ()

    async def lead(self, name: str, holder: str, *, ttl_secs: float) -> int | None:
        if name == LEADER:
            return await self._routes.lead(holder, ttl_secs=ttl_secs)
        lease = await route_scripts.lead(self._client, name, holder, ttl_secs=ttl_secs, guards_routes=False)
        return lease.token if lease is not None else None

    async def resign(self, name: str, holder: str) -> None:
        await route_scripts.resign(self._client, name, holder)

    async def announce(self, kind: str, process_id: str, facts: Mapping[str, str], *, ttl_secs: float) -> None:
        values = {process_id: encode_facts(facts)}
        await value_scripts.keep_values(self._client, ("presence", kind), values, ttl_secs=ttl_secs, fence=None)

    async def withdraw(self, kind: str, process_id: str) -> None:
        await value_scripts.drop_value(self._client, ("presence", kind), process_id)

    async def announced(self, kind: str) -> Mapping[str, Mapping[str, str]]:
        return reading(decode_presence, await value_scripts.kept_values(self._client, ("presence", kind)))

    @property
    def trouble(self) -> str | None:
        return self._client.trouble or self._ears.trouble

    def commands_issued(self) -> Mapping[str, int]:
        return dict(self._client.issued)

    async def close(self) -> None:
        """What it holds is given back by ``open_redis_signals``."""

    async def _hears_again(self) -> None:
        await self._sockets.renew()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._works.append(self._client.start_task(work))

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Its work in the background, for as long as the block lasts."""
        for work in (self._ears.run, self._ears.beat, self._sockets.renew_for_ever):
            self._start(work())
        try:
            yield
        finally:
            for started in self._works:
                started.cancel()
            self._ears.close()


@asynccontextmanager
async def open_redis_signals(
    address: RedisAddress, *, namespace: str, queue_bound: int = QUEUE_BOUND
) -> AsyncIterator[RedisSignals]:
    """For as long as the block lasts. Redis need not be there when it begins."""
    async with open_client(address, namespace=check_namespace(namespace)) as client:
        signals = RedisSignals(client, queue_bound=queue_bound)
        async with signals.working():
            yield signals


async def _changes(heard: Subscription[bytes]) -> AsyncIterator[Changed]:
    async for message in heard.read():
        yield reading(decode_changed, message)
