"""
Signals within one process: plain data and asyncio events, no server, nothing that survives it.

Methods never suspend, so what a caller sends has reached every subscriber's queue when the call returns.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, TypeVar

from gateway.core.demand import DemandReport
from gateway.core.load import Load
from gateway.core.trouble import PoolTrouble
from gateway.state.ports import (
    Changed,
    NumberedChange,
    PoolBlocked,
    PoolFreed,
    RouteChange,
    RouteEnded,
    RoutesReset,
    RunEvent,
    RunRoute,
)

T = TypeVar("T")

_QUEUE_BOUND = 10_000


class _Subscription(Generic[T]):
    """What one subscriber has not read yet; full, it loses the oldest (``has_lost`` tells)."""

    def __init__(self, bound: int) -> None:
        self._messages: deque[T] = deque(maxlen=bound)
        self._arrived = asyncio.Event()
        self.has_lost = False

    def put(self, message: T) -> None:
        if len(self._messages) == self._messages.maxlen:
            self.has_lost = True
        self._messages.append(message)
        self._arrived.set()

    def restart_with(self, message: T) -> None:
        self._messages.clear()
        self.has_lost = False
        self.put(message)

    async def read(self) -> AsyncIterator[T]:
        while True:
            while self._messages:
                yield self._messages.popleft()
            self._arrived.clear()
            await self._arrived.wait()


class MemorySignals:
    """The Signals port for one process. *clock* is monotonic; *queue_bound* is messages per slow subscriber."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, queue_bound: int = _QUEUE_BOUND) -> None:
        self._clock = clock
        self._queue_bound = queue_bound
        self._routes: dict[str, RunRoute] = {}
        self._routes_version = 0
        self._route_watchers: set[_Subscription[NumberedChange]] = set()
        self._change_watchers: set[_Subscription[Changed]] = set()
        self._event_watchers: dict[str, set[_Subscription[RunEvent]]] = {}
        self._reports: dict[str, tuple[float, DemandReport]] = {}
        self._loads: dict[str, tuple[float, Load]] = {}
        self._troubles: tuple[float, tuple[PoolTrouble, ...]] = (0.0, ())
        self._poked = asyncio.Event()
        self._reported = asyncio.Event()
        self._leases: dict[str, tuple[str, float, int]] = {}
        self._last_fencing_token = 0

    async def put_route(self, route: RunRoute) -> int:
        self._routes[route.run_id] = route
        return self._tell_route(route)

    async def end_route(self, ended: RouteEnded) -> int:
        self._routes.pop(ended.run_id, None)
        return self._tell_route(ended)

    async def block_pool(self, blocked: PoolBlocked) -> None:
        self._tell_route(blocked)

    async def free_pool(self, freed: PoolFreed) -> None:
        self._tell_route(freed)

    def _tell_route(self, change: RouteChange) -> int:
        self._routes_version += 1
        for watcher in self._route_watchers:
            watcher.put(NumberedChange(version=self._routes_version, change=change))
            if watcher.has_lost:
                watcher.restart_with(self._all_routes())
        return self._routes_version

    def _all_routes(self) -> NumberedChange:
        return NumberedChange(version=self._routes_version, change=RoutesReset(routes=tuple(self._routes.values())))

    def watch_routes(self) -> AbstractAsyncContextManager[AsyncIterator[NumberedChange]]:
        return self._watch_routes()

    @asynccontextmanager
    async def _watch_routes(self) -> AsyncIterator[AsyncIterator[NumberedChange]]:
        watcher: _Subscription[NumberedChange] = _Subscription(self._queue_bound)
        watcher.put(self._all_routes())
        self._route_watchers.add(watcher)
        try:
            yield watcher.read()
        finally:
            self._route_watchers.discard(watcher)

    async def report_demand(self, report: DemandReport, *, ttl_secs: float, is_poke: bool = False) -> None:
        self._reports[report.gateway_id] = (self._clock() + ttl_secs, report)
        self._wake_report_waiters()
        if is_poke:
            self._poked.set()

    async def forget_demand(self, gateway_id: str) -> None:
        self._reports.pop(gateway_id, None)
        self._wake_report_waiters()

    def _wake_report_waiters(self) -> None:
        # Each report has an event of its own: whoever waits holds the next report's, however many wait.
        self._reported.set()
        self._reported = asyncio.Event()

    async def demand_reports(self) -> Sequence[DemandReport]:
        now = self._clock()
        self._reports = {name: kept for name, kept in self._reports.items() if kept[0] > now}
        return [report for _, report in self._reports.values()]

    async def wait_for_poke(self, timeout_secs: float) -> bool:
        return await _wait(self._poked, timeout_secs)

    async def poke(self) -> None:
        self._poked.set()

    async def wait_for_report(self, timeout_secs: float) -> bool:
        return await _wait(self._reported, timeout_secs, clear=False)

    async def changed(self, change: Changed) -> None:
        for watcher in self._change_watchers:
            watcher.put(change)

    def watch_changes(self) -> AbstractAsyncContextManager[AsyncIterator[Changed]]:
        return self._watch_changes()

    @asynccontextmanager
    async def _watch_changes(self) -> AsyncIterator[AsyncIterator[Changed]]:
        watcher: _Subscription[Changed] = _Subscription(self._queue_bound)
        self._change_watchers.add(watcher)
        try:
            yield watcher.read()
        finally:
            self._change_watchers.discard(watcher)

    async def send_event(self, event: RunEvent) -> int:
        watchers = self._event_watchers.get(event.run_id, set())
        for watcher in watchers:
            watcher.put(event)
        return len(watchers)

    def watch_events(self, run_id: str) -> AbstractAsyncContextManager[AsyncIterator[RunEvent]]:
        return self._watch_events(run_id)

    @asynccontextmanager
    async def _watch_events(self, run_id: str) -> AsyncIterator[AsyncIterator[RunEvent]]:
        watcher: _Subscription[RunEvent] = _Subscription(self._queue_bound)
        self._event_watchers.setdefault(run_id, set()).add(watcher)
        try:
            yield watcher.read()
        finally:
            left = self._event_watchers[run_id]
            left.discard(watcher)
            if not left:
                del self._event_watchers[run_id]

    async def connected_runs(self) -> frozenset[str]:
        return frozenset(self._event_watchers)

    async def report_load(self, loads: Mapping[str, Load], *, ttl_secs: float) -> None:
        # Also the time to forget the runs that have ended: nobody may ever ask for loads.
        self._forget_old_loads()
        until = self._clock() + ttl_secs
        self._loads |= {run_id: (until, load) for run_id, load in loads.items()}

    async def loads(self) -> Mapping[str, Load]:
        self._forget_old_loads()
        return {run_id: load for run_id, (_, load) in self._loads.items()}

    def _forget_old_loads(self) -> None:
        now = self._clock()
        self._loads = {run_id: kept for run_id, kept in self._loads.items() if kept[0] > now}

    async def report_troubles(self, troubles: Sequence[PoolTrouble], *, ttl_secs: float) -> None:
        self._troubles = self._clock() + ttl_secs, tuple(troubles)

    async def troubles(self) -> Sequence[PoolTrouble]:
        until, troubles = self._troubles
        return troubles if until > self._clock() else ()

    async def lead(self, name: str, holder: str, *, ttl_secs: float) -> int | None:
        now = self._clock()
        held = self._leases.get(name)
        if held is not None and held[1] > now:
            if held[0] != holder:
                return None
            self._leases[name] = (holder, now + ttl_secs, held[2])
            return held[2]
        self._last_fencing_token += 1
        self._leases[name] = (holder, now + ttl_secs, self._last_fencing_token)
        return self._last_fencing_token

    async def resign(self, name: str, holder: str) -> None:
        held = self._leases.get(name)
        if held is not None and held[0] == holder:
            del self._leases[name]

    async def close(self) -> None:
        """Nothing is held that outlives the process."""


async def _wait(event: asyncio.Event, timeout_secs: float, *, clear: bool = True) -> bool:
    try:
        async with asyncio.timeout(timeout_secs):
            await event.wait()
    except TimeoutError:
        return False
    if clear:
        event.clear()
    return True
