"""The engine is away, or its disk is full: callers wait or hear why, and what can go on goes on."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from journeys.greenroom import Greenroom, error_of, eventually
from journeys.test_container_kills import folder_of
from own_engine import OwnEngine

pytestmark = pytest.mark.slow  # an engine and a server of its own

_DISK_MBYTES = 700


@pytest.fixture
def engine(docker_host: str) -> Iterator[OwnEngine]:
    """One of the test's own, on a small disk; this thread is in its network namespace."""
    assert docker_host
    with tempfile.TemporaryDirectory(prefix="gr-") as parent:
        image, disk = Path(parent) / "disk.img", Path(parent) / "d"
        with image.open("wb") as file:
            file.truncate(_DISK_MBYTES * 1024 * 1024)
        disk.mkdir()
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, disk], check=True)
        try:
            with OwnEngine(disk / "e") as engine, engine.inside():
                yield engine
        finally:
            subprocess.run(["umount", "-l", disk], check=False)


@pytest.fixture
async def greenroom(engine: OwnEngine, tmp_path: Path) -> AsyncIterator[Greenroom]:
    folders = tuple(folder_of(tmp_path / "actors", name) for name in ("first", "second", "third"))
    settings = {"launcher": "docker", "pick_timeout_secs": 60, "docker_patience_secs": 10}
    async with Greenroom(tmp_path / "data", folders, settings, environment={"DOCKER_HOST": engine.host}) as running:
        for name in ("first", "second", "third"):
            await eventually(lambda name=name: _is_built(running, name), within_secs=60, what=f"the build of {name}")
        yield running


async def _is_built(greenroom: Greenroom, name: str) -> bool:
    return bool((await greenroom.data_of("GET", f"/actors/local~{name}")).get("taggedBuilds"))


async def test_an_engine_that_is_restarted_is_waited_for(engine: OwnEngine, greenroom: Greenroom) -> None:
    """A caller who comes while the engine is away is answered when it is back; one who can't wait so long hears why."""
    await asyncio.to_thread(engine.stop)
    async with asyncio.TaskGroup() as group:
        calling = group.create_task(greenroom.call("first"))
        await asyncio.sleep(2)  # it is being held meanwhile
        assert not calling.done()
        await asyncio.to_thread(engine.start)
    assert calling.result().status_code == 200
    await asyncio.to_thread(engine.stop)
    answer = await greenroom.call("second")
    assert error_of(answer) == (503, "standby-run-failed")
    assert "does not answer" in answer.text
    health = await greenroom.client.get("/health/ready")
    assert health.status_code == 200
    await asyncio.to_thread(engine.start)

    async def answers() -> bool:
        return (await greenroom.call("second")).status_code == 200

    await eventually(answers, within_secs=60, what="the answer of the second")


async def test_a_full_disk_of_the_engine(engine: OwnEngine, greenroom: Greenroom) -> None:
    """What needs room fails with the reason, what runs goes on, and all is well again when there is room."""
    assert (await greenroom.call("first")).status_code == 200
    ballast = engine.folder / "ballast"
    for size in (1024 * 1024, 1024):
        with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
            while True:
                file.write(b"\0" * size)
    refused = await greenroom.call("second")
    assert error_of(refused) == (503, "standby-run-failed")
    assert "no space left on device" in refused.text
    ballast.unlink()
    assert (await greenroom.call("second")).status_code == 200
    assert (await greenroom.call("first")).status_code == 200
