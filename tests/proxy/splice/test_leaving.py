"""What callers see of a gateway that leaves its place to another: each request that has come is answered, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from proxy.splice.test_front import GET, PATHS, Bench, hello, opened

LIMIT_SECS = 10


@pytest.fixture(params=PATHS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """A gateway, by each path."""
    async with opened(tmp_path, request.param) as bench:
        yield bench


async def test_answers_say_that_they_are_the_last(bench: Bench) -> None:
    """Then the connection is closed, and no request is lost to it."""
    await bench.actor(hello)
    reader, writer = await bench.connect()
    writer.write(GET)
    await reader.readuntil(b"hello")
    bench.stand.server.say_last()
    writer.write(GET)
    async with asyncio.timeout(LIMIT_SECS):
        answer = await reader.read()
    assert b"connection: close" in answer.lower()
    assert answer.endswith(b"hello")


async def test_what_came_in_one_write_is_all_answered(bench: Bench) -> None:
    """And only the last answer says that it is the last."""
    await bench.actor(hello)
    bench.stand.server.say_last()
    reader, writer = await bench.connect()
    writer.write(GET * 3)
    async with asyncio.timeout(LIMIT_SECS):
        answers = (await reader.read()).lower()
    assert answers.count(b"hello") == 3
    assert answers.count(b"connection: close") == 1
    assert b"connection: close" in answers.rpartition(b"http/1.1 200")[2]


async def test_no_connection_ends_without_notice(bench: Bench) -> None:
    """At whichever moment what lies idle is closed: the last answer before the end says that it is the last."""
    await bench.actor(hello)
    bench.stand.server.say_last()
    for turns in range(40):
        reader, writer = await bench.connect()
        writer.write(GET * 4)
        for _ in range(turns):
            await asyncio.sleep(0)
        for one in [one for one in bench.stand.server.server_state.connections if one.has_asked]:
            one.shutdown()
        async with asyncio.timeout(LIMIT_SECS):
            answers = (await reader.read()).lower()
        assert b"connection: close" in answers.rpartition(b"http/1.1 200")[2], turns


async def test_who_asks_on_before_he_can_know_is_not_reset(bench: Bench) -> None:
    """A reset could destroy the answer on its way; what came too late is left without one."""
    await bench.actor(hello)
    bench.stand.server.say_last()
    reader, writer = await bench.connect()
    writer.write(GET)
    async with asyncio.timeout(LIMIT_SECS):
        assert (await reader.read()).endswith(b"hello")
    for _ in range(3):  # the second one meets what the first one has done
        writer.write(GET)
    assert not writer.transport.is_closing()


async def test_a_connection_that_has_not_asked_yet_is_served(bench: Bench) -> None:
    """It was accepted, so nobody else can; what has been idle since its last answer is closed."""
    actor = await bench.actor(hello)
    idle, writer = await bench.connect()
    writer.write(GET)
    await idle.readuntil(b"hello")
    fresh, writer = await bench.connect()
    connections = bench.stand.gateway.splicing.lobby.connections
    await bench.until(lambda: len(connections) == 2)
    server = bench.stand.server
    server.say_last()
    async with asyncio.timeout(LIMIT_SECS), asyncio.TaskGroup() as group:
        leaving = group.create_task(server.stop_accepting([bench.stand.listening], LIMIT_SECS))
        assert await idle.read() == b""
        assert not leaving.done()
        writer.write(GET)
        answer = await fresh.read()
    assert b"connection: close" in answer.lower()
    assert answer.endswith(b"hello")
    assert actor.made == 1


async def test_a_request_under_way_is_answered(bench: Bench) -> None:
    """After everything idle was closed; its answer says that it is the last."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await may_answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    asked, may_answer = asyncio.Event(), asyncio.Event()
    await bench.actor(slow)
    reader, writer = await bench.connect()
    writer.write(GET)
    async with asyncio.timeout(LIMIT_SECS):
        await asked.wait()
        bench.stand.server.say_last()
        await bench.stand.server.stop_accepting([bench.stand.listening], LIMIT_SECS)
        may_answer.set()
        answer = await reader.read()
    assert answer.endswith(b"hello")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", bench.stand.port)
