"""Many processes on PostgreSQL and S3, each gateway with a data folder of its own: as on machines of their own."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import postgres_server
import pytest
import s3_server
from journeys.fleet import Fleet, probing
from journeys.greenroom import actor_folder, error_of, eventually
from journeys.test_processes import STANDBY, lives_once, started, two_actors, warm
from redis_server import RedisServer, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

TOKEN_CACHE_SECS = 5.0
KEY = "a secret key that all of them were given"


@pytest.fixture
def redis(tmp_path: Path, redis_server: RedisServer) -> Iterator[RedisServer]:
    with running(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def postgres() -> Iterator[postgres_server.PostgresServer]:
    """One of the test's own, which it may break; what it has acknowledged is kept when it is stopped, not killed."""
    with postgres_server.running() as server:
        yield server


@pytest.fixture
def records(postgres: postgres_server.PostgresServer) -> dict[str, str]:
    """The variable that names a database."""
    return {"GREENROOM_RECORDS_URL": postgres.url(postgres.create_database())}


async def test_postgresql_is_gone_for_a_while(
    tmp_path: Path, redis: RedisServer, postgres: postgres_server.PostgresServer, records: dict[str, str]
) -> None:
    """Warm requests go on, longer than a token is remembered; the API says 503; a wake waits, and works afterwards."""
    async with Fleet(tmp_path, redis, two_actors(tmp_path), variables=records) as fleet:
        one, other = fleet.gateways
        before = await warm(one)
        async with probing(one, other, actor="first") as prober:
            postgres.stop()
            stopped = time.monotonic()
            refused = await one.api("GET", "/actor-runs")
            assert error_of(refused)[0] == 503, refused.text
            ready = await other.client.get("/health/ready")
            assert (ready.status_code, ready.json()) == (200, {"status": "ready", "records": "unavailable"})
            async with asyncio.TaskGroup() as group:
                waking = group.create_task(other.call("second"))
                await asyncio.sleep(TOKEN_CACHE_SECS + 1 - (time.monotonic() - stopped))
                assert not waking.done()
                await asyncio.to_thread(postgres.start)
            assert waking.result().status_code == 200, waking.result().text
        assert prober.failures == []
        assert set(prober.answers) == {before}
        for actor in ("first", "second"):
            await lives_once(one, actor)


async def test_nobody_can_act_without_records(
    tmp_path: Path, redis: RedisServer, postgres: postgres_server.PostgresServer, records: dict[str, str]
) -> None:
    """Who is next when the leader dies says why it does not act, and does as soon as it can."""
    async with Fleet(tmp_path, redis, two_actors(tmp_path), variables=records) as fleet:
        before = await warm(fleet.gateways[0])
        leader = await fleet.leader()
        (waiting,) = [one for one in fleet.autoscalers if one is not leader]
        async with probing(*fleet.gateways, actor="first") as prober:
            postgres.stop()
            await leader.kill()

            async def is_troubled() -> bool:
                health = await waiting.health()
                return health["status"] == "waiting" and "PostgreSQL" in health["trouble"]

            await eventually(is_troubled, within_secs=20, what="the trouble of the next one")
            await asyncio.to_thread(postgres.start)
            await eventually(waiting.leads, within_secs=20, what="the next leader")
            assert await warm(fleet.gateways[1], "second")
        assert prober.failures == []
        assert set(prober.answers) == {before}
        assert "secret-of-postgres" not in "".join(one.log for one in (*fleet.gateways, *fleet.autoscalers))


async def test_gateways_with_folders_of_their_own(
    tmp_path: Path, redis: RedisServer, records: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Actor that one was pushed, a log that lies with the leader, and a key that all must have."""
    for name, key in s3_server.KEYS.items():
        monkeypatch.setenv(name, key)
    with s3_server.running() as s3:
        variables = {
            **records,
            "GREENROOM_BLOBS_URL": s3.url(s3.create_bucket()),
            "GREENROOM_SECRET_KEY": KEY,
        }
        async with Fleet(tmp_path, redis, variables=variables, is_apart=True) as fleet:
            one, other = fleet.gateways
            actor = await one.push(actor_folder(tmp_path / "actors", "first", STANDBY))
            assert await warm(one) == await warm(other)
            (run,) = await other.runs_of(actor)

            async def log() -> bool:
                return "first starts" in await other.log_of(run["id"]) or "probe starts" in await other.log_of(
                    run["id"]
                )

            await eventually(log, what="the live log, from the autoscaler's folder")
            await (await fleet.leader()).kill()
            await fleet.leader(within_secs=15)
            await one.data_of("POST", f"/actor-runs/{run['id']}/abort")
            assert (await other.ended(run["id"]))["status"] == "ABORTED"
            await eventually(log, what="the log, which is a blob now")
            another_key = await asyncio.to_thread(_started_with_another_key, tmp_path, fleet)
            assert another_key.returncode == 1
            assert "give all of them the same GREENROOM_SECRET_KEY" in another_key.stderr


def _started_with_another_key(tmp_path: Path, fleet: Fleet) -> subprocess.CompletedProcess[str]:
    variables = fleet.environment | {"GREENROOM_SECRET_KEY": "another one"}
    return started("gateway", "--port", "0", "--data", str(tmp_path / "third"), **variables)
