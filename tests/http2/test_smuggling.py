"""
What a client of HTTP/2 says never becomes something else in HTTP/1.1: through a whole gateway, to a strict recorder.

Whatever is refused never reaches the Actor; whatever passes reaches it as exactly one request of the same meaning.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from http2.rig import Client, Fields, client_of, data
from proxy.suite.stage import TOKEN, Door

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: @HOST@\r\n\r\n"


@dataclass(frozen=True)
class Refused:
    """
    Answered with one of *statuses*; or, with none, the stream is reset. *begins*: its head was good, and may have gone
    ahead; *as_empty*: as the request without a body that it says it is.
    """

    statuses: tuple[int, ...] = ()
    begins: bool = False
    as_empty: bool = False


@dataclass(frozen=True)
class Passes:
    """The Actor has it so: *has* of its headers, none of *lacks*."""

    method: bytes = b"GET"
    target: bytes = b"/case"
    body: bytes = b""
    has: dict[bytes, bytes] = field(default_factory=dict)
    lacks: tuple[bytes, ...] = ()


RESET = Refused()


def ask(*extra: tuple[bytes, bytes], without: bytes = b"", **changed: bytes) -> Fields:
    """A GET of ``/case`` with these fields changed, left out or added."""
    usual = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/case"), (b":authority", b"@HOST@")]
    fields = [(name, changed.get(name[1:].decode(), value)) for name, value in usual if name != without]
    return [*fields, *extra]


def post(*extra: tuple[bytes, bytes]) -> Fields:
    return ask(*extra, method=b"POST")


CASES: list[tuple[str, Fields, list[bytes] | None, Any]] = [
    # -- values and names
    ("a header smuggled in a value", ask((b"x-a", b"b\r\nx-smuggled: 1")), None, RESET),
    ("a request smuggled in a value", ask((b"x-a", b"b\r\n\r\n" + SMUGGLED)), None, RESET),
    ("LF alone in a value", ask((b"x-a", b"b\nx-smuggled: 1")), None, RESET),
    ("CR alone in a value", ask((b"x-a", b"b\rx-smuggled: 1")), None, RESET),
    ("NUL in a value", ask((b"x-a", b"b\0c")), None, RESET),
    ("a space before a value", ask((b"x-a", b" b")), None, RESET),
    ("a space after a value", ask((b"x-a", b"b ")), None, RESET),
    ("a control character in a value", ask((b"x-a", b"b\x01c")), None, RESET),
    ("DEL in a value", ask((b"x-a", b"b\x7fc")), None, RESET),
    ("a tab within a value", ask((b"x-a", b"b\tc")), None, Passes(has={b"x-a": b"b\tc"})),
    ("bytes beyond ASCII in a value", ask((b"x-a", b"\xc3\xa9")), None, Passes(has={b"x-a": b"\xc3\xa9"})),
    ("an empty value", ask((b"x-a", b"")), None, Passes(has={b"x-a": b""})),
    ("a header smuggled in a name", ask((b"x-a: b\r\nx-smuggled", b"1")), None, RESET),
    ("a colon in a name", ask((b"transfer-encoding: chunked\r\nx", b"1")), None, RESET),
    ("a colon alone in a name", ask((b"x:a", b"b")), None, RESET),
    ("a space in a name", ask((b"transfer-encoding ", b"chunked")), None, RESET),
    ("a tab in a name", ask((b"x-a\t", b"b")), None, RESET),
    ("NUL in a name", ask((b"x\0a", b"b")), None, RESET),
    ("a name beyond ASCII", ask((b"x-\xe9", b"b")), None, RESET),
    # -- the request line
    ("a version and a header in the path", ask(path=b"/case HTTP/1.1\r\nx-smuggled: 1\r\nx: "), None, RESET),
    ("a version in the path", ask(path=b"/case HTTP/1.1"), None, Refused((400,))),
    ("a space in the path", ask(path=b"/ca se"), None, Refused((400,))),
    ("a tab in the path", ask(path=b"/ca\tse"), None, Refused((400,))),
    ("LF in the path", ask(path=b"/case\nx"), None, RESET),
    ("NUL in the path", ask(path=b"/case\0"), None, RESET),
    ("a fragment", ask(path=b"/case#a"), None, Refused((400,))),
    ("a path without a slash", ask(path=b"case"), None, Refused((400,))),
    ("a whole address as path", ask(path=b"http://@SHUT@/case"), None, Refused((400,))),
    ("two slashes stay", ask(path=b"//case"), None, Passes(target=b"//case")),
    ("dots and percent signs stay", ask(path=b"/a/../%2e%2E/b?c=%0d%0a"), None,
     Passes(target=b"/a/../%2e%2E/b?c=%0d%0a")),
    ("* with GET", ask(path=b"*"), None, Refused((400,))),
    ("* with OPTIONS", ask(path=b"*", method=b"OPTIONS"), None, Passes(b"OPTIONS", b"*")),
    ("a request line in the method", ask(method=b"GET /smuggled HTTP/1.1\r\nx: y\r\n\r\nGET"), None, RESET),
    ("a space in the method", ask(method=b"GET /smuggled"), None, RESET),
    ("a small method", ask(method=b"get"), None, Refused((400,))),
    ("TRACE", ask(method=b"TRACE"), None, Refused((405,))),
    ("CONNECT", ask(method=b"CONNECT"), None, Refused((405,))),
    ("a method of one's own", ask(method=b"PURGE"), None, Passes(b"PURGE")),
    # -- the host
    ("another host than the authority", ask((b"host", b"@SHUT@")), None, RESET),
    ("the same host as the authority", ask((b"host", b"@HOST@")), None, Passes(has={b"host": b"@HOST@"})),
    ("a host without an authority", ask((b"host", b"@HOST@"), without=b":authority"), None, Passes()),
    ("two hosts", ask((b"host", b"@HOST@"), (b"host", b"@SHUT@"), without=b":authority"), None, RESET),
    ("no host at all", ask(without=b":authority"), None, Refused((400,))),
    ("a header in the authority", ask(authority=b"@HOST@\r\nx-smuggled: 1"), None, RESET),
    ("user info in the authority", ask(authority=b"bob@@HOST@"), None, Refused((400,))),
    ("a path in the authority", ask(authority=b"@HOST@/a"), None, Refused((400,))),
    ("a space in the authority", ask(authority=b"@HOST@ a"), None, Refused((400,))),
    ("two names in the authority", ask(authority=b"@HOST@,@SHUT@"), None, Refused((400,))),
    ("an empty authority", ask(authority=b""), None, Refused((400,))),
    ("capitals in the authority", ask(authority=b"BOB--OPEN-@TEMP@.LocalHost"), None, Passes()),
    ("a host that nobody has", ask(authority=b"nobody--none.localhost"), None, Refused((404,))),
    # -- the connection's own
    ("transfer-encoding", post((b"transfer-encoding", b"chunked")), [b"0\r\n\r\n" + SMUGGLED], RESET),
    ("transfer_encoding", post((b"transfer_encoding", b"chunked")), [b"0\r\n\r\n" + SMUGGLED],
     Passes(b"POST", body=b"0\r\n\r\n" + SMUGGLED, lacks=(b"transfer_encoding",))),
    ("content_length", post((b"content_length", b"0")), [SMUGGLED],
     Passes(b"POST", body=SMUGGLED, lacks=(b"content_length",))),
    ("connection", ask((b"connection", b"close, content-length")), None, RESET),
    ("proxy-connection", ask((b"proxy-connection", b"close")), None, RESET),
    ("upgrade", ask((b"upgrade", b"websocket")), None, RESET),
    ("te: trailers goes no further", ask((b"te", b"trailers")), None, Passes(lacks=(b"te",))),
    ("http2-settings goes no further", ask((b"http2-settings", b"AAMAAABk")), None, Passes(lacks=(b"http2-settings",))),
    ("trailer goes no further", ask((b"trailer", b"x-a")), None, Passes(lacks=(b"trailer",))),
    # -- lengths
    ("less of a body than told", post((b"content-length", b"5")), [b"abc"], Refused(begins=True)),
    ("more of a body than told", post((b"content-length", b"2")), [b"ab", SMUGGLED], Refused(begins=True)),
    ("a body told of that does not come", post((b"content-length", b"5")), None, RESET),
    ("a body where none is told of", post((b"content-length", b"0")), [SMUGGLED], Refused(begins=True, as_empty=True)),
    ("a length as told", post((b"content-length", b"3")), [b"ab", b"c"],
     Passes(b"POST", body=b"abc", has={b"content-length": b"3"}, lacks=(b"transfer-encoding",))),
    ("a length of nothing", post((b"content-length", b"0")), None, Passes(b"POST", has={b"content-length": b"0"})),
    ("a length told twice", post(*[(b"content-length", b"3")] * 2), [b"abc"], Refused((400,))),
    ("two lengths", post((b"content-length", b"3"), (b"content-length", b"4")), [b"abc"], RESET),
    ("two lengths in one", post((b"content-length", b"3, 3")), [b"abc"], RESET),
    ("a length with a sign", post((b"content-length", b"+3")), [b"abc"], RESET),
    ("a length below nothing", post((b"content-length", b"-1")), [b"abc"], RESET),
    ("a hexadecimal length", post((b"content-length", b"0x3")), [b"abc"], RESET),
    ("no number as length", post((b"content-length", b"")), [b"abc"], RESET),
    ("a length beyond all", post((b"content-length", b"9" * 30)), [b"abc"], RESET),
    ("zeros before a length", post((b"content-length", b"003")), [b"abc"],
     Passes(b"POST", body=b"abc", has={b"content-length": b"3"})),
    ("a body of unknown length is chunked", post(), [b"ab", b"c"],
     Passes(b"POST", body=b"abc", has={b"transfer-encoding": b"chunked"}, lacks=(b"content-length",))),
    ("a body that looks like the end of one", post(), [b"0\r\n\r\n", SMUGGLED],
     Passes(b"POST", body=b"0\r\n\r\n" + SMUGGLED)),
    ("a GET with a body of known length", ask((b"content-length", b"3")), [b"abc"], Passes(body=b"abc")),
    ("a DELETE with a body", ask(method=b"DELETE"), [b"abc"], Passes(b"DELETE", body=b"abc")),
    # -- what is ours to say
    ("a request id of the client's", ask((b"x-actor-request-id", b"mine")), None, Passes(lacks=(b"mine",))),
    ("an address of the client's", ask((b"x-forwarded-for", b"6.6.6.6")), None,
     Passes(has={b"x-forwarded-for": b"127.0.0.1"})),
    ("a scheme of the client's", ask((b"x-forwarded-proto", b"gopher"), scheme=b"https"), None,
     Passes(has={b"x-forwarded-proto": b"http"})),
    ("Via tells the version", ask(), None, Passes(has={b"via": b"2 greenroom"})),
    ("cookies come in one line", ask((b"cookie", b"a=1"), (b"cookie", b"b=2")), None,
     Passes(has={b"cookie": b"a=1; b=2"})),
    ("our token goes no further", ask((b"authorization", b"Bearer " + TOKEN.encode())), None,
     Passes(lacks=(b"authorization",))),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "body", "expected"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
async def test_smuggling(door: Door, fields: Fields, body: list[bytes] | None, expected: Refused | Passes) -> None:
    """As the table says; and the connection is in step: the next request on it is answered with its own."""
    fields = [(filled(door, name), filled(door, value)) for name, value in fields]
    pieces = [filled(door, piece) for piece in body] if body else []
    async with client_of(door.address[1]) as client:
        client.send(client.head(fields, ends=not pieces))
        client.send(*(data(piece, ends=piece is pieces[-1]) for piece in pieces))
        answer = await client.answer()
        if isinstance(expected, Passes):
            assert (answer.status, answer.reset) == (200, None), answer
            check(door, expected)
        elif expected.statuses:
            assert answer.status in expected.statuses, answer
        else:
            assert answer.reset == 1, answer
        if isinstance(expected, Refused):
            await refused(door, expected)
        door.recorder.forget()
        await check_step(door, client)


def filled(door: Door, text: bytes) -> bytes:
    return door.fill(text).replace(b"@TEMP@", b"COLD" if door.is_cold else b"WARM")


def check(door: Door, expected: Passes) -> None:
    (request,) = door.recorder.requests
    message = request.message
    assert (message.method, message.target) == (expected.method, expected.target)
    assert (request.is_whole, message.body) == (True, filled(door, expected.body))
    for name, value in expected.has.items():
        assert message.values(name) == [filled(door, value)]
    for name in expected.lacks:
        assert message.values(name) == []
    assert b"mine" not in bytes(request.connection.raw)


async def refused(door: Door, expected: Refused) -> None:
    if not expected.begins:
        assert door.recorder.requests == []
        return
    # Its head may have gone ahead, with a part of its body: never the whole, and never anything after it.
    await asyncio.to_thread(door.settle)
    assert [request.message.target for request in door.recorder.requests] in ([], [b"/case"])
    for request in door.recorder.requests:
        assert not request.is_whole or (expected.as_empty and request.message.body == b"")


async def check_step(door: Door, client: Client) -> None:
    usual = [(filled(door, name), filled(door, value)) for name, value in ask(path=b"/next")]
    client.ask(usual, stream=3)
    answer = await client.answer(3)
    assert (answer.status, answer.body) == (200, b"/next")
    assert [request.message.target for request in door.recorder.requests] == [b"/next"]
