"""
One connection to a run as an asyncio protocol, and where connections lie between two requests.

A connection carries one request at a time. Bytes go through an ``AnswerReader``; its one reader and its one writer
wait on a future each, and a wheel keeps the reader's limits. Reading pauses while ``MAX_QUEUED_BYTES`` of body wait to
be taken.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import cast

from gateway.core.model import Address
from gateway.proxy.answer_reader import AnswerReader, LastHead, NotHttp
from gateway.proxy.sockets import acknowledge_at_once, is_quiet, keep_watch
from gateway.proxy.splice.wheel import NEVER, Wheel

MAX_QUEUED_BYTES = 256 * 1024
"""Of an answer's body, before reading pauses; one more read may come on top."""


class Connection(asyncio.Protocol):
    """One connection to a run: carries one request at a time, or lies idle in its pool."""

    __slots__ = (
        "_is_read_paused", "_is_write_paused", "_loop", "_open", "_reading", "_socket", "_wheel", "_writing",
        "deadline", "error", "has_news", "idle_until", "is_lost", "is_reused", "last", "pieces", "pool", "queued_bytes",
        "reader", "transport", "visit_at",
    )  # fmt: skip

    def __init__(self, pool: Pool, all_open: OpenConnections, loop: asyncio.AbstractEventLoop, wheel: Wheel) -> None:
        self._open = all_open
        self._loop = loop
        self._wheel = wheel
        self.pool = pool
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)  # from connection_made on
        self._socket: socket.socket | None = None
        self.is_reused = False
        self.is_lost = False
        self.has_news = True  # something has come since somebody looked
        self.idle_until = 0.0
        # Two reasons to wait, each for one waiter: something came, and there is room to write.
        self._reading: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._is_read_paused = False
        self._is_write_paused = False
        self.last = LastHead()
        # For the wheel
        self.deadline = NEVER
        self.visit_at = NEVER
        # Of the present request
        self.reader: AnswerReader | None = None
        self.pieces: deque[bytes] = deque()
        self.queued_bytes = 0
        self.error: Exception | None = None

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._open.add(self)
        self._socket = self.transport.get_extra_info("socket")
        keep_watch(self._socket)

    def data_received(self, data: bytes) -> None:
        self.has_news = True
        if self.reader is None:  # bytes that nobody asked for: never believe what follows
            self.transport.abort()
            return
        try:
            pieces = self.reader.feed(data)
        except NotHttp as error:
            self.fail(error)
            return
        for piece in pieces:
            self.pieces.append(piece)
            self.queued_bytes += len(piece)
        if self.queued_bytes > MAX_QUEUED_BYTES or self._has_switched():
            self._pause_reading()
        if not self.reader.is_complete:
            acknowledge_at_once(self._socket)
        self.wake()

    def eof_received(self) -> None:
        if self.reader is not None:
            self.reader.eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._wheel.forget(self)
        self.deadline = NEVER
        self.pool.drop(self)
        self._open.discard(self)
        self.wake()

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        _wake(self._writing)

    def expired(self, now: float) -> None:
        """The wheel comes by: whoever waits for bytes looks at the time."""
        _wake(self._reading)

    # For the exchange

    def fail(self, error: Exception) -> None:
        """End the exchange with *error*, unless it has ended already, and the connection with it."""
        if self.error is None:
            self.error = error
        self.transport.abort()
        self.wake()

    def wake(self) -> None:
        """Something came or happened: whoever waits looks again."""
        _wake(self._reading)
        _wake(self._writing)

    def is_wanted(self) -> bool:
        """Whether the Actor still takes body: connected, and its answer not complete yet."""
        return not (
            self.is_lost or self.error is not None or self.transport.is_closing()
            or self.reader is None or self.reader.is_complete
        )  # fmt: skip

    async def wait_for_bytes(self, until: float | None) -> None:
        """Until something came or happened, or *until* on the loop's clock."""
        self._reading = waiter = self._loop.create_future()
        self.deadline = NEVER if until is None else until
        if self.deadline < self.visit_at:
            self._wheel.watch(self)
        try:
            await waiter
        finally:
            self._reading = None

    async def wait_for_room(self) -> None:
        """Until the Actor has read enough, or reads no more."""
        while self._is_write_paused and self.is_wanted():
            await self.wait_to_write(None)

    async def wait_to_write(self, until: float | None) -> None:
        """Until there may be a change for the one who writes, or *until* on the loop's clock."""
        self._writing = waiter = self._loop.create_future()
        timer = None if until is None else self._loop.call_at(until, _wake, waiter)
        try:
            await waiter
        finally:
            self._writing = None
            if timer is not None:
                timer.cancel()

    def take_piece(self) -> bytes:
        """All that has come; small pieces are joined."""
        piece = self.pieces.popleft() if len(self.pieces) == 1 else b"".join(self.pieces)
        self.pieces.clear()
        self.queued_bytes = 0
        self.resume_reading()
        return piece

    def resume_reading(self) -> None:
        if self._is_read_paused and not self.transport.is_closing():
            self._is_read_paused = False
            self.transport.resume_reading()

    @property
    def is_read_paused(self) -> bool:
        """Whether more may have come than was read, since its reader is slow."""
        return self._is_read_paused

    def is_quiet(self) -> bool:
        """Whether nothing waits to be read, end of stream included; one system call."""
        return is_quiet(self.transport)

    def _pause_reading(self) -> None:
        if not self._is_read_paused and not self.transport.is_closing():
            self._is_read_paused = True
            self.transport.pause_reading()

    def _has_switched(self) -> bool:
        return self.reader is not None and self.reader.head is not None and self.reader.head.status == 101


class Pool:
    """The idle connections to one address, the one used last on top."""

    __slots__ = ("address", "idle", "is_forgotten")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.idle: list[Connection] = []
        self.is_forgotten = False

    def drop(self, connection: Connection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)


class OpenConnections:
    """All connections of one client, busy or idle, so that it can end in good order."""

    def __init__(self) -> None:
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()

    def add(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._empty.clear()

    def discard(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def cut_silent(self, pool: Pool) -> bool:
        """
        Cut those of *pool* on which nothing has come since the last call although it would have been read; whether
        any is left.

        For a run that has ended. What its kernel had sent comes at once; where not even the end of the connection
        comes, its machine or its network has vanished.
        """
        is_any_left = False
        for connection in [one for one in self._connections if one.pool is pool]:
            if connection.is_read_paused or connection.has_news:
                connection.has_news = False
                is_any_left = True
            else:
                connection.transport.abort()
        return is_any_left

    async def abort(self) -> None:
        """Cut them all, and wait until they are gone."""
        for connection in list(self._connections):
            connection.transport.abort()
        if self._connections:
            await self._empty.wait()


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
