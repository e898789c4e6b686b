"""
Callers who keep a Greenroom busy over raw sockets, each in a way of its own, and say what went wrong.

What counts as failed: an answer that is not the right one, a connection that is refused, reset or ended without notice
(``Connection: close`` with an answer, the close code 1012 on a WebSocket), a body or a stream that is not whole, and
anything that takes longer than ``_LIMIT_SECS``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from journeys.greenroom import TOKEN, Greenroom
from journeys.socket_actor import Place, raw_socket
from proxy.splice.tunnel_rig import CLOSE, PING, PONG, TEXT

SERVICE_RESTART = 1012

_LIMIT_SECS = 60.0
_PIPELINED = 6
_DOWNLOAD = random.Random(1_500_000).randbytes(1_500_000)  # as the Actor's ``/bytes`` makes it
_UPLOAD = b"0123456789abcdef" * 4096


@dataclass(frozen=True)
class Answer:
    """What came for one request; ``closes`` where it is the last one of its connection."""

    status: int
    closes: bool
    body: bytes


@dataclass
class Wire:
    """A connection of a caller, who talks HTTP/1.1 over it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def ask(self, host: str, target: str = "/", body: bytes | None = None) -> None:
        """Write a request: a POST where there is a *body*."""
        method = "GET" if body is None else "POST"
        head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
        if body is not None:
            head += f"Content-Length: {len(body)}\r\n"
        self.writer.write(head.encode() + b"\r\n" + (body or b""))

    async def answer(self, *, pause_secs: float = 0.0) -> Answer:
        """The next answer, whole; with *pause_secs* before each of its pieces is taken."""
        async with asyncio.timeout(_LIMIT_SECS):
            return await self._answer(pause_secs)

    async def _answer(self, pause_secs: float) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status, headers = int(head.split()[1]), head.split("\r\n")
        length = next((line for line in headers if line.startswith("content-length:")), None)
        if length is None:
            assert "transfer-encoding: chunked" in headers, head
            body = b"".join([chunk async for chunk in self._chunks()])
        else:
            missing, pieces = int(length.partition(":")[2]), []
            while missing:
                await asyncio.sleep(pause_secs)
                pieces.append(await self.reader.readexactly(min(missing, 65_536)))
                missing -= len(pieces[-1])
            body = b"".join(pieces)
        return Answer(status, "connection: close" in headers, body)

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"

    async def end(self) -> None:
        """The connection ends as was said with the last answer, and nothing comes before."""
        async with asyncio.timeout(_LIMIT_SECS):
            assert await self.reader.read() == b""


@dataclass
class Load:
    """What the callers of *greenroom* have seen: how many answers of which kind, and every problem."""

    greenroom: Greenroom
    answered: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def total(self) -> int:
        """Requests that were answered; a WebSocket counts as one when it is opened, its messages don't."""
        return sum(count for kind, count in self.answered.items() if kind != "message")

    @contextlib.asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        """A new connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.greenroom.port)
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):  # what was to come over it, has come
                await writer.wait_closed()

    def check(self, kind: str, is_right: bool, what: object) -> None:
        """One more of *kind* has come, and is what it should be or else a problem."""
        self.answered[kind] += 1
        if not is_right:
            self.problems.append(f"{kind}: {what!r:.300}")

    async def keep_up(self, kind: str, caller: Callable[[Load], Awaitable[None]]) -> None:
        """Have *caller* call again and again until it is over; what it raises is a problem."""
        while not self.is_over.is_set():
            try:
                await caller(self)
            except (OSError, EOFError, TimeoutError, AssertionError) as error:
                self.problems.append(f"{kind}: {error!r:.300}")
                await asyncio.sleep(0.1)


def keeps_alive(hosts: Sequence[str], pause_secs: float) -> Callable[[Load], Awaitable[None]]:
    """One connection until an answer says that it is the last: GETs and POSTs in turn, to *hosts* in turn."""

    async def call(load: Load) -> None:
        async with load.wire() as wire:
            number = 0
            while not load.is_over.is_set():
                host = hosts[number % len(hosts)]
                number += 1
                if number % 3:
                    wire.ask(host)
                    answer = await wire.answer()
                    is_right = answer.body.startswith(b"hello from ")
                else:
                    wire.ask(host, "/sum", b"x" * 10_000)
                    answer = await wire.answer()
                    is_right = answer.body.startswith(b'{"size": 10000,')
                load.check("kept alive", answer.status == 200 and is_right, answer)
                if answer.closes:
                    await wire.end()
                    return
                await asyncio.sleep(pause_secs)

    return call


def comes_anew(host: str, pause_secs: float, kind: str = "new connection") -> Callable[[Load], Awaitable[None]]:
    """One request to *host* on a connection of its own."""

    async def call(load: Load) -> None:
        async with load.wire() as wire:
            wire.ask(host)
            answer = await wire.answer()
        load.check(kind, answer.status == 200 and answer.body.startswith(b"hello from "), answer)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_secs):
                await load.is_over.wait()

    return call


def pipelines(host: str, pause_secs: float) -> Callable[[Load], Awaitable[None]]:
    """Several requests in one write; those behind the last answer of a connection were not served, and come again."""
    number = 0

    async def call(load: Load) -> None:
        nonlocal number
        async with load.wire() as wire:
            while not load.is_over.is_set():
                for at in range(_PIPELINED):
                    wire.ask(host, f"/seen?number={number + at}")
                for _ in range(_PIPELINED):
                    answer = await wire.answer()
                    is_right = b'"target": "/seen?number=%d"' % number in answer.body
                    load.check("pipelined", answer.status == 200 and is_right, answer)
                    number += 1
                    if answer.closes:
                        await wire.end()
                        return
                await asyncio.sleep(pause_secs)

    return call


def listens(host: str, events: int, every_ms: int) -> Callable[[Load], Awaitable[None]]:
    """A stream of server-sent events, one after the other, none missing, to its last chunk."""

    async def call(load: Load) -> None:
        async with load.wire() as wire:
            wire.ask(host, f"/stream?n={events}&ms={every_ms}")
            answer = await wire.answer()
        expected = b"".join(b"data: %d\n\n" % number for number in range(events))
        load.check("stream", (answer.status, answer.body) == (200, expected), answer)

    return call


def downloads(host: str) -> Callable[[Load], Awaitable[None]]:
    """A body that is taken slowly, and is whole."""

    async def call(load: Load) -> None:
        async with load.wire() as wire:
            wire.ask(host, f"/bytes?n={len(_DOWNLOAD)}")
            answer = await wire.answer(pause_secs=0.1)
        load.check("download", (answer.status, answer.body) == (200, _DOWNLOAD), answer.status)

    return call


def uploads(host: str) -> Callable[[Load], Awaitable[None]]:
    """A body that is sent slowly, and comes back piece by piece."""

    async def call(load: Load) -> None:
        async with load.wire() as wire:
            head = f"POST /echo HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
            wire.writer.write(f"{head}Content-Length: {len(_UPLOAD)}\r\n\r\n".encode())

            async def send() -> None:
                for at in range(0, len(_UPLOAD), 4096):
                    wire.writer.write(_UPLOAD[at : at + 4096])
                    await asyncio.sleep(0.1)

            answer, _ = await asyncio.gather(wire.answer(), send())
        load.check("upload", (answer.status, answer.body) == (200, _UPLOAD), answer.status)

    return call


def talks(host: str, pause_secs: float) -> Callable[[Load], Awaitable[None]]:
    """
    A WebSocket until Greenroom says goodbye with 1012; each message is answered with itself before the next one.

    What was not answered when the goodbye came is said again on the next socket; nothing that was answered is.
    """
    said = 0

    async def call(load: Load) -> None:
        nonlocal said
        place = Place(load.greenroom.port, (f"Host: {host}", f"Authorization: Bearer {TOKEN}"))
        async with raw_socket(place, "/ws") as socket:
            load.check("socket", is_right=True, what=socket.head)
            while not load.is_over.is_set():
                text = b"message %d" % said
                socket.send(TEXT, text)
                async with asyncio.timeout(_LIMIT_SECS):
                    while (got := await socket.get()).opcode == PING:
                        socket.send(PONG, got.payload)
                if got.opcode == CLOSE:
                    assert (got.code, got.reason) == (SERVICE_RESTART, "restarting"), got
                    socket.close(SERVICE_RESTART)
                    return
                load.check("message", (got.opcode, got.payload) == (TEXT, text), (got, text))
                said += 1
                await asyncio.sleep(pause_secs)
            socket.close()
            async with asyncio.timeout(_LIMIT_SECS):
                while (await socket.get()).opcode != CLOSE:
                    pass

    return call
