"""Live logs of another process's data folder: real folders, real HTTP servers; signals of one process between them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from autoscaler.log_service import log_routes
from gateway.live_logs import Logs
from gateway.log_proof import PROOF_HEADER, prove
from gateway.remote_logs import MAX_PART_BYTES, RemoteLogs, follow_elsewhere
from gateway.secret_box import SecretBox
from gateway.state.blobs import open_blobs
from gateway.state.ports import Blobs, StateUnavailable
from gateway.state.signals_memory import MemorySignals

pytestmark = pytest.mark.slow

BOX = SecretBox(b"a key for tests")
NOW = 1_800_000_000.0


class Autoscaler:
    """A process with a data folder of its own, as far as logs go; ``asked`` counts the requests that it got."""

    def __init__(self, name: str, folder: Path, blobs: Blobs, signals: MemorySignals) -> None:
        self.name = name
        self.logs = Logs(folder, blobs)
        self.asked = 0
        self.place = ""
        self._signals = signals

    async def announce(self, *, leads: bool) -> None:
        facts = {"logs": self.place, "leads": str(int(leads))}
        await self._signals.announce("autoscaler", self.name, facts, ttl_secs=60)

    @contextlib.asynccontextmanager
    async def serving(self, *, leads: bool = True, now: Callable[[], float] = lambda: NOW) -> AsyncIterator[None]:
        """While it lives; leaving it is a death: connections are cut, and what it announced stays."""
        async with serving(log_routes(self.logs, BOX, now=now), self._count) as port:
            self.place = f"127.0.0.1:{port}"
            await self.announce(leads=leads)
            yield

    def _count(self) -> None:
        self.asked += 1


@contextlib.asynccontextmanager
async def serving(routes: list[Route], count: Callable[[], None] = lambda: None) -> AsyncIterator[int]:
    """A real server; its port."""
    app = Starlette(routes=routes)

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        count()
        await app(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(counted, log_level="critical", lifespan="off", ws="none"))
    listening = socket.create_server(("127.0.0.1", 0))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server._serve([listening]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        yield listening.getsockname()[1]
        server.should_exit = server.force_exit = True
        while server.server_state.connections or not task.done():  # it accepts until it has seen that it should exit
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0.005)


class World:
    """A gateway with a data folder of its own, autoscalers, and the blobs that all share."""

    def __init__(self, folder: Path, remote: RemoteLogs, signals: MemorySignals) -> None:
        self.folder = folder
        self.blobs = open_blobs(folder / "blobs")
        self.signals = signals
        self.logs = Logs(folder / "gateway", self.blobs, elsewhere=remote)

    def autoscaler(self, name: str = "first", folder: str | None = None) -> Autoscaler:
        return Autoscaler(name, self.folder / (folder or name), self.blobs, self.signals)

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.logs.read("job")])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    signals = MemorySignals()
    async with RemoteLogs(signals, BOX, now=lambda: NOW) as remote:
        yield World(tmp_path, remote, signals)


class Follower:
    """Somebody who follows the log at the gateway; ``seen`` waits for a word of it."""

    def __init__(self, logs: Logs) -> None:
        self.has_ended = False
        self.log = b""
        self.finished = asyncio.Event()
        self._news = asyncio.Condition()
        self._logs = logs

    async def follow(self) -> None:
        async for chunk in self._logs.follow("job", lambda: self.has_ended):
            async with self._news:
                self.log += chunk
                self._news.notify_all()
        self.finished.set()

    async def seen(self, word: bytes) -> None:
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: word in self.log)

    @property
    def texts(self) -> list[str]:
        """The lines without their times."""
        return texts(self.log)


def texts(log: bytes) -> list[str]:
    return [line[25:] for line in log.decode().split("\n")[:-1]]


@contextlib.asynccontextmanager
async def following(world: World) -> AsyncIterator[Follower]:
    """A follower; leaving it waits until it has read all."""
    follower = Follower(world.logs)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(follower.follow())
        yield follower


async def test_a_log_is_followed_while_it_is_written(world: World) -> None:
    """From before its first line; the end of the job ends it, with the lines that came last, by way of the blob."""
    autoscaler = world.autoscaler()
    async with autoscaler.serving(), following(world) as follower:
        autoscaler.logs.append("job", "first")
        await follower.seen(b"first")
        autoscaler.logs.append("job", "second\nthird")
        await follower.seen(b"third")
        assert await world.read() == follower.log
        autoscaler.logs.append("job", "last")
        await autoscaler.logs.keep("job")
        follower.has_ended = True
    assert follower.texts == ["first", "second", "third", "last"]
    assert await world.read() == follower.log


async def test_what_is_read_of_a_long_log_is_whole(world: World) -> None:
    """Of more than one part, live and afterwards, when nobody needs to be asked."""
    autoscaler = world.autoscaler()
    autoscaler.logs.append("job", "\n".join(f"line {number} {'x' * 500}" for number in range(6000)))
    whole = autoscaler.logs.path("job").read_bytes()
    assert len(whole) > 3 * MAX_PART_BYTES
    async with autoscaler.serving():
        assert await world.read() == whole
        await autoscaler.logs.keep("job")
        assert await world.read() == whole
    assert await world.read() == whole


async def test_a_slow_reader_slows_the_reading(world: World) -> None:
    """While a part is not passed on, the next is not asked for."""
    autoscaler = world.autoscaler()
    autoscaler.logs.append("job", "\n".join("x" * 1000 for _ in range(4000)))
    async with autoscaler.serving():
        chunks = world.logs.read("job")
        assert len(await anext(chunks)) <= MAX_PART_BYTES
        asked = autoscaler.asked
        await asyncio.sleep(0.3)
        assert autoscaler.asked == asked == 1
        assert [chunk async for chunk in chunks]


class Chatty:
    """A log that has another line whenever it is asked for, until *last*."""

    def __init__(self, last: int = 1_000_000) -> None:
        self.asked = 0
        self._last = last
        self._log = b"2026-01-02T03:04:05.678Z line\n" * (2 * MAX_PART_BYTES // 30)

    @property
    def has_ended(self) -> bool:
        return self.asked >= self._last

    async def part(self, job_id: str, start: int, size: int, wait_secs: float) -> bytes | None:
        self.asked += 1
        await asyncio.sleep(0)
        if not self.has_ended:
            self._log += b"2026-01-02T03:04:05.678Z line\n"
        return self._log[start : start + MAX_PART_BYTES]


async def test_a_chatty_log_is_read_as_it_is_now(world: World) -> None:
    """Once the end was reached, whatever was added since."""
    log = Chatty()
    async with asyncio.timeout(10):
        read = [chunk async for chunk in follow_elsewhere(log, world.blobs, "job", lambda: True, is_patient=False)]
    assert len(b"".join(read)) > MAX_PART_BYTES
    assert log.asked <= 4


async def test_a_chatty_log_is_not_asked_for_all_the_time(world: World) -> None:
    """Its followers pause once they have caught up."""
    log, begun_at = Chatty(last=12), asyncio.get_running_loop().time()
    async for _ in follow_elsewhere(log, world.blobs, "job", lambda: log.has_ended, is_patient=True):
        pass
    assert asyncio.get_running_loop().time() - begun_at > 0.8


@pytest.mark.parametrize("folder", ["first", "second"], ids=["the same folder", "another machine's"])
async def test_the_leader_dies_amid_a_stream(world: World, folder: str) -> None:
    """
    The stream goes on at the next one, from where it was: no line twice and none left out, also where that one has
    written a file of its own, of what the engine kept, with lines of its own.
    """
    first, second = world.autoscaler(), world.autoscaler("second", folder)
    async with following(world) as follower:
        async with first.serving():
            first.logs.append("job", "one\ntwo")
            await follower.seen(b"two")
            with first.logs.path("job").open("ab") as file:
                file.write(b"2026-01-0")  # a line under way
            await follower.seen(b"two")
        if folder == "second":
            path = second.logs.path("job")
            path.write_bytes(b"2020-01-01T00:00:00.000Z ACTOR: taken over\n" + follower.log)
        else:
            path = first.logs.path("job")
            path.write_bytes(path.read_bytes().removesuffix(b"2026-01-0"))
        async with second.serving():
            await first.announce(leads=True)  # it is dead, and its announcement not over yet
            second.logs.append("job", "three")
            await follower.seen(b"three")
            second.logs.append("job", "four")
            await second.logs.keep("job")
            follower.has_ended = True
    assert follower.texts == ["one", "two", "three", "four"]


async def test_nobody_leads(world: World) -> None:
    """A live log can't be read, which is said; who follows it waits, and hears all once somebody leads."""
    with pytest.raises(StateUnavailable, match="no autoscaler leads"):
        await world.read()
    autoscaler = world.autoscaler()
    async with autoscaler.serving(leads=False), following(world) as follower:
        autoscaler.logs.append("job", "said while nobody led")
        with pytest.raises(StateUnavailable, match="no autoscaler leads"):
            await world.read()
        assert follower.log == b""
        await autoscaler.announce(leads=True)
        await follower.seen(b"said while nobody led")
        follower.has_ended = True
    assert follower.texts == ["said while nobody led"]


async def test_a_job_that_ended_while_nobody_could_be_asked(world: World) -> None:
    """Its blob is there: followers and readers have all of it at once."""
    autoscaler = world.autoscaler()
    async with following(world) as follower:
        async with autoscaler.serving():
            autoscaler.logs.append("job", "one")
            await follower.seen(b"one")
        autoscaler.logs.append("job", "two")
        await autoscaler.logs.keep("job")
        follower.has_ended = True
    assert follower.texts == ["one", "two"]
    assert texts(await world.read()) == ["one", "two"]


@pytest.mark.slow
async def test_a_log_that_is_lost_ends_with_what_there_is(world: World) -> None:
    """The machine is gone with the file, and there is no blob: the follower ends some seconds after the job."""
    autoscaler = world.autoscaler()
    async with following(world) as follower:
        async with autoscaler.serving():
            autoscaler.logs.append("job", "one")
            await follower.seen(b"one")
        follower.has_ended = True
    assert follower.texts == ["one"]


async def test_a_log_of_ones_own_folder_is_read_there(world: World) -> None:
    """Nobody is asked for what lies here, as on a machine where both share the folder."""
    world.logs.append("job", "here")
    assert texts(await world.read()) == ["here"]
    assert texts(b"".join([chunk async for chunk in world.logs.follow("job", lambda: True)])) == ["here"]


async def test_another_secret_key_is_refused_in_words(world: World) -> None:
    """Which of the two causes it has is for the person who reads it to find out."""
    async with world.autoscaler().serving(), RemoteLogs(world.signals, SecretBox(b"another"), now=lambda: NOW) as other:
        with pytest.raises(StateUnavailable, match="another secret key, or its clock"):
            await other.part("job", 0, 0, 0)


@pytest.mark.slow
async def test_many_follow_over_an_outage(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """More than a usual pool of connections holds: all hear all, and the outage is told in one line."""
    autoscaler = world.autoscaler()
    followers = [Follower(world.logs) for _ in range(150)]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for one in followers:
            group.create_task(one.follow())
        async with autoscaler.serving():
            autoscaler.logs.append("job", "one")
            for one in followers:
                await one.seen(b"one")
        await asyncio.sleep(1.5)  # each has asked again, in vain
        async with autoscaler.serving():
            autoscaler.logs.append("job", "two")
            for one in followers:
                await one.seen(b"two")
                one.has_ended = True
            for one in followers:
                await one.finished.wait()
    assert {tuple(one.texts) for one in followers} == {("one", "two")}
    assert 1 <= caplog.text.count("the log service at") <= 2


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        pytest.param({"leads": "1"}, "no autoscaler leads", id="no place"),
        pytest.param({"leads": "1", "logs": "user@127.0.0.1:1"}, "no autoscaler leads", id="no place but a URL's"),
        pytest.param({"leads": "1", "logs": "127.0.0.1:1/x?"}, "no autoscaler leads", id="with a path"),
        pytest.param({"leads": "1", "logs": "127.0.0.1:1"}, "127.0.0.1:1", id="nobody listens"),
    ],
)
async def test_what_is_announced_is_not_believed(world: World, facts: dict[str, str], why: str) -> None:
    """Only a host and a port are asked."""
    await world.signals.announce("autoscaler", "x", facts, ttl_secs=60)
    with pytest.raises(StateUnavailable, match=why):
        await world.read()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(lambda: Response(b"x" * (MAX_PART_BYTES + 1)), "more than it was asked for", id="too much"),
        pytest.param(lambda: Response(status_code=500), "status 500", id="an error"),
        pytest.param(
            lambda: Response(status_code=302, headers={"Location": "http://127.0.0.1/"}), "302", id="elsewhere"
        ),
    ],
)
async def test_a_service_that_answers_otherwise(world: World, answer: Callable[[], Response], why: str) -> None:
    """Its answer is bounded, never followed elsewhere, and never taken for a log."""

    async def serve(_request: Request) -> Response:
        return answer()

    async with serving([Route("/logs/{job}", serve)]) as port:
        await world.signals.announce("autoscaler", "x", {"leads": "1", "logs": f"127.0.0.1:{port}"}, ttl_secs=60)
        with pytest.raises(StateUnavailable, match=why):
            await world.read()


GOOD = "/logs/job?start=0&size=0&wait=0"


@pytest.mark.parametrize(
    ("target", "proof", "status"),
    [
        pytest.param(GOOD, prove(BOX, GOOD, NOW), 200, id="a proof"),
        pytest.param(GOOD, prove(BOX, GOOD, NOW - 60), 200, id="clocks a minute apart"),
        pytest.param(GOOD, prove(BOX, GOOD, NOW + 60), 200, id="the other way"),
        pytest.param(GOOD, prove(BOX, GOOD, NOW - 400), 401, id="an old proof"),
        pytest.param(GOOD, prove(BOX, GOOD, NOW + 400), 401, id="one of the future"),
        pytest.param(GOOD, prove(BOX, "/logs/other?start=0&size=0&wait=0", NOW), 401, id="of another log"),
        pytest.param(GOOD, prove(SecretBox(b"another"), GOOD, NOW), 401, id="of another key"),
        pytest.param(GOOD, prove(BOX, GOOD, NOW)[:-1], 401, id="cut"),
        pytest.param(GOOD, f"{int(NOW)}:{'é' * 32}", 401, id="no letters of a proof"),
        pytest.param(GOOD, "", 401, id="none"),
        pytest.param("/logs/other", None, 404, id="no such log"),
        pytest.param("/logs/job%2E%2E", None, 404, id="no id"),
        pytest.param("/logs/" + "a" * 65, None, 404, id="too long a name"),
        pytest.param("/logs/job?start=-1", None, 400, id="a negative start"),
        pytest.param("/logs/job?start=" + "9" * 16, None, 400, id="too large a start"),
        pytest.param("/logs/job?wait=nan", None, 400, id="no number of seconds"),
        pytest.param("/logs/job?size=1e3", None, 400, id="no number of bytes"),
        pytest.param("/logs/job?start=999", None, 200, id="beyond the end"),
    ],
)
async def test_who_may_ask_for_what(world: World, target: str, proof: str | None, status: int) -> None:
    """A proof is of one request, of our key and of about now; None here means a good one."""
    autoscaler = world.autoscaler()
    autoscaler.logs.append("job", "secret")
    async with autoscaler.serving(), httpx.AsyncClient(trust_env=False) as client:
        url = httpx.URL(f"http://{autoscaler.place}{target}")
        if proof is None:
            # The service checks the path as the server decodes it.
            path = url.path + (f"?{url.query.decode()}" if url.query else "")
            proof = prove(BOX, path, NOW)
        answer = await client.get(url, headers=[(PROOF_HEADER.encode(), proof.encode())])
    assert answer.status_code == status
    if status != 200:
        assert "secret" not in answer.text.replace("secret key", "")
        assert set(answer.json()["error"]) == {"type", "message"}


async def test_a_wait_ends_with_the_file(world: World) -> None:
    """Who waits for more hears at once that the log was moved."""
    autoscaler = world.autoscaler()
    autoscaler.logs.append("job", "one")
    size = autoscaler.logs.path("job").stat().st_size
    async with autoscaler.serving(), RemoteLogs(world.signals, BOX, now=lambda: NOW) as remote:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            waiting = group.create_task(remote.part("job", 0, size, 4))
            await _until(lambda: autoscaler.asked == 1)
            await autoscaler.logs.keep("job")
        assert waiting.result() is None


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.005)
