"""
No I/O: what one could pay who knows the rate of requests in each minute, the coming one among them, though not a single
moment, and makes the best moves for it (``best_moves``). He shows what is left for a policy that can't see the future:
no real one knows the rate so well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from loadtests.simulation.best_moves import Moves, best_moves
from loadtests.simulation.engine import Glimpse, Workload, simulate
from loadtests.simulation.kpa import to_drain
from loadtests.simulation.questions import Result, Setting, total_of

_MINUTE_SECS = 60.0
_STEP = 0.25
_PRICE_SECS = 20.0
KEEP_SECS = (40.0, 51.0, 60.0, 70.0, 80.0, 90.0, 100.0, 120.0)
INFORMED = "informed"
PRICES_SECS = (10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 60.0)


@dataclass(frozen=True, slots=True)
class Informed:
    """``rates``: requests a second, for each minute. ``keep_secs``: how long the last run is kept unused."""

    rates: Sequence[float]
    keep_secs: float
    late_price_secs: float
    moves_at: Callable[[float, float], Moves] = best_moves

    def choose(self, seen: Glimpse) -> tuple[int, Sequence[int]]:
        """One run while there is anything to do; a second one as the best moves have it."""
        live = seen.live
        load = sum(run.in_flight for run in live) + seen.waiting
        serving = [run for run in live if run.state == "serving"]
        if not live:
            return (1 if load else 0), ()
        if not load and len(serving) == len(live):
            unused = min(run.idle_secs(seen.now) for run in live)
            if unused >= self.keep_secs:
                return 0, [run.id for run in live]
        moves = self.moves_at(self._rate(seen.now), self.late_price_secs)
        if len(live) == 1:
            return (1 if moves.start_from is not None and load >= moves.start_from else 0), ()
        if len(serving) == len(live) and moves.drain_at is not None and load <= moves.drain_at:
            return 0, [to_drain(live)[0].id]
        return 0, ()

    def _rate(self, now: float) -> float:
        minute = min(int(now / _MINUTE_SECS), len(self.rates) - 1)
        return round(self.rates[minute] / _STEP) * _STEP


def rates_of(load: Workload) -> list[float]:
    """Requests a second, for each minute."""
    counts = Counter(int(at / _MINUTE_SECS) for at in load.arrivals)
    return [counts[minute] / _MINUTE_SECS for minute in range(int(load.end / _MINUTE_SECS) + 1)]


def informed_results(loads: Mapping[str, Sequence[Workload]], *, swept: bool) -> list[Result]:
    """What he comes to with each keep-alive and each price."""
    pairs = [(90.0, price) for price in PRICES_SECS]
    if swept:
        pairs += [(keep, _PRICE_SECS) for keep in KEEP_SECS if keep != 90.0]
    results = []
    for keep, price in pairs:
        totals = {}
        for name, seeds in loads.items():
            played = [simulate(load, Informed(rates_of(load), keep, price)) for load in seeds]
            totals[name] = total_of(played)
        make = partial(Informed, (), keep, price)
        results.append(Result(Setting(INFORMED, f"idle {keep:g} s, price {price:g} s", make), totals))
    return results


def best_for_each(results: Sequence[Result], kpa: Result) -> dict[str, tuple[int, float]]:
    """
    For each trace the late requests, no more than Knative has there, and the fewest run-seconds over Knative's: with
    the setting that suits this trace best, where ours has to have one for all.
    """
    best: dict[str, tuple[int, float]] = {}
    for result in results:
        for name, ratio in result.run_secs_ratios(kpa).items():
            if result.late(name) <= kpa.late(name) and (name not in best or ratio < best[name][1]):
                best[name] = (result.late(name), ratio)
    return best
