"""HTTP through the gateway, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.core.errors import InvalidRequest
from gateway.core.model import Address
from gateway.proxy.http import Ended, ForwardOutcome
from gateway.proxy.upstream import UpstreamCut, UpstreamInvalid, UpstreamRefused, UpstreamTimeout

if TYPE_CHECKING:
    from conftest import Head, Rig, Wire

# uvloop swallows the signal of the usual method.
pytestmark = pytest.mark.timeout(20, method="thread")
GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MIB = 1024 * 1024
BLOCK = bytes(range(256)) * 256  # 64 KiB


def blocks(count: int) -> bytes:
    """The checksum of *count* blocks."""
    total = hashlib.sha256()
    for _ in range(count):
        total.update(BLOCK)
    return total.digest()


async def always_ok(wire: Wire, _: int) -> None:
    """An Actor that answers whatever comes."""
    while True:
        await wire.message()
        await wire.write(OK)


async def outcome(rig: Rig) -> ForwardOutcome:
    """What became of the request."""
    got = await rig.forwarded.get()
    assert isinstance(got, ForwardOutcome), got
    return got


async def test_connections_are_kept(rig: Rig) -> None:
    """Requests one after the other go over one connection to the Actor, from however many callers."""
    await rig.actor(always_ok)
    for _ in range(5):
        head, body = await rig.ask(GET)
        assert (head.status, body) == (200, b"ok")
    assert rig.connections == 1


async def test_outcome(rig: Rig) -> None:
    """The outcome tells status, sizes and the time of the first byte."""
    await rig.actor(always_ok)
    before = rig.upstreams.loop.time()
    await rig.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
    got = await outcome(rig)
    assert (got.ended, got.status, got.bytes_up, got.bytes_down) == (Ended.COMPLETE, 200, 3, 2)
    assert got.first_byte_at is not None
    assert before <= got.first_byte_at <= rig.upstreams.loop.time()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(b"/", b"/", id="the root"),
        pytest.param(b"/a%2Fb%23%3F/%E4//c", b"/a%2Fb%23%3F/%E4//c", id="encoded"),
        pytest.param(b"/a?x=&x=1&y&z=%26", b"/a?x=&x=1&y&z=%26", id="empty values and repeated keys"),
        pytest.param(b"/a?token=greenroom_api_secret", b"/a", id="our token"),
        pytest.param(b"/a?b=%2F&token=t&c=", b"/a?b=%2F&c=", id="our token among others"),
        pytest.param(b"/a?xtoken=1", b"/a?xtoken=1", id="a look-alike"),
        pytest.param(b"/../a/./b", b"/../a/./b", id="dots"),
    ],
)
async def test_raw_targets(rig: Rig, target: bytes, expected: bytes) -> None:
    """The target reaches the Actor as it was sent, less our token."""
    seen: list[bytes] = []

    async def script(wire: Wire, _: int) -> None:
        seen.append((await wire.head()).target)
        await wire.write(OK)

    await rig.actor(script)
    await rig.ask(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    assert seen == [expected]


async def test_headers_both_ways(rig: Rig) -> None:
    """Order and duplicates stay, hop-by-hop headers and our credentials don't, and nothing is made up."""
    seen: list[Head] = []

    async def script(wire: Wire, _: int) -> None:
        seen.append(await wire.head())
        await wire.write(
            b"HTTP/1.1 200 Fine\r\nX-B: 1\r\nSet-Cookie: a=1; Domain=example\r\nX-A: \xe4\r\nSet-Cookie: b=2\r\n"
            b"Keep-Alive: timeout=5\r\nX-Gone: 1\r\nConnection: X-Gone\r\nX-B: 2\r\nContent-Length: 0\r\n\r\n"
        )

    await rig.actor(script)
    head, _ = await rig.ask(
        b"GET / HTTP/1.1\r\nX-B: 1\r\nHost: h:1\r\nCookie: a=1\r\nAuthorization: Bearer greenroom_api_secret\r\n"
        b"X-A: 2\r\nCookie: b=2\r\nX-B: 3\r\nConnection: X-Gone\r\nX-Gone: 1\r\nX-Forwarded-For: 6.6.6.6\r\n"
        b"X-Actor-Request-ID: forged\r\n\r\n"
    )
    assert seen[0].headers == [
        (b"x-b", b"1"), (b"host", b"h:1"), (b"cookie", b"a=1"), (b"x-a", b"2"), (b"cookie", b"b=2"), (b"x-b", b"3"),
        (b"x-forwarded-for", b"127.0.0.1"), (b"x-forwarded-host", b"h:1"), (b"x-forwarded-proto", b"http"),
        (b"forwarded", b'for=127.0.0.1;host="h:1";proto=http'), (b"via", b"1.1 greenroom"),
        (b"x-actor-request-id", b"fresh"),
    ]  # fmt: skip
    assert head.headers == [
        (b"x-b", b"1"), (b"set-cookie", b"a=1"), (b"x-a", b"\xe4"), (b"set-cookie", b"b=2"), (b"x-b", b"2"),
        (b"content-length", b"0"),
    ]  # fmt: skip


async def test_path_form(rig: Rig) -> None:
    """The path form strips its prefix and puts the answer into a sandbox."""
    seen: list[bytes] = []

    async def script(wire: Wire, _: int) -> None:
        seen.append((await wire.head()).target)
        await wire.write(OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=1\r\n\r\n"))

    await rig.actor(script)
    rig.plan = replace(rig.plan, prefix="/standby/b--h", is_sandboxed=True)
    head, _ = await rig.ask(b"GET /standby/b--h?token=x HTTP/1.1\r\nHost: h\r\n\r\n")
    assert seen == [b"/"]
    assert head.headers == [(b"content-length", b"2"), (b"content-security-policy", b"sandbox")]


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


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", id="bare line feeds"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", id="length twice"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", id="both framings"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", id="head too long"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", id="101 unasked"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="broken in the first read"),
    ],
)
async def test_what_is_not_http(rig: Rig, answer: bytes) -> None:
    """Answers that can't be trusted are refused whole, before anything reached the caller."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(answer)
        await wire.eof()

    await rig.actor(script)
    assert (await rig.ask(GET))[1] == b"UpstreamInvalid"
    assert isinstance(await rig.forwarded.get(), UpstreamInvalid)


async def test_no_first_byte_in_time(rig: Rig) -> None:
    """The deadline for the first byte holds, and the Actor's connection is cut."""
    ended = asyncio.Event()

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.eof()
        ended.set()

    await rig.actor(script)
    rig.first_byte_secs = 0.2
    assert (await rig.ask(GET))[1] == b"UpstreamTimeout"
    assert isinstance(await rig.forwarded.get(), UpstreamTimeout)
    await ended.wait()


HEAD = b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(
    ("request_head", "answer", "length"),
    [
        pytest.param(HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"9", id="HEAD"),
        pytest.param(HEAD, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None, id="HEAD, chunked"),
        pytest.param(GET, b"HTTP/1.1 204 No Content\r\n\r\n", None, id="204"),
        pytest.param(GET, b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", None, id="204 with a length"),
        pytest.param(GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: x\r\n\r\n", None, id="304"),
    ],
)
async def test_answers_without_body(rig: Rig, request_head: bytes, answer: bytes, length: bytes | None) -> None:
    """They end with their head, and both connections serve the next request."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(answer)
        await always_ok(wire, 1)

    await rig.actor(script)
    client = await rig.client()
    await client.write(request_head)
    assert (await client.head()).one(b"content-length") == length
    await client.write(GET)
    assert (await client.message())[1] == b"ok"
    assert rig.connections == 1


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


async def test_informational_answers_are_not_final(rig: Rig) -> None:
    """100 and 103 may come first, in any number."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        await wire.write(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)

    await rig.actor(script)
    assert (await rig.ask(GET))[1] == b"ok"


async def test_expect_continue_is_the_actors_to_grant(rig: Rig) -> None:
    """The caller's 100 comes when the Actor says so, and then the body goes up."""
    granted = asyncio.Event()

    async def script(wire: Wire, _: int) -> None:
        head = await wire.head()
        assert head.one(b"expect") == b"100-continue"
        granted.set()
        await wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + await wire.body(head))

    await rig.actor(script)
    client = await rig.client()
    await client.write(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert (await client.head()).status == 100
    assert granted.is_set()
    await client.write(b"abc")
    assert (await client.message())[1] == b"abc"


async def test_expect_continue_is_the_actors_to_refuse(rig: Rig) -> None:
    """An Actor that refuses the body by its head alone is heard before a 100 was said."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(b"HTTP/1.1 417 x\r\nContent-Length: 2\r\n\r\nno")
        await wire.eof()

    await rig.actor(script)
    head, body = await rig.ask(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert (head.status, body, head.one(b"connection")) == (417, b"no", b"close")


async def test_expect_continue_without_a_word(rig: Rig) -> None:
    """An Actor that knows no 100 gets the body after a moment all the same."""

    async def script(wire: Wire, _: int) -> None:
        head = await wire.head()
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + await wire.body(head))

    await rig.actor(script)
    client = await rig.client()
    await client.write(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert (await client.head()).status == 100
    await client.write(b"abc")
    assert (await client.message())[1] == b"abc"


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


async def test_two_hosts_are_refused(rig: Rig) -> None:
    """A request that may not be passed on reaches no Actor."""
    await rig.actor(always_ok)
    assert (await rig.ask(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"))[1] == b"InvalidRequest"
    assert isinstance(await rig.forwarded.get(), InvalidRequest)
    assert rig.connections == 0


async def test_a_slow_answer_is_watched(rig: Rig) -> None:
    """An answer that takes longer than the first moment, and one whose body follows later, come whole."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await asyncio.sleep(0.1)
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await asyncio.sleep(0.1)
        await wire.write(b"k")
        await wire.eof()

    await rig.actor(script)
    assert (await rig.ask(GET))[1] == b"ok"
    assert rig.upstreams.idle_connections(rig.plan.address) == 1
