"""
No I/O: what the policy remembers of a pool from one decision to the next, as a value.

It goes into a decision and comes out of it, so a decision can be made again from what is stored: no clock, no globals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from autoscaler.policy.foresight import Foresight
from autoscaler.policy.gaps import Gaps
from autoscaler.policy.habits import LEAST_QUIET_SECS, Habits
from autoscaler.policy.windows import NOTHING, SECS, Window

_HALF_LIFE_SECS = 300.0
_NEWEST_SHARE = 0.3
_LEAST_SECS = 1e-9
_NO_WINDOW = Window(0.0, 0.0)
_NO_GAPS = Gaps()
_NO_FORESIGHT = Foresight()


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """
    ``at``: when it was last decided; None: never, as after a restart. ``since``: when it began.
    ``in_flight``, ``waiting``, ``arrivals``: their averages (arrivals a second) over the last minute.
    ``busy_secs``, ``finished``: requests times seconds in runs, and requests that ended, the older the less.
    ``open_requests``: in flight and waiting at the last decision. ``starting``: runs that started then, with their age.
    ``start_secs``: how long starts take, the newest most; None: not seen yet.
    ``panic_at``: the last moment of panic. ``needs``: what was needed when, only those that no later one exceeds.
    ``quiet_since``: since when nothing is open. ``gaps``: how long such times were.
    ``ahead_at``: see ``platform_rule.Found``. ``began_with_runs``: the pool had runs when it began: it is a restart.
    ``foresight``: what runs are started ahead by.
    """

    at: float | None = None
    since: float = 0.0
    in_flight: Window = _NO_WINDOW
    waiting: Window = _NO_WINDOW
    arrivals: Window = _NO_WINDOW
    busy_secs: float = 0.0
    finished: float = 0.0
    open_requests: int = 0
    starting: tuple[tuple[str, float], ...] = ()
    start_secs: float | None = None
    panic_at: float | None = None
    needs: tuple[tuple[float, int], ...] = ()
    quiet_since: float | None = None
    gaps: Gaps = _NO_GAPS
    ahead_at: int | None = None
    began_with_runs: bool = False
    foresight: Foresight = _NO_FORESIGHT

    def until_seen(self, secs: float) -> float:
        """How long until *secs* have passed since it began; 0 when they have."""
        return max(0.0, self.since + secs - (self.at or 0.0))

    @property
    def service_secs(self) -> float | None:
        """How long a request takes in a run, by what was seen; None: none has ended yet."""
        return self.busy_secs / self.finished if self.finished >= 1 else None

    def asleep(self, now: float) -> Memory:
        """The same in less room, for a pool that sleeps: what was longer ago than a window is zero by now anyway."""
        windows = (self.in_flight, self.waiting, self.arrivals)
        if self.at is None or now - self.at <= SECS or all(window.areas is NOTHING for window in windows):
            return self
        in_flight, waiting, arrivals = (replace(window, areas=NOTHING) for window in windows)
        return replace(self, in_flight=in_flight, waiting=waiting, arrivals=arrivals)

    def with_need(self, now: float, needed: int, delay_secs: float) -> Memory:
        """After *needed* now; what is older than *delay_secs* is forgotten."""
        kept = [(at, number) for at, number in self.needs if at > now - delay_secs and number > needed]
        return replace(self, needs=(*kept, (now, needed)))

    def to_json(self) -> dict[str, Any]:
        """What is stored with a decision."""
        return {
            "at": self.at,
            "since": self.since,
            "inFlight": self.in_flight.to_json(),
            "waiting": self.waiting.to_json(),
            "arrivals": self.arrivals.to_json(),
            "busySecs": self.busy_secs,
            "finished": self.finished,
            "openRequests": self.open_requests,
            "starting": [list(pair) for pair in self.starting],
            "startSecs": self.start_secs,
            "panicAt": self.panic_at,
            "needs": [list(pair) for pair in self.needs],
            "quietSince": self.quiet_since,
            "gaps": list(self.gaps.counts),
            "aheadAt": self.ahead_at,
            "beganWithRuns": self.began_with_runs,
            "foresight": self.foresight.to_json() if self.foresight != _NO_FORESIGHT else None,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Memory:
        """The memory again, exactly."""
        return cls(
            at=stored["at"],
            since=stored["since"],
            in_flight=Window.from_json(stored["inFlight"]),
            waiting=Window.from_json(stored["waiting"]),
            arrivals=Window.from_json(stored["arrivals"]),
            busy_secs=stored["busySecs"],
            finished=stored["finished"],
            open_requests=stored["openRequests"],
            starting=tuple((run_id, age) for run_id, age in stored["starting"]),
            start_secs=stored["startSecs"],
            panic_at=stored["panicAt"],
            needs=tuple((at, number) for at, number in stored["needs"]),
            quiet_since=stored["quietSince"],
            gaps=Gaps(tuple(stored["gaps"])),
            ahead_at=stored["aheadAt"],
            began_with_runs=stored["beganWithRuns"],
            # Decisions that were stored before there was any have none.
            foresight=Foresight.from_json(stored["foresight"]) if stored.get("foresight") else _NO_FORESIGHT,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """
    What happened since the last decision: averages, arrivals, and where the runs are now.

    ``finished`` None: as many as came and are not there any more, those who were refused among them.
    """

    now: float
    average_in_flight: float
    average_waiting: float
    arrivals: int
    open_requests: int
    starting: tuple[tuple[str, float], ...]
    begun_to_serve: Mapping[str, tuple[float, float]]
    idle_secs: float
    has_runs: bool
    finished: int | None = None
    clock_secs: float | None = None


def after(memory: Memory, seen: Since) -> Memory:
    """
    The memory with what was seen. One whose clock is ahead of *seen* begins anew: it is of another machine's time.

    ``seen.begun_to_serve``: age and idle seconds of the runs that serve; of those that started before it is learned
    how long a start takes.
    """
    now = seen.now
    if memory.at is None or now < memory.at:
        empty = Window(now, now)
        memory = replace(memory, at=now, since=now, in_flight=empty, waiting=empty, arrivals=empty, needs=())
        memory = replace(memory, panic_at=None, quiet_since=None, starting=(), began_with_runs=seen.has_runs)
    assert memory.at is not None
    passed = now - memory.at
    finished = seen.finished
    if finished is None:
        finished = max(0, memory.open_requests + seen.arrivals - seen.open_requests)
    # Half as much after five minutes, in a form that is cheap where nothing happens.
    faded = _HALF_LIFE_SECS / (_HALF_LIFE_SECS + passed)
    quiet_since, gaps = _quiet(memory, seen)
    foresight = memory.foresight
    if seen.clock_secs is not None:
        foresight = replace(foresight, habits=_habits(memory, seen, seen.clock_secs))
    return replace(
        memory,
        at=now,
        in_flight=memory.in_flight.add(now, seen.average_in_flight),
        waiting=memory.waiting.add(now, seen.average_waiting),
        arrivals=memory.arrivals.add(now, seen.arrivals / passed) if passed >= _LEAST_SECS else memory.arrivals,
        busy_secs=memory.busy_secs * faded + seen.average_in_flight * passed,
        finished=memory.finished * faded + finished,
        open_requests=seen.open_requests,
        starting=seen.starting,
        start_secs=_start_secs(memory, seen),
        quiet_since=quiet_since,
        gaps=gaps,
        foresight=foresight,
    )


def _start_secs(memory: Memory, seen: Since) -> float | None:
    """E.g. seen starting at an age of 2 s and serving at one of 4 s, idle since: it took 4 s less the idle time."""
    known = memory.start_secs
    for run_id, age_before in memory.starting:
        found = seen.begun_to_serve.get(run_id)
        if found is not None:
            age, idle_secs = found
            took = max(age_before, age - idle_secs) if idle_secs else (age_before + age) / 2
            known = took if known is None else known + _NEWEST_SHARE * (took - known)
    return known


def _quiet(memory: Memory, seen: Since) -> tuple[float | None, Gaps]:
    """Since when nothing is open now, and the gaps with the one that has just ended."""
    now = seen.now
    if not seen.open_requests and not seen.arrivals:
        if memory.quiet_since is not None:
            return memory.quiet_since, memory.gaps
        return now - min(seen.idle_secs, now - memory.since), memory.gaps
    gaps = memory.gaps if memory.quiet_since is None else memory.gaps.add(now - memory.quiet_since)
    return (now - seen.idle_secs if not seen.open_requests else None), gaps


def _habits(memory: Memory, seen: Since, clock_secs: float) -> Habits:
    """With a wake, where somebody came after a long quiet."""
    habits = memory.foresight.habits.watched(clock_secs)
    if not seen.open_requests and not seen.arrivals:
        return habits
    was_quiet = memory.quiet_since is not None and seen.now - memory.quiet_since >= LEAST_QUIET_SECS
    return habits.woken(clock_secs) if was_quiet else habits
