"""The client towards runs by itself, where the gateway in front would hide the difference."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from gateway.core.model import Address
from gateway.proxy.headers import CHUNKED
from gateway.proxy.upstream import Abandoned, Exchange, UpstreamDropped, UpstreamRefused, Upstreams

if TYPE_CHECKING:
    from conftest import Rig, Wire

# uvloop swallows the signal of the usual method.
pytestmark = pytest.mark.timeout(20, method="thread")
HEAD = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def always_ok(wire: Wire, _: int) -> None:
    """An Actor that answers whatever comes."""
    while True:
        await wire.head()
        await wire.write(OK)


async def read_all(exchange: Exchange) -> bytes:
    """The whole answer's body; the exchange is given back."""
    try:
        await exchange.head(None)
        return b"".join([piece async for piece in exchange.body()])
    finally:
        exchange.release()


async def get(rig: Rig) -> bytes:
    """One request."""
    return await read_all(await rig.upstreams.send(rig.plan.address, HEAD))


async def test_the_last_used_connection_is_used_next(rig: Rig) -> None:
    """Connections wait in a stack, so that the surplus of a busy moment dies of age."""
    await rig.actor(always_ok)
    first = await rig.upstreams.send(rig.plan.address, HEAD)
    second = await rig.upstreams.send(rig.plan.address, HEAD)
    await read_all(first)
    await read_all(second)
    assert (rig.connections, rig.upstreams.idle_connections(rig.plan.address)) == (2, 2)
    for _ in range(3):
        await get(rig)
    assert (rig.connections, rig.upstreams.idle_connections(rig.plan.address)) == (2, 2)


async def test_of_a_run_that_is_to_stand_still_no_idle_connection_is_kept(rig: Rig) -> None:
    """One in use is; and once it goes on, new ones are kept as ever."""
    await rig.actor(always_ok)
    first = await rig.upstreams.send(rig.plan.address, HEAD)
    await get(rig)
    rig.upstreams.close_idle(rig.plan.address)
    assert rig.upstreams.idle_connections(rig.plan.address) == 0
    assert await read_all(first) == b"ok"
    assert rig.upstreams.idle_connections(rig.plan.address) == 1
    assert await get(rig) == b"ok"
    assert rig.connections == 2


async def test_idle_connections_end(rig: Rig) -> None:
    """What lies idle for its time is closed, though nobody asks for it."""
    ended = asyncio.Event()

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(OK)
        await wire.eof()
        ended.set()

    await rig.actor(script)
    upstreams = Upstreams(idle_secs=0.1)
    await read_all(await upstreams.send(rig.plan.address, HEAD))
    assert upstreams.idle_connections(rig.plan.address) == 1
    async with asyncio.timeout(2):
        await ended.wait()
    assert upstreams.idle_connections(rig.plan.address) == 0
    await upstreams.aclose()


async def test_idle_connections_are_bounded(rig: Rig) -> None:
    """Of many connections to one run only so many are kept."""
    await rig.actor(always_ok)
    upstreams = Upstreams(max_idle_per_address=2)
    exchanges = [await upstreams.send(rig.plan.address, HEAD) for _ in range(5)]
    for exchange in exchanges:
        await read_all(exchange)
    assert upstreams.idle_connections(rig.plan.address) == 2
    await upstreams.aclose()


async def test_an_answer_that_nobody_took_is_not_the_next_one(rig: Rig) -> None:
    """Whoever lets go between head and body leaves no connection behind that still holds the body."""
    await rig.actor(always_ok)
    exchange = await rig.upstreams.send(rig.plan.address, HEAD)
    await exchange.head(None)
    while not exchange.is_over:  # noqa: ASYNC110 - the body has come, and lies there; nobody tells
        await asyncio.sleep(0)
    exchange.release()
    assert rig.upstreams.idle_connections(rig.plan.address) == 0
    before = rig.connections
    await get(rig)
    assert rig.connections == before + 1


async def test_forget(rig: Rig) -> None:
    """After a run's end neither its idle connections nor those in use serve whoever listens there next."""
    await rig.actor(always_ok)
    await get(rig)
    in_use = await rig.upstreams.send(rig.plan.address, HEAD)
    other = await rig.upstreams.send(rig.plan.address, HEAD)
    await read_all(other)
    rig.upstreams.forget(rig.plan.address)
    assert await read_all(in_use) == b"ok"
    assert rig.upstreams.idle_connections(rig.plan.address) == 0
    before = rig.connections
    await get(rig)
    assert rig.connections == before + 1


async def test_a_run_that_vanished_cuts_whoever_waits_for_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is known, and not even the end of the connection came: nobody waits for the first byte's time limit."""
    monkeypatch.setattr("gateway.proxy.upstream._LAST_BYTES_SECS", 0.1)

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.eof()

    await rig.actor(script)
    exchange = await rig.upstreams.send(rig.plan.address, HEAD)
    rig.upstreams.forget(rig.plan.address)
    async with asyncio.timeout(5):
        assert isinstance(await _outcome(exchange), UpstreamDropped)


async def test_a_slow_reader_gets_the_last_answer_of_a_run(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run sent before its end is read whole, however long that takes."""
    monkeypatch.setattr("gateway.proxy.upstream._LAST_BYTES_SECS", 0.05)
    body = b"x" * 3_000_000

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    await rig.actor(script)
    exchange = await rig.upstreams.send(rig.plan.address, HEAD)
    await exchange.head(None)
    rig.upstreams.forget(rig.plan.address)
    await asyncio.sleep(0.3)  # nobody reads meanwhile
    assert b"".join([piece async for piece in exchange.body()]) == body
    exchange.release()


async def test_close_cuts_what_is_under_way(rig: Rig) -> None:
    """After ``aclose`` nothing is left, and whoever waits is told."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.eof()

    await rig.actor(script)
    exchange = await rig.upstreams.send(rig.plan.address, HEAD)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(_outcome(exchange))
        await asyncio.sleep(0)
        await rig.upstreams.aclose()
    assert isinstance(reading.result(), UpstreamDropped)


async def test_abandon_wakes_the_reader(rig: Rig) -> None:
    """Whoever waits for an answer learns that nobody wants it any more."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.eof()

    await rig.actor(script)
    exchange = await rig.upstreams.send(rig.plan.address, HEAD)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(_outcome(exchange))
        await asyncio.sleep(0)
        exchange.abandon()
    assert isinstance(reading.result(), Abandoned)


async def _outcome(exchange: Exchange) -> bytes | Exception:
    try:
        return await read_all(exchange)
    except (UpstreamDropped, Abandoned) as error:
        return error


async def test_no_connection_in_time() -> None:
    """A connect that hangs (here: a listener whose backlog is full) ends within its time as refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        upstreams = Upstreams(connect_timeout_secs=0.2)
        with pytest.raises(UpstreamRefused, match=r"within 0\.2 s"):
            await upstreams.send(Address(host="127.0.0.1", port=listener.getsockname()[1]), HEAD)
        await upstreams.aclose()


@pytest.mark.parametrize("body", [b"abcd", b"ab"], ids=["longer", "shorter"])
async def test_a_body_of_another_length(rig: Rig, body: bytes) -> None:
    """A body that is not as long as announced never runs into the next request."""
    await rig.actor(always_ok)
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"
    exchange = await rig.upstreams.send(rig.plan.address, head, method="POST", body_length=3)
    await exchange.write(body)
    exchange.finish()
    with pytest.raises(UpstreamDropped, match="body than announced"):
        await exchange.head(None)
    exchange.release()
    assert rig.upstreams.idle_connections(rig.plan.address) == 0


async def test_chunks_are_framed(rig: Rig) -> None:
    """A body of unknown length goes out in chunks, an empty piece is none of them."""
    seen: list[bytes] = []

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        seen.extend([chunk async for chunk in wire.chunks()])
        await wire.write(OK)

    await rig.actor(script)
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    exchange = await rig.upstreams.send(rig.plan.address, head, method="POST", body_length=CHUNKED)
    for piece in (b"one", b"", b"two"):
        assert await exchange.write(piece)
    exchange.finish()
    assert await read_all(exchange) == b"ok"
    assert seen == [b"one", b"two"]
