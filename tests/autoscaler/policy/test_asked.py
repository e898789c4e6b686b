"""What was asked of a pool since it was last decided: averages and counts of what gateways have told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.asked import Asked, asked_since
from gateway.core.demand import DemandReport, PoolDemand, RunUse
from gateway.core.standby import PoolKey

POOL = PoolKey(target_id="actor", user_id="user")


def told(at_secs: float, gateway_id: str = "a", **facts: Any) -> DemandReport:
    """What a gateway says whose clock began at 1000 s when ours did at 0."""
    pools = {POOL: PoolDemand(**facts)} if facts else {}
    return DemandReport(gateway_id=gateway_id, routes_seen=0, at_secs=1000 + at_secs, pools=pools)


def asked(*looks: tuple[float, list[DemandReport]]) -> Asked:
    """What is known at the last of these decisions."""
    before, found = None, Asked()
    for now, reports in looks:
        found, before = asked_since(before, POOL, ["run"], reports, now)
    return found


FIRST = {"in_flight": 1, "waiting": 2, "in_flight_secs": 50.0, "waiting_secs": 10.0, "arrivals": 20, "finished": 15}


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        pytest.param(
            [(0.0, [told(0, **FIRST)])],
            Asked(waiting=2),
            id="never decided: nobody knows what was before",
        ),
        pytest.param(
            [
                (0.0, [told(0, **FIRST)]),
                (
                    2.0,
                    [
                        told(
                            2,
                            in_flight=4,
                            waiting=0,
                            in_flight_secs=56.0,
                            waiting_secs=11.0,
                            arrivals=27,
                            finished=21,
                            refused=1,
                        )
                    ],
                ),
            ],
            Asked(average_in_flight=3.0, average_waiting=0.5, arrivals=7, finished=6, refused=1),
            id="the difference of two reports",
        ),
        pytest.param(
            [
                (0.0, [told(0, **FIRST)]),
                (9.0, [told(5, in_flight_secs=60.0, waiting_secs=10.0, arrivals=20, finished=16)]),
            ],
            Asked(average_in_flight=2.0, average_waiting=0.0, arrivals=0, finished=1),
            id="averaged over the gateway's own time",
        ),
        pytest.param(
            [(0.0, [told(0, **FIRST)]), (2.0, [told(0, **FIRST)])],
            Asked(waiting=2, average_in_flight=1.0, average_waiting=2.0, arrivals=0, finished=0),
            id="nothing new: as it was, not zero",
        ),
        pytest.param(
            [(0.0, [told(0, **FIRST)]), (2.0, []), (4.0, [told(4, **{**FIRST, "in_flight_secs": 58.0})])],
            Asked(waiting=2, average_in_flight=2.0, average_waiting=0.0, arrivals=0, finished=0),
            id="a report that was lost has lost nothing",
        ),
        pytest.param(
            [
                (0.0, [told(0, "a", **FIRST), told(700, "b", **FIRST)]),
                (
                    2.0,
                    [
                        told(2, "a", **{**FIRST, "in_flight_secs": 52.0, "arrivals": 21}),
                        told(701, "b", **{**FIRST, "in_flight_secs": 53.0, "arrivals": 25}),
                    ],
                ),
            ],
            Asked(waiting=4, average_in_flight=4.0, average_waiting=0.0, arrivals=6, finished=0),
            id="two gateways, each by its own clock",
        ),
        pytest.param(
            [(0.0, [told(0)]), (10.0, [told(10, waiting=5, waiting_secs=2.5, arrivals=5, began_secs=1009.5)])],
            Asked(waiting=5, average_in_flight=0.0, average_waiting=0.25, arrivals=5, finished=0),
            id="a pool that slept: nothing was asked before it began",
        ),
        pytest.param(
            [(0.0, [told(0, **FIRST)]), (2.0, [told(2, in_flight_secs=1.0, arrivals=1, began_secs=1001.0)])],
            Asked(average_in_flight=0.5, average_waiting=0.0, arrivals=1, finished=0),
            id="sums that have begun anew",
        ),
        pytest.param(
            [(0.0, [told(0, **FIRST)]), (0.0, [told(0, in_flight=1, began_secs=1000.0)])],
            Asked(average_in_flight=1.0, average_waiting=0.0, arrivals=0, finished=0),
            id="anew, and no time has passed",
        ),
        pytest.param(
            [(0.0, [told(0, **FIRST)]), (2.0, [told(2)])],
            Asked(average_in_flight=0.0, average_waiting=0.0, arrivals=0, finished=0),
            id="it speaks of the pool no more",
        ),
        pytest.param(
            [(0.0, []), (2.0, [])],
            Asked(average_in_flight=0.0, average_waiting=0.0, arrivals=0, finished=0),
            id="no gateway at all",
        ),
    ],
)
def test_what_was_asked(looks: list[tuple[float, list[DemandReport]]], expected: Asked) -> None:
    """Since the decision before; each gateway by the difference of its own two reports."""
    assert asked(*looks) == expected


def test_what_a_draining_gateway_still_has_counts() -> None:
    """It tells of runs alone: what those of this pool have in flight, as it is."""
    uses = {"run": RunUse(in_flight=3, idle_secs=0.0), "another": RunUse(in_flight=9, idle_secs=0.0)}
    draining = DemandReport(gateway_id="old", routes_seen=0, runs=uses)
    found = asked((0.0, [told(0, **FIRST), draining]), (2.0, [told(2, **FIRST), draining]))
    assert found.average_in_flight == 3.0


@given(
    st.lists(st.tuples(st.floats(0.01, 5), st.integers(0, 9), st.integers(0, 9), st.booleans()), min_size=1),
)
def test_whatever_reports_are_lost_nothing_is(steps: list[tuple[float, int, int, bool]]) -> None:
    """All arrivals are counted once, and the averages times their times are all that was in flight."""
    at, flown, arrivals = 0.0, 0.0, 0
    _, before = asked_since(None, POOL, [], [told(0, in_flight=0, began_secs=1000.0)], 0.0)
    seen_arrivals, seen_flown, last = 0, 0.0, 0.0
    for secs, in_flight, came, is_lost in [*steps, (1.0, 0, 0, False)]:
        at, flown, arrivals = at + secs, flown + secs * in_flight, arrivals + came
        if is_lost:
            continue
        report = told(at, in_flight=in_flight, in_flight_secs=flown, arrivals=arrivals, began_secs=1000.0)
        found, before = asked_since(before, POOL, [], [report], at)
        assert found.arrivals is not None
        assert found.average_in_flight is not None
        seen_arrivals += found.arrivals
        seen_flown += found.average_in_flight * (at - last)
        last = at
    assert seen_arrivals == arrivals
    assert seen_flown == pytest.approx(flown, abs=1e-6)
