"""What a sender that has gone had sent whole is served whole, over a real socket; what it had not, is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.bounded_head import BoundedHead
from gateway.proxy.splice.lobby import Lobby
from gateway.settings import Settings

HEAD = b"PUT /last HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"


@dataclass
class Slow:
    """An app that looks at its requests only when the sender has gone; what it then gets to see."""

    port: int = 0
    state: ServerState = field(default_factory=ServerState)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    seen: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.set()
        while self.state.connections:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.001)
        while True:
            message = await receive()
            self.seen.put_nowait(message)
            if message["type"] == "http.disconnect":
                return


@pytest.fixture
async def slow() -> AsyncIterator[Slow]:
    app = Slow()
    config = uvicorn.Config(app, http=BoundedHead, lifespan="off", log_config=None)
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: BoundedHead(config, app.state, {}, loop, lobby=Lobby(Settings())), "127.0.0.1", 0
    )
    async with server:
        app.port = server.sockets[0].getsockname()[1]
        yield app


@pytest.mark.parametrize(
    ("body", "bodies"),
    [
        pytest.param(b"0123456789", [b"0123456789"], id="whole"),
        pytest.param(b"01234", [], id="cut off"),
    ],
)
async def test_a_request_whose_sender_has_gone(slow: Slow, body: bytes, bodies: list[bytes]) -> None:
    """The body is given once and then the disconnect; of one that was cut off only the disconnect."""
    _, writer = await asyncio.open_connection("127.0.0.1", slow.port)
    writer.write(HEAD + body)
    await asyncio.wait_for(slow.begun.wait(), 10)
    writer.transport.abort()  # type: ignore[attr-defined]
    given = []
    while (message := await asyncio.wait_for(slow.seen.get(), 10))["type"] == "http.request":
        assert message["more_body"] is False
        given.append(message["body"])
    assert given == bodies
