"""A container that an earlier Greenroom has started, and that was still booting when that one was killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker_engine
import pytest
from launcher_builds import ContainerBuilds, open_launcher, start_in_a_first_life, until

from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.docker.run_container import left_of_boot
from gateway.installation import installation_of

MIB = 1024 * 1024


@pytest.fixture
def client(docker_host: str, tmp_path: Path) -> Iterator[Any]:
    connected = Engine(docker_host).connect()
    yield connected
    connected.close()
    docker_engine.remove_all(docker_host, installation_of(tmp_path).label)


async def test_its_boot_ends_all_the_same(client: Any, tmp_path: Path) -> None:
    """It has the larger share until it serves, counts as booting as long, and has its own share afterwards."""
    builds = ContainerBuilds(tmp_path)
    run = await start_in_a_first_life("docker", tmp_path, "import time; print('up', flush=True); time.sleep(60)")

    def quota() -> int:
        return int(client.inspect_container(run.placement["container"])["HostConfig"]["CpuQuota"])

    async with open_launcher("docker", tmp_path, builds) as launcher:
        assert await launcher.adopt(run.id, run.placement)
        assert quota() == 100_000
        assert (await launcher.usage())[run.id].is_booting
        await launcher.has_booted(run.id)
        await until(lambda: quota() == 3125)
        assert not (await launcher.usage())[run.id].is_booting
    async with open_launcher("docker", tmp_path, builds) as launcher:
        assert await launcher.adopt(run.id, run.placement)
        assert not (await launcher.usage())[run.id].is_booting
        await launcher.stop(run.id, grace_secs=0)
        await launcher.wait(run.id)
    builds.close()


@pytest.mark.parametrize(
    ("memory_mbytes", "quota", "expected"),
    [
        pytest.param(1024, 100_000, 0.25, id="booting"),
        pytest.param(1024, 25_000, None, id="booted"),
        pytest.param(128, 3125, None, id="a small one, booted"),
        pytest.param(4096, 100_000, None, id="its share is a whole core anyway"),
        pytest.param(32768, 200_000, None, id="more than there is"),
    ],
)
def test_what_is_left_of_a_boot(memory_mbytes: int, quota: int, expected: float | None) -> None:
    """By the limits that the engine tells of."""
    assert left_of_boot({"Memory": memory_mbytes * MIB, "CpuQuota": quota}, cores=2) == expected
