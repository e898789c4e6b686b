"""Unused runs stand still and go on for whoever needs them: a request, a viewer, whoever ends them, a new Greenroom."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import websockets
from journeys.greenroom import Greenroom, actor_folder, eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

FREEZE = {"idleTimeoutSecs": 60, "freezeAfterSecs": 0.5}
SETTINGS = {"tick_secs": 0.5, "wind_down_grace_secs": 5}
# It works on something of its own: one process that never rests, beside the one that serves.
BUSY = """
import os, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"busy")

if os.fork() == 0:
    while os.getppid() != 1:
        pass
HTTPServer(("127.0.0.1", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Server).serve_forever()
"""
# It says in its log how it was asked to end.
POLITE = """
import os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

def leave(*_):
    print("asked to end", flush=True)
    sys.exit(0)

class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

signal.signal(signal.SIGTERM, leave)
HTTPServer(("127.0.0.1", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Server).serve_forever()
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["splice", "asgi"])
async def greenroom(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """One server for most of these tests, by each HTTP path."""
    settings = {**SETTINGS, "proxy_protocol": request.param}
    async with Greenroom(tmp_path_factory.mktemp("freeze") / "data", (), settings=settings) as server:
        yield server


def state_of(data: Path, run_id: str) -> str:
    """What the kernel says of the Actor's main process: T where it stands still."""
    record = json.loads((data / "process" / "runs" / run_id / "shim.json").read_text())
    return Path(f"/proc/{record['actor_pid']}/stat").read_text().rpartition(")")[2].split()[0]


async def until_frozen(greenroom: Greenroom, run_id: str) -> None:
    await eventually(lambda: state_of(greenroom.data, run_id) == "T", what="a frozen run", within_secs=20)


async def frozen(greenroom: Greenroom, name: str, standby: dict[str, Any] = FREEZE, **options: Any) -> str:
    """The id of the run of a new Actor, which was called once and stands still now."""
    actor = await greenroom.probe(name, standby, **options)
    assert (await greenroom.call(name)).status_code == 200
    (run,) = await greenroom.runs_of(actor)
    await until_frozen(greenroom, run["id"])
    return str(run["id"])


async def test_an_unused_run_is_frozen_and_a_request_has_it_go_on(greenroom: Greenroom) -> None:
    """The same process answers, several times over; each time it is frozen again, and both are counted."""
    run_id = await frozen(greenroom, "again")
    freezes, resumes = [await greenroom.metric(f"greenroom_run_{what}_total") for what in ("freezes", "resumes")]
    for _ in range(3):
        assert (await greenroom.call("again", method="POST", content=b"x")).text == f"hello from {run_id}"
        assert state_of(greenroom.data, run_id) != "T"
        await until_frozen(greenroom, run_id)
    assert (await greenroom.run(run_id))["status"] == "RUNNING"
    assert await greenroom.metric("greenroom_run_resumes_total") == resumes + 3
    assert await greenroom.metric("greenroom_run_freezes_total") >= freezes + 2  # the last one may be counted by then


async def test_the_decision_says_so(greenroom: Greenroom) -> None:
    """Who was frozen and who went on, and why, is kept as every decision is."""
    run_id = await frozen(greenroom, "said")
    assert (await greenroom.call("said")).status_code == 200
    await said(greenroom, run_id, f"freeze {run_id}: unused for 0.5 s")
    await said(greenroom, run_id, f"resume {run_id}: 1 wait for a run")


async def said(greenroom: Greenroom, run_id: str, line: str) -> list[str]:
    """All that was said in the decisions about a run's pool, once *line* is among it."""
    pool = f"{(await greenroom.run(run_id))['actId']}.{(await greenroom.data_of('GET', '/users/me'))['id']}"

    async def look() -> list[str] | None:
        decisions = (await greenroom.data_of("GET", f"/greenroom/pools/{pool}/decisions?limit=100"))["items"]
        lines = [reason for decision in decisions for reason in decision["reasons"]]
        return lines if line in lines else None

    return list(await eventually(look, what=f"the decision '{line}'"))


async def test_many_who_come_at_once_have_one_go_on_before_any_is_started(greenroom: Greenroom) -> None:
    """As many as it has room for: no second run."""
    run_id = await frozen(
        greenroom, "crowd", {**FREEZE, "maxRequestsPerActorRun": 10, "desiredRequestsPerActorRun": 10}
    )
    answers = await asyncio.gather(*(greenroom.call("crowd", "/slow?ms=200") for _ in range(10)))
    assert {answer.json()["runId"] for answer in answers} == {run_id}


async def test_a_live_view_has_it_go_on_and_is_use(greenroom: Greenroom) -> None:
    """Its page is answered by the process that stood still, and as long as it is open the run is not frozen."""
    run_id = await frozen(greenroom, "view")
    host = urlsplit((await greenroom.run(run_id))["containerUrl"]).netloc
    assert (await greenroom.at(host)).text == f"hello from {run_id}"
    await until_frozen(greenroom, run_id)
    async with asyncio.TaskGroup() as group:
        viewing = group.create_task(greenroom.at(host, "/slow?ms=2500"))
        await eventually(lambda: state_of(greenroom.data, run_id) != "T", what="the resumption")
        freezes = await greenroom.metric("greenroom_run_freezes_total")
        assert (await viewing).status_code == 200
        assert await greenroom.metric("greenroom_run_freezes_total") == freezes, "it stood still meanwhile"


async def test_one_that_works_on_something_is_not_frozen(greenroom: Greenroom) -> None:
    """Its own processor use is what counts, not only requests."""
    quiet = await frozen(greenroom, "quiet-clock")
    actor = await greenroom.probe("busy", FREEZE, main=BUSY)
    assert (await greenroom.call("busy")).text == "busy"
    (run,) = await greenroom.runs_of(actor)
    for _ in range(2):  # two freezes of another run, one after the other, take longer than its own would
        assert (await greenroom.call("quiet-clock")).status_code == 200
        await until_frozen(greenroom, quiet)
    assert state_of(greenroom.data, run["id"]) != "T"
    await greenroom.api("POST", f"/actor-runs/{run['id']}/abort")


async def test_an_open_socket_holds_it_off(greenroom: Greenroom) -> None:
    """As long as it is open; closed, the run is frozen."""
    clock = await frozen(greenroom, "socket-clock")
    actor = await greenroom.probe("socket", FREEZE)
    async with greenroom.websocket("socket") as socket:
        (run,) = await greenroom.runs_of(actor)
        for _ in range(2):
            assert (await greenroom.call("socket-clock")).status_code == 200
            await until_frozen(greenroom, clock)
        assert state_of(greenroom.data, run["id"]) != "T"
        await socket.send("still here")
        assert await socket.recv() == "still here"
    await until_frozen(greenroom, run["id"])


async def test_with_the_setting_a_silent_socket_does_not_and_a_message_has_it_go_on(greenroom: Greenroom) -> None:
    """Nothing that is said to it meanwhile is lost."""
    standby = {**FREEZE, "freezeWithOpenSockets": True, "streamSilenceTimeoutSecs": 1}
    actor = await greenroom.probe("silent-socket", standby)
    async with greenroom.websocket("silent-socket") as socket:
        (run,) = await greenroom.runs_of(actor)
        for number in range(2):
            await until_frozen(greenroom, run["id"])
            await socket.send(f"message {number}")
            assert await asyncio.wait_for(socket.recv(), 10) == f"message {number}"


async def test_one_that_hears_of_the_systems_events_is_not_frozen(greenroom: Greenroom) -> None:
    """It would miss them, "aborting" among them."""
    clock = await frozen(greenroom, "events-clock")
    actor = await greenroom.probe("events", FREEZE)
    env = (await greenroom.call("events", "/env")).json()["env"]
    (run,) = await greenroom.runs_of(actor)
    async with websockets.connect(env["ACTOR_EVENTS_WEBSOCKET_URL"], proxy=None):
        for _ in range(2):
            assert (await greenroom.call("events-clock")).status_code == 200
            await until_frozen(greenroom, clock)
        assert state_of(greenroom.data, run["id"]) != "T"
    await until_frozen(greenroom, run["id"])


async def test_runs_that_are_kept_warm_are_frozen_too(greenroom: Greenroom) -> None:
    """Their memory is what makes them warm; past the idle timeout they stay."""
    run_id = await frozen(greenroom, "warm", {**FREEZE, "idleTimeoutSecs": 1, "minRuns": 1})
    clock = await frozen(greenroom, "warm-clock", {"idleTimeoutSecs": 5, "freezeAfterSecs": 0.5})
    await greenroom.ended(clock)
    assert state_of(greenroom.data, run_id) == "T"
    assert (await greenroom.call("warm")).text == f"hello from {run_id}"
    await greenroom.api("DELETE", f"/actors/{(await greenroom.run(run_id))['actId']}")


@pytest.mark.parametrize(
    "standby",
    [
        pytest.param({"idleTimeoutSecs": 1.5, "freezeAfterSecs": 1.5}, id="as late as it would be wound down"),
        pytest.param({"idleTimeoutSecs": 1.5, "freezeAfterSecs": 60}, id="later"),
        pytest.param({"idleTimeoutSecs": 1.5}, id="not asked for"),
    ],
)
async def test_where_it_would_be_wound_down_before_it_is_not_frozen(
    greenroom: Greenroom, standby: dict[str, Any]
) -> None:
    """The run simply ends at its idle timeout."""
    name = f"late-{standby.get('freezeAfterSecs', 'never')}".replace(".", "-")
    actor = await greenroom.probe(name, standby)
    assert (await greenroom.call(name)).status_code == 200
    (run,) = await greenroom.runs_of(actor)
    await greenroom.ended(run["id"])
    lines = await said(greenroom, run["id"], f"wind down {run['id']}: idle for 1.5 s")
    assert not [line for line in lines if line.startswith("freeze")]


async def test_a_frozen_run_is_wound_down_when_unused_for_its_idle_timeout(greenroom: Greenroom) -> None:
    """Counted from its last use and not from the freeze; it hears of its end and ends in its own way."""
    run_id = await frozen(greenroom, "polite", {"idleTimeoutSecs": 5, "freezeAfterSecs": 0.5}, main=POLITE)
    ended = await greenroom.ended(run_id)
    assert (ended["status"], ended["exitCode"]) == ("SUCCEEDED", 0)
    assert "asked to end" in await greenroom.log_of(run_id)


@pytest.mark.parametrize("gracefully", [True, False])
async def test_a_frozen_run_can_be_aborted(greenroom: Greenroom, gracefully: bool) -> None:
    """Gracefully it hears of it; either way it ends soon, and the next request starts another."""
    name = f"abort-{gracefully}".lower()
    run_id = await frozen(greenroom, name, main=POLITE)
    await greenroom.data_of("POST", f"/actor-runs/{run_id}/abort?gracefully={str(gracefully).lower()}")
    assert (await greenroom.ended(run_id))["status"] == "ABORTED"
    assert ("asked to end" in await greenroom.log_of(run_id)) is gracefully
    assert (await greenroom.call(name)).status_code == 200


async def test_a_new_build_takes_over_from_a_frozen_run(greenroom: Greenroom) -> None:
    """It is wound down in order once another one serves."""
    run_id = await frozen(greenroom, "rebuilt", main=POLITE)
    await greenroom.probe("rebuilt", FREEZE)
    ended = await greenroom.ended(run_id)
    assert ended["status"] == "SUCCEEDED"
    assert "asked to end" in await greenroom.log_of(run_id)
    assert (await greenroom.call("rebuilt")).text.startswith("hello from ")


async def test_after_kill_9_a_frozen_run_goes_on(tmp_path: Path) -> None:
    """The next Greenroom does not know whether it stands still, so it has it go on; then it is frozen as before."""
    folder = actor_folder(tmp_path / "actors", "probe", FREEZE)
    async with Greenroom(tmp_path / "data", (folder,), SETTINGS) as greenroom:
        before = (await greenroom.call("probe")).text
        run_id = before.removeprefix("hello from ")
        await until_frozen(greenroom, run_id)
        await greenroom.kill()
    assert state_of(tmp_path / "data", run_id) == "T"
    async with Greenroom(tmp_path / "data", settings=SETTINGS, port=greenroom.port) as again:
        assert (await again.call("probe")).text == before
        await until_frozen(again, run_id)
        assert (await again.call("probe")).text == before


async def test_greenrooms_own_end_ends_frozen_runs_in_order(tmp_path: Path) -> None:
    """They hear of it, as all others do, and nothing of them is left."""
    folder = actor_folder(tmp_path / "actors", "polite", FREEZE, main=POLITE)
    async with Greenroom(tmp_path / "data", (folder,), SETTINGS) as greenroom:
        assert (await greenroom.call("polite")).status_code == 200
        (run,) = await greenroom.runs()
        await until_frozen(greenroom, run["id"])
        assert await greenroom.stop() == 0
    async with Greenroom(tmp_path / "data", settings=SETTINGS) as again:
        assert (await again.run(run["id"]))["status"] == "SUCCEEDED"
        assert "asked to end" in await again.log_of(run["id"])


async def test_a_reload_leaves_no_run_standing_still_for_ever(tmp_path: Path) -> None:
    """The next worker has it go on, serves with it, and freezes it in its turn."""
    folder = actor_folder(tmp_path / "actors", "probe", FREEZE)
    async with Greenroom(tmp_path / "data", (folder,), SETTINGS) as greenroom:
        before = (await greenroom.call("probe")).text
        run_id = before.removeprefix("hello from ")
        for _ in range(2):
            await until_frozen(greenroom, run_id)
            await greenroom.command("reload")
            assert (await greenroom.call("probe")).text == before
        await until_frozen(greenroom, run_id)
