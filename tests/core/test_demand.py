"""How several gateways' reports become one picture."""

from __future__ import annotations

from itertools import permutations

import pytest

from gateway.core.demand import DemandReport, PoolDemand, RunUse, is_drained, merge_pools, merge_runs
from gateway.core.standby import PoolKey

POOL = PoolKey(target_id="actor", user_id="user")
OTHER = PoolKey(target_id="other", user_id="user")


def report(name: str = "g", seen: int = 0, **runs: RunUse) -> DemandReport:
    return DemandReport(gateway_id=name, routes_seen=seen, runs=runs)


def test_demand_of_pools_adds_up() -> None:
    """In flight and waiting are sums over gateways, pool by pool."""
    reports = [
        DemandReport(gateway_id="a", routes_seen=1, pools={POOL: PoolDemand(in_flight=2, waiting=3)}),
        DemandReport(
            gateway_id="b", routes_seen=1, pools={POOL: PoolDemand(in_flight=5), OTHER: PoolDemand(waiting=1)}
        ),
    ]
    assert merge_pools(reports) == {POOL: (7, 3), OTHER: (0, 1)}
    assert merge_pools([]) == {}


def test_a_run_is_as_idle_as_its_busiest_gateway_says() -> None:
    """Requests and viewers add up, apart; the shortest idle time counts; who refused one has refused, in any order."""
    reports = [
        report("a", run=RunUse(in_flight=0, idle_secs=90.0, has_refused=True)),
        report("b", run=RunUse(in_flight=2, viewers=1, idle_secs=0.0)),
        report("c", run=RunUse(in_flight=1, viewers=4, idle_secs=0.0), elsewhere=RunUse(in_flight=0, idle_secs=5.0)),
    ]
    for order in permutations(reports):
        assert merge_runs(order) == {
            "run": RunUse(in_flight=3, viewers=5, idle_secs=0.0, has_refused=True),
            "elsewhere": RunUse(in_flight=0, idle_secs=5.0),
        }


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        pytest.param(RunUse(in_flight=0, idle_secs=5), False, id="nothing"),
        pytest.param(RunUse(in_flight=1, idle_secs=0), True, id="a request"),
        pytest.param(RunUse(in_flight=0, viewers=1, idle_secs=0), True, id="a viewer"),
        pytest.param(RunUse(in_flight=2, viewers=1, idle_secs=0), True, id="both"),
        pytest.param(RunUse(in_flight=0, idle_secs=0, has_refused=True), False, id="a refusal is no use"),
    ],
)
def test_what_is_use(use: RunUse, expected: bool) -> None:
    """Whatever is open, be it load or not."""
    assert use.is_used is expected


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        pytest.param([], True, id="no gateway, no request"),
        pytest.param([report(seen=7)], True, id="seen, and nothing in it"),
        pytest.param([report(seen=9)], True, id="later changes were seen too"),
        pytest.param([report(seen=6)], False, id="not seen: it may still send a request there"),
        pytest.param([report(seen=7, run=RunUse(in_flight=1, idle_secs=0))], False, id="one request in flight"),
        pytest.param([report(seen=7, run=RunUse(in_flight=0, viewers=1, idle_secs=0))], False, id="one viewer"),
        pytest.param([report(seen=7, run=RunUse(in_flight=0, idle_secs=0))], True, id="its last one has just ended"),
        pytest.param([report(seen=7), report(seen=6)], False, id="every gateway must have seen it"),
        pytest.param([report(seen=7, other=RunUse(in_flight=9, idle_secs=0))], True, id="other runs don't matter"),
    ],
)
def test_is_drained(reports: list[DemandReport], expected: bool) -> None:
    """A run that drains is empty once every gateway has seen the change and has nothing in flight there."""
    assert is_drained("run", 7, reports) is expected


@pytest.mark.parametrize(
    ("holders", "expected"),
    [
        pytest.param(frozenset(), True, id="nobody"),
        pytest.param(frozenset({"g"}), True, id="who reports that it has none in flight"),
        pytest.param(frozenset({"g", "cut off"}), False, id="one that does not report"),
        pytest.param(None, False, id="nobody can tell"),
    ],
)
def test_who_has_slots_and_is_not_heard_from(holders: frozenset[str] | None, expected: bool) -> None:
    """A gateway that is cut off goes on with the requests that it has, and so the run is not empty."""
    assert is_drained("run", 7, [report(seen=7)], holders=holders) is expected
