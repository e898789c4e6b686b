"""
No I/O: the preset ``platform``: how many runs a pool should have by the platform's own rules, and why.

The rules are those of apify-platform.md §1.6: as many runs as hold all requests at the limit of each; one more, ahead
of demand, when every run is above its desired load; a run without use for its idle timeout is wound down; a new build's
run serves first, then those of the old one are retired. It knows no averages and no load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoscaler.policy.observing import Observation, RunSeen
from gateway.core.lifecycle import Readiness


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """
    What the pool should have and what is done for it now.

    ``ahead_at`` is to be remembered: the load for which there was one ahead of demand; None: not crowded.
    ``look_again_in_secs``: when the next run reaches its idle timeout; None: nothing will change by time alone.
    """

    wanted_runs: int
    present_runs: int
    start: int
    drain: tuple[tuple[str, str], ...]
    reasons: tuple[str, ...]
    look_again_in_secs: float | None
    ahead_at: int | None = None


def decide_as_the_platform(seen: Observation) -> Found:
    """The platform's decision; equal observations give equal decisions."""
    live = [run for run in seen.runs if run.state is not Readiness.DRAINING]
    if not seen.is_on:
        why = "the Actor no longer has standby mode or a build for it"
        drain = tuple((run.run_id, why) for run in live)
        return Found(
            wanted_runs=0,
            present_runs=len(live),
            start=0,
            drain=drain,
            reasons=(f"0 runs: {why}",),
            look_again_in_secs=None,
        )
    old = [run for run in live if run.retires_because is not None]
    current = [run for run in live if run.retires_because is None]
    # Without any it was about runs that are gone, e.g. those of the build before, or of yesterday.
    ahead_before = seen.memory.ahead_at if current else None
    asked, needed, ahead_at, reasons = _needed(seen, current, old, ahead_before)
    wanted = min(needed, seen.limits.max_runs) if seen.limits.max_runs is not None else needed
    if wanted < needed:
        reasons.append(f"held at maxRuns {wanted}")
    missing = max(0, wanted - len(current))
    due = missing if seen.start_unasked else max(0, min(asked, wanted) - len(current))
    start = min(due, seen.may_start)
    if missing > due:
        reasons.append(f"{missing - due} that nobody waits for later, since starts have failed")
    if due > start:
        reasons.append(f"{due - start} more as soon as pace and machine allow")
    if ahead_at is not None and len(current) + start < needed:
        # The one ahead is still to come; else it never would at a steady load.
        ahead_at = ahead_before
    drain, look_again = _wind_down(seen, current, old, floor=wanted)
    return Found(
        wanted_runs=wanted,
        present_runs=len(current),
        start=start,
        drain=drain,
        reasons=tuple(reasons),
        look_again_in_secs=look_again,
        ahead_at=ahead_at,
    )


def _needed(
    seen: Observation, current: Sequence[RunSeen], old: Sequence[RunSeen], ahead_before: int | None
) -> tuple[int, int, int | None, list[str]]:
    """Runs that hold all present requests; the same with those that nobody waits for; ``ahead_at``; why."""
    limits = seen.limits
    # What the old ones carry counts: the new ones are to carry it once those are retired.
    in_current = sum(run.in_flight for run in current)
    load = in_current + sum(run.in_flight for run in old) + seen.waiting
    asked = math.ceil((in_current + seen.waiting) / limits.max_requests_per_run)
    needed = math.ceil(load / limits.max_requests_per_run)
    runs = "1 run" if needed == 1 else f"{needed} runs"
    in_flight = f"{load - seen.waiting} requests in flight and {seen.waiting} waiting"
    reasons = [f"{runs}: {in_flight} at up to {limits.max_requests_per_run} each"]
    is_ahead, ahead_at = _ahead(seen, current, load, max(needed, len(current)), ahead_before or 0)
    if is_ahead:
        needed = max(needed, len(current)) + 1
        reasons.append(f"one ahead: every run is above its desired {_desired(seen)}")
    if old and needed < 1:
        needed = 1
        reasons.append(f"one in place of those that retire: {old[0].retires_because}")
    if limits.min_runs > needed:
        needed = limits.min_runs
        reasons.append(f"minRuns {limits.min_runs}")
    return asked, needed, ahead_at, reasons


def _ahead(
    seen: Observation, current: Sequence[RunSeen], load: int, count: int, before: int
) -> tuple[bool, int | None]:
    """
    Whether one more run than *count* is started ahead of demand, and ``ahead_at``: when each of *count* has more than
    its desired requests, or will have once those who wait are let in, e.g. 5 waiting for one run at a desired 3.

    Only when the load is more than there was one ahead for already. Else a steady crowd would start the spare one anew
    each time that it was wound down for want of use, for ever.
    """
    desired = _desired(seen)
    used = [run for run in current if run.in_flight]
    would_crowd = count > 0 and load // count > desired
    is_crowded = would_crowd if seen.waiting else bool(used) and all(run.in_flight > desired for run in used)
    if not is_crowded:
        return False, None
    if not would_crowd or (not seen.waiting and len(used) < len(current)):
        return False, max(before, load)
    return load > before, max(before, load)


def _wind_down(
    seen: Observation, current: Sequence[RunSeen], old: Sequence[RunSeen], floor: int
) -> tuple[tuple[tuple[str, str], ...], float | None]:
    timeout = seen.limits.idle_timeout_secs
    serving = sum(1 for run in current if run.state is Readiness.SERVING)
    drain: list[tuple[str, str]] = []
    waits: list[float] = []
    for run in old:
        # Not before the new ones can carry it all, or a deploy under load would be a gap.
        if serving and serving >= floor:
            drain.append((run.run_id, f"another run has taken over: {run.retires_because}"))
        elif _is_idle(run, timeout):
            drain.append((run.run_id, _idle_reason(timeout)))
        elif not run.is_used:
            waits.append(timeout - run.idle_secs)
    # The emptiest go first, then the youngest: what is left has the warmest caches.
    # One that starts is no substitute yet for one that serves.
    spare = serving - floor
    for run in sorted(current, key=lambda run: run.age_secs):
        if run.state is not Readiness.SERVING or run.is_used:
            continue
        if not _is_idle(run, timeout):
            waits.append(timeout - run.idle_secs)
        elif spare > 0:
            drain.append((run.run_id, _idle_reason(timeout)))
            spare -= 1
    return tuple(drain), min(waits, default=None)


def _is_idle(run: RunSeen, timeout_secs: float) -> bool:
    return not run.is_used and run.idle_secs >= timeout_secs


def _idle_reason(timeout_secs: float) -> str:
    return f"idle for {timeout_secs:g} s"


def _desired(seen: Observation) -> int:
    return max(1, math.floor(seen.limits.desired_requests_per_run))


def with_ahead(seen: Observation, found: Found, now: float) -> Observation:
    """The observation whose memory has what this decision leaves behind."""
    return replace(seen, memory=replace(seen.memory, at=now, ahead_at=found.ahead_at))
