"""What goes wrong, end to end: Actors that fail in every way, full waiting rooms, callers that leave, bad starts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import websockets
from journeys.greenroom import ACTORS, TOKEN, Greenroom, actor_folder, error_of, eventually, refused_start

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

ONE_AT_A_TIME = {"desiredRequestsPerActorRun": 1, "maxRequestsPerActorRun": 1, "maxRuns": 1}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def greenroom(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Greenroom]:
    """One server for all of these tests, with room for two waiting requests in each pool."""
    settings = {"waiting_room_size": 2, "wind_down_grace_secs": 1}
    async with Greenroom(tmp_path_factory.mktemp("trouble") / "data", settings=settings) as server:
        await server.probe("warm", {"desiredRequestsPerActorRun": 4})
        yield server


@contextlib.asynccontextmanager
async def begun(call: Coroutine[Any, Any, httpx.Response]) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """*call* goes on while the block runs; at its end the caller leaves, if it has not been answered."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(call)
        try:
            yield task
        finally:
            task.cancel()


async def held(greenroom: Greenroom, count: int) -> None:
    """Until exactly *count* requests wait for a run."""

    async def look() -> bool:
        return await greenroom.metric("greenroom_held_requests") == count

    await eventually(look, what=f"{count} held requests")


def gate_of(greenroom: Greenroom, name: str) -> Path:
    """A file for which the probe waits; nobody else's."""
    return greenroom.data.parent / f"{name}.gate"


# -- Actors that do not begin to serve ---------------------------------------------------------------------------------


async def test_an_actor_that_exits_before_it_serves_is_told_and_tried_again(greenroom: Greenroom) -> None:
    """503 with the exit code and, for the owner, the last log lines; the next request starts another run that works."""
    once = greenroom.data.parent / "exits-once"
    variables = {"PROBE_START": "exit:3", "PROBE_ONCE": str(once)}
    actor = await greenroom.probe("exits-once", environmentVariables=variables)
    failed = await greenroom.call("exits-once")
    assert error_of(failed) == (503, "standby-run-finished")
    assert int(failed.headers["retry-after"]) >= 1
    facts = failed.json()["error"]["data"]
    assert facts["exitCode"] == 3
    assert any(line.endswith("Z told to exit with 3") for line in facts["logTail"])
    (run,) = await greenroom.runs_of(actor)
    assert (run["id"], run["status"]) == (facts["runId"], "FAILED")
    assert (await greenroom.run(run["id"]))["exitCode"] == 3
    again = await greenroom.call("exits-once")
    assert again.status_code == 200
    assert len(await greenroom.runs_of(actor)) == 2


async def test_who_does_not_own_a_failing_actor_sees_nothing_of_its_log(greenroom: Greenroom) -> None:
    """At a public Actor: the same error, without the log lines."""
    await greenroom.probe("exits-public", {"public": True}, environmentVariables={"PROBE_START": "exit:4"})
    failed = await greenroom.call("exits-public", token=None)
    assert error_of(failed) == (503, "standby-run-finished")
    assert failed.json()["error"]["data"]["exitCode"] == 4
    assert "told to exit" not in failed.text
    assert "logTail" not in failed.text


async def test_an_actor_that_never_listens_is_told_after_the_readiness_timeout(tmp_path: Path) -> None:
    """504 with the setting's name; the run is stopped and FAILED, and its log says why."""
    folder = actor_folder(tmp_path / "actors", "deaf", environmentVariables={"PROBE_START": "deaf"})
    async with Greenroom(tmp_path / "data", (folder,), settings={"readiness_timeout_secs": 1}) as greenroom:
        answer = await greenroom.call("deaf")
        assert error_of(answer) == (504, "standby-run-not-ready")
        error = answer.json()["error"]
        assert "readiness_timeout_secs" in error["message"]
        run = await greenroom.ended(error["data"]["runId"])
        assert run["status"] == "FAILED"
        assert "readiness_timeout_secs" in run["statusMessage"]
        assert "ACTOR_WEB_SERVER_PORT" in await greenroom.log_of(run["id"])
        assert await greenroom.metric('greenroom_run_starts_total{outcome="not_ready"}') == 1


async def test_a_program_that_does_not_exist_is_told_as_what_cannot_be_started(greenroom: Greenroom) -> None:
    """503 with the name of the program; the run is FAILED for the same reason."""
    folder = actor_folder(greenroom.data.parent / "no-program", "no-program")
    definition = json.loads((folder / ".actor" / "actor.json").read_text())
    del definition["scripts"]
    (folder / ".actor" / "actor.json").write_text(json.dumps(definition))
    (folder / ".actor" / "Dockerfile").write_text('FROM scratch\nCMD ["no-such-program", "--serve"]\n')
    actor = await greenroom.push(folder)
    answer = await greenroom.call("no-program")
    assert error_of(answer) == (503, "standby-run-failed")
    assert "no-such-program" in answer.json()["error"]["message"]
    (run,) = await greenroom.runs_of(actor)
    assert run["status"] == "FAILED"
    assert "no-such-program" in (await greenroom.run(run["id"]))["statusMessage"]


async def test_a_script_that_names_no_command_ends_with_the_shells_exit_code(greenroom: Greenroom) -> None:
    """A script is the shell's: it starts, and ends with 127 and the shell's words in the log."""
    await greenroom.probe("no-command", scripts={"run": "no-such-command --serve"})
    answer = await greenroom.call("no-command")
    assert error_of(answer) == (503, "standby-run-finished")
    facts = answer.json()["error"]["data"]
    assert facts["exitCode"] == 127
    assert any("no-such-command" in line for line in facts["logTail"])


async def test_requirements_that_cannot_be_installed_are_told_with_pips_last_words(greenroom: Greenroom) -> None:
    """503 with the reason, which the log of the build has as a whole."""
    folder = actor_folder(greenroom.data.parent / "bad-needs", "bad-needs")
    (folder / "requirements.txt").write_text("./no-such-package\n")
    await greenroom.push(folder)
    answer = await greenroom.call("bad-needs")
    assert error_of(answer) == (503, "standby-run-failed")
    assert "no-such-package" in answer.json()["error"]["message"]


# -- Actors that fail while they serve ---------------------------------------------------------------------------------


async def test_an_actor_that_drops_the_connection_is_a_bad_gateway(greenroom: Greenroom) -> None:
    """502 with the run's id; its other requests are served on."""
    run_id = (await greenroom.call("warm", "/count")).json()["runId"]
    for method in ("GET", "POST"):
        answer = await greenroom.call("warm", "/drop", method=method)
        assert error_of(answer) == (502, "standby-bad-gateway")
        assert answer.json()["error"]["data"]["runId"] == run_id
    assert (await greenroom.call("warm", "/count")).json()["runId"] == run_id


@pytest.mark.parametrize(("target", "end"), [("/cut", "x" * 500), ("/cut?chunked=1", "x" * 500 + "\r\n")])
async def test_an_answer_that_breaks_off_is_cut_for_the_caller_too(greenroom: Greenroom, target: str, end: str) -> None:
    """Half a body never looks whole: bytes are missing, or the last chunk is, and the connection is gone."""
    head = f"GET {target} HTTP/1.1\r\nHost: {greenroom.host('warm')}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    answer = (await greenroom.raw(head)).decode()
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 ")
    assert ("content-length: 1000" in head.lower()) == (target == "/cut")
    assert body.endswith(end)
    assert not body.endswith("0\r\n\r\n")


async def test_no_first_byte_in_time_is_a_timeout(greenroom: Greenroom) -> None:
    """504 with the setting's name, and the Actor's side is cut; a warm run is not stopped for it."""
    standby = {"firstByteTimeoutSecs": 5}
    await greenroom.probe("silent", standby)
    await greenroom.call("silent")
    actor = await greenroom.data_of("GET", "/actors/~silent")
    await greenroom.data_of("PUT", f"/actors/{actor['id']}", json={"actorStandby": {"firstByteTimeoutSecs": 0.3}})
    answer = await greenroom.call("silent", "/endless")
    assert error_of(answer) == (504, "standby-response-timeout")
    assert "first_byte_timeout_secs" in answer.json()["error"]["message"]
    await eventually(lambda: _left(greenroom, "silent", 1), what="the cut")
    assert len(await greenroom.runs_of(actor)) == 1


async def test_a_stream_is_cut_after_its_own_idle_limit_alone(greenroom: Greenroom) -> None:
    """With streamIdleTimeoutSecs a silent answer is cut; without it, as in all other tests, silence is no trouble."""
    await greenroom.probe("stream-limit", {"streamIdleTimeoutSecs": 0.3})
    headers = f"Host: {greenroom.host('stream-limit')}\r\nAuthorization: Bearer {TOKEN}\r\n"
    answer = await greenroom.raw(f"GET /endless?first=1 HTTP/1.1\r\n{headers}\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"first\r\n")
    await eventually(lambda: _left(greenroom, "stream-limit", 1), what="the cut")


async def _left(greenroom: Greenroom, actor: str, count: int) -> bool:
    return bool((await greenroom.call(actor, "/left")).json()["left"] == count)


# -- the waiting room --------------------------------------------------------------------------------------------------


async def test_a_full_waiting_room_refuses_at_once_and_serves_who_waits(greenroom: Greenroom) -> None:
    """With room for two: the third to wait gets 503, Retry-After and the type; the two are answered in the end."""
    actor, gate = await greenroom.probe("full", ONE_AT_A_TIME), gate_of(greenroom, "full")
    async with begun(greenroom.call("full", f"/until?file={gate}")) as served:
        await eventually(gate.with_name("full.gate.begun").exists, what="the first request")
        async with begun(greenroom.call("full")) as second, begun(greenroom.call("full")) as third:
            await held(greenroom, 2)
            refused = await greenroom.call("full")
            assert error_of(refused) == (503, "waiting-room-full")
            assert int(refused.headers["retry-after"]) >= 1
            gate.touch()
            assert [(await task).status_code for task in (served, second, third)] == [200] * 3
    assert len(await greenroom.runs_of(actor)) == 1


async def test_who_waits_too_long_is_told_to_come_again(greenroom: Greenroom) -> None:
    """503 with Retry-After once the time to get a run is over, with the setting's name."""
    await greenroom.probe("late", ONE_AT_A_TIME)
    gate = gate_of(greenroom, "late")
    async with begun(greenroom.call("late", f"/until?file={gate}")) as served:
        await eventually(gate.with_name("late.gate.begun").exists, what="the first request")
        actor = await greenroom.data_of("GET", "/actors/~late")
        await greenroom.data_of("PUT", f"/actors/{actor['id']}", json={"actorStandby": {"pickTimeoutSecs": 0.3}})
        late = await greenroom.call("late")
        assert error_of(late) == (503, "waiting-room-timeout")
        assert int(late.headers["retry-after"]) >= 1
        assert "pick_timeout_secs" in late.json()["error"]["message"]
        gate.touch()
        assert (await served).status_code == 200


async def test_a_caller_who_leaves_the_waiting_room_frees_the_place(greenroom: Greenroom) -> None:
    """The room is full; one leaves; the next finds a place and is answered."""
    await greenroom.probe("leaving", ONE_AT_A_TIME)
    gate = gate_of(greenroom, "leaving")
    async with begun(greenroom.call("leaving", f"/until?file={gate}")) as served:
        await eventually(gate.with_name("leaving.gate.begun").exists, what="the first request")
        async with begun(greenroom.call("leaving")) as stays:
            async with begun(greenroom.call("leaving")):
                await held(greenroom, 2)
            await held(greenroom, 1)
            async with begun(greenroom.call("leaving")) as comes:
                await held(greenroom, 2)
                gate.touch()
                assert [(await task).status_code for task in (served, stays, comes)] == [200] * 3


async def test_a_start_goes_on_when_its_caller_has_left(greenroom: Greenroom) -> None:
    """The run that was started for a caller who left begins to serve, and the next request finds it warm."""
    gate = gate_of(greenroom, "start")
    actor = await greenroom.probe("start-goes-on", environmentVariables={"PROBE_START": f"file:{gate}"})

    async def started() -> bool:
        return [run["status"] for run in await greenroom.runs_of(actor)] == ["RUNNING"]

    async with begun(greenroom.call("start-goes-on")):
        await eventually(started, what="the start")
    await held(greenroom, 0)
    gate.touch()
    (run_id,) = await greenroom.serving(actor, 1)
    answer = await greenroom.call("start-goes-on", "/seen")
    assert answer.json()["runId"] == run_id
    assert len(await greenroom.runs_of(actor)) == 1


@pytest.mark.parametrize("target", ["/endless?first=1", "/endless"], ids=["amid-the-answer", "before-its-head"])
async def test_a_caller_who_leaves_cuts_the_actors_side_within_a_second(greenroom: Greenroom, target: str) -> None:
    """The Actor notices, and its slot is free again."""
    name = "watches-1" if "first" in target else "watches-0"
    await greenroom.probe(name, ONE_AT_A_TIME | {"maxRequestsPerActorRun": 2})
    await greenroom.call(name)
    if "first" in target:
        headers = {"Host": greenroom.host(name), "Authorization": f"Bearer {TOKEN}"}
        async with greenroom.client.stream("GET", target, headers=headers) as answer:
            assert await anext(answer.aiter_bytes()) == b"first"
    else:
        async with begun(greenroom.call(name, target)):
            await eventually(lambda: _in_flight(greenroom, 1), what="the request")
    await eventually(lambda: _left(greenroom, name, 1), within_secs=1, what="the cut")
    await eventually(lambda: _in_flight(greenroom, 0), what="the free slot")


async def _in_flight(greenroom: Greenroom, count: int) -> bool:
    return await greenroom.metric("greenroom_requests_in_flight") == count


# -- runs that die -----------------------------------------------------------------------------------------------------


async def test_a_standby_run_that_crashes_is_not_restarted_and_the_next_request_starts_another(
    greenroom: Greenroom,
) -> None:
    """FAILED with its real exit code and its log; nothing comes by itself; the next request does not fail."""
    actor = await greenroom.probe("crashes")
    dying = await greenroom.call("crashes", "/die?code=7")
    assert (dying.status_code, dying.text) == (200, "dying")
    (run,) = await greenroom.runs_of(actor)
    ended = await greenroom.ended(run["id"])
    assert (ended["status"], ended["exitCode"]) == ("FAILED", 7)
    assert "told to die" in await greenroom.log_of(run["id"])
    # A whole look of the autoscaler at another pool has passed when another Actor's run has come and gone.
    other = await greenroom.probe("crashes-beside", {"idleTimeoutSecs": 1})
    await greenroom.call("crashes-beside")
    (beside,) = await greenroom.runs_of(other)
    await greenroom.ended(beside["id"])
    assert len(await greenroom.runs_of(actor)) == 1
    assert (await greenroom.call("crashes")).status_code == 200
    assert len(await greenroom.runs_of(actor)) == 2


@pytest.mark.parametrize(("is_stubborn", "exit_code"), [(False, 143), (True, 137)], ids=["sigterm", "sigkill"])
async def test_an_idle_run_that_hears_events_is_asked_told_and_killed_in_turn(
    greenroom: Greenroom, is_stubborn: bool, exit_code: int
) -> None:
    """'aborting' and 'persistState', a grace, SIGTERM, a grace, SIGKILL; SUCCEEDED, however it ended."""
    main = (ACTORS / "probe" / "main.py").read_text()
    if is_stubborn:
        main = main.replace("begin_as_told()\nServer", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nServer")
        main = main.replace("import socket\n", "import signal\nimport socket\n")
        assert "SIG_IGN" in main
    name = f"hears-{exit_code}"
    await greenroom.probe(name, {"idleTimeoutSecs": 1}, main=main)
    env = (await greenroom.call(name, "/env")).json()["env"]
    async with websockets.connect(env["ACTOR_EVENTS_WEBSOCKET_URL"], proxy=None) as socket:
        names = []
        while "persistState" not in names:
            names.append(json.loads(await socket.recv())["name"])
        assert names[-2:] == ["aborting", "persistState"]
        assert (await greenroom.run(env["ACTOR_RUN_ID"]))["status"] == "RUNNING"
        ended = await greenroom.ended(env["ACTOR_RUN_ID"])
    assert (ended["status"], ended["exitCode"]) == ("SUCCEEDED", exit_code)
    assert "idle for 1 s" in await greenroom.log_of(env["ACTOR_RUN_ID"])


async def test_a_stop_ends_batch_runs_within_their_grace(tmp_path: Path) -> None:
    """They are aborted, gracefully, long before the time for the whole stop is over."""
    folder = actor_folder(tmp_path / "actors", "batch")
    async with Greenroom(tmp_path / "data", (folder,)) as greenroom:
        run = await greenroom.data_of("POST", "/actors/~batch/runs")
        await eventually(lambda: _serves(greenroom, run["id"]), what="the run")
        assert await greenroom.stop(within_secs=15) == 0
    async with Greenroom(tmp_path / "data") as greenroom:
        assert (await greenroom.run(run["id"]))["status"] == "ABORTED"


async def _serves(greenroom: Greenroom, run_id: str) -> bool:
    return bool((await greenroom.run(run_id))["isContainerServerReady"])


# -- a server that cannot start ----------------------------------------------------------------------------------------


def assert_one_line(code: int, out: str, *words: str) -> None:
    assert code != 0
    assert len(out.splitlines()) == 1, out
    assert out.startswith("greenroom: ")
    assert "Traceback" not in out
    for word in words:
        assert word in out


async def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    """It says which port, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_line(*await refused_start(tmp_path / "data", "--port", str(port)), str(port), "--port")


async def test_a_data_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    """Below a file, where not even root may write."""
    (tmp_path / "file").touch()
    data = tmp_path / "file" / "data"
    assert_one_line(*await refused_start(data, "--port", "0"), str(data), "--data")


async def test_records_that_are_no_database_are_one_clear_line(tmp_path: Path) -> None:
    """It says that it is the records, and is not taken for a bug."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "records.sqlite3").write_text("a text that is long enough to be looked at as a database, and none" * 10)
    assert_one_line(*await refused_start(data, "--port", "0"), "Records", "not a database")


async def test_a_folder_that_cannot_be_made_in_the_data_folder_is_one_clear_line(tmp_path: Path) -> None:
    """It names the folder."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "process").touch()
    assert_one_line(*await refused_start(data, "--port", "0"), str(data / "process"))


_TAKES_ONE_REQUEST = """
import os, socket, time
listener = socket.create_server(("127.0.0.1", int(os.environ["ACTOR_WEB_SERVER_PORT"])), backlog=0)
seen = 0
while not seen:
    caller, _ = listener.accept()
    seen = b"readiness-probe" not in caller.recv(65536)
    caller.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok")
    caller.close()
time.sleep(600)
"""


@pytest.mark.slow
async def test_a_request_that_is_refused_while_greenroom_stops_is_told_so(tmp_path: Path) -> None:
    """It would wait for another run, and none is started any more: 503 at once, never an internal error at the end."""
    settings = {"connect_timeout_secs": 1, "shutdown_timeout_secs": 4, "wind_down_grace_secs": 1}
    async with Greenroom(tmp_path / "data", settings=settings) as greenroom:
        await greenroom.probe("once", main=_TAKES_ONE_REQUEST)
        assert (await greenroom.call("once")).status_code == 200
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(greenroom.call("once")) for _ in range(4)]

            async def are_all_under_way() -> bool:
                return await greenroom.metric("greenroom_requests_in_flight") == len(calls)

            await eventually(are_all_under_way)
            assert await greenroom.stop() == 0
        kinds = {error_of(call.result()) for call in calls}
        assert (503, "shutting-down") in kinds
        # One or two found a place in the queue of the Actor's socket, and were cut off when it was killed.
        assert kinds <= {(503, "shutting-down"), (502, "standby-bad-gateway")}


async def test_a_second_server_on_the_same_data_is_refused_in_one_clear_line(greenroom: Greenroom) -> None:
    """It names the process that holds the folder, and that one serves on."""
    assert_one_line(*await refused_start(greenroom.data, "--port", "0"), str(greenroom.data), str(greenroom.port))
    assert (await greenroom.client.get("/health/ready")).status_code == 200


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        pytest.param('{\n  "actorSpecification": 1,\n  "name" "x"\n}\n', 3, "expected", id="no-json"),
        pytest.param(
            '{\n  "actorSpecification": 1,\n  "name": "broken",\n  "version": 1\n}\n',
            4,
            "MAJOR.MINOR, each from 0 to 99 is expected, not 1",
            id="wrong-type",
        ),
        pytest.param(
            '{\n  "actorSpecification": 1,\n  "name": "broken",\n  "version": "0.1",\n'
            '  "actorStandby": {\n    "idleTimeoutSecs": 0\n  }\n}\n',
            6,
            "At least 1",
            id="standby-setting",
        ),
    ],
)
async def test_a_broken_actor_file_is_told_with_file_line_and_what_is_expected(
    tmp_path: Path, text: str, line: int, expected: str
) -> None:
    """One clear line, as a text editor can jump to it."""
    folder = actor_folder(tmp_path, "broken")
    (folder / ".actor" / "actor.json").write_text(text)
    told = await refused_start(tmp_path / "data", "--port", "0", "--actors", str(folder))
    assert_one_line(*told, f"{folder / '.actor' / 'actor.json'}:{line}: ", expected)
