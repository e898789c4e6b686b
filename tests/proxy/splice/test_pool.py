"""Connections to runs between two requests: which is taken, which is kept, and that none outlives its run."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import pytest

from gateway.core.lifecycle import Readiness
from gateway.core.model import Address
from gateway.proxy.decisions import monotonic
from gateway.proxy.route_table import LiveRun
from gateway.proxy.sockets import is_quiet
from gateway.proxy.splice.answer_cache import AnswerHeads
from gateway.proxy.splice.back import Back
from gateway.proxy.splice.pool import Pools
from gateway.proxy.splice.wheel import Wheel
from gateway.proxy.upstream import UpstreamRefused
from gateway.state.ports import RunRoute

LIMIT_SECS = 10
IDLE_SECS = 4.0
MOST_IDLE = 64


def run_on(port: int, run_id: str = "Run1") -> LiveRun:
    """A run that serves on *port*."""
    route = RunRoute(
        run_id=run_id,
        actor_id="actor",
        user_id="owner",
        live_view_label=run_id,
        readiness=Readiness.SERVING,
        pool=None,
        generation=None,
        address=Address(host="127.0.0.1", port=port),
    )
    return LiveRun(route=route, used_at=0.0)


@dataclass
class Actor:
    """A server that takes connections and says nothing."""

    port: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    ended: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        self.ended += 1
        writer.close()


@dataclass
class Bench:
    """Pools, and an Actor that they connect to."""

    actor: Actor
    wheel: Wheel
    pools: Pools
    run: LiveRun

    async def connect(self) -> Back:
        """A new connection, which could carry another request."""
        async with asyncio.timeout(LIMIT_SECS):
            back = await self.pools.connect(self.run)
            await until(lambda: len(self.actor.writers) > self._seen)
        self._seen += 1
        back.can_stay = True
        return back

    _seen: int = 0

    def take(self, now: float, *, must_look: bool = False) -> Back | None:
        """As a request does it."""
        pool = self.pools.of(self.run)
        return None if pool is None else pool.take(now, must_look=must_look)

    async def all_ended(self) -> None:
        """The Actor has seen the end of every connection."""
        async with asyncio.timeout(LIMIT_SECS):
            await until(lambda: self.actor.ended == len(self.actor.writers))


async def until(holds: Callable[[], object]) -> None:
    """Until it does."""
    while not holds():  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.002)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """In the end nothing stands, and the pools have waited for that."""
    actor = Actor()
    server = await asyncio.start_server(actor.serve, "127.0.0.1", 0)
    actor.port = server.sockets[0].getsockname()[1]
    wheel = Wheel()
    pools = Pools(wheel, AnswerHeads(), connect_timeout_secs=5.0)
    bench = Bench(actor, wheel, pools, run_on(actor.port))
    yield bench
    async with asyncio.timeout(LIMIT_SECS):
        await pools.aclose()
    await bench.all_ended()
    wheel.stop()
    server.close()


async def test_the_one_used_last_is_taken_first(bench: Bench) -> None:
    """So that those that are not needed grow old, and end."""
    assert bench.take(0.0) is None
    first, second = await bench.connect(), await bench.connect()
    first.let_go(1.0, is_request_over=True)
    second.let_go(2.0, is_request_over=True)
    assert bench.pools.idle_connections(bench.run) == 2
    assert [bench.take(3.0) for _ in range(3)] == [second, first, None]
    assert first.is_reused


async def test_a_new_connection_has_not_been_used(bench: Bench) -> None:
    """What fails on it is not the fault of its age, and the request is not sent once more."""
    assert not (await bench.connect()).is_reused


async def test_none_is_taken_that_may_be_too_old(bench: Bench) -> None:
    """An Actor's server closes after 5 seconds at the earliest, and one that did must not be met."""
    back = await bench.connect()
    back.let_go(10.0, is_request_over=True)
    assert bench.take(10.0 + IDLE_SECS + 0.001) is None
    await bench.all_ended()


async def test_the_wheel_closes_what_lies_too_long(bench: Bench) -> None:
    """Those alone whose time is over."""
    old, young = await bench.connect(), await bench.connect()
    now = monotonic()
    old.let_go(now - IDLE_SECS, is_request_over=True)
    young.let_go(now + 60, is_request_over=True)
    async with asyncio.timeout(LIMIT_SECS):
        await until(lambda: bench.pools.idle_connections(bench.run) == 1)
    assert bench.take(now + 60) is young


@pytest.mark.parametrize("says", [b"", b"x"], ids=["it has ended", "it has said something"])
async def test_what_must_not_be_lost_looks_before(bench: Bench, says: bytes) -> None:
    """One that the Actor has closed a moment ago is passed over, though the loop has not heard of it yet."""
    stands, other = await bench.connect(), await bench.connect()
    for back in (stands, other):
        back.let_go(1.0, is_request_over=True)
        back.transport.pause_reading()  # so that it is the look that finds it
    if says:
        bench.actor.writers[1].write(says)  # which goes out at once
    else:
        bench.actor.writers[1].write_eof()
    await until(lambda: not is_quiet(other.transport))
    assert bench.take(2.0, must_look=True) is stands
    assert bench.take(2.0, must_look=True) is None


async def test_one_that_ended_is_not_kept(bench: Bench) -> None:
    """The Actor closes it, and it is gone from its pool."""
    back = await bench.connect()
    back.let_go(1.0, is_request_over=True)
    bench.actor.writers[0].close()
    async with asyncio.timeout(LIMIT_SECS):
        await until(lambda: not bench.pools.idle_connections(bench.run))
    assert back.is_lost


async def test_no_more_are_kept_than_may_be(bench: Bench) -> None:
    """However many requests there were at once."""
    backs = [await bench.connect() for _ in range(MOST_IDLE + 3)]
    for back in backs:
        back.let_go(1.0, is_request_over=True)
    assert bench.pools.idle_connections(bench.run) == MOST_IDLE
    async with asyncio.timeout(LIMIT_SECS):
        await until(lambda: bench.actor.ended == 3)


async def test_runs_do_not_share(bench: Bench) -> None:
    """A connection goes to the run that it was made for, and to no other at the same address."""
    back = await bench.connect()
    back.let_go(1.0, is_request_over=True)
    other = run_on(bench.actor.port, "Run2")
    assert bench.pools.of(other) is None
    assert bench.pools.idle_connections(other) == 0
    assert bench.take(2.0) is back


async def test_nobody_listens(bench: Bench) -> None:
    """Told with the address; nothing was sent, so another run may have the request."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UpstreamRefused, match="took no connection"):
            await bench.pools.connect(run_on(taken.getsockname()[1]))


async def test_a_run_that_takes_no_connection_has_a_time_limit() -> None:
    """As one whose machine has vanished, or whose backlog is full."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(full.getsockname())
        pools = Pools(Wheel(), AnswerHeads(), connect_timeout_secs=0.2)
        async with asyncio.timeout(LIMIT_SECS):
            with pytest.raises(UpstreamRefused, match=r"within 0\.2 s"):
                await pools.connect(run_on(full.getsockname()[1]))
            await pools.aclose()


async def test_who_is_cancelled_while_he_connects_leaves_nothing_behind(bench: Bench) -> None:
    """At whichever step; ``aclose``, which waits for all that stands, returns."""
    for steps in range(6):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(bench.pools.connect(bench.run))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result().transport.abort()
    await bench.all_ended()


# -- the end of a run --------------------------------------------------------------------------------------------------


async def test_nothing_is_kept_of_a_run_that_has_ended(bench: Bench) -> None:
    """What is idle ends at once; what is in use may finish, and ends then."""
    idle, used = await bench.connect(), await bench.connect()
    idle.let_go(1.0, is_request_over=True)
    bench.pools.forget(bench.run, monotonic())
    async with asyncio.timeout(LIMIT_SECS):
        await until(lambda: bench.actor.ended == 1)
    assert not used.transport.is_closing()
    used.let_go(2.0, is_request_over=True)
    await bench.all_ended()
    assert bench.pools.of(bench.run) is None


async def test_what_an_ended_run_still_says_is_heard(bench: Bench) -> None:
    """A connection is cut when nothing came since the last look, and not before."""
    back = await bench.connect()
    pool = bench.pools.of(bench.run)
    assert pool is not None
    bench.pools.forget(bench.run, monotonic())
    assert bench.pools.cut_silent(pool)  # it is new
    back.has_news = True
    assert bench.pools.cut_silent(pool)
    back.pause_reading()  # what it said may wait for a slow caller
    assert bench.pools.cut_silent(pool)
    back.resume_reading()
    assert not bench.pools.cut_silent(pool)
    await bench.all_ended()


@pytest.mark.slow
async def test_a_vanished_run_is_let_go_of_by_itself(bench: Bench) -> None:
    """Within some seconds, and without anybody asking."""
    await bench.connect()
    bench.pools.forget(bench.run, monotonic())
    await bench.all_ended()


async def test_a_run_that_moved_gets_new_connections(bench: Bench) -> None:
    """As one that was restarted elsewhere: nothing goes to where it was."""
    old = await bench.connect()
    old.let_go(1.0, is_request_over=True)
    elsewhere = Actor()
    server = await asyncio.start_server(elsewhere.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bench.run.route = replace(bench.run.route, address=Address(host="127.0.0.1", port=port))
    async with asyncio.timeout(LIMIT_SECS):
        back = await bench.pools.connect(bench.run)
        await until(lambda: elsewhere.writers)
    await bench.all_ended()
    back.can_stay = True
    back.let_go(2.0, is_request_over=True)
    assert bench.take(3.0) is back
    back.transport.abort()
    async with asyncio.timeout(LIMIT_SECS):
        await until(lambda: elsewhere.ended)
    server.close()


async def test_a_run_that_stands_still_gets_no_connection_that_lay_idle(bench: Bench) -> None:
    """When it goes on, its server may have had enough of them; later ones are kept as before."""
    back = await bench.connect()
    back.let_go(1.0, is_request_over=True)
    bench.pools.close_idle(bench.run)
    assert bench.take(1.5) is None
    await bench.all_ended()
    again = await bench.connect()
    again.let_go(2.0, is_request_over=True)
    assert bench.take(2.5) is again


async def test_what_became_a_tunnel_is_not_waited_for(bench: Bench) -> None:
    """It belongs to somebody else, who ends it."""
    back = await bench.connect()
    bench.pools.let_go(back)
    async with asyncio.timeout(LIMIT_SECS):
        await bench.pools.aclose()
    assert not back.transport.is_closing()
    back.transport.abort()
