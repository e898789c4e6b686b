"""
What a warm request costs by the ASGI way, in what can be counted: fake transports, the real gateway between them.

Times would tell more about the machine than about the code; the one ratio here is to a fixed loop of plain Python.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from proxy.suite.stage import TOKEN, open_stand
from uvicorn.server import ServerState

from gateway.bounded_head import BoundedHead
from gateway.proxy.connection import Connection, Pool

REQUEST = (
    b"GET /path?a=b HTTP/1.1\r\nHost: bob--shut-warm.localhost\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
    b"User-Agent: test\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n"
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: test\r\nDate: Thu, 26 Nov 2026 04:40:29 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 100\r\n\r\n" + b"x" * 100
)
# Where it was written it was some 13, on a machine with much else to do.
MOST_LOOPS = 22.0


class Wire:
    """A transport that goes nowhere and keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, pieces: list[bytes]) -> None:
        self.written.append(b"".join(pieces))

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        """Nothing stands."""


class ActorWire(Wire):
    """One that says of itself that it has a socket."""

    def get_extra_info(self, name: str) -> Any:
        return self if name == "socket" else super().get_extra_info(name)

    def setsockopt(self, *_: object) -> None:
        """There is none."""


class Bench:
    """One caller and one connection to the run that serves him."""

    def __init__(self, front: BoundedHead, caller: Wire, back: Connection, actor: Wire) -> None:
        self._front, self.caller, self._back, self.actor = front, caller, back, actor

    async def exchange(self, request: bytes = REQUEST, answer: bytes = ANSWER) -> None:
        """A request, and its answer."""
        asked, told = len(self.actor.written), len(self.caller.written)
        self._front.data_received(request)
        while len(self.actor.written) == asked:  # noqa: ASYNC110 - each round of the loop is one step
            await asyncio.sleep(0)
        self._back.data_received(answer)
        while len(self.caller.written) == told or not self._back.pool.idle:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0)


@pytest.fixture
async def bench(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Bench]:
    """Warm: the token is known, the connection lies ready."""
    caplog.set_level(logging.WARNING, "gateway.requests")
    async with open_stand(tmp_path, proxy_protocol="asgi") as stand:
        run = next(one for one in stand.gateway.desk.routes.all_runs() if one.route.actor_id.startswith("Shut"))
        await stand.gateway.services.auth.principal(TOKEN)
        config = uvicorn.Config(cast(Any, stand.gateway), lifespan="off", log_config=None, proxy_headers=False)
        config.load()
        caller, actor = Wire(), ActorWire()
        loop = asyncio.get_running_loop()
        front = BoundedHead(config, ServerState(), {}, loop, lobby=stand.gateway.splicing.lobby)
        front.connection_made(cast(Any, caller))
        upstreams = stand.gateway.admission.upstreams
        assert run.route.address is not None
        pool = upstreams._pools[run.route.address] = Pool(run.route.address)
        back = Connection(pool, upstreams._open, loop, upstreams._wheel)
        back.connection_made(cast(Any, actor))
        upstreams.keep(back)
        bench = Bench(front, caller, back, actor)
        await bench.exchange()
        yield bench
        front.connection_lost(None)
        back.connection_lost(None)


async def test_one_write_a_message_one_task_and_one_future(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred requests: a hundred writes either way, a task each for the app, a future each for the answer."""
    before = len(bench.actor.written), len(bench.caller.written)
    asked: list[str] = []
    loop: Any = asyncio.get_running_loop()

    class Counting:
        """The loop, with a tally."""

        def __getattr__(self, name: str) -> Any:
            if name in ("call_later", "call_at", "call_soon", "create_task", "create_future"):
                asked.append(name)
            return getattr(loop, name)

    counting = cast(Any, Counting())
    monkeypatch.setattr(bench._front, "_loop", counting)
    monkeypatch.setattr(bench._back, "_loop", counting)
    monkeypatch.setattr("gateway.bounded_request.asyncio.get_running_loop", lambda: counting)
    for _ in range(100):
        await bench.exchange()
    assert (len(bench.actor.written) - before[0], len(bench.caller.written) - before[1]) == (100, 100)
    # (Elsewhere ``sleep`` and the like ask that loop too, which the tally hears of.)
    assert {name: asked.count(name) for name in set(asked)} == {"create_task": 100, "create_future": 100}


async def test_a_small_body_goes_with_its_head(bench: Bench) -> None:
    """Both ways, in one write each."""
    post = REQUEST.replace(b"GET", b"PUT").replace(b"Accept: */*", b"Content-Length: 5") + b"hello"
    before = len(bench.actor.written), len(bench.caller.written)
    await bench.exchange(post)
    assert (len(bench.actor.written) - before[0], len(bench.caller.written) - before[1]) == (1, 1)
    assert bench.actor.written[-1].endswith(b"\r\n\r\nhello")
    assert bench.caller.written[-1].endswith(b"x" * 100)


async def test_every_request_has_its_own_id_and_no_token_passes(bench: Bench) -> None:
    """What was remembered of the last request is used for the next, but for that."""
    await bench.exchange()
    await bench.exchange()
    ids = [
        line.partition(b": ")[2]
        for written in bench.actor.written
        for line in written.split(b"\r\n")
        if line.startswith(b"X-Actor-Request-ID")
    ]
    assert len(set(ids)) == len(ids) == 3
    assert not any(TOKEN.encode() in written for written in bench.actor.written)
    assert all(ids[at] in bench.caller.written[at] for at in range(3))


async def test_an_answer_that_differs_is_told_as_it_is(bench: Bench) -> None:
    """Remembered is a head by its bytes: one with another length, status or header is read anew."""
    await bench.exchange(answer=ANSWER)
    await bench.exchange(answer=b"HTTP/1.1 404 No\r\nContent-Length: 2\r\nX-Own: 1\r\n\r\nno")
    head, _, body = bench.caller.written[-1].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"x-own: 1" in head
    assert body == b"no"
    await bench.exchange(REQUEST.replace(b"GET", b"HEAD"), ANSWER[:-100])
    assert bench.caller.written[-1].endswith(b"\r\n\r\n")
    await bench.exchange(answer=ANSWER)
    assert bench.caller.written[-1].endswith(b"\r\n\r\n" + b"x" * 100)


@pytest.mark.slow
async def test_a_warm_request_costs_so_many_plain_loops(bench: Bench) -> None:
    """The best of many, as a ratio to a fixed loop: whoever makes it slower by half will hear of it."""

    def plain() -> None:
        found: dict[int, bytes] = {}
        for number in range(40):
            found[number] = b"%d" % number

    ours, loops = [], []
    for _ in range(30):
        started = time.process_time()
        for _ in range(300):
            await bench.exchange()
        ours.append(time.process_time() - started)
        bench.actor.written.clear()
        bench.caller.written.clear()
        started = time.process_time()
        for _ in range(300):
            plain()
        loops.append(time.process_time() - started)
    ratio = min(ours) / min(loops)
    print(f"a warm request costs as much as {ratio:.2f} plain loops")
    assert ratio < MOST_LOOPS
