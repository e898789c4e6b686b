"""What the loop knows of room from one look to the next, and who is told that there is none."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from autoscaler.machine import capacity_of
from autoscaler.policy.deciding import decide
from autoscaler.policy.observing import Limits, Observation, RunSeen
from autoscaler.policy.room import Capacity, Claim, Grants, Resident, Shortage
from autoscaler.policy.thresholds import GREENROOM
from autoscaler.room_keeping import Other, RoomKeeping, Wish
from gateway.core.lifecycle import Readiness
from gateway.core.standby import Generation, PoolKey
from gateway.settings import Settings

POOL, OTHER = PoolKey(target_id="a", user_id="ann"), PoolKey(target_id="b", user_id="bob")
GENERATION = Generation(build_id="build", memory_mbytes=1024)


def wish(*, waiting: int = 1, in_flight: int = 0, min_runs: int = 0, may_start: int = 10, pool: PoolKey = POOL) -> Wish:
    """What is decided for a pool at one request per run, of which *in_flight* runs are in use."""
    seen = Observation(
        limits=Limits(max_requests_per_run=1, desired_requests_per_run=1, min_runs=min_runs),
        runs=tuple(
            RunSeen(run_id=f"run{number}", state=Readiness.SERVING, in_flight=1, age_secs=99)
            for number in range(in_flight)
        ),
        waiting=waiting,
        may_start=may_start,
    )
    return Wish(pool=pool, generation=GENERATION, seen=seen, decision=decide(GREENROOM, seen, 1000.0))


def takeover(*runs: RunSeen, waiting: int = 0, start_unasked: bool = True) -> Wish:
    """What is decided for a pool with some runs that retire."""
    seen = Observation(limits=Limits(), runs=runs, waiting=waiting, start_unasked=start_unasked)
    return Wish(pool=OTHER, generation=GENERATION, seen=seen, decision=decide(GREENROOM, seen, 1000.0))


@dataclass
class Bench:
    """Room that is kept with a clock that moves when told."""

    capacity: Capacity
    now: float = 1000.0
    room: RoomKeeping = field(init=False)

    def __post_init__(self) -> None:
        self.room = RoomKeeping(capacity=self.capacity, longest_drain_secs=10, clock=lambda: self.now)

    def residents(
        self, *runs: RunSeen, min_runs: int = 0, service_secs: float | None = None, others: tuple[Other, ...] = ()
    ) -> list[Resident]:
        of_pool = [(run, 1024) for run in runs]
        return self.room.residents({OTHER: of_pool}, others, {OTHER: min_runs}, lambda _: service_secs)

    def look(self, *residents: Resident) -> Shortage | None:
        """One look at which somebody waits for a run of POOL; what is short."""
        self.room.begin_look()
        return self.room.grant([wish()], residents, 10).short.get(POOL)


def serving(
    run_id: str, *, in_flight: int = 0, idle_secs: float = 0.0, viewers: int = 0, is_old: bool = False
) -> RunSeen:
    return RunSeen(
        retires_because="a newer build" if is_old else None,
        run_id=run_id,
        state=Readiness.SERVING,
        in_flight=in_flight,
        idle_secs=idle_secs,
        viewers=viewers,
        age_secs=99,
    )


@pytest.mark.parametrize(
    ("made", "claimed"),
    [
        pytest.param(wish(waiting=1), (1, 0), id="one waits"),
        pytest.param(wish(waiting=5, in_flight=2), (5, 0), id="five wait beside two"),
        pytest.param(wish(waiting=5, may_start=2), (2, 0), id="no more than may start at once"),
        pytest.param(wish(waiting=0, min_runs=2), (0, 2), id="nobody waits for minRuns"),
        pytest.param(wish(waiting=1, min_runs=3), (1, 2), id="one of three is waited for"),
    ],
)
def test_who_is_waited_for_and_who_is_not(made: Wish, claimed: tuple[int, int]) -> None:
    """What all open requests need is asked, the rest can wait."""
    claim = made.claim()
    assert isinstance(claim, Claim)
    assert (claim.asked, claim.more) == claimed


OLD = serving("old", in_flight=1, is_old=True)
STARTING = RunSeen(run_id="new", state=Readiness.STARTING)
DRAINING = RunSeen(run_id="gone", state=Readiness.DRAINING, in_flight=1)


@pytest.mark.parametrize(
    ("made", "asked", "takes_over"),
    [
        pytest.param(takeover(OLD), 1, True, id="the first one that takes over is needed, though nobody waits"),
        pytest.param(takeover(OLD, serving("new", in_flight=4)), 1, True, id="and so is each further one"),
        pytest.param(takeover(OLD, STARTING, serving("new", in_flight=9)), 0, False, id="one after the other"),
        pytest.param(takeover(OLD, DRAINING), 1, False, id="none has to go while another one drains"),
        pytest.param(takeover(OLD, start_unasked=False), 1, False, id="nor for a build that has failed to start"),
        pytest.param(takeover(serving("new", in_flight=5)), 0, False, id="none retires"),
    ],
)
def test_who_takes_over_is_needed(made: Wish, asked: int, takes_over: bool) -> None:
    """While requests keep the runs of an old build in use, there may be none who waits."""
    assert made.decision.start
    claim = made.claim()
    assert (claim.asked, claim.takes_over) == (asked, takes_over)


def test_a_full_machine_comes_to_the_new_build() -> None:
    """One run of the old build goes, the new one comes in its place, and meanwhile no other one goes for it."""
    bench = Bench(Capacity(max_runs=2))
    old = [serving(name, in_flight=1, is_old=True) for name in ("one", "two")]
    bench.room.begin_look()
    grants = bench.room.grant([takeover(*old)], bench.residents(*old, service_secs=0.1), 10)
    assert ([run_id for run_id, _ in grants.leave], dict(grants.starts)) == (["one"], {})
    drained = [RunSeen(run_id="one", state=Readiness.DRAINING, in_flight=1), old[1]]
    bench.room.begin_look()
    assert bench.room.grant([takeover(*drained)], bench.residents(*drained, service_secs=0.1), 10) == Grants()
    assert bench.room.is_short
    bench.room.begin_look()
    grants = bench.room.grant([takeover(old[1])], bench.residents(old[1], service_secs=0.1), 10)
    assert (grants.leave, dict(grants.starts)) == ((), {OTHER: 1})


def test_none_goes_for_a_successor_while_somebody_waits_for_room() -> None:
    """Who waits is given room before anything is given to others, in the same look."""
    bench = Bench(Capacity(max_runs=1))
    old = serving("one", in_flight=1, is_old=True)
    residents = bench.residents(old, service_secs=0.1)
    assert bench.look(*residents) is Shortage.MACHINE
    grants = bench.room.grant([takeover(old)], residents, 10)
    assert (grants.leave, dict(grants.short)) == ((), {OTHER: Shortage.MACHINE})
    bench.room.begin_look()
    assert bench.room.grant([takeover(old)], residents, 10).leave[0][0] == "one"


@pytest.mark.parametrize(
    ("capacity", "live_runs", "pace", "plenty"),
    [
        pytest.param(Capacity(max_runs=10), 7, 3, True, id="just enough"),
        pytest.param(Capacity(max_runs=10), 8, 3, False, id="too many runs"),
        pytest.param(Capacity(max_runs=10), 7, 2, False, id="too fast"),
        pytest.param(Capacity(max_runs=10, max_memory_mbytes=10**6), 0, 9, False, id="memory has to be counted"),
        pytest.param(Capacity(max_runs=10, max_runs_per_user=9), 0, 9, False, id="and so have users"),
    ],
)
def test_where_there_is_plenty_nobody_is_counted(capacity: Capacity, live_runs: int, pace: int, plenty: bool) -> None:
    """Three are wanted: a wake on a machine that has room costs no look at all other runs."""
    wishes = [wish(waiting=2), wish(waiting=1, pool=OTHER)]
    assert Bench(capacity).room.has_plenty(wishes, live_runs, pace) == plenty


def test_only_idle_runs_and_quick_ones_can_be_sent_away() -> None:
    """Not those that start, are looked at, or whose requests take long; batch runs and builds never."""
    bench = Bench(Capacity(max_runs=10))
    runs = (
        serving("idle", idle_secs=5),
        serving("used", in_flight=1),
        serving("viewed", viewers=1),
        RunSeen(run_id="starting", state=Readiness.STARTING),
        RunSeen(run_id="frozen", state=Readiness.FROZEN, idle_secs=7),
        RunSeen(run_id="draining", state=Readiness.DRAINING),
        RunSeen(run_id="busy-draining", state=Readiness.DRAINING, in_flight=1),
    )
    others = (
        Other(run_id="batch", owner="bob", memory_mbytes=4096),
        Other(run_id="build", owner="bob", memory_mbytes=4096, is_run=False),
    )
    for service_secs, lent in ((None, set()), (0.5, {"used"}), (60.0, set())):
        found = bench.residents(*runs, service_secs=service_secs, others=others)
        assert {one.run_id: one.idle_secs for one in found if one.idle_secs is not None} == {"idle": 5, "frozen": 7}
        assert {one.run_id for one in found if one.is_lent} == lent
        assert {one.run_id for one in found if one.is_leaving} == {"draining"}
        assert {one.run_id for one in found if not one.is_run} == {"build"}


def test_of_min_runs_those_are_spared_that_were_used_last() -> None:
    """Of three with ``minRuns`` 2, the one that has been idle longest may go first."""
    bench = Bench(Capacity(max_runs=10))
    runs = (serving("a", idle_secs=5), serving("b", in_flight=1), serving("c", idle_secs=9))
    assert {one.run_id for one in bench.residents(*runs, min_runs=2) if one.is_warm} == {"a", "b"}
    assert not any(one.is_warm for one in bench.residents(*runs))


def test_what_was_sent_away_counts_as_leaving_for_a_while() -> None:
    """Nobody else goes for the same request before it has gone; after half a minute somebody does."""
    bench = Bench(Capacity(max_runs=2))
    runs = (serving("one", idle_secs=90), serving("two", idle_secs=60))
    assert bench.room.grant([wish()], bench.residents(*runs), 10).leave[0][0] == "one"
    assert bench.room.is_short
    bench.now += 29
    assert bench.room.grant([wish()], bench.residents(*runs), 10).leave == ()
    bench.now += 2
    assert bench.room.grant([wish()], bench.residents(*runs), 10).leave[0][0] == "one"


def test_an_owners_limit_is_told_after_some_patience_and_no_longer_than_it_holds() -> None:
    """Ten seconds in which one of his runs might become free; when a run has ended, he is not refused any more."""
    bench = Bench(Capacity(max_runs=10, max_runs_per_user=1))
    own = Resident(run_id="own", owner="ann", memory_mbytes=1024, pool=PoolKey(target_id="c", user_id="ann"))
    assert bench.look(own) is Shortage.OWNER
    first = bench.room.refusal(POOL, GENERATION, Shortage.OWNER)
    assert first is not None
    assert first.is_late
    bench.now += 9.9
    assert bench.look(own) is Shortage.OWNER
    assert bench.room.refusal(POOL, GENERATION, Shortage.OWNER) is None
    bench.now += 0.1
    assert bench.look(own) is Shortage.OWNER
    told = bench.room.refusal(POOL, GENERATION, Shortage.OWNER)
    assert told is not None
    assert (told.is_late, told.error_type, told.generation) == (False, "memory-limit-exceeded", GENERATION)
    assert "1 runs (setting: max_runs_per_user)" in told.message
    assert bench.room.refused() == [POOL]
    assert bench.room.refused() == []


def test_patience_begins_anew_when_there_was_room_in_between() -> None:
    """Only those are refused who have waited in vain all the time."""
    bench = Bench(Capacity(max_runs=10, max_runs_per_user=1))
    own = Resident(run_id="own", owner="ann", memory_mbytes=1024, pool=PoolKey(target_id="c", user_id="ann"))
    bench.look(own)
    bench.now += 9
    bench.look()
    assert not bench.room.is_short
    bench.look(own)
    bench.now += 9
    bench.look(own)
    told = bench.room.refusal(POOL, GENERATION, Shortage.OWNER)
    assert told is not None
    assert told.is_late


def test_a_full_machine_refuses_nobody_but_who_has_waited_in_vain_hears_of_it() -> None:
    """Told again before it is forgotten, and not at each look."""
    bench = Bench(Capacity(max_runs=1))
    used = bench.residents(serving("used", in_flight=1))
    told = []
    for _ in range(30):
        short = bench.look(*used)
        assert short is Shortage.MACHINE
        if (blocked := bench.room.refusal(POOL, GENERATION, short)) is not None:
            told.append(bench.now)
            assert blocked.is_late
            assert "max_runs" in blocked.message
            assert blocked.retry_after_secs is not None
            assert blocked.retry_after_secs > 10
        bench.now += 1
    assert told == [1000, 1010, 1020]


def test_so_many_are_told_at_one_look_that_gateways_can_follow() -> None:
    """The others hear at the next ones."""
    bench = Bench(Capacity(max_runs=1))
    used = bench.residents(serving("used", in_flight=1))
    pools = [PoolKey(target_id=f"actor{number}", user_id=f"owner{number}") for number in range(250)]
    told = []
    for _ in range(4):
        bench.room.begin_look()
        short = bench.room.grant([wish(pool=pool) for pool in pools], used, 10).short
        told.append(sum(bench.room.refusal(pool, GENERATION, short[pool]) is not None for pool in pools))
        bench.now += 1
    assert told == [100, 100, 50, 0]


@pytest.mark.parametrize(
    ("given", "mbytes"),
    [
        pytest.param({"launcher": "docker"}, 14_745, id="docker: less a tenth"),
        pytest.param({"launcher": "docker", "docker_host": "tcp://10.0.0.1:2375"}, None, id="an engine elsewhere"),
        pytest.param({"launcher": "process"}, None, id="processes are not held to it"),
        pytest.param({"launcher": "swarm"}, None, id="swarm knows its nodes"),
        pytest.param({"launcher": "process", "max_memory_mbytes": 2048}, 2048, id="what is set holds"),
    ],
)
def test_the_memory_that_there_is(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, object], mbytes: int | None
) -> None:
    """On a machine of 16 GiB."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    capacity = capacity_of(Settings.model_validate(given), 16 * 1024)
    assert capacity.max_memory_mbytes == mbytes


def test_a_small_machine_keeps_half_a_gibibyte_and_users_have_no_limit_by_default() -> None:
    """And 0 is none for users."""
    assert capacity_of(Settings.model_validate({"launcher": "docker", "docker_host": "unix:///x"}), 2048) == Capacity(
        max_runs=500, max_memory_mbytes=1536
    )
    limits = {"max_runs_per_user": 3, "max_memory_mbytes_per_user": 4096}
    limited = capacity_of(Settings.model_validate(limits))
    assert (limited.max_runs_per_user, limited.max_memory_mbytes_per_user) == (3, 4096)
