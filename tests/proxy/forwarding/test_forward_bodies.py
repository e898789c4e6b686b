"""HTTP through the gateway, over real sockets: bodies both ways, with back-pressure, and how they end."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from proxy.forwarding.asking import GET, always_ok, outcome

from gateway.proxy.http import Ended
from gateway.proxy.upstream import UpstreamCut

if TYPE_CHECKING:
    from conftest import Rig, Wire

# uvloop swallows the signal of the usual method.
pytestmark = pytest.mark.timeout(20, method="thread")
MIB = 1024 * 1024
BLOCK = bytes(range(256)) * 256  # 64 KiB


def blocks(count: int) -> bytes:
    """The checksum of *count* blocks."""
    total = hashlib.sha256()
    for _ in range(count):
        total.update(BLOCK)
    return total.digest()


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_large_bodies_up(rig: Rig, is_chunked: bool) -> None:
    """10 MiB reach the Actor byte for byte."""

    async def script(wire: Wire, _: int) -> None:
        head, body = await wire.message()
        assert head.one(b"transfer-encoding" if is_chunked else b"content-length") is not None
        digest = hashlib.sha256(body).hexdigest().encode()
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + digest)
        await wire.eof()

    await rig.actor(script)
    client = await rig.client()
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % (10 * MIB)
    await client.write(b"POST / HTTP/1.1\r\nHost: h\r\n" + framing + b"\r\n\r\n")
    for _ in range(160):
        await client.write(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK) if is_chunked else BLOCK)
    if is_chunked:
        await client.write(b"0\r\n\r\n")
    head, body = await client.message()
    assert (head.status, body) == (200, blocks(160).hex().encode())
    assert (await outcome(rig)).bytes_up == 10 * MIB
    assert rig.upstreams.idle_connections(rig.plan.address) == 1


@pytest.mark.parametrize("framing", ["length", "chunked", "until-eof"])
async def test_large_bodies_down(rig: Rig, framing: str) -> None:
    """10 MiB reach the caller byte for byte, whatever frames them."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        lines = {"length": b"Content-Length: %d\r\n" % (10 * MIB), "chunked": b"Transfer-Encoding: chunked\r\n"}
        await wire.write(b"HTTP/1.1 200 OK\r\n" + lines.get(framing, b"") + b"\r\n")
        for _ in range(160):
            await wire.write(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK) if framing == "chunked" else BLOCK)
        if framing == "chunked":
            await wire.write(b"0\r\n\r\n")
        if framing != "until-eof":
            await wire.eof()

    await rig.actor(script)
    head, body = await rig.ask(GET)
    assert head.one(b"content-length") == (b"%d" % (10 * MIB) if framing == "length" else None)
    assert hashlib.sha256(body).digest() == blocks(160)
    assert rig.upstreams.idle_connections(rig.plan.address) == (0 if framing == "until-eof" else 1)


async def settled(progress: list[int]) -> int:
    """The sum of *progress* once it has stood still for a while."""
    while True:
        before = sum(progress)
        await asyncio.sleep(0.3)
        if sum(progress) == before:
            return before


async def test_a_slow_reader_slows_the_actor(rig: Rig) -> None:
    """What a caller doesn't read stays with the Actor, not in our memory; then all of it comes."""
    written: list[int] = []

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
        for _ in range(1024):
            await wire.write(BLOCK)
            written.append(len(BLOCK))
        await wire.eof()

    await rig.actor(script)
    client = await rig.client()
    await client.write(GET)
    head = await client.head()
    # The kernel's buffers of two connections hold some MiB; ours hold half of one.
    assert await settled(written) < 24 * MIB
    assert hashlib.sha256(await client.body(head)).digest() == blocks(1024)
    assert rig.upstreams.idle_connections(rig.plan.address) == 1


async def test_a_slow_actor_slows_the_caller(rig: Rig) -> None:
    """What an Actor doesn't read stays with the caller; then all of it comes, and the pair works on."""
    may_read = asyncio.Event()

    async def script(wire: Wire, _: int) -> None:
        head = await wire.head()
        await may_read.wait()
        total = hashlib.sha256(await wire.body(head)).hexdigest().encode()
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + total)
        await always_ok(wire, 1)

    await rig.actor(script)
    client = await rig.client()
    written: list[int] = []

    async def upload() -> None:
        await client.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
        for _ in range(1024):
            await client.write(BLOCK)
            written.append(len(BLOCK))

    async with asyncio.TaskGroup() as group:
        group.create_task(upload())
        in_between = await settled(written)
        may_read.set()
    assert in_between < 24 * MIB
    _, body = await client.message()
    assert body == blocks(1024).hex().encode()
    for _ in range(20):
        assert (await rig.ask(GET))[1] == b"ok"
    assert rig.connections == 1


async def test_events_pass_at_once(rig: Rig) -> None:
    """Each event of a stream reaches the caller before the next one is made."""
    tick = asyncio.Event()

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            await tick.wait()
            tick.clear()
            event = b"data: %d\n\n" % number
            await wire.write(b"%x\r\n%b\r\n" % (len(event), event))
        await wire.write(b"0\r\n\r\n")
        await wire.eof()

    await rig.actor(script)
    client = await rig.client()
    await client.write(GET)
    head = await client.head()
    assert head.status == 200
    tick.set()
    seen = []
    async for chunk in client.chunks():
        seen.append(chunk)
        tick.set()
    assert seen == [b"data: %d\n\n" % number for number in range(5)]


async def test_both_ways_at_once(rig: Rig) -> None:
    """An Actor may answer while it still reads: each piece comes back before the next one is sent."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        async for chunk in wire.chunks():
            await wire.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await wire.write(b"0\r\n\r\n")

    await rig.actor(script)
    client = await rig.client()
    await client.write(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.head()
    echoes = client.chunks()
    for word in (b"one", b"two", b"three"):
        await client.write(b"%x\r\n%b\r\n" % (len(word), word))
        assert await anext(echoes) == word
    await client.write(b"0\r\n\r\n")
    assert [chunk async for chunk in echoes] == []


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", id="length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n", id="chunked"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\n", id="before the last line"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n", id="broken chunk"),
    ],
)
@pytest.mark.parametrize("is_slow", [False, True], ids=["at once", "later"])
async def test_cut_answers_look_cut(rig: Rig, answer: bytes, is_slow: bool) -> None:
    """An answer that breaks off ends for the caller without its last bytes, and nothing shows in the log."""
    seen_by_client = asyncio.Event()

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        cut = answer.index(b"part") + 4
        await wire.write(answer[:cut])
        await (asyncio.sleep(0.1) if is_slow else seen_by_client.wait())
        await wire.write(answer[cut:])

    await rig.actor(script)
    client = await rig.client()
    await client.write(GET)
    head = await client.head()
    seen_by_client.set()
    with pytest.raises(asyncio.IncompleteReadError):
        await client.body(head)
    assert isinstance(await rig.forwarded.get(), UpstreamCut)
    assert rig.upstreams.idle_connections(rig.plan.address) == 0


async def test_a_reset_cuts_a_body_until_eof(rig: Rig) -> None:
    """A body that ends with the connection is whole after a close, and cut after a reset."""
    seen_by_client = asyncio.Event()

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(b"HTTP/1.1 200 OK\r\n\r\npart")
        await seen_by_client.wait()
        sock = wire.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a close is a reset
        wire.abort()

    await rig.actor(script)
    client = await rig.client()
    await client.write(GET)
    await client.head()
    seen_by_client.set()
    with pytest.raises(asyncio.IncompleteReadError):
        async for _ in client.chunks():
            pass
    assert isinstance(await rig.forwarded.get(), UpstreamCut)


async def test_a_stream_that_stands_still_is_cut(rig: Rig) -> None:
    """With a stream idle limit, silence in the middle of an answer ends it, visibly."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
        await wire.eof()

    await rig.actor(script)
    rig.plan = replace(rig.plan, stream_idle_timeout_secs=0.2)
    client = await rig.client()
    await client.write(GET)
    head = await client.head()
    with pytest.raises(asyncio.IncompleteReadError):
        await client.body(head)
    error = await rig.forwarded.get()
    assert isinstance(error, UpstreamCut)
    assert "for 0.2 s" in str(error)


@pytest.mark.parametrize("when", ["before the head", "in the body", "in the upload"])
async def test_a_caller_who_leaves_frees_the_actor(rig: Rig, when: str) -> None:
    """The Actor sees the end of its connection within a second, and nothing is said of an error."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        if when == "in the body":
            await wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        began.set()
        await wire.eof()
        ended.set()

    await rig.actor(script)
    client = await rig.client()
    await client.write(
        GET if when != "in the upload" else b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"
    )
    await began.wait()
    if when == "in the body":
        await client.head()
    await client.close()
    async with asyncio.timeout(1):
        await ended.wait()
    assert (await outcome(rig)).ended is Ended.CALLER_GONE


@pytest.mark.parametrize("closes", [False, True], ids=["reads on", "closes"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_early_answers(rig: Rig, is_chunked: bool, closes: bool) -> None:
    """An Actor that refuses a large body early is heard, though the caller is still sending; nothing is kept."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.reader.read(1024)
        if is_chunked:
            await wire.write(b"HTTP/1.1 413 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbig\r\n0\r\n\r\n")
        else:
            await wire.write(b"HTTP/1.1 413 x\r\nContent-Length: 3\r\n\r\nbig")
        if not closes:
            await wire.eof()

    await rig.actor(script)
    client = await rig.client()
    await client.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (8 * MIB))
    for _ in range(128):
        await client.write(BLOCK)
    head, body = await client.message()
    assert (head.status, body, head.one(b"connection")) == (413, b"big", b"close")
    assert await client.eof() == b""
    assert rig.upstreams.idle_connections(rig.plan.address) == 0


async def test_an_early_answer_to_a_caller_who_waits(rig: Rig) -> None:
    """The answer comes whole within its time even where the caller never sends the rest."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(b"HTTP/1.1 413 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbig\r\n0\r\n\r\n")
        await wire.eof()

    await rig.actor(script)
    _, body = await rig.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nabc")
    assert body == b"big"
