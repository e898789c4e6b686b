"""Signals when their Redis goes away, comes back empty, is slow, or is another one by now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from redis_server import RedisServer, free_port, leaks, running, sentinel
from state.redis.waiting import DEADLINE_SECS, until, until_answered

from gateway.core.demand import DemandReport
from gateway.core.lifecycle import Readiness
from gateway.state.ports import (
    LEADER,
    Changed,
    NumberedChange,
    RouteEnded,
    RoutesReset,
    RunEvent,
    RunRoute,
    Signals,
    StateUnavailable,
)
from gateway.state.redis import ears, socket_scripts
from gateway.state.redis.address import parse_address
from gateway.state.redis.client import open_client
from gateway.state.redis.signals import RedisSignals, open_redis_signals
from gateway.state.signals_opening import open_signals

pytestmark = pytest.mark.slow


def route(run_id: str, readiness: Readiness = Readiness.SERVING) -> RunRoute:
    return RunRoute(run_id=run_id, actor_id="a", user_id="u", live_view_label=run_id, readiness=readiness)


def opened(server: RedisServer) -> AbstractAsyncContextManager[RedisSignals]:
    return open_redis_signals(parse_address(server.url()), namespace="test")


async def leads(signals: Signals, holder: str = "me") -> int:
    token = await until_answered(lambda: signals.lead(LEADER, holder, ttl_secs=60), lambda token: token is not None)
    assert token is not None
    return token


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis that the test may break."""
    with running(tmp_path / "redis") as server:
        yield server


async def next_reset(changes: AsyncIterator[NumberedChange]) -> dict[str, RunRoute]:
    """The routes of the next reset, by run."""
    async with asyncio.timeout(DEADLINE_SECS):
        async for numbered in changes:
            if isinstance(numbered.change, RoutesReset):
                return {found.run_id: found for found in numbered.change.routes}
    raise AssertionError


async def test_routes_are_heard_of_once_all_are_published(server: RedisServer) -> None:
    """
    In an empty Redis there is no picture, so whoever watches keeps what he knows: a first route is not all routes.
    """
    async with opened(server) as leader, opened(server) as gateway, gateway.watch_routes() as changes:
        await leads(leader)
        await leader.put_route(route("one"))
        assert list(await gateway.routes()) == []
        async with asyncio.TaskGroup() as group:
            first = group.create_task(next_reset(changes))
            await leader.put_route(route("two"))
            await until(lambda: gateway.commands_issued().get("picture", 0) >= 2)
            assert not first.done()
            version = await leader.publish_routes()
        assert first.result().keys() == {"one", "two"}
        last = await leader.end_route(RouteEnded(run_id="one", live_view_label="one"))
        assert last == version + 1
        assert (await anext(changes)).version == last


async def test_a_redis_that_comes_back_empty_is_filled_again(server: RedisServer) -> None:
    """
    Whoever watches hears that it was lost, and then of all routes, once the leader has renewed its lease; tokens and
    versions go on ascending.
    """
    async with opened(server) as leader, opened(server) as gateway:
        before = await leads(leader)
        await leader.put_route(route("one"))
        await leader.publish_routes()
        last = await leader.put_route(route("two"))
        async with gateway.watch_routes() as changes:
            assert (await next_reset(changes)).keys() == {"one", "two"}
            server.restart()
            with pytest.raises(StateUnavailable):
                await next_reset(changes)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(until_answered(lambda: _first_reset(gateway)))
            await until_answered(gateway.routes)
            assert not watching.done()
            after = await leads(leader)
        assert watching.result().keys() == {"one", "two"}
        assert after > before
        assert await leader.put_route(route("three")) > last


async def _first_reset(signals: Signals) -> dict[str, RunRoute]:
    async with signals.watch_routes() as changes:
        return await next_reset(changes)


async def test_an_emptied_redis_is_filled_again(server: RedisServer) -> None:
    """Also where no connection was lost."""
    async with opened(server) as leader, opened(server) as gateway, gateway.watch_routes() as changes:
        await leads(leader)
        await leader.put_route(route("one"))
        await leader.publish_routes()
        await next_reset(changes)
        with server.client() as admin:
            admin.flushall()
        await leader.put_route(route("two"))  # finds it out before the next renewal does
        assert (await next_reset(changes)).keys() == {"one", "two"}


async def test_a_redis_that_comes_back_with_what_it_had_saved(server: RedisServer) -> None:
    """Old routes are replaced by the leader's at once, and old tokens are nobody's."""
    async with opened(server) as leader:
        before = await leads(leader)
        await leader.put_route(route("one"))
        await leader.publish_routes()
        with server.client() as admin:
            admin.save()
        await leader.end_route(RouteEnded(run_id="one", live_view_label="one"))
        last = await leader.put_route(route("two"))
        server.restart()
        with server.client() as admin:
            assert admin.hkeys("{test}:routes") == ["one"]
            admin.delete("{test}:lease:autoscaler")  # as if it had ended long ago
        assert await leads(leader) > before
        assert list(await leader.routes()) == [route("two")]
        assert await leader.put_route(route("three")) > last


@pytest.mark.slow
async def test_a_new_master_that_lacks_the_last_change_alone_is_filled_again(server: RedisServer) -> None:
    """Also where the next thing that it hears is a change, which then gets the number of the lost one."""
    async with opened(server) as leader:
        await leads(leader)
        await leader.publish_routes()
        await leader.put_route(route("one"))
        last = await leader.put_route(route("lost"))
        with server.client() as admin:
            admin.hdel("{test}:routes", "lost")
            admin.hincrby("{test}:routes:head", "version", -1)
        assert await leader.put_route(route("two")) > last
        assert {found.run_id for found in await leader.routes()} == {"one", "lost", "two"}


@pytest.mark.slow
async def test_what_could_not_be_told_is_published_when_it_can(server: RedisServer) -> None:
    """An end and a start that fell into an outage are known afterwards, although Redis has lost nothing."""
    async with opened(server) as leader:
        await leads(leader)
        await leader.publish_routes()
        await leader.put_route(route("one"))
        server.pause()
        with pytest.raises(StateUnavailable):
            await leader.end_route(RouteEnded(run_id="one", live_view_label="one"))
        with pytest.raises(StateUnavailable):
            await leader.put_route(route("two"))
        server.resume()
        await leads(leader)
        assert list(await leader.routes()) == [route("two")]


@pytest.mark.slow
async def test_while_it_is_gone_all_say_so(server: RedisServer) -> None:
    """Calls and new subscribers get StateUnavailable, the health page a reason; afterwards all is well again."""
    async with opened(server) as signals:
        async with signals.watch_changes() as changes:
            assert signals.trouble is None
            server.kill()
            with pytest.raises(StateUnavailable):
                await anext(changes)
        report = DemandReport(gateway_id="g", routes_seen=0)
        for asked in (
            signals.put_route(route("r")),
            signals.report_demand(report, ttl_secs=5),
            signals.demand_reports(),
            signals.wait_for_poke(5),
            signals.poke(),
            signals.changed(Changed(kind="actor", id="a")),
            signals.send_event(RunEvent(run_id="r")),
            signals.connected_runs(),
            signals.loads(),
            signals.troubles(),
            signals.lead(LEADER, "me", ttl_secs=5),
            signals.resign(LEADER, "me"),
            signals.announced("gateway"),
            signals.routes(),
        ):
            with pytest.raises(StateUnavailable):
                await asked
        assert signals.trouble is not None
        assert await signals.wait_for_report(0.01) is False
        for entered in (signals.watch_routes(), signals.watch_changes(), signals.watch_events("r")):
            with pytest.raises(StateUnavailable):
                await entered.__aenter__()
        server.start()
        await until_answered(signals.poke)
        await until(lambda: signals.trouble is None)
        assert await signals.wait_for_poke(5) is True


async def test_events_sockets_outlive_an_outage(server: RedisServer) -> None:
    """Who watches events misses what is sent meanwhile, and is connected again by himself when Redis is back."""
    event = RunEvent(run_id="r", frames=("hello",))
    async with opened(server) as gateway, opened(server) as leader, gateway.watch_events("r") as events:
        assert await leader.send_event(event) == 1
        assert await anext(events) == event
        server.restart()
        await until_answered(leader.connected_runs, lambda runs: runs == {"r"})
        assert await leader.send_event(event) == 1
        assert await anext(events) == event


async def test_sockets_of_a_process_that_was_killed_are_not_counted(server: RedisServer) -> None:
    """Their sign of life would count for a while, but nobody listens."""
    async with opened(server) as leader:
        async with open_client(parse_address(server.url()), namespace="test") as killed:
            await socket_scripts.renew_sockets(killed, [("r", "socket")])
        assert await leader.connected_runs() == frozenset()
        assert await leader.send_event(RunEvent(run_id="r")) == 0
        async with leader.watch_events("r"):
            assert await leader.connected_runs() == {"r"}


@pytest.mark.slow
async def test_a_redis_that_is_slow_by_a_second_is_waited_for(server: RedisServer) -> None:
    """Neither the lease nor a subscription is lost, nor a change."""
    async with opened(server) as leader, opened(server) as gateway, gateway.watch_routes() as changes:
        token = await leads(leader)
        await leader.publish_routes()
        await next_reset(changes)
        for number in range(3):
            server.pause()
            asyncio.get_running_loop().call_later(1.0, server.resume)
            assert await leader.lead(LEADER, "me", ttl_secs=4) == token
            version = await leader.put_route(route(str(number)))
            assert await anext(changes) == NumberedChange(version=version, change=route(str(number)))


@pytest.mark.slow
async def test_a_redis_whose_every_answer_is_late_by_a_second(server: RedisServer) -> None:
    """Also who comes when it is slow already gets in, leads, tells and hears; nothing is lost, all takes its time."""
    async with slow_wire(server.port, delay_secs=1.0) as port:
        address = parse_address(f"redis://127.0.0.1:{port}/4")  # one way more, to choose the database
        async with open_redis_signals(address, namespace="test") as signals:
            await leads(signals)
            await until_answered(signals.publish_routes)
            found = await until_answered(lambda: _first_reset(signals))
            assert found == {}
            async with asyncio.timeout(DEADLINE_SECS), _watching(signals) as changes:
                await next_reset(changes)
                for number in range(3):  # longer than one is deaf who does not hear himself
                    assert await signals.lead(LEADER, "me", ttl_secs=4) is not None
                    version = await signals.put_route(route(str(number)))
                    assert (await anext(changes)).version == version
            assert signals.trouble is None


@asynccontextmanager
async def _watching(signals: Signals) -> AsyncIterator[AsyncIterator[NumberedChange]]:
    """Entered as soon as it can be."""
    async with AsyncExitStack() as stack:
        yield await until_answered(lambda: stack.enter_async_context(signals.watch_routes()))


@asynccontextmanager
async def slow_wire(port: int, *, delay_secs: float) -> AsyncIterator[int]:
    """A port that leads to *port*, whose answers come late."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secs: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            while chunk := await reader.read(65536):
                loop.call_later(secs, writer.write, chunk)
        except OSError:
            pass
        loop.call_later(secs, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as group:
            group.create_task(pass_on(reader, back, 0))
            group.create_task(pass_on(there, writer, delay_secs))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await asyncio.sleep(2 * delay_secs)  # for what is still under way


async def test_who_does_not_hear_himself_connects_anew(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is open and dead, as by a firewall that has forgotten it, is given up."""
    monkeypatch.setattr(ears, "_BEAT_SECS", 0.02)
    monkeypatch.setattr(ears, "_DEAF_SECS", 0.5)
    async with opened(server) as signals, signals.watch_changes() as changes:
        own = next(iter(signals._ears._confirmed.keys() - {signals._client.keys.channel("changes")}))
        await signals._ears._say("UNSUBSCRIBE", own)
        with pytest.raises(StateUnavailable, match="it does not answer in time"):
            await anext(changes)
        async with signals.watch_changes() as again:
            await signals.changed(Changed(kind="actor", id="a"))
            assert await anext(again) == Changed(kind="actor", id="a")


async def test_what_another_program_left_is_refused(server: RedisServer) -> None:
    """A message or a key of that name that is none of Greenroom's is told, and breaks nothing for good."""
    async with opened(server) as signals:
        with server.client() as admin:
            await signals.publish_routes()
            admin.hset("{test}:routes", "r", "{}")
            with pytest.raises(StateUnavailable, match="can't be read"):
                await signals.routes()
            admin.delete("{test}:routes")
            async with signals.watch_routes() as changes:
                await next_reset(changes)
                admin.publish("{test}:0:routes", "hello")
                with pytest.raises(StateUnavailable, match="same namespace"):
                    await next_reset(changes)


async def test_two_databases_do_not_hear_each_other(server: RedisServer) -> None:
    """Redis tells channels of two databases not apart, so their names do."""
    one, other = (open_redis_signals(parse_address(server.url(number)), namespace="test") for number in (1, 2))
    async with one as first, other as second, first.watch_changes() as heard:
        await second.changed(Changed(kind="actor", id="second"))
        await first.changed(Changed(kind="actor", id="first"))
        assert (await anext(heard)).id == "first"


async def test_a_wake_takes_three_calls(server: RedisServer) -> None:
    """The report with its poke, the wait for it, the route: who only listens asks nothing, and nobody polls."""
    async with opened(server) as leader, opened(server) as gateway, gateway.watch_routes() as changes:
        await leads(leader)
        await leader.publish_routes()
        await next_reset(changes)
        await gateway.report_demand(DemandReport(gateway_id="g", routes_seen=0), ttl_secs=5, is_poke=True)
        assert await leader.wait_for_poke(5) is True
        await leader.put_route(route("r"))
        await anext(changes)
        before = [*gateway.commands_issued().items()], [*leader.commands_issued().items()]
        for number in range(20):
            await gateway.report_demand(DemandReport(gateway_id="g", routes_seen=0), ttl_secs=5, is_poke=True)
            assert await leader.wait_for_poke(5) is True
            await leader.put_route(route(str(number)))
            await anext(changes)
        for signals, then, wanted in (
            (gateway, before[0], {"report_demand": 20}),
            (leader, before[1], {"BLPOP": 20, "tell_route": 20}),
        ):
            more = {
                name: issued - dict(then).get(name, 0)
                for name, issued in signals.commands_issued().items()
                if name != "PUBLISH"  # what it says to itself each second
            }
            assert {name: issued for name, issued in more.items() if issued} == wanted


async def test_by_url(server: RedisServer) -> None:
    """As a process opens them; keys are below the namespace of all Greenrooms."""
    async with open_signals(server.url(3)) as signals:
        await signals.poke()
    with server.client(3) as admin:
        assert admin.keys() == ["{greenroom}:pokes"]
        assert leaks(admin, "greenroom") == []
    async with open_signals(None) as signals:
        await signals.poke()
        assert await signals.wait_for_poke(1) is True


async def test_a_user_with_few_rights(tmp_path: Path) -> None:
    """Those that ``deploy/REDIS.md`` names are enough."""
    page = (Path(__file__).parents[3] / "deploy" / "REDIS.md").read_text()
    rights = next(line.strip("`.") for line in page.splitlines() if line.startswith("`~{greenroom}"))
    with running(tmp_path / "redis", options=("--user", "gr", "on", ">pw", *rights.split())) as server:
        url = server.url().replace("redis://", "redis://gr:pw@")
        async with open_client(parse_address(url), namespace="greenroom") as client:
            assert (await client.command("ROLE"))[0] == b"master"  # as who comes by Sentinel asks
            with pytest.raises(StateUnavailable, match="permission"):
                await client.command("CONFIG", "GET", "save")
        async with open_signals(url) as signals, signals.watch_routes() as routes, signals.watch_changes() as changes:
            assert await signals.lead(LEADER, "me", ttl_secs=5) is not None
            await signals.put_route(route("r"))
            await signals.publish_routes()
            assert (await next_reset(routes)).keys() == {"r"}
            await signals.changed(Changed(kind="actor", id="a"))
            assert (await anext(changes)).id == "a"
            async with signals.watch_events("r"):
                assert await signals.connected_runs() == {"r"}
            report = DemandReport(gateway_id="g", routes_seen=0)
            await signals.report_demand(report, ttl_secs=5, is_poke=True)
            assert await signals.wait_for_poke(1) is True
            assert list(await signals.demand_reports()) == [report]
        async with open_signals(url, namespace="another") as signals:
            with pytest.raises(StateUnavailable, match="permission"):
                await signals.poke()


@pytest.mark.slow
async def test_a_failover(tmp_path: Path) -> None:
    """The Sentinels name another master: leader, routes and subscribers are there, with nothing lost for good."""
    ports = [free_port(), free_port(), free_port()]
    master = RedisServer(folder=tmp_path / "one", port=ports[0])
    replica = RedisServer(folder=tmp_path / "two", port=ports[1], options=("--replicaof", "127.0.0.1", str(ports[0])))
    try:
        master.start()
        replica.start()
        with sentinel(tmp_path / "sentinel", master=master, port=ports[2]) as watcher:
            with replica.client() as admin, watcher.client() as asked:
                await until(lambda: admin.info("replication")["master_link_status"] == "up")
                await until(lambda: len(asked.sentinel_slaves("main")) == 1)
            # The first one is not there: it is passed over.
            url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{ports[2]}/0?service=main"
            async with open_signals(url) as leader, open_signals(url) as gateway:
                before = await leads(leader)
                await leader.put_route(route("one"))
                await leader.publish_routes()
                assert (await _first_reset(gateway)).keys() == {"one"}
                async with gateway.watch_routes() as changes:
                    await next_reset(changes)
                    master.kill()
                    with pytest.raises(StateUnavailable):
                        await next_reset(changes)
                after = await leads(leader)
                assert after >= before
                version = await leader.put_route(route("two"))
                async with asyncio.timeout(DEADLINE_SECS):
                    found = await until_answered(lambda: _first_reset(gateway), lambda found: len(found) == 2)
                assert found.keys() == {"one", "two"}
                assert version
    finally:
        master.kill()
        replica.kill()
