"""Clients over HTTP/2 that take nothing of what they are answered: nobody works for them without end."""

from __future__ import annotations

import asyncio

from http2.rig import CANCEL, POST, Call, client_of, serving, until
from hyperframe.frame import WindowUpdateFrame


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
