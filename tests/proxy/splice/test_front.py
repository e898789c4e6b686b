"""A caller's connection within its limits, over real sockets and a whole gateway: times, numbers, and who goes away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from proxy.suite.stage import Stand, open_stand

from gateway.core.lifecycle import Readiness

HOST = b"bob--open-spare.localhost"
PATHS = ("splice", "asgi")
GET = b"GET / HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"
SHORT = {
    "head_timeout_secs": 0.4,
    "body_idle_timeout_secs": 0.4,
    "keep_alive_secs": 0.4,
    "first_byte_timeout_secs": 0.5,
}

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Actor:
    """A server that plays *script* on each connection, and knows how many have ended."""

    script: Script
    port: int = 0
    made: int = 0
    ended: int = 0
    seen: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        try:
            await self.script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended += 1
            writer.close()


@dataclass
class Bench:
    """A gateway, and an Actor behind ``HOST``."""

    stand: Stand
    stack: contextlib.AsyncExitStack

    async def actor(self, script: Script, *, readiness: Readiness = Readiness.SERVING) -> Actor:
        """Its run serves."""
        actor = Actor(script)
        server = await asyncio.start_server(actor.serve, "127.0.0.1", 0)
        self.stack.push_async_callback(_close, server)
        actor.port = server.sockets[0].getsockname()[1]
        await self.stand.put_run("open-spare", actor.port, readiness=readiness)
        return actor

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A caller's connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.stand.port)
        self.stack.callback(writer.close)
        return reader, writer

    @property
    def in_flight(self) -> int:
        return self.stand.gateway.desk.in_flight

    @property
    def held(self) -> int:
        return self.stand.gateway.desk.held

    async def until(self, holds: Callable[[], object], within_secs: float = 5) -> None:
        """Until it does."""
        async with asyncio.timeout(within_secs):
            while not holds():  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.002)


async def _close(server: asyncio.Server) -> None:
    server.close()
    await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def opened(folder: Path, path: str, **settings: Any) -> AsyncIterator[Bench]:
    """A gateway with *settings*; slots that are not given back show at its end."""
    async with open_stand(folder, proxy_protocol=path, **settings) as stand, contextlib.AsyncExitStack() as stack:
        bench = Bench(stand, stack)
        yield bench
        await stack.aclose()
        await bench.until(lambda: not bench.in_flight and not bench.held)


@pytest.fixture(params=PATHS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """With short times, by each path."""
    async with opened(tmp_path, request.param, **SHORT) as bench:
        yield bench


@pytest.fixture
async def spliced(tmp_path: Path) -> AsyncIterator[Bench]:
    """With the usual times, by the protocol class."""
    async with opened(tmp_path, "splice") as bench:
        yield bench


async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers every request, and stays."""
    while True:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes what comes and says nothing."""
    while await reader.read(65_536):
        pass


def error_of(answer: bytes) -> tuple[int, str]:
    """The status and the type of an error."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["type"]


# -- times -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\nHost: ", b"G", GET + b"GET / HTTP/1.1\r\n"])
async def test_a_head_has_to_come_in_time(bench: Bench, begin: bytes) -> None:
    """408, then the connection ends; also where a request was served before."""
    await bench.actor(hello)
    reader, writer = await bench.connect()
    writer.write(begin)
    async with asyncio.timeout(5):
        answer = await reader.read()
    assert error_of(b"HTTP/1.1 408" + answer.rpartition(b"HTTP/1.1 408")[2]) == (408, "request-timeout")


async def test_a_trickle_does_not_prolong_a_head(bench: Bench) -> None:
    """The limit is for the whole of it."""
    _, writer = pair = await bench.connect()
    started = time.monotonic()

    async def trickle() -> None:
        with contextlib.suppress(ConnectionError):
            for byte in b"GET / HTTP/1.1\r\nX: " + b"x" * 400:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(trickle())
        assert (await pair[0].readline()).startswith(b"HTTP/1.1 408 ")
        task.cancel()
    assert time.monotonic() - started < 3


async def test_a_silent_connection_is_closed(bench: Bench) -> None:
    """One that never asked, and one that was answered; without a word."""
    await bench.actor(hello)
    fresh, _ = await bench.connect()
    used, writer = await bench.connect()
    writer.write(GET)
    async with asyncio.timeout(5):
        assert await fresh.read() == b""
        answer = await used.read()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"hello")


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 100\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
    ids=["content-length", "chunked"],
)
@pytest.mark.parametrize("path", PATHS)
async def test_the_next_piece_of_a_body_has_to_come_in_time(tmp_path: Path, path: str, head: bytes) -> None:
    """408, and the Actor's side is cut."""
    async with opened(tmp_path, path, body_idle_timeout_secs=0.3) as bench:
        actor = await bench.actor(silent)
        reader, writer = await bench.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: " + HOST + b"\r\n" + head)
        async with asyncio.timeout(5):
            assert error_of(await reader.read()) == (408, "request-timeout")
        await bench.until(lambda: actor.ended == 1)


async def test_an_actor_that_says_nothing(bench: Bench) -> None:
    """504 with the limit that was passed, its side is cut, and the caller may ask again on the same connection."""
    actor = await bench.actor(silent)
    reader, writer = await bench.connect()
    for number in (1, 2):
        writer.write(GET)
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 504 ")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            assert b"first_byte_timeout_secs" in await reader.readexactly(length)
        await bench.until(lambda number=number: actor.ended == number)


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_no_more_connections_than_may_be(tmp_path: Path, path: str) -> None:
    """One too many is told so; where another ends, there is room."""
    async with opened(tmp_path, path, max_connections=2) as bench:
        await bench.actor(hello)
        connections = [await bench.connect() for _ in range(2)]
        for reader, writer in connections:
            writer.write(GET)
            await reader.readuntil(b"hello")
        refused, _ = await bench.connect()
        async with asyncio.timeout(5):
            assert error_of(await refused.read()) == (503, "too-many-connections")
        connections[0][1].close()
        lobby = bench.stand.gateway.splicing.lobby
        await bench.until(lambda: len(lobby.connections) == 1)
        reader, writer = await bench.connect()
        writer.write(GET)
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")


async def test_a_connection_that_is_handed_over_counts_once(tmp_path: Path) -> None:
    """And no longer when it has ended."""
    async with opened(tmp_path, "splice", max_connections=1) as bench:
        for _ in range(3):
            reader, writer = await bench.connect()
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(5):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.close()
            lobby = bench.stand.gateway.splicing.lobby
            await bench.until(lambda lobby=lobby: not len(lobby.connections))


# -- who goes away -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [0, 1_000_000], ids=["no body", "more than is held"])
async def test_a_caller_who_leaves_while_he_is_held_gives_up_his_place(spliced: Bench, more: int) -> None:
    """Within a second, also where so much of his body came that nothing is read any more."""
    _, writer = await spliced.connect()
    head = b"POST / HTTP/1.1\r\nHost: " + HOST + b"\r\nContent-Length: %d\r\n\r\n" % more
    writer.write(head + b"b" * more)
    await spliced.until(lambda: spliced.held == 1)
    started = time.monotonic()
    writer.transport.abort()
    await spliced.until(lambda: spliced.held == 0)
    assert time.monotonic() - started < 2


async def test_what_was_held_arrives_whole_and_once(spliced: Bench) -> None:
    """A body larger than what is held, sent before there is a run."""
    body = bytes(range(256)) * 8192

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        got = await reader.readexactly(len(body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + (b"same" if got == body else b"torn"))

    reader, writer = await spliced.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: " + HOST + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await spliced.until(lambda: spliced.held == 1)
    actor = await spliced.actor(take)
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"same")).startswith(b"HTTP/1.1 200 OK")
    assert actor.made == 1


async def test_a_caller_who_leaves_cuts_the_actors_side(spliced: Bench) -> None:
    """Within a second; his slot is free then."""
    actor = await spliced.actor(silent)
    _, writer = await spliced.connect()
    writer.write(GET)
    await spliced.until(lambda: actor.made == 1 and spliced.in_flight == 1)
    started = time.monotonic()
    writer.transport.abort()
    await spliced.until(lambda: actor.ended == 1 and not spliced.in_flight)
    assert time.monotonic() - started < 1


async def test_a_stale_connection_costs_nobody_a_request(spliced: Bench) -> None:
    """An Actor that closes after each answer, and says so too late: twenty requests, twenty answers."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await reader.readuntil(b"\r\n\r\n")  # and goes without an answer to this one

    await spliced.actor(once)
    reader, writer = await spliced.connect()
    async with asyncio.timeout(10):
        for _ in range(20):
            writer.write(GET)
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")


async def test_a_run_that_refuses_is_left_for_another(spliced: Bench) -> None:
    """The same request goes there, whatever its method, and its caller notices nothing."""
    actor = await spliced.actor(hello)
    with contextlib.closing(_dead_port()) as dead:
        await spliced.stand.put_run("open-spare", dead.getsockname()[1])
        reader, writer = await spliced.connect()
        async with asyncio.timeout(10):
            for _ in range(4):
                writer.write(GET.replace(b"GET", b"DELETE"))
                assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
    assert actor.made >= 1


def _dead_port() -> socket.socket:
    """A port that is taken, and where nobody listens."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


async def test_twenty_mebibytes_both_ways_at_once(spliced: Bench) -> None:
    """An Actor that echoes while a caller sends without reading much: neither waits for ever for the other."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        left = size
        while left:
            data = await reader.read(65_536)
            left -= len(data)
            writer.write(data)
            await writer.drain()

    size = 20 * 1024 * 1024
    await spliced.actor(echo)
    reader, writer = await spliced.connect()
    piece = bytes(range(256)) * 256
    writer.write(b"POST / HTTP/1.1\r\nHost: " + HOST + b"\r\nContent-Length: %d\r\n\r\n" % size)

    async def send() -> None:
        for _ in range(size // len(piece)):
            writer.write(piece)
            await writer.drain()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(send())
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(size // len(piece)):
            assert await reader.readexactly(len(piece)) == piece
