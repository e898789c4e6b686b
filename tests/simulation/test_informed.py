"""One who knows the rate of requests but not their moments, and the best that he can make of it."""

from __future__ import annotations

import pytest

from loadtests.simulation.best_moves import Moves, best_moves
from loadtests.simulation.engine import simulate
from loadtests.simulation.informed import Informed, best_for_each, informed_results, rates_of
from loadtests.simulation.kpa import Kpa
from loadtests.simulation.questions import Result, Setting, total_of
from loadtests.simulation.traffic import made, recorded, served


def test_when_a_second_run_is_worth_it() -> None:
    """The more come and the dearer a late one, the sooner it is started and the later it goes; in the end it stays."""
    assert best_moves(8.0, 40.0) == Moves(start_from=0, drain_at=None)
    assert best_moves(1.0, 0.0) == Moves(start_from=None, drain_at=4)
    for price in (5.0, 15.0, 40.0):
        starts = [best_moves(rate, price).start_from or 0 for rate in (3.0, 4.0, 5.0, 6.0, 7.0)]
        assert starts == sorted(starts, reverse=True)
        assert starts[0] > starts[-1]
    by_price = [best_moves(4.0, price).start_from or 0 for price in (5.0, 15.0, 40.0, 120.0)]
    assert by_price == sorted(by_price, reverse=True)
    assert by_price[0] > by_price[-1]


@pytest.mark.slow
def test_no_other_moves_are_better() -> None:
    """
    At five requests a second and a price of 15 s, of all pairs of borders around the best ones: none costs less, by
    more than what chance and a look every two seconds may make of it.
    """
    price, secs = 15.0, 8_000.0
    load = served("steady", made(lambda _: 5.0, 5.0, secs, 3), 3)
    best = best_moves(5.0, price)
    assert best.start_from is not None
    assert best.drain_at is not None

    def costs(moves: Moves) -> float:
        outcome = simulate(load, Informed([5.0], 600.0, price, lambda _rate, _price: moves))
        return (outcome.run_secs + price * outcome.late) / secs

    found = costs(best)
    for start_from in (5, best.start_from + 5, None):
        for drain_at in (best.drain_at, 4, None):
            assert costs(Moves(start_from, drain_at)) > 0.96 * found, (start_from, drain_at)


def test_rates_of_each_minute() -> None:
    """Counted over whole minutes, the last one as far as it goes."""
    assert rates_of(served("few", [0.5, 59.9, 60.0, 185.0])) == [2 / 60, 1 / 60, 0.0, 1 / 60]


@pytest.mark.slow
def test_who_knows_the_rates_pays_less_than_knative() -> None:
    """With no more late requests, on traffic that needs a second run now and then."""
    loads = {"conv": [recorded("azure_llm23_conv", spread_seed=1, service_seed=101)]}
    kpa = Result(Setting("kpa", "", Kpa), {"conv": total_of([simulate(load, Kpa()) for load in loads["conv"]])})
    late, ratio = best_for_each(informed_results(loads, swept=False), kpa)["conv"]
    assert late <= kpa.late("conv")
    assert 0.7 < ratio < 0.97
