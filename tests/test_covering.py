"""A worker that covers other lanes: a real parent's end of the line, real listening sockets, a real server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from certificates import Authority
from proxy.suite.stage import open_stand

from gateway.serve_children import Worker
from gateway.worker_place import ParentLine
from gateway.worker_server import Server, Tls

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Lane:
    """The sockets of another lane, as the parent holds them: a connection that nobody accepts waits there."""

    def __init__(self, number: int, stack: contextlib.ExitStack) -> None:
        self.number = number
        self.plain, self.tls = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))

    async def ask(self, context: ssl.SSLContext | None = None) -> bytes:
        """All that is answered to a request on a new connection."""
        sock = self.plain if context is None else self.tls
        reader, writer = await asyncio.open_connection(
            *sock.getsockname(), ssl=context, server_hostname="localhost" if context else None
        )
        try:
            writer.write(GET)
            return await reader.read()
        finally:
            writer.close()


class World:
    """A worker's server, the parent's end of its line, and two other lanes."""

    def __init__(self, server: Server, parent: Worker, line: ParentLine, lanes: list[Lane], client: ssl.SSLContext):
        self.server = server
        self.parent = parent
        self.line = line
        self.lanes = lanes
        self.client = client

    def cover(self, lane: Lane) -> None:
        self.parent.cover(lane.number, [lane.plain], [lane.tls])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    authority = Authority()
    chain, key = authority.write(tmp_path / "tls", "localhost", "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    with contextlib.ExitStack() as stack:
        ours, theirs = map(stack.enter_context, socket.socketpair())
        lanes = [Lane(number, stack) for number in (1, 2)]
        parent = Worker(None, ours, None)  # type: ignore[arg-type] - only its line is there
        line = ParentLine(theirs)
        line.listen()
        async with open_stand(tmp_path) as stand, asyncio.timeout(30), asyncio.TaskGroup() as group:
            server = Server(stand.gateway, lambda *_: False, Tls([], context))
            own = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            serving = group.create_task(server.serve(sockets=[own]))
            await server.has_started(serving)
            covering = group.create_task(server.cover_lanes(line.covers))
            yield World(server, parent, line, lanes, authority.client())
            covering.cancel()
            server.should_exit = server.force_exit = True
            await serving
            asyncio.get_running_loop().remove_reader(theirs.fileno())


async def test_a_covered_lane_is_served(world: World) -> None:
    """With TLS and without, also what had connected before; several lanes at once."""
    first, second = world.lanes
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(first.ask())
        await asyncio.sleep(0)
        world.cover(first)
        world.cover(second)
    assert waiting.result().startswith(b"HTTP/1.1 200")
    for lane in (first, second):
        assert (await lane.ask()).startswith(b"HTTP/1.1 200")
        assert (await lane.ask(world.client)).startswith(b"HTTP/1.1 200")


async def test_an_uncovered_lane_is_left_to_its_own_worker(world: World) -> None:
    """What connects then waits for that one, and is not lost; the other lane is covered as before."""
    first, second = world.lanes
    world.cover(first)
    world.cover(second)
    assert await first.ask()
    world.parent.uncover(first.number)
    assert await second.ask()
    while first.number in world.server._covered:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.005)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(first.ask())
        assert await second.ask()
        assert not waiting.done()
        connection, _ = await asyncio.get_running_loop().sock_accept(_unblocking(first.plain))
        with connection:
            connection.setblocking(True)
            assert connection.recv(4096) == GET
            connection.sendall(b"from its own worker")
    assert waiting.result() == b"from its own worker"


async def test_who_hands_over_leaves_covered_lanes_too(world: World) -> None:
    """They are the next cover's; nothing of them stays open here."""
    lane = world.lanes[0]
    world.cover(lane)
    assert await lane.ask()
    await world.server.stop_accepting([], 0.1)
    assert world.server._covered == {}
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(lane.ask())
        connection, _ = await asyncio.get_running_loop().sock_accept(_unblocking(lane.plain))
        connection.close()
    assert waiting.result() == b""


async def test_a_line_that_is_cut_or_joined_is_understood(world: World) -> None:
    """Words of the parent come in any pieces; descriptors belong to the cover that they came with."""
    first, second = world.lanes
    world.parent.control.sendall(b"unco")
    world.parent.control.sendall(b"ver: 7\ngo\n")
    world.cover(first)
    world.parent.control.sendall(b"uncover: 7\n")
    world.cover(second)
    world.parent.say("hand over")
    await world.line.hand_over.wait()
    assert world.line.go.is_set()
    for lane in world.lanes:
        assert (await lane.ask(world.client)).startswith(b"HTTP/1.1 200")


def _unblocking(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock
