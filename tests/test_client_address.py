"""Who the caller is, behind proxies that are trusted and before those that are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client_address import Client, client_of, network_problem

TRUSTED = ("10.0.0.0/8", "127.0.0.1", "fd00::/8")
STRANGER = "203.0.113.7"

Headers = list[tuple[bytes, bytes]]


def heard(*values: str) -> Headers:
    """``X-Forwarded-For`` headers."""
    return [(b"x-forwarded-for", value.encode()) for value in values]


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        pytest.param(STRANGER, heard("6.6.6.6"), Client(STRANGER, "http"), id="a stranger's word is not taken"),
        pytest.param("10.0.0.2", [], Client("10.0.0.2", "http"), id="a proxy that says nothing is the caller"),
        pytest.param(
            "10.0.0.2", heard(STRANGER), Client(STRANGER, "http", ("10.0.0.2",)), id="a proxy says who called it"
        ),
        pytest.param(
            "10.0.0.2",
            heard(f"6.6.6.6, {STRANGER},10.0.0.1"),
            Client(STRANGER, "http", ("10.0.0.1", "10.0.0.2")),
            id="what the client himself says is not believed",
        ),
        pytest.param(
            "10.0.0.2", heard("6.6.6.6", STRANGER), Client(STRANGER, "http", ("10.0.0.2",)), id="several headers"
        ),
        pytest.param(
            "10.0.0.2", heard("10.0.0.9"), Client("10.0.0.9", "http", ("10.0.0.2",)), id="a client within the network"
        ),
        pytest.param("10.0.0.2", heard(f"{STRANGER}, unknown"), Client("10.0.0.2", "http"), id="no address"),
        pytest.param("10.0.0.2", heard(""), Client("10.0.0.2", "http"), id="an empty header"),
        pytest.param("10.0.0.2", heard(f"{STRANGER}:4711"), Client(STRANGER, "http", ("10.0.0.2",)), id="with a port"),
        pytest.param(
            "fd00::1", heard("[2001:db8::7]:4711"), Client("2001:db8::7", "http", ("fd00::1",)), id="IPv6 with a port"
        ),
        pytest.param(
            "::ffff:10.0.0.2", heard(STRANGER), Client(STRANGER, "http", ("::ffff:10.0.0.2",)), id="IPv4 within IPv6"
        ),
        pytest.param("", heard(STRANGER), Client("", "http"), id="no peer, as at a Unix socket"),
        pytest.param(
            "127.0.0.1", [(b"x-forwarded-proto", b"https")], Client("127.0.0.1", "https"), id="a proxy says https"
        ),
        pytest.param(
            "127.0.0.1", [(b"x-forwarded-proto", b"http, WSS")], Client("127.0.0.1", "https"), id="the last one counts"
        ),
        pytest.param(
            "127.0.0.1", [(b"x-forwarded-proto", b"gopher")], Client("127.0.0.1", "http"), id="no scheme of ours"
        ),
        pytest.param(STRANGER, [(b"x-forwarded-proto", b"https")], Client(STRANGER, "http"), id="a stranger's scheme"),
    ],
)
def test_client_of(peer: str, headers: Headers, expected: Client) -> None:
    """The headers are believed from their end, as far as whoever added the next one is trusted."""
    assert client_of(peer, headers, trusted=TRUSTED, scheme="http") == expected


@given(st.text(), st.lists(st.binary()))
def test_nobody_is_believed_where_nobody_is_trusted(peer: str, values: list[bytes]) -> None:
    """Without the setting, no header changes who calls."""
    headers = [(name, value) for value in values for name in (b"x-forwarded-for", b"x-forwarded-proto")]
    assert client_of(peer, headers, trusted=(), scheme="https") == Client(peer, "https")


@given(st.lists(st.binary()))
def test_any_header_is_survived(values: list[bytes]) -> None:
    """Whatever a trusted proxy passes on, there is an answer, and its client is an address."""
    headers = [(name, value) for value in values for name in (b"x-forwarded-for", b"x-forwarded-proto")]
    client = client_of("10.0.0.2", headers, trusted=TRUSTED, scheme="http")
    assert network_problem(client.address) is None
    assert client.scheme in ("http", "https")


@pytest.mark.parametrize(
    ("text", "is_good"),
    [("10.0.0.1", True), ("10.0.0.1/8", True), ("fd00::/8", True), ("proxy.example", False), ("10.0.0.0/33", False)],
)
def test_network_problem(text: str, is_good: bool) -> None:
    """Addresses and networks are taken, names are not: they would have to be looked up."""
    assert (network_problem(text) is None) is is_good
