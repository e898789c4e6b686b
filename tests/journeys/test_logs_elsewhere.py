"""
A gateway and autoscalers that share no folder, as on two machines: real Redis, PostgreSQL and S3 between them.

The log of a run lies with the autoscaler that leads while the run lives, and in the blobs afterwards; who reads or
follows it at the gateway notices none of that.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import postgres_server
import pytest
import s3_server
from journeys.fleet import AutoscalerProcess, end_all_runs
from journeys.greenroom import TOKEN, Greenroom, actor_folder, error_of, eventually
from redis_server import RedisServer, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# It says what it is told to say, line by line, so that the test knows what stands in the log.
SAYS = """
import os, time
said = 0
while True:
    try:
        lines = open(os.environ["HOME"] + "/say").read().splitlines()
    except OSError:
        lines = []
    for line in lines[said:]:
        if line == "end":
            raise SystemExit(0)
        print(line, flush=True)
    said = max(said, len(lines))
    time.sleep(0.02)
"""


@dataclass
class House:
    """One gateway with a folder of its own, and the folder that the autoscalers share."""

    gateway: Greenroom
    folder: Path
    environment: dict[str, str]
    autoscalers: list[AutoscalerProcess] = field(default_factory=list)

    async def add_autoscaler(self) -> AutoscalerProcess:
        """Once it answers."""
        name = f"autoscaler{len(self.autoscalers) + 1}"
        one = AutoscalerProcess(self.folder, self.gateway.port, name, {}, self.environment)
        self.autoscalers.append(one)
        return await one.start()

    async def leads(self, autoscaler: AutoscalerProcess) -> None:
        """Until it does."""
        await eventually(autoscaler.leads, within_secs=20, what="a leader")

    def say(self, run_id: str, *lines: str) -> None:
        """Have a run say these lines, after those that it was told before."""
        with (self.folder / "process" / "runs" / run_id / "home" / "say").open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))


@pytest.fixture
def stores(tmp_path: Path, redis_server: RedisServer) -> Iterator[dict[str, str]]:
    """The variables that name stores which all processes reach, and the key that they have in common."""
    with running(tmp_path / "redis") as redis, postgres_server.running() as postgres, s3_server.running() as s3:
        yield {
            "GREENROOM_SIGNALS_URL": redis.url(),
            "GREENROOM_RECORDS_URL": postgres.url(postgres.create_database()),
            "GREENROOM_BLOBS_URL": s3.url(s3.create_bucket(), "/greenroom"),
            **s3_server.KEYS,
            "GREENROOM_SECRET_KEY": "the key that all of them have in common",
            "GREENROOM_TOKEN": TOKEN,
        }


@asynccontextmanager
async def house_of(tmp_path: Path, stores: dict[str, str]) -> AsyncIterator[House]:
    """A gateway that knows the Actor ``says``; at the end nothing is left of it."""
    actor = actor_folder(tmp_path / "actors", "says", main=SAYS, usesStandbyMode=False)
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    async with Greenroom(
        tmp_path / "here" / "data", (actor,), environment=stores, verb="gateway", log_name="gateway.log"
    ) as gateway:
        house = House(gateway, tmp_path / "there" / "data", stores)
        try:
            yield house
        finally:
            for one in house.autoscalers:
                if one.process is not None and one.process.poll() is None:
                    await one.stop()
            await asyncio.to_thread(end_all_runs, house.folder)


@dataclass
class Follower:
    """Who follows a log at the gateway, line by line without their times."""

    lines: list[str] = field(default_factory=list)

    async def follow(self, gateway: Greenroom, run_id: str) -> None:
        """Until it ends."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with gateway.client.stream("GET", f"/v2/logs/{run_id}?stream=1", headers=headers) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                self.lines.append(line[25:])

    def said(self) -> list[str]:
        """What the run has said, without what Greenroom says of it."""
        return [line for line in self.lines if re.match(r"line \d", line)]

    async def hears(self, line: str) -> None:
        """Until that line has come."""
        await eventually(lambda: line in self.lines, within_secs=30, what=f"the line {line!r}")


async def test_a_log_is_followed_over_the_death_of_the_leader(tmp_path: Path, stores: dict[str, str]) -> None:
    """
    Line by line while it is written, over the death of the autoscaler that it was read from, to the run's end: no line
    twice and none left out, as in the log that is kept.
    """
    async with house_of(tmp_path, stores) as house:
        first = await house.add_autoscaler()
        await house.leads(first)
        second = await house.add_autoscaler()
        run = await house.gateway.data_of("POST", "/actors/local~says/runs")
        await eventually((house.folder / "process" / "runs" / run["id"] / "home").exists, what="the run's home")
        assert not list((house.gateway.data / "live" / "logs").glob("*.log"))
        follower = Follower()
        async with asyncio.TaskGroup() as group:
            group.create_task(follower.follow(house.gateway, run["id"]))
            house.say(run["id"], "line 1", "line 2")
            await follower.hears("line 2")
            assert "line 2" in await house.gateway.log_of(run["id"])
            await first.kill()
            house.say(run["id"], "line 3")
            await house.leads(second)
            house.say(run["id"], "line 4")
            await follower.hears("line 4")
            house.say(run["id"], "line 5", "end")
        assert follower.said() == [f"line {number}" for number in range(1, 6)]
        ended = await house.gateway.ended(run["id"])
        assert ended["status"] == "SUCCEEDED"
        kept = await house.gateway.log_of(run["id"])
        assert [line[25:] for line in kept.splitlines()] == follower.lines


async def test_a_live_log_that_nobody_can_read_is_told(tmp_path: Path, stores: dict[str, str]) -> None:
    """With no autoscaler left 503 says so, rather than an empty log; when one leads again, all of it is there."""
    async with house_of(tmp_path, stores) as house:
        first = await house.add_autoscaler()
        await house.leads(first)
        run = await house.gateway.data_of("POST", "/actors/local~says/runs")
        await eventually((house.folder / "process" / "runs" / run["id"] / "home").exists, what="the run's home")
        house.say(run["id"], "line 1")

        async def is_said() -> Any:
            return "line 1" in await house.gateway.log_of(run["id"])

        await eventually(is_said, what="the first line")
        await first.kill()
        answer = await house.gateway.api("GET", f"/logs/{run['id']}")
        assert error_of(answer)[0] == 503
        house.say(run["id"], "line 2")
        await house.leads(await house.add_autoscaler())
        house.say(run["id"], "line 3", "end")
        await house.gateway.ended(run["id"])
        kept = await house.gateway.log_of(run["id"])
        assert re.findall(r"line \d", kept) == ["line 1", "line 2", "line 3"]
