"""
A whole gateway per HTTP path, on real sockets, with recorders in place of Actors; all on the loop of one thread.

Signals and records are the real ones; the part of the autoscaler is played by ``_Supply``: when a request is held at a
cold Actor's host, it publishes the route of a run, as a start would.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from proxy.suite.client import WAIT_SECS, Client
from proxy.suite.recorder import Recorder

from gateway.app import Gateway
from gateway.auth import Authenticator
from gateway.builds import Builder
from gateway.core.ids import token_hash
from gateway.core.lifecycle import Readiness
from gateway.core.model import Actor, Address, TaggedBuild, Token, User
from gateway.core.standby import Generation, PoolKey
from gateway.live_logs import Logs
from gateway.observability import Metrics
from gateway.secret_box import SecretBox
from gateway.services import Services, new_id, utc_now
from gateway.settings import Settings
from gateway.state.blobs import open_blobs
from gateway.state.ports import RouteEnded, RunRoute, State
from gateway.state.records import open_records
from gateway.state.signals_memory import MemorySignals
from gateway.urls import Urls
from gateway.worker_server import Server

T = TypeVar("T")
TOKEN = "greenroom_api_TheTokenOfBobForTheSuite0123456789"
GENERATION = Generation(build_id="BuildOfTheSuite01", memory_mbytes=1024)
_TICK_SECS = 0.5  # as the autoscaler, which looks by itself, too
_AT = datetime(2026, 1, 2, tzinfo=UTC)
_BOB = User(id="BobId000000000001", username="bob", is_admin=True, created_at=_AT)


def _actor(name: str, *, is_public: bool) -> Actor:
    return Actor(
        id=f"{name.title()}Id".ljust(17, "0"),
        user_id=_BOB.id,
        name=name,
        created_at=_AT,
        modified_at=_AT,
        standby_from_file={
            "isEnabled": True,
            "public": is_public,
            "desiredRequestsPerActorRun": 900,
            "maxRequestsPerActorRun": 1000,
        },
        tagged_builds={"latest": TaggedBuild(build_id=GENERATION.build_id, build_number="0.1.1", finished_at=_AT)},
    )


ACTORS = {
    name: _actor(name, is_public=name.startswith("open"))
    for name in ("open-warm", "open-cold", "shut-warm", "shut-cold", "open-spare")
}
POOLS = {name: PoolKey(target_id=actor.id, user_id=_BOB.id) for name, actor in ACTORS.items()}


@dataclass(slots=True)
class Stand:
    """One gateway with its two recorders; the methods are for its loop."""

    gateway: Gateway
    server: Server
    listening: socket.socket
    port: int
    warm: Recorder
    cold: Recorder
    signals: MemorySignals
    metrics: Metrics
    cold_runs: set[str] = field(default_factory=set)
    supplies_cold: bool = True
    _runs: int = 0

    async def put_run(self, actor: str, port: int, *, readiness: Readiness = Readiness.SERVING) -> str:
        """A run of *actor* is on *port*, and the gateway knows it."""
        run_id = await self._publish(actor, port, readiness)
        await self.until(lambda: any(run.route.run_id == run_id for run in self.gateway.desk.routes.all_runs()))
        return run_id

    async def _publish(self, actor: str, port: int, readiness: Readiness = Readiness.SERVING) -> str:
        self._runs += 1
        run_id = f"Run{self._runs:014d}"
        await self.signals.put_route(
            RunRoute(
                run_id=run_id,
                actor_id=ACTORS[actor].id,
                user_id=_BOB.id,
                live_view_label=f"live{self._runs}",
                readiness=readiness,
                pool=POOLS[actor],
                generation=GENERATION,
                address=Address(host="127.0.0.1", port=port),
                start_secs=0.1,
                ready_secs=0.1,
            )
        )
        return run_id

    async def end_run(self, run_id: str) -> None:
        await self.signals.end_route(RouteEnded(run_id=run_id, live_view_label=""))
        await self.until(lambda: all(run.route.run_id != run_id for run in self.gateway.desk.routes.all_runs()))

    async def settle(self) -> None:
        """Until nothing is in flight or waits; cold Actors are cold again. Slots that are not given back show here."""
        desk = self.gateway.desk
        await self.until(lambda: not desk.in_flight and not desk.held)
        for run_id in list(self.cold_runs):
            self.cold_runs.discard(run_id)
            await self.end_run(run_id)

    @staticmethod
    async def until(holds: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_SECS):
            while not holds():  # noqa: ASYNC110 - the gateway tells nobody
                await asyncio.sleep(0.001)

    async def supply(self) -> None:
        """Start a run for whoever waits for a cold Actor, for ever."""
        while True:
            await self.signals.wait_for_poke(_TICK_SECS)
            # Of this moment: a report may tell of somebody who has been served since.
            for pool, demand in self.gateway.desk.report().pools.items():
                name = next(name for name, known in POOLS.items() if known == pool)
                if demand.waiting and name.endswith("cold") and self.supplies_cold and not self.is_served(pool):
                    self.cold_runs.add(await self._publish(name, self.cold.port))

    def is_served(self, pool: PoolKey) -> bool:
        return any(self.gateway.desk.routes.serving(pool, GENERATION))


@contextlib.asynccontextmanager
async def open_stand(data: Path, **settings: Any) -> AsyncIterator[Stand]:
    """A gateway that serves, until the block is left."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(2048)
    port = sock.getsockname()[1]
    async with open_records(f"sqlite+aiosqlite:///{data}/records.db") as records:
        await records.add_user(_BOB)
        await records.add_token(
            Token(
                id=new_id(), user_id=_BOB.id, name="suite", token_hash=token_hash(TOKEN), scopes=frozenset({"*"}),
                created_at=_AT,
            )
        )  # fmt: skip
        for actor in ACTORS.values():
            await records.add_actor(actor)
        signals = MemorySignals()
        state = State(records=records, blobs=open_blobs(data / "blobs"), signals=signals, storages=records.storages)
        box, logs = SecretBox(b"a key for tests"), Logs(data, open_blobs(data / "blobs"))
        services = Services(
            settings=Settings(data=data, **settings),
            state=state,
            auth=Authenticator(records, cache_secs=60, now=utc_now, clock=loop.time),
            box=box,
            logs=logs,
            urls=Urls(scheme="http", domain="localhost", port=port, local_port=port),
            builder=Builder(state, logs, box, now=utc_now, new_id=new_id),
        )
        metrics = Metrics()
        gateway = Gateway(services, metrics, gateway_id=new_id())
        server = Server(gateway, lambda *_: False)
        await gateway.directory.load()
        stand = Stand(gateway, server, sock, port, Recorder(loop), Recorder(loop), signals, metrics)
        await stand.warm.start()
        await stand.cold.start()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(gateway.run()), group.create_task(stand.supply())]
            serving = group.create_task(server.serve(sockets=[sock]))
            await server.has_started(serving)
            gateway.is_ready = True
            await stand.put_run("open-warm", stand.warm.port)
            await stand.put_run("shut-warm", stand.warm.port)
            try:
                yield stand
            finally:
                gateway.stop_taking()
                server.should_exit = True
                server.force_exit = True
                await serving
                for task in tasks:
                    task.cancel()
        await stand.warm.stop()
        await stand.cold.stop()


class Stage:
    """The thread with its loop, and what was opened on it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: dict[str, tuple[Stand, asyncio.Event]] = {}
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stage")
        self.loop: asyncio.AbstractEventLoop
        self._thread.start()
        assert self._begun.wait(WAIT_SECS)

    def call(self, work: Coroutine[Any, Any, T], within_secs: float = 4 * WAIT_SECS) -> T:
        """*work*, done on the stage's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(within_secs)

    def stand(self, name: str, **settings: Any) -> Stand:
        """The gateway of that name; opened when it is first asked for."""
        if name not in self._opened:
            self._opened[name] = self.call(self._open(name, settings))
        return self._opened[name][0]

    def recorder(self) -> Recorder:
        """A recorder alone, for another proxy."""

        async def start() -> Recorder:
            recorder = Recorder(self.loop)
            await recorder.start()
            self._recorders.append(recorder)
            return recorder

        return self.call(start())

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        self._error: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._live())
        except BaseException as error:
            self._error = error
            self._begun.set()

    async def _live(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        self._recorders: list[Recorder] = []
        async with asyncio.TaskGroup() as self._group:
            self._begun.set()
            await self._closing.wait()
            for _, leave in self._opened.values():
                leave.set()
        for recorder in self._recorders:
            await recorder.stop()

    async def _open(self, name: str, settings: dict[str, Any]) -> tuple[Stand, asyncio.Event]:
        leave, opened = asyncio.Event(), self.loop.create_future()

        (self._folder / name).mkdir(parents=True, exist_ok=True)

        async def keep_open() -> None:
            async with open_stand(self._folder / name, **settings) as stand:
                opened.set_result(stand)
                await leave.wait()

        task = self._group.create_task(keep_open())
        await asyncio.wait([task, opened], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return opened.result(), leave


@dataclass(slots=True, repr=False)
class Door:
    """
    Where the cases knock: one way through a gateway (or another proxy) to a recorder.

    *host* is the value of ``Host`` that leads there without a token, *shut_host* that of an Actor that wants one.
    """

    name: str
    address: tuple[str, int]
    host: bytes
    shut_host: bytes
    recorder: Recorder
    settle: Callable[[], None]
    is_cold: bool = False
    prelude: bytes = b""
    stage: Stage | None = None
    stand: Stand | None = None
    path: str = ""
    wait_secs: float = WAIT_SECS

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def connect(self, **options: Any) -> Client:
        """A new connection; one to be handed over has had its first answer."""
        client = Client(self.address, wait_secs=self.wait_secs, **options)
        if self.prelude:
            client.send(self.prelude)
            assert client.answer().status == 200
        return client

    def connect_bare(self) -> Client:
        """A new connection on which nothing was said yet."""
        return Client(self.address, wait_secs=self.wait_secs)

    def fill(self, template: bytes) -> bytes:
        """*template* with the hosts for ``@HOST@`` and ``@SHUT@``, and the token for ``@TOKEN@``."""
        return (
            template.replace(b"@HOST@", self.host)
            .replace(b"@SHUT@", self.shut_host)
            .replace(b"@TOKEN@", TOKEN.encode())
        )


PATHS = ("splice", "asgi", "handed")


def greenroom_door(stage: Stage, path: str, *, is_cold: bool, **settings: Any) -> Door:
    """
    A way through Greenroom. *path*: ``splice``, ``asgi`` or ``handed``, which is a connection that first asked for a
    page of Greenroom's own, and so was handed over to the server library's protocol.
    """
    protocol = "asgi" if path == "asgi" else "splice"
    name = "-".join([protocol, *(f"{key}={value}" for key, value in settings.items())])
    stand = stage.stand(name, proxy_protocol=protocol, **settings)
    temperature = "cold" if is_cold else "warm"

    def settle() -> None:
        stage.call(stand.settle())

    return Door(
        name=f"{path}, {temperature}",
        address=("127.0.0.1", stand.port),
        host=f"bob--open-{temperature}.localhost".encode(),
        shut_host=f"bob--shut-{temperature}.localhost".encode(),
        recorder=stand.cold if is_cold else stand.warm,
        settle=settle,
        is_cold=is_cold,
        prelude=b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" if path == "handed" else b"",
        stage=stage,
        stand=stand,
        path=path,
    )
