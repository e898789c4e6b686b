"""How long one tick over many pools takes: the policy alone, on one core."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from autoscaler.policy.deciding import decide
from autoscaler.policy.observing import Limits, Observation, RunSeen
from autoscaler.policy.thresholds import GREENROOM, Policy
from gateway.core.lifecycle import Readiness

_TICK_SECS = 2.0
_WARM_UP_TICKS = 40


def secs_for_a_tick(pools: int, *, policy: Policy = GREENROOM, rounds: int = 3) -> float:
    """
    CPU seconds of the fastest of *rounds* ticks over so many pools, each with one to six runs, a minute of history and
    requests in flight. A few histories are played for real and shared out: what a decision costs depends on one alone.
    """
    dice = random.Random(1)
    busy = [_played(dice, policy) for _ in range(200)]
    seen = [busy[number % len(busy)] for number in range(pools)]
    now = (_WARM_UP_TICKS + 1) * _TICK_SECS
    times = []
    for _ in range(rounds):
        began = time.process_time()
        for one in seen:
            decide(policy, one, now)
        times.append(time.process_time() - began)
    return min(times)


def _played(dice: random.Random, policy: Policy) -> Observation:
    runs = dice.randint(1, 6)
    limits = Limits(idle_timeout_secs=60)
    seen = Observation(limits=limits)
    for tick in range(_WARM_UP_TICKS + 1):
        in_flight = [dice.randint(0, 4) for _ in range(runs)]
        seen = Observation(
            limits=limits,
            runs=[
                RunSeen(run_id=str(number), state=Readiness.SERVING, age_secs=2.0 * tick, in_flight=busy)
                for number, busy in enumerate(in_flight)
            ],
            waiting=dice.randint(0, 2),
            average_in_flight=sum(in_flight) + dice.random(),
            average_waiting=dice.random(),
            arrivals=2 * sum(in_flight) + dice.randint(0, 5),
            memory=seen.memory,
        )
        if tick < _WARM_UP_TICKS:
            seen = replace(seen, memory=decide(policy, seen, tick * _TICK_SECS).memory)
    return seen
