"""Header blocks: what is refused, and what the others state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import CodingNotSupported, GreenroomError, HeadTooLarge, InvalidRequest, LoopDetected
from gateway.proxy.headers import CHUNKED, body_length, credentials_of
from gateway.proxy.plan import Headers
from gateway.proxy.preflight import is_preflight
from gateway.proxy.splice.request_head import HeadLimits, RequestHead, analyse


def head_of(*lines: bytes, minor: int = 1) -> RequestHead:
    """The facts of a block of *lines* after a Host."""
    return analyse(b"\r\n".join((b"Host: a", *lines)), minor=minor)


def test_headers_stay_as_they_came() -> None:
    """Names, order, duplicates and values, less the space around a value."""
    head = head_of(b"B:1", b"a:  x \t y\t ", b"b: 2", b"B:", b"C: \xe4:b")
    assert head.headers == [
        (b"Host", b"a"), (b"B", b"1"), (b"a", b"x \t y"), (b"b", b"2"), (b"B", b""), (b"C", b"\xe4:b"),
    ]  # fmt: skip
    assert head.lowered == [(name.lower(), value) for name, value in head.headers]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b" folded: 1"], id="a folded line"),
        pytest.param([b"A: b", b"\tc"], id="a line folded with a tab"),
        pytest.param([b"A : b"], id="a space before the colon"),
        pytest.param([b"A\t: b"], id="a tab before the colon"),
        pytest.param([b": b"], id="no name"),
        pytest.param([b"A"], id="no colon"),
        pytest.param([b""], id="an empty line"),
        pytest.param([b"A: b\nC: d"], id="a bare LF"),
        pytest.param([b"A: b\rC: d"], id="a bare CR"),
        pytest.param([b"A: b\r"], id="two CRs"),
        pytest.param([b"A\n: b"], id="an LF in a name"),
        pytest.param([b"A: b\x00"], id="a NUL in a value"),
        pytest.param([b"A\x00: b"], id="a NUL in a name"),
        pytest.param([b"A: \x0bb"], id="a vertical tab"),
        pytest.param([b"A: \x1b"], id="an escape"),
        pytest.param([b"A: b\x7f"], id="a DEL"),
        pytest.param([b"A\x80: b"], id="a name outside of ASCII"),
        pytest.param([b"A(b): c"], id="a delimiter in a name"),
        pytest.param([b"A B: c"], id="a space in a name"),
        pytest.param([b"GET / HTTP/1.1"], id="a request line"),
    ],
)
def test_malformed_blocks(lines: list[bytes]) -> None:
    """Whatever is not 'Name: value' on one line each, the first or another one; the refusal quotes nothing of it."""
    for block in ([b"Host: a", *lines], [b"Host: a", *lines, b"Secret: secret"], [*lines, b"Host: a"]):
        with pytest.raises(InvalidRequest, match=r"Header [1-3] of the request is malformed: ") as refusal:
            analyse(b"\r\n".join(block), minor=1)
        assert "secret" not in refusal.value.message


@pytest.mark.parametrize(
    "block", [b"\r\n", b"Host: a\r\n", b"\r\nHost: a", b"Host: a\r\n\r\nB: c", b"Host: a\n", b" ", b"\x00"], ids=repr
)
def test_line_breaks_around(block: bytes) -> None:
    """The line breaks around a block are not its own."""
    with pytest.raises(InvalidRequest):
        analyse(block, minor=1)


@pytest.mark.parametrize(
    ("block", "minor", "host"),
    [
        pytest.param(b"Host: a.b", 1, b"a.b", id="a name"),
        pytest.param(b"hOST:A.b:8010", 1, b"A.b:8010", id="a name and a port, its case as sent"),
        pytest.param(b"Host: a_b.c.", 1, b"a_b.c.", id="underscore and final dot"),
        pytest.param(b"Host: [::1]:80", 1, b"[::1]:80", id="an address"),
        pytest.param(b"Host: 127.0.0.1", 0, b"127.0.0.1", id="in HTTP/1.0"),
        pytest.param(b"", 0, b"", id="no header at all in HTTP/1.0"),
        pytest.param(b"Host_: b", 0, b"", id="another name"),
    ],
)
def test_host(block: bytes, minor: int, host: bytes) -> None:
    """The one host that is asked for."""
    assert analyse(block, minor=minor).host == host


@pytest.mark.parametrize(
    ("block", "minor"),
    [
        (b"", 1), (b"A: b", 1), (b"Host: a\r\nHost: b", 1), (b"Host: a\r\nhost: a", 1), (b"Host: a\r\nHost: a", 0),
        (b"Host:", 1), (b"Host:", 0), (b"Host: a b", 1), (b"Host: a,b", 1), (b"Host: u@a", 1), (b"Host: a/b", 1),
        (b"Host: a:b", 1), (b"Host: a:1:2", 1), (b"Host: a:123456", 1), (b"Host: [::1", 1), (b"Host: ::1", 1),
        (b"Host: a?b", 1), (b"Host: a#b", 1), (b"Host: a%00", 1), (b"Host: \xc3\xa4", 1), (b"Host: a\\b", 1),
        (b"Host: " + b"a" * 256, 1),
    ],
    ids=repr,
)  # fmt: skip
def test_no_host(block: bytes, minor: int) -> None:
    """None, several, or one that two servers could read in two ways."""
    with pytest.raises(InvalidRequest):
        analyse(block, minor=minor)


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        pytest.param([], None, id="none"),
        pytest.param([b"Content-Length: 0"], 0, id="an empty body"),
        pytest.param([b"content-LENGTH:12\t"], 12, id="a length"),
        pytest.param([b"Transfer-Encoding:  Chunked "], CHUNKED, id="chunked"),
        pytest.param([b"Content_Length: 9"], None, id="another name"),
        pytest.param([b"Content-Length: 3", b"Connection: content-length"], 3, id="Connection names it"),
    ],
)
def test_length(lines: list[bytes], length: int | None) -> None:
    """How the body is framed."""
    assert head_of(*lines).length == length


@pytest.mark.parametrize(
    ("lines", "minor"),
    [
        ([b"Content-Length: 1", b"Content-Length: 1"], 1), ([b"Content-Length: 1", b"content-length: 2"], 1),
        ([b"Content-Length: 1, 1"], 1), ([b"Content-Length: +1"], 1), ([b"Content-Length: -1"], 1),
        ([b"Content-Length: 0x1"], 1), ([b"Content-Length: 1_0"], 1), ([b"Content-Length: 1 0"], 1),
        ([b"Content-Length: 1.0"], 1), ([b"Content-Length:"], 1), ([b"Content-Length: \xb2"], 1),
        ([b"Content-Length: " + b"9" * 19], 1),
        ([b"Content-Length: 1", b"Transfer-Encoding: chunked"], 1), ([b"Transfer-Encoding: chunked"], 0),
        ([b"Transfer-Encoding: chunked\t"], 1), ([b"Transfer-Encoding:\tchunked"], 1),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 1), ([b"Transfer-Encoding: chunked,"], 1),
        ([b"Transfer-Encoding: , chunked"], 1), ([b"Transfer-Encoding:"], 1),
    ],
    ids=repr,
)  # fmt: skip
def test_ambiguous_framing(lines: list[bytes], minor: int) -> None:
    """Nothing that two servers could take for two lengths."""
    with pytest.raises(InvalidRequest):
        head_of(*lines, minor=minor)


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"chunked, gzip", b"identity", b"xchunked", b"chunked;q=1"])
def test_other_codings(coding: bytes) -> None:
    """Codings that we don't know: 501."""
    with pytest.raises(CodingNotSupported):
        head_of(b"Transfer-Encoding: " + coding)


def test_limits() -> None:
    """As many bytes and headers as allowed; one more of either is too large, whatever else is wrong."""
    limits = HeadLimits(max_bytes=100, max_headers=3)
    assert analyse(b"Host: a\r\nB: " + b"b" * 88, minor=1, limits=limits)
    assert analyse(b"Host: a\r\nB:\r\nC:", minor=1, limits=limits)
    for block in (b"Host: a\r\nB: " + b"b" * 89, b"Host: a\r\nB:\r\nC:\r\nD:", b"\x00" * 101, b"\r\n" * 3):
        with pytest.raises(HeadTooLarge):
            analyse(block, minor=1, limits=limits)
    assert HeadLimits() == HeadLimits(max_bytes=65536, max_headers=100)


def test_loops() -> None:
    """A request that has come through Greenroom again and again is refused."""
    assert head_of(*[b"Via: 1.1 greenroom"] * 10)
    with pytest.raises(LoopDetected):
        head_of(*[b"Via: 1.1 greenroom, 1.1 other"] * 11)


@pytest.mark.parametrize(
    ("lines", "closes", "keeps"),
    [
        pytest.param([], False, False, id="nothing said"),
        pytest.param([b"Connection: close"], True, False, id="close"),
        pytest.param([b"Connection: Keep-Alive, x"], False, True, id="keep-alive among others"),
        pytest.param([b"Connection: x", b"connection: ,\tCLOSE"], True, False, id="in a second header"),
        pytest.param([b"Connection: closed, x-close", b"X: close"], False, False, id="look-alikes"),
        pytest.param([b"Proxy-Connection: close"], False, False, id="not a header of HTTP"),
    ],
)
def test_what_connection_names(lines: list[bytes], closes: bool, keeps: bool) -> None:
    """Whether the connection is to end or to stay."""
    head = head_of(*lines)
    assert (head.wants_close, head.wants_keep_alive) == (closes, keeps)


@pytest.mark.parametrize(
    ("lines", "minor", "upgrade"),
    [
        pytest.param([b"Upgrade: WebSocket", b"Connection: Upgrade"], 1, b"websocket", id="WebSocket"),
        pytest.param([b"connection: keep-alive, UPGRADE", b"upgrade: a/2.0"], 1, b"a/2.0", id="another with a version"),
        pytest.param([b"Upgrade: h2c, websocket", b"Connection: Upgrade"], 1, b"websocket", id="HTTP/2 is passed over"),
        pytest.param([b"Upgrade: x", b"Connection: Upgrade", b"Content-Length: 0"], 1, b"x", id="an empty body"),
        pytest.param([b"Upgrade: websocket"], 1, None, id="Connection does not say so"),
        pytest.param([b"Connection: upgrade"], 1, None, id="to nothing"),
        pytest.param([b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings"], 1, None, id="HTTP/2"),
        pytest.param([b"Upgrade: HTTP/2.0", b"Connection: Upgrade"], 1, None, id="HTTP by its name"),
        pytest.param([b"Upgrade: a, b", b"Connection: Upgrade"], 1, None, id="a choice"),
        pytest.param([b"Upgrade: a", b"Upgrade: b", b"Connection: Upgrade"], 1, None, id="a choice in two headers"),
        pytest.param([b"Upgrade: a b", b"Connection: Upgrade"], 1, None, id="no protocol"),
        pytest.param([b"Upgrade: x", b"Connection: Upgrade", b"Content-Length: 1"], 1, None, id="with a body"),
        pytest.param([b"Upgrade: x", b"Connection: Upgrade", b"Transfer-Encoding: chunked"], 1, None, id="with chunks"),
        pytest.param([b"Upgrade: websocket", b"Connection: Upgrade"], 0, None, id="HTTP/1.0 has none"),
    ],
)
def test_upgrade(lines: list[bytes], minor: int, upgrade: bytes | None) -> None:
    """The protocol that the connection is to change to; whatever is not clear is served without."""
    assert head_of(*lines, minor=minor).upgrade == upgrade


@pytest.mark.parametrize(
    ("line", "minor", "expects"),
    [
        (b"Expect: 100-continue", 1, True),
        (b"expect: 100-Continue", 1, True),
        (b"Expect: 100-continue", 0, False),
        (b"Expect: x", 1, False),
        (b"A: 100-continue", 1, False),
    ],
)
def test_expect(line: bytes, minor: int, expects: bool) -> None:
    """Whether the caller waits for a 100 before the body; in HTTP/1.0 nobody does."""
    assert head_of(line, minor=minor).expects_continue is expects


def test_what_admission_looks_at() -> None:
    """Few headers say who asks, so few have to be looked through for each request."""
    lines = [
        b"Authorization: Bearer a", b"Accept: x", b"Origin: o", b"X-Forwarded-For: 1", b"x-forwarded-FOR: 2",
        b"Access-Control-Request-Method: GET", b"X-Forwarded-Proto: https", b"X-Apify-Authorization: Bearer b",
        b"Access-Control-Request-Headers: x", b"Cookie: a=1",
    ]  # fmt: skip
    head = head_of(*lines)
    assert head.telling == [header for header in head.lowered if header[0] not in (b"host", b"accept", b"cookie")]
    assert credentials_of(head.telling, b"", {"a"}) == credentials_of(head.headers, b"", {"a"})
    assert is_preflight("OPTIONS", head.telling)


def test_tokens_and_no_text_of_them() -> None:
    """The candidates are stated, most telling first, and appear in no log that shows the head."""
    head = head_of(b"X-Apify-Authorization: bearer b", b"Authorization: Bearer a", b"Cookie: token=c")
    assert head.tokens == ("a", "b")
    assert "Bearer" not in repr(head)


class _Theirs:
    """What httptools reads."""

    def __init__(self) -> None:
        self.headers: Headers = []
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.is_complete = True


def read_by_httptools(block: bytes, minor: int) -> Headers | None:
    """The headers as httptools understands them; None where it refuses them or waits for more."""
    theirs = _Theirs()
    parser = httptools.HttpRequestParser(theirs)
    try:
        with contextlib.suppress(httptools.HttpParserUpgrade):
            parser.feed_data(b"POST / HTTP/1.%d\r\n%b\r\n\r\n" % (minor, block))
    except httptools.HttpParserError:
        return None
    return theirs.headers if theirs.is_complete else None


_NAMES = st.sampled_from(
    [
        b"Host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"transfer-encoding", b"Connection",
        b"Upgrade", b"Cookie", b"traceparent", b"Expect", b"Via", b"A", b"a_b", b"Content_Length", b"", b" A", b"A ",
    ]
)  # fmt: skip
_VALUES = st.one_of(
    st.sampled_from(
        [
            b"a", b"a:80", b"1", b"0", b"007", b"+1", b"1, 1", b" 5 ", b"5\t", b"chunked", b"Chunked", b"chunked ",
            b"\tchunked", b"gzip, chunked", b"identity", b"close", b"upgrade", b"upgrade, content-length", b"websocket",
            b"100-continue", b"", b"9" * 18, b"9" * 20,
        ]
    ),
    st.binary(max_size=5),
)  # fmt: skip
_LINES = st.one_of(
    st.tuples(_NAMES, st.sampled_from([b":", b": ", b":\t", b" :"]), _VALUES).map(b"".join),
    st.just(b"Host: a"),
    st.just(b"Content-Length: 5"),
)
_GOOD_LINES = st.sampled_from(
    [
        b"A: b", b"a:", b"Cookie:  a=1; b=2 ", b"cookie: x", b"traceparent: 00-1-2-01", b"Connection: close",
        b"Connection: Upgrade, cookie", b"Upgrade: websocket", b"Expect: 100-continue", b"X: \xe4\tb", b"a_b: c",
        b"Authorization: Bearer t", b"Via: 1.1 x",
    ]
)  # fmt: skip
_FRAMING = st.sampled_from([[], [b"Content-Length: 5"], [b"content-length:\t007 "], [b"Transfer-Encoding: chunked"]])
_GOOD = st.tuples(st.lists(_GOOD_LINES, max_size=5), _FRAMING, st.lists(_GOOD_LINES, max_size=2))
BLOCKS = st.one_of(
    _GOOD.map(lambda parts: b"\r\n".join([*parts[0], *parts[1], b"Host: a", *parts[2]])),
    st.lists(_LINES, max_size=5).map(lambda lines: b"\r\n".join([b"Host: a", *lines])),
    st.tuples(st.lists(_LINES, max_size=4).map(b"\r\n".join), st.sampled_from([b"\n", b"\r", b"\x00", b"\r\n "])).map(
        b"".join
    ),
    st.binary(max_size=40),
)


def accepted(block: bytes, minor: int) -> Iterator[RequestHead]:
    """The head, if it is accepted."""
    with contextlib.suppress(GreenroomError):
        yield analyse(block, minor=minor)


@given(BLOCKS, st.sampled_from([0, 1]))
@example(b"Host: a\r\nTransfer-Encoding: chunked\t", 1)
def test_never_laxer_than_httptools(block: bytes, minor: int) -> None:
    """What httptools refuses is refused; what is accepted has the same headers to both, and one body."""
    for head in accepted(block, minor):
        theirs = read_by_httptools(block, minor)
        assert theirs is not None
        assert [(name, value.strip(b" \t")) for name, value in theirs] == head.headers
        assert body_length(theirs) == head.length


@given(BLOCKS, st.sampled_from([0, 1]))
def test_what_is_accepted_reads_as_it_is_written(block: bytes, minor: int) -> None:
    """Written anew from what was understood, a block says the same again."""
    for head in accepted(block, minor):
        again = analyse(b"\r\n".join(b"%b: %b" % header for header in head.headers), minor=minor)
        assert again.headers == head.headers
        assert (again.host, again.length, again.upgrade) == (head.host, head.length, head.upgrade)
        assert len(head.headers) == (block.count(b"\r\n") + 1 if block else 0)
