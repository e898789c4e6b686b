"""What is remembered of a pool from one decision to the next."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoscaler.policy.gaps import Gaps
from autoscaler.policy.memory import Memory, Since, after


def since(now: float, **facts: Any) -> Since:
    plain: dict[str, Any] = {
        "average_in_flight": 0.0,
        "average_waiting": 0.0,
        "arrivals": 0,
        "open_requests": 0,
        "starting": (),
        "begun_to_serve": {},
        "idle_secs": 0.0,
        "has_runs": True,
    }
    return Since(now=now, **{**plain, **facts})


def told(*steps: Since) -> Memory:
    memory = Memory()
    for step in steps:
        memory = after(memory, step)
    return memory


def test_how_long_a_request_takes() -> None:
    """Requests times seconds, over those that have ended: 4 in flight for 10 s, 20 of them gone, is 2 s each."""
    memory = told(since(0), since(10, average_in_flight=4.0, arrivals=24, open_requests=4))
    assert memory.service_secs == pytest.approx(2.0)


def test_before_one_has_ended_it_is_not_known() -> None:
    """An open socket says nothing about how long sockets stay open."""
    assert told(since(0), since(10, average_in_flight=1.0, arrivals=1, open_requests=1)).service_secs is None


def test_the_newest_requests_count_most() -> None:
    """Those of ten minutes ago, a third."""
    slow = [since(0), *(since(2.0 * n, average_in_flight=4.0, arrivals=1) for n in range(1, 300))]
    fast = [since(600 + 2.0 * n, average_in_flight=4.0, arrivals=16) for n in range(300)]
    before, now = told(*slow).service_secs, told(*slow, *fast).service_secs
    assert before == pytest.approx(8.0)
    assert now is not None
    assert now < 0.8


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([since(0)], None, id="none was seen"),
        pytest.param(
            [since(0, starting=(("a", 0.5),)), since(4, begun_to_serve={"a": (4.5, 1.5)})], 3.0, id="idle since"
        ),
        pytest.param(
            [since(0, starting=(("a", 2.0),)), since(2, begun_to_serve={"a": (4.0, 0.0)})], 3.0, id="used at once"
        ),
        pytest.param([since(0), since(4, begun_to_serve={"a": (99.0, 50.0)})], None, id="never seen starting"),
        pytest.param([since(0, starting=(("a", 2.0),)), since(2)], None, id="it never served"),
        pytest.param(
            [since(0, starting=(("a", 2.0),)), since(2, begun_to_serve={"a": (4.0, 2.0)})], 2.0, id="not before it was"
        ),
    ],
)
def test_how_long_a_start_takes(steps: list[Since], expected: float | None) -> None:
    """By the runs that were starting at the last look and serve at this one."""
    assert told(*steps).start_secs == expected


@pytest.mark.parametrize(
    ("steps", "quiet_since", "gaps"),
    [
        pytest.param([since(100)], 100, [], id="before it began nobody knows"),
        pytest.param([since(100), since(110, idle_secs=4)], 100, [], id="quiet"),
        pytest.param([since(100), since(110, arrivals=3, idle_secs=4)], 106, [10], id="used in between"),
        pytest.param([since(100), since(110, arrivals=1, open_requests=1)], None, [10], id="a gap has ended"),
        pytest.param(
            [since(100), since(110, open_requests=1, arrivals=1), since(120, idle_secs=2), since(150, arrivals=1)],
            150,
            [10, 32],
            id="two gaps",
        ),
    ],
)
def test_quiet_times(steps: list[Since], quiet_since: float | None, gaps: list[float]) -> None:
    """Since when nothing is open, and how long such times were."""
    memory, expected = told(*steps), Gaps()
    for secs in gaps:
        expected = expected.add(secs)
    assert (memory.quiet_since, memory.gaps) == (quiet_since, expected)


def test_a_clock_that_went_back_begins_anew() -> None:
    """As after a restart: what was measured of requests and starts is kept, what has a time is not."""
    memory = told(
        since(1000, starting=(("a", 2.0),)),
        since(1010, average_in_flight=4.0, arrivals=20, begun_to_serve={"a": (12.0, 9.0)}),
    ).with_need(1010, 7, 10)
    back = after(memory, since(5))
    assert (back.at, back.since, back.needs, back.in_flight.mean(60)) == (5, 5, (), 0)
    assert (back.start_secs, back.service_secs) == (memory.start_secs, memory.service_secs)


def test_only_needs_that_may_still_count_are_kept() -> None:
    """However often one looks: those that a later one exceeds say nothing any more."""
    memory = Memory()
    for at, number in enumerate([3, 1, 2, 5, 4, 4, 2]):
        memory = memory.with_need(float(at), number, 10)
    assert memory.needs == ((3.0, 5), (5.0, 4), (6.0, 2))
    assert memory.with_need(14.5, 0, 10).needs == ((5.0, 4), (6.0, 2), (14.5, 0))


steps = st.lists(
    st.builds(
        since,
        st.floats(0, 1000, allow_subnormal=False),
        average_in_flight=st.floats(0, 50, allow_subnormal=False),
        average_waiting=st.floats(0, 50, allow_subnormal=False),
        arrivals=st.integers(0, 50),
        open_requests=st.integers(0, 50),
        starting=st.sampled_from([(), (("a", 1.0),)]),
        begun_to_serve=st.sampled_from([{}, {"a": (9.0, 2.0)}]),
        idle_secs=st.floats(0, 99, allow_subnormal=False),
    ),
    max_size=8,
)


@given(steps)
def test_it_survives_being_stored(seen: list[Since]) -> None:
    """As JSON and back, exactly, whatever was seen and in whatever order the clock ran."""
    memory = told(*seen).with_need(1.5, 2, 10)
    assert Memory.from_json(json.loads(json.dumps(memory.to_json()))) == memory
    assert memory.service_secs is None or memory.service_secs >= 0


@given(
    st.lists(st.tuples(st.floats(0.1, 20), st.floats(0, 9, allow_subnormal=False), st.integers(0, 9)), max_size=20),
    st.floats(0, 300),
    st.floats(0, 300),
    st.floats(0, 9, allow_subnormal=False),
)
@example(steps=[], until_noticed=0.0, until_woken=5e-324, average=0.0)
def test_what_sleeps_needs_little_room(
    steps: list[tuple[float, float, int]], until_noticed: float, until_woken: float, average: float
) -> None:
    """Made small amid its sleep, a memory wakes as it would have done otherwise."""
    at, memory = 0.0, told(since(0))
    for secs, in_flight, arrivals in steps:
        at += secs
        memory = after(memory, since(at, average_in_flight=in_flight, average_waiting=in_flight, arrivals=arrivals))
    small = memory.asleep(at + until_noticed)
    woken = since(at + until_noticed + until_woken, average_in_flight=average, average_waiting=average, arrivals=3)
    assert after(small, woken) == after(memory, woken)
    if until_noticed > 60:
        assert sum(map(sum, (small.in_flight.areas, small.waiting.areas, small.arrivals.areas))) == 0
