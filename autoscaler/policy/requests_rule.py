"""No I/O: how many runs the requests ask for: those of the last minute, those of a burst, and those who wait now."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.policy.memory import Memory
from autoscaler.policy.observing import Observation, RunSeen
from autoscaler.policy.queueing import worthwhile_runs
from autoscaler.policy.thresholds import Policy

_ALMOST = 1e-9
_SHORTEST_SECS = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """So many runs, why, and whether it is panic."""

    runs: int
    reason: str
    is_panic: bool


def needed(policy: Policy, seen: Observation, memory: Memory, runs: Sequence[RunSeen]) -> Need:
    """The largest of what the rules ask for; *runs* are those that count as capacity, starting ones among them."""
    service = service_secs(seen, memory)
    load = memory.open_requests
    # Those whose wait is short enough need no slot yet: each slot serves so many one after the other.
    deep = 1.0 if service is None else 1.0 + policy.queue_ratio * policy.late_after_secs / service
    asks = [
        _of_the_window(policy, seen, memory, service, len(runs)),
        _of_those_who_wait(policy, seen, memory, runs, service, deep),
    ]
    if policy.spare_slots:
        slots = load + policy.spare_slots
        asks.append((_ceil(slots / seen.limits.max_requests_per_run), f"{policy.spare_slots} spare slots"))
    number, reason = max(asks, key=lambda ask: ask[0])
    panic_mean = memory.in_flight.mean(policy.panic_window_secs) + memory.waiting.mean(policy.panic_window_secs)
    up = sum(run.is_up for run in runs)
    asked_in_panic = _ceil(panic_mean / seen.limits.desired_requests_per_run)
    is_panic = asked_in_panic >= policy.panic_factor * max(1, up)
    return Need(runs=number, reason=reason, is_panic=is_panic)


def _of_the_window(
    policy: Policy, seen: Observation, memory: Memory, service: float | None, present: int
) -> tuple[int, str]:
    """
    What the last minute asks for. Fewer than there are only where a little more would not ask for them either: else the
    same load, a few requests more and a few less, would have a run started and wound down by turns. Fewer than were
    needed last, where more are there since they can't be wound down yet.
    """
    runs, reason = _for_demand(policy, seen, memory, service, 1.0)
    before = min(present, memory.needs[-1][1]) if memory.needs else present
    if runs >= before:
        return runs, reason
    margin = 1 + policy.shrink_margin_ratio
    with_margin = min(before, _for_demand(policy, seen, memory, service, margin)[0])
    return (
        (with_margin, f"{reason}, and {policy.shrink_margin_ratio:.0%} more") if with_margin > runs else (runs, reason)
    )


def _for_demand(
    policy: Policy, seen: Observation, memory: Memory, service: float | None, times: float
) -> tuple[int, str]:
    """
    So many *times* the last minute's demand: at the desired load of each run, and with no more late requests than are
    worth their price.

    Who waits counts only as far as the rate of arrivals bears it out: a queue that a start has caused is gone soon.
    """
    secs = policy.stable_window_secs
    in_flight, waiting, rate = memory.in_flight.mean(secs), memory.waiting.mean(secs), memory.arrivals.mean(secs)
    load = in_flight + waiting
    if service is not None:
        load = max(in_flight, min(load, rate * service))
    runs = _ceil(times * load / seen.limits.desired_requests_per_run)
    reason = f"{load:.1f} requests on average at {seen.limits.desired_requests_per_run:g} each"
    if service is None or not policy.late_price_secs or not rate:
        return runs, reason
    worth = worthwhile_runs(
        times * rate,
        service,
        seen.limits.max_requests_per_run,
        late_after_secs=policy.late_after_secs,
        late_price_secs=policy.late_price_secs,
    )
    if worth <= runs:
        return runs, reason
    return worth, f"{rate:.1f} requests a second of {service:.2g} s, with fewer runs too many would wait"


def _of_those_who_wait(
    policy: Policy, seen: Observation, memory: Memory, runs: Sequence[RunSeen], service: float | None, deep: float
) -> tuple[int, str]:
    """
    What those who will be there when a run started now would serve ask for.

    E.g. 20 are there and 10 come a second, one run of 4 slots serves 8 a second, a start takes 3 s: then there will be
    26, of whom one run serves 12 within a second: 3 runs.
    """
    slots, load = seen.limits.max_requests_per_run, memory.open_requests
    if service is None:
        return _ceil(load / slots), f"{load} requests at up to {slots} each"
    start = start_secs(policy, seen, memory)
    per_sec = slots / service
    rate = max(memory.arrivals.mean(policy.stable_window_secs), memory.arrivals.mean(policy.panic_window_secs))
    done = sum(per_sec * (start if run.is_up else min(start, max(0.0, run.age_secs))) for run in runs)
    later = load + rate * start - done
    number = _ceil(later / (slots * deep))
    if load and number < 1:
        number = 1
    return number, f"{load} requests now, {max(0.0, later):.0f} by the time that a start takes"


def service_secs(seen: Observation, memory: Memory) -> float | None:
    """How long a request takes in a run, at least a millisecond: as measured, or as seen; None: nobody knows yet."""
    known = seen.service_secs if seen.service_secs is not None else memory.service_secs
    return None if known is None else max(known, _SHORTEST_SECS)


def start_secs(policy: Policy, seen: Observation, memory: Memory) -> float:
    """How long a start takes: as measured, as seen, or as assumed."""
    if seen.start_secs is not None:
        return seen.start_secs
    return memory.start_secs if memory.start_secs is not None else policy.assumed_start_secs


def _ceil(value: float) -> int:
    return max(0, math.ceil(value - _ALMOST))
