"""Request lines: exactly one form of each, and one host."""

from __future__ import annotations

import contextlib

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import (
    GreenroomError,
    HttpVersionNotSupported,
    InvalidRequest,
    MethodNotAllowed,
    TargetTooLong,
)
from gateway.proxy.splice.request_line import MAX_TARGET_BYTES, RequestLine, agreed_host, parse_line


def parsed(line: bytes) -> RequestLine:
    """*line* as it is read in the middle of other bytes."""
    return parse_line(b"\r\n" + line + b"\r\nHost: a", 2, 2 + len(line))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(b"GET / HTTP/1.1", RequestLine(b"GET", b"/", 1), id="the plainest"),
        pytest.param(b"POST /a?b=c HTTP/1.0", RequestLine(b"POST", b"/a?b=c", 0), id="HTTP/1.0"),
        pytest.param(b"M-SEARCH /?? HTTP/1.1", RequestLine(b"M-SEARCH", b"/??", 1), id="a rare method"),
        pytest.param(b"X" * 32 + b" / HTTP/1.1", RequestLine(b"X" * 32, b"/", 1), id="a long method"),
        pytest.param(
            b"GET //a/../%2F%00/;x?{\"a\":'b'}|\\^`<>[] HTTP/1.1",
            RequestLine(b"GET", b"//a/../%2F%00/;x?{\"a\":'b'}|\\^`<>[]", 1),
            id="byte for byte",
        ),
        pytest.param(b"GET /\xe4 HTTP/1.1", RequestLine(b"GET", b"/\xe4", 1), id="outside of ASCII, as curl does"),
        pytest.param(b"GET /http://b/ HTTP/1.1", RequestLine(b"GET", b"/http://b/", 1), id="an address in the path"),
        pytest.param(b"OPTIONS * HTTP/1.1", RequestLine(b"OPTIONS", b"*", 1), id="the server itself"),
        pytest.param(b"GET http://a HTTP/1.1", RequestLine(b"GET", b"/", 1, b"a"), id="a whole address"),
        pytest.param(b"GET HTTPS://A.b:8/x HTTP/1.1", RequestLine(b"GET", b"/x", 1, b"A.b:8"), id="with port and path"),
        pytest.param(b"GET http://[::1]:8?x HTTP/1.0", RequestLine(b"GET", b"/?x", 0, b"[::1]:8"), id="only a query"),
        pytest.param(b"OPTIONS http://a HTTP/1.1", RequestLine(b"OPTIONS", b"*", 1, b"a"), id="OPTIONS of a host"),
        pytest.param(b"OPTIONS http://a/ HTTP/1.1", RequestLine(b"OPTIONS", b"/", 1, b"a"), id="OPTIONS of its root"),
        pytest.param(b"OPTIONS http://a? HTTP/1.1", RequestLine(b"OPTIONS", b"/?", 1, b"a"), id="OPTIONS of a query"),
    ],
)
def test_lines(line: bytes, expected: RequestLine) -> None:
    """What a request line says; whatever form its target has, the Actor gets a path or ``*``."""
    assert parsed(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"", b"GET", b"GET /", b"GET / ", b" GET / HTTP/1.1", b"GET  / HTTP/1.1", b"GET /  HTTP/1.1",
        b"GET / HTTP/1.1 ", b"GET\t/ HTTP/1.1", b"GET /\tHTTP/1.1", b"GET /a b HTTP/1.1", b"GET / HTTP/1.1\r",
        b"GET / http/1.1", b"GET / HTTP/1.10", b"GET / HTTP/11", b"GET / HTTP/1,1", b"GET / HTTPS/1.1", b"GET / HTTP/",
        b"get / HTTP/1.1", b"Get / HTTP/1.1", b"G\xc3\x89T / HTTP/1.1", b"GE;T / HTTP/1.1", b"X" * 33 + b" / HTTP/1.1",
        b"G\x00T / HTTP/1.1", b"\x16\x03\x01 / HTTP/1.1",
        b"GET /\n HTTP/1.1", b"GET /\x00 HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /a#b HTTP/1.1",
        b"GET a HTTP/1.1", b"GET ?a HTTP/1.1", b"GET a.example:80 HTTP/1.1", b"GET * HTTP/1.1", b"OPTIONS ** HTTP/1.1",
        b"GET ftp://a/ HTTP/1.1", b"GET http:/a/ HTTP/1.1", b"GET http:// HTTP/1.1", b"GET http:///x HTTP/1.1",
        b"GET http://u@a/ HTTP/1.1", b"GET http://u:p@a/ HTTP/1.1", b"GET http://a,b/ HTTP/1.1",
        b"GET http://a:x/ HTTP/1.1", b"GET http://a:123456/ HTTP/1.1", b"GET http://[::1/ HTTP/1.1",
        b"GET http://a%2eb/ HTTP/1.1", b"GET http://a\\b/ HTTP/1.1", b"GET http://" + b"a" * 256 + b"/ HTTP/1.1",
    ],
    ids=repr,
)  # fmt: skip
def test_malformed_lines(line: bytes) -> None:
    """A line of any other form is refused: spaces, letters, versions, targets and hosts that could mean two things."""
    with pytest.raises(InvalidRequest):
        parsed(line)


@pytest.mark.parametrize("version", [b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/3.0"])
def test_other_versions(version: bytes) -> None:
    """Well-formed, but not HTTP/1.0 or 1.1: 505."""
    with pytest.raises(HttpVersionNotSupported):
        parsed(b"GET / " + version)


@pytest.mark.parametrize("line", [b"CONNECT a:443 HTTP/1.1", b"CONNECT / HTTP/1.1", b"TRACE / HTTP/1.1"])
def test_methods_that_are_not_served(line: bytes) -> None:
    """Greenroom is no forward proxy and gives no echo: 405."""
    with pytest.raises(MethodNotAllowed):
        parsed(line)


def test_long_targets() -> None:
    """A target has a limit of its own, told from a head that is too large; so has a line that is no request line."""
    assert len(parsed(b"GET /%b HTTP/1.1" % (b"a" * (MAX_TARGET_BYTES - 1))).target) == MAX_TARGET_BYTES
    assert len(parsed(b"GET /%b HTTP/1.1" % (b"a" * (MAX_TARGET_BYTES - 20))).target) == MAX_TARGET_BYTES - 19
    for line in (b"GET /%b HTTP/1.1", b"GET http://a/%b HTTP/1.1", b"%b"):
        with pytest.raises(TargetTooLong):
            parsed(line.replace(b"%b", b"a" * (MAX_TARGET_BYTES + 100)))
    with pytest.raises(TargetTooLong):
        parsed(b"GET /%b HTTP/1.1" % (b"a" * MAX_TARGET_BYTES))


@pytest.mark.parametrize(
    ("authority", "host", "expected"),
    [
        pytest.param(b"", b"a.b:1", b"a.b:1", id="the header's"),
        pytest.param(b"", b"", b"", id="none in HTTP/1.0"),
        pytest.param(b"a.b:1", b"a.b:1", b"a.b:1", id="both the same"),
        pytest.param(b"A.b", b"a.B", b"a.B", id="in any case"),
        pytest.param(b"a.b", b"", b"a.b", id="only the target's"),
    ],
)
def test_agreed_host(authority: bytes, host: bytes, expected: bytes) -> None:
    """The one host that is asked for."""
    assert agreed_host(RequestLine(b"GET", b"/", 1, authority), host) == expected


@pytest.mark.parametrize(("authority", "host"), [(b"a", b"b"), (b"a", b"a:80"), (b"a:80", b"a"), (b"a.", b"a")])
def test_hosts_that_disagree(authority: bytes, host: bytes) -> None:
    """Who believes the target goes elsewhere than who believes the header, so nobody goes anywhere."""
    with pytest.raises(InvalidRequest):
        agreed_host(RequestLine(b"GET", b"/", 1, authority), host)


class _Theirs:
    """What httptools reads."""

    def __init__(self) -> None:
        self.url = b""

    def on_url(self, url: bytes) -> None:
        self.url += url


def read_by_httptools(line: bytes) -> tuple[bytes, bytes, str] | None:
    """Method, target and version as httptools understands them, or None where it refuses."""
    theirs = _Theirs()
    parser = httptools.HttpRequestParser(theirs)
    try:
        with contextlib.suppress(httptools.HttpParserUpgrade):
            parser.feed_data(line + b"\r\nHost: a\r\n\r\n")
    except httptools.HttpParserError:
        return None
    return parser.get_method(), theirs.url, parser.get_http_version()


_KNOWN_METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"PURGE", b"M-SEARCH", b"PROPFIND"]
_WORDS = st.one_of(
    st.sampled_from([*_KNOWN_METHODS, b"GE", b"get", b"CONNECT", b"/", b"*", b"/a?b", b"http://a", b"http://a:80/x"]),
    st.binary(max_size=6),
    st.binary(max_size=6).map(lambda tail: b"/" + tail),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/01.1", b"http/1.1"]),
)
_LINES = st.one_of(
    st.tuples(st.sampled_from(_KNOWN_METHODS), _WORDS, st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"])).map(b" ".join),
    st.lists(st.one_of(_WORDS, st.sampled_from([b" ", b"\t"])), max_size=7).map(b"".join),
    st.tuples(_WORDS, _WORDS, _WORDS).map(b" ".join),
)


@given(_LINES)
def test_never_laxer_than_httptools(line: bytes) -> None:
    """
    What httptools refuses is refused, what is accepted is read in the same way.

    But for two things. Its methods are a fixed list; ours may be any word in capital letters (RFC 9110 §9.1). Targets
    may hold bytes outside of ASCII here: some clients send them, other proxies pass them, and they end nothing.
    """
    if b"\r" in line or b"\n" in line:
        with pytest.raises(GreenroomError):
            parsed(line)
        return
    try:
        ours = parsed(line)
    except GreenroomError:
        return
    if ours.method not in _KNOWN_METHODS or not line.isascii():
        return
    theirs = read_by_httptools(line)
    assert theirs is not None
    method, target, version = theirs
    assert (method, version) == (ours.method, f"1.{ours.minor}")
    assert target == ours.target or (ours.authority and ours.authority in target and target.count(b"://") == 1)


def outcome(data: bytes, start: int, end: int) -> RequestLine | int:
    """The line, or the status of the refusal."""
    try:
        return parse_line(data, start, end)
    except GreenroomError as error:
        return error.http_status


@given(st.one_of(_LINES, st.binary(max_size=60)), st.integers(0, 9), st.integers(0, 9))
def test_nothing_but_errors_of_ours(data: bytes, start: int, cut: int) -> None:
    """Whatever the bytes: one line with nothing in it that could end it, or a typed error."""
    found = outcome(data, start, len(data) - cut)
    if isinstance(found, RequestLine):
        again = b"%b %b HTTP/1.%d" % (found.method, found.target, found.minor)
        assert parsed(again) == found._replace(authority=b"")
    else:
        assert found in (400, 405, 414, 505)
