"""The readiness probe against real servers that are late, slow, rude or not there."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from autoscaler.launchers import readiness
from autoscaler.launchers.readiness import next_interval, wait_until_serving
from gateway.core.model import Address

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, port: int = 0) -> AsyncIterator[Address]:
    """A server whose connections *handler* has; they are closed when it returns."""
    handling: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.add(asyncio.current_task())
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", port)
    try:
        yield Address(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for one in handling:
            one.cancel()
        await asyncio.gather(*handling)


@pytest.fixture
def free() -> Address:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Address(host="127.0.0.1", port=probe.getsockname()[1])


def answering(text: bytes) -> Handler:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()

    return answer


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nhello", 200, id="fine"),
        pytest.param(b"HTTP/1.0 404 Not Found\r\n\r\n", 404, id="no page there: serves all the same"),
        pytest.param(b"HTTP/1.1 500 Oops\r\n\r\n", 500, id="broken: serves, and the caller may warn"),
        pytest.param(b"HTTP/1.1 302\r\n\r\n", 302, id="no reason phrase"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000, 200, id="long page"),
    ],
)
async def test_any_http_answer_is_serving(answer, status):
    """Whatever the status, a server that speaks HTTP serves."""
    async with serving(answering(answer)) as address:
        result = await wait_until_serving(address, timeout_secs=10)
    assert (result.status, result.is_serving, result.problem) == (status, True, None)


async def test_question():
    """The probe is a GET of / with its header, a Host, and a connection that ends with it."""
    asked = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(answer) as address:
        await wait_until_serving(address, timeout_secs=10)
    (question,) = asked
    line, *headers = question.decode().split("\r\n")[:-2]
    assert line == "GET / HTTP/1.1"
    assert {"x-apify-container-server-readiness-probe: 1", f"Host: {address}", "Connection: close"} <= set(headers)


async def test_noticed_soon_after_listen(free):
    """A server that begins to listen is found within milliseconds (the median of some; a busy machine may be late)."""
    delays = []
    for _ in range(9):
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(wait_until_serving(free, timeout_secs=10))
            await asyncio.sleep(0.02)
            async with serving(answering(b"HTTP/1.1 200 OK\r\n\r\n"), free.port):
                listens_at = time.monotonic()
                assert (await waiting).is_serving
                delays.append(time.monotonic() - listens_at)
    assert sorted(delays)[4] < 0.03


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        pytest.param(answering(b"SSH-2.0-OpenSSH_9\r\n"), "is not HTTP", id="another protocol"),
        pytest.param(answering(b""), "does not answer", id="hangs up"),
        pytest.param(answering(b"HTTP"), "does not answer", id="hangs up in the middle"),
    ],
)
async def test_not_serving(handler, problem):
    """What isn't an HTTP answer isn't serving, and the result says what is wrong."""
    async with serving(handler) as address:
        result = await wait_until_serving(address, timeout_secs=0.1)
    assert (result.status, result.is_serving) == (None, False)
    assert problem in (result.problem or "")
    assert 0.1 <= result.waited_secs < 5


async def test_nobody_there(free):
    """Where nothing ever listens the result says so after the timeout."""
    result = await wait_until_serving(free, timeout_secs=0.05)
    assert result.problem == f"nothing listens on port {free.port} of {free.host}"


async def test_garbage_first(free):
    """A server that is rude while it starts is asked again."""
    answers = [b"", b"what?-what?-what?", b"HTTP/1.1 200 OK\r\n\r\n"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop(0))

    async with serving(answer) as address:
        assert (await wait_until_serving(address, timeout_secs=10)).status == 200
    assert answers == []


async def test_slow_answer_is_waited_for_by_few_connections(monkeypatch):
    """A server that accepts but is slow is asked by at most two connections, and the first one's answer counts."""
    monkeypatch.setattr(readiness, "_ANSWER_SECS", 0.02)
    open_now, most, first = 0, 0, asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        is_first = not first.is_set()
        first.set()
        try:
            await reader.readuntil(b"\r\n\r\n")
            if is_first:
                await asyncio.sleep(0.3)
                writer.write(b"HTTP/1.1 201 Created\r\n\r\n")
            else:
                await reader.read()
        finally:
            open_now -= 1

    async with serving(answer) as address:
        assert (await wait_until_serving(address, timeout_secs=10)).status == 201
    assert 2 <= most <= 3  # the server may hear of the end of one after the beginning of the next


async def test_later_question_may_be_answered_first(monkeypatch):
    """A first connection that hangs for ever, as with a server that lost it while starting, hinders nothing."""
    monkeypatch.setattr(readiness, "_ANSWER_SECS", 0.02)
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        if asked == 1:
            await reader.read()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with serving(answer) as address:
        assert (await wait_until_serving(address, timeout_secs=10)).status == 200


async def test_cancelled(free):
    """A probe whose run has ended meanwhile is simply cancelled."""
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(wait_until_serving(free, timeout_secs=60))
        await asyncio.sleep(0.02)
        waiting.cancel()
    assert waiting.cancelled()


@pytest.mark.parametrize(
    ("elapsed_secs", "first_secs", "expected"),
    [
        pytest.param(0, 0.002, 0.002, id="at once"),
        pytest.param(0.1, 0.002, 0.002, id="eager while a quick server starts"),
        pytest.param(0.6, 0.002, 0.01, id="a sixtieth of the time so far"),
        pytest.param(3, 0.002, 0.05, id="sparing later on"),
        pytest.param(100, 0.002, 0.25, id="at most a quarter of a second"),
        pytest.param(100, 0.5, 0.5, id="unless that was asked for"),
    ],
)
def test_next_interval(elapsed_secs, first_secs, expected):
    """Eager while a quick server starts, sparing with one that takes long."""
    assert next_interval(elapsed_secs, first_secs) == expected
