"""Two workers with shared signals and a holder: real sockets, real records; only the parent is absent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from standby_run import NOW, RUN
from websockets.asyncio.client import ClientConnection, connect

from gateway.auth import Authenticator, events_secret
from gateway.builds import Builder
from gateway.core.ids import token_hash
from gateway.core.model import Token, User
from gateway.core.system_events import abort_frames
from gateway.event_holder import Holder
from gateway.held_sockets import HeldSockets
from gateway.live_logs import Logs
from gateway.secret_box import SecretBox
from gateway.services import Services, new_id, utc_now
from gateway.settings import Settings
from gateway.state.blobs import open_blobs
from gateway.state.ports import Changed, RunEvent, State
from gateway.state.records import open_records
from gateway.state.signals_memory import MemorySignals
from gateway.urls import Urls


class House:
    """What the workers share, and how one begins, ends or dies."""

    def __init__(self, services: Services, rendezvous: socket.socket) -> None:
        self.services = services
        self._rendezvous = rendezvous
        self.signals = services.state.signals

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[HeldSockets]:
        """One that serves."""
        held = HeldSockets(self.services, self._rendezvous)
        async with held.running():
            await held.lead()
            yield held

    async def listen(self, worker: HeldSockets) -> ClientConnection:
        """An events socket of the run, accepted by *worker* and passed on."""
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            port = listening.getsockname()[1]

            async def pass_on() -> None:
                connection, _ = await loop.sock_accept(listening)
                with connection:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += await loop.sock_recv(connection, 4096)
                    request, *lines = head.split(b"\r\n\r\n")[0].split(b"\r\n")
                    method, target, _ = request.split()
                    pairs = [line.split(b": ", 1) for line in lines]
                    headers = [(name.lower(), value) for name, value in pairs]
                    assert worker.take(method.decode(), target, headers, connection.fileno())

            async with asyncio.TaskGroup() as group:
                group.create_task(pass_on())
                secret = events_secret(self.services.box, RUN.id)
                url = f"ws://127.0.0.1:{port}/events/{RUN.id}/{secret}"
                return await group.create_task(_connected(url))

    async def tell(self, name: str, *, times: int = 1) -> None:
        """Frames for the run, as the autoscaler sends them, once it counts as connected."""
        async with asyncio.timeout(10):
            while RUN.id not in await self.signals.connected_runs():  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.005)
        for number in range(times):
            await self.signals.send_event(RunEvent(run_id=RUN.id, frames=(frame(name, number),)))


async def _connected(url: str) -> ClientConnection:
    return await connect(url, proxy=None, ping_interval=None)


def frame(name: str, number: int = 0) -> str:
    return json.dumps({"name": name, "data": {"number": number}})


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A run that lives, and a holder in this process."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    async with open_records(f"sqlite+aiosqlite:///{tmp_path}/records.db") as records:
        blobs = open_blobs(tmp_path / "blobs")
        # In one process they are as shared as by a server.
        state = State(records=records, blobs=blobs, signals=MemorySignals(), storages=records.storages)
        box, logs = SecretBox(b"a key for tests"), Logs(tmp_path, blobs)
        services = Services(
            settings=Settings(data=tmp_path, signals_url="redis://127.0.0.1:6379/0"),
            state=state,
            auth=Authenticator(records, cache_secs=60, now=utc_now, clock=asyncio.get_running_loop().time),
            box=box,
            logs=logs,
            urls=Urls(scheme="http", domain="localhost", port=8010, local_port=8010),
            builder=Builder(state, logs, box, now=utc_now, new_id=new_id),
        )
        await records.add_user(User(id="owner", username="owner", is_admin=True, created_at=NOW))
        token = Token(
            id="token", user_id="owner", name="run", token_hash=token_hash("t"), scopes=frozenset(), created_at=NOW
        )
        await records.add_run(RUN, token, ())
        with ours, theirs:
            async with asyncio.TaskGroup() as group:
                holder = Holder(theirs, group)
                holder.open()
                yield House(services, ours)
                await holder.close()


async def heard(client: ClientConnection, last: str) -> list[str]:
    """The names of all frames up to the first *last*."""
    names: list[str] = []
    async with asyncio.timeout(10):
        while not names or names[-1] != last:
            names.append(str(json.loads(await client.recv())["name"]))
    return names


async def test_each_frame_comes_once(house: House) -> None:
    """Whichever worker accepted the socket, and although both serve."""
    async with house.worker() as first, house.worker() as second:
        clients = [await house.listen(one) for one in (first, second)]
        await house.tell("systemInfo", times=5)
        await house.tell("persistState", times=2)
        await house.tell("last")
        for client in clients:
            assert await heard(client, "last") == ["systemInfo"] * 5 + ["persistState"] * 2 + ["last"]
            await client.close()


async def test_an_abort_is_told_once_through_a_reload(house: House) -> None:
    """
    Every worker is replaced while the run is being aborted: the run counts as connected all the while, so nobody kills
    it as one that can't be told, and it hears 'aborting' once.
    """
    seen_unconnected = []
    async with contextlib.AsyncExitStack() as old:
        first = await old.enter_async_context(house.worker())
        second = await old.enter_async_context(house.worker())
        client = await house.listen(second)
        await house.tell("begin")
        records = house.services.state.records
        run = await records.run(RUN.id)
        assert run is not None
        await records.replace_run(replace(run, wound_down_because="idle"))
        await house.signals.send_event(RunEvent(run_id=RUN.id, frames=tuple(abort_frames(utc_now()))))
        async with contextlib.AsyncExitStack() as new:
            for before in (first, second):
                before.let_go()
                after = await new.enter_async_context(house.worker())
                for _ in range(20):
                    if not await house.signals.send_event(RunEvent(run_id=RUN.id, frames=(frame("cpuInfo"),))):
                        seen_unconnected.append(after)
                    await asyncio.sleep(0.005)
            await old.aclose()
            await house.tell("last")
            names = await heard(client, "last")
            assert [name for name in names if name != "cpuInfo"] == ["begin", "aborting", "persistState", "last"]
            assert seen_unconnected == []
            await client.close()


async def test_the_death_of_the_worker_that_leads_is_survived(house: House) -> None:
    """The other one sends what comes then; the run that ends is closed with 1000."""
    async with contextlib.AsyncExitStack() as dying, house.worker() as second:
        first = await dying.enter_async_context(house.worker())
        client = await house.listen(first)
        await house.tell("begin")
        await dying.aclose()
        await house.tell("after")
        assert await heard(client, "after") == ["begin", "after"]
        again = await house.listen(second)
        await house.tell("more")
        for one in (client, again):
            assert await heard(one, "more") == ["more"]
        await house.signals.send_event(RunEvent(run_id=RUN.id, ends=True))
        for one in (client, again):
            await asyncio.wait_for(one.wait_closed(), 10)
            assert one.close_code == 1000


async def test_changes_are_not_passed_on_where_signals_are_shared(house: House) -> None:
    """Else each would come back through the signals, and be passed on again, for ever."""
    async with house.worker() as first, house.worker(), house.signals.watch_changes() as changes:
        client = await house.listen(first)
        await house.signals.changed(Changed(kind="run", id="one"))
        await house.tell("x")
        await heard(client, "x")  # the way that an echo would have taken, there and back
        await house.signals.changed(Changed(kind="run", id="two"))
        assert [(await anext(changes)).id for _ in range(2)] == ["one", "two"]
        await client.close()
