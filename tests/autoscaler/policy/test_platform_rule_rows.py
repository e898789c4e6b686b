"""The preset ``platform``: how many runs, and what is done about it: examples as rows, then what always holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.memory import Memory
from autoscaler.policy.observing import Limits, Observation, RunSeen
from autoscaler.policy.platform_rule import Found, decide_as_the_platform
from gateway.core.lifecycle import Readiness

OLD = "a newer build"
NUMBERS = count()


def run(
    in_flight: int = 0,
    *,
    idle: float = 0.0,
    age: float = 100.0,
    retires: str | None = None,
    state: Readiness = Readiness.SERVING,
    run_id: str = "",
    viewers: int = 0,
) -> RunSeen:
    return RunSeen(
        run_id=run_id or f"run{next(NUMBERS)}",
        state=state,
        in_flight=in_flight,
        idle_secs=idle,
        age_secs=age,
        viewers=viewers,
        retires_because=retires,
    )


def starting(**facts: Any) -> RunSeen:
    return run(state=Readiness.STARTING, **facts)


def see(
    *runs: RunSeen,
    waiting: int = 0,
    may_start: int = 100,
    is_on: bool = True,
    start_unasked: bool = True,
    desired: int = 3,
    limit: int = 4,
    min_runs: int = 0,
    max_runs: int | None = None,
    ahead_at: int | None = None,
) -> Observation:
    return Observation(
        limits=Limits(
            desired_requests_per_run=desired,
            max_requests_per_run=limit,
            idle_timeout_secs=30,
            min_runs=min_runs,
            max_runs=max_runs,
        ),
        is_on=is_on,
        waiting=waiting,
        runs=runs,
        may_start=may_start,
        start_unasked=start_unasked,
        memory=Memory(ahead_at=ahead_at),
    )


def remembering(seen: Observation, ahead_at: int | None) -> Observation:
    return replace(seen, memory=Memory(ahead_at=ahead_at))


def drained(decision: Found) -> list[str]:
    return [run_id for run_id, _ in decision.drain]


@pytest.mark.parametrize(
    ("seen", "wanted", "start"),
    [
        pytest.param(see(), 0, 0, id="nobody asks: none"),
        pytest.param(see(waiting=1), 1, 1, id="the first request wakes one"),
        pytest.param(see(waiting=50, desired=10, limit=10), 5, 5, id="50 at up to 10 each: 5, not 50"),
        pytest.param(see(waiting=51, desired=10, limit=10), 6, 6, id="one more request, one more run"),
        pytest.param(
            see(*(starting() for _ in range(5)), waiting=50, desired=10, limit=10),
            5,
            0,
            id="those that start already count",
        ),
        pytest.param(
            see(run(10), run(10), starting(), waiting=25, desired=10, limit=10),
            5,
            2,
            id="in flight and waiting together",
        ),
        pytest.param(see(run(3)), 1, 0, id="at its desired load: enough"),
        pytest.param(see(run(4)), 2, 1, id="above it: one ahead"),
        pytest.param(see(run(4), run(3)), 2, 0, id="not every run is above it"),
        pytest.param(see(run(4), run(4)), 3, 1, id="every run is"),
        pytest.param(see(run(4), starting()), 1, 0, id="the one ahead is under way"),
        pytest.param(see(run(4), waiting=1), 2, 1, id="a waiting one is reason enough: no second one ahead"),
        pytest.param(see(waiting=3, limit=10), 1, 1, id="who waits fits at the desired load"),
        pytest.param(see(waiting=5, limit=10), 2, 2, id="who waits will be above it: one ahead at once"),
        pytest.param(see(starting(), waiting=5, limit=10), 2, 1, id="also of one that starts"),
        pytest.param(see(starting(), starting(), waiting=5, limit=10), 1, 0, id="two that start: 3 and 2"),
        pytest.param(see(run(3), waiting=1, limit=10), 2, 1, id="in flight and waiting together are above it"),
        pytest.param(see(run(9), limit=4, desired=4), 3, 2, id="above a limit that was lowered"),
        pytest.param(see(run(12), limit=4), 4, 3, id="and above the desired load once it is shared: one ahead"),
        pytest.param(see(run(4), limit=10, ahead_at=4), 1, 0, id="no more than there was one ahead for"),
        pytest.param(see(run(4), limit=10, ahead_at=5), 1, 0, id="less than that"),
        pytest.param(see(run(5), limit=10, ahead_at=4), 2, 1, id="more than that: the next one ahead"),
        pytest.param(see(run(4), waiting=2, limit=10, ahead_at=6), 1, 0, id="as many, some of them waiting"),
        pytest.param(see(run(4), waiting=3, limit=10, ahead_at=6), 2, 1, id="more, some of them waiting"),
        pytest.param(see(waiting=5, limit=10, ahead_at=50), 2, 2, id="that was about runs that are gone"),
        pytest.param(see(run(viewers=20)), 0, 0, id="viewers are no load"),
        pytest.param(see(run(4, viewers=20), run(viewers=20)), 1, 0, id="a run that is only viewed has room"),
        pytest.param(see(run(3, viewers=20)), 1, 0, id="viewers crowd nobody"),
        pytest.param(see(run(viewers=20, retires=OLD), starting()), 1, 0, id="nor do those of an old build's run"),
        pytest.param(see(waiting=50, desired=10, limit=10, may_start=2), 5, 2, id="as pace and machine allow"),
        pytest.param(see(waiting=50, desired=10, limit=10, may_start=0), 5, 0, id="not now"),
        pytest.param(see(waiting=50, desired=10, limit=10, max_runs=3), 3, 3, id="maxRuns holds"),
        pytest.param(see(run(4), max_runs=1), 1, 0, id="maxRuns holds for the one ahead"),
        pytest.param(see(min_runs=2), 2, 2, id="minRuns stay warm though nobody asks"),
        pytest.param(see(run(), min_runs=2), 2, 1, id="minRuns are made up"),
        pytest.param(see(waiting=20, desired=4, min_runs=2), 5, 5, id="minRuns are no extra"),
        pytest.param(see(run(state=Readiness.DRAINING), waiting=1), 1, 1, id="one that drains is no help"),
        pytest.param(see(run(2, retires=OLD)), 1, 1, id="one of the new build"),
        pytest.param(see(run(2, retires=OLD), starting()), 1, 0, id="it starts already"),
        pytest.param(
            see(run(4, retires=OLD), run(4, retires=OLD), waiting=5), 4, 4, id="the new ones are to carry it all"
        ),
        pytest.param(see(run(3, retires=OLD), run(2, retires=OLD), run(3)), 2, 1, id="what is in the old counts"),
        pytest.param(
            see(run(4, retires=OLD, state=Readiness.DRAINING), run(3)), 1, 0, id="but not of those that drain"
        ),
        pytest.param(see(min_runs=2, start_unasked=False), 2, 0, id="after failures nothing that nobody waits for"),
        pytest.param(see(run(4), start_unasked=False), 2, 0, id="nor one ahead"),
        pytest.param(see(run(2, retires=OLD), start_unasked=False), 1, 0, id="nor one of the new build"),
        pytest.param(see(waiting=5, min_runs=4, start_unasked=False), 4, 2, id="but all that somebody waits for"),
        pytest.param(see(waiting=5, limit=10, start_unasked=False), 2, 1, id="without the one ahead of them"),
        pytest.param(
            see(run(4, retires=OLD), run(4, retires=OLD), waiting=5, start_unasked=False),
            4,
            2,
            id="and none for what the old ones carry",
        ),
    ],
)
def test_how_many(seen: Observation, wanted: int, start: int) -> None:
    """As many as hold all requests at the limit of each; one ahead; the bounds."""
    decision = decide_as_the_platform(seen)
    assert (decision.wanted_runs, decision.start) == (wanted, start)
    assert drained(decision) == []


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(see(run(idle=30, run_id="a")), ["a"], id="idle for its timeout"),
        pytest.param(see(run(idle=29.999)), [], id="idle for less"),
        pytest.param(see(run(1, idle=99)), [], id="in flight"),
        pytest.param(see(run(viewers=1, idle=99)), [], id="viewed"),
        pytest.param(see(starting(idle=99)), [], id="starting"),
        pytest.param(see(run(idle=99, state=Readiness.DRAINING)), [], id="drains already"),
        pytest.param(see(run(idle=99), waiting=1), [], id="somebody waits: it is needed"),
        pytest.param(see(run(idle=99), min_runs=1), [], id="minRuns"),
        pytest.param(
            see(run(idle=99, age=10, run_id="young"), run(idle=40, age=90), min_runs=1),
            ["young"],
            id="the youngest goes, the warmest cache stays",
        ),
        pytest.param(see(run(idle=99), starting(), min_runs=1), [], id="one that starts is no warm one yet"),
        pytest.param(
            see(run(idle=99, age=10, run_id="a"), run(viewers=1), min_runs=1), ["a"], id="one that is viewed is warm"
        ),
        pytest.param(see(run(idle=99), run(4), waiting=1), [], id="two are needed by load"),
        pytest.param(see(run(idle=99, run_id="a"), run(3)), ["a"], id="one is enough: the idle one goes"),
        pytest.param(see(run(idle=99), min_runs=1, start_unasked=False), [], id="minRuns, also while starts fail"),
        pytest.param(
            see(run(2, retires=OLD, run_id="old"), run()), ["old"], id="retired, with its requests, by a newer one"
        ),
        pytest.param(
            see(run(retires=OLD, viewers=1, run_id="old"), run()), ["old"], id="or with its viewers, who may stay"
        ),
        pytest.param(see(run(2, retires=OLD), starting()), [], id="not before that one serves"),
        pytest.param(
            see(run(4, retires=OLD), run(4, retires=OLD), run()), [], id="not before as many serve as carry it"
        ),
        pytest.param(
            see(run(4, retires=OLD, run_id="a"), run(4, retires=OLD, run_id="b"), run(), run()),
            ["a", "b"],
            id="then all of them",
        ),
        pytest.param(
            see(run(2, retires=OLD), run(), starting(), min_runs=2), [], id="not before minRuns of the new serve"
        ),
        pytest.param(see(run(2, retires=OLD, run_id="a"), run(), run(), min_runs=2), ["a"], id="then"),
        pytest.param(
            see(run(2, retires=OLD, run_id="a"), run(), run(), run(9), max_runs=3), ["a"], id="maxRuns is enough"
        ),
        pytest.param(
            see(run(2, retires=OLD, run_id="a"), run(idle=99), run(idle=99), starting(), min_runs=2),
            ["a"],
            id="a successor does not go with it",
        ),
        pytest.param(see(run(viewers=1, idle=99, retires=OLD), starting()), [], id="viewed, without a successor"),
        pytest.param(
            see(run(idle=31, retires=OLD, run_id="old"), starting()), ["old"], id="an idle one needs no successor"
        ),
        pytest.param(
            see(run(9, run_id="a"), starting(run_id="b"), is_on=False), ["a", "b"], id="no standby mode: all go"
        ),
        pytest.param(
            see(run(state=Readiness.DRAINING), is_on=False), [], id="no standby mode: but those that go already"
        ),
    ],
)
def test_who_is_wound_down(seen: Observation, expected: list[str]) -> None:
    """Those without use for the idle timeout beyond what is wanted, and those of an older build."""
    decision = decide_as_the_platform(seen)
    assert drained(decision) == expected
    assert all(reason for _, reason in decision.drain)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(see(), None, id="no run"),
        pytest.param(see(run(idle=12.5)), 17.5, id="until its timeout"),
        pytest.param(see(run(idle=12.5), run(idle=29)), 1.0, id="the next of two"),
        pytest.param(see(run(2)), None, id="in flight: time alone changes nothing"),
        pytest.param(see(run(viewers=1)), None, id="viewed: nor here"),
        pytest.param(see(run(viewers=1, retires=OLD), starting()), None, id="an older one that is viewed"),
        pytest.param(see(starting(idle=5)), None, id="starting: nor here"),
        pytest.param(see(run(idle=31)), None, id="it goes now"),
        pytest.param(see(run(idle=12.5, retires=OLD), starting()), 17.5, id="an older one that is idle"),
        pytest.param(see(run(2, retires=OLD), starting()), None, id="an older one in flight"),
        pytest.param(see(run(idle=1, retires=OLD), run(1)), None, id="an older one that goes now"),
        pytest.param(see(run(idle=1), is_on=False), None, id="all go now"),
    ],
)
def test_when_to_look_again(seen: Observation, expected: float | None) -> None:
    """When the next run reaches its idle timeout; None where nothing changes by time alone."""
    assert decide_as_the_platform(seen).look_again_in_secs == expected


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        pytest.param(see(run(4), waiting=7), ["3 runs: ", "4 requests in flight", "7 waiting"], id="the load"),
        pytest.param(see(waiting=1), ["1 run: ", "0 requests in flight and 1 waiting"], id="one run"),
        pytest.param(see(waiting=5), ["2 runs: "], id="two runs"),
        pytest.param(see(run(viewers=3)), ["0 runs: ", "0 requests in flight and 0 waiting"], id="viewers are no load"),
        pytest.param(
            see(run(3, retires=OLD), run(2)), ["2 runs: ", "5 requests in flight"], id="what the old ones carry"
        ),
        pytest.param(see(run(4)), ["one ahead", "desired 3"], id="one ahead"),
        pytest.param(see(waiting=50, max_runs=3), ["held at maxRuns 3"], id="maxRuns"),
        pytest.param(see(min_runs=2), ["minRuns 2"], id="minRuns"),
        pytest.param(see(waiting=50, may_start=1), ["12 more as soon as"], id="pace"),
        pytest.param(see(min_runs=2, start_unasked=False), ["2 that nobody waits for"], id="failures"),
        pytest.param(see(run(retires=OLD)), ["in place of those that retire: a newer build"], id="a new build"),
        pytest.param(see(run(1), is_on=False), ["no longer has standby mode"], id="no standby mode"),
    ],
)
def test_the_reasons_are_told(seen: Observation, words: list[str]) -> None:
    """In words, for whoever asks why."""
    told = "; ".join(decide_as_the_platform(seen).reasons)
    assert [word for word in words if word not in told] == []


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    desired = draw(st.integers(1, 5))
    min_runs = draw(st.integers(0, 3))
    views = st.builds(
        RunSeen,
        run_id=st.integers(0, 10**9).map(str),
        retires_because=st.sampled_from([OLD, None]),
        state=st.sampled_from(Readiness),
        in_flight=st.integers(0, 8),
        idle_secs=st.sampled_from([0.0, 1.0, 29.0, 30.0, 31.0]),
        age_secs=st.floats(0, 1000),
        viewers=st.sampled_from([0, 0, 0, 20]),
    )
    return Observation(
        limits=Limits(
            desired_requests_per_run=desired,
            max_requests_per_run=desired + draw(st.integers(0, 5)),
            idle_timeout_secs=30,
            min_runs=min_runs,
            max_runs=draw(st.none() | st.integers(max(1, min_runs), 6)),
        ),
        is_on=draw(st.sampled_from([True, True, True, False])),
        waiting=draw(st.integers(0, 40)),
        runs=draw(st.lists(views, max_size=7, unique_by=lambda view: view.run_id)),
        may_start=draw(st.integers(0, 8)),
        start_unasked=draw(st.booleans()),
        memory=Memory(ahead_at=draw(st.none() | st.integers(1, 60))),
    )


@given(observations())
def test_the_bounds_are_never_broken(seen: Observation) -> None:
    """Never above maxRuns by a start, never more starts than allowed, never fewer wanted than minRuns."""
    decision = decide_as_the_platform(seen)
    assert 0 <= decision.start <= seen.may_start
    if not seen.is_on:
        assert (decision.wanted_runs, decision.start) == (0, 0)
        return
    limits = seen.limits
    assert limits.min_runs <= decision.wanted_runs <= (limits.max_runs or 10**9)
    if decision.start:
        assert decision.present_runs + decision.start <= decision.wanted_runs
    if (
        not seen.start_unasked
        and not seen.waiting
        and all(r.in_flight <= limits.max_requests_per_run for r in seen.runs)
    ):
        assert decision.start == 0
    assert decide_as_the_platform(seen) == decision


@given(observations())
def test_only_the_unused_are_wound_down(seen: Observation) -> None:
    """Nothing in use or idle for less than its timeout, but a retired one whose successors serve; nothing twice."""
    decision = decide_as_the_platform(seen)
    by_id = {view.run_id: view for view in seen.runs}
    chosen = [by_id[run_id] for run_id in drained(decision)]
    assert len(chosen) == len(set(drained(decision)))
    assert all(view.state is not Readiness.DRAINING for view in chosen)
    if not seen.is_on:
        assert len(chosen) == sum(view.state is not Readiness.DRAINING for view in seen.runs)
        return
    serving = [view for view in seen.runs if view.retires_because is None and view.state is Readiness.SERVING]
    have_successors = len(serving) >= max(1, decision.wanted_runs)
    for view in chosen:
        if not (view.retires_because and have_successors):
            assert (view.in_flight, view.viewers) == (0, 0)
            assert view.idle_secs >= 30
    # Who serves on is enough, whatever goes.
    assert sum(view not in chosen for view in serving) >= min(len(serving), decision.wanted_runs)
    kept = [
        view
        for view in seen.runs
        if view.retires_because is None and view.state is not Readiness.DRAINING and view not in chosen
    ]
    assert len(kept) >= min(decision.present_runs, decision.wanted_runs)
    assert not (decision.start and any(view.retires_because is None for view in chosen))


@given(observations(), st.data())
def test_more_demand_never_means_fewer_runs(seen: Observation, data: st.DataObject) -> None:
    """One more waiting, or one more in flight in any run: as many runs or more, and none more is wound down."""
    before = decide_as_the_platform(seen)
    more = replace(seen, waiting=seen.waiting + 1)
    if data.draw(st.booleans()) and seen.runs:
        index = data.draw(st.integers(0, len(seen.runs) - 1))
        busier = replace(seen.runs[index], in_flight=seen.runs[index].in_flight + 1, idle_secs=0.0)
        more = replace(seen, runs=[*seen.runs[:index], busier, *seen.runs[index + 1 :]])
    after = decide_as_the_platform(more)
    assert after.wanted_runs >= before.wanted_runs
    assert after.start >= before.start
    assert len(after.drain) <= len(before.drain)


@given(observations())
def test_looking_again_is_exact(seen: Observation) -> None:
    """Just before the given moment nobody new has reached the idle timeout; at the moment somebody has."""
    decision = decide_as_the_platform(seen)
    if not seen.is_on or decision.look_again_in_secs is None:
        return
    secs = decision.look_again_in_secs
    assert 0 < secs <= 30

    def later(by: float) -> set[str]:
        return {view.run_id for view in seen.runs if not view.is_used and view.idle_secs < 30 <= view.idle_secs + by}

    assert later(secs) != set()
    served = {view.run_id for view in seen.runs if view.state is Readiness.SERVING and view.retires_because is None}
    assert later(secs - 0.5) & served == set()


@given(observations(), st.data())
def test_viewers_are_use_but_no_load(seen: Observation, data: st.DataObject) -> None:
    """However many look at a run: no run more or less is wanted for them, and theirs stays until it is retired."""
    if not seen.runs or not seen.is_on:
        return
    before = decide_as_the_platform(seen)
    index = data.draw(st.integers(0, len(seen.runs) - 1))
    viewed = replace(seen.runs[index], viewers=20, idle_secs=0.0)
    after = decide_as_the_platform(replace(seen, runs=[*seen.runs[:index], viewed, *seen.runs[index + 1 :]]))
    assert (after.wanted_runs, after.start, after.ahead_at) == (before.wanted_runs, before.start, before.ahead_at)
    assert after.reasons == before.reasons
    assert viewed.run_id not in drained(after) or viewed.retires_because


@given(observations())
def test_the_same_demand_again_starts_nothing_more(seen: Observation) -> None:
    """What a decision starts is enough for what it saw: not one more ahead at each look."""
    seen = replace(seen, may_start=100)
    first = decide_as_the_platform(seen)
    runs = [view for view in seen.runs if view.run_id not in drained(first)]
    more = [starting(run_id=f"more{number}", age=0.0) for number in range(first.start)]
    second = decide_as_the_platform(remembering(replace(seen, runs=[*runs, *more]), first.ahead_at))
    assert second.start == 0


@given(observations())
def test_one_ahead_is_remembered_only_when_it_is_there(seen: Observation) -> None:
    """Where pace, failures or maxRuns held it back, it is still to come, at the same load."""
    held_back = decide_as_the_platform(replace(seen, may_start=0))
    by_the_way = decide_as_the_platform(remembering(replace(seen, may_start=0), held_back.ahead_at))
    assert by_the_way.wanted_runs == held_back.wanted_runs
    free = replace(seen, may_start=100)
    assert decide_as_the_platform(remembering(free, held_back.ahead_at)).start == decide_as_the_platform(free).start


def play(
    crowd: Sequence[int], *, start_secs: int = 3, held_back_secs: int = 0, max_runs: int | None = None
) -> tuple[int, int]:
    """
    One run with a crowd that stays in it, *crowd[n]* requests in second n (the last for five minutes), and decisions
    that are fed with what came of those before. How many other runs were started, and how many wound down.
    """
    first, others = run(crowd[0], run_id="first", age=100.0), list[RunSeen]()
    ahead_at: int | None = None
    started = wound_down = 0
    for second in range(len(crowd) + 300):
        first = replace(first, in_flight=crowd[min(second, len(crowd) - 1)])
        may_start = 0 if second < held_back_secs else 100
        decision = decide_as_the_platform(
            see(first, *others, limit=10, max_runs=max_runs, may_start=may_start, ahead_at=ahead_at)
        )
        ahead_at = decision.ahead_at
        assert first.run_id not in drained(decision)
        wound_down += len(decision.drain)
        others = [view for view in others if view.run_id not in drained(decision)]
        others += [starting(age=0.0) for _ in range(decision.start)]
        started += decision.start
        others = [older(view, start_secs) for view in others]
    return started, wound_down


def older(view: RunSeen, start_secs: int) -> RunSeen:
    """It a second later, without use."""
    is_up = view.age_secs + 1 >= start_secs
    return replace(
        view,
        age_secs=view.age_secs + 1,
        state=Readiness.SERVING if is_up else Readiness.STARTING,
        idle_secs=view.idle_secs + 1 if is_up else 0.0,
    )


@pytest.mark.parametrize(
    ("crowd", "facts", "expected"),
    [
        pytest.param([3], {}, (0, 0), id="not above its desired load: none"),
        pytest.param([4], {}, (1, 1), id="steady above it: one spare, wound down once"),
        pytest.param([4], {"start_secs": 60}, (1, 1), id="one that is slow to start"),
        pytest.param([4], {"held_back_secs": 20}, (1, 1), id="held back by pace: it comes when it may"),
        pytest.param([4], {"max_runs": 1}, (0, 0), id="maxRuns"),
        pytest.param([4, 4, 5, 6, 7], {}, (1, 1), id="more while the spare one starts: that one is for them"),
        pytest.param([*[4] * 60, 5], {}, (2, 2), id="more when it was gone: one for the growth"),
        pytest.param([*[9] * 60, 4], {}, (1, 1), id="less, but still above: no growth"),
        pytest.param([*[4, 5] * 60, 4], {}, (1, 1), id="now 4, now 5: no growth either, since the spare was there"),
        pytest.param([*[4] * 60, *[3] * 60, 4], {}, (2, 2), id="at its desired load in between: begins anew"),
    ],
)
def test_a_steady_crowd_has_one_spare_once(crowd: list[int], facts: dict[str, int], expected: tuple[int, int]) -> None:
    """A run ahead of demand is started for growth; nobody used it, so it goes, and the same load is no reason again."""
    assert play(crowd, **facts) == expected


def test_what_the_last_of_two_leaves_behind_is_no_growth() -> None:
    """The second run's crowd has gone home and it is wound down: the first one's crowd gets no spare."""
    idle = decide_as_the_platform(see(run(4), run(idle=30, run_id="b"), limit=10))
    assert (drained(idle), idle.start) == (["b"], 0)
    assert decide_as_the_platform(see(run(4), limit=10, ahead_at=idle.ahead_at)).start == 0
