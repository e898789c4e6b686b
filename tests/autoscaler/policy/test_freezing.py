"""Which runs stand still and which go on: each rule by example, and what holds of all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.deciding import decide, inputs, replay
from autoscaler.policy.freezing import freeze_after_secs, frost, is_needed
from autoscaler.policy.observing import Limits, Observation, RunSeen
from autoscaler.policy.thresholds import GREENROOM, PLATFORM
from autoscaler.policy.winding_down import Idle, surplus
from gateway.core.demand import DemandReport, PoolDemand, RunUse
from gateway.core.lifecycle import Readiness
from gateway.core.standby import PoolKey

NOW = 1000.0
LIMITS = Limits(freeze_after_secs=5, idle_timeout_secs=60)
POOL = PoolKey(target_id="actor", user_id="user")


def run(run_id: str = "a", state: Readiness = Readiness.SERVING, **facts: Any) -> RunSeen:
    """One that is quiet and was unused for longer than it takes to be frozen."""
    plain: dict[str, Any] = {"idle_secs": 6.0, "cpu_ratio": 0.001, "age_secs": 100.0}
    return RunSeen(run_id=run_id, state=state, **{**plain, **facts})


def used(run_id: str, in_flight: int, state: Readiness = Readiness.SERVING) -> RunSeen:
    return run(run_id, state, in_flight=in_flight, idle_secs=0.0)


def frozen(run_id: str, **facts: Any) -> RunSeen:
    return run(run_id, Readiness.FROZEN, **facts)


def see(*runs: RunSeen, limits: Limits = LIMITS, **facts: Any) -> Observation:
    return Observation(limits=limits, runs=runs, **facts)


def done(seen: Observation, *, gone: Sequence[str] = (), by_load: int = 0) -> tuple[list[str], list[str]]:
    """The ids of those that are frozen, and of those that go on."""
    found = frost(GREENROOM, seen, seen.runs, gone, by_load)
    return [run_id for run_id, _ in found.freeze], [run_id for run_id, _ in found.resume]


@pytest.mark.parametrize(
    ("one", "limits", "expected"),
    [
        pytest.param(run(), LIMITS, ["a"], id="quiet and unused for long enough"),
        pytest.param(run(idle_secs=5.0), LIMITS, ["a"], id="at its limit exactly"),
        pytest.param(run(idle_secs=4.9), LIMITS, [], id="not for long enough"),
        pytest.param(used("a", 1), LIMITS, [], id="in use"),
        pytest.param(run(viewers=1), LIMITS, [], id="looked at"),
        pytest.param(run(cpu_ratio=0.02), LIMITS, [], id="at work on something of its own"),
        pytest.param(run(cpu_ratio=None), LIMITS, [], id="nobody knows whether it is at work"),
        pytest.param(run(has_open_sockets=True), LIMITS, [], id="with an open socket"),
        pytest.param(
            run(has_open_sockets=True),
            replace(LIMITS, freeze_with_open_sockets=True),
            ["a"],
            id="which is allowed here",
        ),
        pytest.param(run(may_freeze=False), LIMITS, [], id="not to be frozen"),
        pytest.param(run(retires_because="a newer build"), LIMITS, [], id="about to retire"),
        pytest.param(run(state=Readiness.STARTING), LIMITS, [], id="starts"),
        pytest.param(run(), replace(LIMITS, freeze_after_secs=None), [], id="not asked for"),
        pytest.param(run(idle_secs=100.0), replace(LIMITS, freeze_after_secs=60), [], id="would be wound down before"),
        pytest.param(run(), replace(LIMITS, min_runs=1), ["a"], id="kept warm, which its memory is"),
    ],
)
def test_who_is_frozen(one: RunSeen, limits: Limits, expected: list[str]) -> None:
    """Only one that nobody uses, that does nothing and may be frozen; after so long, where that comes first at all."""
    assert done(see(one, limits=limits)) == (expected, [])


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(see(frozen("a")), [], id="nobody asks"),
        pytest.param(see(frozen("a"), waiting=1), ["a"], id="somebody waits"),
        pytest.param(see(frozen("a"), frozen("b"), waiting=3), ["a"], id="three fit into one"),
        pytest.param(see(frozen("a"), frozen("b"), waiting=4), ["a", "b"], id="the fourth is above the desired number"),
        pytest.param(
            see(used("s", 4), frozen("a"), waiting=3),
            [
                "a",
            ],
            id="one serves and is full",
        ),
        pytest.param(see(used("s", 3), frozen("a")), [], id="one serves at its desired number"),
        pytest.param(see(used("s", 4), frozen("a")), ["a"], id="one serves above it"),
        pytest.param(see(run("s", Readiness.STARTING), frozen("a"), waiting=1), ["a"], id="before one that starts"),
        pytest.param(
            see(frozen("old", idle_secs=50.0), frozen("new", idle_secs=7.0), waiting=1), ["new"], id="the newest first"
        ),
        pytest.param(
            see(frozen("old", retires_because="a newer build"), frozen("new", idle_secs=50.0), waiting=1),
            ["new"],
            id="one of the newer build first",
        ),
        pytest.param(
            see(frozen("old", retires_because="a newer build"), waiting=1), ["old"], id="an older build's helps out"
        ),
        pytest.param(see(frozen("a", viewers=1)), ["a"], id="somebody looks at it"),
        pytest.param(see(frozen("a", in_flight=1)), ["a"], id="something is said on its socket"),
        pytest.param(see(frozen("a", idle_secs=1.0)), ["a"], id="something was said for a moment"),
        pytest.param(
            see(frozen("a", viewers=1), frozen("b", idle_secs=5.5), waiting=1), ["a"], id="who goes on anyway counts"
        ),
        pytest.param(see(frozen("a"), limits=Limits()), ["a"], id="runs are not to be frozen any more"),
    ],
)
def test_who_goes_on(seen: Observation, expected: list[str]) -> None:
    """As many as the requests of this moment ask for, those that were used last first; and whoever is used itself."""
    assert done(seen) == ([], expected)


def test_load_has_one_go_on() -> None:
    """What the processor asks for is awake, too, and is not frozen again for want of requests."""
    assert done(see(used("s", 1), frozen("a")), by_load=2) == ([], ["a"])
    assert done(see(used("s", 1), run("a")), by_load=2) == ([], [])


def test_as_many_stay_awake_as_are_asked_for() -> None:
    """The one that was unused for longest is frozen first."""
    seen = see(used("s", 4), run("a", idle_secs=9.0), run("b", idle_secs=8.0))
    assert done(seen) == (["a"], [])


def test_one_that_is_wound_down_neither_counts_nor_is_frozen() -> None:
    """It is about to go."""
    assert done(see(run("a"), frozen("b"), waiting=1), gone=["a"]) == ([], ["b"])
    assert done(see(run("a"), frozen("b")), gone=["a", "b"]) == ([], [])


def test_the_next_look_is_at_the_next_limit() -> None:
    """Of those that could be frozen by time alone."""
    seen = see(run("a", idle_secs=1.0), run("b", idle_secs=3.5), run("c", idle_secs=4.9, cpu_ratio=0.5))
    assert frost(GREENROOM, seen, seen.runs, (), 0).look_again_in_secs == pytest.approx(1.5)
    assert decide(GREENROOM, seen, NOW).look_again_in_secs == pytest.approx(1.5)


def test_a_decision_counts_frozen_runs_as_present() -> None:
    """Who waits has them go on, and none is started for him."""
    decision = decide(GREENROOM, see(frozen("a"), waiting=1), NOW)
    assert (decision.start, decision.drain, decision.present_runs) == (0, (), 1)
    assert decision.resume == (("a", "1 wait for a run"),)
    assert decision.said_of_runs() == ("resume a: 1 wait for a run",)
    assert decision.to_json()["resume"] == [{"id": "a", "reason": "1 wait for a run"}]


def test_a_frozen_run_that_is_idle_for_its_timeout_is_wound_down() -> None:
    """As any other; minRuns are kept all the same."""
    assert decide(GREENROOM, see(frozen("a", idle_secs=60.0)), NOW).drain == (("a", "idle for 60 s"),)
    kept = decide(GREENROOM, see(frozen("a", idle_secs=60.0), limits=replace(LIMITS, min_runs=1)), NOW)
    assert (kept.drain, kept.resume, kept.start) == ((), (), 0)


def test_of_unused_runs_beyond_what_is_wanted_frozen_ones_go_first() -> None:
    """What is left serves at once, though it be younger."""
    runs = [run("awake", age_secs=50.0), frozen("still", age_secs=100.0), used("s", 1)]
    nobody_idle = Idle(keep_secs=60.0, runs=(), reason="")
    assert [one.run_id for one in surplus(GREENROOM, nobody_idle, None, runs, 2)] == ["still"]


def test_an_overloaded_run_has_a_frozen_one_go_on_and_starts_none() -> None:
    """It is the one more that the load asks for."""
    busy = replace(used("s", 1), overloaded_ratio=0.9)
    decision = decide(GREENROOM, see(busy, frozen("a")), NOW)
    assert (decision.start, [run_id for run_id, _ in decision.resume]) == (0, ["a"])


def test_the_platform_freezes_none() -> None:
    """A run that is so from before the preset was changed goes on."""
    decision = decide(PLATFORM, see(run("a"), frozen("b")), NOW)
    assert decision.freeze == ()
    assert decision.resume == (("b", "the preset freezes none"),)


@pytest.mark.parametrize(
    ("after", "timeout", "expected"),
    [(None, 60, None), (5, 60, 5), (60, 60, None), (61, 60, None), (0.5, 1, 0.5)],
)
def test_when_a_run_is_frozen_at_all(after: float | None, timeout: float, expected: float | None) -> None:
    """Only sooner than it would be wound down."""
    assert freeze_after_secs(Limits(freeze_after_secs=after, idle_timeout_secs=timeout)) == expected


def report(in_flight: int = 0, *, viewers: int = 0, waiting: int = 0, silent: int = 0) -> DemandReport:
    return DemandReport(
        gateway_id="g",
        routes_seen=1,
        pools={POOL: PoolDemand(waiting=waiting)},
        runs={"a": RunUse(in_flight=in_flight, viewers=viewers, idle_secs=0.0, silent=silent)},
    )


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        pytest.param([], False, id="nobody reports"),
        pytest.param([report()], False, id="nothing"),
        pytest.param([report(), report(1)], True, id="a request at another gateway"),
        pytest.param([report(viewers=1)], True, id="a viewer"),
        pytest.param([report(waiting=1)], True, id="somebody waits for a run of its pool"),
        pytest.param([report(silent=1)], False, id="a silent socket, which was decided before"),
    ],
)
def test_who_needs_it_meanwhile(reports: list[DemandReport], expected: bool) -> None:
    """Between the decision and the deed."""
    assert is_needed("a", POOL, reports) is expected


@st.composite
def pools(draw: st.DrawFn) -> Observation:
    runs = st.builds(
        RunSeen,
        run_id=st.integers(0, 10**6).map(str),
        state=st.sampled_from(Readiness),
        age_secs=st.floats(0, 1000),
        in_flight=st.sampled_from([0, 0, 0, 1, 4]),
        idle_secs=st.sampled_from([0.0, 4.9, 5.0, 59.0, 61.0]),
        viewers=st.sampled_from([0, 0, 1]),
        cpu_ratio=st.sampled_from([None, 0.0, 0.01, 0.5]),
        overloaded_ratio=st.sampled_from([0.0, 0.0, 0.9]),
        has_open_sockets=st.booleans(),
        may_freeze=st.sampled_from([True, True, False]),
        retires_because=st.sampled_from([None, None, "a newer build"]),
    )
    limits = replace(
        LIMITS,
        freeze_after_secs=draw(st.sampled_from([None, 5, 5, 60])),
        freeze_with_open_sockets=draw(st.booleans()),
        min_runs=draw(st.sampled_from([0, 0, 2])),
    )
    seen = draw(st.lists(runs, max_size=7, unique_by=lambda one: one.run_id))
    return Observation(limits=limits, runs=seen, waiting=draw(st.sampled_from([0, 0, 1, 9])))


@given(pools())
def test_what_always_holds(seen: Observation) -> None:
    """Nobody is frozen who is used, at work, or about to go; nobody waits beside a run that stands still."""
    decision = decide(GREENROOM, seen, NOW)
    by_id = {one.run_id: one for one in seen.runs}
    freeze, resume, drain = (
        {run_id for run_id, _ in done} for done in (decision.freeze, decision.resume, decision.drain)
    )
    assert not freeze & resume
    assert not (freeze | resume) & drain
    for run_id in freeze:
        one = by_id[run_id]
        assert one.state is Readiness.SERVING
        assert not one.is_used
        assert one.may_freeze
        assert one.cpu_ratio is not None
        assert one.cpu_ratio < GREENROOM.quiet_below_ratio
    assert all(by_id[run_id].state is Readiness.FROZEN for run_id in resume)
    still = [one for one in seen.runs if one.state is Readiness.FROZEN and one.run_id not in resume | drain]
    assert not any(one.is_used for one in still)
    awake = sum(one.state is Readiness.SERVING and one.run_id not in drain for one in seen.runs) + len(resume)
    if seen.waiting and still:
        assert awake >= 1


@given(pools())
def test_what_was_just_done_is_not_undone(seen: Observation) -> None:
    """With the same requests and the same load, whoever was frozen is not resumed next, nor the other way round."""
    decision = decide(GREENROOM, seen, NOW)
    changed = {
        **dict.fromkeys(dict(decision.freeze), Readiness.FROZEN),
        **dict.fromkeys(dict(decision.resume), Readiness.SERVING),
    }
    gone = dict(decision.drain)
    runs = [replace(one, state=changed.get(one.run_id, one.state)) for one in seen.runs if one.run_id not in gone]
    again = decide(GREENROOM, replace(seen, runs=runs, memory=decision.memory), NOW)
    assert not dict(decision.freeze).keys() & dict(again.resume).keys()
    if seen.limits.freeze_after_secs == 5:
        assert not {run_id for run_id, why in decision.resume if why != "it is in use"} & dict(again.freeze).keys()


@given(pools())
def test_it_can_be_made_again_from_what_is_stored(seen: Observation) -> None:
    """Through JSON and back, with all that freezing looks at."""
    stored = json.loads(json.dumps(inputs(GREENROOM, seen, NOW)))
    assert replay(stored).to_json() == decide(GREENROOM, seen, NOW).to_json()
