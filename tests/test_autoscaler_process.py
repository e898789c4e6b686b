"""Where an autoscaler says that it can be reached."""

from __future__ import annotations

import socket

import pytest

from gateway.autoscaler_process import own_address


@pytest.mark.parametrize(
    ("signals_url", "address"),
    [
        pytest.param("redis://127.0.0.1:6379/0", "127.0.0.1", id="signals on this machine"),
        pytest.param("redis://[::1]:6379/0", "::1", id="ipv6"),
        pytest.param("unix:///run/redis.sock", socket.gethostname(), id="a socket"),
        pytest.param("redis://no..host:1/0", socket.gethostname(), id="a name that is none"),
    ],
)
def test_an_autoscaler_on_all_addresses_names_one(signals_url: str, address: str) -> None:
    """The one by which it reaches what all have in common; else its name, which others may know."""
    assert own_address(signals_url) == address
