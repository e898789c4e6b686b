"""The strict reader of Actors' answers."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.answer_reader import CHUNKED, UNTIL_EOF, AnswerReader, NotHttp

OK = b"HTTP/1.1 200 OK\r\n"


def read(data: bytes, method: str = "GET", step: int = 0) -> tuple[AnswerReader, bytes]:
    """All of *data* in steps of *step* bytes (0: at once), with the body that came out."""
    reader = AnswerReader(method)
    step = step or max(1, len(data))
    body = b"".join(b"".join(reader.feed(data[at : at + step])) for at in range(0, len(data), step))
    return reader, body


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])
@pytest.mark.parametrize(
    ("data", "status", "length", "body"),
    [
        pytest.param(OK + b"Content-Length: 3\r\n\r\nabc", 200, 3, b"abc", id="a length"),
        pytest.param(OK + b"Content-Length: 0\r\n\r\n", 200, 0, b"", id="an empty body"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nX: y\r\n\r\n",
            200, CHUNKED, b"abcd", id="chunks, an extension, a trailer",
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, 0, b"", id="204"),
        pytest.param(b"HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", 304, 0, b"", id="304 with a length"),
        pytest.param(
            b"HTTP/1.1 100 x\r\n\r\nHTTP/1.1 103 x\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na",
            200, 1, b"a", id="1xx come first",
        ),
        pytest.param(b"HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n", 299, 0, b"", id="no reason"),
    ],
)  # fmt: skip
def test_whole_answers(data: bytes, status: int, length: int, body: bytes, step: int) -> None:
    """Cut at any byte, an answer reads the same."""
    reader, got = read(data, step=step)
    assert reader.head is not None
    assert (reader.head.status, reader.head.length, got) == (status, length, body)
    assert reader.is_complete
    assert reader.leftover == b""
    assert reader.head.keeps_alive


def test_until_eof() -> None:
    """Without any length the body ends with the connection, which is not used again."""
    reader, body = read(OK + b"\r\nabc")
    assert reader.head is not None
    assert (reader.head.length, reader.head.keeps_alive, body) == (UNTIL_EOF, False, b"abc")
    assert not reader.is_complete
    assert reader.eof()
    assert reader.is_complete


def test_head_has_no_body() -> None:
    """The answer to HEAD ends with its head whatever its length says; what follows is left over."""
    reader, body = read(OK + b"Content-Length: 9\r\n\r\nxyz", method="HEAD")
    assert (reader.is_complete, body, reader.leftover) == (True, b"", b"xyz")


def test_leftover_is_told() -> None:
    """Bytes after the end belong to no answer, whether they come with it or later."""
    reader, body = read(OK + b"Content-Length: 1\r\n\r\naHTTP/1.1")
    assert (body, reader.leftover) == (b"a", b"HTTP/1.1")
    reader.feed(b" 200")
    assert reader.leftover == b"HTTP/1.1 200"


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True, id="1.1"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n", False, id="1.1 close"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", False, id="1.0"),
    ],
)
def test_keep_alive(head: bytes, keeps: bool) -> None:
    """Whether the next request may follow on the same connection."""
    reader, _ = read(head)
    assert reader.head is not None
    assert reader.head.keeps_alive is keeps


MALFORMED = [
    pytest.param(b"SSH-2.0-x\r\n\r\n", id="another protocol"),
    pytest.param(b"\r\nHTTP/1.1 200 OK\r\n\r\n", id="an empty line first"),
    pytest.param(b"HTTP/2 200\r\n\r\n", id="another version"),
    pytest.param(b"HTTP/1.1 20 OK\r\n\r\n", id="two digits"),
    pytest.param(b"HTTP/1.1 099 OK\r\n\r\n", id="a leading zero"),
    pytest.param(b"HTTP/1.1 600 OK\r\n\r\n", id="a status that there is not, and that servers can't pass on"),
    pytest.param(b"HTTP/1.1  200 OK\r\n\r\n", id="two spaces"),
    pytest.param(OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", id="Content-Length twice"),
    pytest.param(OK + b"Content-Length: 1, 1\r\n\r\na", id="a list of lengths"),
    pytest.param(OK + b"Content-Length: -1\r\n\r\na", id="a negative length"),
    pytest.param(OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", id="CL and TE"),
    pytest.param(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", id="another coding"),
    pytest.param(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", id="chunked in 1.0"),
    pytest.param(OK + b"X : y\r\n\r\n", id="a space before the colon"),
    pytest.param(OK + b"X: y\r\n folded\r\n\r\n", id="a folded line"),
    pytest.param(OK + b"X\r\n\r\n", id="no colon"),
    pytest.param(OK + b"X: a\x00b\r\n\r\n", id="a NUL"),
    pytest.param(OK + b"X: a\rb\r\n\r\n", id="a bare CR"),
    pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", id="bare line feeds"),
    pytest.param(OK + b"X: 1\nY: 2\r\n\r\n", id="a bare line feed among lines"),
    pytest.param(OK + b"X: y\r\n" * 1001 + b"\r\n", id="1001 headers"),
    pytest.param(OK + b"X: " + b"y" * 66_000, id="a head without end"),
    pytest.param(OK + b"X: " + b"y" * 66_000 + b"\r\n\r\n", id="a head too long"),
    pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", id="101 unasked"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", id="a size that is no number"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", id="a bare line feed after the size"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", id="a chunk longer than its size"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 17 + b"\r\n", id="17 digits"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 5000, id="an extension without end"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 4000, id="a trailer without end"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n", id="a malformed trailer"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n", id="a prefixed size"),
]


@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize("data", MALFORMED)
def test_malformed_answers(data: bytes, step: int) -> None:
    """What two readers could take for two things is refused, in whatever pieces it comes."""
    if step and len(data) > 10_000:
        step = 1000
    with pytest.raises(NotHttp):
        read(data, step=step)


def test_a_head_limit_is_no_body_limit() -> None:
    """A read may bring a head and much of the body at once."""
    body = bytes(300_000)
    reader, got = read(OK + b"Content-Length: 300000\r\n\r\n" + body)
    assert reader.is_complete
    assert got == body


class _Events:
    """What httptools makes of an answer."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.is_complete = True


_LINES = st.sampled_from(
    [
        b"Content-Length: 3", b"content-length: 0", b"Content-Length:3", b"Content-Length: 3 ", b"Content-Length: x",
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"X: y", b"X:y", b"X : y", b" X: y", b"X",
        b"X: \xff", b"X: a\rb", b"X: a\x00", b"Connection: close", b"",
    ]
)  # fmt: skip
_BODIES = st.sampled_from([b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n", b"3\nabc\n0\n\n", b"abcdef"])


@given(st.sampled_from([200, 404, 204, 500]), st.lists(_LINES, max_size=4), _BODIES)
def test_stricter_than_httptools(status: int, lines: list[bytes], rest: bytes) -> None:
    """What we take for a whole answer httptools takes for the same one: same headers, same body."""
    wire = b"HTTP/1.1 %d X\r\n" % status + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + rest
    try:
        reader, body = read(wire)
    except NotHttp:
        return
    if not reader.is_complete or reader.head is None or status == 204:
        return
    events: Any = _Events()
    parser = httptools.HttpResponseParser(events)
    parser.feed_data(wire[: len(wire) - len(reader.leftover)])
    assert events.is_complete
    assert [(name, value.rstrip(b" ")) for name, value in events.headers] == reader.head.headers
    assert events.body == body
