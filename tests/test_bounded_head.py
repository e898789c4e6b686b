"""The head of a request has a bound, over a real socket; what stays below it is uvicorn's alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.bounded_head import BoundedHead
from gateway.proxy.splice.lobby import Lobby
from gateway.settings import Settings

MAX_HEAD_BYTES = 65_536


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server that answers each request with the number of its headers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = str(len(scope["headers"])).encode()
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(app, lifespan="off", log_config=None, server_header=False)
    config.load()
    state, loop, lobby = ServerState(), asyncio.get_running_loop(), Lobby(Settings())
    server = await loop.create_server(lambda: BoundedHead(config, state, {}, loop, lobby=lobby), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=5)


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
