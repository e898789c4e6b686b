"""Actors that never serve or crash soon after, end to end: left alone for a while, told at once, tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from journeys.greenroom import Greenroom, error_of, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

CROWD = {"desiredRequestsPerActorRun": 1, "maxRequestsPerActorRun": 1, "maxRuns": 5}

FAILS_WHILE = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

if os.path.exists({broken!r}):
    sys.exit("still broken")


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


HTTPServer(("127.0.0.1", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Hello).serve_forever()
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def greenroom(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Greenroom]:
    """One server for all of these tests, which lets the Actors of all its users run."""
    data = tmp_path_factory.mktemp("quarantine") / "data"
    async with Greenroom(data, settings={"wind_down_grace_secs": 1}, arguments=("--trust-users",)) as server:
        yield server


async def fail_three_times(greenroom: Greenroom, name: str, **options: Any) -> list[str]:
    """The types of the first three errors."""
    return [error_of(await greenroom.call(name, **options))[1] for _ in range(3)]


async def test_after_three_failed_starts_callers_hear_at_once(greenroom: Greenroom) -> None:
    """503 with its own type, the reason, how long it lasts and, for the owner, the log; and no run is started."""
    actor = await greenroom.probe("never", environmentVariables={"PROBE_START": "exit:3"})
    assert await fail_three_times(greenroom, "never") == ["standby-run-finished"] * 3
    for _ in range(5):
        refused = await greenroom.call("never")
        assert error_of(refused) == (503, "standby-quarantined")
        error = refused.json()["error"]
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert error["data"]["failedStarts"] == 3
        assert "exit code 3" in error["message"]
        assert "greenroom retry local/never" in error["message"]
        assert any(line.endswith("told to exit with 3") for line in error["data"]["logTail"])
    assert len(await greenroom.runs_of(actor)) == 3


@pytest.mark.slow
async def test_who_does_not_own_it_is_not_told_its_log(greenroom: Greenroom) -> None:
    """At a public Actor: the same error without the log lines."""
    await greenroom.probe("never-public", {"public": True}, environmentVariables={"PROBE_START": "exit:4"})
    await fail_three_times(greenroom, "never-public", token=None)
    refused = await greenroom.call("never-public", token=None)
    assert error_of(refused) == (503, "standby-quarantined")
    assert "told to exit" not in refused.text


@pytest.mark.slow
async def test_a_retry_has_it_tried_at_once(greenroom: Greenroom) -> None:
    """By the command as by the API; a start that serves then ends the quarantine for good."""
    broken = greenroom.data.parent / "broken"
    broken.touch()
    actor = await greenroom.probe("mended", main=FAILS_WHILE.format(broken=str(broken)))
    await fail_three_times(greenroom, "mended")
    (pool,) = (await greenroom.data_of("GET", "/greenroom/actors/~mended/quarantine"))["items"]
    assert (pool["failedStarts"], pool["crashes"], pool["poolId"].split(".")[0]) == (3, 0, actor["id"])
    assert 0 < pool["retryAfterSecs"] <= 10
    said = await greenroom.command("retry", "local/mended")
    assert "is tried again with the next request" in said
    assert error_of(await greenroom.call("mended"))[1] == "standby-run-finished"
    await fail_three_times(greenroom, "mended")
    assert error_of(await greenroom.call("mended"))[1] == "standby-quarantined"
    broken.unlink()
    retried = await greenroom.data_of("POST", f"/greenroom/actors/{actor['id']}/retry")
    assert [item["lastRunId"] for item in retried["items"]]
    assert (await greenroom.call("mended")).status_code == 200
    assert (await greenroom.data_of("GET", "/greenroom/actors/~mended/quarantine"))["items"] == []
    assert "was not in quarantine" in await greenroom.command("retry", "mended")


async def test_a_new_build_is_tried_at_once(greenroom: Greenroom) -> None:
    """Whatever the one before it did."""
    await greenroom.probe("rebuilt", main="raise SystemExit('broken')")
    await fail_three_times(greenroom, "rebuilt")
    assert error_of(await greenroom.call("rebuilt"))[1] == "standby-quarantined"
    await greenroom.probe("rebuilt")
    assert (await greenroom.call("rebuilt")).status_code == 200


@pytest.mark.slow
async def test_after_the_pause_there_is_one_attempt(tmp_path: Path) -> None:
    """Many callers at once start one run, and all hear of its failure; the next pause is twice as long."""
    async with Greenroom(tmp_path / "data") as greenroom:
        actor = await greenroom.probe("stubborn", CROWD, environmentVariables={"PROBE_START": "exit:3"})
        await fail_three_times(greenroom, "stubborn")
        left = int((await greenroom.call("stubborn")).headers["retry-after"])
        await asyncio.sleep(left)
        before = len(await greenroom.runs_of(actor))
        answers = await asyncio.gather(*(greenroom.call("stubborn") for _ in range(12)))
        assert {error_of(answer)[1] for answer in answers} <= {"standby-run-finished", "standby-quarantined"}
        assert len(await greenroom.runs_of(actor)) == before + 1
        assert int((await greenroom.call("stubborn")).headers["retry-after"]) in range(15, 21)
        assert await greenroom.metric('greenroom_quarantines_total{cause="starts"}') == 2
        assert await greenroom.metric("greenroom_quarantined_pools") == 1


async def test_a_crash_loop_is_quarantined(greenroom: Greenroom) -> None:
    """Three runs that die within a minute of serving; the fourth wake is refused, and after a retry it serves."""
    actor = await greenroom.probe("crashes", {"maxRequestsPerActorRun": 1, "desiredRequestsPerActorRun": 1})
    for number in range(3):
        assert (await greenroom.call("crashes")).status_code == 200
        assert (await greenroom.call("crashes", "/die?code=1")).status_code == 200
        await eventually(lambda number=number: _ended(greenroom, actor, number + 1), what="the end of the run")
    refused = await greenroom.call("crashes")
    assert error_of(refused) == (503, "standby-quarantined")
    assert refused.json()["error"]["data"]["crashes"] == 3
    await greenroom.data_of("POST", f"/greenroom/actors/{actor['id']}/retry")
    assert (await greenroom.call("crashes")).status_code == 200


async def test_an_abort_and_a_wind_down_are_no_crash(greenroom: Greenroom) -> None:
    """However often: what somebody wished is nobody's failure."""
    actor = await greenroom.probe("aborted")
    for number in range(4):
        run_id = (await greenroom.call("aborted", "/count")).json()["runId"]
        await greenroom.data_of("POST", f"/actor-runs/{run_id}/abort")
        await eventually(lambda number=number: _ended(greenroom, actor, number + 1), what="the end of the run")
    assert (await greenroom.call("aborted")).status_code == 200


@pytest.mark.slow
async def test_only_owner_and_administrator_may_retry(greenroom: Greenroom) -> None:
    """An administrator everybody's; others' private Actors are not there, public ones are not theirs."""
    token, other = await greenroom.user("alice"), await greenroom.user("bobby")
    actor = await greenroom.probe("hers", token=token, environmentVariables={"PROBE_START": "exit:3"})
    path = f"/greenroom/actors/{actor['id']}/retry"
    assert (await greenroom.api("POST", path)).status_code == 200
    assert (await greenroom.api("POST", path, token=token)).status_code == 200
    assert error_of(await greenroom.api("POST", path, token=other)) == (404, "record-not-found")
    assert error_of(await greenroom.api("POST", path, token=None)) == (401, "token-not-provided")
    await greenroom.data_of("PUT", f"/actors/{actor['id']}", token=token, json={"isPublic": True})
    assert error_of(await greenroom.api("POST", path, token=other)) == (403, "insufficient-permissions")
    reader = await greenroom.user("carol", "actors:read")
    mine = await greenroom.api("POST", path, token=reader)
    assert error_of(mine) == (403, "insufficient-permissions")
    assert error_of(await greenroom.api("POST", "/greenroom/actors/nobodys/retry")) == (404, "record-not-found")


@pytest.mark.slow
async def test_a_new_leader_knows_of_no_quarantine(tmp_path: Path) -> None:
    """After a kill -9 the pool begins anew: three starts more, then it is quarantined again."""
    data = tmp_path / "data"
    greenroom = Greenroom(data)
    async with greenroom:
        await greenroom.probe("never", environmentVariables={"PROBE_START": "exit:3"})
        await fail_three_times(greenroom, "never")
        assert error_of(await greenroom.call("never"))[1] == "standby-quarantined"
        await greenroom.kill()
    async with Greenroom(data) as again:
        assert await fail_three_times(again, "never") == ["standby-run-finished"] * 3
        assert error_of(await again.call("never"))[1] == "standby-quarantined"


async def _ended(greenroom: Greenroom, actor: Mapping[str, Any], count: int) -> bool:
    runs = await greenroom.runs_of(actor)
    return len(runs) == count and all(run.get("finishedAt") for run in runs)
