"""Which addresses builds fetch from."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sources.addresses import is_public


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_is_public(address: str, public: bool) -> None:
    """Only what is of the internet, in whichever dress it comes."""
    assert is_public(address) is public


@given(st.ip_addresses(v=4))
def test_an_address_in_another_ones_dress_is_the_same(address: ipaddress.IPv4Address) -> None:
    """An IPv4 address within an IPv6 one counts as itself."""
    assert is_public(f"::ffff:{address}") is is_public(str(address))
    assert is_public(str(ipaddress.IPv6Address((0x2002 << 112) | (int(address) << 80)))) is is_public(str(address))
