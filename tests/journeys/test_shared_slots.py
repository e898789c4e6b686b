"""The limit of a run holds over several gateways, and their requests take turns, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from journeys.fleet import Fleet
from journeys.greenroom import Greenroom, actor_folder, eventually
from redis_server import RedisServer, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# Says how many requests it has in its hands at once, the asking one included.
COUNTING = """
import asyncio, os
in_hand = 0

async def serve(reader, writer):
    global in_hand
    while (head := await reader.readuntil(b"\\r\\n\\r\\n")):
        in_hand += b"readiness-probe" not in head.lower()
        most = in_hand
        for _ in range(5):
            await asyncio.sleep(0.001)
            most = max(most, in_hand)
        in_hand -= b"readiness-probe" not in head.lower()
        body = f"{os.environ['ACTOR_RUN_ID']} {most}".encode()
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(body), body))

async def main():
    port = int(os.environ["ACTOR_WEB_SERVER_PORT"])
    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture
def redis(tmp_path: Path, redis_server: RedisServer) -> Iterator[RedisServer]:
    """One of the test's own, which it may break."""
    with running(tmp_path / "redis") as server:
        yield server


@dataclass
class Calls:
    """What all callers have met."""

    most: int = 0
    runs: set[str] = field(default_factory=set)
    done: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    longest_secs: float = 0.0
    ends: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, gateway: Greenroom) -> None:
        """One request after the other, until it is enough; nobody expects an answer of a gateway that was killed."""
        while not self.ends.is_set():
            began = time.monotonic()
            with contextlib.suppress(httpx.TransportError):
                answer = await gateway.call("narrow")
                if answer.status_code != 200:
                    self.failures.append(answer.text)
                    continue
                run, most = answer.text.split()
                self.most = max(self.most, int(most))
                self.runs.add(run)
                self.done[gateway.port] += 1
                self.longest_secs = max(self.longest_secs, time.monotonic() - began)
                continue
            await asyncio.sleep(0.05)


async def test_a_limit_of_one_holds_over_three_gateways(tmp_path: Path, redis: RedisServer) -> None:
    """
    Under pressure at all three; a gateway is killed and comes back, Redis is killed and comes back empty: never are two
    requests in the one run, each gateway gets its turns, and none fails.
    """
    standby = {
        "maxRequestsPerActorRun": 1,
        "desiredRequestsPerActorRun": 1,
        "maxRuns": 1,
        "idleTimeoutSecs": 300,
        "public": True,
    }
    narrow = actor_folder(tmp_path / "actors", "narrow", standby, main=COUNTING)
    async with Fleet(tmp_path, redis, (narrow,), gateways_wanted=3, autoscalers_wanted=1) as fleet:
        calls = Calls()

        async def go_on(requests: int) -> None:
            until = {gateway.port: calls.done[gateway.port] + requests for gateway in fleet.gateways}
            await eventually(
                lambda: all(calls.done[port] >= wanted for port, wanted in until.items()),
                within_secs=60,
                what=f"turns of each gateway ({calls})",
            )

        async with asyncio.TaskGroup() as group:
            for gateway in fleet.gateways:
                for _ in range(2):
                    group.create_task(calls.call(gateway))
            await go_on(100)
            killed = fleet.gateways[1]
            await killed.kill()
            killed.start()
            await killed.wait_until_ready()
            await go_on(100)
            await asyncio.to_thread(redis.restart)
            await go_on(100)
            calls.ends.set()
        assert calls.most == 1
        assert len(calls.runs) == 1
        assert calls.failures == []
        assert calls.longest_secs < 15
