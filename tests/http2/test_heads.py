"""Heads of HTTP/2 requests as heads of HTTP/1.1: in its form, and held to its rules."""

from __future__ import annotations

import pytest

from gateway.core.errors import GreenroomError
from gateway.http2.heads import plain_headers, refuse_bad_head
from gateway.proxy.plan import Headers
from gateway.proxy.splice.request_head import HeadLimits

HOST = (b"host", b"a.localhost")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([(b"a", b"1"), HOST], [HOST, (b"a", b"1")], id="the host comes first"),
        pytest.param(
            [(b"b", b"1"), (b"a", b"2"), (b"b", b"3"), HOST],
            [HOST, (b"b", b"1"), (b"a", b"2"), (b"b", b"3")],
            id="order and duplicates stay",
        ),
        pytest.param(
            [(b"a", b"1"), (b"cookie", b"a=1"), (b"b", b"2"), (b"cookie", b"b=2"), HOST],
            [HOST, (b"a", b"1"), (b"cookie", b"a=1; b=2"), (b"b", b"2")],
            id="cookies are put together, where the first stood",
        ),
        pytest.param([(b"cookie", b"a=1")], [(b"cookie", b"a=1")], id="one cookie, no host"),
        pytest.param([], [], id="nothing"),
    ],
)
def test_plain_headers(headers: Headers, expected: Headers) -> None:
    """What an HTTP/1.1 client would have sent."""
    assert plain_headers(headers) == expected


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        pytest.param(b"GET", b"/a?b=%20", [HOST], None, id="a usual one"),
        pytest.param(b"OPTIONS", b"*", [HOST], None, id="OPTIONS *"),
        pytest.param(b"GET", b"/", [HOST, (b"content-length", b"0")], None, id="an empty body"),
        pytest.param(b"GET", b"*", [HOST], 400, id="* without OPTIONS"),
        pytest.param(b"GET", b"/a b", [HOST], 400, id="a space in the path"),
        pytest.param(b"GET", b"/ HTTP/1.1\r\nx: y", [HOST], 400, id="a line break in the path"),
        pytest.param(b"GET", b"/a#b", [HOST], 400, id="a fragment"),
        pytest.param(b"GET", b"a", [HOST], 400, id="no slash"),
        pytest.param(b"GET", b"http://a.localhost/", [HOST], 400, id="a whole address"),
        pytest.param(b"GET", b"/" + b"a" * 40_000, [HOST], 414, id="too long a path"),
        pytest.param(b"get", b"/", [HOST], 400, id="a small method"),
        pytest.param(b"GET /x", b"/", [HOST], 400, id="a space in the method"),
        pytest.param(b"TRACE", b"/", [HOST], 405, id="TRACE"),
        pytest.param(b"CONNECT", b"/", [HOST], 405, id="CONNECT"),
        pytest.param(b"GET", b"/", [], 400, id="no host"),
        pytest.param(b"GET", b"/", [HOST, HOST], 400, id="two hosts"),
        pytest.param(b"GET", b"/", [(b"host", b"a@b")], 400, id="user info in the host"),
        pytest.param(b"GET", b"/", [(b"host", b"a/b")], 400, id="a path in the host"),
        pytest.param(b"GET", b"/", [HOST, (b"a:b", b"c")], 400, id="a colon in a name"),
        pytest.param(b"GET", b"/", [HOST, (b"", b"c")], 400, id="no name"),
        pytest.param(b"GET", b"/", [HOST, (b"a", b"b\rc")], 400, id="CR in a value"),
        pytest.param(b"GET", b"/", [HOST, (b"a", b"b\nc: d")], 400, id="LF in a value"),
        pytest.param(b"GET", b"/", [HOST, (b"a", b"b\0")], 400, id="NUL in a value"),
        pytest.param(b"GET", b"/", [HOST, (b"content-length", b"1")] * 2, 400, id="two lengths"),
        pytest.param(b"GET", b"/", [HOST, (b"content-length", b"+1")], 400, id="no length"),
        pytest.param(b"GET", b"/", [HOST, (b"content-length", b"1"), (b"content-length", b"1")], 400, id="twice"),
        pytest.param(b"GET", b"/", [HOST, (b"transfer-encoding", b"gzip")], 501, id="an unknown coding"),
        pytest.param(b"GET", b"/", [HOST, (b"via", b"1.1 greenroom, " * 11)], 508, id="round in a circle"),
        pytest.param(b"GET", b"/", [HOST, *[(b"a", b"b")] * 100], 431, id="too many headers"),
        pytest.param(b"GET", b"/", [HOST, (b"a", b"b" * 70_000)], 431, id="too many bytes"),
    ],
)
def test_heads_are_held_to_the_rules_of_http1(
    method: bytes, target: bytes, headers: Headers, status: int | None
) -> None:
    """The status is that of the same mistake over HTTP/1.1."""
    if status is None:
        refuse_bad_head(method, target, headers, HeadLimits())
        return
    with pytest.raises(GreenroomError) as caught:
        refuse_bad_head(method, target, headers, HeadLimits())
    assert caught.value.http_status == status
