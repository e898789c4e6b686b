"""CORS preflights without a token."""

from __future__ import annotations

import pytest

from gateway.proxy.plan import Headers
from gateway.proxy.preflight import is_preflight, preflight_answer

ORIGIN = (b"origin", b"https://app.example")
METHOD = (b"access-control-request-method", b"PUT")
ASKED = (b"access-control-request-headers", b"authorization, x-custom")


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        pytest.param("OPTIONS", [ORIGIN, METHOD], True, id="a preflight"),
        pytest.param("OPTIONS", [METHOD, (b"accept", b"*/*"), ASKED, ORIGIN], True, id="in any order"),
        pytest.param("OPTIONS", [ORIGIN], False, id="an Actor's own OPTIONS with an origin"),
        pytest.param("OPTIONS", [METHOD], False, id="no origin"),
        pytest.param("OPTIONS", [], False, id="plain OPTIONS"),
        pytest.param("GET", [ORIGIN, METHOD], False, id="another method"),
        pytest.param("", [ORIGIN, METHOD], False, id="a WebSocket"),
    ],
)
def test_what_a_preflight_is(method: str, headers: Headers, expected: bool) -> None:
    """Only what browsers send before a request: everything else needs its token."""
    assert is_preflight(method, headers) is expected


def test_what_was_asked_for_is_allowed_by_echo() -> None:
    """Never a wildcard, which would not cover Authorization; and no cookies."""
    answer = dict(preflight_answer([ORIGIN, METHOD, ASKED]))
    assert answer[b"access-control-allow-origin"] == b"https://app.example"
    assert answer[b"access-control-allow-methods"] == b"PUT"
    assert answer[b"access-control-allow-headers"] == b"authorization, x-custom"
    assert b"Origin" in answer[b"vary"]
    assert b"access-control-allow-credentials" not in answer
    assert b"*" not in b"".join(answer.values())


def test_without_asked_headers_none_are_allowed() -> None:
    """A header that nobody asked for is not answered; of a repeated one the first counts."""
    answer = dict(preflight_answer([ORIGIN, METHOD, (b"origin", b"https://second.example")]))
    assert b"access-control-allow-headers" not in answer
    assert answer[b"access-control-allow-origin"] == b"https://app.example"
