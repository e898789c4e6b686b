"""WebSockets through the gateway, over real sockets: Actor and client are those of ``websockets``, or raw where odd."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from gateway.core.model import Address
from gateway.proxy.upstream import UpstreamDropped, UpstreamInvalid, UpstreamRefused
from gateway.proxy.websocket import ClosedBy, RelayOutcome

if TYPE_CHECKING:
    from conftest import Rig, Wire

MIB = 1024 * 1024
MAX_MESSAGE_BYTES = 100_000
# uvloop swallows the signal of the usual method.
pytestmark = pytest.mark.timeout(20, method="thread")
SWITCH = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@contextlib.asynccontextmanager
async def actor(
    rig: Rig, handler: Callable[[ServerConnection], Awaitable[None]], **options: Any
) -> AsyncIterator[None]:
    """*handler* as the Actor."""
    options = {"ping_interval": None, "close_timeout": 2, "max_size": None, **options}
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        rig.plan = replace(rig.plan, address=Address(host="127.0.0.1", port=port))
        yield


def client(rig: Rig, path: str = "/ws", **options: Any) -> connect:
    """A client of the gateway; without compression, so that sizes are what they seem."""
    options = {"compression": None, "ping_interval": None, "close_timeout": 2, "max_size": None, **options}
    return connect(f"ws://127.0.0.1:{rig.port}{path}", proxy=None, **options)


async def echo(socket: ServerConnection) -> None:
    """Says back what it hears."""
    async for message in socket:
        await socket.send(message)


async def wait_for_close(socket: ServerConnection) -> None:
    """Until the other side closes."""
    with contextlib.suppress(ConnectionClosed):
        async for _ in socket:
            pass


async def outcome(rig: Rig) -> RelayOutcome:
    """What became of the socket."""
    got = await rig.relayed.get()
    assert isinstance(got, RelayOutcome), got
    return got


async def closed(socket: ClientConnection) -> tuple[int | None, str | None]:
    """How the client's socket was closed."""
    with contextlib.suppress(ConnectionClosed):
        async for _ in socket:
            pass
    return socket.close_code, socket.close_reason


async def test_text_and_binary(rig: Rig) -> None:
    """Messages of both kinds, empty and large, pass both ways as they are, and count as activity."""
    async with actor(rig, echo), client(rig) as socket:
        for message in ("", "tök", b"", b"\x00\xff", "x" * MAX_MESSAGE_BYTES, b"y" * MAX_MESSAGE_BYTES):
            await socket.send(message)
            assert await socket.recv() == message
        assert rig.activity == 12
    got = await outcome(rig)
    assert (got.status, got.messages_up, got.messages_down, got.closed_by) == (101, 6, 6, ClosedBy.CLIENT)
    assert got.first_byte_at is not None


async def test_compression_is_between_client_and_gateway(rig: Rig) -> None:
    """A client may compress; the Actor is offered no extension and hears the same."""
    async with actor(rig, echo), client(rig, compression="deflate") as socket:
        await socket.send("x" * MAX_MESSAGE_BYTES)
        assert await socket.recv() == "x" * MAX_MESSAGE_BYTES
        assert socket.protocol.extensions


async def test_fragments_become_messages(rig: Rig) -> None:
    """A message in fragments arrives whole, either way."""

    async def handler(socket: ServerConnection) -> None:
        assert await socket.recv() == "abc"
        await socket.send([b"d", b"", b"ef"])

    async with actor(rig, handler), client(rig) as socket:
        await socket.send(["a", "b", "c"])
        assert await socket.recv() == b"def"


async def test_the_actors_handshake(rig: Rig) -> None:
    """The Actor sees the raw target and the client's headers without our token; the client sees the Actor's cookies."""
    seen: dict[str, Any] = {}

    async def handler(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.update(path=socket.request.path, headers=socket.request.headers)
        await wait_for_close(socket)

    def add_headers(_: ServerConnection, __: Any, response: Any) -> None:
        response.headers["Set-Cookie"] = "a=1; Domain=0.0.1"
        response.headers["Set-Cookie"] = "b=2"

    headers = {"Cookie": "c=1", "X-Actor-Request-ID": "forged", "Authorization": "Bearer greenroom_api_secret"}
    options = {"additional_headers": headers, "origin": "http://o", "user_agent_header": "me"}
    async with (
        actor(rig, handler, process_response=add_headers),
        client(rig, "/w%2Fs;p?token=t&a=", **options) as socket,
    ):
        assert socket.response is not None
        assert socket.response.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
        assert len(socket.response.headers.get_all("Date")) == 1
    got = seen["headers"]
    assert seen["path"] == "/w%2Fs;p?a="
    assert (got["Host"], got["Origin"], got["User-Agent"]) == (f"127.0.0.1:{rig.port}", "http://o", "me")
    assert (got["Cookie"], got["X-Actor-Request-ID"], got["X-Forwarded-For"]) == ("c=1", "fresh", "127.0.0.1")
    assert "Authorization" not in got
    assert "Sec-WebSocket-Extensions" not in got


@pytest.mark.parametrize(
    ("offered", "spoken", "chosen"),
    [
        pytest.param(["b", "a"], ["a"], "a", id="the Actor's choice"),
        pytest.param(["b", "a"], None, None, id="the Actor speaks none"),
        pytest.param(None, None, None, id="none offered"),
    ],
)
async def test_subprotocols(rig: Rig, offered: list[str] | None, spoken: list[str] | None, chosen: str | None) -> None:
    """The client gets the subprotocol that the Actor chose."""
    async with actor(rig, wait_for_close, subprotocols=spoken), client(rig, subprotocols=offered) as socket:
        assert socket.subprotocol == chosen


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        pytest.param(1000, "bye", (1000, "bye"), id="normal"),
        pytest.param(4321, "grüße", (4321, "grüße"), id="an Actor's own code"),
        pytest.param(1012, "", (1012, ""), id="restart"),
    ],
)
async def test_the_actor_closes(rig: Rig, code: int, reason: str, expected: tuple[int, str]) -> None:
    """Code and reason of the Actor reach the client."""

    async def handler(socket: ServerConnection) -> None:
        await socket.close(code, reason)

    async with actor(rig, handler), client(rig) as socket:
        assert await closed(socket) == expected
    got = await outcome(rig)
    assert (got.closed_by, got.code, got.reason) == (ClosedBy.ACTOR, code, reason)


@pytest.mark.parametrize(
    ("code", "reason"),
    [pytest.param(1000, "bye", id="normal"), pytest.param(1001, "", id="away"), pytest.param(4001, "x", id="own code")],
)
async def test_the_client_closes(rig: Rig, code: int, reason: str) -> None:
    """Code and reason of the client reach the Actor."""
    heard: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()

    async def handler(socket: ServerConnection) -> None:
        await wait_for_close(socket)
        heard.put_nowait((socket.close_code, socket.close_reason))

    async with actor(rig, handler):
        async with client(rig) as socket:
            await socket.close(code, reason)
        assert await heard.get() == (code, reason)
    assert (await outcome(rig)).code == code


async def test_a_client_that_vanishes(rig: Rig) -> None:
    """The Actor's side is closed at once when the client's connection is cut."""
    ended = asyncio.Event()

    async def handler(socket: ServerConnection) -> None:
        await wait_for_close(socket)
        ended.set()

    async with actor(rig, handler), client(rig) as socket:
        socket.transport.abort()
        async with asyncio.timeout(1):
            await ended.wait()
    assert (await outcome(rig)).closed_by is ClosedBy.CLIENT


async def test_an_actor_that_vanishes(rig: Rig) -> None:
    """The client is told 1011 when the Actor's connection is cut."""

    async def handler(socket: ServerConnection) -> None:
        await socket.send("last words")
        assert await socket.recv() == "ok"
        socket.transport.abort()

    async with actor(rig, handler), client(rig) as socket:
        assert await socket.recv() == "last words"
        await socket.send("ok")
        assert await closed(socket) == (1011, "run ended")
    got = await outcome(rig)
    assert (got.closed_by, got.code) == (ClosedBy.ACTOR, 1006)


async def test_what_was_said_before_the_close_arrives(rig: Rig) -> None:
    """Messages sent right before a close are not lost, though the client reads late."""

    async def handler(socket: ServerConnection) -> None:
        for number in range(50):
            await socket.send(str(number))

    async with actor(rig, handler), client(rig, max_queue=None) as socket:
        await socket.wait_closed()
        heard = [message async for message in socket]
    assert heard == [str(number) for number in range(50)]


async def test_draining_says_goodbye(rig: Rig) -> None:
    """When the run is drained both sides are told 1001."""
    heard: asyncio.Queue[int | None] = asyncio.Queue()

    async def handler(socket: ServerConnection) -> None:
        await wait_for_close(socket)
        heard.put_nowait(socket.close_code)

    async with actor(rig, handler), client(rig) as socket:
        rig.closing.set()
        assert await closed(socket) == (1001, "going away")
        assert await heard.get() == 1001
    got = await outcome(rig)
    assert (got.closed_by, got.code) == (ClosedBy.GATEWAY, 1001)


async def test_both_sides_are_told_to_come_again(rig: Rig) -> None:
    """Where that is why somebody closes; who asked for it first is heard."""
    heard: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()

    async def handler(socket: ServerConnection) -> None:
        await wait_for_close(socket)
        heard.put_nowait((socket.close_code, socket.close_reason))

    async with actor(rig, handler), client(rig) as socket:
        rig.closing.set(1012, "restarting")
        rig.closing.set()
        assert await closed(socket) == (1012, "restarting")
        assert await heard.get() == (1012, "restarting")


async def test_a_message_too_big_from_the_client(rig: Rig) -> None:
    """Beyond the limit both sides are closed with 1009, and the Actor gets nothing of it."""
    heard: asyncio.Queue[Any] = asyncio.Queue()

    async def handler(socket: ServerConnection) -> None:
        await wait_for_close(socket)
        heard.put_nowait(socket.close_code)

    async with actor(rig, handler), client(rig) as socket:
        await socket.send(b"x" * (MAX_MESSAGE_BYTES + 1))
        assert await closed(socket) == (1009, "message too big")
        assert await heard.get() == 1009
    got = await outcome(rig)
    assert (got.closed_by, got.code, got.messages_up) == (ClosedBy.GATEWAY, 1009, 0)


async def test_a_message_far_too_big_from_the_client(rig: Rig) -> None:
    """Beyond the server's own limit the server closes, and the Actor learns of it."""
    async with actor(rig, wait_for_close), client(rig) as socket:
        with contextlib.suppress(ConnectionClosed):
            await socket.send(b"x" * (3 * MAX_MESSAGE_BYTES))
        assert (await closed(socket))[0] == 1009
    assert (await outcome(rig)).code == 1009


async def test_a_message_too_big_from_the_actor(rig: Rig) -> None:
    """The limit holds the other way too, also for a message in fragments."""

    async def handler(socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await socket.send([b"x" * 60_000, b"x" * 60_000])
        await wait_for_close(socket)
        assert socket.close_code == 1009

    async with actor(rig, handler), client(rig) as socket:
        assert await closed(socket) == (1009, "message too big")
    got = await outcome(rig)
    assert (got.closed_by, got.code, got.messages_down) == (ClosedBy.GATEWAY, 1009, 0)


async def test_invalid_text_from_the_actor(rig: Rig) -> None:
    """Text that is no UTF-8 closes with 1007."""

    async def handler(socket: ServerConnection) -> None:
        await socket.send(b"\xff", text=True)
        await wait_for_close(socket)

    async with actor(rig, handler), client(rig) as socket:
        assert (await closed(socket))[0] == 1007


async def settled(progress: list[int]) -> int:
    """The sum of *progress* once it has stood still for a while."""
    while True:
        before = sum(progress)
        await asyncio.sleep(0.3)
        if sum(progress) == before:
            return before


async def test_a_slow_client_slows_the_actor(rig: Rig) -> None:
    """What the client doesn't read stays with the Actor; then all of it comes."""
    sent: list[int] = []

    async def handler(socket: ServerConnection) -> None:
        for number in range(1000):
            await socket.send(bytes([number % 256]) * 65536)
            sent.append(65536)
        await wait_for_close(socket)

    async with actor(rig, handler), client(rig, max_queue=1) as socket:
        assert await settled(sent) < 24 * MIB
        for number in range(1000):
            assert await socket.recv() == bytes([number % 256]) * 65536


async def test_a_slow_actor_slows_the_client(rig: Rig) -> None:
    """What the Actor doesn't read stays with the client; then all of it comes."""
    may_read = asyncio.Event()
    sent: list[int] = []
    heard: list[int] = []

    async def handler(socket: ServerConnection) -> None:
        await may_read.wait()
        async for message in socket:
            heard.append(len(message))
            if len(heard) == 1000:
                await socket.send("all")

    async with actor(rig, handler, max_queue=1), client(rig) as socket:

        async def upload() -> None:
            for number in range(1000):
                await socket.send(bytes([number % 256]) * 65536)
                sent.append(65536)

        async with asyncio.TaskGroup() as group:
            group.create_task(upload())
            in_between = await settled(sent)
            may_read.set()
        assert in_between < 24 * MIB
        assert await socket.recv() == "all"
    assert sum(heard) == 1000 * 65536


async def test_pings_are_no_activity(rig: Rig) -> None:
    """Pings of either side are answered, and count for nothing."""

    async def handler(socket: ServerConnection) -> None:
        await (await socket.ping())
        await socket.send("pong came")
        await wait_for_close(socket)

    async with actor(rig, handler), client(rig) as socket:
        assert await socket.recv() == "pong came"
        await (await socket.ping())
        assert rig.activity == 1


async def test_refused_upgrades_pass(rig: Rig) -> None:
    """The Actor's own answer to the handshake reaches the client: status, headers, body."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(
            b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nX-A: 1\r\nX-A: 2\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nno,\r\n4\r\n no!\r\n0\r\n\r\n"
        )

    await rig.actor(script)
    with pytest.raises(InvalidStatus) as refused:
        await client(rig)
    response = refused.value.response
    assert (response.status_code, bytes(response.body)) == (403, b"no, no!")
    assert response.headers.get_all("X-A") == ["1", "2"]
    assert response.headers["Content-Type"] == "application/json"
    got = await outcome(rig)
    assert (got.status, got.closed_by) == (403, ClosedBy.REFUSED)


async def test_a_redirect_is_not_followed(rig: Rig) -> None:
    """A redirect is the client's to follow."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")

    await rig.actor(script)
    wire = await rig.client()
    await wire.write(
        b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    head = await wire.head()
    assert (head.status, head.one(b"location")) == (302, b"/elsewhere")
    assert rig.connections == 1


async def test_nothing_listens(rig: Rig) -> None:
    """Before the client was answered, a refused connection is told to admission."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    rig.plan = replace(rig.plan, address=Address(host="127.0.0.1", port=server.sockets[0].getsockname()[1]))
    server.close()
    with pytest.raises(InvalidStatus) as refused:
        await client(rig)
    assert bytes(refused.value.response.body) == b"UpstreamRefused"
    assert isinstance(await rig.relayed.get(), UpstreamRefused)


def accepted(key: bytes) -> bytes:
    """The right Sec-WebSocket-Accept."""
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        pytest.param(SWITCH + b"Sec-WebSocket-Accept: x\r\n", "Accept", id="accept"),
        pytest.param(b"Connection: Upgrade\r\n", "no upgrade", id="no upgrade"),
        pytest.param(b"Upgrade: websocket\r\n", "no upgrade", id="no connection"),
        pytest.param(
            SWITCH + b"Sec-WebSocket-Accept: KEY\r\nSec-WebSocket-Protocol: z\r\n",
            "subprotocol",
            id="a subprotocol that nobody offered",
        ),
        pytest.param(
            SWITCH + b"Sec-WebSocket-Accept: KEY\r\nSec-WebSocket-Extensions: z\r\n",
            "extensions",
            id="an extension that nobody offered",
        ),
    ],
)  # fmt: skip
async def test_broken_handshakes(rig: Rig, lines: bytes, problem: str) -> None:
    """A 101 that is not the answer to our handshake opens nothing."""

    async def script(wire: Wire, _: int) -> None:
        key = (await wire.head()).one(b"sec-websocket-key")
        assert key is not None
        await wire.write(b"HTTP/1.1 101 x\r\n" + lines.replace(b"KEY", accepted(key)) + b"\r\n")
        await wire.eof()

    await rig.actor(script)
    with pytest.raises(InvalidStatus) as refused:
        await client(rig, subprotocols=["a"])
    assert bytes(refused.value.response.body) == b"UpstreamInvalid"
    error = await rig.relayed.get()
    assert isinstance(error, UpstreamInvalid)
    assert problem in str(error)


async def test_a_dropped_handshake(rig: Rig) -> None:
    """An Actor that hangs up on the handshake is told as dropped."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()

    await rig.actor(script)
    with pytest.raises(InvalidStatus):
        await client(rig)
    assert isinstance(await rig.relayed.get(), UpstreamDropped)


async def test_frames_right_behind_the_handshake(rig: Rig) -> None:
    """What the Actor sends together with its 101 is part of the conversation."""

    async def script(wire: Wire, _: int) -> None:
        key = (await wire.head()).one(b"sec-websocket-key")
        assert key is not None
        await wire.write(
            b"HTTP/1.1 101 x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Accept: "
            + accepted(key)
            + b"\r\n\r\n\x81\x02hi\x88\x00"
        )
        await wire.eof()

    await rig.actor(script)
    async with client(rig) as socket:
        assert await socket.recv() == "hi"
        # A close without a code can't be said in ASGI: 1000 is the nearest.
        assert await closed(socket) == (1000, "")
    got = await outcome(rig)
    assert (got.closed_by, got.code) == (ClosedBy.ACTOR, 1005)


async def test_a_client_that_leaves_during_the_handshake(rig: Rig) -> None:
    """The Actor's side is cut when nobody waits for its answer any more."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        began.set()
        await wire.eof()
        ended.set()

    await rig.actor(script)
    wire = await rig.client()
    key = base64.b64encode(os.urandom(16))
    await wire.write(
        b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    await began.wait()
    await wire.close()
    async with asyncio.timeout(1):
        await ended.wait()
    got = await outcome(rig)
    assert (got.status, got.closed_by) == (None, ClosedBy.CLIENT)


async def test_an_actor_that_never_closes(rig: Rig) -> None:
    """An Actor that ignores our close frame is cut after a moment."""
    ended = asyncio.Event()

    async def script(wire: Wire, _: int) -> None:
        key = (await wire.head()).one(b"sec-websocket-key")
        assert key is not None
        await wire.write(
            b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: "
            + accepted(key)
            + b"\r\n\r\n"
        )
        await wire.eof()
        ended.set()

    await rig.actor(script)
    async with client(rig) as socket:
        await socket.close()
        async with asyncio.timeout(3):
            await ended.wait()
    assert (await outcome(rig)).closed_by is ClosedBy.CLIENT


async def test_a_close_is_an_error_only_where_it_is_one(rig: Rig) -> None:
    """The client library takes 1011 for an error, as it should."""

    async def handler(socket: ServerConnection) -> None:
        socket.transport.abort()

    async with actor(rig, handler), client(rig) as socket:
        with pytest.raises(ConnectionClosedError):
            await socket.recv()
