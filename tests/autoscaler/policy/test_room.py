"""Who may start runs when there is not enough room or pace, and which runs make room."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.room import Capacity, Claim, Grants, Resident, Shortage, grant
from gateway.core.standby import PoolKey


def pool(owner: str, name: str = "actor") -> PoolKey:
    return PoolKey(target_id=f"{owner}-{name}", user_id=owner)


def claim(
    owner: str, asked: int = 1, *, more: int = 0, name: str = "actor", mbytes: int = 1024, takes_over: bool = False
) -> Claim:
    return Claim(pool=pool(owner, name), memory_mbytes=mbytes, asked=asked, more=more, takes_over=takes_over)


def used(
    owner: str, count: int = 1, *, mbytes: int = 1024, is_lent: bool = False, name: str = "used"
) -> list[Resident]:
    """Runs that are in use."""
    return [
        Resident(
            run_id=f"{owner}-{name}-{number}",
            owner=owner,
            pool=pool(owner, name),
            memory_mbytes=mbytes,
            in_flight=1,
            is_lent=is_lent,
            age_secs=float(number),
        )
        for number in range(count)
    ]


def idle(owner: str, secs: float, *, mbytes: int = 1024, name: str = "idle", is_warm: bool = False) -> list[Resident]:
    """One run that has been idle for so long."""
    return [
        Resident(
            run_id=f"{owner}-{name}-{secs:g}",
            owner=owner,
            pool=pool(owner, name),
            memory_mbytes=mbytes,
            idle_secs=secs,
            is_warm=is_warm,
        )
    ]


def granted(
    residents: Sequence[Resident],
    *claims: Claim,
    runs: int = 4,
    mbytes: int | None = None,
    runs_per_user: int | None = None,
    mbytes_per_user: int | None = None,
    pace: int = 50,
) -> Grants:
    capacity = Capacity(
        max_runs=runs,
        max_memory_mbytes=mbytes,
        max_runs_per_user=runs_per_user,
        max_memory_mbytes_per_user=mbytes_per_user,
    )
    return grant(capacity, residents, claims, pace=pace)


def gone(grants: Grants) -> list[str]:
    return [run_id for run_id, _ in grants.leave]


def test_with_room_for_all_everybody_gets_what_he_asks() -> None:
    """Also what nobody waits for; and nothing has to go."""
    grants = granted(idle("ann", 90), claim("ann", 1, more=1), claim("bob", 1), runs=4)
    assert grants == Grants(starts={pool("ann"): 2, pool("bob"): 1})


def test_owners_get_runs_in_turn_and_who_holds_the_least_is_first() -> None:
    """A greedy owner's second run comes after everybody else's first, whoever is named first."""
    grants = granted([], claim("greedy", 100), *(claim(name) for name in ("ann", "bob", "eve")), runs=6)
    assert grants.starts == {pool("greedy"): 3, pool("ann"): 1, pool("bob"): 1, pool("eve"): 1}
    assert grants.short == {pool("greedy"): Shortage.MACHINE}


def test_what_an_owner_holds_already_counts() -> None:
    """Two free, and one who has three: the two go to the others."""
    grants = granted(used("greedy", 3), claim("greedy", 5), claim("ann"), claim("bob"), runs=5)
    assert grants.starts == {pool("ann"): 1, pool("bob"): 1}


def test_the_pools_of_one_owner_take_turns() -> None:
    """The second pool's first run comes before the first pool's second."""
    grants = granted([], claim("ann", 5, name="a"), claim("ann", 1, name="b"), runs=3)
    assert grants.starts == {pool("ann", "a"): 2, pool("ann", "b"): 1}


def test_pace_is_shared_like_room() -> None:
    """Two starts may be made now: one each, and who gets none knows why."""
    grants = granted([], claim("greedy", 9), claim("ann"), claim("bob"), runs=100, pace=2)
    assert grants.starts == {pool("greedy"): 1, pool("ann"): 1}
    assert grants.short[pool("bob")] is Shortage.PACE


def test_runs_that_nobody_waits_for_come_last_and_make_nobody_go() -> None:
    """Neither ``minRuns`` nor runs ahead of demand."""
    grants = granted(idle("bob", 900), claim("ann", 0, more=3), claim("eve", 1), runs=3)
    assert grants.starts == {pool("eve"): 1, pool("ann"): 1}
    assert (grants.leave, grants.short) == ((), {})


def test_memory_is_room_too() -> None:
    """A run that would take more than is left is not started; a smaller one is."""
    grants = granted(used("bob", 1, mbytes=3000), claim("ann", mbytes=2048), claim("eve", mbytes=512), mbytes=4096)
    assert grants.starts == {pool("eve"): 1}
    assert grants.short == {pool("ann"): Shortage.MACHINE}


def test_builds_take_memory_but_no_run() -> None:
    """They are nobody's to send away."""
    build = Resident(run_id="build", owner="bob", memory_mbytes=4000, is_run=False)
    grants = granted([build], claim("ann"), runs=1, mbytes=4096)
    assert (dict(grants.starts), grants.leave) == ({}, ())
    assert granted([build], claim("ann"), runs=1, mbytes=8192).starts == {pool("ann"): 1}


# -- who makes room ----------------------------------------------------------------------------------------------------


def test_the_one_that_has_been_idle_longest_makes_room() -> None:
    """Of any owner; a start in its place comes once it has gone."""
    residents = [*idle("ann", 40), *idle("bob", 50), *idle("eve", 45), *used("eve")]
    grants = granted(residents, claim("joe"))
    assert (gone(grants), dict(grants.starts), dict(grants.short)) == (["bob-idle-50"], {}, {})
    assert "idle for 50.0 s" in grants.leave[0][1]


def test_nothing_more_goes_while_room_is_about_to_be_free() -> None:
    """One is leaving already; the second who waits needs another one."""
    leaving = [replace(run, is_leaving=True, idle_secs=None) for run in idle("bob", 50)]
    residents = [*leaving, *idle("ann", 40), *used("eve", 2)]
    assert granted(residents, claim("joe")) == Grants()
    assert gone(granted(residents, claim("joe"), claim("zoe"))) == ["ann-idle-40"]


def test_as_many_small_ones_go_as_a_large_one_needs_or_none_at_all() -> None:
    """Where even all of them would not do, they stay."""
    residents = [*idle("ann", 40), *idle("bob", 50), *idle("eve", 60)]
    assert gone(granted(residents, claim("joe", mbytes=2048), mbytes=3072)) == ["eve-idle-60", "bob-idle-50"]
    grants = granted([*residents, *used("zoe")], claim("joe", mbytes=4096), mbytes=4096)
    assert (grants.leave, dict(grants.short)) == ((), {pool("joe"): Shortage.MACHINE})


def test_one_that_is_used_does_not_go_for_another_one_of_the_same_share() -> None:
    """Four owners with one each, all in use: the fifth waits."""
    residents = [run for name in ("ann", "bob", "eve", "joe") for run in used(name, is_lent=True)]
    grants = granted(residents, claim("zoe"))
    assert (grants.leave, dict(grants.short)) == ((), {pool("zoe"): Shortage.MACHINE})


def test_a_short_pause_costs_nobody_his_only_run() -> None:
    """Between two requests a run is idle, too: while a greedy owner holds more, one of his makes room."""
    residents = [*used("greedy", 3, is_lent=True), *idle("ann", 2.0)]
    assert gone(granted(residents, claim("bob"))) == ["greedy-used-0"]
    assert granted(residents, claim("greedy")).leave == ()


def test_long_requests_are_not_disturbed() -> None:
    """An owner whose requests may take long keeps what he uses; then another one's short pause has to do."""
    residents = [*used("greedy", 3), *idle("ann", 2.0)]
    assert gone(granted(residents, claim("bob"))) == ["ann-idle-2"]
    assert granted(used("greedy", 4), claim("bob")).leave == ()


def test_what_is_kept_warm_is_spared_as_long_as_another_can_go() -> None:
    """``minRuns`` yields last, but yields."""
    warm = idle("ann", 900, is_warm=True)
    assert gone(granted([*warm, *idle("bob", 1), *used("eve", 2)], claim("joe"))) == ["bob-idle-1"]
    assert gone(granted([*warm, *used("eve", 3)], claim("joe"))) == ["ann-idle-900"]


# -- who takes over from runs that retire ------------------------------------------------------------------------------

LENT = [replace(run, is_retiring=True) for run in used("ann", 3, is_lent=True, name="actor")]
LONG = [replace(run, is_retiring=True) for run in used("ann", 3, name="actor")]
PAUSED = [replace(run, is_retiring=True) for run in idle("ann", 2, name="actor")]
STAYING = used("ann", 3, is_lent=True, name="actor")


@pytest.mark.parametrize(
    ("residents", "claims", "limits", "left", "short"),
    [
        pytest.param([*LENT, *used("bob")], (), {}, ["ann-actor-0"], {}, id="one whose requests are short"),
        pytest.param([*LONG, *PAUSED], (), {}, ["ann-actor-2"], {}, id="the one that is unused just now"),
        pytest.param([*LENT, *idle("bob", 40)], (), {}, ["bob-idle-40"], {}, id="none while others are long idle"),
        pytest.param([*LONG, *used("bob")], (), {}, [], {"ann": Shortage.MACHINE}, id="none that may take long"),
        pytest.param([*STAYING, *used("bob")], (), {}, [], {"ann": Shortage.MACHINE}, id="none that stays"),
        pytest.param(LENT, (), {"runs_per_user": 3}, ["ann-actor-0"], {}, id="at its owner's limit"),
        pytest.param(LENT[:1], (), {"runs": 1}, ["ann-actor-0"], {}, id="the only one: callers wait as for a start"),
        pytest.param(
            [*LENT[:1], *used("bob"), *used("eve"), *used("joe")],
            (claim("zoe"),),
            {},
            [],
            {"ann": Shortage.MACHINE, "zoe": Shortage.MACHINE},
            id="none while another one waits, who would get its room",
        ),
        pytest.param(
            [*LENT, *used("bob")],
            (claim("bob", mbytes=9999),),
            {"mbytes": 9000},
            ["ann-actor-0"],
            {"bob": Shortage.NEVER},
            id="who can never have room does not wait for it",
        ),
    ],
)
def test_where_nothing_else_can_go_one_that_retires_does(
    residents: list[Resident],
    claims: tuple[Claim, ...],
    limits: dict[str, int],
    left: list[str],
    short: dict[str, Shortage],
) -> None:
    """Else traffic that never ends would keep a full machine on the old build; what hinders the new one is told."""
    grants = granted(residents, claim("ann", takes_over=True), *claims, **{"runs": 4, **limits})
    assert gone(grants) == left
    assert (dict(grants.starts), dict(grants.short)) == ({}, {pool(owner): why for owner, why in short.items()})


def test_one_that_retires_goes_for_its_own_successor_alone() -> None:
    """Not for a second one, nor while one goes for others, nor beyond the pace; with room, none goes."""
    residents = [*LENT, *used("bob")]
    takes_over = claim("ann", 2, more=2, takes_over=True)
    assert len(granted(residents, takes_over).leave) == 1
    assert granted(residents, takes_over, pace=0).leave == ()
    assert granted(LENT, takes_over) == Grants(starts={pool("ann"): 1}, short={pool("ann"): Shortage.MACHINE})
    assert granted(residents, claim("ann")).leave == ()
    assert gone(granted(residents, takes_over, claim("bob"))) == ["ann-actor-0"]


@pytest.mark.parametrize(
    ("who", "why", "goes"),
    [
        pytest.param("bob", Shortage.MACHINE, False, id="for room on the machine"),
        pytest.param("bob", Shortage.PACE, False, id="for its turn"),
        pytest.param("bob", Shortage.OWNER, True, id="for room among another owner's"),
        pytest.param("ann", Shortage.OWNER, False, id="for room among the same owner's"),
        pytest.param("ann", Shortage.NEVER, True, id="for nothing that there could be"),
    ],
)
def test_none_goes_for_its_successor_while_another_one_waits(who: str, why: Shortage, goes: bool) -> None:
    """He would get the room before the successor does, look after look."""
    residents, claims = [*LENT, *used("bob")], [claim("ann", takes_over=True)]
    grants = grant(Capacity(max_runs=4), residents, claims, pace=9, others={pool(who, "other"): why})
    assert bool(grants.leave) is goes


# -- the limits of one owner -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits", [pytest.param({"runs_per_user": 2}, id="runs"), pytest.param({"mbytes_per_user": 2048}, id="memory")]
)
def test_an_owners_limit_is_made_room_for_by_his_own_runs_alone(limits: dict[str, int]) -> None:
    """Whatever others leave idle; and where all of his are used he waits, though the machine has room."""
    residents = [*idle("bob", 900), *idle("ann", 5), *used("ann")]
    assert gone(granted(residents, claim("ann"), runs=100, **limits)) == ["ann-idle-5"]
    grants = granted([*idle("bob", 900), *used("ann", 2)], claim("ann"), claim("bob"), runs=100, **limits)
    assert dict(grants.starts) == {pool("bob"): 1}
    assert (grants.leave, dict(grants.short)) == ((), {pool("ann"): Shortage.OWNER})


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        pytest.param({"mbytes": 4096}, "max_memory_mbytes", id="the machine's"),
        pytest.param({"mbytes_per_user": 4096}, "max_memory_mbytes_per_user", id="the owner's"),
    ],
)
def test_what_can_never_fit_is_told_and_makes_nobody_go(limits: dict[str, int], setting: str) -> None:
    """With the name of the setting."""
    grants = granted(idle("ann", 900), claim("joe", mbytes=8192), **limits)
    assert (grants.leave, dict(grants.short)) == ((), {pool("joe"): Shortage.NEVER})
    capacity = Capacity(
        max_runs=4, max_memory_mbytes=limits.get("mbytes"), max_memory_mbytes_per_user=limits.get("mbytes_per_user")
    )
    assert f"(setting: {setting})" in str(capacity.never(8192))
    assert capacity.never(4096) is None


# -- always ------------------------------------------------------------------------------------------------------------

OWNERS = st.sampled_from(["ann", "bob", "eve", "joe"])
SIZES = st.sampled_from([128, 512, 1024, 4096])
RESIDENTS = st.lists(
    st.builds(
        Resident,
        run_id=st.uuids().map(str),
        owner=OWNERS,
        memory_mbytes=SIZES,
        pool=st.builds(pool, OWNERS, st.sampled_from(["x", "y"])),
        is_run=st.just(True),
        idle_secs=st.none() | st.floats(0, 1000),
        is_lent=st.booleans(),
        in_flight=st.integers(0, 5),
        age_secs=st.floats(0, 1000),
        is_leaving=st.booleans(),
        is_warm=st.booleans(),
        is_retiring=st.booleans(),
    ),
    max_size=20,
)
CLAIMS = st.lists(
    st.builds(
        Claim,
        pool=st.builds(pool, OWNERS, st.sampled_from(["x", "y", "z"])),
        memory_mbytes=SIZES,
        asked=st.integers(0, 9),
        more=st.integers(0, 3),
        takes_over=st.booleans(),
    ).map(lambda claim: replace(claim, takes_over=claim.takes_over and claim.asked > 0)),
    max_size=8,
    unique_by=lambda claim: claim.pool,
)
CAPACITIES = st.builds(
    Capacity,
    max_runs=st.integers(1, 20),
    max_memory_mbytes=st.none() | st.integers(128, 20_000),
    max_runs_per_user=st.none() | st.integers(1, 8),
    max_memory_mbytes_per_user=st.none() | st.integers(128, 9000),
)


@given(residents=RESIDENTS, claims=CLAIMS, capacity=CAPACITIES, pace=st.integers(0, 12))
def test_no_limit_is_ever_broken(residents: list[Resident], claims: list[Claim], capacity: Capacity, pace: int) -> None:
    """Whatever there is and is asked for: starts keep all limits while nothing has gone yet; nobody gets too much."""
    grants = grant(capacity, residents, claims, pace=pace)
    assert sum(grants.starts.values()) <= pace
    runs, mbytes = Counter[str](), Counter[str]()
    for resident in residents:
        for name in ("", resident.owner):
            runs[name] += 1
            mbytes[name] += resident.memory_mbytes
    before_runs, before_mbytes = runs.copy(), mbytes.copy()
    for one in claims:
        count = grants.starts.get(one.pool, 0)
        assert count <= one.asked + one.more
        for name in ("", one.owner):
            runs[name] += count
            mbytes[name] += count * one.memory_mbytes
    for name, number in runs.items():
        most = capacity.max_runs if name == "" else capacity.max_runs_per_user
        assert number == before_runs[name] or most is None or number <= most
        most = capacity.max_memory_mbytes if name == "" else capacity.max_memory_mbytes_per_user
        assert mbytes[name] == before_mbytes[name] or most is None or mbytes[name] <= most


@given(residents=RESIDENTS, claims=CLAIMS, capacity=CAPACITIES, pace=st.integers(0, 12))
def test_only_those_go_that_may_and_no_more_than_are_waited_for(
    residents: list[Resident], claims: list[Claim], capacity: Capacity, pace: int
) -> None:
    """None that is in use for long, none twice, none that is leaving already; and nothing where nobody waits."""
    grants = grant(capacity, residents, claims, pace=pace)
    by_id = {resident.run_id: resident for resident in residents}
    assert len(set(gone(grants))) == len(grants.leave)
    for run_id in gone(grants):
        assert not by_id[run_id].is_leaving
        assert by_id[run_id].idle_secs is not None or by_id[run_id].is_lent
    if not any(one.asked for one in claims):
        assert not grants.leave
    assert set(grants.short) <= {one.pool for one in claims if one.asked}


@given(
    held=st.dictionaries(OWNERS, st.integers(0, 6)),
    asked=st.dictionaries(OWNERS, st.integers(1, 6), min_size=1),
    free=st.integers(0, 12),
)
def test_what_is_free_goes_to_those_who_hold_the_least(held: dict[str, int], asked: dict[str, int], free: int) -> None:
    """Max-min: nobody's last run was given to him while another one who waits in vain held less."""
    residents = [run for owner, count in held.items() for run in used(owner, count)]
    capacity = Capacity(max_runs=max(1, len(residents) + free))
    grants = grant(capacity, residents, [claim(owner, count) for owner, count in asked.items()], pace=50)
    got = {owner: grants.starts.get(pool(owner), 0) for owner in asked}
    assert sum(got.values()) == min(capacity.max_runs - len(residents), sum(asked.values()))
    for poor in (owner for owner, count in asked.items() if got[owner] < count):
        for rich in (owner for owner in asked if owner != poor and got[owner]):
            assert held.get(rich, 0) + got[rich] - 1 <= held.get(poor, 0) + got[poor]


def test_ten_thousand_pools_are_cheap() -> None:
    """Ten thousand owners who wait for five hundred runs that are all in use: a moment, however often it is asked."""
    residents = [run for number in range(500) for run in used(f"holder{number}", is_lent=True)]
    claims = [claim(f"waiter{number}") for number in range(10_000)]
    began = time.process_time()
    grants = granted(residents, *claims, runs=500)
    assert time.process_time() - began < 2.0
    assert len(grants.short) == 10_000
