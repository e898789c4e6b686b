"""The decision for one pool: each rule by example, with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from autoscaler.policy.deciding import Decision, decide
from autoscaler.policy.memory import Memory
from autoscaler.policy.observing import Limits, Observation, RunSeen
from autoscaler.policy.thresholds import GREENROOM, Policy
from autoscaler.policy.windows import Window
from gateway.core.lifecycle import Readiness

NUMBERS = count()
NOW = 1000.0


def run(in_flight: int = 0, *, state: Readiness = Readiness.SERVING, **facts: Any) -> RunSeen:
    plain: dict[str, Any] = {"run_id": f"run{next(NUMBERS)}", "age_secs": 100.0}
    return RunSeen(state=state, in_flight=in_flight, **{**plain, **facts})


def starting(**facts: Any) -> RunSeen:
    return run(state=Readiness.STARTING, **{"age_secs": 1.0, **facts})


def steady(load: float = 0.0, *, service: float | None = 0.5, waiting: float = 0.0, **facts: Any) -> Memory:
    """What is remembered of *load* requests in flight, and *waiting* ones, for the last minute and long before."""
    rate = load / service if service else 0.0
    return Memory(
        at=NOW - 2,
        in_flight=Window(0.0, NOW - 2, (load,) * 60),
        waiting=Window(0.0, NOW - 2, (waiting,) * 60),
        arrivals=Window(0.0, NOW - 2, (rate,) * 60),
        busy_secs=1e6 * service if service else 0.0,
        finished=1e6 if service else 0.0,
        **facts,
    )


def see(
    *runs: RunSeen,
    waiting: int = 0,
    memory: Memory | None = None,
    desired: float = 3,
    idle: float = 300,
    min_runs: int = 0,
    max_runs: int | None = None,
    **facts: Any,
) -> Observation:
    limits = Limits(desired_requests_per_run=desired, idle_timeout_secs=idle, min_runs=min_runs, max_runs=max_runs)
    memory = memory if memory is not None else steady()
    mean = {"average_in_flight": memory.in_flight.mean(60), "average_waiting": memory.waiting.mean(60)}
    plain = {**mean, "arrivals": round(2 * memory.arrivals.mean(60))}
    return Observation(limits=limits, runs=runs, waiting=waiting, memory=memory, **{**plain, **facts})


def decided(seen: Observation, policy: Policy = GREENROOM, now: float = NOW) -> Decision:
    return decide(policy, seen, now)


def runs_of(number: int, in_flight: int = 0, **facts: Any) -> Sequence[RunSeen]:
    return [run(in_flight, **facts) for _ in range(number)]


LONG = 600.0


@pytest.mark.parametrize(
    ("seen", "wanted", "words"),
    [
        pytest.param(see(), 0, "0 runs", id="nobody, nothing"),
        pytest.param(see(waiting=1, memory=Memory()), 1, "1 run: 1 requests at up to 4 each", id="the first one"),
        pytest.param(see(waiting=9, memory=Memory()), 3, "9 requests at up to 4 each", id="nine, of unknown length"),
        pytest.param(see(waiting=9), 2, "9 requests now", id="nine short ones: some may wait a little"),
        pytest.param(see(waiting=9, memory=steady(service=LONG)), 3, "9 requests now", id="nine long ones"),
        pytest.param(
            see(starting(), starting(), starting(), waiting=9, memory=Memory()), 3, "", id="those that start count"
        ),
        pytest.param(
            see(*runs_of(2, 3), memory=steady(6, service=LONG)), 2, "6.0 requests on average at 3 each", id="desired"
        ),
        pytest.param(see(*runs_of(2, 3), memory=steady(6.3, service=LONG)), 3, "6.3 requests", id="a little more"),
        pytest.param(see(run(2), memory=steady(2.5)), 2, "5.0 requests a second", id="too many would wait"),
        pytest.param(see(run(1), memory=steady(1.0)), 1, "1.0 requests on average", id="few would"),
        pytest.param(
            see(*runs_of(2, 4), memory=steady(2, service=0.5, waiting=30)), 2, "", id="a queue that is over by now"
        ),
        pytest.param(see(run(4), waiting=60, memory=steady(4)), 11, "64 requests now", id="a burst"),
        pytest.param(see(waiting=50, memory=Memory(), max_runs=3), 3, "held at maxRuns 3", id="maxRuns"),
        pytest.param(see(min_runs=2), 2, "minRuns 2", id="minRuns"),
        pytest.param(
            see(run(1, overloaded_ratio=0.9), memory=steady(1)), 2, "one more for load: 1 of 1", id="overloaded"
        ),
        pytest.param(
            see(run(1, overloaded_ratio=0.9), memory=steady(1), has_cpu_left=False),
            1,
            "the machine has no CPU left",
            id="overloaded, and so is the machine",
        ),
        pytest.param(see(run(overloaded_ratio=1.0, idle_secs=300)), 0, "idle for 300 s", id="load keeps no idle one"),
        pytest.param(see(run(1), run(1, retires_because="a newer build"), memory=steady(1)), 1, "", id="old"),
        pytest.param(
            see(run(retires_because="a newer build")),
            1,
            "in place of those that retire: a newer build",
            id="only old ones",
        ),
        pytest.param(see(run(1), is_on=False), 0, "no longer has standby mode", id="switched off"),
        pytest.param(see(run(1), starting(), memory=steady(1)), 1, "", id="one that starts is not cancelled"),
    ],
)
def test_how_many_are_wanted(seen: Observation, wanted: int, words: str) -> None:
    """By requests, by load, by bounds; and why, in words."""
    decision = decided(seen)
    assert decision.wanted_runs == wanted
    assert words in "; ".join(decision.reasons)
    assert not any(view.state is Readiness.STARTING and view.run_id in drained(decision) for view in seen.runs) or (
        not seen.is_on
    )


def drained(decision: Decision) -> list[str]:
    return [run_id for run_id, _ in decision.drain]


@pytest.mark.parametrize(
    ("seen", "start", "words"),
    [
        pytest.param(see(waiting=9, memory=Memory(), may_start=2), 2, "1 more as soon as pace", id="pace"),
        pytest.param(see(min_runs=2, start_unasked=False), 0, "2 that nobody waits for later", id="failures"),
        pytest.param(
            see(run(2), memory=steady(2.5), start_unasked=False), 0, "1 that nobody waits for", id="ahead of demand"
        ),
        pytest.param(see(waiting=9, memory=Memory(), start_unasked=False), 3, "", id="who waits is not nobody"),
        pytest.param(see(starting(), waiting=3, memory=Memory()), 0, "", id="it is joined"),
        pytest.param(
            see(run(4), run(idle_secs=9), memory=steady(7)), 0, "none ahead while one has had nothing", id="one unused"
        ),
    ],
)
def test_how_many_are_started(seen: Observation, start: int, words: str) -> None:
    """As many as are missing, as far as pace, machine and failures allow."""
    decision = decided(seen)
    assert decision.start == start
    assert words in "; ".join(decision.reasons)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(see(run(idle_secs=299)), [], id="not idle for long enough"),
        pytest.param(see(run(idle_secs=300, run_id="a")), ["a"], id="idle"),
        pytest.param(see(run(idle_secs=300, run_id="a"), min_runs=1), [], id="minRuns"),
        pytest.param(see(run(idle_secs=300, viewers=1)), [], id="viewed"),
        pytest.param(see(run(idle_secs=300), starting()), [], id="not before the one that starts serves"),
        pytest.param(see(run(1), run(idle_secs=9, run_id="b"), memory=steady(1)), ["b"], id="the unused one first"),
        pytest.param(
            see(run(1, run_id="old", age_secs=9), run(1, run_id="young", age_secs=8), memory=steady(1)),
            ["young"],
            id="then the youngest",
        ),
        pytest.param(
            see(run(2), run(1, run_id="b"), memory=steady(1)), ["b"], id="one in use, since requests are short"
        ),
        pytest.param(see(run(2), run(1), memory=steady(1, service=60)), [], id="not where they are long"),
        pytest.param(see(run(2), run(1), memory=steady(1, service=None)), [], id="nor where nobody knows"),
        pytest.param(see(run(2), run(1, viewers=1), memory=steady(1)), ["run-with-2"], id="never one that is viewed"),
        pytest.param(see(*runs_of(9, 1), memory=steady(1)), 5, id="at most half"),
        pytest.param(see(*runs_of(9, idle_secs=300), memory=steady()), 9, id="but all that are idle"),
        pytest.param(see(run(1), run(1, retires_because="old", run_id="o"), memory=steady(1)), ["o"], id="old ones go"),
        pytest.param(see(starting(), run(1, retires_because="old"), memory=steady(1)), [], id="not before another"),
        pytest.param(
            see(starting(), run(idle_secs=300, retires_because="old", run_id="o")), ["o"], id="an idle old one does"
        ),
        pytest.param(see(run(1, run_id="a"), starting(run_id="b"), is_on=False), ["a", "b"], id="switched off: all"),
        pytest.param(see(run(state=Readiness.DRAINING), is_on=False), [], id="but not twice"),
    ],
)
def test_who_is_wound_down(seen: Observation, expected: list[str] | int) -> None:
    """The emptiest, then the youngest; nothing that is still needed."""
    decision = decided(seen)
    if isinstance(expected, int):
        assert len(decision.drain) == expected
    elif expected == ["run-with-2"]:
        assert drained(decision) == [seen.runs[0].run_id]
    else:
        assert drained(decision) == expected
    assert all(reason for _, reason in decision.drain)


def test_panic_holds_what_there_is() -> None:
    """Twice as many asked for as serve: nothing shrinks, until twenty seconds after; the idle rule still does."""
    crowd = replace(steady(1, service=0.5), waiting=Window(0.0, NOW - 2, (0.0,) * 54 + (40.0,) * 6))
    panic = decided(see(*runs_of(3, 1), memory=crowd, average_waiting=40.0))
    assert panic.memory.panic_at == NOW
    later = see(*runs_of(3, 1), memory=replace(steady(1), panic_at=NOW - 19.9))
    assert (decided(later).wanted_runs, decided(later).drain) == (3, ())
    assert "no fewer in panic" in "; ".join(decided(later).reasons)
    over = see(*runs_of(3, 1), memory=replace(steady(1), panic_at=NOW - 20))
    assert decided(over).wanted_runs == 1
    idle = see(run(1), run(idle_secs=300, run_id="idle"), memory=replace(steady(1), panic_at=NOW - 1))
    assert drained(decided(idle)) == ["idle"]


def test_after_a_restart_nothing_shrinks_for_a_window() -> None:
    """With runs that were there already: what they are for is not known yet. The idle rule holds all the same."""
    runs = runs_of(4, 1)
    first = decided(see(*runs, memory=Memory()), now=0.0)
    assert first.memory.began_with_runs
    memory = first.memory
    for now in range(2, 60, 2):
        decision = decided(see(*runs, memory=memory, average_in_flight=1.0, arrivals=4), now=float(now))
        assert (decision.wanted_runs, decision.drain) == (4, ())
        memory = decision.memory
    assert decided(see(*runs, memory=memory, average_in_flight=1.0, arrivals=4), now=70.0).drain != ()
    idle = see(run(1), run(idle_secs=300, run_id="idle"), memory=Memory())
    assert drained(decided(idle, now=0.0)) == ["idle"]


def test_a_need_is_held_for_a_while() -> None:
    """What was needed less than ten seconds ago still counts; then it is forgotten."""
    runs = runs_of(2, 1)
    before = replace(steady(1), needs=((NOW - 9, 2),))
    assert "held at 2" in "; ".join(decided(see(*runs, memory=before)).reasons)
    assert decided(see(*runs, memory=replace(steady(1), needs=((NOW - 11, 2),)))).wanted_runs == 1


def test_the_idle_rule_is_final() -> None:
    """What it has taken is not started anew by what the windows still remember."""
    memory = replace(steady(0.5), needs=((NOW - 1, 3),), panic_at=NOW - 1)
    first = decided(see(run(idle_secs=30), run(idle_secs=30), memory=memory, idle=30, average_in_flight=0.0))
    assert (len(first.drain), first.wanted_runs) == (2, 0)
    second = decided(see(memory=first.memory, idle=30, average_in_flight=0.0, arrivals=0), now=NOW + 2)
    assert (second.start, second.wanted_runs) == (0, 0)


def test_requests_of_a_run_that_goes_ask_for_no_other() -> None:
    """They end where they are: an open socket there must not keep a run up that has nothing to do."""
    going = run(2, state=Readiness.DRAINING)
    alone = decided(see(going, memory=steady(1.0)))
    assert (alone.wanted_runs, alone.start) == (0, 0)
    beside = decided(see(going, run(idle_secs=301)))
    assert [run_id for run_id, _ in beside.drain] == ["run" + str(int(going.run_id[3:]) + 1)]
    assert decided(see(going, waiting=1, memory=steady(1.0))).start == 1


def test_spare_slots_are_kept() -> None:
    """For a burst, where somebody has set them."""
    policy = replace(GREENROOM, spare_slots=8)
    decision = decided(see(run(3), memory=steady(1)), policy)
    assert decision.wanted_runs == 3
    assert "8 spare slots" in "; ".join(decision.reasons)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(see(run(idle_secs=290)), 10.0, id="the last one"),
        pytest.param(see(run(1), run(idle_secs=290), memory=steady(6, service=LONG)), 10.0, id="one of two"),
        pytest.param(see(run(1), memory=steady(1)), None, id="in use"),
        pytest.param(see(run(idle_secs=300)), None, id="it goes now"),
        pytest.param(see(run(idle_secs=290, retires_because="old"), starting()), 10.0, id="one that retires"),
    ],
)
def test_when_to_look_again(seen: Observation, expected: float | None) -> None:
    """When the next run reaches its idle limit."""
    assert decided(seen).look_again_in_secs == expected


def test_the_last_run_is_kept_as_long_as_pays() -> None:
    """Where that is learned: by the pool's own gaps, and never longer than the owner wants."""
    memory = steady()
    for _ in range(20):
        memory = replace(memory, gaps=memory.gaps.add(10.0), quiet_since=NOW - 20)
    learns = replace(GREENROOM, learns_idle_timeout=True)
    seen = see(run(idle_secs=20, run_id="a"), memory=memory)
    assert drained(decided(seen)) == []
    decision = decided(seen, learns)
    assert decision.drain == (("a", "idle for 12 s, which pays by its own gaps"),)
    few = replace(seen, memory=replace(memory, gaps=Memory().gaps.add(10.0)))
    assert drained(decided(few, learns)) == []
    early = see(run(idle_secs=10), memory=memory)
    assert decided(early, learns).look_again_in_secs == pytest.approx(1.57, abs=0.01)
