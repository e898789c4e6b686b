"""Runs that are asked whether they are alive: who is asked, what counts as dead, and what becomes of the dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from autoscaler.liveness import Liveness, problem_of
from gateway.core.lifecycle import Readiness
from gateway.core.model import Address
from gateway.core.standby import Generation, PoolKey, StandbyConfig
from gateway.state.ports import RouteEnded, RunRoute
from gateway.state.signals_memory import MemorySignals

POOL = PoolKey(target_id="actor", user_id="owner")
WITNESS = PoolKey(target_id="witness", user_id="owner")
GENERATION = Generation(build_id="build", memory_mbytes=128)


@dataclass
class Server:
    """A web server that answers each request with *answer*, or not at all; it tells when it was asked."""

    answer: bytes | None = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    asked: list[str] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    port: int = 0

    @property
    def address(self) -> Address:
        return Address(host="127.0.0.1", port=self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            async with self.news:
                self.asked.append(head.decode())
                self.news.notify_all()
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                await writer.drain()
        finally:
            writer.close()

    async def was_asked(self, times: int) -> None:
        async with asyncio.timeout(10), self.news:
            await self.news.wait_for(lambda: len(self.asked) >= times)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield made


@dataclass
class Watch:
    """The watch over one run at a server."""

    server: Server
    config: StandbyConfig | None = field(
        default_factory=lambda: StandbyConfig(liveness_path="/alive?x=1", liveness_every_secs=0.01)
    )
    signals: MemorySignals = field(default_factory=MemorySignals)
    replaced: asyncio.Queue[tuple[str, str]] = field(default_factory=asyncio.Queue)
    looked: asyncio.Event = field(default_factory=asyncio.Event)

    def config_of(self, pool: PoolKey) -> StandbyConfig | None:
        if pool == WITNESS:
            self.looked.set()
        return self.config if pool == POOL else None

    async def looks_again(self) -> None:
        """Until all runs were looked at several times, by one that serves and is never asked."""
        await self.publish(Readiness.SERVING, pool=WITNESS, run_id="witness")
        for _ in range(5):
            self.looked.clear()
            await self.looked.wait()

    async def publish(self, readiness: Readiness, *, pool: PoolKey | None = POOL, run_id: str = "run") -> None:
        await self.signals.put_route(
            RunRoute(
                run_id=run_id,
                actor_id="actor",
                user_id="owner",
                live_view_label="label",
                readiness=readiness,
                pool=pool,
                generation=GENERATION if pool else None,
                address=self.server.address,
            )
        )

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        liveness = Liveness(
            signals=self.signals,
            config=self.config_of,
            give_up=lambda run_id, reason: self.replaced.put_nowait((run_id, reason)),
            look_secs=0.01,
            answer_secs=0.2,
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(liveness.watch())
            yield
            task.cancel()


@pytest.fixture
def watch(server: Server) -> Watch:
    return Watch(server)


async def test_a_run_that_answers_is_asked_on(watch: Watch, server: Server) -> None:
    """By its path, by a name of its own and not as a readiness probe; nothing becomes of it."""
    async with watch.watching():
        await watch.publish(Readiness.SERVING)
        await server.was_asked(5)
    assert watch.replaced.empty()
    assert server.asked[0].startswith("GET /alive?x=1 HTTP/1.1\r\n")
    assert "User-Agent: greenroom-liveness" in server.asked[0]
    assert "readiness" not in server.asked[0]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        pytest.param(b"HTTP/1.1 500 Oh\r\n\r\n", "answered 500", id="an error"),
        pytest.param(b"hello\r\n", "not HTTP", id="no HTTP"),
        pytest.param(b"", "not HTTP", id="hangs up"),
        pytest.param(b"x" * 9000, "", id="an endless line"),
        pytest.param(None, "no answer within 0.2 s", id="no answer"),
    ],
)
async def test_after_three_failures_in_a_row_it_is_replaced(
    watch: Watch, server: Server, answer: bytes | None, problem: str
) -> None:
    """Once, with the reason."""
    server.answer = answer
    async with watch.watching():
        await watch.publish(Readiness.SERVING)
        async with asyncio.timeout(10):
            run_id, reason = await watch.replaced.get()
    assert (run_id, len(server.asked), watch.replaced.empty()) == ("run", 3, True)
    assert problem in reason


async def test_one_good_answer_begins_the_count_anew(watch: Watch, server: Server) -> None:
    """Two failures, one answer, two failures: nothing becomes of it."""
    bad, good = b"HTTP/1.1 503 No\r\n\r\n", b"HTTP/1.1 404 Not here\r\n\r\n"
    server.answer = bad
    async with watch.watching():
        await watch.publish(Readiness.SERVING)
        for times, answer in ((2, good), (3, bad), (5, good), (6, good)):
            await server.was_asked(times)
            server.answer = answer
    assert watch.replaced.empty()


@pytest.mark.parametrize(
    "readiness", [Readiness.STARTING, Readiness.FROZEN, Readiness.DRAINING], ids=lambda readiness: str(readiness)
)
async def test_only_runs_that_serve_are_asked(watch: Watch, server: Server, readiness: Readiness) -> None:
    """From the moment on at which they don't, they are left alone."""
    async with watch.watching():
        await watch.publish(Readiness.SERVING)
        await server.was_asked(1)
        await watch.publish(readiness)
        await watch.looks_again()  # what was on its way has come
        asked = len(server.asked)
        await watch.looks_again()
        assert len(server.asked) == asked


async def test_what_a_run_failed_to_answer_before_it_was_frozen_counts_for_nothing(
    watch: Watch, server: Server
) -> None:
    """It may have been frozen amid the question."""
    server.answer = None
    async with watch.watching():
        await watch.publish(Readiness.SERVING)
        for asked in (1, 2, 3, 4):
            await server.was_asked(asked)
            await watch.publish(Readiness.FROZEN)
            await asyncio.sleep(0.25)
            await watch.publish(Readiness.SERVING)
    assert watch.replaced.empty()


async def test_a_setting_that_comes_and_goes_holds_at_once(watch: Watch, server: Server) -> None:
    """No restart of a run is needed; nor is one whose Actor is gone asked any more."""
    config, watch.config = watch.config, StandbyConfig()
    async with watch.watching():
        await watch.publish(Readiness.SERVING)
        await watch.looks_again()
        assert server.asked == []
        watch.config = config
        await server.was_asked(1)
        watch.config = None
        await watch.looks_again()
        asked = len(server.asked)
        await watch.looks_again()
        assert len(server.asked) == asked


async def test_one_that_has_ended_is_not_asked(watch: Watch, server: Server) -> None:
    """Nor replaced."""
    async with watch.watching():
        await watch.publish(Readiness.SERVING)
        await server.was_asked(1)
        await watch.signals.end_route(RouteEnded(run_id="run", live_view_label="label"))
        await watch.looks_again()
        asked = len(server.asked)
        await watch.looks_again()
        assert len(server.asked) == asked
    assert watch.replaced.empty()


async def test_batch_runs_are_not_asked(watch: Watch, server: Server) -> None:
    """They have no standby settings."""
    async with watch.watching():
        await watch.publish(Readiness.SERVING, pool=None)
        await watch.looks_again()
        assert server.asked == []


async def test_an_endless_answer_is_alive(server: Server) -> None:
    """Its head is what counts; the rest is not waited for."""
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nmore"
    assert await problem_of(server.address, "/") is None


async def test_nobody_at_home_is_told_as_such() -> None:
    """A refused connection is a problem like any other."""
    listening = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    listening.close()
    await listening.wait_closed()
    assert await problem_of(Address(host="127.0.0.1", port=port), "/")
