"""Pools for which nothing is started: who is told, for how long, and who is served all the same."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count

import pytest

from gateway.core.errors import GreenroomError, StandbyNoRoom, StandbyQuarantined, StandbyRunFailed
from gateway.core.lifecycle import Readiness
from gateway.core.standby import Generation, PoolKey
from gateway.proxy.route_table import LiveRun
from gateway.proxy.slots import Held, SlotDesk, Want
from gateway.state.ports import PoolBlocked, PoolFreed, RouteChange, RouteEnded, RoutesReset, RunRoute

POOL = PoolKey(target_id="actor", user_id="owner")
OLD, NEW = (Generation(build_id=build, memory_mbytes=1024) for build in ("old", "new"))
QUARANTINED = PoolBlocked(
    pool=POOL,
    message="It failed.",
    error_type="standby-quarantined",
    retry_after_secs=10.0,
    generation=OLD,
    facts={"failedStarts": 3},
    log_tail=("last line",),
)


def want(*, generation: Generation = OLD, is_owner: bool = True) -> Want:
    return Want(
        pool=POOL,
        generation=generation,
        desired=1,
        limit=1,
        idle_timeout_secs=300,
        caller="ann",
        is_owner=is_owner,
    )


def route(readiness: Readiness, generation: Generation = OLD) -> RunRoute:
    return RunRoute(
        run_id="run",
        actor_id="actor",
        user_id="owner",
        live_view_label="label",
        readiness=readiness,
        pool=POOL,
        generation=generation,
    )


@dataclass
class Bench:
    """A desk with a clock that can be set, and the outcomes of those that waited."""

    now: float = 100.0
    outcomes: list[LiveRun | GreenroomError] = field(default_factory=list)
    versions: count[int] = field(default_factory=lambda: count(1))
    desk: SlotDesk = field(init=False)

    def __post_init__(self) -> None:
        self.desk = SlotDesk("g", room_size=10, clock=lambda: self.now, chance=lambda: 0.0, poke=lambda: None)

    def apply(self, *changes: RouteChange) -> None:
        for change in changes:
            self.desk.apply(change, next(self.versions))

    def hold(self, wanted: Want) -> None:
        self.desk.hold(Held(caller="ann", want=wanted, settle=self.outcomes.append))

    def refusal(self, wanted: Want) -> GreenroomError | None:
        """What a new request is told at once; None where it is held."""
        try:
            self.hold(wanted)
        except GreenroomError as error:
            return error
        return None


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_who_waits_and_who_comes_hears_at_once(bench: Bench) -> None:
    """503 with the time that is left, the facts, and the log for the owner."""
    bench.hold(want())
    bench.apply(QUARANTINED)
    bench.now += 2.5
    (waited,) = bench.outcomes
    came = bench.refusal(want())
    for error, left in ((waited, 10), (came, 8)):
        assert isinstance(error, StandbyQuarantined)
        assert (error.http_status, error.error_type, error.retry_after_secs) == (503, "standby-quarantined", left)
        assert error.data == {"failedStarts": 3, "logTail": ["last line"], "retryAfterSecs": left}


def test_only_the_owner_sees_the_log(bench: Bench) -> None:
    """Neither who waits nor who comes, if he is somebody else."""
    bench.hold(want(is_owner=False))
    bench.apply(QUARANTINED)
    for error in (*bench.outcomes, bench.refusal(want(is_owner=False))):
        assert isinstance(error, StandbyQuarantined)
        assert "logTail" not in error.data


@pytest.mark.parametrize(
    ("change", "secs"),
    [
        pytest.param(None, 10.0, id="its time is over"),
        pytest.param(PoolFreed(pool=POOL), 0.0, id="it is freed"),
        pytest.param(RoutesReset(routes=()), 0.0, id="changes were missed"),
        pytest.param(route(Readiness.STARTING), 0.0, id="a run is being started"),
        pytest.param(route(Readiness.SERVING), 0.0, id="a run serves, though it may be full"),
        pytest.param(route(Readiness.FROZEN), 0.0, id="a run can be resumed"),
    ],
)
def test_nobody_is_refused_longer_than_he_must_be(bench: Bench, change: RouteChange | None, secs: float) -> None:
    """Where a run is there, or may be started again, requests are held as ever."""
    bench.apply(QUARANTINED)
    assert bench.refusal(want()) is not None
    bench.now += secs
    if change is not None:
        bench.apply(change)
    assert bench.refusal(want()) is None


def test_a_run_that_drains_is_none(bench: Bench) -> None:
    """It takes nothing any more."""
    bench.apply(route(Readiness.DRAINING), QUARANTINED)
    assert isinstance(bench.refusal(want()), StandbyQuarantined)


def test_a_new_build_is_not_concerned(bench: Bench) -> None:
    """Its first caller is held, before the autoscaler has said anything."""
    bench.apply(QUARANTINED)
    assert bench.refusal(want(generation=NEW)) is None


def test_what_speaks_to_those_who_wait_now_is_not_kept(bench: Bench) -> None:
    """A block without a time is told once."""
    bench.hold(want())
    bench.apply(PoolBlocked(pool=POOL, message="Its build was deleted."))
    assert isinstance(bench.outcomes[0], StandbyRunFailed)
    assert bench.refusal(want()) is None


def test_want_of_room_has_a_type_of_its_own(bench: Bench) -> None:
    """So that callers can tell a limit from a failure."""
    bench.apply(replace(QUARANTINED, error_type=StandbyNoRoom.error_type))
    error = bench.refusal(want())
    assert isinstance(error, StandbyNoRoom)
    assert (error.http_status, error.error_type, error.retry_after_secs) == (503, "memory-limit-exceeded", 10)


def test_refused_requests_leave_nothing_behind(bench: Bench) -> None:
    """A pool that nobody waits for is not kept."""
    bench.apply(QUARANTINED)
    assert bench.desk.take(want()) is None
    assert bench.refusal(want()) is not None
    assert bench.desk.report().pools == {}


def test_the_end_of_a_run_that_failed_is_told_to_who_waited_for_it(bench: Bench) -> None:
    """The one attempt after a pause: its waiter hears why it failed, the next one that there is a pause again."""
    bench.apply(route(Readiness.STARTING))
    bench.hold(want())
    bench.apply(
        RouteEnded(run_id="run", live_view_label="label", error_type="standby-run-finished", message="It ended."),
        QUARANTINED,
    )
    assert [error.error_type for error in bench.outcomes if isinstance(error, GreenroomError)] == [
        "standby-run-finished"
    ]
    assert isinstance(bench.refusal(want()), StandbyQuarantined)


def test_what_is_only_told_late_refuses_nobody(bench: Bench) -> None:
    """Who waits goes on waiting, who comes is held; those whose time is over hear it, as long as it holds."""
    bench.hold(want())
    bench.apply(PoolBlocked(pool=POOL, message="It is full.", retry_after_secs=10.0, is_late=True))
    assert bench.refusal(want()) is None
    assert bench.outcomes == []
    assert "It is full." in bench.desk.error_for_late(want(), 3.0).message
    bench.now += 10
    assert "raise maxRuns" in bench.desk.error_for_late(want(), 3.0).message
