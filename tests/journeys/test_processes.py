"""Many processes: requests are served by any gateway, one autoscaler leads, and what dies is survived."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from journeys.fleet import Fleet, clean_environment, end_all_runs, probing
from journeys.greenroom import Greenroom, actor_folder, error_of, eventually, refused_start
from redis_server import RedisServer, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

STANDBY = {"idleTimeoutSecs": 300, "maxRequestsPerActorRun": 4, "desiredRequestsPerActorRun": 4}
LEASE_SECS = 4.0


@pytest.fixture
def redis(tmp_path: Path, redis_server: RedisServer) -> Iterator[RedisServer]:
    """One of the test's own, which it may break."""
    with running(tmp_path / "redis") as server:
        yield server


def two_actors(tmp_path: Path) -> tuple[Path, ...]:
    return tuple(actor_folder(tmp_path / "actors", name, STANDBY) for name in ("first", "second"))


async def warm(greenroom: Greenroom, actor: str = "first") -> str:
    """The Actor is awake; what its run says."""
    answer = await greenroom.call(actor)
    assert answer.status_code == 200, answer.text
    return answer.text


async def lives_once(greenroom: Greenroom, actor: str) -> None:
    """Of all runs of an Actor, one lives, which is on record soon, and no other has existed."""
    actor_id = await actor_named(greenroom, actor)

    async def is_so() -> bool:
        runs = [run for run in await greenroom.runs() if run["actId"] == actor_id]
        assert len(runs) == 1, runs
        return bool(runs[0]["status"] == "RUNNING")

    await eventually(is_so, what="the one run's record")


async def actor_named(greenroom: Greenroom, name: str) -> str:
    return str((await greenroom.data_of("GET", f"/actors/local~{name}"))["id"])


async def test_any_gateway_serves_and_one_autoscaler_leads(tmp_path: Path, redis: RedisServer) -> None:
    """A cold request at either, an Actor that one was told of and both know, health and metrics of all."""
    async with Fleet(tmp_path, redis, two_actors(tmp_path)) as fleet:
        one, other = fleet.gateways
        assert await warm(one, "first") == await warm(other, "first")
        assert await warm(other, "second") == await warm(one, "second")
        for gateway in fleet.gateways:
            assert (await gateway.client.get("/health/ready")).json() == {"status": "ready"}
        leads = [await autoscaler.health() for autoscaler in fleet.autoscalers]
        assert sorted(one["leading"] for one in leads) == [False, True]
        assert {one["status"] for one in leads} == {"ready"}
        leader = await fleet.leader()
        assert leader.client is not None
        assert "greenroom_autoscaler_leads 1.0" in (await leader.client.get("/metrics")).text
        pushed = await other.probe("third", STANDBY)
        assert await warm(one, "third") == await warm(other, "third")
        begun = await other.data_of("POST", f"/actors/{pushed['id']}/runs")
        await one.data_of("POST", f"/actor-runs/{begun['id']}/abort")
        assert (await other.ended(begun["id"]))["status"] == "ABORTED"


async def test_the_leader_is_killed(tmp_path: Path, redis: RedisServer) -> None:
    """Warm traffic does not notice; the next one leads soon, has adopted the run, and wakes the other Actor."""
    async with Fleet(tmp_path, redis, two_actors(tmp_path)) as fleet:
        before = await warm(fleet.gateways[0])
        async with probing(*fleet.gateways, actor="first") as prober:
            await (await fleet.leader()).kill()
            killed = time.monotonic()
            following = await fleet.leader(within_secs=15)
            took_secs = time.monotonic() - killed
            assert await warm(fleet.gateways[1], "second")
        assert prober.failures == []
        assert set(prober.answers) == {before}
        assert took_secs < 2 * LEASE_SECS
        assert "has ended without saying so" in following.log  # its lease was not waited for
        for actor in ("first", "second"):
            await lives_once(fleet.gateways[0], actor)


async def test_the_leader_stands_still_for_longer_than_its_lease(tmp_path: Path, redis: RedisServer) -> None:
    """Another one leads meanwhile; when it goes on, it lets go, and the runs are the other's."""
    async with Fleet(tmp_path, redis, two_actors(tmp_path)) as fleet:
        before = await warm(fleet.gateways[0])
        old = await fleet.leader()
        async with probing(*fleet.gateways, actor="first") as prober:
            old.send(signal.SIGSTOP)
            (waiting,) = [one for one in fleet.autoscalers if one is not old]
            await eventually(waiting.leads, within_secs=15, what="the next leader")
            old.send(signal.SIGCONT)
            await eventually(lambda: "the lead is lost" in old.log, within_secs=10, what="the end of its term")
            assert await warm(fleet.gateways[1], "second")
        assert not await old.leads()
        assert await waiting.leads()
        assert prober.failures == []
        assert set(prober.answers) == {before}
        for actor in ("first", "second"):
            await lives_once(fleet.gateways[0], actor)


async def test_a_gateway_is_killed(tmp_path: Path, redis: RedisServer) -> None:
    """The others go on, and so do the runs; it comes back and serves."""
    async with Fleet(tmp_path, redis, two_actors(tmp_path)) as fleet:
        one, other = fleet.gateways
        before = await warm(one)
        async with probing(other, actor="first") as prober:
            await one.kill()
            assert await warm(other, "second")
            one.start()
            await one.wait_until_ready()
            assert await warm(one) == before
        assert prober.failures == []
        assert set(prober.answers) == {before}
        for actor in ("first", "second"):
            await lives_once(other, actor)


async def test_a_gateway_is_stopped(tmp_path: Path, redis: RedisServer) -> None:
    """It answers what it has; the run lives on, for the others and for its own next start."""
    async with Fleet(tmp_path, redis, two_actors(tmp_path)) as fleet:
        one, other = fleet.gateways
        before = await warm(one)
        async with probing(other, actor="first") as prober, asyncio.TaskGroup() as group:
            slow = group.create_task(one.call("first", "/slow?ms=2000"))

            async def has_come() -> bool:
                return await one.metric("greenroom_requests_in_flight") == 1

            await eventually(has_come, what="the slow request")
            assert await one.stop() == 0
            assert slow.result().status_code == 200
            one.start()
            await one.wait_until_ready()
        assert prober.failures == []
        assert {*prober.answers, await warm(one)} == {before}
        await lives_once(other, "first")


async def test_redis_is_gone_and_comes_back_empty(tmp_path: Path, redis: RedisServer) -> None:
    """Warm requests go on; a wake waits and is told why; all works when it is back, with the runs that were there."""
    settings = {"pick_timeout_secs": 2}
    async with Fleet(tmp_path, redis, two_actors(tmp_path), settings) as fleet:
        one, other = fleet.gateways
        before = await warm(one)
        async with probing(one, other, actor="first") as prober:
            redis.kill()
            refused = await other.call("second")
            assert error_of(refused) == (503, "waiting-room-timeout"), refused.text
            assert "cut off from" in refused.json()["error"]["message"]
            ready = await one.client.get("/health/ready")
            assert (ready.status_code, ready.json()["signals"]) == (200, "unavailable")
            await asyncio.sleep(LEASE_SECS + 1)  # the leader's term is over now, since nobody could renew it
            assert not any([await autoscaler.leads() for autoscaler in fleet.autoscalers])
            redis.start()
            await fleet.leader(within_secs=15)

            async def wakes() -> bool:
                return (await other.call("second")).status_code == 200

            await eventually(wakes, within_secs=20, what="a wake")
        assert prober.failures == []
        assert set(prober.answers) == {before}
        for actor in ("first", "second"):
            await lives_once(one, actor)


async def test_redis_is_restarted(tmp_path: Path, redis: RedisServer) -> None:
    """It has forgotten everything, in less time than a lease: nobody notices, and the next wake works."""
    async with Fleet(tmp_path, redis, two_actors(tmp_path)) as fleet:
        before = await warm(fleet.gateways[0])
        async with probing(*fleet.gateways, actor="first") as prober:
            redis.restart()
            assert await warm(fleet.gateways[1], "second")
        assert prober.failures == []
        assert set(prober.answers) == {before}
        for actor in ("first", "second"):
            await lives_once(fleet.gateways[0], actor)


async def test_nobody_leads_for_a_while(tmp_path: Path, redis: RedisServer) -> None:
    """What the API was asked for meanwhile stands in the records, and is done by the next one that leads."""
    async with Fleet(tmp_path, redis, two_actors(tmp_path), autoscalers_wanted=1) as fleet:
        (gateway, _), (leader,) = fleet.gateways, fleet.autoscalers
        before = await warm(gateway)
        actor = await actor_named(gateway, "second")
        running = await gateway.data_of("POST", f"/actors/{actor}/runs")
        await eventually(lambda: _is_running(gateway, running["id"]), what="the run's start")
        await leader.kill()
        begun = await gateway.data_of("POST", f"/actors/{actor}/runs")
        await gateway.data_of("POST", f"/actor-runs/{running['id']}/abort")
        assert begun["status"] == "READY"
        assert await warm(gateway) == before
        await fleet.add_autoscaler()
        assert (await gateway.ended(running["id"]))["status"] == "ABORTED"
        await eventually(lambda: _is_running(gateway, begun["id"]), what="the start of what waited")
        assert await warm(gateway) == before


async def _is_running(gateway: Greenroom, run_id: str) -> bool:
    return bool((await gateway.run(run_id))["status"] == "RUNNING")


async def test_an_autoscaler_is_stopped(tmp_path: Path, redis: RedisServer) -> None:
    """It lets go of its runs and of the lead: the next one has both at once."""
    async with Fleet(tmp_path, redis, two_actors(tmp_path)) as fleet:
        before = await warm(fleet.gateways[0])
        old = await fleet.leader()
        async with probing(*fleet.gateways, actor="first") as prober:
            assert await old.stop() == 0
            await fleet.leader(within_secs=LEASE_SECS)
            assert await warm(fleet.gateways[0], "second")
        assert prober.failures == []
        assert set(prober.answers) == {before}


async def test_gateways_are_reloaded(tmp_path: Path, redis: RedisServer) -> None:
    """One after the other, by one command; no request fails, and the runs stay."""
    async with Fleet(tmp_path, redis, two_actors(tmp_path)) as fleet:
        before = await warm(fleet.gateways[0])
        async with probing(*fleet.gateways, actor="first") as prober:
            await fleet.gateways[0].command("reload")
        assert prober.failures == []
        assert set(prober.answers) == {before}
        for gateway in fleet.gateways:
            assert "the new worker serves" in gateway.log
        assert await warm(fleet.gateways[1], "second")


async def test_all_in_one_with_signals_on_redis(tmp_path: Path, redis: RedisServer) -> None:
    """``serve`` leads by the same rules: a reload hands the lead on, an outage ends it. Its end is that of its runs."""
    async with Greenroom(tmp_path / "data", two_actors(tmp_path), {"signals_url": redis.url()}) as greenroom:
        before = await warm(greenroom)
        async with probing(greenroom, actor="first") as prober:
            await greenroom.command("reload")
            assert await warm(greenroom, "second")
            redis.kill()
            await asyncio.sleep(LEASE_SECS + 1)
            redis.start()

            begun = await greenroom.data_of("POST", f"/actors/{await actor_named(greenroom, 'second')}/runs")
            await eventually(lambda: _is_running(greenroom, begun["id"]), within_secs=20, what="a start")
        assert prober.failures == []
        assert set(prober.answers) == {before}
        assert await greenroom.stop() == 0
        assert end_all_runs(greenroom.data) == 0


async def test_a_folder_is_shared_or_not(tmp_path: Path, redis: RedisServer) -> None:
    """``serve`` wants it for itself, and says who has it; while it serves, a gateway does not get it."""
    async with Fleet(tmp_path, redis, gateways_wanted=1, autoscalers_wanted=0) as fleet:
        code, told = await refused_start(fleet.data)
        assert code == 1
        assert "processes of 'greenroom gateway' or 'greenroom autoscaler' have the data folder" in told
    async with Greenroom(tmp_path / "data") as greenroom:
        done = await asyncio.to_thread(
            started, "gateway", "--data", str(greenroom.data), "--port", "0", GREENROOM_SIGNALS_URL=redis.url()
        )
        assert done.returncode == 1
        assert re.search(r"'greenroom serve' \(process \d+\) has the data folder", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        pytest.param(["gateway"], {}, "GREENROOM_SIGNALS_URL", id="a gateway without signals"),
        pytest.param(["autoscaler"], {}, "GREENROOM_SIGNALS_URL", id="an autoscaler without signals"),
        pytest.param(
            ["autoscaler", "--port", "0"], {"GREENROOM_SIGNALS_URL": "redis://127.0.0.1:1/0"}, "--port", id="no port"
        ),
        pytest.param(["serve", "--set", "workers=2"], {}, "greenroom gateway --workers N", id="workers of serve"),
    ],
)
def test_settings_that_do_not_go_together(
    tmp_path: Path, words: list[str], environment: dict[str, str], told: str
) -> None:
    """One clear line says what is missing."""
    done = started(*words, "--data", str(tmp_path / "data"), **environment)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert told in done.stderr


def started(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment() | {"GREENROOM_CONFIG": "/dev/null"} | environment,
    )
