"""
What h2spec asks of a server, section by section of RFC 9113 (and of RFC 7541 for HPACK), in single frames.

Where the RFC leaves a choice, what is done here stands in the table: it is not to change unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from http2.rig import (
    COMPRESSION_ERROR,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GET,
    POST,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    Client,
    client_of,
    data,
    frame,
    more,
    serving,
)
from hyperframe.frame import HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from gateway.dispatch import PREFACE

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME = 1, 2, 3, 4, 5
BIG = 2**31 - 1


@dataclass(frozen=True)
class Ends:
    """The connection ends with GOAWAY and this code."""

    code: int


@dataclass(frozen=True)
class Resets:
    """The stream ends with RST_STREAM and this code, and the next request on the connection is answered."""

    code: int
    stream: int = 1


@dataclass(frozen=True)
class Answers:
    """The stream is answered."""

    status: int = 200
    stream: int = 1


Expected = Ends | Resets | Answers
Said = Callable[[Client], None]


def said(*pieces: object) -> Said:
    """Frames and bytes that don't depend on the client's HPACK; functions of the client are asked for theirs."""

    def say(client: Client) -> None:
        client.send(*(piece(client) if callable(piece) else piece for piece in pieces))  # type: ignore[arg-type]

    return say


def head(fields=GET, *, stream: int = 1, ends: bool = True) -> Callable[[Client], HeadersFrame]:
    return lambda client: client.head(fields, stream=stream, ends=ends)


def part(fields=GET, *, stream: int = 1) -> Callable[[Client], HeadersFrame]:
    """A head that goes on in CONTINUATION."""
    return lambda client: HeadersFrame(stream, client.fields(fields), flags=["END_STREAM"])


def raw(block: bytes, *, stream: int = 1, flags: int = END_STREAM | END_HEADERS) -> bytes:
    """A head whose HPACK is *block*."""
    return frame(HEADERS, block, stream=stream, flags=flags)


def setting(key: int, value: int) -> bytes:
    return frame(SETTINGS, key.to_bytes(2) + value.to_bytes(4))


def get(*extra: tuple[bytes, bytes], without: bytes = b"", **changed: bytes) -> Callable[[Client], HeadersFrame]:
    """A GET with these fields changed, left out or added."""
    fields = [(name, changed.get(name[1:].decode(), value)) for name, value in GET if name != without]
    return head([*fields, *extra])


def post(*extra: tuple[bytes, bytes]) -> Callable[[Client], HeadersFrame]:
    return head([*POST, *extra], ends=False)


open_post = post()
done = head()

CASES: list[tuple[str, Said, Expected]] = [
    # -- 3.4 and 4: frames
    ("4.1 a frame of unknown type is ignored", said(frame(250, b"what"), done), Answers()),
    ("4.1 flags that are not defined are ignored", said(frame(PING, b"12345678", flags=0x16), done), Answers()),
    ("4.1 the reserved bit is ignored", said(frame(PING, b"12345678", stream=2**31), done), Answers()),
    ("4.2 DATA of the largest size", said(open_post, data(b"x" * 16384, ends=True)), Answers()),
    ("4.2 DATA beyond the largest size", said(open_post, data(b"x" * 16385)), Ends(FRAME_SIZE_ERROR)),
    ("4.2 HEADERS beyond the largest size", said(raw(b"\x82" * 16385)), Ends(FRAME_SIZE_ERROR)),
    ("4.3 a head that is no HPACK", said(raw(b"\x82\xff\xff\xff\xff\xff\xff\xff")), Ends(COMPRESSION_ERROR)),
    ("4.3 another frame within a head", said(part(), frame(PRIORITY, b"\0\0\0\0\1", stream=3)), Ends(PROTOCOL_ERROR)),
    ("4.3 the head of another stream within a head", said(part(), head(stream=3)), Ends(PROTOCOL_ERROR)),
    # -- 5.1: states of a stream
    ("5.1 idle: DATA", said(data(b"x")), Ends(PROTOCOL_ERROR)),
    ("5.1 idle: RST_STREAM", said(RstStreamFrame(1, 8)), Ends(PROTOCOL_ERROR)),
    ("5.1 idle: WINDOW_UPDATE", said(WindowUpdateFrame(1, 9)), Ends(PROTOCOL_ERROR)),
    ("5.1 idle: CONTINUATION", said(more(b"")), Ends(PROTOCOL_ERROR)),
    ("5.1 idle: PRIORITY is ignored", said(frame(PRIORITY, b"\0\0\0\0\1", stream=9), done), Answers()),
    ("5.1 half-closed: DATA", said(done, data(b"x")), Resets(STREAM_CLOSED)),
    ("5.1 half-closed: HEADERS", said(done, done), Ends(PROTOCOL_ERROR)),  # STREAM_CLOSED would say it better
    ("5.1 half-closed: CONTINUATION", said(done, more(b"")), Ends(PROTOCOL_ERROR)),
    ("5.1 half-closed: WINDOW_UPDATE", said(done, WindowUpdateFrame(1, 9)), Answers()),
    ("5.1 closed by reset: DATA", said(open_post, RstStreamFrame(1, 8), data(b"x")), Resets(STREAM_CLOSED)),
    ("5.1 closed by reset: HEADERS", said(open_post, RstStreamFrame(1, 8), done), Ends(PROTOCOL_ERROR)),
    ("5.1 closed by reset: CONTINUATION", said(open_post, RstStreamFrame(1, 8), more(b"")), Ends(PROTOCOL_ERROR)),
    ("5.1 closed by reset: PRIORITY", said(open_post, RstStreamFrame(1, 8), frame(PRIORITY, b"\0\0\0\0\1", stream=1),
                                           head(stream=3)), Answers(stream=3)),
    ("5.1.1 an even number", said(head(stream=2)), Ends(PROTOCOL_ERROR)),
    ("5.1.1 a number below an earlier one", said(head(stream=5), head(stream=3)), Ends(PROTOCOL_ERROR)),
    ("5.3.1 HEADERS that depend on themselves",
     said(lambda client: raw(b"\0\0\0\1\x10" + client.fields(GET), flags=END_STREAM | END_HEADERS | 0x20)), Answers()),
    ("5.3.1 PRIORITY on itself is ignored", said(frame(PRIORITY, b"\0\0\0\1\1", stream=1), done), Answers()),
    ("5.5 an unknown frame within a head", said(part(), frame(250, b"x"), more(b"")), Ends(PROTOCOL_ERROR)),
    # -- 6.1 to 6.4
    ("6.1 DATA without a stream", said(frame(DATA, b"x")), Ends(PROTOCOL_ERROR)),
    ("6.1 DATA with padding", said(open_post, frame(DATA, b"\3abc\0\0\0", stream=1, flags=END_STREAM | PADDED)),
     Answers()),
    ("6.1 DATA that is padding only", said(open_post, frame(DATA, b"\3\0\0\0", stream=1, flags=END_STREAM | PADDED)),
     Answers()),
    ("6.1 more padding than DATA", said(open_post, frame(DATA, b"\5abc", stream=1, flags=PADDED)),
     Ends(PROTOCOL_ERROR)),
    ("6.2 HEADERS without a stream", said(raw(b"\x82", stream=0)), Ends(PROTOCOL_ERROR)),
    ("6.2 HEADERS with padding",
     said(lambda client: raw(b"\2" + client.fields(GET) + b"\0\0", flags=END_STREAM | END_HEADERS | PADDED)),
     Answers()),
    ("6.2 more padding than HEADERS", said(raw(b"\x20\x82", flags=END_HEADERS | PADDED)), Ends(PROTOCOL_ERROR)),
    ("6.2 HEADERS with a priority",
     said(lambda client: raw(b"\0\0\0\0\x10" + client.fields(GET), flags=END_STREAM | END_HEADERS | 0x20)), Answers()),
    # The RFC would have the connection ended; it is ignored as all PRIORITY is, since nothing is scheduled by it.
    ("6.3 PRIORITY without a stream", said(frame(PRIORITY, b"\0\0\0\0\1"), done), Answers()),
    ("6.3 PRIORITY of a wrong length", said(open_post, frame(PRIORITY, b"\0\0\0\1", stream=1)), Ends(FRAME_SIZE_ERROR)),
    ("6.4 RST_STREAM without a stream", said(frame(RST_STREAM, b"\0\0\0\0")), Ends(PROTOCOL_ERROR)),
    ("6.4 RST_STREAM of a wrong length", said(open_post, frame(RST_STREAM, b"\0\0\0", stream=1)),
     Ends(FRAME_SIZE_ERROR)),
    # -- 6.5 SETTINGS
    ("6.5 an acknowledgement with a payload", said(frame(SETTINGS, b"\0" * 6, flags=ACK)), Ends(FRAME_SIZE_ERROR)),
    ("6.5 on a stream", said(frame(SETTINGS, stream=1)), Ends(PROTOCOL_ERROR)),
    ("6.5 of a wrong length", said(frame(SETTINGS, b"\0" * 5)), Ends(FRAME_SIZE_ERROR)),
    ("6.5.2 ENABLE_PUSH of 2", said(setting(ENABLE_PUSH, 2)), Ends(PROTOCOL_ERROR)),
    ("6.5.2 a window beyond the largest", said(setting(INITIAL_WINDOW, 2**31)), Ends(FLOW_CONTROL_ERROR)),
    ("6.5.2 frames below the smallest size", said(setting(MAX_FRAME, 16383)), Ends(PROTOCOL_ERROR)),
    ("6.5.2 frames beyond the largest size", said(setting(MAX_FRAME, 2**24)), Ends(PROTOCOL_ERROR)),
    ("6.5.2 an unknown setting is ignored", said(setting(0xFF, 1), done), Answers()),
    ("6.5.2 no header table", said(setting(HEADER_TABLE_SIZE, 0), done), Answers()),
    ("6.5.2 no streams from the server", said(setting(MAX_STREAMS, 0), done), Answers()),
    # -- 6.6 to 6.8
    ("6.6 PUSH_PROMISE from a client", said(frame(PUSH_PROMISE, b"\0\0\0\2\x82", stream=1, flags=END_HEADERS)),
     Ends(PROTOCOL_ERROR)),
    ("6.7 PING on a stream", said(frame(PING, b"12345678", stream=1)), Ends(PROTOCOL_ERROR)),
    ("6.7 PING of a wrong length", said(frame(PING, b"1234567")), Ends(FRAME_SIZE_ERROR)),
    ("6.7 an acknowledgement nobody asked for", said(frame(PING, b"12345678", flags=ACK), done), Answers()),
    ("6.8 GOAWAY on a stream", said(frame(GOAWAY, b"\0" * 8, stream=1)), Ends(PROTOCOL_ERROR)),
    ("6.8 requests before a GOAWAY are answered", said(done, frame(GOAWAY, b"\0" * 8)), Answers()),
    ("7 an unknown code in RST_STREAM", said(open_post, RstStreamFrame(1, 0xFF), head(stream=3)), Answers(stream=3)),
    # -- 6.9 windows
    ("6.9 an increment of 0 to the connection", said(frame(WINDOW_UPDATE, b"\0" * 4)), Ends(PROTOCOL_ERROR)),
    ("6.9 an increment of 0 to a stream", said(open_post, frame(WINDOW_UPDATE, b"\0" * 4, stream=1)),
     Resets(PROTOCOL_ERROR)),
    ("6.9 of a wrong length", said(frame(WINDOW_UPDATE, b"\0" * 3)), Ends(FRAME_SIZE_ERROR)),
    ("6.9.1 the connection's window overflows", said(WindowUpdateFrame(0, BIG)), Ends(FLOW_CONTROL_ERROR)),
    ("6.9.1 a stream's window overflows", said(open_post, WindowUpdateFrame(1, BIG)), Resets(FLOW_CONTROL_ERROR)),
    ("6.9.2 the windows of streams overflow by SETTINGS", said(open_post, WindowUpdateFrame(1, 70_000),
                                                               setting(INITIAL_WINDOW, BIG)), Ends(FLOW_CONTROL_ERROR)),
    # -- 6.10 CONTINUATION
    ("6.10 a head in several frames", said(lambda c: HeadersFrame(1, c.fields(GET[:1]), flags=["END_STREAM"]),
                                           lambda c: more(c.fields(GET[1:3]), ends=False),
                                           lambda c: more(c.fields(GET[3:]))), Answers()),
    ("6.10 after a whole head", said(open_post, more(b"")), Ends(PROTOCOL_ERROR)),
    ("6.10 without a stream", said(part(), frame(CONTINUATION, b"", flags=END_HEADERS)),
     Ends(PROTOCOL_ERROR)),
    ("6.10 after DATA", said(open_post, data(b"x"), more(b"")), Ends(PROTOCOL_ERROR)),
    ("6.10 on another stream", said(part(), frame(CONTINUATION, b"", stream=3, flags=END_HEADERS)),
     Ends(PROTOCOL_ERROR)),
    # -- 8: requests
    ("8.1 trailers", said(open_post, data(b"x"), head([(b"x-sum", b"1")])), Answers()),
    ("8.1 trailers that don't end the request", said(open_post, head([(b"x-sum", b"1")], ends=False)),
     Resets(PROTOCOL_ERROR)),
    ("8.1 trailers that tell a path", said(open_post, head([(b":path", b"/b")])), Resets(PROTOCOL_ERROR)),
    ("8.2.1 a name with a capital", said(get((b"X-Test", b"1"))), Resets(PROTOCOL_ERROR)),
    ("8.2.1 a name with a space", said(get((b"x test", b"1"))), Resets(PROTOCOL_ERROR)),
    ("8.2.1 no name", said(get((b"", b"1"))), Resets(PROTOCOL_ERROR)),
    ("8.2.2 connection", said(get((b"connection", b"x-test"))), Resets(PROTOCOL_ERROR)),
    ("8.2.2 keep-alive", said(get((b"keep-alive", b"timeout=5"))), Resets(PROTOCOL_ERROR)),
    ("8.2.2 proxy-connection", said(get((b"proxy-connection", b"close"))), Resets(PROTOCOL_ERROR)),
    ("8.2.2 upgrade", said(get((b"upgrade", b"websocket"))), Resets(PROTOCOL_ERROR)),
    ("8.2.2 te: gzip", said(get((b"te", b"gzip"))), Resets(PROTOCOL_ERROR)),
    ("8.2.2 te: trailers", said(get((b"te", b"trailers"))), Answers()),
    ("8.3 an unknown pseudo-header", said(get((b":test", b"1"))), Resets(PROTOCOL_ERROR)),
    ("8.3 a pseudo-header of answers", said(get((b":status", b"200"))), Resets(PROTOCOL_ERROR)),
    ("8.3 a pseudo-header after others", said(head([*GET[:3], (b"x-test", b"1"), GET[3]])), Resets(PROTOCOL_ERROR)),
    ("8.3.1 no :method", said(get(without=b":method")), Resets(PROTOCOL_ERROR)),
    ("8.3.1 no :scheme", said(get(without=b":scheme")), Resets(PROTOCOL_ERROR)),
    ("8.3.1 no :path", said(get(without=b":path")), Resets(PROTOCOL_ERROR)),
    ("8.3.1 an empty :path", said(get(path=b"")), Resets(PROTOCOL_ERROR)),
    ("8.3.1 :method twice", said(head([GET[0], *GET])), Resets(PROTOCOL_ERROR)),
    ("8.3.1 :path twice", said(head([*GET[:3], *GET[2:]])), Resets(PROTOCOL_ERROR)),
    ("8.3.1 :scheme twice", said(head([*GET[:2], *GET[1:]])), Resets(PROTOCOL_ERROR)),
    ("8.3.1 :authority twice", said(head([*GET, GET[3]])), Resets(PROTOCOL_ERROR)),
    ("8.5 CONNECT with a path", said(get(method=b"CONNECT")), Answers(405)),
    ("8.5 CONNECT", said(head([(b":method", b"CONNECT"), (b":authority", b"a.localhost:1")])), Resets(PROTOCOL_ERROR)),
    ("RFC 8441, which is not offered", said(get((b":protocol", b"websocket"), method=b"CONNECT")),
     Resets(PROTOCOL_ERROR)),
    ("8.1.1 less of a body than told", said(post((b"content-length", b"2")), data(b"x", ends=True)),
     Resets(PROTOCOL_ERROR)),
    ("8.1.1 more of a body than told", said(post((b"content-length", b"1")), data(b"x"), data(b"y", ends=True)),
     Resets(PROTOCOL_ERROR)),
    ("8.1.1 a body told of that does not come", said(get((b"content-length", b"1"))), Resets(PROTOCOL_ERROR)),
    ("8.1.1 a body as told", said(post((b"content-length", b"2")), data(b"x"), data(b"y", ends=True)), Answers()),
    # -- RFC 7541
    ("HPACK 2.3.3 an index beyond the tables", said(raw(b"\xff\x80\x01")), Ends(COMPRESSION_ERROR)),
    ("HPACK 4.2 a new size after the first field", said(raw(b"\x82\x84\x86\x20")), Ends(COMPRESSION_ERROR)),
    ("HPACK 5.2 Huffman padding of 8 bits", said(raw(b"\x82\x84\x86\x40\x01a\x82\x1f\xff")), Ends(COMPRESSION_ERROR)),
    ("HPACK 5.2 Huffman padding of zeros", said(raw(b"\x82\x84\x86\x40\x01a\x81\x18")), Ends(COMPRESSION_ERROR)),
    ("HPACK 5.2 EOS in Huffman", said(raw(b"\x82\x84\x86\x40\x01a\x84\xff\xff\xff\xff")), Ends(COMPRESSION_ERROR)),
    ("HPACK 6.1 index 0", said(raw(b"\x80")), Ends(COMPRESSION_ERROR)),
    ("HPACK 6.3 a table beyond what was agreed", said(raw(b"\x3f\xe2\x1f\x82\x84\x86")), Ends(COMPRESSION_ERROR)),
]  # fmt: skip


@pytest.mark.parametrize(("say", "expected"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
async def test_conformance(say: Said, expected: Expected) -> None:
    """Each wrong frame costs what the RFC says, its connection or its stream alone; each right one is understood."""
    async with serving() as server, client_of(server.port) as client:
        say(client)
        match expected:
            case Ends(code):
                assert await client.ended() == code
                await server.idle()  # nobody works for it any more
            case Resets(code, stream):
                assert (await client.answer(stream)).reset == code
                client.ask(stream=stream + 2)
                assert (await client.answer(stream + 2)).status == 200
            case Answers(status, stream):
                assert (await client.answer(stream)).status == status


async def test_more_streams_than_agreed_are_refused() -> None:
    """5.1.2: beyond 128 at once a request is refused as one that may be sent again; the others go on."""
    async with serving() as server, client_of(server.port) as client:
        client.send(*(client.head(POST, stream=stream, ends=False) for stream in range(1, 2 * 129, 2)))
        assert (await client.answer(257)).reset == REFUSED_STREAM
        client.send(data(b"x", stream=1, ends=True))
        assert (await client.answer(1)).body == b"x"
        client.ask(stream=259)
        assert (await client.answer(259)).status == 200


@pytest.mark.parametrize(
    "hello",
    [
        pytest.param(PREFACE + frame(PING, b"12345678"), id="PING first"),
        pytest.param(PREFACE + raw(b"\x82\x84\x86"), id="a request first"),
        pytest.param(PREFACE + b"GET / HTTP/1.1\r\n\r\n", id="HTTP/1.1"),
        pytest.param(PREFACE + frame(SETTINGS, b"\0" * 5), id="broken SETTINGS"),
    ],
)
async def test_a_client_begins_with_settings(hello: bytes) -> None:
    """3.4: whoever does not is no client of HTTP/2, and never reaches the app."""
    async with serving() as server, client_of(server.port, says_hello=False) as client:
        client.send(hello)
        assert await client.ended() in (PROTOCOL_ERROR, FRAME_SIZE_ERROR)
        assert server.app.calls == []


async def test_the_server_says_what_it_keeps_to() -> None:
    """Its SETTINGS come first and bound a client; WebSockets over HTTP/2 (RFC 8441) are not among the offers."""
    async with serving() as server, client_of(server.port) as client:
        assert client.settings == {1: 4096, 3: 128, 5: 16384, 6: 65536}


async def test_pings_are_answered_with_what_they_hold() -> None:
    """6.7."""
    async with serving() as server, client_of(server.port) as client:
        client.send(PingFrame(0, b"8 octets"))
        await client.wait(lambda: client.pongs)
        assert client.pongs == [b"8 octets"]


async def test_settings_are_acknowledged() -> None:
    """6.5.3: each of them, and the last value of a setting holds."""
    async with serving() as server, client_of(server.port) as client:
        client.send(setting(INITIAL_WINDOW, 100), SettingsFrame(0))
        await client.wait(lambda: sum("ACK" in one.flags for one in client.frames) == 3)
