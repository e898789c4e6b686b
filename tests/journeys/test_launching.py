"""Starts that hang, end to end: they have a time limit, the caller is told the truth, and the pool goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from journeys.greenroom import Greenroom, children_of, error_of, workers_of

pytestmark = pytest.mark.slow


async def test_a_launcher_that_hangs_is_given_up_and_the_pool_goes_on(tmp_path: Path) -> None:
    """503 with the setting's name and nothing left of the run; once the launcher works again, so does the Actor."""
    async with Greenroom(tmp_path / "data", settings={"launch_timeout_secs": 1}) as greenroom:
        actor = await greenroom.probe("hangs")
        assert greenroom.process is not None
        (worker,) = workers_of(greenroom.process.pid)
        shims = _below(worker)  # what forks them, and one that is kept ready: no run lives yet
        for pid in shims:
            os.kill(pid, signal.SIGSTOP)
        try:
            refused = await greenroom.call("hangs")
        finally:
            for pid in shims:
                os.kill(pid, signal.SIGCONT)
        assert error_of(refused) == (503, "standby-run-failed")
        assert "launch_timeout_secs" in refused.json()["error"]["message"]
        (run,) = await greenroom.runs_of(actor)
        record = await greenroom.run(run["id"])
        assert record["status"] == "FAILED"
        assert "launch_timeout_secs" in record["statusMessage"]
        assert (await greenroom.call("hangs")).status_code == 200
        assert len(await greenroom.runs_of(actor)) == 2


def _below(pid: int) -> list[int]:
    return [one for child in children_of(pid) for one in (child, *_below(child))]
