"""Many processes with containers: whoever leads next has all of them, and makes the builds that were left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from journeys.fleet import Fleet, probing
from journeys.greenroom import eventually
from journeys.test_container_kills import folder_of
from journeys.test_processes import warm
from redis_server import RedisServer, running

from gateway.actor_files.snapshot import pack_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SLOW_BUILD = "FROM greenroom-tests:base\nCOPY . ./\nRUN sleep 8\nCMD python3 main.py\n"


@pytest.fixture
def redis(tmp_path: Path, redis_server: RedisServer) -> Iterator[RedisServer]:
    with running(tmp_path / "redis") as server:
        yield server


async def test_the_leader_is_killed_amid_a_build(
    docker_data: Path, docker_host: str, tmp_path: Path, redis: RedisServer
) -> None:
    """The next one adopts the containers, whose requests go on, and begins the build anew."""
    slow = folder_of(tmp_path / "actors", "slow")
    (slow / "Dockerfile").write_text(SLOW_BUILD)
    async with Fleet(tmp_path, redis, settings={"launcher": "docker", "docker_host": docker_host}) as fleet:
        one, other = fleet.gateways
        await one.push(folder_of(tmp_path / "actors", "first"))
        before = await warm(one)
        archive = await asyncio.to_thread(pack_folder, slow)
        pushed = await other.data_of(
            "POST", "/greenroom/push", content=archive.archive, headers={"Content-Type": "application/gzip"}
        )
        build_id = pushed["build"]["id"]

        async def status_of_build() -> str:
            return str((await other.data_of("GET", f"/actor-builds/{build_id}"))["status"])

        async def is_under_way() -> bool:
            return await status_of_build() == "RUNNING"

        await eventually(is_under_way, within_secs=20, what="the build's begin")
        async with probing(one, other, actor="first") as prober:
            await (await fleet.leader()).kill()
            await fleet.leader(within_secs=20)

            async def has_ended() -> bool:
                return await status_of_build() == "SUCCEEDED"

            await eventually(has_ended, within_secs=90, what="the build's end")
            assert await warm(other, "slow")
        assert prober.failures == []
        assert set(prober.answers) == {before}
        log = (await one.api("GET", f"/logs/{build_id}")).text
        assert "it begins anew" in log
        for run in await one.runs():
            await one.data_of("POST", f"/actor-runs/{run['id']}/abort")
            assert (await other.ended(run["id"]))["status"] == "ABORTED"
