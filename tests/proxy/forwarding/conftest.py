"""
Real sockets for the forwarding half: raw Actors that record and misbehave, uvicorn in front, raw clients.

Every test here runs on uvloop and on asyncio's own loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.core.errors import InvalidRequest
from gateway.core.model import Address
from gateway.proxy.headers import credentials_of
from gateway.proxy.http import ForwardOutcome, forward, quiet_cut_answers
from gateway.proxy.plan import Credentials, ForwardPlan
from gateway.proxy.upstream import UpstreamCut, UpstreamError, Upstreams
from gateway.proxy.websocket import Closing, RelayOutcome, relay

TOKEN = "greenroom_api_secret"
MAX_MESSAGE_BYTES = 100_000
NOWHERE = ForwardPlan(address=Address(host="127.0.0.1", port=1), request_id="fresh", credentials=Credentials())


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


class Wire:
    """One end of a raw connection, with just enough HTTP/1.1 to read a message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def write(self, data: bytes) -> None:
        """Send, with back-pressure."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Head:
        """The next head. Raises IncompleteReadError at the end of the stream."""
        block = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = block[:-4].split(b"\r\n")
        pairs = [line.partition(b":") for line in lines]
        return Head(first, [(name.lower(), value.strip()) for name, _, value in pairs])

    async def body(self, head: Head) -> bytes:
        """The body that follows *head*. Raises IncompleteReadError where it is cut."""
        if head.one(b"transfer-encoding") == b"chunked":
            return b"".join([chunk async for chunk in self.chunks()])
        length = head.one(b"content-length")
        return await self.reader.readexactly(int(length or 0))

    async def chunks(self) -> AsyncIterator[bytes]:
        """The chunks of a body. Raises IncompleteReadError where it is cut."""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            chunk = (await self.reader.readexactly(size + 2))[:-2]
            if not size:
                return
            yield chunk

    async def message(self) -> tuple[Head, bytes]:
        """A head and its body."""
        head = await self.head()
        return head, await self.body(head)

    async def eof(self) -> bytes:
        """What comes until the end; a reset counts as one."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""

    def abort(self) -> None:
        """Cut."""
        self.writer.transport.abort()

    async def close(self) -> None:
        """Close in good order."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass
class Head:
    """A request's or an answer's head, names in lower case."""

    first: bytes
    headers: list[tuple[bytes, bytes]]

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.first.split(b" ")[1])

    @property
    def target(self) -> bytes:
        """Of a request."""
        return self.first.split(b" ")[1]

    def all(self, name: bytes) -> list[bytes]:
        """The values of one header."""
        return [value for key, value in self.headers if key == name]

    def one(self, name: bytes) -> bytes | None:
        """The only value of a header, or None."""
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None


Script = Callable[[Wire, int], Awaitable[None]]


@dataclass
class Rig:
    """A gateway in front of one Actor."""

    upstreams: Upstreams
    port: int = 0
    plan: ForwardPlan = NOWHERE
    first_byte_secs: float | None = 20
    closing: Closing = field(default_factory=Closing)
    connections: int = 0
    activity: int = 0
    forwarded: asyncio.Queue[ForwardOutcome | Exception] = field(default_factory=asyncio.Queue)
    relayed: asyncio.Queue[RelayOutcome | Exception] = field(default_factory=asyncio.Queue)
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    _handlers: set[asyncio.Task[Any]] = field(default_factory=set)
    _wires: list[Wire] = field(default_factory=list)

    async def actor(self, script: Script) -> None:
        """Serve *script*, once for each connection (numbered from 1), as the Actor."""

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._handlers.add(task)
            task.add_done_callback(self._handlers.discard)
            self.connections += 1
            wire = Wire(reader, writer)
            self._wires.append(wire)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await script(wire, self.connections)
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=2**20)
        self._stack.callback(server.close)
        self.plan = replace(self.plan, address=Address(host="127.0.0.1", port=server.sockets[0].getsockname()[1]))

    async def client(self) -> Wire:
        """A raw connection to the gateway."""
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port, limit=2**20))
        self._wires.append(wire)
        return wire

    async def ask(self, request: bytes) -> tuple[Head, bytes]:
        """One request on a connection of its own, answered whole."""
        wire = await self.client()
        await wire.write(request)
        head = await wire.head()
        body = b"" if request.startswith(b"HEAD") or head.status in (204, 304) else await wire.body(head)
        await wire.close()
        return head, body

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """The least that admission does."""
        plan = replace(
            self.plan,
            credentials=credentials_of(scope["headers"], scope["query_string"], {TOKEN}),
            client_host=scope["client"][0],
            host=next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), ""),
            first_byte_deadline=self.first_byte_secs and self.upstreams.loop.time() + self.first_byte_secs,
        )
        if scope["type"] == "websocket":
            await self._relay(scope, receive, send, plan)
        else:
            await self._forward(scope, receive, send, plan)

    async def _forward(self, scope: Any, receive: Any, send: Any, plan: ForwardPlan) -> None:
        try:
            self.forwarded.put_nowait(await forward(scope, receive, send, plan, self.upstreams))
        except UpstreamCut as error:
            self.forwarded.put_nowait(error)
        except (UpstreamError, InvalidRequest) as error:
            self.forwarded.put_nowait(error)
            body = type(error).__name__.encode()
            headers = [(b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 502, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async def _relay(self, scope: Any, receive: Any, send: Any, plan: ForwardPlan) -> None:
        def count() -> None:
            self.activity += 1

        try:
            outcome = await relay(
                scope,
                receive,
                send,
                plan,
                max_message_bytes=MAX_MESSAGE_BYTES,
                closing=self.closing,
                on_activity=count,
                upstreams=self.upstreams,
            )
        except UpstreamError as error:
            self.relayed.put_nowait(error)
            body = type(error).__name__.encode()
            await send({"type": "websocket.http.response.start", "status": 502, "headers": []})
            await send({"type": "websocket.http.response.body", "body": body})
        else:
            self.relayed.put_nowait(outcome)

    async def start(self) -> None:
        """Serve under uvicorn's own protocols."""
        config = uvicorn.Config(
            self.app, interface="asgi3", http="httptools", ws="websockets-sansio", lifespan="off",
            proxy_headers=False, server_header=False, date_header=False, log_config=None, access_log=False,
            ws_max_size=2 * MAX_MESSAGE_BYTES,
        )  # fmt: skip
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: HttpToolsProtocol(config, state, {}, loop), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

        async def stop() -> None:
            server.close()
            for wire in self._wires:
                wire.abort()
            for connection in list(state.connections):
                connection.transport.abort()
            if tasks := {*state.tasks, *self._handlers}:
                _, hanging = await asyncio.wait(tasks, timeout=5)
                assert not hanging, hanging
            for wire in self._wires:
                with contextlib.suppress(ConnectionError):
                    await wire.writer.wait_closed()

        self._stack.push_async_callback(stop)

    async def stop(self) -> None:
        """Nothing may be left under way."""
        await self._stack.aclose()
        await self.upstreams.aclose()


@pytest.fixture
async def rig(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Rig]:
    """A gateway; whatever happens in a test, uvicorn has nothing to complain about."""
    quiet_cut_answers()
    rig = Rig(upstreams=Upstreams(connect_timeout_secs=2))
    await rig.start()
    try:
        yield rig
    finally:
        await rig.stop()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
