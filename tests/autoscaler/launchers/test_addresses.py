"""Runs and the engine's own containers have addresses of one network, and never the same."""

from __future__ import annotations

import ipaddress

import pytest

from autoscaler.launchers.docker.addresses import Addresses, automatic_range
from gateway.core.errors import LaunchError


@pytest.mark.parametrize(
    ("subnet", "expected"),
    [
        ("172.18.0.0/16", "172.18.240.0/20"),
        ("10.200.3.0/24", "10.200.3.240/28"),
        ("10.200.3.0/26", "10.200.3.60/30"),
        ("10.200.3.0/27", None),
    ],
)
def test_the_engines_own_part(subnet: str, expected: str | None) -> None:
    """The last sixteenth, where there is enough to divide."""
    assert automatic_range(subnet) == expected


@pytest.mark.parametrize("subnet", ["10.200.3.0/24", "10.200.3.0/26", "10.200.3.0/29"])
def test_runs_have_all_the_others(subnet: str) -> None:
    """Each run one, until all are taken; none of the engine's, not the machine's own, neither end of the subnet."""
    network, addresses = ipaddress.IPv4Network(subnet), Addresses(subnet)
    engines = ipaddress.IPv4Network(automatic_range(subnet) or "0.0.0.0/32")
    engines_own = engines.num_addresses if automatic_range(subnet) else 0
    count = network.num_addresses - 3 - engines_own
    taken = {ipaddress.IPv4Address(addresses.take(f"run{number}")) for number in range(count)}
    with pytest.raises(LaunchError, match="docker_subnet"):
        addresses.take("one more")
    hosts = set(network.hosts())
    assert len(taken) == count
    assert taken <= hosts - set(engines) - {min(hosts)}
