"""
No I/O: this process's picture of the live runs, fed by route changes, and what it has in flight in each.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from gateway.core.demand import RunUse
from gateway.core.lifecycle import Readiness
from gateway.core.standby import Generation, PoolKey
from gateway.proxy.open_streams import OpenStream
from gateway.state.ports import PoolBlocked, PoolFreed, RouteChange, RouteEnded, RoutesReset, RunRoute

ALL_SLOTS = sys.maxsize
"""The quota of a gateway that shares its runs with no other."""


@dataclass(slots=True, eq=False)
class LiveRun:
    """
    One run as this gateway sees it.

    ``taken`` slots count against the run's limit; ``viewers`` are requests by its live-view host, which don't but keep
    it in use all the same. ``used_at`` is when the last of either ended (or when the run was first seen). ``streams``
    are those of the former whose silence has a limit. ``watchers`` are called when its route has changed or is gone.
    ``quota`` is how many slots this gateway may have in use; below ``taken`` while some are to be given back.
    ``born_in`` is the epoch of the slot ledger at which it was first seen, if it had no place yet then.
    """

    route: RunRoute
    used_at: float
    taken: int = 0
    quota: int = ALL_SLOTS
    born_in: str = ""
    viewers: int = 0
    has_refused: bool = False
    is_gone: bool = False
    streams: set[OpenStream] = field(default_factory=set)
    watchers: list[Callable[[], None]] = field(default_factory=list)

    @property
    def is_frozen(self) -> bool:
        """Whether it stands still, or is about to, and would go on for who needs it."""
        return self.route.readiness is Readiness.FROZEN and not self.is_gone

    def tell_watchers(self) -> None:
        """Its route has changed, or it is gone."""
        for tell in tuple(self.watchers):
            tell()

    @property
    def is_serving(self) -> bool:
        """Whether it takes new requests now."""
        return self.route.readiness is Readiness.SERVING and not self.has_refused

    @property
    def is_overloaded(self) -> bool:
        """Whether new requests better go to another run."""
        return self.route.is_overloaded

    @property
    def last_use(self) -> float:
        """When it was last used, if nothing is open but streams."""
        return max([self.used_at, *(stream.heard_at for stream in self.streams)])

    def is_silent(self, now: float) -> bool:
        """Whether nothing is open but streams that are no use any more."""
        return len(self.silent_streams(now)) == self.taken + self.viewers

    def silent_streams(self, now: float) -> list[OpenStream]:
        """Those that are no use any more."""
        return [stream for stream in self.streams if stream.silent_at <= now]

    def idle_at(self, idle_timeout_secs: float) -> float:
        """When it reaches its idle timeout, if nothing happens until then; may be inf."""
        if len(self.streams) != self.taken + self.viewers:
            return math.inf
        return max([self.last_use + idle_timeout_secs, *(stream.silent_at for stream in self.streams)])

    def use(self, now: float, *, is_wanted: bool = False) -> RunUse:
        """
        What the autoscaler is told of it. *is_wanted*: somebody waits for a run, so it is seen that this one is full,
        were it of silent streams.
        """
        is_used = self.taken or self.viewers
        if self.streams and not is_wanted and self.is_silent(now):
            return RunUse(
                in_flight=0,
                idle_secs=max(0.0, now - self.last_use),
                has_refused=self.has_refused,
                silent=self.taken,
            )
        return RunUse(
            in_flight=self.taken,
            viewers=self.viewers,
            idle_secs=0.0 if is_used else max(0.0, now - self.used_at),
            has_refused=self.has_refused,
        )


class RouteTable:
    """Routes by run, by live-view label and by pool. All look-ups are dict accesses."""

    def __init__(self) -> None:
        self.version = 0
        self.changes = 0
        """Counts what may have changed whom ``serving`` names, so that its answer can be kept meanwhile."""
        self.first_quota = ALL_SLOTS
        """What this gateway may use of a run that it has just heard of."""
        self.epoch = ""
        """That of the slot ledger, where slots are borrowed."""
        self.revived: list[LiveRun] = []
        """Those that were gone and are there again, with what is in flight in them; whoever counts empties it."""
        self._gone_in_use: dict[str, LiveRun] = {}
        self._runs: dict[str, LiveRun] = {}
        self._by_label: dict[str, LiveRun] = {}
        self._pools: dict[PoolKey, dict[str, LiveRun]] = {}

    def apply(self, change: RouteChange, version: int, now: float) -> list[LiveRun]:
        """Take in one change; the runs that are gone by it."""
        self.version = version
        self.changes += 1
        match change:
            case RunRoute():
                self._put(change, now)
                return []
            case RouteEnded():
                gone = self._drop(change.run_id)
                return [gone] if gone else []
            case RoutesReset():
                present = {route.run_id for route in change.routes}
                dropped = [self._drop(run_id) for run_id in list(self._runs) if run_id not in present]
                for route in change.routes:
                    self._put(route, now)
                return [run for run in dropped if run]
            case PoolBlocked() | PoolFreed():
                return []

    def _put(self, route: RunRoute, now: float) -> None:
        run = self._runs.get(route.run_id)
        if run is None:
            run = self._revive(route.run_id) or LiveRun(route, used_at=now, quota=self.first_quota)
            if route.is_new:
                run.born_in = self.epoch
            self._runs[route.run_id] = run
            self._by_label[route.live_view_label] = run
            if route.pool is not None:
                self._pools.setdefault(route.pool, {})[route.run_id] = run
        elif route.readiness is not run.route.readiness or route.address != run.route.address:
            run.has_refused = False
        run.route = route
        run.tell_watchers()

    def _revive(self, run_id: str) -> LiveRun | None:
        """
        A run that was taken for gone, and is there all the same (the signals were lost, and then told anew): what is
        still in flight in it counts.
        """
        run = self._gone_in_use.pop(run_id, None)
        if run is not None:
            run.is_gone = run.has_refused = False
            self.revived.append(run)
        return run

    def left(self, run: LiveRun) -> None:
        """A request in *run* has ended; if it is gone, it is remembered only as long as others are in flight in it."""
        if run.is_gone and run.taken == 0 and self._gone_in_use.get(run.route.run_id) is run:
            del self._gone_in_use[run.route.run_id]

    def _drop(self, run_id: str) -> LiveRun | None:
        run = self._runs.pop(run_id, None)
        if run is None:
            return None
        run.is_gone = True
        run.quota = min(run.quota, self.first_quota)
        if run.taken:
            self._gone_in_use[run_id] = run
        run.tell_watchers()
        self._by_label.pop(run.route.live_view_label, None)
        if run.route.pool is not None:
            pool = self._pools[run.route.pool]
            del pool[run_id]
            if not pool:
                del self._pools[run.route.pool]
        return run

    def refused(self, run: LiveRun) -> None:
        """*run* refused a connection: it takes nothing until its route changes."""
        run.has_refused = True
        self.changes += 1

    def run(self, run_id: str) -> LiveRun | None:
        """The live run of this id."""
        return self._runs.get(run_id)

    def by_label(self, label: str) -> LiveRun | None:
        """The live run behind a live-view label."""
        return self._by_label.get(label)

    def all_runs(self) -> Iterator[LiveRun]:
        """Every live run."""
        return iter(self._runs.values())

    def pools(self) -> Iterable[PoolKey]:
        """Pools that have live runs."""
        return self._pools.keys()

    def runs_of(self, pool: PoolKey) -> Iterable[LiveRun]:
        """All live runs of *pool*, oldest first, whatever their readiness and generation."""
        return self._pools.get(pool, {}).values()

    def serving(self, pool: PoolKey, generation: Generation) -> tuple[list[LiveRun], list[LiveRun]]:
        """
        The runs that may take a new request: those of *generation*, and those before it.

        The latter serve on until the autoscaler retires them, for what the new ones have no room for yet: so a new
        build takes over without a gap.
        """
        able = [run for run in self.runs_of(pool) if run.is_serving]
        current = [run for run in able if run.route.generation == generation]
        return current, [run for run in able if run.route.generation != generation]

    def starting(self, pool: PoolKey) -> int:
        """How many runs of *pool* may begin to serve soon."""
        return sum(
            1
            for run in self.runs_of(pool)
            if run.route.readiness is Readiness.STARTING
            or (run.route.readiness is Readiness.SERVING and run.has_refused)
        )

    def has_placed(self, pool: PoolKey) -> bool:
        """Whether any run of *pool* has an address yet; one without is still being prepared."""
        return any(run.route.address is not None for run in self.runs_of(pool))
