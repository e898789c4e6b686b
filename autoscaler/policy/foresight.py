"""
No I/O: a run that is there before anybody asks for it, where the pool's own history says that this pays.

The history is how long the pool was quiet before (``gaps``) and when it was woken on earlier days and weeks
(``habits``). What is foreseen is a plan, made once in each stretch of quiet: from when to when to have a run. Runs that
wait in vain are paid for out of a budget: a share of the run-seconds that the pool has used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from autoscaler.policy.chances import Chance, Span, best_span
from autoscaler.policy.gaps import Gaps
from autoscaler.policy.habits import HORIZON_SECS, Habits
from autoscaler.policy.thresholds import Policy

_BUDGET_HALF_LIFE_SECS = 86_400.0
_TICK_SECS = 2.0
_BEFOREHAND_SECS = 120.0
_LONGEST_QUIET_SECS = 14 * 86_400.0
_FEWEST_GAPS = 3
_NO_HABITS = Habits()


@dataclass(frozen=True, slots=True)
class Plan:
    """
    For the quiet that began at ``quiet_since``: a run is to serve from ``begins`` to ``ends``; inf: nothing is foreseen
    until ``ends``. ``begun``: it was acted on. ``waited_secs``: for how long a run has waited so far.
    """

    quiet_since: float
    begins: float
    ends: float
    why: str = ""
    begun: bool = False
    waited_secs: float = 0.0


@dataclass(frozen=True, slots=True)
class Foresight:
    """
    What is remembered for it: the habits, the plan, and the run-seconds of the pool, and those among them of runs that
    waited in vain, the older the less.
    """

    habits: Habits = _NO_HABITS
    plan: Plan | None = None
    run_secs: float = 0.0
    vain_secs: float = 0.0

    def is_awaited(self, now: float) -> bool:
        """Whether the pool is to be decided though it has neither runs nor requests; soon enough for any start."""
        plan = self.plan
        if plan is None or now - plan.quiet_since > _LONGEST_QUIET_SECS:
            return False
        return plan.begun or now >= min(plan.begins - _BEFOREHAND_SECS, plan.ends)

    def to_json(self) -> dict[str, Any]:
        """What is stored with a decision."""
        plan = self.plan
        return {
            "habits": self.habits.to_json(),
            "runSecs": self.run_secs,
            "vainSecs": self.vain_secs,
            "plan": None
            if plan is None
            else {
                "quietSince": plan.quiet_since,
                # JSON knows no infinity.
                "begins": plan.begins if math.isfinite(plan.begins) else None,
                "ends": plan.ends,
                "why": plan.why,
                "begun": plan.begun,
                "waitedSecs": plan.waited_secs,
            },
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Foresight:
        """The same again, exactly."""
        plan = stored["plan"]
        return cls(
            habits=Habits.from_json(stored["habits"]),
            run_secs=stored["runSecs"],
            vain_secs=stored["vainSecs"],
            plan=None
            if plan is None
            else Plan(
                quiet_since=plan["quietSince"],
                begins=math.inf if plan["begins"] is None else plan["begins"],
                ends=plan["ends"],
                why=plan["why"],
                begun=plan["begun"],
                waited_secs=plan["waitedSecs"],
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """
    What the plan of a quiet pool is made of, and acted on.

    ``since``: when the quiet began; None: the pool is in use. ``passed_secs``: since the last look. ``runs``: how many
    there are. ``keep_secs``: how long the last one is kept anyway.
    """

    now: float
    since: float | None
    passed_secs: float
    runs: int
    keep_secs: float
    start_secs: float
    gaps: Gaps
    clock_secs: float | None


@dataclass(frozen=True, slots=True)
class Ahead:
    """
    ``why``: a run is to be there now, and why; None: none by foresight. ``is_over``: who was waited for did not come.
    """

    after: Foresight
    why: str | None = None
    is_over: bool = False
    look_again_in_secs: float | None = None


def foreseen(policy: Policy, before: Foresight, seen: Quiet) -> Ahead:
    """What the plan says now, of a plan that is made where there is none for this quiet."""
    known = _paid(before, seen)
    if seen.since is None:
        return Ahead(replace(known, plan=None))
    plan = known.plan
    if plan is None or plan.quiet_since != seen.since or (seen.now >= plan.ends and not (plan.begun and seen.runs)):
        plan = _planned(policy, known.habits, seen, seen.since)
    is_due = seen.now >= plan.begins - seen.start_secs - _TICK_SECS
    if is_due and not plan.begun and seen.now < plan.ends and _may_spend(policy, known):
        plan = replace(plan, begun=True, ends=max(plan.ends, seen.now + seen.start_secs + _TICK_SECS))
    known = replace(known, plan=plan)
    if not plan.begun:
        waits = plan.begins - seen.start_secs - _TICK_SECS - seen.now
        return Ahead(known, look_again_in_secs=waits if 0 < waits < math.inf else None)
    if seen.now >= plan.ends:
        paid = replace(known, plan=replace(plan, waited_secs=0.0), vain_secs=known.vain_secs + plan.waited_secs)
        return Ahead(paid, is_over=True)
    return Ahead(known, why=plan.why, look_again_in_secs=plan.ends - seen.now)


def _paid(before: Foresight, seen: Quiet) -> Foresight:
    """With the run-seconds since the last look; half as much after a day."""
    faded = _BUDGET_HALF_LIFE_SECS / (_BUDGET_HALF_LIFE_SECS + seen.passed_secs)
    plan = before.plan
    if plan is not None and plan.begun and seen.runs:
        plan = replace(plan, waited_secs=plan.waited_secs + seen.passed_secs)
    return replace(
        before,
        plan=plan,
        run_secs=before.run_secs * faded + seen.runs * seen.passed_secs,
        vain_secs=before.vain_secs * faded,
    )


def _may_spend(policy: Policy, known: Foresight) -> bool:
    """Within the budget; what one wake is worth may be lost in any case, or nothing could begin."""
    return known.vain_secs <= policy.ahead_budget_ratio * known.run_secs + policy.wake_costs_secs


def _planned(policy: Policy, habits: Habits, seen: Quiet, since: float) -> Plan:
    """The earlier of what the gaps and what the habits foresee."""
    plans = [Plan(since, math.inf, seen.now + HORIZON_SECS / 2)]
    if seen.gaps.total >= policy.gaps_needed:
        quiet = seen.now - since
        chances, never = seen.gaps.chances(max(quiet, seen.keep_secs))
        enough = sum(chance.weight for chance in chances) + never >= _FEWEST_GAPS
        if enough and (span := _span(policy, seen, chances, never)):
            words = f"it is mostly asked again after {span.begins:.0f} to {span.ends:.0f} s"
            plans.append(Plan(since, since + span.begins, since + span.ends, f"one ahead, since {words}"))
    if seen.clock_secs is not None:
        chances, never, period = habits.chances(seen.clock_secs)
        if span := _span(policy, seen, chances, never):
            words = f"it is mostly asked for at this time of the {period}"
            plans.append(Plan(since, seen.now + span.begins, seen.now + span.ends, f"one ahead, since {words}"))
    return min(plans, key=lambda plan: plan.begins)


def _span(policy: Policy, seen: Quiet, chances: Sequence[Chance], never: float) -> Span | None:
    return best_span(chances, never, wake_costs_secs=policy.wake_costs_secs, start_secs=seen.start_secs)
