"""What holds for every decision, whatever was seen."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autoscaler.policy.deciding import Decision, decide, inputs, replay
from autoscaler.policy.foresight import Foresight, Plan
from autoscaler.policy.gaps import Gaps
from autoscaler.policy.memory import Memory
from autoscaler.policy.observing import Limits, Observation, RunSeen
from autoscaler.policy.thresholds import GREENROOM, PLATFORM, Policy
from autoscaler.policy.windows import Window
from gateway.core.lifecycle import Readiness

NOW = 1000.0


@st.composite
def windows(draw: st.DrawFn) -> Window:
    levels = draw(st.lists(st.floats(0, 40, allow_subnormal=False), min_size=60, max_size=60) | st.just([0.0] * 60))
    return Window(draw(st.sampled_from([0.0, 970.0, 998.0])), NOW - 2, tuple(levels))


memories = st.just(Memory()) | st.builds(
    Memory,
    at=st.just(NOW - 2),
    since=st.sampled_from([0.0, 970.0]),
    in_flight=windows(),
    waiting=windows(),
    arrivals=windows(),
    busy_secs=st.floats(0, 1000, allow_subnormal=False),
    finished=st.floats(0, 1000, allow_subnormal=False),
    open_requests=st.integers(0, 40),
    start_secs=st.none() | st.floats(0.1, 60),
    panic_at=st.none() | st.floats(NOW - 40, NOW - 2),
    needs=st.lists(st.tuples(st.floats(NOW - 20, NOW - 2), st.integers(0, 9)), max_size=3).map(tuple),
    quiet_since=st.none() | st.sampled_from([900.0, 950.0]) | st.floats(900, NOW - 2),
    gaps=st.lists(st.floats(5, 500), max_size=20).map(lambda secs: _gaps(secs)),
    began_with_runs=st.booleans(),
    foresight=st.builds(
        Foresight,
        plan=st.none()
        | st.builds(
            Plan,
            quiet_since=st.sampled_from([900.0, 950.0]),
            begins=st.sampled_from([NOW - 50, NOW, NOW + 4, math.inf]),
            ends=st.sampled_from([NOW - 10, NOW, NOW + 60]),
            begun=st.booleans(),
        ),
        run_secs=st.floats(0, 1000),
        vain_secs=st.sampled_from([0.0, 1000.0]),
    ),
)


def _gaps(secs: list[float]) -> Gaps:
    made = Gaps()
    for one in secs:
        made = made.add(one)
    return made


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    most = draw(st.integers(1, 8))
    min_runs = draw(st.sampled_from([0, 0, 0, 1, 3]))
    runs = st.builds(
        RunSeen,
        run_id=st.integers(0, 10**9).map(str),
        state=st.sampled_from(Readiness),
        age_secs=st.floats(0, 1000),
        in_flight=st.sampled_from([0, 0, 1, 2, most]),
        idle_secs=st.sampled_from([0.0, 1.0, 29.0, 30.0, 31.0]),
        viewers=st.sampled_from([0, 0, 0, 2]),
        overloaded_ratio=st.sampled_from([0.0, 0.0, 0.4, 0.9]),
        retires_because=st.sampled_from([None, None, None, "a newer build"]),
    )
    return Observation(
        limits=Limits(
            max_requests_per_run=most,
            desired_requests_per_run=draw(st.floats(0.5, most)),
            idle_timeout_secs=30,
            min_runs=min_runs,
            max_runs=draw(st.none() | st.integers(max(1, min_runs), 6)),
        ),
        runs=draw(st.lists(runs, max_size=7, unique_by=lambda run: run.run_id)),
        waiting=draw(st.integers(0, 40)),
        average_in_flight=draw(st.none() | st.floats(0, 40, allow_subnormal=False)),
        average_waiting=draw(st.none() | st.floats(0, 40, allow_subnormal=False)),
        arrivals=draw(st.integers(0, 60)),
        finished=draw(st.none() | st.integers(0, 60)),
        service_secs=draw(st.none() | st.floats(0.01, 100)),
        is_on=draw(st.sampled_from([True, True, True, False])),
        may_start=draw(st.integers(0, 8)),
        start_unasked=draw(st.booleans()),
        has_cpu_left=draw(st.booleans()),
        clock_secs=draw(st.none() | st.floats(0, 1e10)),
        memory=draw(memories),
    )


policies = st.sampled_from(
    [
        GREENROOM,
        PLATFORM,
        replace(GREENROOM, learns_idle_timeout=True, spare_slots=3),
        replace(GREENROOM, starts_ahead=True),
    ]
)


@given(policies, observations())
def test_the_bounds_are_never_broken(policy: Policy, seen: Observation) -> None:
    """minRuns, maxRuns, what pace allows, and no run twice."""
    decision = decide(policy, seen, NOW)
    limits = seen.limits
    assert 0 <= decision.start <= seen.may_start
    drained = [run_id for run_id, _ in decision.drain]
    assert len(drained) == len(set(drained))
    assert set(drained) <= {run.run_id for run in seen.runs if run.state is not Readiness.DRAINING}
    if not seen.is_on:
        assert (decision.wanted_runs, decision.start) == (0, 0)
        return
    assert limits.min_runs <= decision.wanted_runs <= (limits.max_runs or 10**9)
    if decision.start:
        assert decision.present_runs + decision.start <= decision.wanted_runs
    current = [run for run in seen.runs if run.state is not Readiness.DRAINING and run.retires_because is None]
    up = [run for run in current if run.is_up]
    kept = [run for run in up if run.run_id not in drained]
    assert len(kept) >= min(len(up), decision.wanted_runs)
    assert decision.look_again_in_secs is None or decision.look_again_in_secs > 0
    assert decision.reasons


@given(policies, observations())
def test_nobody_who_is_there_is_left_without_a_run(policy: Policy, seen: Observation) -> None:
    """Where requests wait or run, at least one run is wanted."""
    load = seen.waiting + sum(run.in_flight for run in seen.runs if run.state is not Readiness.DRAINING)
    if seen.is_on and load:
        assert decide(policy, seen, NOW).wanted_runs >= 1


@given(observations(), st.data())
def test_more_demand_never_means_fewer_runs(seen: Observation, data: st.DataObject) -> None:
    """One more waiting, or one more in flight in any run: as many are wanted, or more."""
    before = decide(GREENROOM, seen, NOW)
    more = replace(seen, waiting=seen.waiting + 1)
    if data.draw(st.booleans()) and seen.runs:
        index = data.draw(st.integers(0, len(seen.runs) - 1))
        busier = replace(seen.runs[index], in_flight=seen.runs[index].in_flight + 1, idle_secs=0.0)
        more = replace(seen, runs=[*seen.runs[:index], busier, *seen.runs[index + 1 :]])
    if seen.average_in_flight is not None and seen.average_waiting is not None and data.draw(st.booleans()):
        more = replace(more, average_in_flight=seen.average_in_flight + 1, average_waiting=seen.average_waiting + 1)
    after = decide(GREENROOM, more, NOW)
    assert after.wanted_runs >= before.wanted_runs
    assert after.start >= before.start


@given(observations())
def test_nothing_shrinks_in_panic_but_by_the_idle_rule(seen: Observation) -> None:
    """Nor after a restart, before a whole window was seen."""
    decision = decide(GREENROOM, seen, NOW)
    memory = decision.memory
    was_panic = seen.memory.panic_at is not None and NOW - seen.memory.panic_at < GREENROOM.panic_hold_secs
    is_panic = was_panic or memory.panic_at == NOW
    is_new = memory.began_with_runs and NOW - memory.since < GREENROOM.stable_window_secs
    if not (is_panic or is_new) or not seen.is_on or seen.limits.max_runs is not None:
        return
    by_id = {run.run_id: run for run in seen.runs}
    for run_id, _ in decision.drain:
        gone = by_id[run_id]
        assert gone.retires_because or (not gone.is_used and gone.idle_secs >= 30)


@pytest.mark.slow
@given(policies, observations())
@settings(max_examples=1000)
def test_a_stored_decision_can_be_made_again(policy: Policy, seen: Observation) -> None:
    """From its inputs as JSON: the same, with all its reasons and what is remembered."""
    stored = json.loads(json.dumps(inputs(policy, seen, NOW)))
    assert replay(stored) == decide(policy, seen, NOW)


def lived(rate: float, service: float, limits: Limits, first_runs: int, secs: int) -> list[Decision]:
    """
    A pool under a load that never changes, with decisions every two seconds that are carried out: requests come and go
    evenly, as many are in flight as are in service on average, and a start takes three seconds.
    """
    load = rate * service
    made: list[Decision] = []
    runs = [RunSeen(run_id=f"first{n}", state=Readiness.SERVING, age_secs=100.0) for n in range(first_runs)]
    memory = Memory()
    for now in range(0, secs, 2):
        up = [run for run in runs if run.is_up]
        slots = len(up) * limits.max_requests_per_run
        in_flight = min(load, slots)
        spread = [int(in_flight * (n + 1) / len(up)) - int(in_flight * n / len(up)) for n in range(len(up))]
        busy = dict(zip((run.run_id for run in up), spread, strict=True))
        seen = Observation(
            limits=limits,
            runs=[replace(run, in_flight=busy.get(run.run_id, 0)) for run in runs],
            waiting=int(load - in_flight),
            average_in_flight=in_flight,
            average_waiting=load - in_flight,
            arrivals=int(rate * (now + 2)) - int(rate * now) if now else 0,
            service_secs=service,
            memory=memory,
        )
        decision = decide(GREENROOM, seen, float(now))
        memory = decision.memory
        made.append(decision)
        gone = {run_id for run_id, _ in decision.drain}
        started = range(decision.start)
        runs = [_older(run) for run in runs if run.run_id not in gone]
        runs += [RunSeen(run_id=f"{now}-{n}", state=Readiness.STARTING) for n in started]
    return made


def _older(run: RunSeen) -> RunSeen:
    age = run.age_secs + 2
    return replace(run, age_secs=age, state=Readiness.SERVING if age >= 3 else run.state)


@given(
    st.floats(0.5, 40),
    st.floats(0.05, 20),
    st.integers(1, 8),
    st.floats(0.3, 1),
    st.integers(0, 12),
)
@example(rate=0.8203125, service=14.0, most=2, desired=1.0, first_runs=0)  # too long to be wound down in use
@settings(max_examples=60, deadline=None)
def test_a_steady_load_turns_the_number_once_a_window(
    rate: float, service: float, most: int, desired: float, first_runs: int
) -> None:
    """At most one change of direction within any sixty seconds, however the pool began."""
    service = min(service, 80 / rate)
    limits = Limits(max_requests_per_run=most, desired_requests_per_run=max(0.3, desired * most))
    wanted = [decision.wanted_runs for decision in lived(rate, service, limits, first_runs, 300)]
    changes = [(at, after > before) for at, (before, after) in enumerate(pairwise(wanted)) if after != before]
    turns = [at for (_, before), (at, after) in pairwise(changes) if before != after]
    assert all(2 * (later - sooner) >= 60 for sooner, later in pairwise(turns)), wanted
