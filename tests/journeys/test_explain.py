"""``greenroom explain`` against a real server: a wake, idleness and the wind-down, told in their order and in words."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from journeys.greenroom import TOKEN, Greenroom, eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def greenroom(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Greenroom]:
    """One server for all of these tests."""
    settings = {"wind_down_grace_secs": 1, "tick_secs": 0.5}
    async with Greenroom(tmp_path_factory.mktemp("explain") / "data", (), settings=settings) as server:
        yield server


async def _explained(greenroom: Greenroom, actor: str, *flags: str) -> dict[str, Any]:
    """The one pool of the Actor that the caller has."""
    (pool,) = json.loads(await greenroom.command("explain", actor, "--json", *flags))["pools"]
    return dict(pool)


async def test_a_wake_and_a_wind_down_are_explained_in_their_order(greenroom: Greenroom) -> None:
    """Asleep, in use, unused, asleep again; each decision has its reasons, what was done, and what it was made of."""
    await greenroom.probe("explained", {"idleTimeoutSecs": 2})
    asleep = await greenroom.command("explain", "explained")
    assert asleep.startswith("Asleep: the next request starts a run.")
    assert "nobody has called it" in asleep
    gate = greenroom.data.parent / "explained.gate"
    async with asyncio.TaskGroup() as group:
        call = group.create_task(greenroom.call("explained", f"/until?file={gate}"))
        await eventually(lambda: gate.with_name("explained.gate.begun").exists(), what="the request in its run")

        async def is_in_use() -> bool:
            told = await greenroom.command("explain", "local/explained")
            return "1 run: 1 request in flight at up to 4 each; wound down after 2 s without use." in told

        await eventually(is_in_use, what="a run in use")
        gate.touch()
    run_id = call.result().json()["runId"]
    await greenroom.ended(run_id)

    async def is_asleep() -> dict[str, Any] | None:
        pool = await _explained(greenroom, "explained")
        is_over = pool["lastDecision"]["wantedRuns"] == 0 and pool["summary"].startswith("Asleep")
        return pool if is_over else None

    pool = await eventually(is_asleep, what="the last decision")
    woke, *_ = pool["lastDecisions"]
    assert (woke["wantedRuns"], woke["presentRuns"], woke["decision"]["start"]) == (1, 0, 1)
    assert woke["inputs"]["observation"]["waiting"] == 1
    done = [one for one in pool["lastDecisions"] if one["decision"]["drain"]]
    assert [one["id"] for one in done[0]["decision"]["drain"]] == [run_id]
    times = [one["at"] for one in pool["lastDecisions"]]
    assert times == sorted(times)
    told = await greenroom.command("explain", "explained")
    assert "starts 1" in told
    assert f"wind down {run_id}: " in told
    assert told.index("starts 1") < told.index(f"wind down {run_id}")
    assert len((await _explained(greenroom, "explained", "--limit", "1"))["lastDecisions"]) == 1


async def test_following_tells_decisions_as_they_are_made(greenroom: Greenroom) -> None:
    """Each is printed once, and Ctrl-C ends it without a traceback."""
    await greenroom.probe("followed", {"idleTimeoutSecs": 1})
    command = [sys.executable, "-m", "gateway.cli", "explain", "followed", "--follow", "--json", "--data"]
    process = await asyncio.create_subprocess_exec(
        *command,
        str(greenroom.data),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"GREENROOM_TOKEN": TOKEN, "GREENROOM_CONFIG": os.devnull},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            (pool,) = json.loads(await process.stdout.readline())["pools"]
            assert pool["lastDecisions"] == []
            await greenroom.call("followed")
            seen = []
            while not seen or seen[-1]["wantedRuns"] != 0:
                seen.append(json.loads(await process.stdout.readline()))
        assert seen[0]["decision"]["start"] == 1
        assert len({one["id"] for one in seen}) == len(seen)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 10) == 128 + signal.SIGINT
        assert await process.stderr.read() == b""
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_quarantine_is_the_first_thing_that_is_told(greenroom: Greenroom) -> None:
    """Runs that never serve: the sentence on top says so, and JSON has the facts."""
    await greenroom.probe("broken", environmentVariables={"PROBE_START": "exit:7"})

    async def is_quarantined() -> dict[str, Any] | None:
        await greenroom.call("broken")
        pool = await _explained(greenroom, "broken")
        return pool if pool["quarantine"] else None

    pool = await eventually(is_quarantined, within_secs=60, what="the quarantine")
    assert pool["summary"] == pool["quarantine"]["message"]
    assert pool["quarantine"]["failedStarts"] >= 3
    told = (await greenroom.command("explain", "broken")).splitlines()[0]
    assert "in a row a run of this Actor did not begin to serve" in told


async def test_what_can_t_be_explained_is_told_in_a_line(greenroom: Greenroom) -> None:
    """No such Actor, and one whose runs are somebody else's."""
    eve = await greenroom.user("eve")
    await greenroom.probe("private")
    shared = await greenroom.probe("shared", {"public": True})
    await greenroom.data_of("PUT", f"/actors/{shared['id']}", json={"isPublic": True})
    for token, actor, code, told in (
        (TOKEN, "nothing", 1, "Actor was not found"),
        (eve, "local/private", 1, "Actor was not found"),
        (eve, "local/shared", 0, "belong to its owner"),
    ):
        ended = await asyncio.to_thread(_run, greenroom.data, token, actor)
        assert ended.returncode == code, ended.stderr
        assert told in ended.stderr
        assert "Traceback" not in ended.stderr


def _run(data: Path, token: str, actor: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "explain", actor, "--data", str(data)],
        env=os.environ | {"GREENROOM_TOKEN": token, "GREENROOM_CONFIG": os.devnull},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


async def test_old_decisions_are_forgotten(tmp_path: Path) -> None:
    """As many of each pool are kept as the setting says; the others are gone soon after the next start."""
    async with Greenroom(tmp_path / "data", (), {"tick_secs": 0.5, "wind_down_grace_secs": 1}) as first:
        await first.probe("remembered", {"idleTimeoutSecs": 1})
        await first.call("remembered")
        await first.wait_until_no_run_lives()
        before = (await first.data_of("GET", "/greenroom/actors/remembered/pools"))["items"][0]
        assert before["decisions"] > 1
    async with Greenroom(tmp_path / "data", (), {"decisions_per_pool": 1}) as second:

        async def is_one_left() -> bool:
            (pool,) = (await second.data_of("GET", "/greenroom/actors/remembered/pools"))["items"]
            return bool(pool["decisions"] == 1 and pool["lastDecision"]["wantedRuns"] == 0)

        await eventually(is_one_left, what="the newest decision alone")
