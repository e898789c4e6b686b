"""WebSockets through a real Greenroom to an Actor that uses a real library, and other upgrades to one that has none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from journeys.greenroom import TOKEN, Greenroom, eventually, workers_of
from journeys.socket_actor import NAME, past, push, raw_socket, through
from proxy.splice.tunnel_rig import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Got, frame
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]  # servers of their own

MIB = 1024 * 1024
LIMIT = 16 * MIB
ROOM = {"desiredRequestsPerActorRun": 100, "maxRequestsPerActorRun": 100}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def greenroom(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Greenroom]:
    """One server with one warm Actor."""
    async with Greenroom(tmp_path_factory.mktemp("websockets") / "data") as server:
        await push(server, standby=ROOM)
        await server.call(NAME)
        yield server


async def told(greenroom: Greenroom, line: str, name: str = NAME) -> None:
    """Until the Actor has noted *line*."""
    run_id = await run_of(greenroom, name)

    async def is_there() -> bool:
        return line in await greenroom.log_of(run_id)

    await eventually(is_there, what=f"{line!r} in the Actor's log")


async def run_of(greenroom: Greenroom, name: str = NAME) -> str:
    """The id of the newest run of an Actor."""
    (actor,) = [one for one in (await greenroom.data_of("GET", "/actors?my=1"))["items"] if one["name"] == name]
    return str((await greenroom.runs_of(actor))[-1]["id"])


async def closed(socket: Any) -> tuple[int, str]:
    """The code and the reason of the close frame that the caller gets."""
    with contextlib.suppress(ConnectionClosed):
        async for _ in socket:
            pass
    received = socket.protocol.close_rcvd
    assert received is not None, "no close frame came"
    return received.code, received.reason


# -- what the two ends agree on ----------------------------------------------------------------------------------------


async def test_subprotocols_are_the_ends_business(greenroom: Greenroom) -> None:
    """The Actor sees all that were offered and takes the last, and the caller hears of that."""
    async with greenroom.websocket(NAME, "/", subprotocols=["first", "second"]) as socket:
        assert socket.subprotocol == "second"
    async with greenroom.websocket(NAME, "/") as socket:
        assert socket.subprotocol is None


async def test_extensions_are_the_ends_business(greenroom: Greenroom) -> None:
    """Compression with just the parameters that caller and Actor agreed on; messages come out as they went in."""
    offer = ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_max_window_bits=11)
    async with greenroom.websocket(NAME, "/", compression=None, extensions=[offer], max_size=None) as socket:
        (agreed,) = socket.protocol.extensions
        assert (agreed.remote_no_context_takeover, agreed.local_max_window_bits) == (True, 11)
        for message in ("word " * 200_000, os.urandom(MIB), "", b""):
            await socket.send(message)
            assert await socket.recv() == message


async def test_the_limit_counts_what_is_on_the_wire(greenroom: Greenroom) -> None:
    """32 MiB less a little, compressed to some kilobytes, are no message of more than 16 MiB."""
    async with greenroom.websocket(NAME, "/lengths", compression="deflate") as socket:
        await socket.send(bytes(31 * MIB))
        assert await socket.recv() == str(31 * MIB)


# -- what passes -------------------------------------------------------------------------------------------------------


async def test_fragments_stay_fragments(greenroom: Greenroom) -> None:
    """Each frame of the Actor is one for the caller."""
    async with raw_socket(await through(greenroom), "/fragments") as socket:
        frames = [await socket.get() for _ in range(4)]
        assert [(got.opcode, got.is_final) for got in frames] == [
            (TEXT, False),
            (CONTINUATION, False),
            (CONTINUATION, False),
            (CONTINUATION, True),
        ]
        assert b"".join(got.payload for got in frames) == b"abc"


async def test_pings_of_the_caller_are_answered_by_the_actor(greenroom: Greenroom) -> None:
    """Also amid one of its messages."""
    async with raw_socket(await through(greenroom)) as socket:
        socket.send(TEXT, b"half", is_final=False)
        socket.send(PING, b"there?")
        assert await socket.get() == Got(PONG, b"there?", True)
        socket.send(CONTINUATION, b" and half")
        assert await socket.get() == Got(TEXT, b"half and half", True)


async def test_pings_of_the_actor_are_answered_by_the_caller(greenroom: Greenroom) -> None:
    """Nobody answers them for him: the Actor waits until he does."""
    async with raw_socket(await through(greenroom), "/ping") as socket:
        assert await socket.get() == Got(PING, b"from the Actor", True)
        socket.send(PING, b"still there?")
        assert await socket.get() == Got(PONG, b"still there?", True)
        socket.send(PONG, b"from the Actor")
        assert await socket.get() == Got(TEXT, b"pong", True)


async def test_16_mib_pass_and_not_a_byte_more(greenroom: Greenroom) -> None:
    """A longer message, of either side, closes both with 1009."""
    async with raw_socket(await through(greenroom), "/lengths") as socket:
        socket.send(BINARY, bytes(LIMIT))
        assert (await socket.get()).payload == str(LIMIT).encode()
        socket.send(BINARY, bytes(LIMIT + 1))
        got = await socket.get()
        assert (got.code, str(LIMIT) in got.reason) == (1009, True)
    await told(greenroom, "/lengths was closed with 1009 ")
    async with raw_socket(await through(greenroom), f"/large?bytes={LIMIT}") as socket:
        assert len((await socket.get()).payload) == LIMIT
    async with raw_socket(await through(greenroom), f"/large?bytes={LIMIT + 1}") as socket:
        assert (await socket.get()).code == 1009
    await told(greenroom, "/large was closed with 1009 ")


# -- how it ends -------------------------------------------------------------------------------------------------------


async def test_close_codes_pass_both_ways(greenroom: Greenroom) -> None:
    """With their reasons."""
    async with greenroom.websocket(NAME, "/close?code=4001&reason=as+you+wish") as socket:
        assert await closed(socket) == (4001, "as you wish")
    async with greenroom.websocket(NAME, "/") as socket:
        await socket.close(4002, "that will do")
        assert socket.protocol.close_rcvd.code == 4002  # the Actor's answer
    await told(greenroom, "/ was closed with 4002 that will do")


async def test_a_caller_that_vanishes_is_going_away(greenroom: Greenroom) -> None:
    """The Actor hears of 1001, not of a broken connection."""
    async with raw_socket(await through(greenroom), "/gone") as socket:
        socket.send(TEXT, b"hello")
        await socket.get()
        socket.reset()
    await told(greenroom, "/gone was closed with 1001 ")


async def test_an_actor_that_cuts_its_socket_is_an_error(greenroom: Greenroom) -> None:
    """The caller hears of 1011, not of a broken connection."""
    async with greenroom.websocket(NAME, "/die") as socket:
        await socket.send("now")
        assert await closed(socket) == (1011, "run ended")


async def test_a_run_that_is_killed_is_an_error(greenroom: Greenroom) -> None:
    """The same, when its whole process is gone."""
    await push(greenroom, "killed")
    port = (await past(greenroom, "killed")).port
    async with greenroom.websocket("killed", "/") as socket:
        await socket.send("hello")
        await socket.recv()
        (pid,) = {one.pid for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.laddr.port == port}
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert (await closed(socket))[0] == 1011


@pytest.mark.parametrize("gracefully", [False, True], ids=["at once", "gracefully"])
async def test_a_run_that_is_aborted_says_goodbye(greenroom: Greenroom, gracefully: bool) -> None:
    """At once, and before its process is gone: the caller hears 1001, and his next socket is another run's."""
    name = f"aborted-{gracefully}".lower()
    actor = await push(greenroom, name)
    async with greenroom.websocket(name, "/") as socket:
        await socket.send("hello")
        await socket.recv()
        (run,) = await greenroom.runs_of(actor)
        await greenroom.data_of("POST", f"/actor-runs/{run['id']}/abort?gracefully={int(gracefully)}")
        assert await closed(socket) == (1001, "going away")
    async with greenroom.websocket(name, "/") as socket:
        await socket.send("again")
        assert await socket.recv() == "again"
    assert (await greenroom.ended(run["id"], within_secs=60))["status"] == "ABORTED"


async def test_a_run_that_is_drained_says_goodbye_amid_a_message(tmp_path: Path) -> None:
    """The caller has had one frame of an unfinished message: 1001 comes between two frames, and no other code."""
    async with Greenroom(tmp_path / "data", settings={"drain_timeout_secs": 2}) as server:
        await push(server, standby=ROOM)
        async with raw_socket(await through(server), "/fragments") as socket:
            while (await socket.get()).payload != b"begun, ":
                pass
            await push(server, standby=ROOM, addition="# anew")
            async with asyncio.timeout(30):
                got = await socket.get()
            assert (got.opcode, got.code) == (CLOSE, 1001)
            socket.close(1001)
            assert await socket.rest() == b""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param(lambda server: server.stop(), 1001, id="stop"),
        pytest.param(lambda server: server.command("reload"), 1012, id="reload"),
    ],
)
async def test_greenroom_says_goodbye(tmp_path: Path, end: Callable[[Greenroom], Any], code: int) -> None:
    """To the caller and to the Actor: going away where it stops, a restart where it reloads."""
    async with Greenroom(tmp_path / "data") as server:
        await push(server, standby=ROOM)
        async with raw_socket(await through(server), "/goodbye") as socket, asyncio.TaskGroup() as group:
            socket.send(TEXT, b"hello")
            assert (await socket.get()).payload == b"hello"
            socket.send(TEXT, b"unfinished", is_final=False)
            group.create_task(end(server))
            got = await socket.get()
            assert (got.opcode, got.code) == (CLOSE, code)
            socket.close(code)
            assert await socket.rest() == b""
        if code == 1012:
            await told(server, "/goodbye was closed with 1012 ")


# -- an upgrade that is refused ----------------------------------------------------------------------------------------


async def test_a_refused_upgrade_is_an_answer_like_any_other(greenroom: Greenroom) -> None:
    """With the Actor's status and body; then the connection serves on, upgrades included."""
    place = await through(greenroom)
    with pytest.raises(InvalidStatus) as refused:
        async with greenroom.websocket(NAME, "/refuse"):
            pass
    assert (refused.value.response.status_code, refused.value.response.body) == (403, b"not here")
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
    lines = "\r\n".join(place.headers)
    upgrade = f"{lines}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\r\n"
    async with asyncio.timeout(20):
        for request, status, body in (
            (f"GET /refuse HTTP/1.1\r\n{upgrade}", b"403", b"not here"),
            (f"GET /port HTTP/1.1\r\n{lines}\r\n\r\n", b"200", None),
            (f"GET /refuse HTTP/1.1\r\n{upgrade}", b"403", b"not here"),
        ):
            writer.write(request.encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.split()[1] == status
            length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
            got = await reader.readexactly(length)
            assert body is None or got == body
        writer.write(f"GET / HTTP/1.1\r\n{upgrade}".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(frame(TEXT, b"here", is_masked=True))
        assert await reader.readexactly(6) == frame(TEXT, b"here", is_masked=False)
    writer.close()
    await writer.wait_closed()


# -- slots and numbers -------------------------------------------------------------------------------------------------


async def test_an_open_socket_holds_its_slot(greenroom: Greenroom) -> None:
    """With room for one request, a second run is started beside it; once it is closed, its slot is free again."""
    actor = await push(
        greenroom, "single", {"desiredRequestsPerActorRun": 1, "maxRequestsPerActorRun": 1, "idleTimeoutSecs": 600}
    )

    async def in_flight(count: int) -> None:
        async def is_so() -> bool:
            return await greenroom.metric("greenroom_requests_in_flight") == count

        await eventually(is_so, what=f"{count} open")

    async with greenroom.websocket("single", "/") as socket:
        assert len(await greenroom.runs_of(actor)) == 1
        ports = {(await greenroom.call("single", "/port")).text for _ in range(2)}
        assert len(await greenroom.runs_of(actor)) == 2
        await socket.send("still there")
        assert await socket.recv() == "still there"
        async with greenroom.websocket("single", "/"):
            pass
        await in_flight(1)
    await in_flight(0)

    async def is_free() -> bool:
        sockets = [raw_socket(await through(greenroom, "single")) for _ in range(2)]
        async with sockets[0] as one, sockets[1] as other:
            for each in (one, other):
                each.close()
                await each.rest()
        return True

    assert await is_free()
    assert len(ports) == 1
    assert len(await greenroom.runs_of(actor)) == 2


async def test_the_open_ones_are_counted(greenroom: Greenroom) -> None:
    """By a metric, down to none again."""

    async def has(count: int) -> bool:
        return await greenroom.metric("greenroom_websockets_open") == count

    await eventually(lambda: has(0), what="the end of other tests' sockets")
    async with greenroom.websocket(NAME, "/"):
        await eventually(lambda: has(1), what="one open socket")
        async with greenroom.websocket(NAME, "/"):
            await eventually(lambda: has(2), what="two open sockets")
    await eventually(lambda: has(0), what="no open socket")


@pytest.mark.timeout(240)
async def test_a_thousand_idle_sockets_are_held_for_a_minute(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """All of them echo afterwards, and the server's memory has not grown by more than 25 KiB each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096
    if soft < wanted <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    count = 1000
    async with Greenroom(tmp_path / "data") as server, contextlib.AsyncExitStack() as stack:
        await push(server, standby={"desiredRequestsPerActorRun": 1100, "maxRequestsPerActorRun": 1100})
        place = await through(server)
        await server.call(NAME)
        assert server.process is not None
        (worker,) = [psutil.Process(pid) for pid in workers_of(server.process.pid)]
        async with raw_socket(place) as socket:  # so that what is made once is made
            socket.send(TEXT, b"first")
            await socket.get()
        before = worker.memory_info().rss
        sockets = [await stack.enter_async_context(raw_socket(place)) for _ in range(count)]
        await asyncio.sleep(60)
        grown = worker.memory_info().rss - before
        record_property("kib_per_socket", round(grown / 1024 / count, 1))
        print(f"{count} idle WebSockets: {grown / MIB:.1f} MiB")
        for number, socket in enumerate(sockets):
            socket.send(BINARY, b"%d" % number)
        for number, socket in enumerate(sockets):
            assert await socket.get() == Got(BINARY, b"%d" % number, True)
        assert grown < count * 25 * 1024


# -- other protocols ---------------------------------------------------------------------------------------------------

CHAT = """
import os, socket, threading

def serve(connection):
    stream = connection.makefile("rwb")
    lines = []
    while (line := stream.readline().strip()):
        lines.append(line.lower())
    if b"upgrade: chat" not in lines:
        stream.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nready")
        stream.close()
        return
    stream.write(b"HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: chat\\r\\n\\r\\nwelcome\\n")
    stream.flush()
    heard = stream.read()
    for count in range(3):
        stream.write(heard.upper() + b"\\n")
        stream.flush()
    stream.close()
    connection.close()

server = socket.create_server(("", int(os.environ["ACTOR_WEB_SERVER_PORT"])))
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


async def test_another_protocol_is_a_tunnel_of_bytes(greenroom: Greenroom) -> None:
    """What comes with the Actor's head is not lost, and the end of one direction leaves the other open."""
    await greenroom.probe("chat", main=CHAT)
    reader, writer = await asyncio.open_connection("127.0.0.1", greenroom.port)
    lines = [
        f"Host: {greenroom.host('chat')}",
        f"Authorization: Bearer {TOKEN}",
        "Connection: upgrade",
        "Upgrade: chat",
    ]
    writer.write("\r\n".join(["GET / HTTP/1.1", *lines, "", ""]).encode())
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"upgrade: chat\r\n" in head.lower()
        assert await reader.readline() == b"welcome\n"
        writer.write(b"hello, \x81\x00")
        writer.write(b"bye")
        writer.write_eof()
        assert await reader.read() == (b"hello, \x81\x00bye".upper() + b"\n") * 3
    writer.close()
    await writer.wait_closed()
