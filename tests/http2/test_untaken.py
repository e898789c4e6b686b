"""Clients over HTTP/2 that take nothing of what they are answered: nobody works for them without end."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
import uvicorn
from http2.rig import CANCEL, LIMIT_SECS, POST, App, Call, client_of, serving, until
from hyperframe.frame import WindowUpdateFrame
from uvicorn.server import ServerState

from gateway.http2.protocol import Http2, Http2Limits


async def test_an_answer_that_nobody_takes_is_given_up() -> None:
    """Its stream is reset, and its app hears of it; credit for others buys no time, and those go on."""
    gate = asyncio.Event()

    async def script(call: Call) -> None:
        if call.scope["method"] == "POST":
            await call.body()
            await call.answer(b"x" * 100_000)
            assert (await call.receive())["type"] == "http.disconnect"
        else:
            await gate.wait()
            await call.answer(b"here")

    async with serving(script, keep_alive_secs=0.05) as server, client_of(server.port) as client:
        client.gives_credit = False
        client.ask(stream=1)
        client.ask(POST, stream=3, body=b"")
        client.send(WindowUpdateFrame(0, 10**6))
        answer = await client.answer(3)
        assert (answer.reset, len(answer.body)) == (CANCEL, 65_535)
        await until(lambda: server.app.calls[1].is_over)
        gate.set()
        assert (await client.answer(1)).body == b"here"


async def test_a_client_that_takes_nothing_at_all_is_cut_off() -> None:
    """And whoever works for it hears of it; one that takes again is not."""
    gate, seen = asyncio.Event(), []

    async def script(call: Call) -> None:
        await call.body()
        await gate.wait()
        await call.answer(b"here")
        seen.append((await call.receive())["type"])

    async with serving(script, keep_alive_secs=0.05) as server, client_of(server.port) as client:
        client.ask()
        await until(lambda: server.app.calls)
        (protocol,) = server.state.connections
        protocol.pause_writing()
        protocol.resume_writing()
        await asyncio.sleep(0.06)  # no less than the timer would have had
        assert not client.is_closed
        client.ask(POST, stream=3, body=b"")
        await until(lambda: len(server.app.calls) == 2)
        protocol.pause_writing()
        gate.set()
        await server.idle()
        assert seen == ["http.disconnect"] * 2
        assert await client.ended() is None


class Deaf:
    """A transport to a client that takes nothing; what is closed in good order would stand for ever."""

    def __init__(self) -> None:
        self.is_aborted = asyncio.Event()
        self.has_closed = False

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def write(self, data: bytes) -> None:
        """It is not taken."""

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """After what is not taken."""

    def is_closing(self) -> bool:
        return self.has_closed

    def close(self) -> None:
        self.has_closed = True

    def abort(self) -> None:
        self.is_aborted.set()


async def test_a_connection_that_is_left_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """In good order; where its client does not take the last words, it is cut off in the end."""
    monkeypatch.setattr("gateway.http2.protocol._LINGER_SECS", 0.0)
    config = uvicorn.Config(cast(Any, App()), lifespan="off", log_config=None)
    config.load()
    deaf, loop = Deaf(), asyncio.get_running_loop()
    protocol = Http2(config, ServerState(), {}, loop, limits=Http2Limits(keep_alive_secs=0.01))
    protocol.connection_made(cast(Any, deaf))
    protocol.data_received(b"this is no preface of HTTP/2, is it")
    async with asyncio.timeout(LIMIT_SECS):
        await deaf.is_aborted.wait()
    assert deaf.has_closed
    protocol.connection_lost(None)
