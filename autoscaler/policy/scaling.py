"""
No I/O: how many runs a pool should have, and what to do about it, with the reasons in words.

The rules are the platform's own (apify-platform.md §1.6): as many runs as hold all requests at the limit of each; one
more, ahead of demand, when every run is above its desired load; a run without use for its idle timeout is wound down;
a new build's run serves first, then those of the old one are retired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.lifecycle import Readiness
from gateway.core.standby import Generation, StandbyConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One live run of the pool: its use over all gateways, and its age."""

    run_id: str
    generation: Generation
    readiness: Readiness
    in_flight: int
    idle_secs: float
    age_secs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """
    All that a decision looks at. ``generation`` is None when the target can't have runs any more (deleted, switched
    off, its build gone). ``may_start`` is how many starts the limits on pace and machine allow now; ``start_unasked``:
    runs may be started that nobody waits for (false after failures, for a while): those ahead of demand, the first of a
    new build, ``minRuns``. What is there already is kept all the same.
    """

    config: StandbyConfig
    generation: Generation | None
    waiting: int
    runs: Sequence[RunView]
    may_start: int
    start_unasked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """
    What the pool should have and what is done for it now.

    ``look_again_in_secs``: when the next run reaches its idle timeout; None: nothing will change by time alone.
    """

    wanted_runs: int
    present_runs: int
    start: int
    drain: tuple[tuple[str, str], ...]
    reasons: tuple[str, ...]
    look_again_in_secs: float | None


def decide(seen: Observation) -> Decision:
    """The decision for one pool; equal observations give equal decisions."""
    live = [run for run in seen.runs if run.readiness is not Readiness.DRAINING]
    if seen.generation is None:
        why = "the Actor no longer has standby mode or a build for it"
        drain = tuple((run.run_id, why) for run in live)
        return Decision(
            wanted_runs=0,
            present_runs=len(live),
            start=0,
            drain=drain,
            reasons=(f"0 runs: {why}",),
            look_again_in_secs=None,
        )
    current = [run for run in live if run.generation == seen.generation]
    old = [run for run in live if run.generation != seen.generation]
    asked, needed, reasons = _needed(seen, current, old)
    wanted = min(needed, seen.config.max_runs) if seen.config.max_runs is not None else needed
    if wanted < needed:
        reasons.append(f"held at maxRuns {wanted}")
    missing = max(0, wanted - len(current))
    due = missing if seen.start_unasked else max(0, min(asked, wanted) - len(current))
    start = min(due, seen.may_start)
    if missing > due:
        reasons.append(f"{missing - due} that nobody waits for later, since starts have failed")
    if due > start:
        reasons.append(f"{due - start} more as soon as pace and machine allow")
    drain, look_again = _wind_down(seen, current, old, floor=wanted)
    return Decision(
        wanted_runs=wanted,
        present_runs=len(current),
        start=start,
        drain=drain,
        reasons=tuple(reasons),
        look_again_in_secs=look_again,
    )


def _needed(seen: Observation, current: list[RunView], old: list[RunView]) -> tuple[int, int, list[str]]:
    """Runs that hold all present requests; the same with those that nobody waits for; why."""
    config = seen.config
    in_flight = sum(run.in_flight for run in current)
    # Old runs have room too while none of the new generation serves, but whoever waits shall go to the new ones.
    asked = needed = math.ceil((in_flight + seen.waiting) / config.max_requests_per_run)
    load = f"{in_flight} requests in flight and {seen.waiting} waiting"
    reasons = [f"{needed} runs: {load} at up to {config.max_requests_per_run} each"]
    busy = [run for run in current if run.in_flight > config.desired_requests_per_run]
    if current and len(busy) == len(current) and needed <= len(current):
        needed = len(current) + 1
        reasons.append(f"one ahead: every run is above its desired {config.desired_requests_per_run}")
    if old and needed < 1:
        needed = 1
        reasons.append("one of the new build, before those of the old one are retired")
    if config.min_runs > needed:
        needed = config.min_runs
        reasons.append(f"minRuns {config.min_runs}")
    return asked, needed, reasons


def _wind_down(
    seen: Observation, current: list[RunView], old: list[RunView], floor: int
) -> tuple[tuple[tuple[str, str], ...], float | None]:
    timeout = seen.config.idle_timeout_secs
    is_new_serving = any(run.readiness is Readiness.SERVING for run in current)
    drain: list[tuple[str, str]] = []
    waits: list[float] = []
    for run in old:
        if is_new_serving:
            drain.append((run.run_id, "a newer build has taken over"))
        elif _is_idle(run, timeout):
            drain.append((run.run_id, _idle_reason(timeout)))
        elif not run.in_flight:
            waits.append(timeout - run.idle_secs)
    # The emptiest go first, then the youngest: what is left has the warmest caches.
    spare = len(current) - floor
    for run in sorted(current, key=lambda run: run.age_secs):
        if run.readiness is not Readiness.SERVING or run.in_flight:
            continue
        if not _is_idle(run, timeout):
            waits.append(timeout - run.idle_secs)
        elif spare > 0:
            drain.append((run.run_id, _idle_reason(timeout)))
            spare -= 1
    return tuple(drain), min(waits, default=None)


def _is_idle(run: RunView, timeout_secs: float) -> bool:
    return run.in_flight == 0 and run.idle_secs >= timeout_secs


def _idle_reason(timeout_secs: float) -> str:
    return f"idle for {timeout_secs:g} s"
