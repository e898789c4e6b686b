"""Request heads from memory: the same as analysed anew, for any values; and what the Actor gets."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import chain, zip_longest

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import GreenroomError, HeadTooLarge, InvalidRequest
from gateway.core.model import Address
from gateway.proxy.headers import CHUNKED, credentials_of, upstream_head
from gateway.proxy.plan import Credentials, ForwardPlan, Headers
from gateway.proxy.splice.request_cache import (
    CUT,
    RequestHeads,
    Seen,
    actor_segments,
    query_tokens,
    target_for_actor,
)
from gateway.proxy.splice.request_head import LENGTH_IS_CUT, HeadLimits, RequestHead, analyse

PLAN = ForwardPlan(
    address=Address(host="127.0.0.1", port=4321),
    request_id="fresh",
    credentials=Credentials(),
    client_host="192.0.2.7",
    proxies=("10.0.0.1",),
    scheme="https",
    host="a:8010",
)
OURS = (
    b"X-Forwarded-For: 192.0.2.7, 10.0.0.1\r\nX-Forwarded-Host: a:8010\r\nX-Forwarded-Proto: https\r\n"
    b'Forwarded: for=192.0.2.7;host="a:8010";proto=https, for=10.0.0.1\r\nVia: 1.1 greenroom\r\n'
)
CUT_NAMES = [
    "Content-Length", "Cookie", "traceparent", "tracestate", "baggage", "sentry-trace", "If-None-Match",
    "If-Modified-Since", "If-Range", "Range", "Idempotency-Key", "Last-Event-ID", "Sec-WebSocket-Key", "X-Request-ID",
    "X-Correlation-ID", "X-Request-Start", "X-Amzn-Trace-ID", "X-Cloud-Trace-Context", "X-B3-TraceId", "X-B3-SpanId",
    "X-B3-ParentSpanId",
]  # fmt: skip


def block(*lines: bytes) -> bytes:
    """A block of a Host and *lines*."""
    return b"\r\n".join((b"Host: a", *lines))


def whole(seen: Seen) -> Headers:
    """The headers of a request with its values back in their places."""
    values = iter(seen.values)
    headers = [(name, next(values) if value == CUT else value) for name, value in seen.head.headers]
    assert list(values) == []
    return headers


def for_actor(seen: Seen, plan: ForwardPlan = PLAN) -> bytes:
    """What the Actor gets between the request line and the request id."""
    segments = actor_segments(seen.head, plan)
    assert len(segments) == len(seen.values) + 1
    return b"".join(chain.from_iterable(zip_longest(segments, seen.values, fillvalue=b"")))


def test_the_same_block_is_analysed_once() -> None:
    """And known again as the same head; the version of HTTP is a part of it."""
    heads = RequestHeads()
    first, again = heads.look(block(b"A: b"), 1), heads.look(bytes(bytearray(block(b"A: b"))), 1)
    assert again.head is first.head
    assert (first.values, first.length) == (again.values, again.length) == ((), None)
    assert (heads.hits, heads.misses, len(heads)) == (1, 1, 1)
    old = heads.look(block(b"A: b"), 0)
    assert old.head is not first.head
    assert (old.head.minor, heads.hits, heads.misses) == (0, 1, 2)


@pytest.mark.parametrize("name", CUT_NAMES)
@pytest.mark.parametrize("lower", [False, True], ids=["as is", "small"])
def test_values_that_change_are_cut_out(name: str, lower: bool) -> None:
    """A new value is a hit all the same, and never that of another request."""
    line = (name.lower() if lower else name).encode() + b": "
    heads = RequestHeads()
    first, second = heads.look(block(b"A: b", line + b"11"), 1), heads.look(block(b"A: b", line + b" 222"), 1)
    assert second.head is first.head
    assert (first.values, second.values) == ((b"11",), (b"222",))
    assert first.head.headers[2] == (line[:-2], CUT)
    assert first.head.lowered[2] == (line[:-2].lower(), CUT)
    is_length = name == "Content-Length"
    assert (first.length, second.length) == ((11, 222) if is_length else (None, None))
    assert first.head.length == (LENGTH_IS_CUT if is_length else None)


def test_a_hit_is_cheap() -> None:
    """A steady stand-in for its time: ten calls, however many headers there are, and none for each of them."""
    heads = RequestHeads()
    lines = [b"X-%d: y" % number for number in range(60)]
    blocks = [block(*lines, b"Cookie: a=%d" % number, b"Content-Length: %d" % number) for number in (1, 2)]
    heads.look(blocks[0], 1)
    calls: list[str] = []
    sys.setprofile(lambda _frame, event, _arg: calls.append(event) if event in ("call", "c_call") else None)
    try:
        heads.look(blocks[1], 1)
    finally:
        sys.setprofile(None)
    assert heads.hits == 1
    assert len(calls) <= 10


def test_other_values_are_not() -> None:
    """What routes, admits or frames a request differs by more than a value."""
    heads = RequestHeads()
    for line in (
        b"Authorization: Bearer a", b"Authorization: Bearer b", b"Origin: a", b"Origin: b", b"Connection: close",
        b"Connection: keep-alive", b"X-Forwarded-For: 1", b"X-Forwarded-For: 2", b"Content-Lengths: 1",
        b"Content-Lengths: 2",
        b"Cookies: 1", b"Cookies: 2", b"X-Cookie: 1", b"X-Cookie: 2", b"Content_Length: 1", b"Content_Length: 2",
    ):  # fmt: skip
        heads.look(block(line), 1)
    assert heads.hits == 0


@pytest.mark.parametrize("name", CUT_NAMES)
@pytest.mark.parametrize(
    "bad",
    [b"\x00", b"\x1f", b"\x7f", b"1\r", b"1\n", b"\n1", b"1\x00", b"1\x001", b"1\r1", b"1\x7f1", b"1\n1", b"1\r\n 2"],
)
def test_a_value_is_checked_on_each_hit(name: str, bad: bytes) -> None:
    """However well its block is known, a value with a control character or a line break is refused."""
    heads = RequestHeads()
    line = name.encode() + b": "
    for ending in ([], [b"Z: z"]):
        heads.look(block(line + b"1", *ending), 1)
        heads.look(block(line, *ending) if name != "Content-Length" else block(line + b"2", *ending), 1)
        with pytest.raises(InvalidRequest):
            heads.look(block(line + bad, *ending), 1)
    assert (heads.hits, len(heads)) == (2, 2)


@pytest.mark.parametrize("length", [b"", b"+1", b"-1", b"1,1", b"1 1", b"0x1", b"1_0", b"\xb2", b"1;", b"9" * 19])
def test_a_length_is_checked_on_each_hit(length: bytes) -> None:
    """It is a fact about this request's body, so it is read anew each time."""
    heads = RequestHeads()
    heads.look(block(b"Content-Length: 1"), 1)
    for ending in ([], [b"Z: z"]):
        with pytest.raises(InvalidRequest):
            heads.look(block(b"Content-Length: " + length, *ending), 1)
    assert heads.look(block(b"Content-Length: " + b"9" * 18), 1).length == 10**18 - 1


def test_two_lengths_are_not_two_values() -> None:
    """One that was cut does not hide the other."""
    heads = RequestHeads()
    heads.look(block(b"Content-Length: 1", b"A: b"), 1)
    for lines in ([b"Content-Length: 1", b"Content-Length: 1"], [b"Content-Length: 1", b"Transfer-Encoding: chunked"]):
        with pytest.raises(InvalidRequest):
            heads.look(block(*lines), 1)
        with pytest.raises(InvalidRequest):
            heads.look(b"\r\n".join([*lines, b"Host: a"]), 1)


def test_facts_that_hang_on_a_value() -> None:
    """An upgrade has no body; so where a length decides whether there is one, nothing is remembered."""
    heads = RequestHeads()
    lines = [b"Connection: Upgrade", b"Upgrade: websocket"]
    for length, upgrade in ((0, b"websocket"), (5, None), (0, b"websocket")):
        seen = heads.look(block(*lines, b"Content-Length: %d" % length), 1)
        assert (seen.length, seen.head.length, seen.head.upgrade, seen.values) == (length, length, upgrade, ())
    assert len(heads) == 0
    assert (
        heads.look(block(*lines, b"Sec-WebSocket-Key: a"), 1).head
        is heads.look(block(*lines, b"Sec-WebSocket-Key: b"), 1).head
    )


def test_values_of_headers_that_connection_names() -> None:
    """They go to nobody, so there is no place for them."""
    heads = RequestHeads()
    seen = heads.look(block(b"Connection: cookie, traceparent", b"Cookie: a=1", b"traceparent: x"), 1)
    assert (seen.values, len(heads)) == ((), 0)
    assert for_actor(seen) == b"Host: a\r\n" + OURS


def test_it_is_bounded() -> None:
    """Dropped whole when full; what is long is never kept, unless its values make it long; too long is refused."""
    heads = RequestHeads(limits=HeadLimits(max_bytes=1000, max_headers=4), max_entries=3, max_block_bytes=100)
    for number in range(4):
        heads.look(block(b"A: %d" % number), 1)
        assert len(heads) == (number + 1 if number < 3 else 1)
    heads.clear()
    long = heads.look(block(b"A: " + b"a" * 100, b"Cookie: a"), 1)
    assert (len(heads), long.values) == (0, ())
    for size in (900, 1):
        assert heads.look(block(b"Cookie: " + b"a" * size), 1).values == (b"a" * size,)
    assert len(heads) == 1
    full = RequestHeads(max_total_bytes=500)
    for number in range(100):
        full.look(block(b"A: %060d" % number), 1)
        assert len(full) == number % 3 + 1
    for lines in ([b"Cookie: " + b"a" * 1000], [b"A: b"] * 4):
        with pytest.raises(HeadTooLarge):
            heads.look(block(*lines), 1)
    assert (heads.hits, heads.misses) == (1, 6)


def test_refusals_are_not_remembered() -> None:
    """Bad blocks take no room."""
    heads = RequestHeads()
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            heads.look(b"A: b", 1)
    assert (len(heads), heads.hits, heads.misses) == (0, 0, 0)


def test_nothing_of_it_is_shown() -> None:
    """It holds tokens."""
    heads = RequestHeads()
    seen = heads.look(block(b"Authorization: Bearer secret", b"Cookie: secret"), 1)
    assert "secret" not in repr(heads) + repr(seen.head)


_NAMES = st.sampled_from([b"Cookie", b"cookie", b"traceparent", b"Content-Length", b"content-length", b"X-Request-ID"])
_SPACES = st.sampled_from([b"", b" ", b"  ", b"\t", b" \t "])
_VALUES = st.one_of(
    st.sampled_from(
        [b"1", b"22", b"0", b"007", b"", b"a b", b"\xe4", b"a\tb", b"9" * 18, b"9" * 19, b"1, 1", b"a;b=c"]
    ),
    st.sampled_from(
        [b"\x00", b"a\x00", b"\x7f", b"a\nb", b"a\r", b"\n", b"1\r\n1", b"1\r\nCookie: 1", b"1\x001", b"1\r1"]
    ),
)
_CUT_LINES = st.tuples(_NAMES, st.just(b":"), _SPACES, _VALUES, _SPACES).map(b"".join)
_OTHER_LINES = st.sampled_from(
    [
        b"A: b", b"Authorization: Bearer t", b"Connection: close", b"Connection: cookie, Upgrade",
        b"Upgrade: websocket", b"Transfer-Encoding: chunked",
        b"a_b: c", b"Referer: http://a/?token=t", b"Accept:", b"Accept: */*\x00",
    ]
)  # fmt: skip
_BLOCKS = st.lists(st.one_of(_CUT_LINES, _CUT_LINES, _OTHER_LINES), max_size=5).flatmap(
    lambda lines: st.sampled_from([b"Host: a", b"Host: b"]).flatmap(
        lambda host: st.integers(0, len(lines)).map(lambda at: b"\r\n".join([*lines[:at], host, *lines[at:]]))
    )
)


def outcome(found: RequestHead | Seen) -> tuple[object, ...]:
    """All that is stated of one request."""
    head = found.head if isinstance(found, Seen) else found
    headers = whole(found) if isinstance(found, Seen) else head.headers
    canonical = [
        (name, b"%d" % int(value)) if name.lower() == b"content-length" else (name, value) for name, value in headers
    ]
    return (
        head.minor, canonical, head.host, found.length, head.options, head.upgrade, head.expects_continue, head.tokens,
    )  # fmt: skip


@given(st.lists(st.tuples(_BLOCKS, st.sampled_from([0, 1])), min_size=1, max_size=8), st.integers(1, 4))
@example([(b"Host: a\r\nCookie: x\r\nA: b", 1), (b"Host: a\r\nCookie: \x00\r\nA: b", 1)], 4)
@example([(b"Host: a\r\nCookie: 1\r\nCookie: 2", 1), (b"Host: a\r\nCookie: 1\r\nCookie:", 1)], 4)
def test_memory_changes_nothing(blocks: list[tuple[bytes, int]], max_entries: int) -> None:
    """At the first look, the second and after others: the same facts or the same refusal as analysed anew."""
    heads = RequestHeads(max_entries=max_entries)
    for data, minor in [*blocks, *blocks, *reversed(blocks)]:
        try:
            expected = analyse(data, minor=minor)
        except GreenroomError as error:
            with pytest.raises(type(error)):
                heads.look(data, minor)
        else:
            assert outcome(heads.look(data, minor)) == outcome(expected)
        assert len(heads) <= max_entries


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("own", [set[str](), {"t"}], ids=["no token of ours", "our token"])
@given(data=_BLOCKS)
def test_both_paths_send_the_same(data: bytes, own: set[str], keeps: bool) -> None:
    """What the Actor gets is what the ASGI proxy sends it, whose server gives names in lower case."""
    heads = RequestHeads()
    try:
        seen = heads.look(data, 1)
    except GreenroomError:
        return
    if seen.head.upgrade is not None:
        return
    lowered = [(name.lower(), value) for name, value in whole(seen)]
    plan = replace(PLAN, credentials=credentials_of(lowered, b"", own), keep_credentials=keeps)
    expected = upstream_head("POST", b"/", b"", lowered, plan)
    for again in (seen, heads.look(data, 1)):
        sent = b"POST / HTTP/1.1\r\n" + for_actor(again, plan) + b"X-Actor-Request-ID: fresh\r\n\r\n"
        assert read_by_httptools(sent) == read_by_httptools(expected)
        assert sent.lower() == expected.lower()


def read_by_httptools(head: bytes) -> Headers:
    """What another parser makes of a head for the Actor."""
    headers: Headers = []

    class Theirs:
        def on_header(self, name: bytes, value: bytes) -> None:
            headers.append((name.lower(), value))

    parser = httptools.HttpRequestParser(Theirs())
    parser.feed_data(head)
    assert headers[-1] == (b"x-actor-request-id", b"fresh")
    return headers


def test_segments() -> None:
    """What the Actor gets: the lines as they came, values in their places, and ours after them."""
    heads = RequestHeads()
    lines = [b"cOOkie: c", b"Cookie: a=1", b"Accept:x", b"content-length:\t0012 ", b"Connection: close, B", b"B: gone"]
    seen = heads.look(block(*lines), 1)
    assert seen.length == 12
    assert for_actor(seen) == (b"Host: a\r\ncOOkie: c\r\nCookie: a=1\r\nAccept: x\r\ncontent-length: 12\r\n" + OURS)
    chunked = heads.look(block(b"Transfer-Encoding: Chunked"), 1)
    assert chunked.length == CHUNKED
    assert for_actor(chunked) == b"Host: a\r\nTransfer-Encoding: chunked\r\n" + OURS


def test_segments_follow_the_plan() -> None:
    """Nothing of one caller's plan stays for the next: credentials, addresses, host, scheme."""
    heads = RequestHeads()
    seen = heads.look(block(b"Authorization: Bearer t", b"Referer: /?token=t", b"Cookie: x"), 1)
    kept, gone = b"Authorization: Bearer t\r\nReferer: /?token=t\r\n", b"Referer: /\r\n"
    ours = Credentials(token="t", in_authorization=True)
    plans = [
        (PLAN, b"Authorization: Bearer t\r\n" + gone),
        (replace(PLAN, credentials=ours), gone),
        (replace(PLAN, credentials=ours, keep_credentials=True), kept),
        (replace(PLAN, keep_credentials=True), kept),
    ]
    for plan, own in [*plans, *plans]:
        assert for_actor(seen, plan) == b"Host: a\r\n" + own + b"Cookie: x\r\n" + OURS
    other = replace(PLAN, client_host="::1", proxies=(), scheme="http", host="b")
    assert for_actor(seen, other).endswith(
        b"X-Forwarded-For: ::1\r\nX-Forwarded-Host: b\r\nX-Forwarded-Proto: http\r\n"
        b'Forwarded: for="[::1]";host=b;proto=http\r\nVia: 1.1 greenroom\r\n'
    )


def test_segments_of_old_http() -> None:
    """HTTP/1.0 may leave Host out: the Actor gets the one that the plan has, for each request its own."""
    heads = RequestHeads()
    for host in ("a", "b"):
        seen = heads.look(b"A: b", 0)
        sent = for_actor(seen, replace(PLAN, host=host))
        assert sent.startswith(b"Host: %b\r\nA: b\r\n" % host.encode())
        assert sent.endswith(b"\r\nVia: 1.0 greenroom\r\n")


def test_segments_of_an_upgrade() -> None:
    """The upgrade is asked for anew, and the handshake of a WebSocket is left to the two ends."""
    heads = RequestHeads()
    handshake = [
        b"Sec-WebSocket-Key: k", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Extensions: permessage-deflate; x",
        b"Sec-WebSocket-Protocol: b, a",
    ]  # fmt: skip
    seen = heads.look(block(b"Upgrade: WebSocket", b"Connection: keep-alive, Upgrade", *handshake), 1)
    assert for_actor(seen) == (
        b"Host: a\r\n" + b"\r\n".join(handshake) + b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + OURS
    )
    ignored = heads.look(block(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: x"), 1)
    assert for_actor(ignored) == b"Host: a\r\n" + OURS


def test_a_plan_that_would_break_the_head() -> None:
    """A host or an address that can't stand in a header is refused, whoever let it come so far."""
    seen = RequestHeads().look(block(), 1)
    for plan in (replace(PLAN, host="a\r\nb: c"), replace(PLAN, client_host="\x00")):
        with pytest.raises(InvalidRequest):
            actor_segments(seen.head, plan)


@pytest.mark.parametrize(
    ("target", "expected", "tokens"),
    [
        pytest.param(b"/a?b=c", b"/a?b=c", (), id="no token"),
        pytest.param(b"*", b"*", (), id="no path"),
        pytest.param(b"/a?token=t", b"/a", ("t",), id="alone"),
        pytest.param(b"/a?b&token=t&c=%2F", b"/a?b&c=%2F", ("t",), id="among others"),
        pytest.param(b"/a?%74oken=t%20u&token=v", b"/a", ("t u", "v"), id="written otherwise"),
        pytest.param(b"/token=x?a=token", b"/token=x?a=token", (), id="look-alikes"),
        pytest.param(b"/%74?", b"/%74?", (), id="an empty query stays"),
        pytest.param(b"/a?b?token=t", b"/a?b?token=t", (), id="not a parameter"),
        pytest.param(b"/a?b=c?&token=t", b"/a?b=c?", ("t",), id="a question mark in a value"),
    ],
)
def test_targets(target: bytes, expected: bytes, tokens: tuple[str, ...]) -> None:
    """Tokens are found in the query and taken out of it; everything else stays byte for byte."""
    assert query_tokens(target) == tokens
    assert target_for_actor(target, keep_credentials=False) == expected
    assert target_for_actor(target, keep_credentials=True) == target
