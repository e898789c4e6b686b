"""Links that are slow, cut or refused, over real sockets, and the caller whose every outcome is a value."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from loadtests.chaos_caller import Caller, closing
from loadtests.chaos_servers import free_ports, listens
from loadtests.chaos_wire import Link, wired

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
WITHIN_SECS = 5.0


@asynccontextmanager
async def linked(answer: bytes = ANSWER) -> AsyncIterator[tuple[Link, list[bytes]]]:
    """A link to a server that answers each head with *answer*, and the heads that it has seen."""
    seen: list[bytes] = []

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            while True:
                seen.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer)
        except (OSError, EOFError):
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    (port,) = free_ports(1)
    link = Link(port, server.sockets[0].getsockname()[1])
    await link.set("pass")
    try:
        yield link, seen
    finally:
        await link.close()
        server.close()
        if serving:
            await asyncio.wait(serving)


async def ask(caller: Caller, within_secs: float = WITHIN_SECS):
    return await caller.ask("GET", "/", host="localhost", within_secs=within_secs)


async def test_a_link_passes_all_on():
    """Several requests by one connection."""
    async with linked() as (link, seen):
        caller = Caller(link.port)
        with closing(caller):
            assert [(await ask(caller)).body for _ in range(3)] == [b"ok"] * 3
        assert len(seen) == 3


async def test_a_slow_link_delays_answers():
    """Each answer comes later, by what was said and not by much more."""
    async with linked() as (link, _):
        await link.set("delay", 0.3)
        caller = Caller(link.port)
        with closing(caller):
            began = time.monotonic()
            assert (await ask(caller)).status == 200
        assert 0.3 <= time.monotonic() - began < 2


async def test_a_link_that_holds_is_a_partition():
    """Nothing passes; what was sent meanwhile arrives when it has healed, and is answered then."""
    async with linked() as (link, seen):
        caller = Caller(link.port)
        with closing(caller):
            await ask(caller)
            await link.set("hold")
            async with asyncio.TaskGroup() as group:
                late = group.create_task(ask(caller))
                stranger = Caller(link.port)
                with closing(stranger):
                    assert "no answer within" in (await ask(stranger, 0.2)).problem
                assert len(seen) == 1
                await link.set("pass")
            assert late.result().status == 200


async def test_a_link_that_refuses_has_no_connections():
    """Those that were there are reset, new ones are refused; afterwards it is as before."""
    async with linked() as (link, _):
        caller = Caller(link.port)
        with closing(caller):
            await ask(caller)
            await link.set("refuse")
            assert not listens(link.port)
            problem = (await ask(caller)).problem
            assert "Incomplete" in problem or "Connection" in problem
            await link.set("pass")
            assert (await ask(caller)).status == 200


def test_wires_are_a_process_that_does_as_it_is_told():
    """Orders by name, to the links that they name and no other."""
    target, one, two = free_ports(3)
    with socket.create_server(("127.0.0.1", target)), wired({"one": (one, target), "two": (two, target)}) as wires:
        assert listens(one)
        wires.set("refuse", "one")
        assert (listens(one), listens(two)) == (False, True)
        wires.set("pass", "one", "two")
        assert listens(one)


@pytest.mark.parametrize(
    ("answer", "status", "body", "problem"),
    [
        pytest.param(ANSWER, 200, b"ok", "", id="by length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, b"ok", "", id="chunked"
        ),
        pytest.param(
            b'HTTP/1.1 503 No\r\nContent-Length: 30\r\n\r\n{"error": {"type": "no-runs"}}',
            503,
            b'{"error": {"type": "no-runs"}}',
            "503 no-runs",
            id="a typed refusal",
        ),
        pytest.param(
            b"HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\nnope", 502, b"nope", "502 nope", id="an untyped one"
        ),
        pytest.param(b"nonsense\r\n\r\n", None, b"", "Error", id="no HTTP"),
    ],
)
async def test_answers_are_values(answer, status, body, problem):
    """Whatever comes, it is told and not raised."""
    async with linked(answer) as (link, _):
        caller = Caller(link.port)
        with closing(caller):
            reply = await ask(caller)
        assert (reply.status, reply.body) == (status, body)
        assert problem in reply.problem
        assert bool(reply.problem) == bool(problem)
