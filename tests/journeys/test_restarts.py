"""Restarts in place, with real processes: reboot, migration, after a failure, and amid a crash of Greenroom itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import Greenroom, actor_folder, error_of, eventually

pytestmark = pytest.mark.slow  # each starts servers of its own

# Notes each start in a file that is named by its default store, does what MODE says when it is told to migrate, and
# ends with the exit code that it finds in FILE.go (and that start alone in FILE.go.N).
PROGRAM = """
import base64, json, os, signal, socket, struct, threading, time, urllib.request

path = os.path.join(os.environ["FOLDER"], os.environ["ACTOR_DEFAULT_KEY_VALUE_STORE_ID"])
with open(path, "a") as file:
    file.write(json.dumps({"pid": os.getpid(), "run": os.environ["ACTOR_RUN_ID"], "token": os.environ["APIFY_TOKEN"],
                           "until": os.environ.get("ACTOR_TIMEOUT_AT")}) + "\\n")
count = len(open(path).readlines())
signal.signal(signal.SIGTERM, signal.SIG_IGN)


def say(text):  # whole: two threads speak, and print writes a line in pieces
    os.write(1, f"{text}\\n".encode())


def reboot():
    base, run, token = (os.environ[name] for name in ("APIFY_API_BASE_URL", "ACTOR_RUN_ID", "APIFY_TOKEN"))
    request = urllib.request.Request(f"{base}/v2/actor-runs/{run}/reboot", method="POST", data=b"",
                                     headers={"Authorization": f"Bearer {token}"})
    say(f"reboot answered {json.load(urllib.request.urlopen(request))['data']['status']}")


def listen():
    address, _, target = os.environ["ACTOR_EVENTS_WEBSOCKET_URL"].removeprefix("ws://").partition("/")
    host, _, port = address.partition(":")
    connection = socket.create_connection(("127.0.0.1", int(port)))
    head = [f"GET /{target} HTTP/1.1", f"Host: {address}", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", "", ""]
    connection.sendall("\\r\\n".join(head).encode())
    stream = connection.makefile("rb")
    while stream.readline().strip():
        pass
    say(f"connected {count}")
    while head := stream.read(2):
        size = head[1] & 127
        if size == 126:
            size = struct.unpack("!H", stream.read(2))[0]
        text = stream.read(size)
        if head[0] & 15 == 1 and json.loads(text)["name"] in ("migrating", "aborting", "persistState"):
            say(f"heard {text.decode()}")
            if os.environ["MODE"] == "reboots":
                reboot()
            elif os.environ["MODE"].startswith("exits "):
                os._exit(int(os.environ["MODE"].split()[1]))


if os.environ["MODE"] != "deaf":
    threading.Thread(target=listen, daemon=True).start()
say(f"start {count}")
while True:
    for go in (path + ".go", f"{path}.go.{count}"):
        if os.path.exists(go) and (text := open(go).read()):
            os._exit(int(text))
    time.sleep(0.01)
"""


@dataclass
class Started:
    """A run of PROGRAM, seen through the file that it writes."""

    greenroom: Greenroom
    id: str
    path: Path

    def pids(self) -> list[int]:
        """The pid of each start so far."""
        return [int(line.split(",")[0].split(":")[1]) for line in self.path.read_text().splitlines()]

    async def has_started(self, times: int) -> None:
        """Until its program has begun so many times, and the last start is on record."""
        await eventually(
            lambda: self.path.exists() and len(self.pids()) >= times, within_secs=60, what=f"start {times}"
        )
        await self.has_logged(f"start {times}")
        await eventually(self._is_quiet, what="the record of the start")

    async def _is_quiet(self) -> bool:
        return (await self.record())["status"] == "RUNNING"

    async def has_logged(self, text: str) -> None:
        async def logged() -> bool:
            return text in await self.log()

        await eventually(logged, within_secs=60, what=f"{text!r} in the log")

    async def log(self) -> str:
        return await self.greenroom.log_of(self.id)

    async def record(self) -> dict[str, Any]:
        return await self.greenroom.run(self.id)

    async def reboot(self) -> dict[str, Any]:
        return dict(await self.greenroom.data_of("POST", f"/actor-runs/{self.id}/reboot"))

    async def counts(self, **expected: int) -> None:
        """Until its stats say so: how often it was rebooted, migrated and restarted, 0 where nothing is said."""
        wanted = {name: expected.get(name, 0) for name in ("rebootCount", "migrationCount", "restartCount")}

        async def counted() -> bool:
            stats = (await self.record())["stats"]
            return {name: stats[name] for name in wanted} == wanted

        await eventually(counted, what=f"{wanted}")

    def go(self, code: int, *, start: int | None = None) -> None:
        """Tell the program to end, or that of one start alone."""
        name = f"{self.path}.go" + (f".{start}" if start is not None else "")
        Path(name + ".new").write_text(str(code))
        Path(name + ".new").rename(name)

    async def ended(self) -> dict[str, Any]:
        return await self.greenroom.ended(self.id)


MODES = {"deaf": "deaf", "listens": "listens", "reboots": "reboots", "exits-0": "exits 0", "exits-5": "exits 5"}


@pytest.fixture
def actors(tmp_path: Path) -> Path:
    for name, mode in MODES.items():
        variables = {"MODE": mode, "FOLDER": str(tmp_path)}
        folder = tmp_path / "actors"
        actor_folder(folder, name, {"isEnabled": False}, main=PROGRAM, environmentVariables=variables)
    return tmp_path / "actors"


@pytest.fixture
async def greenroom(tmp_path: Path, actors: Path) -> AsyncIterator[Greenroom]:
    async with Greenroom(tmp_path / "data", (actors,), {"migration_grace_secs": 2, "abort_grace_secs": 1}) as running:
        yield running


async def begin(greenroom: Greenroom, actor: str, **query: Any) -> Started:
    run = await greenroom.data_of("POST", f"/actors/local~{actor}/runs", params=query)
    started = Started(greenroom, run["id"], greenroom.data.parent / run["defaultKeyValueStoreId"])
    await started.has_started(1)
    return started


async def test_a_reboot_starts_the_program_again(greenroom: Greenroom) -> None:
    """Same run, storages, token, time limit and log; the exit code of what was killed means nothing. No event comes."""
    run = await begin(greenroom, "listens", timeout=600)
    await run.has_logged("connected 1")
    assert (await run.reboot())["status"] == "RUNNING"
    await run.has_started(2)
    await run.counts(rebootCount=1)
    first, second = run.path.read_text().splitlines()
    assert first.partition(",")[2] == second.partition(",")[2]
    assert run.pids()[0] != run.pids()[1]
    run.go(0)
    ended = await run.ended()
    assert (ended["status"], ended["exitCode"]) == ("SUCCEEDED", 0)
    assert ended["stats"]["rebootCount"] == 1
    log = await run.log()
    assert log.index("start 1") < log.index("Restarting Actor run.") < log.index("start 2")
    assert "heard" not in log


async def test_a_run_reboots_itself_under_its_actor_too(greenroom: Greenroom) -> None:
    """With its own token, as SDKs do it, which send an empty form."""
    run = await begin(greenroom, "deaf")
    token = run.path.read_text().partition('"token": "')[2].partition('"')[0]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await greenroom.api("POST", f"/acts/local~deaf/runs/{run.id}/reboot", token=token, headers=form)
    assert (answer.status_code, answer.json()["data"]["id"]) == (200, run.id)
    await run.has_started(2)
    other = await begin(greenroom, "deaf")
    refused = await greenroom.api("POST", f"/actor-runs/{other.id}/reboot", token=token)
    assert refused.status_code in (403, 404)
    for one in (run, other):
        one.go(0)
        await one.ended()
    assert len(other.pids()) == 1


async def test_only_what_runs_can_be_restarted(greenroom: Greenroom) -> None:
    """A finished run: 403 with the words that clients look for. One that is aborting is refused, and stays so."""
    run = await begin(greenroom, "listens")
    await run.has_logged("connected 1")
    await greenroom.data_of("POST", f"/actor-runs/{run.id}/abort?gracefully=1")
    for path in (f"/actor-runs/{run.id}/reboot", f"/greenroom/runs/{run.id}/migrate"):
        assert error_of(await greenroom.api("POST", path)) == (409, "run-not-running")
    run.go(0)
    assert (await run.ended())["status"] == "ABORTED"
    for path in (f"/actor-runs/{run.id}/reboot", f"/greenroom/runs/{run.id}/migrate"):
        answer = await greenroom.api("POST", path)
        assert error_of(answer) == (403, "job-finished")
        assert "already finished" in answer.json()["error"]["message"]
    assert error_of(await greenroom.api("POST", "/actor-runs/NoSuchRun/reboot")) == (404, "record-not-found")
    assert len(run.pids()) == 1


async def test_an_abort_overtakes_a_migration(greenroom: Greenroom) -> None:
    """The run ends ABORTED, and nothing is started again."""
    run = await begin(greenroom, "listens")
    await run.has_logged("connected 1")
    await greenroom.data_of("POST", f"/greenroom/runs/{run.id}/migrate")
    await run.has_logged("heard")
    await greenroom.data_of("POST", f"/actor-runs/{run.id}/abort")
    assert (await run.ended())["status"] == "ABORTED"
    assert len(run.pids()) == 1


async def test_the_time_limit_goes_on_over_restarts(greenroom: Greenroom) -> None:
    """A run of 4 s that is rebooted has not 4 s more."""
    run = await begin(greenroom, "deaf", timeout=4)
    await run.reboot()
    await run.has_started(2)
    ended = await run.ended()
    assert ended["status"] == "TIMED-OUT"
    assert ended["stats"]["runTimeSecs"] < 7


@pytest.mark.parametrize(
    ("actor", "starts", "counts"),
    [
        pytest.param("listens", 2, {"migrationCount": 1}, id="does nothing: stopped when its time is over"),
        pytest.param("deaf", 2, {"migrationCount": 1}, id="hears nothing of it"),
        pytest.param("reboots", 2, {"migrationCount": 1}, id="asks for a reboot: that is the migration"),
        pytest.param("exits-5", 2, {"migrationCount": 1}, id="fails: started again"),
        pytest.param("exits-0", 1, {}, id="ends well: it is done"),
    ],
)
async def test_migration(greenroom: Greenroom, actor: str, starts: int, counts: dict[str, int]) -> None:
    """The run hears ``migrating`` with its time, alone, and is started once more unless it says that it is done."""
    run = await begin(greenroom, actor)
    if actor != "deaf":
        await run.has_logged("connected 1")
    await greenroom.data_of("POST", f"/greenroom/runs/{run.id}/migrate")
    if starts > 1:
        await run.has_started(starts)
    await run.counts(**counts)
    run.go(0)
    ended = await run.ended()
    assert (ended["status"], ended["exitCode"], len(run.pids())) == ("SUCCEEDED", 0, starts)
    heard = [line for line in (await run.log()).splitlines() if " heard " in line]
    assert len(heard) == (0 if actor == "deaf" else 1)
    assert all('"name":"migrating"' in line and '"timeRemainingSecs":' in line for line in heard)


async def test_the_command_migrates_and_waits(greenroom: Greenroom) -> None:
    """``greenroom migrate RUN`` ends when the run has started again; a mistake is one line."""
    run = await begin(greenroom, "exits-5")
    await run.has_logged("connected 1")
    assert await greenroom.command("migrate", run.id) == f"{run.id} RUNNING\n"
    assert len(run.pids()) == 2
    run.go(0)
    await run.ended()
    await greenroom.command("migrate", run.id, expect=1)


async def test_who_may_migrate(greenroom: Greenroom) -> None:
    """Its owner and the administrator; to others there is no such run, and a run may not have itself migrated."""
    run = await begin(greenroom, "deaf")
    token = run.path.read_text().partition('"token": "')[2].partition('"')[0]
    path = f"/greenroom/runs/{run.id}/migrate"
    assert (await greenroom.api("POST", path, token=token)).status_code == 403
    stranger = await greenroom.user("stranger")
    assert error_of(await greenroom.api("POST", path, token=stranger)) == (404, "record-not-found")
    run.go(0)
    await run.ended()


async def test_a_standby_run_is_rebooted_but_not_migrated(greenroom: Greenroom) -> None:
    """After a reboot it serves the same host again; a migration is refused, with what to do instead."""
    actor = await greenroom.probe("standing", {"idleTimeoutSecs": 60})
    before = (await greenroom.call("standing", "/env")).json()["env"]
    (run_id,) = await greenroom.serving(actor, 1)
    assert error_of(await greenroom.api("POST", f"/greenroom/runs/{run_id}/migrate")) == (
        400,
        "standby-run-not-migrated",
    )
    await greenroom.data_of("POST", f"/actor-runs/{run_id}/reboot")

    async def rebooted() -> bool:
        run = await greenroom.run(run_id)
        return run["stats"]["rebootCount"] == 1 and run["isContainerServerReady"]

    await eventually(rebooted, what="the reboot")
    after = (await greenroom.call("standing", "/env")).json()["env"]
    assert (after["ACTOR_RUN_ID"], after["APIFY_TOKEN"]) == (before["ACTOR_RUN_ID"], before["APIFY_TOKEN"])
    assert len(await greenroom.runs_of(actor)) == 1
    (log_line,) = [line for line in (await greenroom.log_of(run_id)).splitlines() if "Restarting" in line]
    assert log_line.endswith("ACTOR: Restarting Actor run.")


async def test_failures_are_forgiven_three_times_a_minute(greenroom: Greenroom) -> None:
    """The fourth failure is the run's end; a reboot in between is none of them."""
    run = await begin(greenroom, "deaf", restartOnError=1)
    await run.reboot()
    await run.has_started(2)
    run.go(7)
    ended = await run.ended()
    assert (ended["status"], ended["exitCode"], len(run.pids())) == ("FAILED", 7, 5)
    assert (ended["stats"]["restartCount"], ended["stats"]["rebootCount"]) == (3, 1)
    assert (await run.log()).count("Actor run failed with exit code 7, restarting it.") == 3


async def test_a_declared_failure_is_final(greenroom: Greenroom) -> None:
    """After its own last word a run is not restarted, though its options ask for it."""
    run = await begin(greenroom, "deaf", restartOnError=1)
    token = run.path.read_text().partition('"token": "')[2].partition('"')[0]
    word = {"statusMessage": "Bad input.", "isStatusMessageTerminal": True}
    await greenroom.data_of("PUT", f"/actor-runs/{run.id}", json=word, token=token)
    run.go(1)
    ended = await run.ended()
    assert (ended["status"], ended["statusMessage"], len(run.pids())) == ("FAILED", "Bad input.", 1)


async def test_a_restart_survives_a_kill_before_the_process_was_stopped(tmp_path: Path, actors: Path) -> None:
    """The wish is in the record: the next Greenroom tells the run again, and migrates it when its time is over."""
    async with Greenroom(tmp_path / "data", (actors,), {"migration_grace_secs": 5}) as greenroom:
        run = await begin(greenroom, "listens")
        await run.has_logged("connected 1")
        await greenroom.data_of("POST", f"/greenroom/runs/{run.id}/migrate")
        await run.has_logged("heard")
        await greenroom.kill()
    async with Greenroom(tmp_path / "data", settings={"migration_grace_secs": 5}) as again:
        run.greenroom = again
        await run.has_started(2)
        await run.counts(migrationCount=1)
        run.go(0)
        assert (await run.ended())["status"] == "SUCCEEDED"
        assert len(run.pids()) == 2


async def test_a_restart_survives_the_loss_of_greenroom_and_the_process_together(tmp_path: Path, actors: Path) -> None:
    """With the wish on record and no process, nor an exit code, the next Greenroom starts the run again, once."""
    async with Greenroom(tmp_path / "data", (actors,), {"migration_grace_secs": 60}) as greenroom:
        run = await begin(greenroom, "listens")
        await greenroom.data_of("POST", f"/greenroom/runs/{run.id}/migrate")
        await run.has_logged("Migrating Actor run")
        await greenroom.kill()
        os.kill(shim_of(run.pids()[0]), signal.SIGKILL)
    async with Greenroom(tmp_path / "data", settings={"migration_grace_secs": 60}) as again:
        run.greenroom = again
        await run.has_started(2)
        await run.counts(migrationCount=1)
        run.go(3)
        ended = await run.ended()
        assert (ended["status"], ended["exitCode"], len(run.pids())) == ("FAILED", 3, 2)


async def test_an_exit_while_greenroom_was_down_is_followed_by_the_restart(tmp_path: Path, actors: Path) -> None:
    """The process failed amid its migration, and nobody saw it: the run goes on all the same."""
    async with Greenroom(tmp_path / "data", (actors,), {"migration_grace_secs": 60}) as greenroom:
        run = await begin(greenroom, "listens")
        await greenroom.data_of("POST", f"/greenroom/runs/{run.id}/migrate")
        await run.has_logged("Migrating Actor run")
        await greenroom.kill()
    run.go(9, start=1)
    exit_file = tmp_path / "data" / "process" / "runs" / run.id / "exit.json"
    await eventually(exit_file.exists, what="the shim's record of the exit")
    async with Greenroom(tmp_path / "data", settings={"migration_grace_secs": 60}) as again:
        run.greenroom = again
        await run.has_started(2)
        await run.counts(migrationCount=1)
        run.go(0)
        assert (await run.ended())["status"] == "SUCCEEDED"


@pytest.mark.slow
async def test_kills_at_any_moment_of_a_reboot_leave_a_true_state(tmp_path: Path, actors: Path) -> None:
    """However far the reboot had come: the run goes on, each wish is counted once, and the end is the real one."""
    data = tmp_path / "data"
    async with Greenroom(data, (actors,)) as greenroom:
        run = await begin(greenroom, "deaf")
        await greenroom.kill()
    moments: list[Callable[[int], bool]] = [
        lambda known: True,
        lambda known: live_log(data, run.id).count("Restarting") == known,
        lambda known: not (data / "process" / "runs" / run.id / "shim.json").exists(),
        lambda known: len(run.pids()) > known,
    ]
    for has_come in moments:
        async with Greenroom(data) as again:
            run.greenroom = again
            known = len(run.pids())
            await run.counts(rebootCount=known - 1)
            await run.reboot()
            # Other than by `eventually`: the moment may be a short one.
            async with asyncio.timeout(10):
                while not has_come(known) and len(run.pids()) == known:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            await again.kill()
        async with Greenroom(data) as again:
            run.greenroom = again
            await run.has_started(known + 1)
            await run.counts(rebootCount=known)
            await again.kill()
    async with Greenroom(data) as again:
        run.greenroom = again
        assert len(run.pids()) == len(moments) + 1
        run.go(4)
        ended = await run.ended()
        assert (ended["status"], ended["exitCode"]) == ("FAILED", 4)
        assert ended["stats"]["rebootCount"] == len(moments)


def live_log(data: Path, run_id: str) -> str:
    """The log of a run that lives, as far as it has come."""
    return (data / "live" / "logs" / f"{run_id}.log").read_text()


def shim_of(pid: int) -> int:
    """The parent of the Actor's process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
