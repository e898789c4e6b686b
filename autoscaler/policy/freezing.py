"""
No I/O: which unused runs stand still for a while, and which of them go on.

A frozen run keeps its memory, uses no processor, and serves again within milliseconds: it counts as present all the
time. Awake are as many as the requests of this moment ask for, at the desired number in each, or the load does.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from autoscaler.policy.observing import Limits, Observation, RunSeen
from autoscaler.policy.thresholds import Policy
from autoscaler.policy.winding_down import Drain
from gateway.core.demand import DemandReport
from gateway.core.lifecycle import Readiness
from gateway.core.standby import PoolKey

_ALMOST = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Frost:
    """Who is frozen and who goes on, each with the reason; and when the next one reaches its limit, None: nobody."""

    freeze: Drain = ()
    resume: Drain = ()
    look_again_in_secs: float | None = None


def frost(
    policy: Policy, seen: Observation, live: Sequence[RunSeen], gone: Collection[str], asked_by_load: int
) -> Frost:
    """
    What is frozen and resumed of the *live* runs, of which the *gone* are being wound down.

    E.g. 7 requests are there at a desired 3 each, one run serves and three are frozen: two of them go on. The ones that
    were used last do so first: what they have in their caches is the warmest.
    """
    kept = [run for run in live if run.run_id not in gone]
    frozen = [run for run in kept if run.state is Readiness.FROZEN]
    awake = [run for run in kept if run.state is Readiness.SERVING]
    after_secs = freeze_after_secs(seen.limits)
    if after_secs is None:
        return Frost(resume=all_go_on(frozen, "the Actor's runs are not to be frozen any more"))
    load = sum(run.in_flight for run in (*awake, *frozen)) + seen.waiting
    wanted = max(math.ceil(load / seen.limits.desired_requests_per_run - _ALMOST), asked_by_load)
    # Or it was meanwhile: it would not have been frozen otherwise.
    used = [run for run in frozen if run.is_used or run.idle_secs < after_secs]
    missing = wanted - len(awake) - len(used)
    # A newer build's goes before an older one's, which only helps out until the newer ones serve.
    spare = sorted(
        (run for run in frozen if run not in used),
        key=lambda run: (run.retires_because is not None, run.idle_secs, run.age_secs),
    )
    resume = all_go_on(used, "it is in use") + all_go_on(spare[: max(0, missing)], _why(seen, load))
    quiet = [run for run in awake if _may_freeze(policy, seen.limits, run)]
    due = sorted((run for run in quiet if run.idle_secs >= after_secs), key=lambda run: -run.idle_secs)
    freeze = tuple((run.run_id, f"unused for {after_secs:g} s") for run in due[: max(0, len(awake) - wanted)])
    waits = (after_secs - run.idle_secs for run in quiet if run.idle_secs < after_secs)
    return Frost(freeze=freeze, resume=resume, look_again_in_secs=min(waits, default=None))


def freeze_after_secs(limits: Limits) -> float | None:
    """How long a run is unused before it is frozen; None: never, also where it would be wound down before."""
    after = limits.freeze_after_secs
    return after if after is not None and after < limits.idle_timeout_secs else None


def all_go_on(runs: Iterable[RunSeen], reason: str) -> Drain:
    """Each of the frozen *runs* goes on, for *reason*."""
    return tuple((run.run_id, reason) for run in runs)


def is_needed(run_id: str, pool: PoolKey, reports: Iterable[DemandReport]) -> bool:
    """Whether any gateway has something open in the run, or somebody who waits for one of its pool."""
    for report in reports:
        use, asked = report.runs.get(run_id), report.pools.get(pool)
        if (use is not None and use.is_used) or (asked is not None and asked.waiting):
            return True
    return False


def _may_freeze(policy: Policy, limits: Limits, run: RunSeen) -> bool:
    """
    Whether nothing but time is missing. One whose processor use is unknown may be at work, and is let alone.
    """
    return (
        not run.is_used
        and run.may_freeze
        and run.retires_because is None
        and (limits.freeze_with_open_sockets or not run.has_open_sockets)
        and run.cpu_ratio is not None
        and run.cpu_ratio < policy.quiet_below_ratio
    )


def _why(seen: Observation, load: int) -> str:
    if seen.waiting:
        return f"{seen.waiting} wait for a run"
    return f"{load} requests at a desired {seen.limits.desired_requests_per_run:g} each" if load else "others are busy"
