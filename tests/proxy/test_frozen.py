"""What a gateway does with runs that stand still: who waits for one, who has it go on, and what it keeps of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.core.errors import GreenroomError, WaitedTooLong
from gateway.core.lifecycle import Readiness
from gateway.core.model import Address
from gateway.core.standby import Generation, PoolKey
from gateway.proxy.decisions import CallerGone, Decisions, monotonic
from gateway.proxy.open_streams import OpenStream
from gateway.proxy.route_table import LiveRun
from gateway.proxy.slots import Held, SlotDesk, Want
from gateway.proxy.splice.answer_cache import AnswerHeads
from gateway.proxy.splice.pool import Pools
from gateway.proxy.splice.wheel import Wheel
from gateway.state.ports import RouteEnded, RunRoute

POOL = PoolKey(target_id="actor", user_id="owner")
GENERATION = Generation(build_id="build", memory_mbytes=1024)


def route(readiness: Readiness, address: Address | None = None) -> RunRoute:
    return RunRoute(
        run_id="run",
        actor_id="actor",
        user_id="owner",
        live_view_label="label",
        readiness=readiness,
        pool=POOL,
        generation=GENERATION,
        address=address,
    )


def want(freeze_after_secs: float = math.inf) -> Want:
    return Want(
        pool=POOL,
        generation=GENERATION,
        desired=3,
        limit=4,
        idle_timeout_secs=30.0,
        caller="ann",
        is_owner=True,
        freeze_after_secs=freeze_after_secs,
    )


class Desk:
    """A desk with one run, and how often it has poked."""

    def __init__(self, readiness: Readiness = Readiness.SERVING) -> None:
        self.now = 100.0
        self.pokes = 0
        self.versions = count(1)
        self.desk = SlotDesk("g", room_size=10, clock=lambda: self.now, chance=lambda: 0.0, poke=self._poke)
        self.put(readiness)

    def _poke(self) -> None:
        self.pokes += 1

    def put(self, readiness: Readiness) -> None:
        self.desk.apply(route(readiness), next(self.versions))

    def end(self) -> None:
        self.desk.apply(RouteEnded(run_id="run", live_view_label="label"), next(self.versions))

    @property
    def run(self) -> LiveRun:
        run = self.desk.routes.run("run")
        assert run is not None
        return run

    def pokes_by(self, act: Any) -> int:
        """How many pokes come of *act*."""
        before = self.pokes
        act()
        return self.pokes - before


def test_a_request_waits_for_a_frozen_run_and_is_let_through_when_it_serves() -> None:
    """It is never sent to one that stands still; the poke is what has it go on."""
    desk = Desk(Readiness.FROZEN)
    told: list[LiveRun | GreenroomError] = []
    assert desk.desk.take(want()) is None
    held = Held(caller="ann", want=want(), settle=told.append)
    assert desk.pokes_by(lambda: desk.desk.hold(held)) == 1
    assert desk.desk.report().pools[POOL].waiting == 1
    assert told == []
    desk.put(Readiness.SERVING)
    assert told == [desk.run]


def test_that_it_was_seen_is_told_at_once() -> None:
    """The keeper waits for that before it stops the processes."""
    desk = Desk()
    assert desk.pokes_by(lambda: desk.put(Readiness.FROZEN)) == 1
    assert desk.desk.report().routes_seen == 2
    assert desk.pokes_by(lambda: desk.put(Readiness.SERVING)) == 0


@pytest.mark.parametrize(
    ("readiness", "pokes"), [(Readiness.FROZEN, 1), (Readiness.SERVING, 0), (Readiness.STARTING, 0)]
)
def test_a_viewer_is_use_and_has_a_frozen_run_go_on(readiness: Readiness, pokes: int) -> None:
    """No other run could stand in for it."""
    desk = Desk(readiness)
    assert desk.pokes_by(lambda: desk.desk.view(desk.run)) == pokes
    assert desk.desk.report().runs["run"].is_used


def test_what_is_said_on_a_silent_socket_has_a_frozen_run_go_on() -> None:
    """And costs nothing while it serves."""
    desk = Desk()
    stream = OpenStream(1.0, 0.0, lambda _code, _reason: None)
    desk.run.streams.add(stream)
    assert desk.pokes_by(lambda: stream.heard(100.0)) == 0
    desk.put(Readiness.FROZEN)
    assert desk.pokes_by(lambda: stream.heard(101.0)) == 1
    desk.put(Readiness.SERVING)
    assert desk.pokes_by(lambda: stream.heard(102.0)) == 0


@pytest.mark.parametrize(
    ("freeze_after_secs", "unused_secs", "expected"),
    [
        pytest.param(5.0, 2.0, 3.0, id="to be frozen first"),
        pytest.param(5.0, 6.0, 24.0, id="then to be wound down"),
        pytest.param(math.inf, 2.0, 28.0, id="never to be frozen"),
    ],
)
def test_the_autoscaler_hears_of_each_limit(freeze_after_secs: float, unused_secs: float, expected: float) -> None:
    """At its time, so that no run is frozen or ends by a report that is older."""
    desk = Desk()
    taken = desk.desk.take(want(freeze_after_secs))
    assert taken is not None
    desk.desk.give_back(taken)
    desk.now += unused_secs
    assert desk.desk.secs_to_idle_limit() == pytest.approx(expected)


def decisions(desk: Desk, pick_timeout_secs: float = 30.0) -> Decisions:
    settings = SimpleNamespace(pick_timeout_secs=pick_timeout_secs)
    return Decisions(
        settings=cast(Any, settings),
        records=cast(Any, None),
        auth=cast(Any, None),
        directory=cast(Any, None),
        desk=desk.desk,
    )


@pytest.mark.parametrize("how", ["serves", "drains", "ends"])
async def test_who_looks_at_a_frozen_run_waits_until_it_goes_on(how: str) -> None:
    """Or ends: then he is told so by whoever asks next."""
    desk = Desk(Readiness.FROZEN)
    run = desk.run
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(decisions(desk).until_awake(run, monotonic()))
        await asyncio.sleep(0)
        desk.put(Readiness.FROZEN)  # the same once more is no news
        await asyncio.sleep(0)
        assert not waiting.done()
        {
            "serves": lambda: desk.put(Readiness.SERVING),
            "drains": lambda: desk.put(Readiness.DRAINING),
            "ends": desk.end,
        }[how]()
    assert run.watchers == []


async def test_who_leaves_meanwhile_waits_no_longer() -> None:
    """Nobody is answered."""
    desk = Desk(Readiness.FROZEN)

    async def gone() -> bool:
        return True

    with pytest.raises(CallerGone):
        await decisions(desk).until_awake(desk.run, monotonic(), gone)
    assert desk.run.watchers == []


async def test_one_that_does_not_go_on_in_time_is_told_of() -> None:
    """With the setting that it is about."""
    desk = Desk(Readiness.FROZEN)
    with pytest.raises(WaitedTooLong, match=r"frozen and did not go on within 0 s .*pick_timeout_secs"):
        await decisions(desk, 0.01).until_awake(desk.run, monotonic())
    assert desk.run.watchers == []


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Address, list[asyncio.StreamReader]]]:
    """An address that takes connections, and those that it has."""
    taken: list[asyncio.StreamReader] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(reader)
        try:
            await reader.read()
        finally:
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield Address(host=host, port=port), taken


async def test_idle_connections_to_it_are_closed() -> None:
    """When it goes on, its server would first of all close what has been idle for too long: in a request's face."""
    async with listening() as (address, _):
        wheel = Wheel()
        pools = Pools(wheel, AnswerHeads(), connect_timeout_secs=5)
        run = LiveRun(route(Readiness.SERVING, address), used_at=0.0)
        back = await pools.connect(run)
        back.pool.keep(back, monotonic())
        assert pools.idle_connections(run) == 1
        pools.close_idle(run)
        assert pools.idle_connections(run) == 0
        assert back.transport.is_closing()
        again = await pools.connect(run)
        again.pool.keep(again, monotonic())
        assert pools.idle_connections(run) == 1, "it was forgotten, as if it had ended"
        await pools.aclose()
        wheel.stop()
