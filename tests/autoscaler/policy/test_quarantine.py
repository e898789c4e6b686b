"""Which pools are left alone after failures, for how long, and what ends that."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.quarantine import FREE, LONGEST_PAUSE_SECS, Quarantine, RunNews, Standing, whole_secs
from gateway.core.standby import Generation, PoolKey

POOL, OTHER = PoolKey(target_id="a", user_id="u"), PoolKey(target_id="b", user_id="u")
OLD, NEW = (Generation(build_id=build, memory_mbytes=1024) for build in ("old", "new"))


@dataclass
class Ward:
    """A quarantine with a clock that moves when told, and runs that are numbered."""

    now: float = 1000.0
    quarantine: Quarantine = field(default_factory=Quarantine)
    numbers: count[int] = field(default_factory=count)

    def fails(self, *, took: float = 1.0, pool: PoolKey = POOL, generation: Generation = OLD) -> bool:
        """A start that begins now and does not serve; whether a pause has begun with it."""
        began = self.now
        self.now += took
        return self.hear(began=began, has_ended=True, failed_because="exit code 3.", pool=pool, generation=generation)

    def serves(self, run_id: str = "serving", *, generation: Generation = OLD) -> None:
        self.hear(run_id=run_id, began=self.now, generation=generation)

    def crashes(self, *, served: float = 5.0) -> bool:
        """A run that begins now, serves at once and fails after so long."""
        began, run_id = self.now, f"run{next(self.numbers)}"
        self.hear(run_id=run_id, began=began)
        self.now += served
        return self.hear(run_id=run_id, began=began, has_ended=True, served_secs=served, failed_because="exit code 1.")

    def hear(
        self,
        *,
        began: float,
        run_id: str | None = None,
        has_ended: bool = False,
        served_secs: float | None = None,
        failed_because: str | None = None,
        pool: PoolKey = POOL,
        generation: Generation = OLD,
    ) -> bool:
        news = RunNews(
            run_id=run_id or f"run{next(self.numbers)}",
            pool=pool,
            generation=generation,
            began=began,
            has_ended=has_ended,
            served_secs=served_secs,
            failed_because=failed_because,
        )
        return self.quarantine.hear(news, self.now) is not None

    def standing(self, *, starting: int = 0, generation: Generation = OLD, pool: PoolKey = POOL) -> Standing:
        return self.quarantine.standing(pool, generation, self.now, starting=starting)

    def is_quarantined(self) -> bool:
        return self.standing().quarantined is not None


@pytest.fixture
def ward() -> Ward:
    return Ward()


def test_the_third_failed_start_in_a_row_begins_a_pause(ward: Ward) -> None:
    """Nothing is started for 10 s, then one attempt, and no second one beside it."""
    assert [ward.fails() for _ in range(3)] == [False, False, True]
    standing = ward.standing()
    assert (standing.may_start, standing.start_unasked, standing.left_secs) == (0, False, 10.0)
    ward.now += 9.9
    assert ward.standing().may_start == 0
    ward.now += 0.1
    assert ward.standing() == Standing(may_start=1)
    assert ward.standing(starting=1).may_start == 0


def test_each_attempt_that_fails_doubles_the_pause(ward: Ward) -> None:
    """10, 20, 40, … and never more than 300 s."""
    pauses = []
    for _ in range(3):
        ward.fails()
    for _ in range(8):
        pauses.append(ward.standing().left_secs)
        ward.now += pauses[-1]
        assert ward.fails()
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300]


@pytest.mark.parametrize(
    ("failures", "pause_secs"), [pytest.param(1, 2.0, id="after one"), pytest.param(2, 4.0, id="after two")]
)
def test_before_that_only_runs_that_nobody_waits_for_are_held_back(
    ward: Ward, failures: int, pause_secs: float
) -> None:
    """2 s after the first failed start, 4 s after the second; who waits gets a start at once."""
    for _ in range(failures):
        ward.fails()
    assert ward.standing() == Standing(start_unasked=False)
    ward.now += pause_secs - 0.01
    assert not ward.standing().start_unasked
    ward.now += 0.01
    assert ward.standing().start_unasked


def test_starts_that_had_begun_before_the_pause_do_not_lengthen_it(ward: Ward) -> None:
    """Ten started together and all failing are one quarantine of 10 s, not eight of them."""
    began = ward.now
    ward.now += 1
    told = [ward.hear(began=began, has_ended=True, failed_because="no.") for _ in range(10)]
    assert told.count(True) == 1
    assert ward.standing().left_secs == 10.0


def test_a_start_that_serves_ends_it(ward: Ward) -> None:
    """Also one that was under way; and the count begins anew."""
    for _ in range(3):
        ward.fails()
    ward.serves()
    assert ward.standing() == FREE
    ward.fails()
    ward.fails()
    assert not ward.is_quarantined()


def test_three_crashes_within_five_minutes_begin_a_pause(ward: Ward) -> None:
    """Each of a run that failed within a minute of serving."""
    assert [ward.crashes() for _ in range(3)] == [False, False, True]
    trouble = ward.standing().quarantined
    assert trouble is not None
    assert trouble.in_words() == (
        "3 times within 5 minutes a run of this Actor failed soon after it began to serve. The last one: exit code 1."
    )


@pytest.mark.parametrize(
    ("served", "apart", "quarantined"),
    [
        pytest.param(59.9, 1.0, True, id="just within a minute"),
        pytest.param(60.0, 1.0, False, id="after a minute of service"),
        pytest.param(5.0, 144.0, True, id="just within five minutes"),
        pytest.param(5.0, 146.0, False, id="not within five minutes"),
    ],
)
def test_what_counts_as_a_crash_loop(ward: Ward, served: float, apart: float, quarantined: bool) -> None:
    """Only failures soon after serving, and only close together."""
    for _ in range(3):
        ward.crashes(served=served)
        ward.now += apart
    ward.now -= apart
    assert ward.is_quarantined() == quarantined


def test_after_crashes_a_run_must_serve_for_a_minute(ward: Ward) -> None:
    """Until then one start at a time; a further crash doubles the pause."""
    for _ in range(3):
        ward.crashes()
    ward.now += 10
    assert ward.crashes()
    assert ward.standing().left_secs == 20
    ward.now += 20
    ward.serves()
    assert ward.standing() == Standing(may_start=1)
    assert ward.standing(starting=1).may_start == 0
    ward.now += 60
    assert ward.standing() == FREE


def test_runs_that_die_together_are_one_crash(ward: Ward) -> None:
    """All of a pool's runs at once, as when their engine is restarted: that is no loop."""
    began = ward.now
    ward.now += 20
    for _ in range(10):
        assert not ward.hear(began=began, has_ended=True, served_secs=19.0, failed_because="exit code 137.")
    assert ward.standing() == Standing()
    assert [ward.crashes(), ward.crashes()] == [False, True]


def test_a_pool_of_which_a_run_has_served_for_long_is_not_paused(ward: Ward) -> None:
    """Also where nobody has looked since: its next crash is the first one."""
    ward.crashes()
    ward.crashes()
    ward.serves("steady")
    ward.now += 61
    assert not ward.crashes()
    assert ward.standing() == Standing()


def test_ends_that_are_no_failures_do_not_count(ward: Ward) -> None:
    """A run that was wound down, aborted or has succeeded is no trouble."""
    for _ in range(5):
        ward.hear(began=ward.now, has_ended=True, served_secs=1.0)
        ward.hear(began=ward.now, has_ended=True)
    assert ward.standing() == FREE


def test_a_new_build_begins_anew(ward: Ward) -> None:
    """And what still fails of the old one is not held against it."""
    for _ in range(3):
        ward.fails()
    assert ward.standing(generation=NEW) == FREE
    ward.fails()
    assert ward.standing(generation=NEW) == FREE
    assert ward.is_quarantined()


def test_other_pools_are_not_concerned(ward: Ward) -> None:
    """Neither by the failures nor by what ends them."""
    for _ in range(3):
        ward.fails()
        ward.fails(pool=OTHER)
    assert ward.quarantine.clear("a") == [POOL]
    assert ward.standing() == FREE
    assert ward.standing(pool=OTHER).quarantined is not None
    assert ward.quarantine.clear("a") == []
    assert ward.quarantine.clear_all() == [OTHER]
    assert ward.standing(pool=OTHER) == FREE


def test_nothing_is_kept_for_ever(ward: Ward) -> None:
    """An hour after the last failure the pool is as new; so are old crashes that were no loop."""
    for _ in range(3):
        ward.fails()
    ward.fails(pool=OTHER)
    ward.now += 3598
    ward.quarantine.forget_old(ward.now)
    assert [pool for pool, *_ in ward.quarantine.quarantined()] == [POOL]
    ward.now += 2
    ward.quarantine.forget_old(ward.now)
    assert list(ward.quarantine.quarantined()) == []
    assert ward.quarantine.clear_all() == []


def test_a_pause_is_told_in_whole_seconds_that_are_never_too_few() -> None:
    """Whoever comes again after ``Retry-After`` finds the pause over."""
    assert [whole_secs(secs) for secs in (0.0, 0.2, 9.01, 10.0)] == [1, 1, 10, 10]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["fails", "crashes", "serves", "long"]), st.floats(0, 1e5, allow_nan=False)),
        max_size=40,
    )
)
def test_whatever_happens_and_however_the_clock_jumps(steps: list[tuple[str, float]]) -> None:
    """
    The clock may jump hours ahead, as after a suspended night: a pause never lasts longer than 300 s, less than two
    failures never quarantine, and a pool in quarantine gets one attempt at most.
    """
    ward = Ward()
    failures = 0
    for what, jump in steps:
        match what:
            case "fails":
                ward.fails()
                failures += 1
            case "crashes":
                ward.crashes()
                failures += 1
            case "serves":
                ward.serves()
            case _:
                ward.hear(began=ward.now, has_ended=True, served_secs=61.0, failed_because="exit code 1.")
                assert ward.standing() == FREE
        standing = ward.standing()
        assert 0 <= standing.left_secs <= LONGEST_PAUSE_SECS
        assert (standing.quarantined is not None) == (standing.left_secs > 0)
        assert standing.may_start in (None, 0, 1)
        assert failures >= 3 or standing.may_start is None
        ward.now += jump
        assert ward.standing().left_secs <= standing.left_secs
