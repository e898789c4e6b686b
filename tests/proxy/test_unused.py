"""What is open in a run and yet no use of it: requests that are ignored, and sockets and streams that are silent."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.demand import RunUse, is_drained, merge_runs
from gateway.core.lifecycle import Readiness
from gateway.core.standby import Generation, PoolKey
from gateway.proxy.open_streams import OpenStream
from gateway.proxy.route_table import LiveRun
from gateway.proxy.slots import Held, SlotDesk, Want
from gateway.state.ports import RunRoute

POOL = PoolKey(target_id="actor", user_id="owner")
GENERATION = Generation(build_id="build", memory_mbytes=1024)
WANT = Want(
    pool=POOL,
    generation=GENERATION,
    desired=2,
    limit=2,
    idle_timeout_secs=30.0,
    caller="ann",
    is_owner=False,
)


@dataclass
class Desk:
    """A desk with one run, a clock and pokes."""

    now: float = 100.0
    pokes: int = 0
    versions: count[int] = field(default_factory=lambda: count(1))
    desk: SlotDesk = field(init=False)

    def __post_init__(self) -> None:
        self.desk = SlotDesk("g", room_size=10, clock=lambda: self.now, chance=lambda: 0.0, poke=self.poke)
        self.becomes(Readiness.SERVING)

    def poke(self) -> None:
        self.pokes += 1

    def becomes(self, readiness: Readiness) -> None:
        route = RunRoute(
            run_id="run",
            actor_id="actor",
            user_id="owner",
            live_view_label="label",
            readiness=readiness,
            pool=POOL,
            generation=GENERATION,
        )
        self.desk.apply(route, next(self.versions))

    def take(self) -> LiveRun:
        run = self.desk.take(WANT)
        assert run is not None
        return run

    def stream(self, limit_secs: float = 10.0) -> OpenStream:
        """A socket is opened."""
        one = OpenStream(limit_secs, self.now, lambda _code, _reason: None)
        self.take().streams.add(one)
        return one

    def use(self) -> RunUse:
        return self.desk.report().runs["run"]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_an_ignored_request_holds_its_slot_and_leaves_the_idle_time_alone(desk: Desk) -> None:
    """Nobody stops a run under it; when it has ended, the run has been idle all the while."""
    desk.desk.give_back(desk.take())
    desk.now += 20
    run = desk.take()
    assert desk.use() == RunUse(in_flight=1, idle_secs=0.0)
    desk.desk.give_back(run, used_at=0.0)
    assert desk.use() == RunUse(in_flight=0, idle_secs=20.0)
    assert desk.desk.secs_to_idle_limit() == 10.0


def test_an_ignored_request_that_outlasts_the_idle_time_pokes_when_it_ends(desk: Desk) -> None:
    """The autoscaler hears at once that the run it held has been idle for too long; before that there is no hurry."""
    for secs, pokes in ((29, 0), (2, 1)):
        run = desk.take()
        desk.now += secs
        desk.desk.give_back(run, used_at=0.0)
        assert desk.pokes == pokes


def test_use_beside_an_ignored_request_counts(desk: Desk) -> None:
    """A request that ends meanwhile is the last use, not undone by the ignored one that ends later."""
    ignored, used = desk.take(), desk.take()
    desk.now += 5
    desk.desk.give_back(used)
    desk.now += 7
    desk.desk.give_back(ignored, used_at=0.0)
    assert desk.use().idle_secs == 7.0


def test_only_a_run_that_serves_or_starts_is_awake(desk: Desk) -> None:
    """A frozen or draining run would have to be woken as none would."""
    for readiness, is_asleep in (
        (Readiness.SERVING, False),
        (Readiness.FROZEN, True),
        (Readiness.STARTING, False),
        (Readiness.DRAINING, True),
    ):
        desk.becomes(readiness)
        assert desk.desk.is_asleep(WANT) is is_asleep
    assert desk.desk.report().pools[POOL].waiting == 0


def test_a_silent_stream_is_use_until_its_limit_and_none_from_then_on(desk: Desk) -> None:
    """The run is idle since something passed last, and idle at the later of both limits."""
    one = desk.stream()
    assert desk.desk.secs_to_idle_limit() == 30.0
    desk.now += 4
    one.heard(desk.now)
    desk.now += 9
    assert desk.use() == RunUse(in_flight=1, idle_secs=0.0)
    desk.now += 1
    assert desk.use() == RunUse(in_flight=0, idle_secs=10.0, silent=1)
    assert desk.desk.secs_to_idle_limit() == 20.0
    one.heard(desk.now)
    assert desk.use() == RunUse(in_flight=1, idle_secs=0.0)


def test_a_limit_above_the_idle_timeout_holds(desk: Desk) -> None:
    """A stream that may be silent for a minute keeps a run whose idle timeout is half of that for a minute."""
    desk.stream(limit_secs=60.0)
    assert desk.desk.secs_to_idle_limit() == 60.0
    desk.now += 59
    assert desk.use().is_used


def test_one_request_or_one_stream_that_speaks_keeps_the_run(desk: Desk) -> None:
    """A silent stream makes no run idle that is used otherwise."""
    desk.stream()
    run = desk.take()
    desk.now += 100
    assert desk.use() == RunUse(in_flight=2, idle_secs=0.0)
    assert desk.desk.secs_to_idle_limit() == math.inf
    desk.desk.give_back(run)
    assert desk.use() == RunUse(in_flight=0, idle_secs=0.0, silent=1)


def test_who_waits_sees_a_run_that_is_full_of_silent_streams_as_full(desk: Desk) -> None:
    """Else the autoscaler would take the run for empty, and start none for those who wait."""
    desk.stream()
    desk.stream()
    desk.now += 20
    assert desk.use().in_flight == 0
    assert desk.desk.take(WANT) is None
    desk.desk.hold(Held(caller="ann", want=WANT))
    assert desk.use().in_flight == 2


def test_a_run_that_drains_is_empty_only_when_its_silent_streams_are_closed(desk: Desk) -> None:
    """It is stopped only after its sockets were said goodbye to; but they may stay open in one that is frozen."""
    silent, speaking = desk.stream(), desk.stream(limit_secs=100.0)
    desk.now += 20
    desk.becomes(Readiness.DRAINING)
    run = desk.desk.routes.run("run")
    assert run is not None
    assert run.silent_streams(desk.now) == [silent]
    desk.now += 80
    assert set(run.silent_streams(desk.now)) == {silent, speaking}
    reports = [desk.desk.report()]
    assert not is_drained("run", desk.desk.routes.version, reports)
    assert is_drained("run", desk.desk.routes.version, reports, may_have_silent=True)
    assert merge_runs([*reports, *reports])["run"].silent == 4
    run.streams.clear()
    for _ in range(2):
        desk.desk.give_back(run)
    assert is_drained("run", desk.desk.routes.version, [desk.desk.report()])


def test_a_silent_stream_that_ends_is_no_use_either(desk: Desk) -> None:
    """Its run is idle since the stream was last heard, not since its end."""
    one = desk.stream()
    desk.now += 25
    run = desk.desk.routes.run("run")
    assert run is not None
    run.streams.discard(one)
    desk.desk.give_back(run, used_at=one.heard_at)
    assert desk.use() == RunUse(in_flight=0, idle_secs=25.0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("stream"), st.sampled_from([5.0, 10.0, 40.0])),
        st.tuples(st.just("request"), st.booleans()),
        st.tuples(st.just("hear"), st.integers(0, 5)),
        st.tuples(st.just("end"), st.integers(0, 5)),
        st.tuples(st.just("pass"), st.sampled_from([0.5, 4.0, 11.0, 35.0])),
    ),
    max_size=30,
)


@given(STEPS)
def test_a_run_is_in_use_exactly_as_long_as_something_open_is(steps: list[tuple[str, Any]]) -> None:
    """Whatever opens, speaks, falls silent and ends in whatever order: use and idle time are those of a model."""
    desk = Desk()
    want = replace(WANT, limit=100, desired=100)
    run = desk.desk.routes.run("run")
    assert run is not None
    opened: list[OpenStream | bool] = []  # streams, and of requests whether they are use
    last_use = desk.now

    def silent(one: OpenStream | bool) -> bool:
        return isinstance(one, OpenStream) and one.heard_at + one.limit_secs <= desk.now

    for what, detail in steps:
        match what:
            case "stream":
                assert desk.desk.take(want) is run
                new = OpenStream(detail, desk.now, lambda _code, _reason: None)
                opened.append(new)
                run.streams.add(new)
            case "request":
                assert desk.desk.take(want) is run
                opened.append(detail)
            case "hear" if detail < len(opened) and isinstance(stream := opened[detail], OpenStream):
                stream.heard(desk.now)
            case "end" if detail < len(opened):
                one = opened.pop(detail)
                if isinstance(one, OpenStream):
                    run.streams.discard(one)
                    used_at = one.heard_at if silent(one) else None
                else:
                    used_at = None if one else 0.0
                last_use = max(last_use, desk.now if used_at is None else used_at)
                desk.desk.give_back(run, used_at=used_at)
            case "pass":
                desk.now += detail
        use = desk.use()
        is_used = any(not silent(one) for one in opened)
        assert use.is_used is is_used
        assert use.silent == (0 if is_used else len(opened))
        assert is_drained("run", 0, [desk.desk.report()]) is not bool(opened)
        heard = max([last_use, *(one.heard_at for one in opened if isinstance(one, OpenStream))])
        assert use.idle_secs == (0.0 if is_used else desk.now - heard)
