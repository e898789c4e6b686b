"""
No I/O: what a decision looks at, and the same as JSON: what is stored with a decision, and what ``--policy-stdio`` of
``loadtests.simulate`` reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autoscaler.policy.memory import Memory
from gateway.core.errors import InvalidRequest
from gateway.core.lifecycle import Readiness

MOST_RUNS = 10_000
MOST_REQUESTS = 1_000_000
ANY_NUMBER = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    What the owner of the pool has set: see ``StandbyConfig``. Here the desired requests may be fractional.

    ``freeze_after_secs`` None: runs are not frozen. ``freeze_with_open_sockets``: not even an open socket holds it off.
    """

    max_requests_per_run: int = 4
    desired_requests_per_run: float = 3
    idle_timeout_secs: float = 300
    min_runs: int = 0
    max_runs: int | None = None
    freeze_after_secs: float | None = None
    freeze_with_open_sockets: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSeen:
    """
    One run: its use over all gateways, and its age.

    ``viewers`` are use, but no load. ``overloaded_ratio``: the share of the last seconds in which its CPU was at its
    limit. ``cpu_ratio``: how much of its limit it uses, over the last seconds; None: unknown. ``has_open_sockets``:
    sockets or streams are open that have been silent for so long that they are no use, and not in flight.
    ``retires_because``: it is of an old build or must leave its machine; it is replaced, then wound down.
    ``may_freeze``: false where its launcher can't do that, where it is being ended, or listens to the system's events.
    """

    run_id: str
    state: Readiness
    age_secs: float = 0.0
    in_flight: int = 0
    idle_secs: float = 0.0
    viewers: int = 0
    overloaded_ratio: float = 0.0
    retires_because: str | None = None
    cpu_ratio: float | None = None
    has_open_sockets: bool = False
    may_freeze: bool = True

    @property
    def is_used(self) -> bool:
        """Whether anything is open."""
        return bool(self.in_flight or self.viewers)

    @property
    def is_up(self) -> bool:
        """Whether it takes requests, or would as soon as it is resumed."""
        return self.state is Readiness.SERVING or self.state is Readiness.FROZEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """
    All that a decision looks at beside the policy and the time.

    ``average_in_flight`` and ``average_waiting`` are over the time since the last decision (None: as it is now), and so
    are ``arrivals`` (None: as many as are more than before) and those that ended in a run, ``finished`` (None: as many
    as came and are not there any more). ``service_secs`` and ``start_secs``: how long a request
    and a start take, where that is measured; None: as the policy itself has seen it. ``is_on``: False when the target
    can't have runs any more. ``may_start``: how many starts pace and machine allow. ``start_unasked``: runs may be
    started that nobody waits for. ``has_cpu_left``: whether one more run would find CPU on the machine.
    ``clock_secs``: the time of day as seconds since 1970 in UTC; None: habits of the day and the week are not learned.
    """

    limits: Limits
    runs: Sequence[RunSeen] = ()
    waiting: int = 0
    average_in_flight: float | None = None
    average_waiting: float | None = None
    arrivals: int | None = None
    finished: int | None = None
    service_secs: float | None = None
    start_secs: float | None = None
    is_on: bool = True
    may_start: int = ANY_NUMBER
    start_unasked: bool = True
    has_cpu_left: bool = True
    clock_secs: float | None = None
    memory: Memory = field(default_factory=Memory)

    @property
    def open_requests(self) -> int:
        """Those that runs of now or later have to serve: who is in a draining run stays there to his end."""
        return self.waiting + sum(run.in_flight for run in self.runs if run.state is not Readiness.DRAINING)

    def to_json(self) -> dict[str, Any]:
        """What is stored: ``from_json`` gives the same observation."""
        limits = self.limits
        return {
            "settings": {
                "maxRequestsPerActorRun": limits.max_requests_per_run,
                "desiredRequestsPerActorRun": limits.desired_requests_per_run,
                "idleTimeoutSecs": limits.idle_timeout_secs,
                "minRuns": limits.min_runs,
                "maxRuns": limits.max_runs,
                "freezeAfterSecs": limits.freeze_after_secs,
                "freezeWithOpenSockets": limits.freeze_with_open_sockets,
            },
            "runs": [
                {
                    "id": run.run_id,
                    "state": str(run.state),
                    "ageSecs": run.age_secs,
                    "inFlight": run.in_flight,
                    "idleSecs": run.idle_secs,
                    "viewers": run.viewers,
                    "overloadedRatio": run.overloaded_ratio,
                    "retiresBecause": run.retires_because,
                    "cpuRatio": run.cpu_ratio,
                    "hasOpenSockets": run.has_open_sockets,
                    "mayFreeze": run.may_freeze,
                }
                for run in self.runs
            ],
            "waiting": self.waiting,
            "averages": {"inFlight": self.average_in_flight, "waiting": self.average_waiting},
            "arrivals": self.arrivals,
            "finished": self.finished,
            "serviceSecs": self.service_secs,
            "startSecs": self.start_secs,
            "isOn": self.is_on,
            "mayStart": self.may_start,
            "startUnasked": self.start_unasked,
            "hasCpuLeft": self.has_cpu_left,
            "clockSecs": self.clock_secs,
            "memory": self.memory.to_json(),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Observation:
        """
        The observation that ``to_json`` gave, or one that somebody wrote: all is optional but ``runs``.

        :raises InvalidRequest: names the field and what is expected there.
        """
        averages = _object(stored, "averages")
        runs = stored.get("runs")
        if not isinstance(runs, list) or len(runs) > MOST_RUNS:
            raise InvalidRequest(f"runs is a list of at most {MOST_RUNS} objects; [] where there are none.")
        seen = tuple(_run(run, number) for number, run in enumerate(runs))
        if len({run.run_id for run in seen}) < len(seen):
            raise InvalidRequest("runs: each has an id of its own.")
        return cls(
            limits=_limits(_object(stored, "settings")),
            runs=seen,
            waiting=_whole(stored, "waiting", 0),
            average_in_flight=_number(averages, "inFlight", None, most=MOST_REQUESTS),
            average_waiting=_number(averages, "waiting", None, most=MOST_REQUESTS),
            arrivals=_whole(stored, "arrivals", None),
            finished=_whole(stored, "finished", None),
            service_secs=_number(stored, "serviceSecs", None),
            start_secs=_number(stored, "startSecs", None),
            is_on=_flag(stored, "isOn"),
            may_start=_whole(stored, "mayStart", ANY_NUMBER),
            start_unasked=_flag(stored, "startUnasked"),
            has_cpu_left=_flag(stored, "hasCpuLeft"),
            clock_secs=_number(stored, "clockSecs", None, most=1e11),
            memory=Memory.from_json(stored["memory"]) if stored.get("memory") is not None else Memory(),
        )


def _limits(given: Mapping[str, Any]) -> Limits:
    plain = Limits()
    most = _whole(given, "maxRequestsPerActorRun", plain.max_requests_per_run, least=1)
    return Limits(
        max_requests_per_run=most,
        desired_requests_per_run=_number(
            given, "desiredRequestsPerActorRun", min(plain.desired_requests_per_run, most), least=0.01, most=most
        ),
        idle_timeout_secs=_number(given, "idleTimeoutSecs", plain.idle_timeout_secs),
        min_runs=_whole(given, "minRuns", 0, most=MOST_RUNS),
        max_runs=_whole(given, "maxRuns", None, least=1, most=MOST_RUNS),
        freeze_after_secs=_number(given, "freezeAfterSecs", None),
        freeze_with_open_sockets=_flag(given, "freezeWithOpenSockets", default=False),
    )


def _run(given: Any, number: int) -> RunSeen:
    if not isinstance(given, dict):
        raise InvalidRequest(f"runs[{number}] is an object with at least id and state.")
    run_id, state, retires = given.get("id"), given.get("state"), given.get("retiresBecause")
    if not isinstance(run_id, str | int) or isinstance(run_id, bool) or run_id == "":
        raise InvalidRequest(f"runs[{number}].id is a text or a whole number.")
    if state not in list(Readiness):
        raise InvalidRequest(f"runs[{number}].state is one of {', '.join(Readiness)}.")
    if retires is not None and not isinstance(retires, str):
        raise InvalidRequest(f"runs[{number}].retiresBecause is a text or null.")
    return RunSeen(
        run_id=str(run_id),
        state=Readiness(state),
        age_secs=_number(given, "ageSecs", 0.0),
        in_flight=_whole(given, "inFlight", 0),
        idle_secs=_number(given, "idleSecs", 0.0),
        viewers=_whole(given, "viewers", 0),
        overloaded_ratio=_number(given, "overloadedRatio", 0.0, most=1.0),
        retires_because=retires,
        cpu_ratio=_number(given, "cpuRatio", None),
        has_open_sockets=_flag(given, "hasOpenSockets", default=False),
        may_freeze=_flag(given, "mayFreeze"),
    )


def _object(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = given.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{key} is an object, not {value!r:.60}.")
    return value


def _flag(given: Mapping[str, Any], key: str, *, default: bool = True) -> bool:
    value = given.get(key, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{key} is true or false, not {value!r:.60}.")
    return value


def _whole(given: Mapping[str, Any], key: str, default: Any, *, least: int = 0, most: int = MOST_REQUESTS) -> Any:
    value = given.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest(f"{key} is a whole number from {least} to {most}, not {value!r:.60}.")
    return value


def _number(given: Mapping[str, Any], key: str, default: Any, *, least: float = 0.0, most: float = 1e9) -> Any:
    value = given.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequest(f"{key} is a number, not {value!r:.60}.")
    if not least <= value <= most:
        raise InvalidRequest(f"{key} is a number from {least:g} to {most:g}, not {value!r:.60}.")
    return value
