"""
The probers of a chaos test: each asks again and again through the balancer, and writes down what came of it.

``warm``   an Actor that is awake, by many callers with a schedule of their own
``wake``   Actors that sleep again after each call, one caller each
``limit``  an Actor whose runs take one request at a time, and tell when they have two
``write``  items of a dataset and records of a key-value store, which must all be there at the end once they were
           acknowledged
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field

from loadtests.chaos_caller import Caller, Reply, closing
from loadtests.chaos_outcome import Answer, Prober
from loadtests.compare_targets import NotMeasured

WARM, LIMIT = "counts-warm", "counts-limit"
WAKES = tuple(f"counts-wake-{number}" for number in range(3))
# Nobody's but who wants to know when something is started again after a fault.
FRESH = "counts-fresh"
_API = "localhost"
_WARM_CALLERS, _WARM_PAUSE_SECS = 2, 0.05
_LIMIT_CALLERS, _LIMIT_PAUSE_SECS, LIMIT_TAKES_MS = 4, 0.015, 3
_WAKE_PAUSE_SECS = 2.5
_WRITE_PAUSE_SECS = 0.1
_WARM_SECS, _WRITE_SECS = 10.0, 20.0


def host_of(actor: str) -> str:
    """The standby host of an Actor of the first user."""
    return f"local--{actor}.localhost"


def answer_of(prober: Prober, sent: float, reply: Reply) -> Answer:
    """What is kept of one request to an Actor ``counts``, or to the API."""
    told = reply.value if reply.status == 200 else None
    facts = told if isinstance(told, dict) and "boot" in told else {}
    problem = reply.problem
    if not problem and prober != "write" and not facts:
        problem = "another answer than the Actor's"
    return Answer(
        prober=prober,
        sent=sent,
        over=time.monotonic(),
        status=reply.status,
        problem=problem,
        gateway=reply.gateway,
        error_type=reply.error_type,
        run=str(facts.get("run", "")),
        boot=str(facts.get("boot", "")),
        in_flight=int(facts.get("in_flight", 0)) if prober == "limit" else 0,
    )


def _value(number: int) -> str:
    """Of a record: every second one is too large to lie in a row, and becomes a blob."""
    return f"{number} " * (8000 if number % 4 == 0 else 1)


@dataclass
class Probes:
    """All probers of one house behind the balancer at *port*, and all that they have seen."""

    port: int
    wake_secs: float
    answers: list[Answer] = field(default_factory=list)
    wakes: list[tuple[str, float, float]] = field(default_factory=list)
    acknowledged_items: set[int] = field(default_factory=set)
    acknowledged_records: set[str] = field(default_factory=set)
    dataset: str = ""
    store: str = ""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def prepare(self) -> None:
        """Each Actor has answered once, and the storages are there. Raises NotMeasured."""
        caller = Caller(self.port)
        with closing(caller):
            for actor in (WARM, LIMIT, *WAKES):
                reply = await caller.ask("GET", "/", host=host_of(actor), within_secs=120)
                if reply.status != 200:
                    raise NotMeasured(f"{actor} does not answer: {reply.problem}")
            self.dataset = await self._made(caller, "/v2/datasets")
            self.store = await self._made(caller, "/v2/key-value-stores")

    async def _made(self, caller: Caller, path: str) -> str:
        reply = await caller.ask("POST", path, host=_API, within_secs=_WRITE_SECS)
        if reply.status != 201:
            raise NotMeasured(f"POST {path} was answered {reply.problem or reply.body[:200]!r}")
        return str(reply.value["data"]["id"])

    async def probe(self) -> None:
        """All of them, until ``is_over`` is set."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_WARM_CALLERS):
                group.create_task(self._visit("warm", WARM, "/", _WARM_PAUSE_SECS, _WARM_SECS))
            for _ in range(_LIMIT_CALLERS):
                path = f"/?ms={LIMIT_TAKES_MS}"
                group.create_task(self._visit("limit", LIMIT, path, _LIMIT_PAUSE_SECS, self.wake_secs))
            for actor in WAKES:
                group.create_task(self._wake(actor))
            group.create_task(self._write())

    async def _visit(self, prober: Prober, actor: str, path: str, pause_secs: float, within_secs: float) -> None:
        caller = Caller(self.port)
        with closing(caller):
            while not self.is_over.is_set():
                await self._ask(caller, prober, actor, path, within_secs)
                await self._pause(pause_secs)

    async def _ask(self, caller: Caller, prober: Prober, actor: str, path: str, within_secs: float) -> Answer:
        sent = time.monotonic()
        reply = await caller.ask("GET", path, host=host_of(actor), within_secs=within_secs)
        answer = answer_of(prober, sent, reply)
        self.answers.append(answer)
        return answer

    async def _wake(self, actor: str) -> None:
        caller = Caller(self.port)
        with closing(caller):
            while not self.is_over.is_set():
                # Runs tell when they were started by the other clock.
                sent = time.time()
                answer = await self._ask(caller, "wake", actor, "/", self.wake_secs)
                if not answer.problem:
                    self.wakes.append((actor, sent, time.time()))
                await self._pause(_WAKE_PAUSE_SECS + random.random())

    async def _write(self) -> None:
        number = 0
        caller = Caller(self.port)
        with closing(caller):
            while not self.is_over.is_set():
                number += 1
                sent = time.monotonic()
                if number % 2:
                    path = f"/v2/datasets/{self.dataset}/items"
                    body = json.dumps({"number": number}).encode()
                    reply = await caller.ask("POST", path, host=_API, body=body, within_secs=_WRITE_SECS)
                    if reply.status == 201:
                        self.acknowledged_items.add(number)
                else:
                    path = f"/v2/key-value-stores/{self.store}/records/n-{number}"
                    body = json.dumps(_value(number)).encode()
                    reply = await caller.ask("PUT", path, host=_API, body=body, within_secs=_WRITE_SECS)
                    if reply.status in (200, 201):
                        self.acknowledged_records.add(f"n-{number}")
                self.answers.append(answer_of("write", sent, reply))
                await self._pause(_WRITE_PAUSE_SECS)

    async def _pause(self, secs: float) -> None:
        try:
            async with asyncio.timeout(secs):
                await self.is_over.wait()
        except TimeoutError:
            return

    async def lost_writes(self) -> list[str]:
        """What was acknowledged and is not there, in words. Raises NotMeasured when nothing can be read."""
        caller = Caller(self.port)
        with closing(caller):
            read = await caller.ask("GET", f"/v2/datasets/{self.dataset}/items?limit=999999", host=_API, within_secs=60)
            if read.status != 200:
                raise NotMeasured(f"the items can't be read: {read.problem}")
            lost = [f"item {one}" for one in sorted(self.acknowledged_items - {item["number"] for item in read.value})]
            for key in sorted(self.acknowledged_records):
                path = f"/v2/key-value-stores/{self.store}/records/{key}"
                reply = await caller.ask("GET", path, host=_API, within_secs=60)
                if reply.status != 200 or reply.value != _value(int(key.removeprefix("n-"))):
                    lost.append(f"record {key}")
        return lost

    async def top_up(self, wanted: int) -> None:
        """More requests at the limit, as fast as they go, until there were *wanted* of them."""
        have = sum(1 for answer in self.answers if answer.prober == "limit")
        left = iter(range(max(0, wanted - have)))

        async def some() -> None:
            caller = Caller(self.port)
            with closing(caller):
                for _ in left:
                    await self._ask(caller, "limit", LIMIT, "/", self.wake_secs)

        async with asyncio.TaskGroup() as group:
            for _ in range(2 * _LIMIT_CALLERS):
                group.create_task(some())
