"""No I/O: a pool as it is at this moment: its runs, who uses them and who waits, and all that in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.api.quarantines import quarantine_view
from gateway.core.demand import DemandReport, RunUse, merge_runs
from gateway.core.lifecycle import Readiness
from gateway.core.load import Load
from gateway.core.standby import PoolKey, StandbyConfig, StandbyTarget
from gateway.core.trouble import PoolTrouble
from gateway.state.ports import RunRoute

_UNUSED = RunUse(in_flight=0, idle_secs=0.0)
_ORDER = (Readiness.SERVING, Readiness.STARTING, Readiness.FROZEN, Readiness.DRAINING)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolNow:
    """
    One pool: its runs with the use that all gateways make of them, and ``loads`` by run, as far as they are known.
    ``target`` None: its Actor is gone.
    """

    key: PoolKey
    target: StandbyTarget | None
    runs: tuple[tuple[RunRoute, RunUse], ...]
    waiting: int = 0
    trouble: PoolTrouble | None = None
    loads: Mapping[str, Load] = field(default_factory=dict)

    @property
    def in_flight(self) -> int:
        """Requests and sockets in its runs that are use."""
        return sum(use.in_flight for _, use in self.runs)

    @property
    def idle_secs(self) -> float | None:
        """How long the run that was used last has been without use; None: none is."""
        up = [use for route, use in self.runs if route.readiness in (Readiness.SERVING, Readiness.FROZEN)]
        if not up or any(use.is_used for use in up):
            return None
        return min(use.idle_secs for use in up)


def pools_now(
    keys: Iterable[PoolKey],
    target: StandbyTarget | None,
    routes: Sequence[RunRoute],
    reports: Sequence[DemandReport],
    troubles: Sequence[PoolTrouble],
    loads: Mapping[str, Load],
) -> list[PoolNow]:
    """The pools *keys*, all of the Actor that *target* is of, by the name of each."""
    uses = merge_runs(reports)
    in_trouble = {trouble.pool: trouble for trouble in troubles}
    runs: dict[PoolKey, list[tuple[RunRoute, RunUse]]] = {}
    for route in routes:
        if route.pool is not None:
            runs.setdefault(route.pool, []).append((route, uses.get(route.run_id, _UNUSED)))
    return [
        PoolNow(
            key=key,
            target=target,
            runs=tuple(runs.get(key, ())),
            waiting=sum(report.pools[key].waiting for report in reports if key in report.pools),
            trouble=in_trouble.get(key),
            loads=loads,
        )
        for key in sorted(keys, key=lambda key: key.id)
    ]


def pool_view(now: PoolNow) -> dict[str, Any]:
    """The pool as the API shows it; an object of Greenroom's own."""
    config = now.target.config if now.target is not None else StandbyConfig()
    return {
        "id": now.key.id,
        "actorId": now.key.target_id,
        "userId": now.key.user_id,
        "summary": summary(now),
        "inFlight": now.in_flight,
        "waiting": now.waiting,
        "runs": [_run_view(route, use, now) for route, use in now.runs],
        "settings": {
            "desiredRequestsPerActorRun": config.desired_requests_per_run,
            "maxRequestsPerActorRun": config.max_requests_per_run,
            "idleTimeoutSecs": config.idle_timeout_secs,
            "freezeAfterSecs": config.freeze_after_secs,
            "minRuns": config.min_runs,
            "maxRuns": config.max_runs,
        },
        "quarantine": quarantine_view(now.trouble) if now.trouble is not None else None,
    }


def _run_view(route: RunRoute, use: RunUse, now: PoolNow) -> dict[str, Any]:
    """CPU is in percent of one core; it and the memory are None where they are not known (yet)."""
    load = now.loads.get(route.run_id)
    return {
        "id": route.run_id,
        "readiness": str(route.readiness),
        "buildId": route.generation.build_id if route.generation is not None else None,
        "isOutdated": now.target is not None and route.generation != now.target.generation,
        "isOverloaded": route.is_overloaded,
        "cpuPercent": round(load.cpu_current, 1) if load is not None else None,
        "memoryBytes": load.memory_current if load is not None else None,
        "inFlight": use.in_flight,
        "liveViewRequests": use.viewers,
        "silentStreams": use.silent,
        "idleSecs": None if use.is_used else round(use.idle_secs, 3),
    }


def summary(now: PoolNow) -> str:
    """
    What a person has to know first, e.g. "1 run: unused for 12 s; wound down after 300 s without use, in 288 s."
    """
    target = now.target
    if target is None or not target.config.is_enabled:
        has = f"{_runs(now)}: the Actor has" if now.runs else "The Actor has"
        return f"{has} no standby mode{' any more' if now.runs else ''}."
    if now.trouble is not None:
        return now.trouble.message
    if target.generation is None and not now.runs:
        return f"No build of the Actor has the tag or number '{target.config.build}': there is nothing to run."
    if not now.runs:
        return f"No run yet: {_waiting(now)}." if now.waiting else _asleep(target.config)
    parts = [_used(now, target.config), _waiting(now)]
    return f"{_runs(now)}: {', '.join(part for part in parts if part)}; {_next(now, target.config)}."


def _runs(now: PoolNow) -> str:
    counts = {one: sum(route.readiness is one for route, _ in now.runs) for one in _ORDER}
    states = [f"{count} {one}" for one, count in counts.items() if count]
    if len(now.runs) == 1:
        return "1 run" if counts[Readiness.SERVING] else f"1 run, {states[0].partition(' ')[2]}"
    shown = "" if counts[Readiness.SERVING] == len(now.runs) else f" ({', '.join(states)})"
    return f"{len(now.runs)} runs{shown}"


def _used(now: PoolNow, config: StandbyConfig) -> str:
    viewers, silent = (sum(getattr(use, name) for _, use in now.runs) for name in ("viewers", "silent"))
    parts = []
    if now.in_flight:
        parts.append(f"{_count(now.in_flight, 'request')} in flight at up to {config.max_requests_per_run} each")
    if overloaded := sum(route.is_overloaded for route, _ in now.runs):
        parts.append(f"{overloaded} overloaded")
    if viewers:
        parts.append(f"{_count(viewers, 'request')} by the live view")
    if silent:
        parts.append(f"{_count(silent, 'socket or stream', 'sockets or streams')} silent for too long to be use")
    if not parts and now.idle_secs is not None:
        parts.append(f"unused for {now.idle_secs:.0f} s")
    return ", ".join(parts) or "not in use yet"


def _waiting(now: PoolNow) -> str:
    return f"{_count(now.waiting, 'request')} waiting for a run" if now.waiting else ""


def _next(now: PoolNow, config: StandbyConfig) -> str:
    if len(now.runs) <= config.min_runs:
        return f"kept warm by minRuns {config.min_runs}"
    down = f"wound down after {config.idle_timeout_secs:g} s without use"
    freeze = config.freeze_after_secs
    if freeze is not None and freeze < config.idle_timeout_secs:
        down = f"frozen after {freeze:g} s and {down}"
    if now.idle_secs is not None and now.idle_secs < config.idle_timeout_secs:
        down += f", in {config.idle_timeout_secs - now.idle_secs:.0f} s"
    return down + (f", but for {config.min_runs} that minRuns keeps warm" if config.min_runs else "")


def _asleep(config: StandbyConfig) -> str:
    if config.min_runs:
        return f"No run yet: minRuns {config.min_runs} starts as soon as pace and machine allow."
    return "Asleep: the next request starts a run."


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"
