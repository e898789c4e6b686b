"""
No I/O: a pool of runs in front of recorded traffic, as discrete events.

Requests wait first in, first out; each goes to the serving run with the fewest in flight. A run takes some seconds to
start and serves so many requests at once. The policy is asked every two seconds, and at once (a poke) when a request
finds no free slot. It sees what an autoscaler can see: averages since it was last asked, never the future.

A run costs from its start command until its drain has ended, or until a second after the last arrival.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

LIMIT = 4
START_SECS = 3.0
TICK_SECS = 2.0
LATE_SECS = 1.0
_TAIL_SECS = 1.0


@dataclass(frozen=True, slots=True)
class Workload:
    """
    When requests arrive and how long each is served, drawn beforehand: all policies see the same.

    ``start_secs``: how long the n-th start takes, over again from the first when there are more.
    """

    name: str
    arrivals: Sequence[float]
    services: Sequence[float]
    start_secs: Sequence[float] = (START_SECS,)
    limit: int = LIMIT

    @property
    def end(self) -> float:
        """Until when runs are counted."""
        return (self.arrivals[-1] if self.arrivals else 0.0) + _TAIL_SECS


@dataclass(slots=True)
class Run:
    """A run as the policy may look at it; only the engine changes it."""

    id: int
    born: float
    idle_since: float
    state: str = "starting"
    in_flight: int = 0

    def idle_secs(self, now: float) -> float:
        """How long it has had nothing to do; 0 while it starts."""
        return now - self.idle_since if self.state == "serving" and not self.in_flight else 0.0


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What the policy sees: the averages and ``arrivals`` are since it was last asked."""

    now: float
    is_poke: bool
    average_in_flight: float
    average_waiting: float
    arrivals: int
    waiting: int
    runs: Sequence[Run]
    limit: int

    @property
    def live(self) -> list[Run]:
        """Those that do not drain."""
        return [run for run in self.runs if run.state != "draining"]

    @property
    def average_load(self) -> float:
        """In flight and waiting."""
        return self.average_in_flight + self.average_waiting


class Chooser(Protocol):
    """A policy with its memory, for one pool from the beginning to the end."""

    def choose(self, seen: Glimpse) -> tuple[int, Sequence[int]]:
        """How many runs to start, and the ids of those to drain."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What it came to. ``timeline``: (second, runs that are paid for, requests in the pool) at each tick."""

    requests: int
    late: int
    run_secs: float
    starts: int
    waits: Sequence[float]
    timeline: Sequence[tuple[float, int, int]]

    def wait(self, share: float) -> float:
        """The wait that *share* of all requests do not exceed."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def simulate(load: Workload, chooser: Chooser, *, tick_secs: float = TICK_SECS) -> Outcome:
    """Play *load* against *chooser*; equal arguments give equal outcomes."""
    pool = _Pool(load, chooser)
    pool.play(tick_secs)
    return Outcome(
        requests=len(load.arrivals),
        late=sum(wait > LATE_SECS for wait in pool.waits),
        run_secs=pool.run_secs,
        starts=pool.started,
        waits=pool.waits,
        timeline=pool.timeline,
    )


@dataclass(slots=True)
class _Pool:
    load: Workload
    chooser: Chooser
    runs: dict[int, Run] = field(default_factory=dict)
    waiting: deque[int] = field(default_factory=deque)
    events: list[tuple[float, int, str, Any]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    timeline: list[tuple[float, int, int]] = field(default_factory=list)
    now: float = 0.0
    run_secs: float = 0.0
    started: int = 0
    _pushed: int = 0
    _in_flight: int = 0
    _flight_area: float = 0.0
    _wait_area: float = 0.0
    _arrived: int = 0
    _asked_at: float = 0.0

    def play(self, tick_secs: float) -> None:
        self.waits = [0.0] * len(self.load.arrivals)
        self.events = [(at, number, "arrive", number) for number, at in enumerate(self.load.arrivals)]
        self._pushed = len(self.events)
        ticks = int(self.load.end / tick_secs) + 1
        for number in range(ticks):
            self._push(number * tick_secs, "tick", None)
        heapq.heapify(self.events)
        while self.events:
            at, _, kind, what = heapq.heappop(self.events)
            self._flight_area += self._in_flight * (at - self.now)
            self._wait_area += len(self.waiting) * (at - self.now)
            self.now = at
            self._happen(kind, what)
            if at > self.load.end and not self.waiting:
                break
        self.now = max(self.now, self.load.end)
        for run in self.runs.values():
            self._pay(run)

    def _happen(self, kind: str, what: Any) -> None:
        if kind == "arrive":
            self._arrived += 1
            self.waiting.append(what)
            self._admit()
            if self.waiting:
                self._ask(is_poke=True)
        elif kind == "finish":
            self._finish(what)
            self._admit()
        elif kind == "serve" and what.state == "starting":
            what.state, what.idle_since = "serving", self.now
            self._admit()
        elif kind == "tick":
            self._ask(is_poke=False)
            self.timeline.append((self.now, len(self.runs), self._in_flight + len(self.waiting)))

    def _push(self, at: float, kind: str, what: Any) -> None:
        self._pushed += 1
        heapq.heappush(self.events, (at, self._pushed, kind, what))

    def _ask(self, *, is_poke: bool) -> None:
        passed = self.now - self._asked_at
        seen = Glimpse(
            now=self.now,
            is_poke=is_poke,
            average_in_flight=self._flight_area / passed if passed > 0 else float(self._in_flight),
            average_waiting=self._wait_area / passed if passed > 0 else float(len(self.waiting)),
            arrivals=self._arrived,
            waiting=len(self.waiting),
            runs=tuple(self.runs.values()),
            limit=self.load.limit,
        )
        self._flight_area = self._wait_area = 0.0
        self._arrived, self._asked_at = 0, self.now
        start, drain = self.chooser.choose(seen)
        for _ in range(start):
            self._start()
        for run_id in drain:
            self._drain(self.runs[run_id])

    def _start(self) -> None:
        self.started += 1
        run = Run(id=self.started, born=self.now, idle_since=self.now)
        self.runs[run.id] = run
        takes = self.load.start_secs[(self.started - 1) % len(self.load.start_secs)]
        self._push(self.now + takes, "serve", run)

    def _drain(self, run: Run) -> None:
        run.state = "draining"
        if not run.in_flight:
            self._end(run)

    def _end(self, run: Run) -> None:
        del self.runs[run.id]
        self._pay(run)

    def _pay(self, run: Run) -> None:
        self.run_secs += max(0.0, min(self.now, self.load.end) - run.born)

    def _finish(self, run: Run) -> None:
        self._in_flight -= 1
        run.in_flight -= 1
        if not run.in_flight:
            run.idle_since = self.now
            if run.state == "draining":
                self._end(run)

    def _admit(self) -> None:
        limit = self.load.limit
        while self.waiting:
            best: Run | None = None
            for run in self.runs.values():
                if (
                    run.state == "serving"
                    and run.in_flight < limit
                    and (best is None or run.in_flight < best.in_flight)
                ):
                    best = run
            if best is None:
                return
            number = self.waiting.popleft()
            best.in_flight += 1
            self._in_flight += 1
            self.waits[number] = self.now - self.load.arrivals[number]
            self._push(self.now + self.load.services[number], "finish", best)
