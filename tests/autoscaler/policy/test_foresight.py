"""A run that is there before anybody asks: when, for how long, and at what cost where nobody comes."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from autoscaler.policy.deciding import Decision, decide, inputs, replay
from autoscaler.policy.foresight import Ahead, Foresight, Plan, Quiet, foreseen
from autoscaler.policy.gaps import Gaps
from autoscaler.policy.habits import DAY_SECS, Habits
from autoscaler.policy.memory import Memory
from autoscaler.policy.observing import Limits, Observation, RunSeen
from autoscaler.policy.thresholds import GREENROOM, Policy
from autoscaler.policy.windows import Window
from gateway.core.lifecycle import Readiness

AHEAD = replace(GREENROOM, starts_ahead=True)
NOTHING = Foresight()
LIMITS = Limits(idle_timeout_secs=60)
MORNING = 20_000 * DAY_SECS + 9 * 3600.0


def gaps(*secs: float) -> Gaps:
    made = Gaps()
    for one in secs:
        made = made.add(one)
    return made


EVERY_TEN_MINUTES = gaps(*[600.0] * 13)


def quiet(now: float, *, since: float | None = 0.0, known: Gaps = EVERY_TEN_MINUTES, **given: float | None) -> Quiet:
    """A pool that has been quiet since 0 and has no run."""
    plain = {"passed_secs": 2.0, "runs": 0, "keep_secs": 60.0, "start_secs": 3.0}
    return Quiet(now=now, since=since, gaps=known, **{"clock_secs": None, **plain, **given})  # type: ignore[arg-type]


def at(now: float, before: Foresight = NOTHING, **given: float | None) -> Ahead:
    return foreseen(AHEAD, before, quiet(now, **given))


def test_a_plan_is_made_once_and_acted_on_in_time() -> None:
    """Gaps of ten minutes lie between 579 and 666 s by their buckets: a run serves from the one to the other."""
    planned = at(10.0)
    assert planned.why is None
    assert planned.look_again_in_secs == pytest.approx(579 - 5 - 10, abs=1)
    begun = at(575.0, planned.after)
    assert begun.why == "one ahead, since it is mostly asked again after 579 to 666 s"
    assert not begun.is_over
    assert begun.look_again_in_secs == pytest.approx(666 - 575, abs=1)
    assert at(660.0, begun.after, runs=1).why == begun.why
    over = at(667.0, begun.after, runs=1)
    assert (over.why, over.is_over) == (None, True)
    assert at(669.0, over.after, runs=1).is_over


def test_who_comes_ends_the_plan() -> None:
    """And nothing was in vain."""
    begun = at(600.0, at(575.0, at(10.0).after).after, runs=1)
    used = at(602.0, begun.after, runs=1, since=None)
    assert (used.why, used.is_over) == (None, False)
    assert used.after.plan is None
    assert used.after.vain_secs == 0


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(gaps(*[600.0] * 11), id="fewer than are needed"),
        pytest.param(gaps(*[20.0] * 30, 600.0, 600.0), id="too few that are long"),
        pytest.param(gaps(*[20.0] * 13), id="short ones: the run is kept so long anyway"),
        pytest.param(gaps(*[10_000.0] * 13), id="hours: longer than is known"),
        pytest.param(gaps(*(300.0 * 1.3**number for number in range(9)), *[20.0] * 9), id="all different"),
    ],
)
def test_nothing_is_foreseen(known: Gaps) -> None:
    """Then it is looked for again after half an hour, not at every look."""
    seen = foreseen(AHEAD, Foresight(), quiet(10.0, known=known))
    assert (seen.why, seen.is_over, seen.look_again_in_secs) == (None, False, None)
    assert seen.after.plan == Plan(0.0, math.inf, 1810.0)


def test_habits_count_without_gaps() -> None:
    """Three days at the same minute; the day is said."""
    habits = Habits(tuple(MORNING - day * DAY_SECS + 120 for day in (3, 2, 1)), MORNING - 4 * DAY_SECS)
    seen = at(10.0, Foresight(habits), clock_secs=MORNING, known=Gaps())
    assert seen.look_again_in_secs == pytest.approx(100 - 5)
    begun = at(106.0, seen.after, clock_secs=MORNING + 96, known=Gaps())
    assert begun.why == "one ahead, since it is mostly asked for at this time of the day"


def test_a_misleading_past_costs_no_more_than_the_budget() -> None:
    """What waits in vain stays within a tenth of the run-seconds, and what one wake is worth."""
    known = Foresight(run_secs=2000.0)
    vain = waits = 0
    now = 10.0
    for number in range(40):
        since = now
        while now < since + 700:
            runs = 1 if known.plan is not None and known.plan.begun and now < known.plan.ends + 4 else 0
            seen = at(now, known, since=since, runs=runs)
            known = seen.after
            waits += 2 * (seen.why is not None)
            now += 2.0
        known = at(now, known, since=None, runs=0).after
        now += 2.0
        if number == 0:
            vain = waits
    assert vain == pytest.approx(88, abs=6)
    assert waits <= 0.1 * 2000 + 0.1 * waits + AHEAD.wake_costs_secs + vain


def test_stored_and_read_again() -> None:
    """Exactly, an endless wait among it."""
    for plan in (None, Plan(1.5, math.inf, 9.0), Plan(1.5, 7.25, 9.0, "why", begun=True, waited_secs=2.5)):
        one = Foresight(Habits((1.0, 2.0), 0.5), plan, 100.25, 7.5)
        assert Foresight.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False))) == one


def asleep(**given: object) -> Observation:
    memory = Memory(at=1000.0, quiet_since=500.0, gaps=EVERY_TEN_MINUTES, foresight=Foresight(run_secs=1000.0))
    return Observation(limits=LIMITS, arrivals=0, memory=replace(memory, since=0.0), **given)  # type: ignore[arg-type]


def decided(seen: Observation, now: float) -> Decision:
    decision = decide(AHEAD, seen, now)
    assert replay(json.loads(json.dumps(inputs(AHEAD, seen, now), allow_nan=False))) == decision
    return decision


def test_a_sleeping_pool_is_woken_ahead() -> None:
    """With the reason; the run is kept while somebody is foreseen, and goes where nobody came."""
    decision = decided(asleep(), 1075.0)
    assert (decision.wanted_runs, decision.start) == (1, 1)
    assert "one ahead, since it is mostly asked again after 579 to 666 s" in decision.reasons
    run = RunSeen(run_id="r", state=Readiness.SERVING, age_secs=80.0, idle_secs=77.0)
    held = decided(Observation(limits=LIMITS, arrivals=0, runs=[run], memory=decision.memory), 1160.0)
    assert (held.start, held.drain) == (0, ())
    gone = decided(Observation(limits=LIMITS, arrivals=0, runs=[run], memory=held.memory), 1167.0)
    assert gone.drain == (("r", "nobody has come at the time foreseen"),)
    assert gone.wanted_runs == 0


@pytest.mark.parametrize(
    ("seen", "policy", "started"),
    [
        pytest.param(asleep(), AHEAD, 1, id="foreseen"),
        pytest.param(asleep(), GREENROOM, 0, id="switched off, as by default"),
        pytest.param(asleep(start_unasked=False), AHEAD, 0, id="starts have failed"),
        pytest.param(asleep(may_start=0), AHEAD, 0, id="no room"),
        pytest.param(asleep(is_on=False), AHEAD, 0, id="standby mode was switched off"),
        pytest.param(
            asleep(runs=[RunSeen(run_id="r", state=Readiness.STARTING, age_secs=1.0)]), AHEAD, 0, id="one starts"
        ),
        pytest.param(
            replace(asleep(), limits=Limits(min_runs=1)), GREENROOM, 1, id="minRuns is there whatever is foreseen"
        ),
    ],
)
def test_who_is_started_ahead(seen: Observation, policy: Policy, started: int) -> None:
    """Only where runs may be started that nobody waits for."""
    assert decide(policy, seen, 1075.0).start == started


def test_the_reason_is_told_where_the_last_minute_asks_for_one_too() -> None:
    """Its demand alone would have started nothing."""
    busy = Window(0.0, 1000.0, (0.0,) * 30 + (1.0,) * 5 + (0.0,) * 25)
    seen = asleep()
    seen = replace(seen, memory=replace(seen.memory, quiet_since=425.0, in_flight=busy))
    plain, ahead = decide(GREENROOM, seen, 1002.0), decided(seen, 1002.0)
    assert (plain.wanted_runs, plain.start) == (0, 0)
    assert (ahead.wanted_runs, ahead.start) == (1, 1)
    assert any(reason.startswith("one ahead") for reason in ahead.reasons)
