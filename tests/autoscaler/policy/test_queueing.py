"""The queue of Erlang, against its published table and against itself."""

from __future__ import annotations

import random
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.queueing import late_ratio, worthwhile_runs


@pytest.mark.parametrize(
    ("slots", "offered", "expected"),
    [
        # One server: the share that waits is its load. Others by the formula, worked by hand:
        # C(2, 1) = (1/2 · 2) / (1 + 1 + 1/2 · 2) = 1/3; C(4, 2) = (16/24 · 2) / (1 + 2 + 2 + 8/6 + 16/24 · 2) = 4/23.
        pytest.param(1, 0.5, 0.5, id="one"),
        pytest.param(2, 1.0, 1 / 3, id="two"),
        pytest.param(4, 2.0, 4 / 23, id="four"),
        pytest.param(4, 4.0, 1.0, id="just as much as they can do: all"),
        pytest.param(4, 5.0, 1.0, id="more: all"),
        pytest.param(4, 0.0, 0.0, id="nobody comes"),
        pytest.param(5000, 1000.0, 0.0, id="a great many"),
        pytest.param(5000, 4990.0, 1.0, id="a great many, all but full"),
    ],
)
def test_who_waits_at_all(slots: int, offered: float, expected: float) -> None:
    """Erlang's C."""
    assert late_ratio(slots, offered, 1.0, 0.0) == pytest.approx(expected)


def test_who_waits_for_long() -> None:
    """The wait of those who wait is exponential, with what is left of the slots."""
    assert late_ratio(4, 4.0, 0.5, 1.0) == pytest.approx(4 / 23 * exp(-(4 - 2) * 1.0 / 0.5))


@pytest.mark.slow
def test_it_is_what_happens() -> None:
    """A queue that is played: 5 requests a second, 4 slots, 0.5 s each."""
    dice = random.Random(5)
    free_at, now, late, count = [0.0] * 4, 0.0, 0, 400_000
    for _ in range(count):
        now += dice.expovariate(5)
        first = min(range(4), key=free_at.__getitem__)
        began = max(now, free_at[first])
        late += began - now > 1
        free_at[first] = began + dice.expovariate(2)
    assert late / count == pytest.approx(late_ratio(4, 5, 0.5, 1), rel=0.1)


@pytest.mark.parametrize(
    ("rate", "service", "price", "expected"),
    [
        pytest.param(5, 0.5, 20, 2, id="the example"),
        pytest.param(5, 0.5, 10, 1, id="a lower price"),
        pytest.param(5, 0.5, 0, 1, id="no price: what suffices on average"),
        pytest.param(9, 0.5, 0, 2, id="one would not"),
        pytest.param(0, 0.5, 80, 1, id="nobody comes: the first one is for who does"),
        pytest.param(1, 60.0, 1, 16, id="long ones: no slot is soon free again"),
        pytest.param(200, 0.5, 80, 27, id="many: their chances even out"),
    ],
)
def test_worthwhile_runs(rate: float, service: float, price: float, expected: int) -> None:
    """Runs of four slots each."""
    found = worthwhile_runs(rate, service, 4, late_after_secs=1.0, late_price_secs=price)
    assert found == expected


numbers = st.floats(0.001, 100)


@given(numbers, numbers, st.integers(1, 20), st.floats(0, 100), st.floats(1, 2))
def test_more_work_is_never_worth_fewer(rate: float, service: float, slots: int, price: float, more: float) -> None:
    """Whether more requests come, they take longer, or waiting is dearer."""
    rate, service = min(rate, 200 / service), service

    def runs(rate: float, service: float, price: float) -> int:
        return worthwhile_runs(rate, service, slots, late_after_secs=1.0, late_price_secs=price)

    before = runs(rate, service, price)
    assert runs(rate * more, service, price) >= before
    assert runs(rate, service * more, price) >= before
    assert runs(rate, service, price * more) >= before
    assert before * slots > rate * service
