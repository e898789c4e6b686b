"""No I/O: which runs go: the emptiest, then the youngest; the idle ones whatever the windows say; those that retire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.policy.memory import Memory
from autoscaler.policy.observing import Observation, RunSeen
from autoscaler.policy.thresholds import Policy
from gateway.core.lifecycle import Readiness

Drain = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """``keep_secs``: how long the last run is kept. ``runs``: those that the idle rule takes. ``reason``: why so."""

    keep_secs: float
    runs: Sequence[RunSeen]
    reason: str


def idle_runs(policy: Policy, seen: Observation, memory: Memory, current: Sequence[RunSeen]) -> Idle:
    """
    The runs without any use for their whole idle timeout; all of them where the pool is quiet for as long as it pays.
    """
    timeout = seen.limits.idle_timeout_secs
    keep, reason = timeout, f"idle for {timeout:g} s"
    is_quiet = not memory.open_requests and not any(run.is_used for run in current)
    if policy.learns_idle_timeout and is_quiet and current and memory.gaps.total >= policy.gaps_needed:
        keep = memory.gaps.best_keep_secs(policy.wake_costs_secs, timeout)
        if keep < timeout:
            reason = f"idle for {keep:.0f} s, which pays by its own gaps"
    unused = [run for run in current if run.is_up and not run.is_used]
    if is_quiet and unused and min(run.idle_secs for run in unused) >= keep:
        return Idle(keep_secs=keep, runs=unused, reason=reason)
    idle = [run for run in unused if run.idle_secs >= timeout]
    return Idle(keep_secs=keep if is_quiet else timeout, runs=idle, reason=f"idle for {timeout:g} s")


def surplus(
    policy: Policy, idle: Idle, service_secs: float | None, current: Sequence[RunSeen], wanted: int
) -> list[RunSeen]:
    """
    The runs beyond *wanted*: those that the idle rule takes, then other unused ones, used ones only where requests are
    short; the frozen of them, then the youngest, since what is left serves at once and has the warmest caches. One that
    starts is no substitute yet for one that is up, and stays.
    """
    up = [run for run in current if run.is_up]
    number = min(len(current) - wanted, len(up) - wanted)
    if number <= 0:
        return []
    may_drain_used = service_secs is not None and service_secs <= policy.longest_drain_secs
    candidates = [run for run in up if not run.viewers and (may_drain_used or not run.in_flight)]
    idle_ids = {run.run_id for run in idle.runs}
    return sorted(
        candidates,
        key=lambda run: (
            run.in_flight,
            run.run_id not in idle_ids,
            run.state is not Readiness.FROZEN,
            run.age_secs,
        ),
    )[:number]


def retired(seen: Observation, old: Sequence[RunSeen], serving: int, floor: int) -> Drain:
    """Those of an old build or that must leave, once the others can carry it all; the idle ones need no successor."""
    timeout = seen.limits.idle_timeout_secs
    if serving and serving >= floor:
        return tuple((run.run_id, f"another run has taken over: {run.retires_because}") for run in old)
    return tuple((run.run_id, f"idle for {timeout:g} s") for run in old if not run.is_used and run.idle_secs >= timeout)


def next_idle_limit(seen: Observation, idle: Idle, kept: Sequence[RunSeen]) -> float | None:
    """The seconds until the next run reaches its limit; None where time alone changes nothing."""
    timeout = seen.limits.idle_timeout_secs
    waits = [limit - run.idle_secs for run in kept for limit in (timeout, idle.keep_secs) if not run.is_used]
    return min((wait for wait in waits if wait > 0), default=None)
