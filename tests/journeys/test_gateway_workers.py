"""``greenroom gateway --workers 2``: one port, two workers, one holder of events sockets; a real Redis between all."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from journeys.fleet import Fleet, probing
from journeys.greenroom import Greenroom, actor_folder, eventually, holders_of, workers_of
from journeys.test_events import WAITS, end, listening, run_of
from redis_server import RedisServer, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

STANDBY = {"idleTimeoutSecs": 300, "maxRequestsPerActorRun": 100, "desiredRequestsPerActorRun": 100}


@pytest.fixture
def redis(tmp_path: Path, redis_server: RedisServer) -> Iterator[RedisServer]:
    """One of the test's own."""
    with running(tmp_path / "redis") as server:
        yield server


def fleet_of(tmp_path: Path, redis: RedisServer, **options: object) -> Fleet:
    """Of one gateway, which is added by ``with_workers``."""
    folder = actor_folder(tmp_path / "actors", "probe", STANDBY)
    waits = actor_folder(tmp_path / "actors", "waits", main=WAITS, usesStandbyMode=False)
    return Fleet(tmp_path, redis, (folder, waits), gateways_wanted=0, autoscalers_wanted=0, **options)  # type: ignore[arg-type]


async def with_workers(fleet: Fleet, *, autoscaler: bool = True) -> Greenroom:
    """The fleet's gateway, once both of its workers serve, and an autoscaler that leads."""
    gateway = await fleet.add_gateway("--workers", "2")
    await both_serve(gateway)
    if autoscaler:
        await fleet.add_autoscaler()
        await fleet.leader()
    return gateway


async def both_serve(gateway: Greenroom, but: set[int] = frozenset()) -> set[int]:  # type: ignore[assignment]
    """The two workers, none of them among *but*, once each has answered a request."""
    assert gateway.process is not None
    pid = gateway.process.pid

    async def look() -> set[int] | None:
        workers = set(workers_of(pid))
        if len(workers) != 2 or workers & but:
            return None
        return workers if min((await connections_of(gateway, workers, 20)).values()) > 0 else None

    found = await eventually(look, within_secs=40, what="two workers that serve")
    assert isinstance(found, set)
    return found


async def connections_of(gateway: Greenroom, workers: set[int], count: int) -> dict[int, int]:
    """How many of so many new connections each worker has accepted; all of them have had an answer."""
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=count)
    before = {worker: _open_at(worker, gateway.port) for worker in workers}
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", trust_env=False, limits=limits) as client,
        asyncio.TaskGroup() as group,
    ):
        is_counted = asyncio.Event()
        opened = asyncio.Semaphore(0)

        async def hold() -> None:
            async with client.stream("GET", "/health/live") as answer:
                assert answer.status_code == 200
                opened.release()
                await is_counted.wait()

        for _ in range(count):
            group.create_task(hold())
        for _ in range(count):
            await opened.acquire()
        found = {worker: _open_at(worker, gateway.port) - before[worker] for worker in workers}
        is_counted.set()
    return found


def _open_at(pid: int, port: int) -> int:
    """The connections that a process has accepted at *port* and holds."""
    try:
        held = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return 0
    return sum(1 for one in held if one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port)


async def test_connections_spread_over_the_workers(tmp_path: Path, redis: RedisServer) -> None:
    """Of some hundred new connections neither worker has less than 30 or more than 70 of 100."""
    async with fleet_of(tmp_path, redis) as fleet:
        gateway = await with_workers(fleet, autoscaler=False)
        workers = await both_serve(gateway)
        found = await connections_of(gateway, workers, 300)
        print(f"connections: {sorted(found.values())}")
        assert sum(found.values()) == 300
        assert min(found.values()) >= 90
        assert gateway.process is not None
        assert len(holders_of(gateway.process.pid)) == 1
        assert gateway.log.count("API: ") == 1
        told = (await gateway.client.get("/metrics")).text
        assert set(re.findall(r'^greenroom_requests_in_flight\{worker="(\d)"\}', told, re.MULTILINE)) == {"0", "1"}


async def test_a_worker_dies_and_all_are_replaced(tmp_path: Path, redis: RedisServer) -> None:
    """
    Warm requests, each on a connection of its own, go on: those in flight at the one that is killed are all that fails,
    and a reload of both fails none.
    """
    async with fleet_of(tmp_path, redis) as fleet:
        gateway = await with_workers(fleet)
        workers = await both_serve(gateway)
        run = (await gateway.call("probe")).text
        async with probing(gateway, actor="probe") as prober:
            os.kill(min(workers), signal.SIGKILL)
            await eventually(lambda: "the new worker serves" in gateway.log, within_secs=40, what="the next worker")
            assert len(prober.failures) <= 1
            workers = await both_serve(gateway)
            prober.failures.clear()
            await gateway.command("reload")
            await both_serve(gateway, workers)
        assert prober.failures == []
        assert set(prober.answers) == {run}


async def test_an_abort_is_told_once_through_reload_and_crash(tmp_path: Path, redis: RedisServer) -> None:
    """
    An events socket, opened once, hears on over the death, the pauses and the replacement of workers, and 'aborting'
    once.
    """
    async with fleet_of(tmp_path, redis, settings={"abort_grace_secs": 60}) as fleet:
        gateway = await with_workers(fleet)
        workers = await both_serve(gateway)
        async with run_of(gateway) as (run_id, url), listening(url) as listener:
            await listener.hears_more()
            for worker in sorted(workers):  # one of them leads
                count = gateway.log.count("the new worker serves")
                os.kill(worker, signal.SIGKILL)
                await eventually(lambda count=count: gateway.log.count("the new worker serves") > count, within_secs=40)
                await listener.hears_more()
            for worker in sorted(await both_serve(gateway)):
                os.kill(worker, signal.SIGSTOP)
                try:
                    await listener.hears_more()
                    await listener.hears_more()
                finally:
                    os.kill(worker, signal.SIGCONT)
                await listener.hears_more()
            await gateway.data_of("POST", f"/actor-runs/{run_id}/abort", params={"gracefully": "1"})
            await eventually(lambda: listener.names() == ["aborting", "persistState"], what="the abort's frames")
            await gateway.command("reload")
            await listener.hears_more()
            await listener.hears_more()
            end(gateway, run_id)
            await listener.socket.wait_closed()
            assert listener.socket.close_code == 1000
            assert listener.names() == ["aborting", "persistState"]
            times = [event["createdAt"] for event in listener.events if event["name"] == "systemInfo"]
            assert len(times) == len(set(times)), "each measurement comes once"
            assert (await gateway.ended(run_id))["status"] == "ABORTED"
