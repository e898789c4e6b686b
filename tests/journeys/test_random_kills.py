"""Whatever is killed, at whatever moment: in the end every run has a truthful end, and nothing of any is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from journeys.greenroom import Greenroom, actor_folder, children_of, holders_of, workers_of

SEED = int(os.environ.get("KILLS_SEED", "20260"))
ROUNDS = int(os.environ.get("KILLS_ROUNDS", "20"))
SLEEPERS = [f"sleeper-{number}" for number in range(5)]
SETTINGS = {"wind_down_grace_secs": 1, "abort_grace_secs": 1}


class Process(NamedTuple):
    pid: int
    parent: int
    home: str


def processes_below(data: Path) -> list[Process]:
    """The Actors' processes: those with a HOME in the data folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            home = next(
                (word[5:].decode() for word in (folder / "environ").read_bytes().split(b"\0") if word[:5] == b"HOME="),
                "",
            )
        except OSError:
            continue
        if stat[0] not in "ZX" and home.startswith(f"{data}/"):
            found.append(Process(int(folder.name), int(stat[1]), home))
    return found


def victims(greenroom: Greenroom, kind: str) -> list[int]:
    """The processes of one kind that this server has now."""
    assert greenroom.process is not None
    if kind == "parent":
        return [greenroom.process.pid]
    workers = workers_of(greenroom.process.pid)
    if kind == "worker":
        return workers
    if kind == "holder of events sockets":
        return holders_of(greenroom.process.pid)
    if kind == "fork server":
        return [child for worker in workers for child in children_of(worker)]
    actors = processes_below(greenroom.data)
    pids = {actor.pid for actor in actors}
    # An Actor is its shim's child; what the Actor has started has a parent with the same HOME.
    return sorted(pids) if kind == "actor" else sorted({actor.parent for actor in actors} - pids - {1})


KILLED_AT_ITS_START = "Greenroom was killed while this run was being started"
LOST = "The run was lost while Greenroom was down"


class Traffic:
    """What is asked of the server while it is being killed, and which run starts it has acknowledged."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.acknowledged: list[str] = []
        self.unexpected: list[str] = []
        self.killed_shims = 0

    async def run(self, greenroom: Greenroom) -> None:
        asks: list[Callable[[Greenroom], Awaitable[None]]] = [self.call, self.call, self.call, self.start, self.abort]
        async with asyncio.TaskGroup() as group:
            for _ in range(self.chance.randint(5, 25)):
                group.create_task(self._quietly(self.chance.choice(asks), greenroom))
                await asyncio.sleep(self.chance.random() * 0.02)

    async def _quietly(self, ask: Callable[[Greenroom], Awaitable[None]], greenroom: Greenroom) -> None:
        with contextlib.suppress(httpx.TransportError):  # the server was killed meanwhile
            await ask(greenroom)

    async def call(self, greenroom: Greenroom) -> None:
        answer = await greenroom.call(self.chance.choice(SLEEPERS), self.chance.choice(["/", "/slow?ms=100"]))
        if answer.status_code not in (200, 502, 503):  # of an Actor that was killed: bad gateway, or it ended
            self.unexpected.append(f"{answer.status_code} {answer.text}")

    async def start(self, greenroom: Greenroom) -> None:
        answer = await greenroom.api("POST", "/actors/local~batch/runs")
        if answer.status_code == 201:
            self.acknowledged.append(answer.json()["data"]["id"])
        else:
            self.unexpected.append(f"{answer.status_code} {answer.text}")

    async def abort(self, greenroom: Greenroom) -> None:
        if self.acknowledged:
            run_id = self.chance.choice(self.acknowledged)
            how = self.chance.choice(["", "?gracefully=1"])
            answer = await greenroom.api("POST", f"/actor-runs/{run_id}/abort{how}")
            if answer.status_code != 200:
                self.unexpected.append(f"{answer.status_code} {answer.text}")


async def one_round(greenroom: Greenroom, traffic: Traffic, chance: random.Random) -> None:
    """Start on the same data, ask for many things at once, kill something soon after, and the server in the end."""
    greenroom.start()
    await greenroom.wait_until_ready()
    async with asyncio.TaskGroup() as group:
        group.create_task(traffic.run(greenroom))
        await asyncio.sleep(chance.random() * chance.choice([0.05, 0.15, 0.4]))
        kind = chance.choice(
            ["parent", "parent", "parent", "worker", "shim", "actor", "fork server", "holder of events sockets"]
        )
        there = victims(greenroom, kind)
        for pid in chance.sample(there, min(2, len(there))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                traffic.killed_shims += kind == "shim"
        await asyncio.sleep(chance.random() * (2.5 if kind == "worker" else 0.3))
        await greenroom.kill()
    await greenroom.client.aclose()


@pytest.mark.slow
async def test_kills_at_random_moments_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    """
    Parent, worker, shims, Actors and the fork server are killed while requests, starts and aborts are under way.

    Then: each acknowledged run is there, each has ended with a reason and, where its program began, an exit code or the
    reason why nobody has it; none began twice; no process, folder, live log or token of a run is left; sleeping Actors
    answer.
    """
    chance = random.Random(SEED)
    traffic = Traffic(chance)
    folders = [actor_folder(tmp_path / "actors", name, {"idleTimeoutSecs": 1}) for name in SLEEPERS]
    folders.append(actor_folder(tmp_path / "actors", "batch"))
    data = tmp_path / "data"
    until = time.monotonic() + 60
    for number in range(ROUNDS):
        if time.monotonic() < until:
            await one_round(Greenroom(data, folders if number == 0 else (), SETTINGS), traffic, chance)
    async with Greenroom(data, settings=SETTINGS) as greenroom:
        assert [(await greenroom.call(name)).status_code for name in SLEEPERS] == [200] * len(SLEEPERS)
        # All of them: a start may be on record although its caller was never told so.
        for run in await greenroom.runs():
            if run["meta"]["origin"] != "STANDBY":
                await greenroom.api("POST", f"/actor-runs/{run['id']}/abort")
        runs = [await greenroom.run(run["id"]) for run in await greenroom.wait_until_no_run_lives()]
        assert set(traffic.acknowledged) <= {run["id"] for run in runs}
        for run in runs:
            starts = (await greenroom.log_of(run["id"])).count("probe starts")
            assert starts <= 1, run
            assert run["statusMessage"], run
            told = (run["status"], run["statusMessage"], starts)
            # An exit code has nobody to keep it when shim and server die together; then the message says just that.
            is_told = told[1].startswith((KILLED_AT_ITS_START, LOST))
            assert run.get("exitCode") is not None or is_told or not starts, told
        lost = [run["id"] for run in runs if run["statusMessage"].startswith(LOST)]
        assert len(lost) <= traffic.killed_shims, "only a run whose guard was killed too may be lost"
        await greenroom.stop()
    assert traffic.unexpected == []
    assert processes_below(data) == []
    for left in ("process/runs", "live/logs"):
        assert list((data / left).iterdir()) == []
    with contextlib.closing(sqlite3.connect(data / "records.sqlite3")) as records:
        assert records.execute("SELECT count(*) FROM tokens WHERE run_id IS NOT NULL").fetchone() == (0,)
