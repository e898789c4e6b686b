"""Addresses of DNS servers in the settings."""

from __future__ import annotations

import pytest

from gateway.dns_servers import dns_server


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("9.9.9.9", ("9.9.9.9", 53), id="IPv4"),
        pytest.param("127.0.0.1:5353", ("127.0.0.1", 5353), id="IPv4 and port"),
        pytest.param("2620:fe::fe", ("2620:fe::fe", 53), id="IPv6"),
        pytest.param("[2620:FE::fe]", ("2620:fe::fe", 53), id="IPv6 in brackets"),
        pytest.param("[::1]:5353", ("::1", 5353), id="IPv6 and port"),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    """The usual port where none is named."""
    assert dns_server(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "dns.example", "9.9.9", "9.9.9.9:", "9.9.9.9:0", "9.9.9.9:65536", "[9.9.9.9", "::1:x", "[::1]:0", "9.9.9.9 "],
)
def test_what_is_none(text: str) -> None:
    """Told with an example."""
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:5353"):
        dns_server(text)
