"""A batch run's life by the API: exit codes, status messages, timeout, both kinds of abort, the log."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import TOKEN, Greenroom, actor_folder, eventually
from websockets.asyncio.client import connect

PROGRAMS = {
    "exits": "import os, sys; print('about to end'); sys.exit(int(os.environ['CODE']))",
    "waits": "import time; print('waiting', flush=True); time.sleep(600)",
    "stubborn": (
        "import signal, time; signal.signal(signal.SIGTERM, lambda *_: print('not yet', flush=True))\n"
        "print('waiting', flush=True)\nwhile True: time.sleep(1)"
    ),
    "counts": (
        "import time\nfor n in range(5): print('line', n, flush=True); time.sleep(0.2)\nprint('no newline', end='')"
    ),
    "calls": (
        "import json, os, urllib.request\n"
        "def call(method, path, body=None):\n"
        "    request = urllib.request.Request(os.environ['APIFY_API_BASE_URL'] + '/v2' + path, method=method,\n"
        "        data=json.dumps(body).encode() if body else None,\n"
        "        headers={'Authorization': 'Bearer ' + os.environ['APIFY_TOKEN']})\n"
        "    return json.load(urllib.request.urlopen(request))['data']\n"
        "me = '/actor-runs/' + os.environ['ACTOR_RUN_ID']\n"
        "print('status:', call('GET', me)['status'])\n"
        "call('PUT', me, {'statusMessage': 'my last word', 'isStatusMessageTerminal': True})\n"
        "raise SystemExit(7)\n"
    ),
}


@pytest.fixture
async def greenroom(tmp_path: Path) -> AsyncIterator[Greenroom]:
    actors = tmp_path / "actors"
    for name, program in PROGRAMS.items():
        actor_folder(actors, name, {"isEnabled": False}, main=program, environmentVariables={"CODE": "3"})
    settings = {"abort_grace_secs": 1.5}
    async with Greenroom(tmp_path / "data", (actors,), settings) as running:
        yield running


async def _start(greenroom: Greenroom, actor: str, **query: Any) -> dict[str, Any]:
    return dict(await greenroom.data_of("POST", f"/acts/{actor}/runs", params=query))


async def _ended(greenroom: Greenroom, run_id: str) -> dict[str, Any]:
    return dict(await greenroom.data_of("GET", f"/actor-runs/{run_id}", params={"waitForFinish": 30}))


async def _has_logged(greenroom: Greenroom, run_id: str, text: str) -> None:
    async def logged() -> bool:
        return text in await greenroom.log_of(run_id)

    await eventually(logged, what=f"{text!r} in the log")


async def test_the_exit_code_makes_the_status(greenroom: Greenroom) -> None:
    """Exit code 3 is FAILED with that code and a message that tells it; the log has a time on each line."""
    started = await _start(greenroom, "exits")
    assert started["status"] == "READY"
    run = await _ended(greenroom, started["id"])
    assert (run["status"], run["exitCode"]) == ("FAILED", 3)
    assert run["statusMessage"] == "Actor finished with exit code 3"
    assert run["stats"]["durationMillis"] > 0
    log = await greenroom.log_of(run["id"])
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", line) for line in log.splitlines()), log
    assert "Z about to end\n" in log


async def test_a_run_speaks_its_own_last_word_with_its_own_token(greenroom: Greenroom) -> None:
    """Its token reads and changes its own run; its terminal message stays although it fails afterwards."""
    started = await _start(greenroom, "calls")
    run = await _ended(greenroom, started["id"])
    assert (run["status"], run["exitCode"], run["statusMessage"]) == ("FAILED", 7, "my last word")
    assert run["isStatusMessageTerminal"] is True
    assert "status: RUNNING" in await greenroom.log_of(run["id"])


async def test_a_run_past_its_timeout_is_timed_out(greenroom: Greenroom) -> None:
    """With timeout=1 the run is stopped and TIMED-OUT, although its process would have gone on."""
    run = await _ended(greenroom, (await _start(greenroom, "waits", timeout=1))["id"])
    assert run["status"] == "TIMED-OUT"
    assert run["options"]["timeoutSecs"] == 1
    assert 1000 <= run["stats"]["durationMillis"] < 10_000


async def test_a_hard_abort_kills_at_once(greenroom: Greenroom) -> None:
    """Abort without gracefully: SIGKILL, ABORTED, exit code 137; a second abort changes nothing."""
    started = await _start(greenroom, "stubborn")
    await _has_logged(greenroom, started["id"], "waiting")
    aborting = await greenroom.data_of("POST", f"/actor-runs/{started['id']}/abort")
    assert aborting["status"] == "ABORTING"
    run = await _ended(greenroom, started["id"])
    assert (run["status"], run["exitCode"]) == ("ABORTED", 137)
    again = await greenroom.data_of("POST", f"/actor-runs/{started['id']}/abort")
    assert again["status"] == "ABORTED"


async def test_a_graceful_abort_gives_time_and_then_kills(greenroom: Greenroom) -> None:
    """SIGTERM is ignored, so after the grace it is killed: ABORTED, and the log shows that it was asked."""
    started = await _start(greenroom, "stubborn")
    await _has_logged(greenroom, started["id"], "waiting")
    await greenroom.data_of("POST", f"/actor-runs/{started['id']}/abort", params={"gracefully": "true"})
    run = await _ended(greenroom, started["id"])
    assert (run["status"], run["exitCode"]) == ("ABORTED", 137)
    assert "not yet" in await greenroom.log_of(run["id"])


async def test_a_run_that_listens_for_events_hears_aborting_before_anything_else(greenroom: Greenroom) -> None:
    """With its events socket open a run hears 'aborting', then 'persistState', and no SIGTERM within its grace."""
    started = await _start(greenroom, "stubborn")
    await _has_logged(greenroom, started["id"], "waiting")
    pid_environment = _environment_of(greenroom, started["id"])
    async with connect(pid_environment["ACTOR_EVENTS_WEBSOCKET_URL"], proxy=None) as socket:
        await greenroom.data_of("POST", f"/actor-runs/{started['id']}/abort", params={"gracefully": "1"})
        first, second = str(await socket.recv()), str(await socket.recv())
        assert '"name":"aborting"' in first
        assert '"name":"persistState"' in second
        assert '"isMigrating":false' in second
    run = await _ended(greenroom, started["id"])
    assert run["status"] == "ABORTED"
    assert "not yet" not in await greenroom.log_of(run["id"])


async def test_the_events_of_an_unknown_run_are_accepted_and_closed(greenroom: Greenroom) -> None:
    """A refused handshake would be fatal in the Python SDK: it is accepted and closed with 1008."""
    async with connect(f"ws://127.0.0.1:{greenroom.port}/events/{'x' * 17}/{'0' * 32}", proxy=None) as socket:
        await socket.wait_closed()
        assert socket.close_code == 1008


async def test_the_log_is_followed_while_it_runs(greenroom: Greenroom) -> None:
    """stream=1 gives lines as they come, before the run has ended, and ends with it; the last line is not lost."""
    started = await _start(greenroom, "counts")
    seen = ""
    was_alive = False
    async with greenroom.client.stream(
        "GET", f"/v2/logs/{started['id']}?stream=1", headers={"Authorization": f"Bearer {TOKEN}"}
    ) as answer:
        async for text in answer.aiter_text():
            seen += text
            if "line 0" in seen and "line 4" not in seen:
                was_alive = True
    assert was_alive
    assert [f"line {n}" in seen for n in range(5)] == [True] * 5
    assert "no newline" in seen
    assert seen.replace("\n", "") in (await greenroom.log_of(started["id"])).replace("\n", "")


async def test_runs_start_at_once_and_side_by_side(greenroom: Greenroom) -> None:
    """Twenty started together all end with their own code and their own log."""
    started = await asyncio.gather(*(_start(greenroom, "exits") for _ in range(20)))
    runs = await asyncio.gather(*(_ended(greenroom, run["id"]) for run in started))
    assert {(run["status"], run["exitCode"]) for run in runs} == {("FAILED", 3)}
    assert len({run["containerUrl"] for run in runs}) == 20


def _environment_of(greenroom: Greenroom, run_id: str) -> dict[str, str]:
    """The environment of a run's process, as the kernel has it."""
    record = json.loads((greenroom.data / "process" / "runs" / run_id / "shim.json").read_text())
    raw = Path(f"/proc/{record['actor_pid']}/environ").read_bytes().decode()
    return dict(item.partition("=")[::2] for item in raw.split("\0") if item)
