"""A disk that is full for a while: what is warm goes on, what can't begin says why, the rest waits for room."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from journeys.greenroom import Greenroom, actor_folder, error_of, eventually, workers_of


@contextlib.contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """The kernel lets this process write to no file, as if there were no room."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
async def test_a_full_disk_stops_nothing_that_is_warm_and_is_survived(tmp_path: Path) -> None:
    """
    The warm Actor answers on; wakes are 503 at once with the reason; a run that ends meanwhile gets no more requests
    and, when there is room again, its real exit code; nothing of a run is left behind.
    """
    warm, cold = (actor_folder(tmp_path / "actors", name, {"idleTimeoutSecs": 60}) for name in ("warm", "cold"))
    async with Greenroom(tmp_path / "data", (warm, cold)) as greenroom:
        first = (await greenroom.call("warm", "/env")).json()["env"]["ACTOR_RUN_ID"]
        woken = (await greenroom.call("cold", "/env")).json()["env"]["ACTOR_RUN_ID"]
        await greenroom.api("POST", f"/actor-runs/{woken}/abort")
        await greenroom.ended(woken)
        assert greenroom.process is not None
        (worker,) = workers_of(greenroom.process.pid)
        with full_disk(worker):
            refused = await greenroom.call("cold")
            assert error_of(refused) == (503, "standby-run-failed")
            assert "could not be put on record" in refused.json()["error"]["message"]
            assert (await greenroom.api("POST", "/actors/local~warm/runs")).status_code == 503
            assert (await greenroom.call("warm")).text == f"hello from {first}"
            await greenroom.call("warm", "/die?code=7")

            async def is_refused() -> bool:
                return error_of(await greenroom.call("warm")) == (503, "standby-run-failed")

            await eventually(is_refused, what="the refusal of a wake in place of the run that ended")
            assert (await greenroom.client.get("/health/ready")).status_code == 200
        ended = await greenroom.ended(first)
        assert (ended["status"], ended["exitCode"]) == ("FAILED", 7)
        assert (await greenroom.call("warm")).status_code == 200
        assert (await greenroom.call("cold")).status_code == 200
        await greenroom.stop()
    for left in ("process/runs", "live/logs"):
        assert list((tmp_path / "data" / left).iterdir()) == []
