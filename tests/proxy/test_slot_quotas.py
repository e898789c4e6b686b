"""What a gateway asks for and gives back: the examples, by name. ``test_slots_shared_model.py`` has what must hold."""

from __future__ import annotations

import pytest
from proxy.slot_world import Gateway, world


def fly(gateway: Gateway, times: int) -> None:
    for _ in range(times):
        gateway.request()


def land(gateway: Gateway) -> None:
    for flight in list(gateway.flights):
        gateway.finish(flight)


@pytest.mark.parametrize(
    ("limit", "gateways"),
    [
        pytest.param(1, 1, id="one gateway"),
        pytest.param(2, 1, id="one gateway, two slots"),
        pytest.param(6, 3, id="twice the number of gateways"),
        pytest.param(10, 3, id="more"),
    ],
)
def test_warm_requests_make_no_call(limit: int, gateways: int) -> None:
    """A thousand at each gateway, one after the other: only the calls that time asks for are made."""
    shared = world(limit, gateways)
    for _ in range(1000):
        for gateway in shared.gateways:
            gateway.request()
            assert len(gateway.flights) == 1
            land(gateway)
            gateway.step()
    assert [gateway.calls for gateway in shared.gateways] == [0] * gateways
    assert [gateway.pokes for gateway in shared.gateways] == [0] * gateways


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_few_slots_take_one_call_for_each_request_at_most(limit: int) -> None:
    """Three gateways under pressure, one run: each request that is through makes one call, of whoever gives back."""
    shared = world(limit, 3)
    for gateway in shared.gateways:
        fly(gateway, 50)
    done = 0
    while any(gateway.flights or gateway.waiting for gateway in shared.gateways):
        shared.round(0.001)
        for gateway in shared.gateways:
            if gateway.flights:
                gateway.finish(gateway.flights[0])
                done += 1
        assert shared.now < 1100
    assert done == 150
    assert sum(gateway.calls for gateway in shared.gateways) <= 150 + 10 * (shared.now - 1000)
