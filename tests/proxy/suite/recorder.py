"""
The Actor's side: a server that keeps every byte it is sent, reads strictly, and answers by script.

It lives on the loop of the stage's thread; tests look at it from theirs, and wait on ``wait_until``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from proxy.suite.wire import Broken, Ended, Message, Reading, body_of, head_of

WAIT_SECS = 5.0


@dataclass(slots=True, eq=False)
class Connection:
    """One connection of the gateway: all that came over it, and how it ended."""

    number: int
    raw: bytearray = field(default_factory=bytearray)
    garbage: str = ""
    has_ended: bool = False


@dataclass(slots=True, eq=False)
class Request:
    """What was asked; ``message`` has no body before all of it has come (``is_whole``)."""

    connection: Connection
    message: Message
    is_whole: bool = False


class Turn:
    """One request and what a script does about it."""

    def __init__(self, recorder: Recorder, peer: _Peer, request: Request) -> None:
        self._recorder = recorder
        self._peer = peer
        self.request = request
        self.must_close = False

    @property
    def message(self) -> Message:
        return self.request.message

    async def body(self) -> bytes:
        """Read the rest of the request."""
        message = await self._peer.read(body_of(self._peer.buffer, self.request.message))
        with self._recorder.changed:
            self.request.message, self.request.is_whole = message, message.is_whole
            self._recorder.changed.notify_all()
        if not message.is_whole:
            raise Ended
        return message.body

    async def some_body(self) -> bytes:
        """What has come of the body, unparsed; waits for something. ``b""`` at the end."""
        if not self._peer.buffer:
            await self._peer.more()
        data = bytes(self._peer.buffer)
        self._peer.buffer.clear()
        return data

    async def write(self, data: bytes) -> None:
        if self._peer.writer.is_closing():
            raise ConnectionResetError
        self._peer.writer.write(data)
        await self._peer.writer.drain()

    @staticmethod
    async def breathe() -> None:
        """Let the other side read what was written by itself."""
        await asyncio.sleep(0)

    async def until_gone(self) -> None:
        """Until the gateway has closed this connection."""
        with contextlib.suppress(ConnectionError):
            while await self._peer.reader.read(65_536):
                pass

    async def half_close(self) -> None:
        self._peer.writer.write_eof()

    def close(self) -> None:
        """In good order, after this turn."""
        self.must_close = True

    def reset(self) -> None:
        sock = self._peer.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._peer.writer.transport.abort()
        self.must_close = True


Script = Callable[[Turn], Awaitable[None]]


async def say_ok(turn: Turn) -> None:
    """The default: read the request, answer 200 with its target."""
    await turn.body()
    target = turn.message.target
    body = b"" if turn.message.method == b"HEAD" else target
    await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(target), body))


class Recorder:
    """The server, on a port of its own. ``scripts`` by path; whatever has none is answered 200."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.changed = threading.Condition()
        self.connections: list[Connection] = []
        self.requests: list[Request] = []
        self.scripts: dict[bytes, Script] = {}
        self.port = 0
        self._count = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, port: int = 0) -> None:
        self._server = await self._loop.create_server(self._protocol, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    def listen_no_more(self) -> None:
        """Whoever connects from now on is refused; on its loop."""
        assert self._server is not None
        self._server.close()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        async with asyncio.timeout(WAIT_SECS):
            while self._writers:  # noqa: ASYNC110 - they end by themselves
                await asyncio.sleep(0.001)

    def forget(self) -> None:
        """Begin a new record; connections that stand keep their numbers."""
        with self.changed:
            self.requests.clear()
            self.scripts.clear()
            self.connections = [one for one in self.connections if not one.has_ended]
            for connection in self.connections:
                connection.raw.clear()

    def cut(self) -> None:
        """End all connections, so that nothing of what was done over them is left."""

        def abort() -> None:
            for writer in list(self._writers):
                writer.transport.abort()

        self._loop.call_soon_threadsafe(abort)
        self.wait_until(lambda: all(one.has_ended for one in self.connections), "the end of all connections")

    def wait_until(self, holds: Callable[[], object], what: str = "", within_secs: float = WAIT_SECS) -> None:
        """Until *holds*, which is asked whenever something has come; from the test's thread."""
        with self.changed:
            assert self.changed.wait_for(holds, within_secs), f"did not come: {what}; {self.seen()}"

    def seen(self) -> list[bytes]:
        """The first lines of what was asked, for messages."""
        return [request.message.first for request in self.requests]

    @property
    def garbage(self) -> list[str]:
        return [one.garbage for one in self.connections if one.garbage]

    def gate(self) -> Gate:
        """Something that a script waits for and a test opens."""
        return Gate(self._loop)

    # On the loop

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        connection = Connection(0)
        reader = _RecordingReader(self, connection)
        return asyncio.StreamReaderProtocol(reader, self._serve)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, _RecordingReader)
        connection = reader.connection
        self._writers.add(writer)
        with self.changed:
            self._count = connection.number = self._count + 1
            self.connections.append(connection)
            self.changed.notify_all()
        try:
            await self._turns(connection, _Peer(reader, writer))
        except Broken as error:
            connection.garbage = str(error)
        except (Ended, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self._writers.discard(writer)
            with self.changed:
                connection.has_ended = True
                self.changed.notify_all()

    async def _turns(self, connection: Connection, peer: _Peer) -> None:
        while True:
            try:
                head = await peer.read(head_of(peer.buffer, is_answer=False))
            except Ended:
                if peer.buffer:
                    connection.garbage = f"at the end: {bytes(peer.buffer[:200])!r}"
                return
            request = Request(connection, head)
            with self.changed:
                self.requests.append(request)
                self.changed.notify_all()
            turn = Turn(self, peer, request)
            await self.scripts.get(head.target.partition(b"?")[0], say_ok)(turn)
            if turn.must_close or not request.is_whole:
                return

    def note(self, connection: Connection, data: bytes) -> None:
        with self.changed:
            connection.raw += data
            self.changed.notify_all()


class Gate:
    """An event across the two threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()
        self._opened = threading.Event()

    def open(self) -> None:
        """From either side."""
        self._opened.set()
        self._loop.call_soon_threadsafe(self._event.set)

    async def opened(self) -> None:
        """For a script, until a test opens it."""
        await self._event.wait()

    def wait(self, within_secs: float = WAIT_SECS) -> None:
        """For a test, until a script opens it."""
        assert self._opened.wait(within_secs), "the Actor did not come so far"


class _RecordingReader(asyncio.StreamReader):
    def __init__(self, recorder: Recorder, connection: Connection) -> None:
        super().__init__(limit=2**20, loop=asyncio.get_running_loop())
        self._recorder = recorder
        self.connection = connection

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        self._recorder.note(self.connection, data)
        super().feed_data(data)


@dataclass(slots=True)
class _Peer:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    buffer: bytearray = field(default_factory=bytearray)

    async def more(self) -> bool:
        data = await self.reader.read(65_536)
        self.buffer += data
        return bool(data)

    async def read(self, reading: Reading) -> Message:
        try:
            next(reading)
            while True:
                if await self.more():
                    next(reading)
                else:
                    reading.throw(Ended())
        except StopIteration as done:
            message: Message = done.value
            return message
