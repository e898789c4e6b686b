"""Every address that Greenroom prints, stores or hands to an Actor."""

from __future__ import annotations

import pytest

from gateway.urls import Urls

LOCAL = Urls(scheme="http", domain="localhost", port=8010, local_port=8010)
PUBLIC = Urls(scheme="https", domain="actors.example.com", port=443, local_port=8010)


@pytest.mark.parametrize(
    ("scheme", "port", "expected"),
    [
        pytest.param("http", 8010, "http://host:8010", id="a port of its own"),
        pytest.param("http", 80, "http://host", id="the scheme's usual port is left out"),
        pytest.param("https", 443, "https://host", id="also of https"),
        pytest.param("http", 443, "http://host:443", id="but not the other scheme's"),
        pytest.param("https", 80, "https://host:80", id="nor here"),
    ],
)
def test_the_port(scheme: str, port: int, expected: str) -> None:
    """With the port where it is not the scheme's own."""
    assert Urls(scheme=scheme, domain="localhost", port=port, local_port=1).of_host("host") == expected


def test_the_hosts() -> None:
    """As design §8 fixes them; without a slash at the end."""
    assert LOCAL.standby("bob--hello") == "http://bob--hello.localhost:8010"
    assert LOCAL.standby("92C4oi4FPzy7RPrLf") == "http://92c4oi4fpzy7rprlf.localhost:8010"
    assert LOCAL.live_view("label") == "http://label.runs.localhost:8010"
    assert LOCAL.public == "http://localhost:8010"
    assert PUBLIC.standby("bob--hello") == "https://bob--hello.actors.example.com"
    assert PUBLIC.live_view("label") == "https://label.runs.actors.example.com"
    assert PUBLIC.public == "https://actors.example.com"


def test_what_runs_on_this_machine_use() -> None:
    """Loopback by number: a run can't resolve ``*.localhost`` everywhere, and never leaves the machine."""
    assert PUBLIC.local == "http://127.0.0.1:8010"
    assert PUBLIC.events("run", "secret") == "ws://127.0.0.1:8010/events/run/secret"
