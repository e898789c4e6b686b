"""How busy a run is, from consecutive samples."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.load import Load, LoadHistory, Usage, is_overloaded, load_stats

MIB = 1024 * 1024


def usage(cpu_secs: float, memory_mib: int = 100, *, life: str = "first") -> Usage:
    return Usage(life=life, cpu_secs=cpu_secs, memory_bytes=memory_mib * MIB, processes=1)


def after(
    *samples: tuple[float, Usage], start: float | None = 0.0, cpu_share: float = 1.0, cores: int = 4
) -> LoadHistory:
    history = LoadHistory(at=start)
    for at, sample in samples:
        history = history.after(sample, at, cpu_share=cpu_share, cores=cores)
    return history


def load(*samples: tuple[float, Usage], **options: Any) -> Load:
    found = after(*samples, **options).load
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("samples", "current", "avg", "highest"),
    [
        pytest.param([(1, usage(0))], 0, 0, 0, id="idle"),
        pytest.param([(1, usage(1))], 100, 100, 100, id="one core, from the start on"),
        pytest.param([(1, usage(2)), (2, usage(4))], 200, 200, 200, id="two cores"),
        pytest.param([(1, usage(1)), (3, usage(1))], 0, pytest.approx(100 / 3), 100, id="then idle for 2 s"),
        pytest.param([(2, usage(1)), (4, usage(2))], 50, 50, 50, id="a late look is a longer mean, not a peak"),
        pytest.param([(1, usage(5)), (2, usage(0.5, life="second"))], 50, 225, 400, id="restarted: counted from zero"),
        pytest.param(
            [(1, usage(3)), (2, usage(2)), (3, usage(3))], 100, pytest.approx(400 / 3), 300, id="a shrunk sum"
        ),
        pytest.param([(1, usage(1)), (1, usage(1.5)), (2, usage(2))], 100, 100, 100, id="twice at one time"),
        pytest.param([(1, usage(1)), (0.5, usage(1.5)), (2, usage(2))], 100, 100, 100, id="the clock went back"),
        pytest.param([(1, usage(99))], 400, 400, 400, id="more than there are cores"),
    ],
)
def test_cpu(samples: list[tuple[float, Usage]], current: float, avg: float, highest: float) -> None:
    """Percent of one core: since the last sample, over all, and at most; a sample of no time changes nothing."""
    found = load(*samples)
    assert (found.cpu_current, found.cpu_avg, found.cpu_max) == (current, avg, highest)


def test_of_an_adopted_run_the_first_sample_is_only_where_counting_begins() -> None:
    """What it used before nobody looked is not taken for the load of one second."""
    first = after((50, usage(1000)), start=None)
    assert first.load is None
    assert load((50, usage(1000)), (51, usage(1000.5)), start=None).cpu_current == 50


def test_memory_is_weighted_by_time() -> None:
    """Three seconds at 100 MiB and one at 300 are 150 on average."""
    found = load((3, usage(0, 100)), (4, usage(0, 300)), (4.01, usage(0, 900)))
    assert (found.memory_current, found.memory_avg, found.memory_max) == (300 * MIB, 150 * MIB, 300 * MIB)


@pytest.mark.parametrize(
    ("used_secs", "cpu_share", "expected"),
    [
        pytest.param(0.95, 1.0, False, id="exactly 95 % of one core"),
        pytest.param(0.96, 1.0, True, id="more than 95 % of one core"),
        pytest.param(1.5, 2.0, False, id="one and a half of two cores"),
        pytest.param(1.99, 2.0, True, id="all of two cores"),
        pytest.param(0.3, 0.25, True, id="more than a quarter core"),
    ],
)
def test_overload_is_of_the_share(used_secs: float, cpu_share: float, expected: bool) -> None:
    """A run is overloaded by what it was given, not by what the machine has; a calm second ends it."""
    assert load((1, usage(used_secs)), cpu_share=cpu_share).is_cpu_overloaded is expected
    assert not load((1, usage(used_secs)), (2, usage(used_secs)), cpu_share=cpu_share).is_cpu_overloaded


def booting(sample: Usage, is_booting: bool = True) -> Usage:
    return replace(sample, is_booting=is_booting)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        pytest.param([(1, booting(usage(1)))], False, id="all of the larger share"),
        pytest.param([(1, booting(usage(1))), (2, usage(1.9))], False, id="a second of both shares"),
        pytest.param([(1, booting(usage(1))), (2, usage(1.9)), (3, usage(2.2))], True, id="then only its own"),
        pytest.param([(1, booting(usage(1))), (2, usage(0.9, life="second"))], True, id="the boot of an earlier life"),
    ],
)
def test_booting_is_not_overload(samples: list[tuple[float, Usage]], expected: bool) -> None:
    """While a run has the larger share of its start, it may use that up; afterwards its own share counts."""
    assert load(*samples, cpu_share=0.25).is_cpu_overloaded is expected


def held_back(cpu_secs: float, throttled_periods: int | None, **fields: Any) -> Usage:
    return replace(usage(cpu_secs), throttled_periods=throttled_periods, **fields)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param(held_back(0, 10), held_back(0.1, 16), True, id="in 6 of 10 periods"),
        pytest.param(held_back(0, 10), held_back(0.1, 15), False, id="in just the half of them"),
        pytest.param(held_back(0, 10), held_back(0.1, 10), False, id="not at all"),
        pytest.param(held_back(0, None), held_back(0.1, 9), False, id="before, nobody could tell"),
        pytest.param(held_back(0, 1), held_back(0.1, None), False, id="now nobody can tell"),
        pytest.param(held_back(0, 10), held_back(0.1, 19, life="b"), False, id="what it was before this life"),
        pytest.param(held_back(0, 10), held_back(0.1, 19, is_booting=True), False, id="while booting"),
    ],
)
def test_held_back_in_most_periods_is_overload(first: Usage, second: Usage, expected: bool) -> None:
    """A second has ten periods, and the kernel says in how many it held the run back, whatever the mean is."""
    assert load((1, first), (2, second), cpu_share=1).is_cpu_overloaded is expected


def test_a_late_look_has_more_periods() -> None:
    """Held back in 9 of the 30 periods of three seconds: no overload; in 16 of them: overload."""
    assert not load((1, held_back(0, 0)), (4, held_back(0.1, 9))).is_cpu_overloaded
    assert load((1, held_back(0, 0)), (4, held_back(0.1, 16))).is_cpu_overloaded


def networked(received: int | None, sent: int | None, life: str = "a") -> Usage:
    return replace(usage(0, life=life), net_rx_bytes=received, net_tx_bytes=sent)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        pytest.param([networked(5, 7)], (5, 7), id="all of it, however late the first look"),
        pytest.param([networked(5, 7), networked(9, 8)], (9, 8), id="the present sum"),
        pytest.param([networked(5, 7), networked(2, 1, "b"), networked(3, 1, "b")], (8, 8), id="over all lives"),
        pytest.param([networked(1, 2), networked(0, 0, "b"), networked(4, 4, "c")], (5, 6), id="three lives"),
        pytest.param([networked(None, None)], (None, None), id="can't be told"),
        pytest.param([networked(5, 7), networked(None, None), networked(9, 8)], (9, 8), id="one look missed it"),
    ],
)
def test_network_is_the_sum_of_all_lives(samples: list[Usage], expected: tuple[int | None, int | None]) -> None:
    """A restart begins to count at zero, and what was before it is not lost."""
    found = load(*enumerate(samples, start=1))
    assert (found.net_rx_bytes, found.net_tx_bytes) == expected
    stats = load_stats(found)
    assert (stats.get("netRxBytes"), stats.get("netTxBytes")) == expected
    assert ("netRxBytes" in stats) is (expected[0] is not None)


def test_network_of_an_adopted_run_counts_from_its_start() -> None:
    """The container has counted, whoever looked."""
    assert load((50, networked(1000, 10)), (51, networked(1001, 12)), start=None).net_rx_bytes == 1001


COUNTERS = st.one_of(st.none(), st.integers(0, 2**50))
SAMPLES = st.lists(
    st.tuples(
        st.floats(-1e6, 1e6, allow_nan=False),
        st.builds(
            Usage,
            life=st.sampled_from(["a", "b"]),
            cpu_secs=st.floats(0, 1e7),
            memory_bytes=st.integers(0, 2**50),
            processes=st.integers(0, 1000),
            throttled_periods=COUNTERS,
            net_rx_bytes=COUNTERS,
            net_tx_bytes=COUNTERS,
            is_booting=st.booleans(),
        ),
    ),
    max_size=20,
)


@given(SAMPLES, st.one_of(st.none(), st.floats(-1e6, 1e6)), st.integers(1, 64))
def test_whatever_is_sampled_the_figures_make_sense(
    samples: list[tuple[float, Usage]], start: float | None, cores: int
) -> None:
    """Never negative, never more than all cores, the mean below the peak; clocks and sums may jump as they like."""
    found = after(*samples, start=start, cores=cores).load
    if found is None:
        return
    assert all(value >= 0 for value in asdict(found).values() if value is not None)
    slack = 1 + 1e-6
    assert found.cpu_current <= found.cpu_max * slack
    assert found.cpu_avg <= found.cpu_max * slack
    assert found.cpu_max <= 100 * cores * slack
    assert found.memory_current <= found.memory_max
    assert found.memory_avg <= found.memory_max * slack


def test_stats_are_what_clients_can_parse() -> None:
    """Bytes are integers, percents may be fractions; of a run that was never seen nothing is said."""
    stats = load_stats(load((3, usage(1, 7)), (4, usage(1, 8))))
    assert stats == {
        "memAvgBytes": 7.25 * MIB,
        "memMaxBytes": 8 * MIB,
        "memCurrentBytes": 8 * MIB,
        "cpuAvgUsage": 25,
        "cpuMaxUsage": 33.333,
        "cpuCurrentUsage": 0,
    }
    assert all(isinstance(value, int) for name, value in stats.items() if name.startswith("mem"))
    assert load_stats(None) == {}


def busy_until(*pairs: tuple[float, float]) -> float:
    """The ratio after samples at these times with so much CPU used until then."""
    return load(*((at, usage(cpu)) for at, cpu in pairs)).overloaded_ratio


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        pytest.param([(1, 0)], 0, id="idle"),
        pytest.param([(1, 1)], 1 / 15, id="for the one second that was seen"),
        pytest.param([(n, n) for n in range(1, 9)], 8 / 15, id="most of them"),
        pytest.param([(n, n) for n in range(1, 31)], 1, id="all the time"),
        pytest.param([(n, min(n, 6)) for n in range(1, 13)], 6 / 15, id="then no longer"),
        pytest.param([(n, min(n, 6)) for n in range(1, 20)], 2 / 15, id="fading away"),
        pytest.param([(n, min(n, 6)) for n in range(1, 22)], 0, id="gone"),
        pytest.param([(40, 40)], 1, id="one long look"),
        pytest.param([(40, 40), (50, 40)], 5 / 15, id="of which a part is left"),
    ],
)
def test_for_how_much_of_the_last_seconds_it_was_overloaded(
    samples: list[tuple[float, float]], expected: float
) -> None:
    """Of the last fifteen, seen or not."""
    assert busy_until(*samples) == pytest.approx(expected)


def test_booting_is_no_overload_of_the_last_seconds() -> None:
    """It has the larger share for just that."""
    samples = [(at, replace(usage(at), is_booting=at < 8)) for at in range(1, 13)]
    assert load(*samples).overloaded_ratio == pytest.approx(4 / 15)


@given(st.lists(st.tuples(st.floats(0.01, 20), st.floats(0, 2)), min_size=1, max_size=40))
def test_it_is_a_share_and_takes_little_memory(steps: list[tuple[float, float]]) -> None:
    """Between 0 and 1 however the samples come, and remembered for its fifteen seconds only."""
    at = cpu = 0.0
    history = LoadHistory(at=0.0)
    for secs, ratio in steps:
        at, cpu = at + secs, cpu + secs * ratio
        history = history.after(usage(cpu), at, cpu_share=1, cores=4)
        assert history.load is None or -1e-9 <= history.load.overloaded_ratio <= 1 + 1e-9
    assert all(end > at - 40 for _, end in history.overloaded)
    assert len(history.overloaded) <= 151


@pytest.mark.parametrize(
    ("was", "ratio", "expected"),
    [
        pytest.param(False, 0.5, False, id="for half of the time: not yet"),
        pytest.param(False, 0.51, True, id="for most of it"),
        pytest.param(True, 0.3, True, id="still"),
        pytest.param(True, 0.2, False, id="rested"),
    ],
)
def test_who_is_overloaded_stays_so_until_it_has_rested(was: bool, ratio: float, expected: bool) -> None:
    """Else each request that it is spared would bring the next one back."""
    assert is_overloaded(ratio, was=was) is expected
