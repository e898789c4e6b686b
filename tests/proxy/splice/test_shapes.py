"""Heads at one stroke: what a shape matches is what would have been looked up, with the same values, and no more."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import GreenroomError
from gateway.proxy.splice import answer_cache, request_cache
from gateway.proxy.splice.answer_cache import AnswerHeads
from gateway.proxy.splice.answer_head import NotHttp
from gateway.proxy.splice.head_reader import HeadReader
from gateway.proxy.splice.request_cache import RequestHeads
from gateway.proxy.splice.shapes import Shapes, shape_of

END = b"\r\n\r\n"
_SPACES = st.sampled_from([b"", b" ", b"  ", b"\t", b" \t "])
_VALUES = st.sampled_from(
    [
        b"1", b"22", b"0", b"007", b"", b"a b", b"\xe4", b"a\tb", b"9" * 18, b"9" * 19, b"1, 1", b"a;b=c", b"(.*)",
        b"\\d", b"\x00", b"a\x00", b"\x7f", b"a\nb", b"a\r", b"\n", b"1\r\n1", b"1\r\nCookie: 1", b"1\r\n\r\nDate: 1",
        b"1\x001",
    ]
)  # fmt: skip
_NAMES = st.sampled_from(
    [
        b"Cookie", b"cookie", b"traceparent", b"Content-Length", b"content-length", b"X-Request-ID", b"Date",
        b"Set-Cookie", b"ETag", b"A", b"Connection",
    ]
)  # fmt: skip
_LINES = st.lists(st.tuples(_NAMES, st.just(b":"), _SPACES, _VALUES, _SPACES).map(b"".join), max_size=4)
_REQUESTS = _LINES.map(lambda lines: b"\r\n".join([b"Host: a", *lines]))
_ANSWERS = _LINES.map(lambda lines: b"\r\n".join([b"HTTP/1.1 200 OK", *lines]))
# Others that differ a little: a byte here or there.
_CHANGES = st.lists(st.tuples(st.integers(0, 80), st.integers(0, 2), st.binary(max_size=2)), max_size=2)


def changed(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for at, gone, new in changes:
        data = data[:at] + new + data[at + gone :]
    return data


@given(_REQUESTS, _REQUESTS, _CHANGES)
@example(b"Host: a\r\nCookie: x\r\nB: c", b"Host: a\r\nCookie: y \r\nB: c", [])
@example(b"Host: a\r\nCookie: x \r\nB: c", b"Host: a\r\nCookie: y\r\nB: c", [])
@example(b"Host: a\r\nContent-Length: 1", b"Host: a\r\nContent-Length: 1 1", [])
def test_requests(one: bytes, other: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    """The shape of a request matches exactly those that are the same head to the cache, and finds their values."""
    heads = RequestHeads()
    try:
        known = heads.look(one, 1).head
    except GreenroomError:
        return
    shape = heads.shape(known)
    for block in (one, other, changed(one, changes)):
        try:
            seen = heads.look(block, 1)
        except GreenroomError:
            seen = None
        found = shape(b"x" + block + END + b"y", 1) if shape is not None else None
        # A value that broke the line would end the head before.
        if found is None:
            assert shape is None or seen is None or seen.head is not known
        elif seen is not None and found.end() == 1 + len(block + END):
            assert request_cache.seen_with(known, found.groups()) == seen
            assert seen.head is known
        else:
            assert END in block


@given(_ANSWERS, _ANSWERS, _CHANGES, st.sampled_from([b"a.localhost", b"localhost"]))
@example(b"HTTP/1.1 200 OK\r\nSet-Cookie: a; Domain=localhost", b"HTTP/1.1 200 OK\r\nSet-Cookie: b", [], b"localhost")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 007", b"HTTP/1.1 200 OK\r\nContent-Length: 1 ", [], b"localhost")
def test_answers(one: bytes, other: bytes, changes: list[tuple[int, int, bytes]], host: bytes) -> None:
    """So does that of an answer."""
    heads = AnswerHeads()
    try:
        known = heads.look(one, host).known
    except NotHttp:
        return
    shape = heads.shape(known)
    for block in (one, other, changed(one, changes)):
        try:
            seen = heads.look(block, host)
        except NotHttp:
            seen = None
        found = shape(block + END + b"y", 0) if shape is not None else None
        if found is None:
            assert shape is None or seen is None or seen.known is not known
        elif seen is not None and found.end() == len(block + END):
            assert answer_cache.seen_with(known, found.groups(), host) == seen
            assert seen.known is known
        else:
            assert END in block


_LINE = st.sampled_from(
    [b"GET / HTTP/1.1", b"GET /b?c HTTP/1.1", b"GET / HTTP/1.0", b"PUT / HTTP/1.1", b"GET http://A/ HTTP/1.1"]
)


@given(_REQUESTS, st.lists(st.tuples(_LINE, _REQUESTS | st.none(), _CHANGES, st.binary(max_size=3)), max_size=6))
def test_a_reader_with_shapes_reads_as_one_without(
    often: bytes, then: list[tuple[bytes, bytes | None, list[tuple[int, int, bytes]], bytes]]
) -> None:
    """After many requests that are alike, whatever comes is read as it would be alone."""
    heads = RequestHeads()
    reader = HeadReader(heads)
    first = b"GET / HTTP/1.1\r\n"

    def read(reader: HeadReader, data: bytes) -> object:
        try:
            found = reader.read(data)
        except GreenroomError as error:
            return type(error)
        if found is None:
            reader.held = b""
            return None
        line, seen, host, data, at = found
        return line, seen.head.block, seen.head.minor, seen.values, seen.length, host, data, at

    for number in range(70):
        read(reader, first + often.replace(b"22", b"2%d" % number) + END)
    for line, block, changes, after in then:
        data = line + b"\r\n" + (block if block is not None else changed(often, changes)) + END + after
        assert read(reader, data) == read(HeadReader(RequestHeads()), data)


def alike(number: int, host: bytes = b"a") -> bytes:
    return b"GET / HTTP/1.1\r\nHost: %b\r\nAccept: */*\r\nCookie: n=%d\r\n\r\n" % (host, number)


def calls_of(reader: HeadReader, data: bytes) -> list[str]:
    """The functions of C that are called to read it."""
    calls: list[str] = []
    sys.setprofile(lambda _frame, event, what: calls.append(what.__name__) if event == "c_call" else None)
    try:
        assert reader.read(data) is not None
    finally:
        sys.setprofile(None)
    return calls


def test_a_shape_is_made_of_heads_that_keep_coming() -> None:
    """Not of the first few; one for each of some hosts, and what comes in another shape for long has the place."""
    reader = HeadReader(RequestHeads())
    for number in range(4):
        reader.read(alike(number))
    assert "split" in calls_of(reader, alike(99))
    for number in range(300):
        reader.read(alike(number, (b"a", b"b", b"c")[number % 3]))
    for host in (b"a", b"b", b"c"):
        assert "match" in calls_of(reader, alike(1000, host))
        assert "split" not in calls_of(reader, alike(1001, host))
    others = [alike(number).replace(b"*/*", b"text/html") for number in range(200)]
    assert "split" in calls_of(reader, others[0])
    for other in others:
        reader.read(other)
    assert "split" not in calls_of(reader, others[1])


def test_a_shape_that_was_made_is_there_for_other_connections() -> None:
    """From the second of their heads on."""
    heads = RequestHeads()
    for _ in range(3):
        reader = HeadReader(heads)
        for number in range(80):
            reader.read(alike(number))
    reader = HeadReader(heads)
    assert "split" in calls_of(reader, alike(99))
    assert "split" not in calls_of(reader, alike(100))


def test_of_many_hosts_some_have_a_shape() -> None:
    """What is kept for a connection is bounded."""
    reader = HeadReader(RequestHeads())
    for number in range(2000):
        reader.read(alike(number, b"host%d" % (number % 50)))
    assert reader._shapes is not None
    assert len(reader._shapes._slots) <= 8


def test_re_remembers_no_token() -> None:
    """An expression that was made of a head is known to who asked for it alone."""
    shape = shape_of([b"Authorization: Bearer secret\r\nCookie:", b""], -1)
    assert shape is not None
    assert shape(b"Authorization: Bearer secret\r\nCookie: x" + END, 0) is not None
    assert not any(b"secret" in pattern for _, pattern, *_ in re._cache if isinstance(pattern, bytes))  # type: ignore[attr-defined]


def test_a_known_head_without_values_has_no_shape() -> None:
    """It is the same each time."""
    requests, answers = RequestHeads(), AnswerHeads()
    assert requests.shape(requests.look(b"Host: a", 1).head) is None
    assert answers.shape(answers.look(b"HTTP/1.1 200 OK\r\nA: b", b"").known) is None


def test_shapes_are_forgotten_with_the_heads() -> None:
    """They hold the same secrets."""
    requests = RequestHeads()
    head = requests.look(b"Host: a\r\nCookie: b", 1).head
    shape = requests.shape(head)
    assert shape is requests.shape(head)
    requests.clear()
    assert shape is not requests.shape(head)


@pytest.mark.parametrize("value", [b"1", b"", b"x" * 60_000])
def test_a_shape_takes_no_longer_than_the_head_is_long(value: bytes) -> None:
    """There is one way to match, so nothing is tried again: 60 kB of spaces and words are refused at once."""
    texts = [b"Cookie:", b"\r\nCookie:", b"\r\nCookie:", b""]
    shape = shape_of(texts, -1)
    assert shape is not None
    assert shape(b"Cookie:" + b" a" * 30_000 + b"\r\nCookie:" + value + b"\r\nCookie: b\r\nA", 0) is None


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param([b"Cookie:" + b"x" * 2048, b""], id="too long"),
        pytest.param([b"\r\nCookie:"] * 18, id="too many values"),
        pytest.param([b"Host: a"], id="no value"),
    ],
)
def test_what_takes_long_to_make_stays_looked_up(texts: list[bytes]) -> None:
    """Nobody can have us make shapes for most of our time."""
    assert shape_of(texts, -1) is None


def test_no_shape_until_one_is_asked_for() -> None:
    """And what the maker of shapes declines stays looked up."""
    shapes: Shapes[str] = Shapes(lambda _known, _is_to_make: None)
    for _ in range(200):
        shapes.note(b"a\r\n", 0, "x")
        assert shapes.find(b"a\r\n", 0) is None
