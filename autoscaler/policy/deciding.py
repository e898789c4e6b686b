"""
No I/O: the decision for one pool: how many runs, what is started, frozen and wound down for it, and why, in words.

``decide(policy, seen, now)`` looks at nothing else, and what it must remember is part of what it returns: the same
inputs give the same decision, today and when somebody asks next week.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autoscaler.policy.foresight import Ahead, Quiet, foreseen
from autoscaler.policy.freezing import all_go_on, frost
from autoscaler.policy.load_rule import asked_by_load
from autoscaler.policy.memory import Memory, Since, after
from autoscaler.policy.observing import Observation, RunSeen
from autoscaler.policy.platform_rule import decide_as_the_platform, with_ahead
from autoscaler.policy.requests_rule import needed, service_secs, start_secs
from autoscaler.policy.thresholds import Policy, RequestsRule
from autoscaler.policy.winding_down import Drain, idle_runs, next_idle_limit, retired, surplus
from gateway.core.lifecycle import Readiness


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """
    What the pool should have and what is done for it now.

    ``present_runs``: those that neither drain nor retire, frozen ones among them. ``memory`` goes into the next
    observation. ``look_again_in_secs``: when the next run reaches its limit to be frozen or wound down; None: nothing
    will change by time alone.
    """

    wanted_runs: int
    present_runs: int
    start: int
    drain: Drain
    reasons: tuple[str, ...]
    look_again_in_secs: float | None
    memory: Memory
    freeze: Drain = ()
    resume: Drain = ()

    @property
    def acts(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.start or self.drain or self.freeze or self.resume)

    def said_of_runs(self) -> tuple[str, ...]:
        """What is done with which run, and why, in words."""
        done = (("resume", self.resume), ("freeze", self.freeze), ("wind down", self.drain))
        return tuple(f"{what} {run_id}: {reason}" for what, runs in done for run_id, reason in runs)

    @property
    def is_fulfilled(self) -> bool:
        """Whether no start is held back, by pace, room or failures."""
        return self.present_runs + self.start >= self.wanted_runs

    def to_json(self) -> dict[str, Any]:
        """What is shown and stored, without the memory, which the next decision's inputs have."""
        return {
            "wantedRuns": self.wanted_runs,
            "presentRuns": self.present_runs,
            "start": self.start,
            "drain": _listed(self.drain),
            "freeze": _listed(self.freeze),
            "resume": _listed(self.resume),
            "reasons": list(self.reasons),
            "lookAgainInSecs": self.look_again_in_secs,
        }


def _listed(runs: Drain) -> list[dict[str, str]]:
    return [{"id": run_id, "reason": reason} for run_id, reason in runs]


def decide(policy: Policy, seen: Observation, now: float) -> Decision:
    """The decision for one pool; equal arguments give equal decisions."""
    if policy.requests_rule is RequestsRule.SLOTS:
        found = decide_as_the_platform(seen)
        return Decision(
            wanted_runs=found.wanted_runs,
            present_runs=found.present_runs,
            start=found.start,
            drain=found.drain,
            reasons=found.reasons,
            look_again_in_secs=found.look_again_in_secs,
            memory=with_ahead(seen, found, now).memory,
            # The platform has nothing of the kind; a run may still be so from before the preset was changed.
            resume=all_go_on((run for run in seen.runs if run.state is Readiness.FROZEN), "the preset freezes none"),
        )
    memory = remembered(seen, now)
    live = [run for run in seen.runs if run.state is not Readiness.DRAINING]
    if not seen.is_on:
        why = "the Actor no longer has standby mode or a build for it"
        return Decision(
            wanted_runs=0,
            present_runs=len(live),
            start=0,
            drain=tuple((run.run_id, why) for run in live),
            reasons=(f"0 runs: {why}",),
            look_again_in_secs=None,
            memory=memory,
        )
    old = [run for run in live if run.retires_because is not None]
    return _decided(policy, seen, memory, [run for run in live if run.retires_because is None], old)


def replay(stored: Mapping[str, Any]) -> Decision:
    """The decision that was made on what ``inputs`` stored."""
    return decide(Policy.from_json(stored["policy"]), Observation.from_json(stored["observation"]), stored["now"])


def inputs(policy: Policy, seen: Observation, now: float) -> dict[str, Any]:
    """All that a decision was made of, as JSON."""
    return {"policy": policy.to_json(), "observation": seen.to_json(), "now": now}


def remembered(seen: Observation, now: float) -> Memory:
    """The memory with what this observation adds."""
    runs = [run for run in seen.runs if run.state is not Readiness.DRAINING]
    in_flight = sum(run.in_flight for run in seen.runs)
    open_requests = in_flight + seen.waiting
    more = max(0, open_requests - seen.memory.open_requests)
    return after(
        seen.memory,
        Since(
            now=now,
            average_in_flight=seen.average_in_flight if seen.average_in_flight is not None else in_flight,
            average_waiting=seen.average_waiting if seen.average_waiting is not None else seen.waiting,
            arrivals=seen.arrivals if seen.arrivals is not None else more,
            open_requests=open_requests,
            starting=tuple((run.run_id, run.age_secs) for run in runs if run.state is Readiness.STARTING),
            begun_to_serve={run.run_id: (run.age_secs, run.idle_secs) for run in runs if run.is_up}
            if seen.memory.starting
            else {},
            idle_secs=min((run.idle_secs for run in runs if run.is_up), default=0.0),
            has_runs=bool(runs),
            finished=seen.finished,
            clock_secs=seen.clock_secs,
        ),
    )


def _decided(
    policy: Policy, seen: Observation, memory: Memory, current: Sequence[RunSeen], old: Sequence[RunSeen]
) -> Decision:
    """The rules in their order; each that changes the number says so."""
    limits = seen.limits
    now = memory.at or 0.0
    load = seen.open_requests
    asked = math.ceil(load / limits.max_requests_per_run)
    need = needed(policy, seen, memory, current)
    wanted, reasons = need.runs, [need.reason]
    if need.is_panic:
        memory = replace(memory, panic_at=now)
    memory = memory.with_need(now, wanted, policy.scale_down_delay_secs)
    held = max(number for _, number in memory.needs)
    if held > wanted:
        wanted = held
        reasons.append(f"held at {held}, which were needed less than {policy.scale_down_delay_secs:g} s ago")
    wanted, why = _not_shrunk(policy, memory, now, current, wanted)
    reasons += why
    by_load, why_load = asked_by_load(policy, seen, [run for run in current if run.state is not Readiness.FROZEN])
    if why_load is not None and by_load >= wanted:
        wanted = by_load
        reasons.append(why_load)
    wanted, why = _at_a_rate(policy, seen, memory, current, wanted, load)
    reasons += why
    if old and wanted < 1:
        wanted = 1
        reasons.append(f"one in place of those that retire: {old[0].retires_because}")
    idle = idle_runs(policy, seen, memory, current)
    ahead = _ahead(policy, seen, memory, current, idle.keep_secs)
    if ahead.after is not memory.foresight:
        memory = replace(memory, foresight=ahead.after)
    if ahead.is_over:
        unused = [run for run in current if run.is_up and not run.is_used]
        idle = replace(idle, runs=unused, reason="nobody has come at the time foreseen")
    if ahead.why is not None and (wanted < 1 or not current):
        # The last minute's demand may ask for one, too, but it is no reason to make one of none.
        wanted = max(1, wanted)
        reasons.append(ahead.why)
    floor = max(limits.min_runs, asked, 1 if old or ahead.why is not None else 0)
    if not current and wanted > floor:
        wanted = floor
        reasons.append("only requests that are there make one of none")
    if idle.runs and wanted > max(floor, len(current) - len(idle.runs)):
        wanted = max(floor, len(current) - len(idle.runs))
        # What held them is over, or they would be started anew at once.
        memory = replace(memory, needs=(), panic_at=None)
        reasons.append(idle.reason)
    if limits.min_runs > wanted:
        wanted = limits.min_runs
        reasons.append(f"minRuns {wanted}")
    if limits.max_runs is not None and wanted > limits.max_runs:
        wanted = limits.max_runs
        reasons.append(f"held at maxRuns {wanted}")
    start, why = _to_start(seen, current, wanted, asked)
    going = surplus(policy, idle, service_secs(seen, memory), current, wanted)
    idle_ids = {run.run_id for run in idle.runs}
    drain = tuple((run.run_id, idle.reason if run.run_id in idle_ids else "the others suffice") for run in going)
    up = sum(run.is_up for run in current) - len(going)
    drain += retired(seen, old, up, wanted)
    gone = {run_id for run_id, _ in drain}
    still = frost(policy, seen, [*current, *old], gone, by_load)
    runs = "1 run" if wanted == 1 else f"{wanted} runs"
    return Decision(
        wanted_runs=wanted,
        present_runs=len(current),
        start=start,
        drain=drain,
        reasons=(f"{runs}: {reasons[0]}", *reasons[1:], *why),
        look_again_in_secs=_sooner(
            next_idle_limit(seen, idle, [run for run in (*current, *old) if run.run_id not in gone and run.is_up]),
            _sooner(still.look_again_in_secs, ahead.look_again_in_secs),
        ),
        memory=memory,
        freeze=still.freeze,
        resume=still.resume,
    )


def _ahead(policy: Policy, seen: Observation, memory: Memory, current: Sequence[RunSeen], keep_secs: float) -> Ahead:
    """What is foreseen, where that is switched on and no run is kept anyway."""
    if not policy.starts_ahead or seen.limits.min_runs:
        return Ahead(memory.foresight)
    now = memory.at or 0.0
    is_used = memory.open_requests or any(run.is_used for run in current)
    quiet = Quiet(
        now=now,
        since=None if is_used else memory.quiet_since,
        passed_secs=now - seen.memory.at if seen.memory.at is not None and seen.memory.at < now else 0.0,
        runs=len(current),
        keep_secs=keep_secs if current else 0.0,
        start_secs=start_secs(policy, seen, memory),
        gaps=memory.gaps,
        clock_secs=seen.clock_secs,
    )
    return foreseen(policy, memory.foresight, quiet)


def _sooner(first: float | None, second: float | None) -> float | None:
    return min((one for one in (first, second) if one is not None), default=None)


def _not_shrunk(
    policy: Policy, memory: Memory, now: float, current: Sequence[RunSeen], wanted: int
) -> tuple[int, list[str]]:
    """Nothing shrinks in panic, nor before a whole window was seen, nor from one to none: that is for the idle rule."""
    if wanted >= len(current):
        return wanted, []
    if memory.panic_at is not None and now - memory.panic_at < policy.panic_hold_secs:
        return len(current), [f"no fewer in panic, until {policy.panic_hold_secs:g} s after it"]
    if memory.until_seen(policy.stable_window_secs) > 0 and memory.began_with_runs:
        return len(current), ["no fewer before a whole window was seen"]
    if wanted < 1:
        return 1, ["the last one goes by its idle timeout"]
    return wanted, []


def _at_a_rate(
    policy: Policy, seen: Observation, memory: Memory, current: Sequence[RunSeen], wanted: int, load: int
) -> tuple[int, list[str]]:
    up = [run for run in current if run.is_up]
    most = math.ceil(policy.max_scale_up_factor * max(1, len(up)))
    if wanted > most:
        return most, [f"at most {policy.max_scale_up_factor:g} times as many at once"]
    least = math.floor(len(current) / policy.max_scale_down_factor)
    if wanted < least:
        return least, ["at most halved at once"]
    if wanted > len(current) and load <= len(up) * seen.limits.max_requests_per_run:
        start = start_secs(policy, seen, memory)
        if any(not run.is_used and run.idle_secs > start for run in up):
            return len(current), ["none ahead while one has had nothing to do for longer than a start takes"]
    return wanted, []


def _to_start(seen: Observation, current: Sequence[RunSeen], wanted: int, asked: int) -> tuple[int, list[str]]:
    """How many are started now, and why not more."""
    missing = max(0, wanted - len(current))
    due = missing if seen.start_unasked else max(0, min(asked, wanted) - len(current))
    start = min(due, seen.may_start)
    why = []
    if missing > due:
        why.append(f"{missing - due} that nobody waits for later, since starts have failed")
    if due > start:
        why.append(f"{due - start} more as soon as pace and machine allow")
    return start, why
