"""No I/O: the policy of the autoscaler itself (``autoscaler/policy``) in the simulator: the very same ``decide``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from autoscaler.policy.deciding import decide
from autoscaler.policy.memory import Memory
from autoscaler.policy.observing import Limits, Observation, RunSeen
from autoscaler.policy.thresholds import GREENROOM, Policy
from gateway.core.lifecycle import Readiness
from loadtests.simulation.engine import Glimpse


@dataclass(slots=True)
class Ours:
    """One pool under *policy* with the owner's *limits*."""

    policy: Policy = GREENROOM
    limits: Limits = field(default_factory=Limits)
    _memory: Memory = field(default_factory=Memory)

    def choose(self, seen: Glimpse) -> tuple[int, Sequence[int]]:
        """What ``decide`` says."""
        decision = decide(self.policy, self.observation(seen), seen.now)
        self._memory = decision.memory
        return decision.start, [int(run_id) for run_id, _ in decision.drain]

    def observation(self, seen: Glimpse) -> Observation:
        """What the policy would see of this pool."""
        return Observation(
            limits=self.limits,
            runs=[
                RunSeen(
                    run_id=str(run.id),
                    state=Readiness(run.state),
                    age_secs=seen.now - run.born,
                    in_flight=run.in_flight,
                    idle_secs=run.idle_secs(seen.now),
                )
                for run in seen.runs
            ],
            waiting=seen.waiting,
            average_in_flight=seen.average_in_flight,
            average_waiting=seen.average_waiting,
            arrivals=seen.arrivals,
            clock_secs=seen.now if self.policy.starts_ahead else None,
            memory=self._memory,
        )
