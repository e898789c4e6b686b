"""The holder of events sockets, over real sockets: a client of its own on one side, a worker's link on the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

from gateway import held_socket, sender_choice
from gateway.event_holder import MAX_SOCKETS_PER_RUN, Holder
from gateway.holder_link import Link, open_link
from gateway.holder_messages import (
    Alive,
    Close,
    Dismissed,
    Gone,
    Held,
    Lead,
    LetGo,
    Message,
    Send,
    Take,
    Told,
    Use,
    Watching,
)

RUN = "Ab3dEf6hIj9lMn2pQ"


class Worker:
    """A link and all that it has heard."""

    def __init__(self, rendezvous: socket.socket) -> None:
        self.heard: list[Message] = []
        self.ended = asyncio.Event()
        self._news = asyncio.Event()
        self.link = Link(open_link(rendezvous), self._hear, lambda _: self.ended.set())

    def _hear(self, _link: Link, message: Message, _descriptor: int | None) -> None:
        self.heard.append(message)
        self._news.set()

    async def hears(self, is_it: Callable[[Message], bool]) -> Message:
        """The first message that it has heard, or will, of which this is true; forgotten then, with those before."""
        async with asyncio.timeout(10):
            while True:
                for index, message in enumerate(self.heard):
                    if is_it(message):
                        del self.heard[: index + 1]
                        return message
                self._news.clear()
                await self._news.wait()

    async def is_chosen(self) -> Held:
        """Until it is told all that is held."""
        answer = await self.hears(lambda message: isinstance(message, Held) and message.is_answer)
        assert isinstance(answer, Held)
        return answer

    async def leads(self) -> Held:
        """Say that it serves, and that it watches; the answer."""
        self.link.send(Lead())
        answer = await self.is_chosen()
        self.link.send(Watching())
        return answer


class World:
    """A holder, workers, and clients that connect to a worker's port."""

    def __init__(self, rendezvous: socket.socket) -> None:
        self._rendezvous = rendezvous
        self.stack = contextlib.AsyncExitStack()

    def worker(self) -> Worker:
        worker = Worker(self._rendezvous)
        self.stack.callback(worker.link.close)
        return worker

    async def client(self, worker: Worker, run_id: str = RUN, **options: Any) -> ClientConnection:
        """Connects, and has its connection passed on with the head that it sent."""
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        loop = asyncio.get_running_loop()

        async def pass_on() -> None:
            with listening:
                connection, _ = await loop.sock_accept(listening)
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += await loop.sock_recv(connection, 4096)
                worker.link.send(Take(run_id, head.decode()), os.dup(connection.fileno()))

        async with asyncio.TaskGroup() as group:
            group.create_task(pass_on())
            port = listening.getsockname()[1]
            client = await connect(f"ws://127.0.0.1:{port}/events", proxy=None, ping_interval=None, **options)
        self.stack.push_async_callback(client.close)
        return client


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A holder in this process."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    with ours, theirs:
        async with asyncio.TaskGroup() as group:
            holder = Holder(theirs, group)
            holder.open()
            world = World(ours)
            async with world.stack:
                yield world
            await holder.close()


def frame(name: str, number: int = 0) -> str:
    return f'{{"name":"{name}","data":{{"number":{number}}}}}'


async def test_a_socket_outlives_the_worker_that_accepted_it(world: World) -> None:
    """The next one that leads is told of it, reaches it, and hears when it has gone."""
    first, second = world.worker(), world.worker()
    assert await first.leads() == Held((), is_answer=True)
    client = await world.client(first)
    assert await first.hears(lambda _: True) == Held((RUN,))
    first.link.close()
    assert await second.leads() == Held((RUN,), is_answer=True)
    second.link.send(Send(RUN, "persistState", (frame("persistState"),)))
    assert await client.recv() == frame("persistState")
    await client.close()
    assert await second.hears(lambda _: True) == Gone(RUN)


def measured(number: int) -> Send:
    """A frame of the kind that is sent again and again."""
    return Send(RUN, "systemInfo", (frame("systemInfo", number),))


async def test_of_two_workers_one_sends(world: World) -> None:
    """Both serve and both may pass sockets on; the frames of the one that was not chosen go nowhere."""
    first, second = world.worker(), world.worker()
    await first.leads()
    client = await world.client(second)
    assert await first.hears(lambda _: True) == Held((RUN,))
    assert await second.leads() == Held((), is_answer=True)
    second.link.send(measured(2))
    second.link.send(Told("run", RUN))
    await first.hears(lambda message: isinstance(message, Told))  # hence the frame has come before
    first.link.send(measured(1))
    assert await client.recv() == frame("systemInfo", 1)


async def test_the_death_of_the_one_that_leads_brings_the_other(world: World) -> None:
    """It is told of all that is held, and its frames count from then on."""
    first, second = world.worker(), world.worker()
    await first.leads()
    await second.leads()
    client = await world.client(first)
    first.link.close()
    assert await second.is_chosen() == Held((RUN,), is_answer=True)
    second.link.send(measured(2))
    assert await client.recv() == frame("systemInfo", 2)


async def test_who_lets_go_is_dismissed_once_the_next_one_watches(world: World) -> None:
    """Until then the old one's frames are sent, and both hear of new sockets; afterwards only the new one's."""
    old, new = world.worker(), world.worker()
    await old.leads()
    client = await world.client(old)
    old.link.send(LetGo())
    new.link.send(Lead())
    assert await new.is_chosen() == Held((RUN,), is_answer=True)
    new.link.send(measured(2))
    new.link.send(Told("run", RUN))
    await old.hears(lambda message: isinstance(message, Told))
    old.link.send(measured(1))
    assert await client.recv() == frame("systemInfo", 1)
    again = await world.client(new)
    for worker in (old, new):
        assert await worker.hears(lambda message: isinstance(message, Held)) == Held((RUN,))
    new.link.send(Watching())
    assert await old.hears(lambda _: True) == Dismissed()
    old.link.send(measured(3))
    old.link.send(Told("run", RUN))
    await new.hears(lambda message: isinstance(message, Told))
    new.link.send(measured(4))
    for one in (client, again):
        assert await one.recv() == frame("systemInfo", 4)


async def test_what_is_told_once_is_told_by_whoever_is_faster(world: World) -> None:
    """While one follows the other, both tell it, and each socket hears it once."""
    old, new = world.worker(), world.worker()
    await old.leads()
    client = await world.client(old)
    old.link.send(LetGo())
    new.link.send(Lead())
    await new.is_chosen()
    told = Send(RUN, "aborting", (frame("aborting"),), once=True)
    new.link.send(told)
    assert await client.recv() == frame("aborting")
    old.link.send(told)
    old.link.send(measured(1))
    assert await client.recv() == frame("systemInfo", 1)


async def test_who_is_stuck_is_followed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has promised to say that it lives, and does not, loses the lead; its late frames are refused."""
    monkeypatch.setattr(sender_choice, "SILENT_SECS", 0.2)
    stuck, new = world.worker(), world.worker()
    await stuck.leads()
    client = await world.client(stuck)
    new.link.send(Lead())
    assert await new.is_chosen() == Held((), is_answer=True)
    stuck.link.send(Alive())
    assert await new.is_chosen() == Held((RUN,), is_answer=True)
    new.link.send(Watching())
    assert await stuck.hears(lambda message: isinstance(message, Dismissed))
    stuck.link.send(measured(1))
    assert await stuck.leads() == Held((), is_answer=True)
    new.link.send(measured(2))
    assert await client.recv() == frame("systemInfo", 2)


async def test_no_worker_is_left_to_follow(world: World) -> None:
    """Who lets go alone goes on until somebody serves; a follower that dies makes room for the next."""
    old, dying, new = world.worker(), world.worker(), world.worker()
    await old.leads()
    client = await world.client(old)
    old.link.send(LetGo())
    old.link.send(measured(1))
    assert await client.recv() == frame("systemInfo", 1)
    dying.link.send(Lead())
    await dying.is_chosen()
    new.link.send(Lead())
    assert await new.is_chosen() == Held((), is_answer=True)
    dying.link.close()
    assert await new.is_chosen() == Held((RUN,), is_answer=True)


async def test_no_extension_is_agreed_on(world: World) -> None:
    """The SDKs offer compression; frames are small, and the sockets many."""
    worker = world.worker()
    client = await world.client(worker, compression="deflate")
    assert client.response is not None
    assert "Sec-WebSocket-Extensions" not in client.response.headers


async def test_once_is_once_for_each_socket(world: World) -> None:
    """What is told once goes to the socket that has not heard it, and no more to the one that has."""
    worker = world.worker()
    await worker.leads()
    first = await world.client(worker)
    told = Send(RUN, "aborting", (frame("aborting"), frame("persistState")), once=True)
    worker.link.send(told)
    second = await world.client(worker)
    worker.link.send(told)
    worker.link.send(Close(RUN, 1000, "the run has ended"))
    for client in (first, second):
        assert [str(text) async for text in client] == [frame("aborting"), frame("persistState")]
        assert (client.close_code, client.close_reason) == (1000, "the run has ended")


async def test_other_runs_hear_nothing(world: World) -> None:
    """Frames and ends are for one run."""
    worker = world.worker()
    mine, others = await world.client(worker), await world.client(worker, "Zz3dEf6hIj9lMn2pQ")
    worker.link.send(Send(RUN, "systemInfo", (frame("systemInfo"),)))
    worker.link.send(Close(RUN, 1000, ""))
    worker.link.send(Send("Zz3dEf6hIj9lMn2pQ", "cpuInfo", (frame("cpuInfo"),)))
    assert [str(text) async for text in mine] == [frame("systemInfo")]
    assert await others.recv() == frame("cpuInfo")


async def test_sockets_per_run_are_bounded(world: World) -> None:
    """One too many is accepted and closed with 1008; when another has gone, there is room."""
    worker = world.worker()
    clients = [await world.client(worker) for _ in range(MAX_SOCKETS_PER_RUN)]
    refused = await world.client(worker)
    await refused.wait_closed()
    assert refused.close_code == 1008
    for client in clients:
        await client.close()
    await worker.leads()  # an answer, hence all closes are known
    again = await world.client(worker)
    worker.link.send(Send(RUN, "x", ("x",)))
    assert await again.recv() == "x"


async def test_who_does_not_read_delays_nobody_and_is_closed_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old measurements are dropped for new ones, while other frames wait; too many of those are an end."""
    monkeypatch.setattr(held_socket, "_CLOSE_SECS", 0.2)
    worker = world.worker()
    await worker.leads()
    stuck = await world.client(worker, max_queue=1)
    stuck.transport.pause_reading()
    reader = await world.client(worker)
    filling = "x" * 50_000
    heard: list[str] = []
    for number in range(600):
        worker.link.send(Send(RUN, "systemInfo", (frame("systemInfo", number), filling)))
        heard += [str(await reader.recv()), str(await reader.recv())]
    assert heard[::2] == [frame("systemInfo", number) for number in range(600)]
    assert stuck.state.name == "OPEN"
    for number in range(300):
        worker.link.send(Send(RUN, "persistState", (frame("persistState", number),)))
        assert await reader.recv() == frame("persistState", number)
    stuck.transport.resume_reading()
    late = []
    with contextlib.suppress(ConnectionClosedError):
        async for text in stuck:
            late.append(str(text))
    assert stuck.close_code in (1013, 1006)  # the connection may be cut before its close frame has room
    measured = [text for text in late if "systemInfo" in text]
    assert 0 < len(measured) < 600
    worker.link.send(Send(RUN, "x", ("x",)))
    assert await reader.recv() == "x"


@pytest.mark.slow
async def test_pings_both_ways(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings of the Actor are answered, it is pinged, and one that answers none is dropped."""
    monkeypatch.setattr(held_socket, "PING_SECS", 0.05)
    monkeypatch.setattr(held_socket, "_MAX_PINGS", 10)
    worker = world.worker()
    await worker.leads()
    client = await world.client(worker)
    async with asyncio.timeout(10):
        await (await client.ping())
    client.transport.pause_reading()
    assert await worker.hears(lambda message: isinstance(message, Gone)) == Gone(RUN)


async def test_a_worker_that_drains_is_heard_by_the_one_that_leads(world: World) -> None:
    """Its use is told at once and to whoever leads later, until it ends; changes go to all others."""
    old, new = world.worker(), world.worker()
    await old.leads()
    old.link.send(LetGo())
    use = Use("old", ((RUN, 1, 0.0, 0),))
    old.link.send(use)
    old.link.send(Told("run", RUN))
    assert await new.hears(lambda _: True) == Told("run", RUN)  # hence the use has come too
    await new.leads()
    assert await new.hears(lambda _: True) == use
    old.link.send(Use("old"))
    assert await new.hears(lambda _: True) == Use("old")
    old.link.send(use)
    await new.hears(lambda _: True)
    old.link.close()
    assert await new.hears(lambda _: True) == Use("old")


@pytest.mark.parametrize("data", [b"nonsense\n", b'["Take",{"run_id":"x"}]\n', b"\n"])
async def test_nonsense_ends_the_link_alone(world: World, data: bytes) -> None:
    """The sockets and the other links go on."""
    good = world.worker()
    await good.leads()
    client = await world.client(good)
    bad = world.worker()
    bad.link._sock.send(data)
    async with asyncio.timeout(10):
        await bad.ended.wait()
    good.link.send(Send(RUN, "x", ("x",)))
    assert await client.recv() == "x"


async def test_what_asks_for_no_websocket_is_answered_and_closed(world: World) -> None:
    """A head without its key is refused with 400, and takes no place among the run's sockets."""
    worker = world.worker()
    await worker.leads()
    ours, theirs = socket.socketpair()
    worker.link.send(
        Take(RUN, "GET /events HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"), theirs.detach()
    )
    reader, writer = await asyncio.open_connection(sock=ours)
    async with asyncio.timeout(10):
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
    writer.close()
    await writer.wait_closed()
    assert await worker.hears(lambda message: isinstance(message, Gone)) == Gone(RUN)
