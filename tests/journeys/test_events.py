"""The events socket of a run, held by a client that never reconnects, outlives whatever happens to workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets
from journeys.greenroom import Greenroom, actor_folder, eventually, holders_of, workers_of

pytestmark = pytest.mark.slow  # each starts servers of its own

# It does what it is told by the test alone: the events socket is the test's.
WAITS = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: None)
print("events", os.environ["ACTOR_EVENTS_WEBSOCKET_URL"], flush=True)
while not os.path.exists(os.environ["HOME"] + "/end"):
    time.sleep(0.02)
"""


class Listener:
    """All that one socket, opened once, has heard."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    async def listen(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosedError):  # its code tells
            async for text in self.socket:
                self.events.append(json.loads(text))

    def names(self) -> list[str]:
        """Of everything but what is told each second."""
        return [event["name"] for event in self.events if event["name"] not in ("systemInfo", "cpuInfo")]

    async def hears_more(self) -> None:
        """Until another measurement of load has come."""
        count = len(self.events)
        await eventually(lambda: len(self.events) > count, within_secs=20, what="another frame")


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Listener]:
    """As the JavaScript SDK does: connect once."""
    async with websockets.connect(url, proxy=None) as socket:
        listener = Listener(socket)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(listener.listen())
            yield listener
            task.cancel()


@asynccontextmanager
async def run_of(greenroom: Greenroom) -> AsyncIterator[tuple[str, str]]:
    """A batch run and the address of its events."""
    run = await greenroom.data_of("POST", "/actors/local~waits/runs")

    async def url() -> str | None:
        _, _, rest = (await greenroom.log_of(run["id"])).partition("events ws")
        return "ws" + rest.split()[0] if "\n" in rest else None

    yield run["id"], await eventually(url, what="the address of its events")


@pytest.fixture
async def greenroom(tmp_path: Path) -> AsyncIterator[Greenroom]:
    """With the Actor that waits."""
    folder = actor_folder(tmp_path / "actors", "waits", main=WAITS, usesStandbyMode=False)
    async with Greenroom(tmp_path / "data", (folder,), settings={"abort_grace_secs": 30}) as running:
        yield running


def end(greenroom: Greenroom, run_id: str) -> None:
    """Let the run's program end by itself."""
    (greenroom.data / "process" / "runs" / run_id / "home" / "end").touch()


async def crash_worker(greenroom: Greenroom) -> None:
    """kill -9 of the worker alone; returns when the next one serves."""
    assert greenroom.process is not None
    pid = greenroom.process.pid
    count = greenroom.log.count("the new worker serves")
    await eventually(lambda: len(workers_of(pid)) == 1, within_secs=20, what="the end of the worker before")
    (worker,) = workers_of(pid)
    os.kill(worker, signal.SIGKILL)
    await eventually(lambda: greenroom.log.count("the new worker serves") > count, within_secs=20)


async def test_a_socket_hears_on_over_reload_and_crash_and_is_told_once(greenroom: Greenroom) -> None:
    """
    Frames come before and after a reload and the death of the worker; 'aborting' after both comes once, also where the
    worker is replaced while the abort is under way; the end of the run closes with 1000.
    """
    async with run_of(greenroom) as (run_id, url), listening(url) as listener:
        await listener.hears_more()
        await greenroom.command("reload")
        await listener.hears_more()
        await crash_worker(greenroom)
        await listener.hears_more()
        await greenroom.data_of("POST", f"/actor-runs/{run_id}/abort", params={"gracefully": "1"})
        await eventually(lambda: listener.names() == ["aborting", "persistState"], what="the abort's frames")
        await greenroom.command("reload")
        await listener.hears_more()
        end(greenroom, run_id)
        await listener.socket.wait_closed()
        assert listener.socket.close_code == 1000
        assert listener.names() == ["aborting", "persistState"]
        assert (await greenroom.ended(run_id))["status"] == "ABORTED"


async def test_what_is_pending_is_told_to_who_connects_later(greenroom: Greenroom) -> None:
    """A socket opened during an abort hears of it at once; the one that has heard of it doesn't hear it again."""
    async with run_of(greenroom) as (run_id, url), listening(url) as first:
        await first.hears_more()
        await greenroom.data_of("POST", f"/actor-runs/{run_id}/abort", params={"gracefully": "1"})
        await eventually(lambda: first.names() == ["aborting", "persistState"])
        async with listening(url) as second:
            await eventually(lambda: second.names() == ["aborting", "persistState"])
            await first.hears_more()
            assert first.names() == ["aborting", "persistState"]
        end(greenroom, run_id)


async def test_what_nobody_was_there_to_tell_is_told_by_the_next_worker(greenroom: Greenroom) -> None:
    """A run that ends while there is no worker: the socket is closed with 1000 when the next one has found that out."""
    assert greenroom.process is not None
    async with run_of(greenroom) as (run_id, url), listening(url) as listener:
        await listener.hears_more()
        (worker,) = workers_of(greenroom.process.pid)
        os.kill(worker, signal.SIGKILL)
        end(greenroom, run_id)
        await listener.socket.wait_closed()
        assert listener.socket.close_code == 1000
        assert (await greenroom.ended(run_id))["status"] == "SUCCEEDED"


async def test_who_may_not_listen_is_accepted_and_closed_with_1008(greenroom: Greenroom) -> None:
    """A wrong secret, a run that has ended, and more sockets than a run may have; the others go on."""
    async with run_of(greenroom) as (run_id, url):
        async with websockets.connect(url[:-1] + ("A" if url[-1] != "A" else "B"), proxy=None) as socket:
            await socket.wait_closed()
            assert socket.close_code == 1008
        async with listening(url) as first:
            others = [await websockets.connect(url, proxy=None) for _ in range(9)]
            async with websockets.connect(url, proxy=None) as socket:
                await socket.wait_closed()
                assert socket.close_code == 1008
            await first.hears_more()
            for other in others:
                await other.close()
            end(greenroom, run_id)
            await first.socket.wait_closed()
        await greenroom.ended(run_id)
        async with websockets.connect(url, proxy=None) as socket:
            await socket.wait_closed()
            assert socket.close_code == 1008


async def test_without_its_holder_the_worker_serves_the_sockets_itself(greenroom: Greenroom) -> None:
    """
    Its sockets are lost with it; who connects before there is another one is served, but for the moment in which nobody
    has noticed; the next holder takes up its work.
    """
    assert greenroom.process is not None
    async with run_of(greenroom) as (run_id, url):
        (holder,) = holders_of(greenroom.process.pid)
        async with listening(url) as lost:
            await lost.hears_more()
            os.kill(holder, signal.SIGKILL)
            await lost.socket.wait_closed()
            assert lost.socket.close_code == 1006

        async def hears_at_once() -> bool:
            try:
                async with listening(url) as at_once:
                    await at_once.hears_more()
            except (OSError, EOFError, websockets.WebSocketException):
                return False
            return True

        await eventually(hears_at_once, what="a socket again")
        await eventually(lambda: holders_of(greenroom.process.pid) not in ([], [holder]), what="another holder")
        async with listening(url) as later:
            await later.hears_more()
        end(greenroom, run_id)
        await greenroom.ended(run_id)
