"""No I/O: the preset ``platform``: exactly the rules of apify-platform.md §1.6, by ``scaling.decide``."""

from __future__ import annotations

import math
from dataclasses import replace

from autoscaler.policy import scaling
from autoscaler.policy.observing import Observation
from autoscaler.policy.seeing import RunView
from gateway.core.standby import Generation, StandbyConfig

_CURRENT, _OLD = Generation(build_id="current", memory_mbytes=0), Generation(build_id="old", memory_mbytes=0)


def decide_as_the_platform(seen: Observation) -> scaling.Decision:
    """The platform's decision on the same observation; it knows no averages and no load."""
    limits = seen.limits
    return scaling.decide(
        scaling.Observation(
            config=StandbyConfig(
                desired_requests_per_run=max(1, math.floor(limits.desired_requests_per_run)),
                max_requests_per_run=limits.max_requests_per_run,
                idle_timeout_secs=limits.idle_timeout_secs,
                min_runs=limits.min_runs,
                max_runs=limits.max_runs,
            ),
            generation=_CURRENT if seen.is_on else None,
            waiting=seen.waiting,
            runs=[
                RunView(
                    run_id=run.run_id,
                    generation=_OLD if run.retires_because else _CURRENT,
                    readiness=run.state,
                    in_flight=run.in_flight,
                    idle_secs=run.idle_secs,
                    age_secs=run.age_secs,
                    viewers=run.viewers,
                    leaves_because=run.retires_because,
                )
                for run in seen.runs
            ],
            may_start=seen.may_start,
            start_unasked=seen.start_unasked,
            ahead_at=seen.memory.ahead_at,
        )
    )


def with_ahead(seen: Observation, decision: scaling.Decision, now: float) -> Observation:
    """The observation whose memory has what this decision leaves behind."""
    return replace(seen, memory=replace(seen.memory, at=now, ahead_at=decision.ahead_at))
