"""The simulator's pool of runs: worked examples, then what always holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.simulation.engine import Glimpse, Workload, simulate
from loadtests.simulation.fixed import FixedIdle


@dataclass(slots=True)
class Plan:
    """A policy by hand: what to start and to drain at the n-th time that it is asked; it keeps what it saw."""

    steps: dict[int, tuple[int, list[int]]]
    seen: list[Glimpse] = field(default_factory=list)
    states: list[list[tuple[int, str, int]]] = field(default_factory=list)

    def choose(self, seen: Glimpse) -> tuple[int, Sequence[int]]:
        self.seen.append(seen)
        self.states.append([(run.id, run.state, run.in_flight) for run in seen.runs])
        return self.steps.get(len(self.seen) - 1, (0, []))


def load(*requests: tuple[float, float], limit: int = 4, starts: Sequence[float] = (3.0,)) -> Workload:
    """Requests as (arrival, service time)."""
    return Workload("test", [at for at, _ in requests], [secs for _, secs in requests], starts, limit)


def test_a_cold_request_waits_for_its_start() -> None:
    """It pokes at once and waits 3 s; its run is paid for from its start command to a second after the last arrival."""
    plan = Plan({1: (1, [])})
    outcome = simulate(load((0.5, 0.25)), plan)
    assert [(seen.now, seen.is_poke, seen.waiting) for seen in plan.seen[:2]] == [(0.0, False, 0), (0.5, True, 1)]
    assert list(outcome.waits) == pytest.approx([3.0])
    assert (outcome.late, outcome.starts) == (1, 1)
    assert outcome.run_secs == pytest.approx(1.0)


def test_a_start_takes_as_long_as_its_turn_says() -> None:
    """The first one 1 s, the second 2 s, and so on from the beginning."""
    outcome = simulate(load((0.0, 9.0), (0.1, 9.0), limit=1, starts=[1.0, 2.0]), Plan({0: (1, []), 1: (1, [])}))
    assert sorted(outcome.waits) == [pytest.approx(1.0), pytest.approx(1.9)]


def test_who_waits_is_served_in_turn_by_the_emptiest() -> None:
    """First in, first out; a request goes to the run with the fewest in flight."""
    requests = [(0.0, 10.0), (3.5, 10.0), (3.6, 10.0), (3.7, 1.0), (3.8, 1.0)]
    plan = Plan({0: (2, [])})
    outcome = simulate(load(*requests, limit=2), plan)
    assert outcome.waits == [3.0, 0.0, 0.0, 0.0, pytest.approx(0.9)]
    assert plan.states[-1] == [(1, "serving", 2), (2, "serving", 2)]


def test_averages_are_over_the_time_since_the_last_decision() -> None:
    """Waiting for 3 s of which 2 s were told; then in flight for half of the next 2 s."""
    plan = Plan({0: (1, [])})
    simulate(load((0.0, 0.5), (7.5, 0.1)), plan)
    told = [(seen.now, seen.average_in_flight, seen.average_waiting, seen.arrivals) for seen in plan.seen if seen.now]
    assert told[:3] == [(2.0, 0.0, 1.0, 0), (4.0, 0.25, 0.5, 0), (6.0, 0.0, 0.0, 0)]


def test_a_run_that_drains_ends_with_its_last_request() -> None:
    """It takes nothing new, and is paid for until then; one that is empty or starts ends at once."""
    plan = Plan({0: (3, []), 3: (0, [1]), 4: (0, [3])})
    outcome = simulate(load((3.0, 2.5), (20.0, 0.1)), plan)
    # The first from 0 to 5.5, the third from 0 to 6, the second until the end.
    assert outcome.run_secs == pytest.approx(5.5 + 6.0 + 21.0)


requests = st.lists(st.tuples(st.floats(0, 60), st.floats(0.01, 5)), min_size=1, max_size=40).map(sorted)


@given(requests, st.integers(1, 5), st.floats(0, 20))
def test_nothing_is_lost(given_requests: list[tuple[float, float]], limit: int, idle: float) -> None:
    """Every request is served, none waits less than nothing; run-seconds pay at least for what was done in time."""
    played = load(*given_requests, limit=limit)
    outcome = simulate(played, FixedIdle(idle))
    assert len(outcome.waits) == outcome.requests == len(given_requests)
    assert min(outcome.waits) >= 0
    assert outcome.late == sum(wait > 1 for wait in outcome.waits)
    done = sum(
        max(0.0, min(at + wait + secs, played.end) - min(at + wait, played.end))
        for (at, secs), wait in zip(given_requests, outcome.waits, strict=True)
    )
    assert outcome.run_secs * limit >= done * (1 - 1e-9) - 1e-9
    assert simulate(played, FixedIdle(idle)) == outcome
