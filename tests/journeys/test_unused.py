"""What keeps an Actor awake and what does not, on both HTTP paths: health checkers, silent sockets, signs of life."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from journeys.greenroom import TOKEN, Greenroom, error_of, eventually
from websockets.exceptions import ConnectionClosed

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

IDLE_SECS = 3.0
POLL_SECS = 0.3  # so that even a stall of seconds of a busy machine lies below the timeout
CHECKER = {"User-Agent": "kube-probe/1.30"}
MAIN = """
import os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Stream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path in ("/comments", "/data"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            line = b": ping\\n\\n" if self.path == "/comments" else b"data: 1\\n\\n"
            while True:
                self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(line), line))
                self.wfile.flush()
                time.sleep(0.3)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments):
        pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Stream).serve_forever()
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["splice", "asgi"])
async def greenroom(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """One server for all of these tests, by each HTTP path."""
    settings = {"wind_down_grace_secs": 1, "tick_secs": 0.5, "proxy_protocol": request.param}
    async with Greenroom(tmp_path_factory.mktemp("unused") / "data", (), settings=settings) as server:
        yield server


async def _idle_thrice(greenroom: Greenroom, name: str) -> None:
    """Three times, one after the other, a run of another Actor is wound down as idle for as long."""
    actor = await greenroom.probe(f"{name}-clock", {"idleTimeoutSecs": IDLE_SECS})
    for _ in range(3):
        assert (await greenroom.call(f"{name}-clock")).status_code == 200
        await greenroom.ended((await greenroom.runs_of(actor))[-1]["id"])


@contextlib.asynccontextmanager
async def _checked(greenroom: Greenroom, name: str, path: str) -> AsyncIterator[list[httpx.Response]]:
    """Meanwhile a health checker polls the Actor; its answers."""
    answers: list[httpx.Response] = []

    async def poll() -> None:
        while True:
            answers.append(await greenroom.call(name, path, headers=CHECKER))
            await asyncio.sleep(POLL_SECS)  # its interval, which is the point

    async with asyncio.TaskGroup() as group:
        polling = group.create_task(poll())
        try:
            yield answers
        finally:
            polling.cancel()


# -- health checkers ---------------------------------------------------------------------------------------------------


async def test_a_polling_health_checker_keeps_an_actor_awake(greenroom: Greenroom) -> None:
    """Where nothing excludes it, each of its requests is use as any other."""
    actor = await greenroom.probe("checked", {"idleTimeoutSecs": IDLE_SECS})
    async with _checked(greenroom, "checked", "/count") as answers:
        await _idle_thrice(greenroom, "checked")
    assert {answer.status_code for answer in answers} == {200}
    (run,) = await greenroom.runs_of(actor)
    assert not run.get("finishedAt")


@pytest.mark.parametrize(
    ("name", "standby"),
    [
        pytest.param("excluded-agent", {"idleIgnoredUserAgents": ["kube-probe/"]}, id="by its User-Agent"),
        pytest.param("excluded-path", {"idleIgnoredPaths": ["/count"]}, id="by its path"),
    ],
)
async def test_an_excluded_health_checker_keeps_nobody_awake(
    greenroom: Greenroom, name: str, standby: dict[str, Any]
) -> None:
    """It is served while the Actor is awake, its run is wound down all the same, and then the checker wakes nobody."""
    actor = await greenroom.probe(name, {"idleTimeoutSecs": IDLE_SECS, **standby})
    assert (await greenroom.call(name)).status_code == 200
    (run,) = await greenroom.runs_of(actor)
    async with _checked(greenroom, name, "/count?deep=1") as answers:
        await eventually(lambda: answers, what="an answer")
        assert answers[0].json()["runId"] == run["id"]
        await greenroom.ended(run["id"])
        seen = len(answers)
        await eventually(lambda: len(answers) > seen + 2, what="more answers")
    assert error_of(answers[-1]) == (503, "standby-asleep")
    assert answers[-1].headers["retry-after"] == "60"
    assert {answer.status_code for answer in answers} == {200, 503}
    assert len(await greenroom.runs_of(actor)) == 1
    assert (await greenroom.call(name)).status_code == 200
    assert len(await greenroom.runs_of(actor)) == 2


async def test_an_excluded_health_checker_waits_with_the_others_for_a_start(greenroom: Greenroom) -> None:
    """While somebody else's request wakes the Actor, the checker is no worse off than that one."""
    gate = greenroom.data.parent / "waiting.gate"
    await greenroom.probe(
        "waiting",
        {"idleIgnoredPaths": ["/count"]},
        environmentVariables={"PROBE_START": f"file:{gate}"},
    )
    async with asyncio.TaskGroup() as group:
        waking = group.create_task(greenroom.call("waiting"))
        await eventually(lambda: _has_run(greenroom, "waiting"), what="a run")
        checking = group.create_task(greenroom.call("waiting", "/count"))
        await eventually(lambda: _held(greenroom, 2), what="two that wait")
        gate.touch()
    assert (waking.result().status_code, checking.result().status_code) == (200, 200)


async def _has_run(greenroom: Greenroom, name: str) -> bool:
    return bool(await greenroom.runs_of({"id": f"~{name}"}))


async def _held(greenroom: Greenroom, count: int) -> bool:
    return await greenroom.metric("greenroom_held_requests") == count


# -- silence -----------------------------------------------------------------------------------------------------------


async def test_a_silent_websocket_lives_three_idle_timeouts(greenroom: Greenroom) -> None:
    """Without a limit to silence an open socket is use for as long as it is open, and then none."""
    actor = await greenroom.probe("silent", {"idleTimeoutSecs": IDLE_SECS})
    async with greenroom.websocket("silent", ping_interval=None) as socket:
        await _idle_thrice(greenroom, "silent")
        await socket.send("still there")
        assert await socket.recv() == "still there"
    (run,) = await greenroom.runs_of(actor)
    assert (await greenroom.ended(run["id"]))["status"] == "SUCCEEDED"


async def test_with_a_limit_a_socket_that_only_pings_is_closed_in_order_and_its_run_wound_down(
    greenroom: Greenroom,
) -> None:
    """Pings and pongs are no use: 1001 to both ends, which are still there to hear it, and a run that ends well."""
    standby = {"idleTimeoutSecs": 1, "streamSilenceTimeoutSecs": IDLE_SECS}
    actor = await greenroom.probe("pinging", standby)
    async with greenroom.websocket("pinging", ping_interval=0.3, ping_timeout=None) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    (run,) = await greenroom.runs_of(actor)
    ended = await greenroom.ended(run["id"])
    assert ended["status"] == "SUCCEEDED"
    assert "the caller closed with 1001" in await greenroom.log_of(run["id"])


async def test_with_a_limit_a_socket_that_speaks_keeps_its_run(greenroom: Greenroom) -> None:
    """Each message, either way, begins the silence anew."""
    standby = {"idleTimeoutSecs": 1, "streamSilenceTimeoutSecs": IDLE_SECS}
    actor = await greenroom.probe("speaking", standby)
    async with greenroom.websocket("speaking", ping_interval=None) as socket, asyncio.TaskGroup() as group:

        async def speak() -> None:
            while True:
                await socket.send("again")
                assert await socket.recv() == "again"
                await asyncio.sleep(POLL_SECS)

        speaking = group.create_task(speak())
        await _idle_thrice(greenroom, "speaking")
        speaking.cancel()
    (run,) = await greenroom.runs_of(actor)
    assert not run.get("finishedAt")


@pytest.mark.parametrize(
    ("path", "ends"),
    [pytest.param("/comments", True, id="signs of life"), pytest.param("/data", False, id="data")],
)
async def test_with_a_limit_an_event_stream_is_use_as_long_as_it_says_something(
    greenroom: Greenroom, path: str, ends: bool
) -> None:
    """Comment lines alone are no use: the stream ends, and not as if it were whole, and its run is wound down."""
    name = f"events{path.replace('/', '-')}"
    standby = {"idleTimeoutSecs": 1, "streamSilenceTimeoutSecs": IDLE_SECS}
    actor = await greenroom.probe(name, standby, main=MAIN)
    headers = f"Host: {greenroom.host(name)}\r\nAuthorization: Bearer {TOKEN}\r\n"
    async with asyncio.TaskGroup() as group:
        stream = group.create_task(greenroom.raw(f"GET {path} HTTP/1.1\r\n{headers}\r\n"))
        if ends:
            answer = await stream
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b": ping" in answer
            assert not answer.endswith(b"0\r\n\r\n")
            (run,) = await greenroom.runs_of(actor)
            assert (await greenroom.ended(run["id"]))["status"] == "SUCCEEDED"
        else:
            await _idle_thrice(greenroom, name)
            (run,) = await greenroom.runs_of(actor)
            assert not run.get("finishedAt")
            stream.cancel()
    assert "internal error" not in greenroom.log
