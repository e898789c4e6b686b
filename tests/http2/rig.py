"""A server of HTTP/1.1 and HTTP/2 on a real socket with an app by script, and a client that speaks in single frames."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import hpack
import uvicorn
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from uvicorn.server import ServerState

from gateway.bounded_head import BoundedHead, PassOn
from gateway.dispatch import PREFACE, Dispatcher
from gateway.http2.protocol import Http2, Http2Limits
from gateway.proxy.splice.connections import Connections
from gateway.proxy.splice.lobby import Lobby
from gateway.settings import Settings

LIMIT_SECS = 10.0
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, _, STREAM_CLOSED, FRAME_SIZE_ERROR = range(7)
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, _, ENHANCE_YOUR_CALM = range(7, 12)

Fields = Sequence[tuple[bytes, bytes]]
GET = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a.localhost"))
POST = ((b":method", b"POST"), *GET[1:])


# -- the server --------------------------------------------------------------------------------------------------------


class Gone(Exception):
    """The client has left before its request was whole."""


@dataclass(eq=False)
class Call:
    """One request as the app has it."""

    scope: dict[str, Any]
    receive: Callable[[], Awaitable[Any]]
    send: Callable[[Any], Awaitable[None]]
    is_over: bool = False

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return list(self.scope["headers"])

    async def body(self) -> bytes:
        """All of it. Raises Gone where the client goes away before."""
        whole = b""
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Gone
            whole += message["body"]
            if not message["more_body"]:
                return whole

    async def answer(self, body: bytes = b"", status: int = 200, headers: Fields = ()) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await self.send({"type": "http.response.body", "body": body})


Script = Callable[[Call], Awaitable[None]]


async def say_ok(call: Call) -> None:
    """The default: read the body, answer with it."""
    await call.answer(await call.body())


class App:
    """Notes each request that reaches it, and does *script* with it."""

    def __init__(self, script: Script = say_ok) -> None:
        self.script = script
        self.calls: list[Call] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        call = Call(scope, receive, send)
        self.calls.append(call)
        try:
            await self.script(call)
        except Gone:
            pass
        finally:
            call.is_over = True


@dataclass
class Server:
    """Where it serves, and what it knows."""

    port: int
    app: App
    state: ServerState
    protocols: list[Any] = field(default_factory=list)

    async def idle(self) -> None:
        """Until no request is being worked on."""
        await until(lambda: not self.state.tasks)

    async def empty(self) -> None:
        """Until no connection stands."""
        await until(lambda: not self.state.connections)


@contextlib.asynccontextmanager
async def serving(
    script: Script = say_ok,
    *,
    http2: bool = True,
    tls: Any = None,
    connections: Connections | None = None,
    pass_on: PassOn | None = None,
    **limits: Any,
) -> AsyncIterator[Server]:
    """A server until the block is left, in which nothing may go wrong unseen."""
    app = App(script)
    config = uvicorn.Config(app, ws="websockets-sansio", lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    lobby = Lobby(Settings())
    h1 = partial(BoundedHead, lobby=lobby, pass_on=pass_on)
    counted = lobby.connections if connections is None else connections
    h2 = partial(Http2, limits=Http2Limits(**limits), connections=counted) if http2 else None
    make = partial(Dispatcher, config=config, server_state=state, app_state={}, h1=h1, h2=h2)
    listener = await loop.create_server(make, "127.0.0.1", 0, ssl=tls)
    troubles: list[Any] = []
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    try:
        yield Server(listener.sockets[0].getsockname()[1], app, state)
    finally:
        listener.close()
        for connection in list(state.connections):
            (connection._transport if isinstance(connection, Http2) else connection.transport).abort()
        await until(lambda: not state.tasks and not state.connections)
        loop.set_exception_handler(None)
    assert troubles == []


async def until(holds: Callable[[], object], what: str = "the condition") -> None:
    """Until *holds*; nobody tells of it, so it is asked."""
    try:
        async with asyncio.timeout(LIMIT_SECS):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"{what} did not become true") from None


# -- the client --------------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What came back on one stream."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    interim: list[int] = field(default_factory=list)
    body: bytes = b""
    is_whole: bool = False
    reset: int | None = None


class Client:
    """Says single frames, valid or not; keeps what comes. Gives credit for answers by itself unless told not to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self.frames: list[Frame] = []
        self.answers: dict[int, Answer] = {}
        self.goaways: list[GoAwayFrame] = []
        self.settings: dict[int, int] = {}
        self.credits: dict[int, int] = {}
        self.pongs: list[bytes] = []
        self.gives_credit = True
        self.is_closed = False

    def send(self, *said: bytes | Frame) -> None:
        """Bytes or frames, as they are."""
        if not self._writer.is_closing():
            self._writer.write(b"".join(one if isinstance(one, bytes) else one.serialize() for one in said))

    def fields(self, fields: Fields) -> bytes:
        """*fields* in HPACK, in the order and with the mistakes that they have."""
        return self.encoder.encode(list(fields), huffman=False)

    def head(self, fields: Fields = GET, *, stream: int = 1, ends: bool = True) -> HeadersFrame:
        """A whole head in one frame."""
        flags = ["END_HEADERS", *(["END_STREAM"] if ends else [])]
        return HeadersFrame(stream, self.fields(fields), flags=flags)

    def ask(self, fields: Fields = GET, *, stream: int = 1, body: bytes | None = None) -> None:
        """A whole request."""
        self.send(self.head(fields, stream=stream, ends=body is None))
        if body is not None:
            self.send(data(body, stream=stream, ends=True))

    async def wait(self, holds: Callable[[], object], what: str = "the frames") -> None:
        """Take in frames until *holds*, or fail."""
        try:
            async with asyncio.timeout(LIMIT_SECS):
                while not holds():
                    assert not self.is_closed, f"closed before {what}: {self.frames}"
                    await self._take_one()
        except TimeoutError:
            raise AssertionError(f"did not come: {what}; but {self.frames}") from None

    async def answer(self, stream: int = 1) -> Answer:
        """The whole answer on *stream*, or what came until it was reset."""
        found = self.answers.setdefault(stream, Answer())
        await self.wait(lambda: found.is_whole or found.reset is not None, f"the answer on stream {stream}")
        return found

    async def ended(self) -> int | None:
        """Until the server has closed the connection: the last error code that it gave."""
        try:
            async with asyncio.timeout(LIMIT_SECS):
                while not self.is_closed:
                    await self._take_one()
        except TimeoutError:
            raise AssertionError(f"not closed; {self.frames}") from None
        return self.goaways[-1].error_code if self.goaways else None

    async def in_step(self) -> None:
        """Until the server has seen all that was said: a PING comes back after it."""
        said = b"ping%04d" % len(self.pongs)
        self.send(PingFrame(0, said))
        await self.wait(lambda: said in self.pongs, "the answer to a PING")

    def close(self) -> None:
        self._writer.close()

    async def _take_one(self) -> None:
        try:
            head = await self._reader.readexactly(9)
            frame, length = Frame.parse_frame_header(memoryview(head))
            frame.parse_body(memoryview(await self._reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.is_closed = True
            return
        self.frames.append(frame)
        answer = self.answers.setdefault(frame.stream_id, Answer()) if frame.stream_id else Answer()
        match frame:
            case SettingsFrame() if "ACK" not in frame.flags:
                self.settings.update(frame.settings)
                self.send(SettingsFrame(0, flags=["ACK"]))
            case HeadersFrame():
                self._take_head(answer, frame)
            case DataFrame():
                answer.body += frame.data
                answer.is_whole |= "END_STREAM" in frame.flags
                if frame.data and self.gives_credit:
                    credit = [WindowUpdateFrame(stream, len(frame.data)) for stream in (0, frame.stream_id)]
                    self.send(*credit)
            case RstStreamFrame():
                answer.reset = frame.error_code
            case GoAwayFrame():
                self.goaways.append(frame)
            case WindowUpdateFrame():
                self.credits[frame.stream_id] = self.credits.get(frame.stream_id, 0) + frame.window_increment
            case PingFrame():
                self.pongs.append(frame.opaque_data)

    def _take_head(self, answer: Answer, frame: HeadersFrame) -> None:
        fields = self._decoder.decode(frame.data, raw=True)
        status = int(fields[0][1])
        if status < 200:
            answer.interim.append(status)
            return
        answer.status = status
        answer.headers = dict(fields[1:])
        answer.is_whole |= "END_STREAM" in frame.flags


@contextlib.asynccontextmanager
async def client_of(port: int, *, says_hello: bool = True, **options: Any) -> AsyncIterator[Client]:
    """A connection by prior knowledge; with *says_hello* the preface and its SETTINGS have been exchanged."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
    client = Client(reader, writer)
    try:
        if says_hello:
            client.send(PREFACE, SettingsFrame(0))
            await client.wait(lambda: any("ACK" in frame.flags for frame in client.frames), "the server's SETTINGS")
        yield client
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def data(body: bytes, *, stream: int = 1, ends: bool = False) -> DataFrame:
    """A piece of a body."""
    return DataFrame(stream, body, flags=["END_STREAM"] if ends else [])


def frame(kind: int, payload: bytes = b"", *, stream: int = 0, flags: int = 0) -> bytes:
    """A frame as no library would write it."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def more(block: bytes, *, stream: int = 1, ends: bool = True) -> ContinuationFrame:
    """The rest of a head."""
    return ContinuationFrame(stream, block, flags=["END_HEADERS"] if ends else [])
