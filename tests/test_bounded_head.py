"""
HTTP/1.1 for an ASGI app: bounds of heads, how answers are framed, and callers who take nothing of theirs.

Over a real socket, but where it matters what comes in one read, or that time passes: there by a transport that is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.bounded_head import BoundedHead
from gateway.proxy.decisions import monotonic
from gateway.proxy.splice.lobby import Lobby
from gateway.proxy.splice.wheel import NEVER
from gateway.settings import Settings

MAX_HEAD_BYTES = 65_536


@contextlib.asynccontextmanager
async def serving(app: Any, **settings: Any) -> AsyncIterator[int]:
    """A port at which *app* answers."""
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    state, loop, lobby = ServerState(), asyncio.get_running_loop(), Lobby(Settings(**settings))
    server = await loop.create_server(lambda: BoundedHead(config, state, {}, loop, lobby=lobby), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=5)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server that answers each request with the number of its headers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = str(len(scope["headers"])).encode()
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async with serving(app) as port:
        yield port


async def ask(port: int, *pieces: bytes) -> bytes:
    """All that is answered to *pieces*, each sent when the one before it has gone out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    "filling",
    [
        pytest.param(b"X: " + b"v" * MAX_HEAD_BYTES + b"\r\n", id="one long header"),
        pytest.param(b"X: v\r\n" * (MAX_HEAD_BYTES // 6 + 1), id="many headers"),
    ],
)
async def test_a_head_beyond_the_limit(port: int, filling: bytes) -> None:
    """It is told with the error envelope, and the connection is closed."""
    answer = await ask(port, b"GET / HTTP/1.1\r\nHost: a\r\n", filling, b"\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body)["error"]["type"] == "request-too-large"


async def test_a_long_target(port: int) -> None:
    """The request line is part of the head."""
    answer = await ask(port, b"GET /" + b"t" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(b"GET / HTTP/1.1\r\nX: ", id="value"),
        pytest.param(b"GET / HTTP/1.1\r\nX", id="name"),
        pytest.param(b"GET /", id="target"),
    ],
)
async def test_a_head_without_end(port: int, begin: bytes) -> None:
    """Whoever never ends his head is told, and then cut off."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send_for_ever() -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(begin)
            while True:
                writer.write(b"x" * MAX_HEAD_BYTES)
                await writer.drain()

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(send_for_ever())
        assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")
    writer.close()


async def test_what_is_below_the_limit(port: int) -> None:
    """Also in small pieces, one request after the other on a connection, and with a body beyond the limit."""
    long = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"v" * (MAX_HEAD_BYTES - 100) + b"\r\n\r\n"
    body = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"b" * 200_000
    last = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    pieces = [long[at : at + 5000] for at in range(0, len(long), 5000)]
    answer = await ask(port, *pieces, long, body, long, last)
    assert answer.count(b"HTTP/1.1 200 OK") == 5


@pytest.fixture
async def told() -> AsyncIterator[tuple[int, list[dict[str, Any]]]]:
    """A server that answers each request as the list says, one message after the other."""
    messages: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async with serving(app) as port:
        yield port, messages


def start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    """The head of an answer."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def piece(body: bytes, *, more: bool = False) -> dict[str, Any]:
    """Of its body."""
    return {"type": "http.response.body", "body": body, "more_body": more}


LENGTH_5 = (b"content-length", b"5")


@pytest.mark.parametrize(
    ("first", "messages", "answer"),
    [
        pytest.param(
            b"GET / HTTP/1.1\r\nConnection: close",
            [start(LENGTH_5), piece(b"hello")],
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
            id="a length",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nConnection: close",
            [start(), piece(b"he", more=True), piece(b"", more=True), piece(b"llo")],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            id="no length",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nConnection: close",
            [start((b"transfer-encoding", b"chunked")), piece(b"hello")],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            id="chunks are the server's",
        ),
        pytest.param(
            b"GET / HTTP/1.0\r\nConnection: keep-alive",
            [start(), piece(b"hel", more=True), piece(b"lo")],
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello",
            id="HTTP/1.0 and no length",
        ),
        pytest.param(
            b"GET / HTTP/1.0",
            [start(LENGTH_5), piece(b"hello")],
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
            id="HTTP/1.0",
        ),
        pytest.param(
            b"HEAD / HTTP/1.1\r\nConnection: close",
            [start(LENGTH_5), piece(b"hello")],
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n",
            id="HEAD",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nConnection: close",
            [start(LENGTH_5, status=304), piece(b"")],
            b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\nconnection: close\r\n\r\n",
            id="304",
        ),
        pytest.param(
            b"GET / HTTP/1.1",
            [start(LENGTH_5, (b"connection", b"close")), piece(b"hello")],
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
            id="the app says close",
        ),
        pytest.param(
            b"GET / HTTP/1.1",
            [start(LENGTH_5), piece(b"hell", more=True)],
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell",
            id="an app that returns too early: cut",
        ),
        pytest.param(
            b"GET / HTTP/1.1",
            [start(), piece(b"hello", more=True)],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
            id="the same in chunks: no end",
        ),
        pytest.param(
            b"GET / HTTP/1.1",
            [start(LENGTH_5), piece(b"hello!")],
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
            id="more than the length says",
        ),
    ],
)
async def test_framing(
    told: tuple[int, list[dict[str, Any]]], first: bytes, messages: list[dict[str, Any]], answer: bytes
) -> None:
    """As RFC 9112 has it, for whichever version and method; what is not whole does not look whole."""
    port, messages_of_app = told
    messages_of_app += messages
    assert await ask(port, first + b"\r\nHost: a\r\n\r\n") == answer


@pytest.mark.parametrize(
    "header",
    [
        pytest.param((b"x", b"a\r\nset-cookie: b"), id="a line break"),
        pytest.param((b"x", b"a\x00"), id="NUL"),
        pytest.param((b"x y", b"a"), id="a space in a name"),
        pytest.param((b"", b"a"), id="no name"),
        pytest.param((b"x: a\r\ny", b"a"), id="a header in a name"),
    ],
)
async def test_a_header_that_would_be_another(
    told: tuple[int, list[dict[str, Any]]], header: tuple[bytes, bytes]
) -> None:
    """What an app takes from its users can't begin a header, or an answer, of its own."""
    port, messages = told
    messages += [start(header), piece(b"")]
    answer = await ask(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert header[1] not in answer.partition(b"\r\n\r\n")[0].split(b"\r\n")


async def test_a_head_whose_body_is_not_there_yet() -> None:
    """It does not wait for the body: whoever streams is heard of at once."""
    going = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await going.wait()
        await send(piece(b"late"))

    async with serving(app) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        going.set()
        assert await reader.read() == b"4\r\nlate\r\n0\r\n\r\n"
        writer.close()


async def test_a_caller_who_takes_nothing() -> None:
    """Whoever does not read his answer is cut off in the end, and its app hears of it."""
    has_ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        while (await receive())["type"] != "http.disconnect":
            for _ in range(200):
                await send(piece(b"x" * 100_000, more=True))
        has_ended.set()

    async with serving(app, keep_alive_secs=1) as port, asyncio.timeout(20):
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await has_ended.wait()
        writer.close()


class Wire:
    """A transport that goes nowhere; whoever reads from it or writes to it is told what the test says."""

    def __init__(self) -> None:
        self.written = b""
        self.is_reading = True
        self.is_aborted = False
        self._is_closing = False

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    def abort(self) -> None:
        self._is_closing = self.is_aborted = True


@contextlib.asynccontextmanager
async def wired(app: Any) -> AsyncIterator[tuple[BoundedHead, Wire]]:
    """A connection over a ``Wire``, to *app*."""
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    state, wire = ServerState(), Wire()
    front = BoundedHead(config, state, {}, asyncio.get_running_loop(), lobby=Lobby(Settings()))
    front.connection_made(cast(Any, wire))
    yield front, wire
    front.connection_lost(None)
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=5)


async def until(holds: Callable[[], object]) -> None:
    """Until what was begun has come so far; each round of the loop is one step."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


def pass_time(front: BoundedHead) -> None:
    """Until the limit of what is going on, as the wheel has it."""
    now, front.deadline = front.deadline, NEVER
    front.expired(now)


def put(length: int, body: bytes) -> bytes:
    """A request with the beginning of its body."""
    return b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length + body


@pytest.mark.parametrize("first_read", [pytest.param(200_000, id="whole"), pytest.param(100_000, id="in two reads")])
async def test_a_large_body_that_is_answered_unread(first_read: int) -> None:
    """Its caller is heard again at once: what he asks next is answered, too."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(LENGTH_5, status=401))
        await send(piece(b"hello"))

    body = b"b" * 200_000
    async with wired(app) as (front, wire):
        front.data_received(put(len(body), body[:first_read]))
        await until(lambda: wire.written.endswith(b"hello"))
        assert wire.is_reading
        front.data_received(body[first_read:] + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: wire.written.count(b"HTTP/1.1 401 ") == 2)
        assert wire.is_reading


async def test_a_large_body_that_nobody_takes() -> None:
    """No more of it is read, nor of what follows it, than is bounded; all of it is there in the end."""
    taking, seen = asyncio.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await taking.wait()
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        seen.append(size)
        await send(start(LENGTH_5))
        await send(piece(b"hello"))

    async with wired(app) as (front, wire):
        front.data_received(put(150_000, b"b" * 100_000))
        assert not wire.is_reading
        taking.set()
        await until(lambda: wire.is_reading)
        taking.clear()
        front.data_received(b"b" * 50_000)
        front.data_received(put(100_000, b"b" * 100_000))
        await until(lambda: seen == [150_000] and wire.is_reading)
        front.data_received(put(100_000, b"b" * 100_000))
        assert not wire.is_reading
        taking.set()
        await until(lambda: seen == [150_000, 100_000, 100_000] and wire.is_reading)


async def test_a_caller_who_takes_nothing_of_the_answer_before() -> None:
    """His next request does not wait without end for him, either; if he does take it, that one is answered."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(LENGTH_5))
        await send(piece(b"hello"))

    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    async with wired(app) as (front, wire):
        front.data_received(request)
        await until(lambda: wire.written.count(b"hello") == 1)
        front.pause_writing()
        front.data_received(request)
        await until(lambda: front.deadline != NEVER)
        assert wire.written.count(b"hello") == 1
        front.resume_writing()
        await until(lambda: wire.written.count(b"hello") == 2)
        front.pause_writing()
        front.data_received(request)
        await until(lambda: front.deadline != NEVER)
        pass_time(front)
        assert wire.is_aborted


@pytest.mark.parametrize("takes_body", [True, False], ids=["after the whole body", "while the app reads no more of it"])
async def test_a_caller_who_takes_nothing_while_his_body_comes(takes_body: bool) -> None:
    """Nobody waits without end for him; but for an app that takes its time with his body."""
    keep_alive_secs, going = Settings().keep_alive_secs, asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(piece(b"hello", more=True))
        while takes_body and (await receive()).get("more_body"):
            pass
        await going.wait()
        await send(piece(b"hello"))

    async with wired(app) as (front, wire):
        front.data_received(put(200_000, b"b" * 100))
        await until(lambda: b"hello" in wire.written)
        if takes_body:
            front.pause_writing()
            going.set()
            front.data_received(b"b" * 199_900)
            assert front.deadline != NEVER
        else:
            front.data_received(b"b" * 100_000)
            assert not wire.is_reading
            front.expired(monotonic() + 2 * keep_alive_secs)
            assert not wire.is_closing()
            front.pause_writing()
            going.set()
            front.expired(monotonic() + keep_alive_secs / 2)
            assert not wire.is_closing()
            assert front.deadline != NEVER
        front.expired(monotonic() + keep_alive_secs + 1)
        assert wire.is_aborted


async def test_a_caller_who_does_not_take_the_beginning_of_an_answer_that_broke_off() -> None:
    """The connection does not wait for him without end, although he has taken a part of it meanwhile."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(LENGTH_5))
        await send(piece(b"hell", more=True))

    async with wired(app) as (front, wire):
        front.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(wire.is_closing)
        front.pause_writing()
        front.resume_writing()
        assert front.deadline != NEVER
        pass_time(front)
        assert wire.is_aborted


async def test_a_caller_whose_skipped_body_stands_still() -> None:
    """He has his answer; the connection does not wait without end until he has taken it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(LENGTH_5, status=401))
        await send(piece(b"hello"))

    async with wired(app) as (front, wire):
        front.data_received(put(10, b"12345"))
        await until(lambda: wire.written.endswith(b"hello"))
        pass_time(front)
        assert wire.is_closing()
        assert front.deadline != NEVER
        pass_time(front)
        assert wire.is_aborted
