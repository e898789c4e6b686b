"""What Greenroom leans on of uvicorn's insides, each point against the uvicorn that is installed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.proxy.splice.handover import Place


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Says hello, to whoever asks."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


class Ours(asyncio.Protocol):
    """Keeps what it was made with; hands over when a line has come, and stands until it is told to go."""

    made: list[Ours]

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        loop = arguments["_loop"]
        self.place = Place(arguments["config"], arguments["server_state"], arguments["app_state"], loop)
        self.is_told = asyncio.Event()
        self.made.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.place.enter(self)

    def data_received(self, data: bytes) -> None:
        self.place.leave(self)
        self.place.hand_over(self.transport, data, HttpToolsProtocol)

    def connection_lost(self, exc: Exception | None) -> None:
        self.place.leave(self)

    def shutdown(self) -> None:
        self.is_told.set()


class Server(uvicorn.Server):
    """Without signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


async def until(holds: Callable[[], object]) -> None:
    """Until it does; the tests' own limit ends them otherwise."""
    while not holds():  # noqa: ASYNC110 - uvicorn tells nobody
        await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[Server, asyncio.Task[None], int]]:
    """uvicorn with our protocol in place of its own."""

    class Mine(Ours):
        made = []

    Ours.made = Mine.made
    config = uvicorn.Config(app, http=cast(Any, Mine), lifespan="off", log_config=None, loop="none")
    server = Server(config)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(server.serve(sockets=[sock]))
        await until(lambda: server.started)
        yield server, task, sock.getsockname()[1]
        server.should_exit = True


async def test_a_protocol_of_ours_is_made_for_each_connection_with_four_arguments() -> None:
    """By name: ``Config(http=…)`` takes any callable."""
    async with serving() as (server, _, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: Ours.made)
        arguments = Ours.made[0].arguments
        assert set(arguments) == {"config", "server_state", "app_state", "_loop"}
        assert arguments["config"] is server.config
        assert arguments["server_state"] is server.server_state
        writer.close()


async def test_a_connection_handed_over_late_is_served_with_what_was_read_before() -> None:
    """And goes on as if uvicorn's protocol had had it from the beginning."""
    async with serving() as (_, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_who_stands_is_told_of_the_end_and_waited_for() -> None:
    """By way of ``server_state.connections``."""
    async with serving() as (server, task, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: Ours.made and server.server_state.connections)
        (ours,) = Ours.made
        server.should_exit = True
        await ours.is_told.wait()
        await asyncio.sleep(0)
        assert not task.done()
        ours.transport.close()
        await task
        writer.close()
