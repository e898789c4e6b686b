"""HTTP through the gateway, over real sockets: which connection to the Actor is used, and which no more."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from proxy.forwarding.asking import GET, OK, always_ok

from gateway.core.model import Address
from gateway.proxy.upstream import UpstreamRefused

if TYPE_CHECKING:
    from conftest import Rig, Wire

# uvloop swallows the signal of the usual method.
pytestmark = pytest.mark.timeout(20, method="thread")


async def test_connections_are_kept(rig: Rig) -> None:
    """Requests one after the other go over one connection to the Actor, from however many callers."""
    await rig.actor(always_ok)
    for _ in range(5):
        head, body = await rig.ask(GET)
        assert (head.status, body) == (200, b"ok")
    assert rig.connections == 1


@pytest.mark.parametrize(
    "request_head",
    [
        pytest.param(GET, id="GET"),
        pytest.param(b"DELETE / HTTP/1.1\r\nHost: h\r\n\r\n", id="DELETE"),
        pytest.param(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", id="PUT with a small body"),
        pytest.param(
            b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", id="chunked"
        ),
    ],
)
async def test_stale_connections_are_replaced(rig: Rig, request_head: bytes) -> None:
    """20 times the kept connection dies as the next request comes: each is sent once more, on a new one."""
    bodies: list[bytes] = []

    async def script(wire: Wire, _: int) -> None:
        _, body = await wire.message()
        bodies.append(body)
        await wire.write(OK)
        await wire.message()  # taken, and dropped without a word

    await rig.actor(script)
    for _ in range(21):
        head, body = await rig.ask(request_head)
        assert (head.status, body) == (200, b"ok")
    assert rig.connections == 21
    assert len(set(bodies)) == 1


async def test_closed_connections_are_not_used(rig: Rig) -> None:
    """20 times the Actor closes after its answer: even a POST, which can't be repeated, gets through."""

    async def script(wire: Wire, _: int) -> None:
        await wire.message()
        await wire.write(OK)

    await rig.actor(script)
    for _ in range(20):
        head, _ = await rig.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        assert head.status == 200


@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
async def test_what_may_not_be_repeated_is_dropped(rig: Rig, method: bytes) -> None:
    """A request that the Actor may have acted on is told as dropped, not sent again."""
    seen: list[bytes] = []

    async def script(wire: Wire, _: int) -> None:
        await wire.message()
        await wire.write(OK)
        seen.append((await wire.message())[1])

    await rig.actor(script)
    await rig.ask(GET)
    _, body = await rig.ask(method + b" / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
    assert body == b"UpstreamDropped"
    assert (rig.connections, seen) == (1, [b"abc"])


async def test_a_fresh_connection_is_not_tried_twice(rig: Rig) -> None:
    """Only a kept connection may have died of age; an Actor that drops a new one is told so."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()

    await rig.actor(script)
    assert (await rig.ask(GET))[1] == b"UpstreamDropped"
    assert rig.connections == 1


async def test_nothing_listens(rig: Rig) -> None:
    """Without a connection nothing was sent and nothing received: another run may take the request."""
    sock = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    rig.plan = replace(rig.plan, address=Address(host="127.0.0.1", port=sock.sockets[0].getsockname()[1]))
    sock.close()
    assert (await rig.ask(GET))[1] == b"UpstreamRefused"
    assert isinstance(await rig.forwarded.get(), UpstreamRefused)


async def test_leftover_bytes_are_no_next_answer(rig: Rig) -> None:
    """A second answer attached to the first one reaches nobody, and its connection is not used again."""

    async def script(wire: Wire, number: int) -> None:
        await wire.head()
        await wire.write(OK + (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong" if number == 1 else b""))
        await wire.eof()

    await rig.actor(script)
    assert (await rig.ask(GET))[1] == b"ok"
    assert rig.upstreams.idle_connections(rig.plan.address) == 0
    assert (await rig.ask(GET))[1] == b"ok"
    assert rig.connections == 2


async def test_bytes_on_an_idle_connection(rig: Rig) -> None:
    """Bytes that nobody asked for end the connection they came on."""
    go, ended = asyncio.Event(), asyncio.Event()

    async def script(wire: Wire, number: int) -> None:
        await wire.head()
        await wire.write(OK)
        if number == 1:
            await go.wait()
            await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
            await wire.eof()
            ended.set()

    await rig.actor(script)
    assert (await rig.ask(GET))[1] == b"ok"
    go.set()
    await ended.wait()
    assert (await rig.ask(GET))[1] == b"ok"
    assert rig.connections == 2


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")]
)
async def test_connections_that_may_not_be_kept(rig: Rig, answer: bytes) -> None:
    """HTTP/1.0 and ``Connection: close`` end with their answer."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(answer)
        await wire.eof()

    await rig.actor(script)
    head, body = await rig.ask(GET)
    assert (body, head.one(b"connection")) == (b"ok", None)
    assert rig.upstreams.idle_connections(rig.plan.address) == 0


async def test_pipelined_requests_keep_their_order(rig: Rig) -> None:
    """Many requests in one write get their answers in order."""

    async def script(wire: Wire, _: int) -> None:
        while True:
            target = (await wire.head()).target
            await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(target) + target)

    await rig.actor(script)
    client = await rig.client()
    await client.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number for number in range(20)))
    assert [(await client.message())[1] for _ in range(20)] == [b"/%d" % number for number in range(20)]
