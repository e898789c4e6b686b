"""The promises of the Signals port, held against every adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.core.demand import DemandReport, PoolDemand
from gateway.core.lifecycle import Readiness
from gateway.core.load import Load
from gateway.core.standby import Generation, PoolKey
from gateway.core.trouble import PoolTrouble
from gateway.state.ports import (
    Changed,
    NumberedChange,
    PoolBlocked,
    PoolFreed,
    RouteEnded,
    RoutesReset,
    RunEvent,
    RunRoute,
    Signals,
)
from gateway.state.signals_memory import MemorySignals

POOL = PoolKey(target_id="target", user_id="user")


class Clock:
    """A monotonic clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory"])
async def signals(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Signals]:
    made = {"memory": lambda: MemorySignals(clock=clock, queue_bound=50)}[request.param]()
    yield made
    await made.close()


def route(run_id: str, readiness: Readiness = Readiness.STARTING) -> RunRoute:
    return RunRoute(
        run_id=run_id, actor_id="a", user_id="u", live_view_label=f"label{run_id}", readiness=readiness, pool=POOL
    )


def report(gateway_id: str, waiting: int) -> DemandReport:
    return DemandReport(gateway_id=gateway_id, routes_seen=0, pools={POOL: PoolDemand(waiting=waiting)})


async def test_a_new_watcher_begins_with_all_present_routes(signals: Signals) -> None:
    """Whoever begins to listen gets the present picture first, then each change, numbered without a gap."""
    await signals.put_route(route("one"))
    async with signals.watch_routes() as changes:
        first = await anext(changes)
        assert first.change == RoutesReset(routes=(route("one"),))
        version = await signals.put_route(route("one", Readiness.SERVING))
        await signals.end_route(RouteEnded(run_id="one", live_view_label="labelone"))
        second, third = await anext(changes), await anext(changes)
        assert second == NumberedChange(version=version, change=route("one", Readiness.SERVING))
        assert (third.version, third.change.__class__) == (version + 1, RouteEnded)
    async with signals.watch_routes() as changes:
        assert (await anext(changes)).change == RoutesReset(routes=())


async def test_a_slow_watcher_of_routes_is_reset_and_never_wrong(signals: Signals) -> None:
    """Changes beyond a watcher's bound are replaced by the whole present picture."""
    async with signals.watch_routes() as changes:
        for number in range(200):
            await signals.put_route(route(f"r{number % 3}", Readiness.SERVING if number > 150 else Readiness.STARTING))
        picture: dict[str, RunRoute] = {}
        version = 0
        read = 0
        while version < 200:
            numbered = await anext(changes)
            version = numbered.version
            read += 1
            if isinstance(numbered.change, RoutesReset):
                picture = {r.run_id: r for r in numbered.change.routes}
            elif isinstance(numbered.change, RunRoute):
                picture[numbered.change.run_id] = numbered.change
        assert picture == {f"r{n}": route(f"r{n}", Readiness.SERVING) for n in range(3)}
        assert read <= 50


async def test_reports_replace_each_other_and_expire(signals: Signals, clock: Clock) -> None:
    """The last report of a gateway counts until its time to live is over; a silent gateway is forgotten."""
    await signals.report_demand(report("g1", 1), ttl_secs=5)
    await signals.report_demand(report("g1", 2), ttl_secs=5)
    await signals.report_demand(report("g2", 7), ttl_secs=60)
    assert sorted(r.pools[POOL].waiting for r in await signals.demand_reports()) == [2, 7]
    clock.now += 6
    assert [r.gateway_id for r in await signals.demand_reports()] == ["g2"]
    await signals.forget_demand("g2")
    assert list(await signals.demand_reports()) == []


async def test_a_poke_is_kept_for_who_comes_to_wait(signals: Signals) -> None:
    """A poke sent before anybody waits is not lost, and one wait takes all pokes so far."""
    assert await signals.wait_for_poke(0.01) is False
    await signals.report_demand(report("g1", 1), ttl_secs=5, is_poke=True)
    await signals.report_demand(report("g1", 2), ttl_secs=5, is_poke=True)
    assert await signals.wait_for_poke(5) is True
    assert await signals.wait_for_poke(0.01) is False


async def test_every_waiter_sees_the_next_report(signals: Signals) -> None:
    """Several may wait for reports at once; each is woken by the next one."""
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(signals.wait_for_report(5)) for _ in range(3)]
        await asyncio.sleep(0)
        await signals.report_demand(report("g1", 1), ttl_secs=5)
    assert all(wait.result() for wait in waits)


async def test_pools_that_are_blocked_and_freed_are_route_changes(signals: Signals) -> None:
    """In order with all others, and not part of the picture that a new watcher gets."""
    async with signals.watch_routes() as changes:
        await anext(changes)
        await signals.block_pool(PoolBlocked(pool=POOL, message="It failed.", retry_after_secs=10))
        await signals.free_pool(PoolFreed(pool=POOL))
        blocked, freed = await anext(changes), await anext(changes)
        assert blocked.change == PoolBlocked(pool=POOL, message="It failed.", retry_after_secs=10)
        assert (freed.version, freed.change) == (blocked.version + 1, PoolFreed(pool=POOL))
    async with signals.watch_routes() as changes:
        assert (await anext(changes)).change == RoutesReset(routes=())


async def test_troubles_replace_each_other_and_expire(signals: Signals, clock: Clock) -> None:
    """What was said last counts, all of it, until its time is over."""
    one, other = (
        PoolTrouble(
            pool=POOL,
            generation=Generation(build_id=build, memory_mbytes=128),
            failed_starts=3,
            crashes=0,
            message="It failed.",
            run_id="run",
            retry_after_secs=10,
        )
        for build in ("one", "other")
    )
    assert list(await signals.troubles()) == []
    await signals.report_troubles([one, other], ttl_secs=5)
    await signals.report_troubles([other], ttl_secs=5)
    assert list(await signals.troubles()) == [other]
    clock.now += 6
    assert list(await signals.troubles()) == []


async def test_changes_reach_every_watcher(signals: Signals) -> None:
    """Each watcher gets each change, once it has entered."""
    async with signals.watch_changes() as one, signals.watch_changes() as two:
        await signals.changed(Changed(kind="actor", id="x"))
        assert await anext(one) == await anext(two) == Changed(kind="actor", id="x")


async def test_events_are_counted_by_connected_sockets(signals: Signals) -> None:
    """Sending tells how many sockets of the run were connected: none means that nobody can hear 'aborting'."""
    event = RunEvent(run_id="r", frames=("hello",))
    assert await signals.send_event(event) == 0
    async with signals.watch_events("r") as events, signals.watch_events("other"):
        assert await signals.send_event(event) == 1
        assert await anext(events) == event
    assert await signals.send_event(event) == 0


async def test_who_is_connected_can_be_asked(signals: Signals) -> None:
    """A run counts while at least one of its events sockets is open."""
    assert await signals.connected_runs() == frozenset()
    async with signals.watch_events("r"), signals.watch_events("other"):
        async with signals.watch_events("r"):
            assert await signals.connected_runs() == {"r", "other"}
        assert await signals.connected_runs() == {"r", "other"}
    assert await signals.connected_runs() == frozenset()


def busy(percent: float) -> Load:
    return Load(
        cpu_current=percent,
        cpu_avg=percent,
        cpu_max=percent,
        memory_current=1,
        memory_avg=1,
        memory_max=1,
        is_cpu_overloaded=percent > 95,
    )


async def test_loads_replace_each_other_run_by_run_and_expire(signals: Signals, clock: Clock) -> None:
    """The last report of a run counts until its time to live is over; one about other runs leaves it alone."""
    await signals.report_load({"a": busy(10), "b": busy(20)}, ttl_secs=5)
    clock.now += 3
    await signals.report_load({"b": busy(99)}, ttl_secs=5)
    assert await signals.loads() == {"a": busy(10), "b": busy(99)}
    clock.now += 3
    assert await signals.loads() == {"b": busy(99)}
    clock.now += 3
    assert await signals.loads() == {}


async def test_one_autoscaler_leads(signals: Signals, clock: Clock) -> None:
    """Of two that ask at the same moment one leads; after its lease the other gets a higher fencing token."""
    tokens = await asyncio.gather(*(signals.lead("autoscaler", holder, ttl_secs=10) for holder in ("a", "b")))
    assert tokens.count(None) == 1
    first = next(token for token in tokens if token is not None)
    assert await signals.lead("autoscaler", "a", ttl_secs=10) == first
    clock.now += 11
    second = await signals.lead("autoscaler", "b", ttl_secs=10)
    assert second is not None
    assert second > first
    assert await signals.lead("autoscaler", "a", ttl_secs=10) is None
    await signals.resign("autoscaler", "a")
    assert await signals.lead("autoscaler", "a", ttl_secs=10) is None
    await signals.resign("autoscaler", "b")
    assert await signals.lead("autoscaler", "a", ttl_secs=10) is not None
