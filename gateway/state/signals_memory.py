"""
Signals within one process: plain data and asyncio events, no server, nothing that survives it.

Methods never suspend, so what a caller sends has reached every subscriber's queue when the call returns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from gateway.core.demand import DemandReport
from gateway.core.load import Load
from gateway.core.trouble import PoolTrouble
from gateway.state.ports import (
    LEADER,
    Changed,
    NoLongerLeader,
    NumberedChange,
    PoolBlocked,
    PoolFreed,
    RouteChange,
    RouteEnded,
    RoutesReset,
    RunEvent,
    RunRoute,
)
from gateway.state.slots_memory import MemorySlots
from gateway.state.subscriptions import QUEUE_BOUND, Subscription


@dataclass(slots=True)
class _Store:
    """What all instances of one store have in common."""

    clock: Callable[[], float]
    queue_bound: int
    routes: dict[str, RunRoute] = field(default_factory=dict)
    routes_version: int = 0
    route_watchers: set[Subscription[NumberedChange]] = field(default_factory=set)
    change_watchers: set[Subscription[Changed]] = field(default_factory=set)
    event_watchers: dict[str, set[Subscription[RunEvent]]] = field(default_factory=dict)
    reports: dict[str, tuple[float, DemandReport]] = field(default_factory=dict)
    loads: dict[str, tuple[float, Load]] = field(default_factory=dict)
    troubles: tuple[float, tuple[PoolTrouble, ...]] = (0.0, ())
    poked: asyncio.Event = field(default_factory=asyncio.Event)
    reported: asyncio.Event = field(default_factory=asyncio.Event)
    leases: dict[str, tuple[str, float, int]] = field(default_factory=dict)
    last_fencing_token: int = 0
    newest_tokens: dict[str, int] = field(default_factory=dict)
    presence: dict[tuple[str, str], tuple[float, Mapping[str, str]]] = field(default_factory=dict)
    slots: MemorySlots = field(init=False)

    def __post_init__(self) -> None:
        self.slots = MemorySlots(self.clock)


class MemorySignals:
    """The Signals port for one process. *clock* is monotonic; *queue_bound* is messages per slow subscriber."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, queue_bound: int = QUEUE_BOUND) -> None:
        self._store = _Store(clock, queue_bound)
        self._token: int | None = None
        self._own: set[str] = set()

    def another(self) -> MemorySignals:
        """A second instance of the same store, such as each process has where there are several."""
        other = MemorySignals()
        other._store = self._store
        return other

    async def put_route(self, route: RunRoute) -> int:
        self._check_fence()
        self._store.routes[route.run_id] = route
        self._own.add(route.run_id)
        return self._tell_route(route)

    async def end_route(self, ended: RouteEnded) -> int:
        self._check_fence()
        self._store.routes.pop(ended.run_id, None)
        self._own.discard(ended.run_id)
        return self._tell_route(ended)

    async def publish_routes(self) -> int:
        self._check_fence()
        store = self._store
        store.routes = {run_id: route for run_id, route in store.routes.items() if run_id in self._own}
        store.routes_version += 1
        for watcher in store.route_watchers:
            watcher.restart_with(self._all_routes())
        return store.routes_version

    async def block_pool(self, blocked: PoolBlocked) -> None:
        self._check_fence()
        self._tell_route(blocked)

    async def free_pool(self, freed: PoolFreed) -> None:
        self._check_fence()
        self._tell_route(freed)

    def _check_fence(self) -> None:
        if self._token is not None and self._token != self._store.newest_tokens.get(LEADER):
            raise NoLongerLeader("Another autoscaler leads by now; this one's word doesn't count any more.")

    def _tell_route(self, change: RouteChange) -> int:
        store = self._store
        store.routes_version += 1
        for watcher in store.route_watchers:
            watcher.put(NumberedChange(version=store.routes_version, change=change))
            if watcher.has_lost:
                watcher.restart_with(self._all_routes())
        return store.routes_version

    def _all_routes(self) -> NumberedChange:
        store = self._store
        return NumberedChange(version=store.routes_version, change=RoutesReset(routes=tuple(store.routes.values())))

    async def routes(self) -> Sequence[RunRoute]:
        return tuple(self._store.routes.values())

    def watch_routes(self) -> AbstractAsyncContextManager[AsyncIterator[NumberedChange]]:
        return self._watch_routes()

    @asynccontextmanager
    async def _watch_routes(self) -> AsyncIterator[AsyncIterator[NumberedChange]]:
        watcher: Subscription[NumberedChange] = Subscription(self._store.queue_bound)
        watcher.put(self._all_routes())
        self._store.route_watchers.add(watcher)
        try:
            yield watcher.read()
        finally:
            self._store.route_watchers.discard(watcher)

    async def report_demand(self, report: DemandReport, *, ttl_secs: float, is_poke: bool = False) -> None:
        self._store.reports[report.gateway_id] = (self._store.clock() + ttl_secs, report)
        self._wake_report_waiters()
        if is_poke:
            self._store.poked.set()

    async def forget_demand(self, gateway_id: str) -> None:
        self._store.reports.pop(gateway_id, None)
        self._wake_report_waiters()

    def _wake_report_waiters(self) -> None:
        # Each report has an event of its own: whoever waits holds the next report's, however many wait.
        self._store.reported.set()
        self._store.reported = asyncio.Event()

    async def demand_reports(self) -> Sequence[DemandReport]:
        now = self._store.clock()
        self._store.reports = {name: kept for name, kept in self._store.reports.items() if kept[0] > now}
        return [report for _, report in self._store.reports.values()]

    async def wait_for_poke(self, timeout_secs: float) -> bool:
        return await _wait(self._store.poked, timeout_secs)

    async def poke(self) -> None:
        self._store.poked.set()

    async def wait_for_report(self, timeout_secs: float) -> bool:
        return await _wait(self._store.reported, timeout_secs, clear=False)

    async def changed(self, change: Changed) -> None:
        for watcher in self._store.change_watchers:
            watcher.put(change)

    def watch_changes(self) -> AbstractAsyncContextManager[AsyncIterator[Changed]]:
        return self._watch_changes()

    @asynccontextmanager
    async def _watch_changes(self) -> AsyncIterator[AsyncIterator[Changed]]:
        watcher: Subscription[Changed] = Subscription(self._store.queue_bound)
        self._store.change_watchers.add(watcher)
        try:
            yield watcher.read()
        finally:
            self._store.change_watchers.discard(watcher)

    async def send_event(self, event: RunEvent) -> int:
        watchers = self._store.event_watchers.get(event.run_id, set())
        for watcher in watchers:
            watcher.put(event)
        return len(watchers)

    def watch_events(self, run_id: str) -> AbstractAsyncContextManager[AsyncIterator[RunEvent]]:
        return self._watch_events(run_id)

    @asynccontextmanager
    async def _watch_events(self, run_id: str) -> AsyncIterator[AsyncIterator[RunEvent]]:
        watcher: Subscription[RunEvent] = Subscription(self._store.queue_bound)
        self._store.event_watchers.setdefault(run_id, set()).add(watcher)
        try:
            yield watcher.read()
        finally:
            left = self._store.event_watchers[run_id]
            left.discard(watcher)
            if not left:
                del self._store.event_watchers[run_id]

    async def connected_runs(self) -> frozenset[str]:
        return frozenset(self._store.event_watchers)

    async def report_load(self, loads: Mapping[str, Load], *, ttl_secs: float) -> None:
        self._check_fence()
        # Also the time to forget the runs that have ended: nobody may ever ask for loads.
        self._forget_old_loads()
        until = self._store.clock() + ttl_secs
        self._store.loads |= {run_id: (until, load) for run_id, load in loads.items()}

    async def loads(self) -> Mapping[str, Load]:
        self._forget_old_loads()
        return {run_id: load for run_id, (_, load) in self._store.loads.items()}

    def _forget_old_loads(self) -> None:
        now = self._store.clock()
        self._store.loads = {run_id: kept for run_id, kept in self._store.loads.items() if kept[0] > now}

    async def report_troubles(self, troubles: Sequence[PoolTrouble], *, ttl_secs: float) -> None:
        self._check_fence()
        self._store.troubles = self._store.clock() + ttl_secs, tuple(troubles)

    async def troubles(self) -> Sequence[PoolTrouble]:
        until, troubles = self._store.troubles
        return troubles if until > self._store.clock() else ()

    async def lead(self, name: str, holder: str, *, ttl_secs: float) -> int | None:
        store, now = self._store, self._store.clock()
        held = store.leases.get(name)
        if held is not None and held[1] > now:
            token = held[2]
            if held[0] != holder:
                return None
        else:
            if name == LEADER:
                self._own.clear()
            store.last_fencing_token += 1
            token = store.newest_tokens[name] = store.last_fencing_token
        store.leases[name] = (holder, now + ttl_secs, token)
        if name == LEADER:
            self._token = token
        return token

    async def resign(self, name: str, holder: str) -> None:
        held = self._store.leases.get(name)
        if held is not None and held[0] == holder:
            del self._store.leases[name]

    async def announce(self, kind: str, process_id: str, facts: Mapping[str, str], *, ttl_secs: float) -> None:
        self._store.presence[kind, process_id] = (self._store.clock() + ttl_secs, dict(facts))

    async def withdraw(self, kind: str, process_id: str) -> None:
        self._store.presence.pop((kind, process_id), None)

    async def announced(self, kind: str) -> Mapping[str, Mapping[str, str]]:
        now = self._store.clock()
        self._store.presence = {key: kept for key, kept in self._store.presence.items() if kept[0] > now}
        return {process_id: facts for (of, process_id), (_, facts) in self._store.presence.items() if of == kind}

    @property
    def trouble(self) -> str | None:
        return None

    def commands_issued(self) -> Mapping[str, int]:
        return {}

    @property
    def slots(self) -> MemorySlots:
        return self._store.slots

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
