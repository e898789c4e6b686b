"""The promises of the Signals port, held against every adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TypeAlias

import pytest
from redis_server import RedisServer, find_valkey, leaks, new_namespace

from gateway.core.demand import DemandReport, PoolDemand
from gateway.core.lifecycle import Readiness
from gateway.core.load import Load
from gateway.core.standby import Generation, PoolKey
from gateway.core.trouble import PoolTrouble
from gateway.state.ports import (
    LEADER,
    Changed,
    NoLongerLeader,
    NumberedChange,
    PoolBlocked,
    PoolFreed,
    RouteEnded,
    RoutesReset,
    RunEvent,
    RunRoute,
    Signals,
)
from gateway.state.redis.address import parse_address
from gateway.state.redis.signals import open_redis_signals
from gateway.state.signals_memory import MemorySignals

Eventually: TypeAlias = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]

SHORT_SECS, LONG_SECS = 0.1, 600.0
POOL = PoolKey(target_id="target", user_id="user")


_DEADLINE_SECS = 30.0


class Clock:
    """A monotonic clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Store:
    """
    One store, of which each call of ``instance`` gives another process's signals.

    ``pass_time`` lets a little of its time pass.
    """

    instance: Callable[[], Awaitable[Signals]]
    pass_time: Callable[[], Awaitable[None]]


@pytest.fixture(
    params=[
        "memory",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ["redis", *(["valkey"] if find_valkey() else [])]),
    ]
)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """An empty one, whose keys are looked through afterwards where it has some."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield _memory_store()
            return
        server: RedisServer = request.getfixturevalue(f"{request.param}_server")
        namespace = new_namespace()
        with server.client(database=1) as client:
            client.flushdb()

            async def instance() -> Signals:
                address = parse_address(server.url(1))
                return await stack.enter_async_context(open_redis_signals(address, namespace=namespace, queue_bound=50))

            yield Store(instance=instance, pass_time=lambda: asyncio.sleep(0.01))
            assert leaks(client, namespace) == []


def _memory_store() -> Store:
    clock = Clock()
    made = MemorySignals(clock=clock, queue_bound=50)

    async def instance() -> Signals:
        return made.another()

    async def pass_time() -> None:
        clock.now += 0.01

    return Store(instance=instance, pass_time=pass_time)


@pytest.fixture
async def signals(store: Store) -> Signals:
    """Those of a process that leads from the beginning and has published that there are no routes."""
    made = await store.instance()
    await made.publish_routes()
    return made


@pytest.fixture
def eventually(store: Store) -> Eventually:
    """Lets time pass until a condition holds."""

    async def wait(holds: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(_DEADLINE_SECS):
            while not await holds():
                await store.pass_time()

    return wait


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
            readiness = Readiness.SERVING if number > 150 else Readiness.STARTING
            last = await signals.put_route(route(f"r{number % 3}", readiness))
        picture: dict[str, RunRoute] = {}
        version = 0
        read = 0
        while version < last:
            numbered = await anext(changes)
            version = numbered.version
            read += 1
            if isinstance(numbered.change, RoutesReset):
                picture = {r.run_id: r for r in numbered.change.routes}
            elif isinstance(numbered.change, RunRoute):
                picture[numbered.change.run_id] = numbered.change
        assert picture == {f"r{n}": route(f"r{n}", Readiness.SERVING) for n in range(3)}
        assert read <= 50


async def test_reports_replace_each_other_and_expire(signals: Signals, eventually: Eventually) -> None:
    """The last report of a gateway counts until its time to live is over; a silent gateway is forgotten."""
    await signals.report_demand(report("g1", 1), ttl_secs=LONG_SECS)
    await signals.report_demand(report("g2", 7), ttl_secs=LONG_SECS)
    await signals.report_demand(report("g1", 2), ttl_secs=LONG_SECS)
    assert sorted(r.pools[POOL].waiting for r in await signals.demand_reports()) == [2, 7]
    await signals.report_demand(report("g1", 3), ttl_secs=SHORT_SECS)

    async def is_silent() -> bool:
        return [r.gateway_id for r in await signals.demand_reports()] == ["g2"]

    await eventually(is_silent)
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
        waits = [group.create_task(signals.wait_for_report(_DEADLINE_SECS)) for _ in range(3)]
        while not all(wait.done() for wait in waits):  # they may not be listening yet
            await asyncio.sleep(0.01)
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


async def test_troubles_replace_each_other_and_expire(signals: Signals, eventually: Eventually) -> None:
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
    await signals.report_troubles([one, other], ttl_secs=LONG_SECS)
    await signals.report_troubles([other], ttl_secs=LONG_SECS)
    assert list(await signals.troubles()) == [other]
    await signals.report_troubles([one], ttl_secs=SHORT_SECS)

    async def are_over() -> bool:
        return list(await signals.troubles()) == []

    await eventually(are_over)


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


async def test_loads_replace_each_other_run_by_run_and_expire(signals: Signals, eventually: Eventually) -> None:
    """The last report of a run counts until its time to live is over; one about other runs leaves it alone."""
    await signals.report_load({"a": busy(10), "b": busy(20)}, ttl_secs=LONG_SECS)
    await signals.report_load({"b": busy(99)}, ttl_secs=LONG_SECS)
    await signals.report_load({}, ttl_secs=LONG_SECS)
    assert await signals.loads() == {"a": busy(10), "b": busy(99)}

    async def is_left(runs: set[str]) -> bool:
        return set(await signals.loads()) == runs

    await signals.report_load({"a": busy(10)}, ttl_secs=SHORT_SECS)
    await eventually(lambda: is_left({"b"}))
    await signals.report_load({"b": busy(99)}, ttl_secs=SHORT_SECS)
    await eventually(lambda: is_left(set()))


async def test_one_autoscaler_leads(signals: Signals, eventually: Eventually) -> None:
    """Of two that ask at the same moment one leads; after its lease the other gets a higher fencing token."""
    tokens = await asyncio.gather(*(signals.lead("other", holder, ttl_secs=LONG_SECS) for holder in ("a", "b")))
    assert tokens.count(None) == 1
    first = next(token for token in tokens if token is not None)
    leader, spare = ("a", "b") if tokens[0] is not None else ("b", "a")
    assert await signals.lead("other", leader, ttl_secs=SHORT_SECS) == first
    taken: list[int] = []

    async def is_over() -> bool:
        token = await signals.lead("other", spare, ttl_secs=LONG_SECS)
        taken.extend([token] if token is not None else [])
        return token is not None

    await eventually(is_over)
    assert taken[0] > first
    assert await signals.lead("other", leader, ttl_secs=LONG_SECS) is None
    await signals.resign("other", leader)
    assert await signals.lead("other", leader, ttl_secs=LONG_SECS) is None
    await signals.resign("other", spare)
    third = await signals.lead("other", leader, ttl_secs=LONG_SECS)
    assert third is not None
    assert third > taken[0]


async def test_leases_of_two_names_are_two(signals: Signals) -> None:
    """Who holds one says nothing of who holds the other."""
    assert await signals.lead("one", "a", ttl_secs=LONG_SECS) is not None
    assert await signals.lead("two", "b", ttl_secs=LONG_SECS) is not None
    assert await signals.lead("one", "b", ttl_secs=LONG_SECS) is None


WRITES = [
    pytest.param(lambda s: s.put_route(route("r")), id="put_route"),
    pytest.param(lambda s: s.end_route(RouteEnded(run_id="r", live_view_label="l")), id="end_route"),
    pytest.param(lambda s: s.publish_routes(), id="publish_routes"),
    pytest.param(lambda s: s.block_pool(PoolBlocked(pool=POOL, message="No.")), id="block_pool"),
    pytest.param(lambda s: s.free_pool(PoolFreed(pool=POOL)), id="free_pool"),
    pytest.param(lambda s: s.report_load({"r": busy(1)}, ttl_secs=5), id="report_load"),
    pytest.param(lambda s: s.report_troubles([], ttl_secs=5), id="report_troubles"),
]


@pytest.mark.parametrize("write", WRITES)
async def test_the_word_of_an_earlier_leader_does_not_count(
    store: Store, eventually: Eventually, write: Callable[[Signals], Awaitable[object]]
) -> None:
    """Once another one has been given a token, what an earlier leader writes is refused and changes nothing."""
    old, new = await store.instance(), await store.instance()
    assert await old.lead(LEADER, "old", ttl_secs=SHORT_SECS) is not None
    await old.publish_routes()
    await write(old)
    await eventually(lambda: _leads(new))
    await new.publish_routes()
    with pytest.raises(NoLongerLeader):
        await write(old)
    assert [*await new.routes(), *(await new.loads()).keys() - {"r"}] == []
    await write(new)
    assert await old.lead(LEADER, "old", ttl_secs=LONG_SECS) is None
    with pytest.raises(NoLongerLeader):
        await write(old)
    await new.resign(LEADER, "new")
    assert await old.lead(LEADER, "old", ttl_secs=LONG_SECS) is not None
    await write(old)


async def _leads(signals: Signals) -> bool:
    return await signals.lead(LEADER, "new", ttl_secs=LONG_SECS) is not None


async def test_who_never_led_is_not_fenced(store: Store) -> None:
    """What is all of a Greenroom in one process, or a gateway, has no token that could be old."""
    leader, other = await store.instance(), await store.instance()
    assert await leader.lead(LEADER, "leader", ttl_secs=LONG_SECS) is not None
    await leader.publish_routes()
    await other.put_route(route("r"))
    assert list(await leader.routes()) == [route("r")]


async def test_a_new_leader_forgets_the_routes_that_it_does_not_know(store: Store) -> None:
    """
    When it has taken over, its routes are all: a run that ended while nobody led is gone, and those who watch begin
    anew. Until then they keep what there was.
    """
    old, new = await store.instance(), await store.instance()
    await old.lead(LEADER, "old", ttl_secs=LONG_SECS)
    await old.publish_routes()
    await old.put_route(route("lives"))
    await old.put_route(route("ended"))
    await old.resign(LEADER, "old")
    await new.lead(LEADER, "new", ttl_secs=LONG_SECS)
    async with new.watch_routes() as changes:
        first = await anext(changes)
        assert isinstance(first.change, RoutesReset)
        assert {r.run_id for r in first.change.routes} == {"lives", "ended"}
        put = await new.put_route(route("lives", Readiness.SERVING))
        assert (await anext(changes)).version == put
        version = await new.publish_routes()
        last = await anext(changes)
        assert (last.version, last.change) == (version, RoutesReset(routes=(route("lives", Readiness.SERVING),)))
        assert version > put
    # Each lead begins with none, be it the next one of the same process or one after another's.
    for signals, holder in ((new, "new"), (old, "old")):
        await new.resign(LEADER, "new")
        await signals.lead(LEADER, holder, ttl_secs=LONG_SECS)
        await signals.put_route(route(holder))
        await signals.publish_routes()
        assert list(await signals.routes()) == [route(holder)]


async def test_who_is_there_can_be_asked(signals: Signals, eventually: Eventually) -> None:
    """An announcement counts, with the facts of the last one, until it is withdrawn or its time is over."""
    assert await signals.announced("gateway") == {}
    await signals.announce("gateway", "g1", {"address": "one"}, ttl_secs=LONG_SECS)
    await signals.announce("gateway", "g1", {"address": "two", "ünï": '"'}, ttl_secs=LONG_SECS)
    await signals.announce("gateway", "g2", {}, ttl_secs=LONG_SECS)
    await signals.announce("autoscaler", "g1", {}, ttl_secs=LONG_SECS)
    assert await signals.announced("gateway") == {"g1": {"address": "two", "ünï": '"'}, "g2": {}}
    await signals.withdraw("gateway", "g2")
    await signals.withdraw("gateway", "g2")
    assert set(await signals.announced("gateway")) == {"g1"}
    await signals.announce("gateway", "g1", {}, ttl_secs=SHORT_SECS)

    async def is_gone() -> bool:
        return await signals.announced("gateway") == {}

    await eventually(is_gone)
    assert set(await signals.announced("autoscaler")) == {"g1"}


async def test_another_process_sees_the_same(store: Store) -> None:
    """What one instance writes, another one reads and hears."""
    one, other = await store.instance(), await store.instance()
    await one.publish_routes()
    async with other.watch_routes() as routes, other.watch_changes() as changes, other.watch_events("r") as events:
        await anext(routes)
        await one.put_route(route("r"))
        await one.changed(Changed(kind="actor", id="x"))
        assert await one.send_event(RunEvent(run_id="r", frames=("hello",))) == 1
        assert (await anext(routes)).change == route("r")
        assert await anext(changes) == Changed(kind="actor", id="x")
        assert (await anext(events)).frames == ("hello",)
        assert await one.connected_runs() == {"r"}
    await one.report_demand(report("g1", 1), ttl_secs=LONG_SECS, is_poke=True)
    assert await other.wait_for_poke(5) is True
    assert [r.gateway_id for r in await other.demand_reports()] == ["g1"]


async def test_a_store_that_answers_is_in_no_trouble(signals: Signals) -> None:
    """As the health pages tell it."""
    async with signals.watch_changes():
        assert signals.trouble is None
