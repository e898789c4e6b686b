"""Any sequence of what may happen to routes, their leader, their watchers and Redis: in the end all agree."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis_server import RedisServer, leaks, new_namespace
from state.redis.waiting import DEADLINE_SECS, until, until_answered

from gateway.core.lifecycle import Readiness
from gateway.state.ports import (
    LEADER,
    NoLongerLeader,
    RouteEnded,
    RoutesReset,
    RunRoute,
    Signals,
    StateUnavailable,
)
from gateway.state.redis.address import parse_address
from gateway.state.redis.signals import open_redis_signals

Routes: TypeAlias = dict[str, RunRoute]
_DATABASE = 3
_QUEUE_BOUND = 5  # so that slow watchers fall behind

_RUNS = st.sampled_from(["one", "two", "three"])
_STEPS = st.one_of(
    st.tuples(st.just("put"), _RUNS, st.sampled_from(Readiness)),
    st.tuples(st.just("end"), _RUNS),
    st.tuples(st.just("burst"), _RUNS),
    st.tuples(st.just("renew")),
    st.tuples(st.just("other leads")),
    st.tuples(st.just("empty")),
    st.tuples(st.just("cut"), st.sampled_from(["normal", "pubsub"])),
    st.tuples(st.just("hold")),
    st.tuples(st.just("go")),
)


def _route(run_id: str, readiness: Readiness = Readiness.SERVING) -> RunRoute:
    return RunRoute(run_id=run_id, actor_id="a", user_id="u", live_view_label=run_id, readiness=readiness)


@dataclass
class Leader:
    """One autoscaler, and the runs that it knows to live."""

    signals: Signals
    name: str
    token: int | None = None
    versions: list[int] = field(default_factory=list)

    async def lead(self, runs: Routes) -> None:
        """Take or renew the lead; with a new one take all runs over, as a real one does."""
        token = await until_answered(lambda: self.signals.lead(LEADER, self.name, ttl_secs=60))
        assert token is not None
        if token == self.token:
            return
        assert self.token is None or token > self.token
        self.token = token
        for route in runs.values():
            await self._told(lambda route=route: self.signals.put_route(route))  # type: ignore[misc]
        await until_answered(self.signals.publish_routes)

    async def _told(self, tell: Any) -> None:
        """A change that can't be told now is repeated, or told by what is published once it can."""
        try:
            self.versions.append(await tell())
        except NoLongerLeader:
            raise
        except StateUnavailable:
            return

    async def put(self, route: RunRoute) -> None:
        await self._told(lambda: self.signals.put_route(route))

    async def end(self, run_id: str) -> None:
        await self._told(lambda: self.signals.end_route(RouteEnded(run_id=run_id, live_view_label=run_id)))


@dataclass
class Watcher:
    """One gateway: what it knows, and the last version that it has seen. It reads on while it ``goes``."""

    signals: Signals
    routes: Routes = field(default_factory=dict)
    version: int = 0
    goes: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        self.goes.set()
        while True:
            try:
                await self._follow()
            except StateUnavailable:
                await asyncio.sleep(0.01)

    async def _follow(self) -> None:
        async with self.signals.watch_routes() as changes:
            async for numbered in changes:
                assert numbered.version >= self.version
                self.version = numbered.version
                match numbered.change:
                    case RoutesReset(routes=routes):
                        self.routes = {route.run_id: route for route in routes}
                    case RunRoute() as route:
                        self.routes[route.run_id] = route
                    case RouteEnded(run_id=run_id):
                        self.routes.pop(run_id, None)
                await self.goes.wait()


async def _refused(signals: Signals) -> None:
    """Whose lead is over hears so, as soon as Redis can be reached."""
    while True:
        try:
            await signals.put_route(_route("none of yours"))
        except NoLongerLeader:
            return
        except StateUnavailable:
            await asyncio.sleep(0.01)
        else:
            raise AssertionError("it was let through")


async def _play(server: RedisServer, steps: Sequence[Any]) -> None:
    namespace = new_namespace()
    address = parse_address(server.url(_DATABASE))
    runs: Routes = {}
    async with AsyncExitStack() as stack:

        async def instance() -> Signals:
            return await stack.enter_async_context(
                open_redis_signals(address, namespace=namespace, queue_bound=_QUEUE_BOUND)
            )

        leader, spare = Leader(await instance(), "a"), Leader(await instance(), "b")
        watchers = [Watcher(await instance()), Watcher(await instance())]
        admin = stack.enter_context(server.client(_DATABASE))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        following = [group.create_task(watcher.follow()) for watcher in watchers]
        await leader.lead(runs)
        for step in steps:
            match step:
                case ("put", run_id, readiness):
                    runs[run_id] = _route(run_id, readiness)
                    await leader.put(runs[run_id])
                case ("end", run_id):
                    runs.pop(run_id, None)
                    await leader.end(run_id)
                case ("burst", run_id):
                    for readiness in (Readiness.STARTING, Readiness.DRAINING) * 5:
                        runs[run_id] = _route(run_id, readiness)
                        await leader.put(runs[run_id])
                case ("renew",):
                    await leader.lead(runs)
                case ("other leads",):
                    admin.delete(f"{{{namespace}}}:lease:{LEADER}")  # its time is over
                    leader, spare = spare, leader
                    await leader.lead(runs)
                    await _refused(spare.signals)
                case ("empty",):
                    admin.flushdb()
                case ("cut", kind):
                    admin.client_kill_filter(_type=kind, skipme=True)
                case ("hold",):
                    watchers[0].goes.clear()
                case ("go",):
                    watchers[0].goes.set()
                    await asyncio.sleep(0.01)
        watchers[0].goes.set()
        await leader.lead(runs)  # as each second
        await until(lambda: all(watcher.routes == runs for watcher in watchers))
        assert leader.versions == sorted(set(leader.versions))
        assert leaks(admin, namespace) == []
        for task in following:
            task.cancel()


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_STEPS, max_size=25))
@example(steps=[("hold",), ("burst", "one"), ("put", "two", Readiness.SERVING), ("burst", "one")])
@example(
    steps=[("put", "one", Readiness.SERVING), ("cut", "normal"), ("end", "one"), ("put", "two", Readiness.SERVING)]
)
@example(steps=[("put", "one", Readiness.SERVING), ("other leads",), ("end", "one"), ("empty",), ("other leads",)])
async def test_all_agree_in_the_end(redis_server: RedisServer, steps: Sequence[Any]) -> None:
    """
    Who watches ends up with just the runs that live, whatever was lost on the way; versions never go back, and of two
    that think they lead the word of the newer one counts.
    """
    with redis_server.client(_DATABASE) as admin:
        admin.flushdb()
    async with asyncio.timeout(DEADLINE_SECS):
        await _play(redis_server, steps)
