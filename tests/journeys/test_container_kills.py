"""
Containers, engine and Greenroom are killed at random moments: nothing is left, and what is on record is what happened.

``KILLS=200 KILLS_SEED=7 pytest tests/journeys/test_container_kills.py`` for more of them, or others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker_engine
import httpx
import pytest
from journeys.greenroom import Greenroom, eventually
from own_engine import OwnEngine

from gateway.installation import installation_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SEED = int(os.environ.get("KILLS_SEED", "5"))
KILLS = int(os.environ.get("KILLS", "25"))
SLEEPERS = [f"sleeper-{number}" for number in range(4)]
AGREE_SECS = 5.0

PROGRAM = """
import http.server, os, signal, sys, threading, time
os.write(1, b"program starts\\n")
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if os.environ["APIFY_META_ORIGIN"] != "STANDBY":
    time.sleep(float(os.environ.get("SLEEP", "2")))
    os.write(1, b"program ends\\n")
    sys.exit(3)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Handler).serve_forever()
"""


def folder_of(parent: Path, name: str) -> Path:
    """A small Actor for containers."""
    folder = parent / name
    (folder / ".actor").mkdir(parents=True)
    definition = {
        "actorSpecification": 1,
        "name": name,
        "version": "0.0",
        "usesStandbyMode": True,
        "defaultMemoryMbytes": 128,
        "actorStandby": {"idleTimeoutSecs": 1},
    }
    (folder / ".actor" / "actor.json").write_text(json.dumps(definition))
    (folder / "main.py").write_text(PROGRAM)
    (folder / "Dockerfile").write_text('FROM greenroom-tests:base\nCOPY main.py /\nCMD ["python3", "-u", "/main.py"]\n')
    return folder


@pytest.fixture
def engine(docker_host: str) -> Iterator[OwnEngine]:
    """One of the test's own; this thread is in its network namespace."""
    assert docker_host
    # A short path: the engine's sockets lie in it, and their names may not be long.
    with tempfile.TemporaryDirectory(prefix="gr-") as folder, OwnEngine(Path(folder) / "e") as engine, engine.inside():
        yield engine


class Trouble:
    """The server, what is asked of it, and what is killed."""

    def __init__(self, engine: OwnEngine, folder: Path, chance: random.Random) -> None:
        self.engine = engine
        self.chance = chance
        self.acknowledged: list[str] = []
        self.unexpected: list[str] = []
        self.killed_containers: set[str] = set()
        self.engine_kills: list[datetime] = []
        actors = tuple(folder_of(folder / "actors", name) for name in (*SLEEPERS, "batch"))
        self.greenroom = Greenroom(
            folder / "data",
            actors,
            {"launcher": "docker", "wind_down_grace_secs": 1, "abort_grace_secs": 1},
            environment={"DOCKER_HOST": engine.host},
        )

    @property
    def label(self) -> str:
        return installation_of(self.greenroom.data).label

    def containers(self, *words: str) -> list[str]:
        """The run ids of this Greenroom's containers."""
        listed = self.engine.docker(
            "ps", *words, "--filter", f"label={self.label}", "--format", '{{.Label "greenroom.run"}}'
        )
        return [run_id for run_id in listed.split() if run_id]

    async def ask_for_much(self) -> None:
        asks = [self._call, self._call, self._start, self._start, self._abort]
        async with asyncio.TaskGroup() as group:
            for _ in range(self.chance.randint(3, 9)):
                group.create_task(self._quietly(self.chance.choice(asks)))
                await asyncio.sleep(self.chance.random() * 0.1)

    async def _quietly(self, ask: Any) -> None:
        with contextlib.suppress(httpx.TransportError):  # the server was killed meanwhile
            await ask()

    async def _call(self) -> None:
        answer = await self.greenroom.call(self.chance.choice(SLEEPERS))
        if answer.status_code not in (200, 502, 503, 504):  # the engine may be away for longer than a caller waits
            self.unexpected.append(f"{answer.status_code} {answer.text}")

    async def _start(self) -> None:
        answer = await self.greenroom.api("POST", "/actors/local~batch/runs")
        if answer.status_code == 201:
            self.acknowledged.append(answer.json()["data"]["id"])
        else:
            self.unexpected.append(f"{answer.status_code} {answer.text}")

    async def _abort(self) -> None:
        if self.acknowledged:
            run_id = self.chance.choice(self.acknowledged)
            how = self.chance.choice(["", "?gracefully=1"])
            answer = await self.greenroom.api("POST", f"/actor-runs/{run_id}/abort{how}")
            if answer.status_code != 200:
                self.unexpected.append(f"{answer.status_code} {answer.text}")

    async def kill(self) -> str:
        """One thing is killed; if need be it is started again a moment later."""
        kind = self.chance.choice(["container", "container", "greenroom", "greenroom", "engine", "engine restart"])
        if kind == "container":
            with contextlib.suppress(AssertionError, IndexError):  # it has just ended, or there is none
                run_id = self.chance.choice(self.containers())
                self.killed_containers.add(run_id)
                found = self.engine.docker("ps", "-q", "--filter", f"label=greenroom.run={run_id}").split()[0]
                self.engine.docker(*self.chance.choice([("kill",), ("rm", "-f")]), found)
        elif kind == "greenroom":
            await self.greenroom.kill()
            await asyncio.sleep(self.chance.random())
            await self.begin()
        else:
            self.engine_kills.append(datetime.now(UTC))
            await asyncio.to_thread(self.engine.kill if kind == "engine" else self.engine.stop)
            await asyncio.sleep(self.chance.random() * 2)
            await asyncio.to_thread(self.engine.start)
        return kind

    async def begin(self) -> None:
        self.greenroom.start()
        await self.greenroom.wait_until_ready()

    async def agree(self) -> None:
        """
        Within five seconds records and containers say the same: what runs is on record as running, and nothing else.
        """

        async def do() -> bool:
            runs = await self.greenroom.runs()
            running = sorted(run["id"] for run in runs if run["status"] in ("RUNNING", "ABORTING", "TIMING-OUT"))
            return running == sorted(self.containers())

        try:
            await eventually(do, within_secs=AGREE_SECS, what="agreement")
        except AssertionError:
            runs = [run for run in await self.greenroom.runs() if not run.get("finishedAt")]
            raise AssertionError(f"{runs}\n{self.engine.docker('ps', '-a')}\n{self.greenroom.log[-6000:]}") from None


async def test_kills_at_random_moments(engine: OwnEngine, tmp_path: Path) -> None:
    """
    Each acknowledged run is there and has ended with a reason; none began twice; one that came to its own end has its
    exit code and its whole log; records and containers agree soon after each kill; no container is left.
    """
    chance = random.Random(SEED)
    trouble = Trouble(engine, tmp_path, chance)
    await trouble.begin()
    greenroom = trouble.greenroom
    try:
        for name in (*SLEEPERS, "batch"):
            await eventually(lambda name=name: _is_built(greenroom, name), within_secs=120, what=f"build of {name}")
        for number in range(KILLS):
            async with asyncio.TaskGroup() as group:
                group.create_task(trouble.ask_for_much())
                await asyncio.sleep(chance.random())
                kind = await trouble.kill()
            began = time.monotonic()
            await trouble.agree()
            print(f"{number + 1} of {KILLS}: {kind}, agreed after {time.monotonic() - began:.1f} s", flush=True)
        for run in await greenroom.runs():
            if run["meta"]["origin"] != "STANDBY":
                await greenroom.api("POST", f"/actor-runs/{run['id']}/abort")
        runs = [await greenroom.run(run["id"]) for run in await greenroom.wait_until_no_run_lives(within_secs=60)]
        assert set(trouble.acknowledged) <= {run["id"] for run in runs}
        for run in runs:
            log = await greenroom.log_of(run["id"])
            assert log.count("program starts") <= 1, log
            assert run["statusMessage"], run
            # What a container says while its engine is dead nobody keeps, though its exit code is known afterwards.
            began, ended = (datetime.fromisoformat(run[name]) for name in ("startedAt", "finishedAt"))
            had_its_engine = not any(began <= at <= ended for at in trouble.engine_kills)
            if had_its_engine and run.get("exitCode") == 3:
                assert log.count("program ends") == 1, log
        await eventually(lambda: trouble.containers("-a") == [], within_secs=20, what="no container")
        assert trouble.unexpected == []
        for name in SLEEPERS:
            answer = await greenroom.call(name)
            assert answer.status_code == 200, answer.text
        await greenroom.stop()
        assert trouble.containers("-a") == []
    finally:
        if greenroom.process is not None and greenroom.process.poll() is None:
            await greenroom.kill()
        docker_engine.remove_all(engine.host, trouble.label)


async def _is_built(greenroom: Greenroom, name: str) -> bool:
    return bool((await greenroom.data_of("GET", f"/actors/local~{name}")).get("taggedBuilds"))
