"""Answers' heads from memory: the same as read anew, for any values; and what the caller gets."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.proxy.headers import as_text, lines_for_caller
from gateway.proxy.splice.answer_cache import CUT, LENGTH_IS_CUT, AnswerHeads, SeenAnswer
from gateway.proxy.splice.answer_head import CHUNKED, UNTIL_EOF, AnswerFacts, NotHttp, analyse_answer

HOST = b"bob--hello.localhost:8010"
OK = b"HTTP/1.1 200 OK"
CUT_NAMES = [
    "Date", "Content-Length", "Set-Cookie", "ETag", "Last-Modified", "Expires", "Age", "Server-Timing",
    "Sec-WebSocket-Accept", "X-Request-ID", "X-Process-Time", "X-Response-Time", "X-Runtime",
]  # fmt: skip


def block(*lines: bytes, first: bytes = OK) -> bytes:
    """A head without its empty line."""
    return b"\r\n".join((first, *lines))


def text(*lines: bytes, first: bytes = OK) -> bytes:
    """A head for the caller."""
    return block(*lines, first=first) + b"\r\n"


def anew(data: bytes, host: bytes) -> tuple[AnswerFacts, bytes]:
    """The same without a cache, by the functions of both paths and nothing else."""
    facts = analyse_answer(data)
    lines = []
    for name, value in lines_for_caller(facts.headers, host):
        if name.lower() == b"content-length":
            if facts.status >= 200 and facts.status != 204:
                lines.append((name, b"%d" % facts.length))
        else:
            lines.append((name, value))
    if facts.status == 101 and facts.upgrade:
        lines += [(b"Connection", b"Upgrade"), (b"Upgrade", facts.upgrade)]
    return facts, b"HTTP/1.1 %d %b\r\n" % (facts.status, facts.reason) + as_text(lines)


def without_headers(facts: AnswerFacts) -> AnswerFacts:
    """For comparison: those in memory lack the values that were cut out."""
    return facts._replace(headers=[])


def check(heads: AnswerHeads, data: bytes, host: bytes) -> None:
    """*heads* says of *data* what is said without it, or refuses it likewise."""
    try:
        facts, head = anew(data, host)
    except NotHttp as error:
        with pytest.raises(NotHttp, match=f"^{re.escape(str(error))}$"):
            heads.look(data, host)
        return
    seen = heads.look(data, host)
    assert seen.head == head
    assert without_headers(seen.facts._replace(length=seen.length)) == without_headers(facts)
    assert seen.facts.length in (facts.length, LENGTH_IS_CUT)
    assert [name for name, _ in seen.facts.headers] == [name for name, _ in facts.headers]
    for (_, mine), (_, whole) in zip(seen.facts.headers, facts.headers, strict=True):
        assert mine in (whole, CUT)


def test_the_same_head_is_read_once() -> None:
    """And known again, as an equal answer."""
    heads = AnswerHeads()
    data = block(b"Server: x", b"Date: Thu, 26 Nov 2026 04:54:53 GMT", b"Content-Length: 100")
    first, again = heads.look(data, HOST), heads.look(bytes(bytearray(data)), b"another.host")
    assert first == again == SeenAnswer(first.known, first.facts, 100, data + b"\r\n")
    assert (first.facts.status, first.facts.length, first.facts.keeps_alive) == (200, LENGTH_IS_CUT, True)
    assert (heads.hits, heads.misses, len(heads)) == (1, 1, 1)


@pytest.mark.parametrize("name", CUT_NAMES)
@pytest.mark.parametrize("spell", [str, str.lower, str.upper], ids=["as is", "small", "large"])
@pytest.mark.parametrize("is_last", [False, True], ids=["first", "last"])
def test_values_that_change_are_cut_out(name: str, spell: type[str], is_last: bool) -> None:
    """A new value is a hit all the same; it goes to its own caller, and none is kept."""
    line = spell(name).encode() + b":"
    heads = AnswerHeads()
    for value, length in ((b" 11", 11), (b" 11", 11), (b"222", 222), (b" \t3", 3), (b" 4444444444", 4444444444)):
        lines = [b"A: b", line + value] if is_last else [line + value, b"A: b"]
        seen = heads.look(block(*lines), HOST)
        told = line + b" " + value.strip()
        assert seen.head == text(*([b"A: b", told] if is_last else [told, b"A: b"]))
        assert seen.length == (length if name == "Content-Length" else UNTIL_EOF)
        assert seen.facts.headers[is_last] == (line[:-1], CUT)
    assert (heads.hits, heads.misses) == (4, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param([b"A: 1"], [b"A: 2"], id="another value"),
        pytest.param([b"A: 1"], [b"a: 1"], id="another spelling"),
        pytest.param([b"A: 1", b"B: 2"], [b"B: 2", b"A: 1"], id="another order"),
        pytest.param([b"Connection: close"], [b"Connection: keep-alive"], id="Connection"),
        pytest.param([b"Transfer-Encoding: chunked"], [b"Transfer-Encoding:chunked"], id="framing"),
        pytest.param([b"X-Date: 1"], [b"X-Date: 2"], id="X-Date"),
        pytest.param([b"Dates: 1"], [b"Dates: 2"], id="Dates"),
        pytest.param([b"Content_Length: 1"], [b"Content_Length: 2"], id="an underscore"),
        pytest.param([b"A: Date: 1"], [b"A: Date: 2"], id="a name as value"),
        pytest.param([b"Date: 1"], [b"Date: 1", b"Date: 1"], id="once, or twice"),
        pytest.param([b"Date: 1"], [b"Etag: 1"], id="another name"),
    ],
)
def test_other_differences_are_no_hits(one: list[bytes], other: list[bytes]) -> None:
    """What is not cut out tells answers apart."""
    heads = AnswerHeads()
    for lines in (one, other, one, other):
        check(heads, block(*lines), HOST)
    assert (heads.hits, heads.misses) == (2, 2)


@pytest.mark.parametrize(
    "value",
    [
        b"5\x00", b"\x005", b"5\r", b"5\n", b"5\nX: y", b"5\rX: y", b"\r5", b"\x7f", b"5\x0b", b"5\r\n x",
        b"5\r\r\nA: b",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", CUT_NAMES)
def test_what_is_cut_out_is_checked_on_each_hit(name: str, value: bytes) -> None:
    """A known head with a value that may not stand there is refused as though it were new."""
    heads = AnswerHeads()
    line = name.encode() + b": "
    heads.look(block(b"A: b", line + b"1", b"C: d"), HOST)
    heads.look(block(b"A: b", line + b"1"), HOST)
    for data in (block(b"A: b", line + value, b"C: d"), block(b"A: b", line + value)):
        with pytest.raises(NotHttp):
            heads.look(data, HOST)
    assert (heads.hits, len(heads)) == (0, 2)


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1,1", b"1 1", b"x", b"0x1", b"1" * 19, b"\xb2", b"1;", b"1\t2"])
def test_a_length_is_a_number_on_each_hit(value: bytes) -> None:
    """However often a good one has come before."""
    heads = AnswerHeads()
    for good in (b"1", b"2", b"007", b"0"):
        heads.look(block(b"A: b", b"Content-Length: " + good), HOST)
    with pytest.raises(NotHttp):
        heads.look(block(b"A: b", b"Content-Length: " + value), HOST)
    for extra in (b"Content-Length: 1", b"Transfer-Encoding: chunked"):
        with pytest.raises(NotHttp):
            heads.look(block(b"A: b", b"Content-Length: 1", extra), HOST)
    assert (heads.hits, len(heads)) == (3, 1)


def test_a_length_is_said_in_one_way() -> None:
    """Without zeros before it: there are readers who take them for octal."""
    heads = AnswerHeads()
    for said, meant in ((b"010", b"10"), (b"000", b"0"), (b"0", b"0"), (b"10", b"10")):
        seen = heads.look(block(b"Content-Length: " + said), HOST)
        assert seen.head == text(b"Content-Length: " + meant)
        assert seen.length == int(meant)


@pytest.mark.parametrize("is_known", [False, True], ids=["new", "known"])
@pytest.mark.parametrize(
    ("lines", "told"),
    [
        pytest.param([b"A:1", b"b:  2 ", b"A:1"], [b"A: 1", b"b: 2", b"A: 1"], id="order, duplicates, spelling"),
        pytest.param([b"Transfer-Encoding: chunked"], [], id="framing is the sender's"),
        pytest.param([b"Connection: keep-alive, X-A", b"Keep-Alive: timeout=5", b"X-A: 1"], [], id="hop by hop"),
        pytest.param(
            [b"TE: x", b"Trailer: x", b"Upgrade: h2c", b"Proxy-Connection: x", b"Proxy-Authenticate: x",
             b"Proxy-Authorization: x", b"Proxy-Authentication-Info: x"],
            [], id="more of these",
        ),
        pytest.param([b"Connection: Date, x-b", b"Date: 1", b"ETag: 2", b"X-B: 3"], [b"ETag: 2"], id="a cut one named"),
        pytest.param([b"Connection: content-length", b"Content-Length: 1"], [b"Content-Length: 1"], id="never these"),
        pytest.param([b"X-Actor-Request-ID: forged", b"A: b"], [b"A: b"], id="the request id is ours to say"),
        pytest.param(
            [b"Content-Encoding: gzip", b"Content-Length: 9"], [b"Content-Encoding: gzip", b"Content-Length: 9"],
            id="compressed",
        ),
        pytest.param([], [], id="nothing at all"),
    ],
)  # fmt: skip
def test_what_the_caller_gets(lines: list[bytes], told: list[bytes], is_known: bool) -> None:
    """The Actor's headers as they came, less what belongs to its connection."""
    heads = AnswerHeads()
    if is_known:
        heads.look(block(*lines), HOST)
    assert heads.look(block(*lines), HOST).head == text(*told)
    assert heads.hits == is_known


@pytest.mark.parametrize(
    ("first", "told"),
    [
        pytest.param(b"HTTP/1.0 200 OK", b"HTTP/1.1 200 OK", id="our own version"),
        pytest.param(b"HTTP/1.1 299", b"HTTP/1.1 299 ", id="the space stands without a reason too"),
        pytest.param(b"HTTP/1.1 404 100%b %d\xff", b"HTTP/1.1 404 100%b %d\xff", id="any reason"),
    ],
)
def test_status_lines(first: bytes, told: bytes) -> None:
    """Status and reason as the Actor said them."""
    heads = AnswerHeads()
    for _ in range(2):
        assert heads.look(block(b"A: %b", first=first), HOST).head == text(b"A: %b", first=told)


@pytest.mark.parametrize("status", [100, 103, 199, 204])
def test_what_has_no_body_has_no_length(status: int) -> None:
    """1xx and 204 say none, whatever the Actor says (RFC 9110 §8.6): a caller might wait for it."""
    heads = AnswerHeads()
    for length in (b"0", b"5"):
        first = b"HTTP/1.1 %d x" % status
        data = block(b"Content-Length: " + length, b"Date: 1", b"Link: </a>", first=first)
        assert heads.look(data, HOST).head == text(b"Date: 1", b"Link: </a>", first=first)
    assert heads.hits == 1


def test_what_a_304_would_have_had() -> None:
    """Its length stands in the head, for caches."""
    data = block(b"Content-Length: 5", b'ETag: "a"', first=b"HTTP/1.1 304 Not Modified")
    assert AnswerHeads().look(data, HOST).head == data + b"\r\n"


def test_switching_protocols() -> None:
    """A 101 passes with its Upgrade and the handshake untouched, each with its own key."""
    heads = AnswerHeads()
    first = b"HTTP/1.1 101 Switching Protocols"
    for key in (b"dGhlIHNhbXBsZSBub25jZQ==", b"b3RoZXI="):
        lines = [
            b"Sec-WebSocket-Accept: " + key,
            b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover",
            b"Sec-WebSocket-Protocol: chat",
        ]
        came = [b"Upgrade: WebSocket", b"Connection: X-A, Upgrade", b"X-A: 1", *lines, b"Content-Length: 0"]
        seen = heads.look(block(*came, first=first), HOST)
        assert seen.facts.upgrade == b"websocket"
        assert seen.head == text(*lines, b"Connection: Upgrade", b"Upgrade: websocket", first=first)
    assert heads.hits == 1


@pytest.mark.parametrize(
    ("cookie", "host", "told"),
    [
        pytest.param(b"a=1; Path=/", HOST, b"a=1; Path=/", id="no domain"),
        pytest.param(b"a=1; Domain=localhost; Path=/", HOST, b"a=1; Path=/", id="a wider one"),
        pytest.param(b"a; Domain=bob--hello.localhost", HOST, b"a; Domain=bob--hello.localhost", id="the very host"),
        pytest.param(b"a=1; Domain=bob--hello.localhost", b"x.localhost", b"a=1", id="another host"),
        pytest.param(
            b"a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT; DOMAIN=.localhost; Secure", HOST,
            b"a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Secure", id="a comma in a date",
        ),
    ],
)  # fmt: skip
def test_cookies_are_kept_to_the_host_that_was_asked(cookie: bytes, host: bytes, told: bytes) -> None:
    """Each of several, also where the head is known from another host; nothing of them is remembered."""
    heads = AnswerHeads()
    heads.look(block(b"Set-Cookie: first=x; Domain=other.host", b"set-cookie:secret"), b"other.host")
    seen = heads.look(block(b"Set-Cookie: " + cookie, b"set-cookie: b=2; domain=localhost"), host)
    assert heads.hits == 1
    assert seen.head == text(b"Set-Cookie: " + told, b"set-cookie: b=2")
    assert "secret" not in repr(heads._known)


def test_it_is_bounded() -> None:
    """Dropped whole when it is full; a long head is read each time, whatever is cut out of it."""
    heads = AnswerHeads(max_entries=3, max_block_bytes=64)
    for number in range(3):
        heads.look(block(b"A: %d" % number), HOST)
    assert len(heads) == 3
    heads.look(block(b"A: 3"), HOST)
    assert len(heads) == 1
    for _ in range(2):
        seen = heads.look(block(b"B: " + b"b" * 50, b"Date: 1"), HOST)
        assert seen.head == text(b"B: " + b"b" * 50, b"Date: 1")
    assert (len(heads), heads.hits, heads.misses) == (1, 0, 6)
    heads.look(block(b"Set-Cookie: " + b"b" * 500), HOST)
    heads.look(block(b"Set-Cookie: " + b"b" * 5000), HOST)
    assert (len(heads), heads.hits, heads.misses) == (2, 1, 7)
    heads.clear()
    assert (len(heads), heads.hits, heads.misses) == (0, 1, 7)


def test_it_is_bounded_in_bytes() -> None:
    """A few long heads count as much as many short ones; what was dropped is read again."""
    first, second, third = (block(b"A: %d" % number, b"B: " + b"b" * 50) for number in range(3))
    heads = AnswerHeads(max_bytes=2 * len(first))
    for data in (first, second, first, second):
        heads.look(data, HOST)
    assert (len(heads), heads.hits) == (2, 2)
    heads.look(third, HOST)
    assert len(heads) == 1
    heads.look(first, HOST)
    assert (len(heads), heads.hits, heads.misses) == (2, 2, 4)


def test_a_long_head_is_refused_though_it_is_known() -> None:
    """Values count in the limit of 64 KiB."""
    heads = AnswerHeads()
    heads.look(block(b"Set-Cookie: a"), HOST)
    with pytest.raises(NotHttp, match="65536 bytes"):
        heads.look(block(b"Set-Cookie: " + b"a" * 65536), HOST)


def test_what_is_refused_is_not_remembered() -> None:
    """Bad heads leave no trace but the count."""
    heads = AnswerHeads()
    for _ in range(3):
        with pytest.raises(NotHttp):
            heads.look(block(b"A : b"), HOST)
    assert (len(heads), heads.hits, heads.misses) == (0, 0, 3)


def test_a_hit_is_cheap() -> None:
    """A steady stand-in for its time: some calls, however many headers there are, and none for each of them."""
    heads = AnswerHeads()
    lines = [b"X-%d: y" % number for number in range(60)]
    blocks = [block(*lines, b"Date: %d" % number, b"Content-Length: %d" % number) for number in (1, 2)]
    heads.look(blocks[0], HOST)
    calls: list[str] = []
    sys.setprofile(lambda _frame, event, _arg: calls.append(event) if event in ("call", "c_call") else None)
    try:
        heads.look(blocks[1], HOST)
    finally:
        sys.setprofile(None)
    assert heads.hits == 1
    assert len(calls) <= 12


_STATUSES = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 204 x", b"HTTP/1.0 404", b"HTTP/1.1 304 x", b"HTTP/1.1 101 x"]
)
_NAMES = st.sampled_from(
    [name.encode() for name in CUT_NAMES]
    + [
        b"date",
        b"content-length",
        b"CONTENT-LENGTH",
        b"set-cookie",
        b"Connection",
        b"Transfer-Encoding",
        b"Upgrade",
        b"A",
    ]
)
_VALUES = st.sampled_from(
    [
        b" 1", b" 1 ", b"", b"  ", b"\t2\t", b" 007", b" chunked", b" close", b" date, x-request-id", b" set-cookie",
        b" a=1; Domain=localhost", b" a=1; domain=bob--hello.localhost", b" upgrade", b" websocket", b" \xff", b" a b",
        b" x\x00", b" x\r", b" x\n", b" x\nDate: y", b" x\r\nDate: y", b" x\r\n y", b" content-length",
    ]
) | st.binary(max_size=6)  # fmt: skip
_LINES = st.builds(lambda name, value: name + b":" + value, _NAMES, _VALUES) | st.binary(max_size=12)
_BLOCKS = st.builds(lambda first, lines: block(*lines, first=first), _STATUSES, st.lists(_LINES, max_size=5))
_HOSTS = st.sampled_from([HOST, b"localhost", b""])


@given(st.lists(st.tuples(_BLOCKS, _HOSTS), min_size=1, max_size=8))
@example([(block(b"Date: 1\nDate: 2"), HOST)] * 2)
@example([(block(b"Content-Length: 1", b"Content-Length: 1"), HOST)] * 2)
@example([(block(b"Content-Length:  0012  ", b"Connection: content-length, date", b"Date:"), HOST)] * 2)
@example([(block(b"Set-Cookie: x; Domain=localhost", b"Set-Cookie:", b"Connection: set-cookie"), HOST)] * 2)
def test_memory_changes_nothing(asked: list[tuple[bytes, bytes]]) -> None:
    """Whatever came before, an answer is read and written as it is without a memory; and so it is the second time."""
    heads = AnswerHeads()
    for data, host in asked + asked:
        check(heads, data, host)


@given(_BLOCKS, st.integers(0, 200), st.binary(max_size=3), st.integers(0, 3))
def test_a_changed_byte_changes_nothing(data: bytes, at: int, new: bytes, gone: int) -> None:
    """A head that differs from a known one at any place is read as it would be alone."""
    heads = AnswerHeads()
    check(heads, data, HOST)
    check(heads, data[:at] + new + data[at + gone :], HOST)


def test_chunks_are_told() -> None:
    """Who asks how the body is framed learns it from memory too."""
    heads = AnswerHeads()
    for _ in range(2):
        assert heads.look(block(b"Transfer-Encoding: chunked", b"Date: 1"), HOST).length == CHUNKED
