"""A clock that jumps, as after a suspended night: no run in use goes, and no storm of starts comes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.deciding import decide
from autoscaler.policy.observing import Limits, Observation, RunSeen
from autoscaler.policy.thresholds import GREENROOM, PLATFORM, Policy
from gateway.core.lifecycle import Readiness

POLICIES = [pytest.param(GREENROOM, id="greenroom"), pytest.param(PLATFORM, id="platform")]
LIMITS = Limits(max_requests_per_run=2, desired_requests_per_run=2, idle_timeout_secs=60)
NIGHT_SECS = 9 * 3600.0


def runs(count: int, *, in_flight: int, idle_secs: float = 0.0) -> tuple[RunSeen, ...]:
    return tuple(
        RunSeen(run_id=f"run{number}", state=Readiness.SERVING, in_flight=in_flight, idle_secs=idle_secs, age_secs=500)
        for number in range(count)
    )


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("jump_secs", [NIGHT_SECS, -NIGHT_SECS], ids=["ahead", "back, as another machine's"])
def test_what_is_in_use_stays_and_nothing_is_started_for_it(policy: Policy, jump_secs: float) -> None:
    """Four runs with two requests each, before the jump as after it."""
    seen = Observation(limits=LIMITS, runs=runs(4, in_flight=2))
    now = 100_000.0
    for _ in range(5):
        decision = decide(policy, seen, now)
        seen, now = replace(seen, memory=decision.memory), now + 2
    for _ in range(5):
        decision = decide(policy, seen, now + jump_secs)
        assert (decision.start, decision.drain) == (0, ())
        seen, now = replace(seen, memory=decision.memory), now + 2


@pytest.mark.parametrize("policy", POLICIES)
def test_what_lay_idle_over_night_goes_and_who_waits_gets_one(policy: Policy) -> None:
    """The idle rule holds over a jump, too; one request that waits starts one run."""
    decision = decide(policy, Observation(limits=LIMITS, runs=runs(1, in_flight=0)), 1000.0)
    idle = Observation(limits=LIMITS, runs=runs(1, in_flight=0, idle_secs=NIGHT_SECS), memory=decision.memory)
    decision = decide(policy, idle, 1000.0 + NIGHT_SECS)
    assert [run_id for run_id, _ in decision.drain] == ["run0"]
    waited = Observation(limits=LIMITS, waiting=1, memory=decision.memory)
    assert decide(policy, waited, 1000.0 + 2 * NIGHT_SECS).start == 1


@pytest.mark.parametrize("policy", POLICIES)
@given(
    jumps=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12),
    waiting=st.integers(0, 9),
    count=st.integers(0, 5),
)
def test_however_it_jumps(policy: Policy, jumps: list[float], waiting: int, count: int) -> None:
    """With a steady load that fills all runs: none of them goes, and never more are started than wait."""
    now = 5e6
    seen = Observation(limits=LIMITS, runs=runs(count, in_flight=2), waiting=waiting)
    for jump in jumps:
        now += jump
        decision = decide(policy, seen, now)
        assert decision.drain == ()
        assert decision.start <= max(1, 2 * count) + waiting
        seen = replace(seen, memory=decision.memory)
