"""Waiting for the end of a job, told by signals, and also where these are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis_server import running
from state.redis.waiting import until

from gateway.api.waiting import LOOK_AGAIN_SECS, until_ended
from gateway.core.lifecycle import RunStatus
from gateway.state.ports import Changed, Signals, StateUnavailable
from gateway.state.signals_memory import MemorySignals
from gateway.state.signals_opening import open_signals


@dataclass
class Job:
    """One that ends when told."""

    id: str = "job"
    status: RunStatus = RunStatus.RUNNING
    looks: int = 0

    async def read(self) -> Job:
        self.looks += 1
        return self


async def _ended_after(job: Job, signals: Signals, tell: Callable[[], Awaitable[None]], looks: int) -> float:
    """How long the end of *job* took to be noticed, which came after so many looks."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(until_ended(signals, job.read, "run", "job", 60))
        await until(lambda: job.looks >= looks)
        began = loop.time()
        job.status = RunStatus.SUCCEEDED
        await tell()
    assert waiting.result() is job
    return loop.time() - began


async def test_an_end_is_told() -> None:
    """One look at the beginning, one when it is told; what is told of others is none."""
    job, signals = Job(), MemorySignals()

    async def tell() -> None:
        await signals.changed(Changed(kind="run", id="another"))
        await signals.changed(Changed(kind="run", id="job"))

    assert await _ended_after(job, signals, tell, 1) < LOOK_AGAIN_SECS / 2
    assert job.looks == 2


@pytest.mark.slow
async def test_an_end_is_found_where_nobody_tells(tmp_path: Path) -> None:
    """When signals are lost during the wait, and when they are gone at its beginning: never an error, but a look."""

    async def say_nothing() -> None: ...

    with running(tmp_path / "redis") as server:
        async with open_signals(server.url()) as signals:
            async with signals.watch_changes():
                pass

            async def lose() -> None:
                server.kill()

            assert await _ended_after(Job(), signals, lose, 1) < LOOK_AGAIN_SECS
            assert await _ended_after(Job(), signals, say_nothing, 2) < 2 * LOOK_AGAIN_SECS


async def test_only_reading_fails() -> None:
    """Where the job itself can't be read, there is nothing to wait for."""

    async def read() -> Job:
        raise StateUnavailable("the disk is full")

    with pytest.raises(StateUnavailable, match="the disk is full"):
        await until_ended(MemorySignals(), read, "run", "job", 60)


async def test_it_ends_by_its_time() -> None:
    """With the job as it is; at once for a wait of nothing."""
    job = Job()
    assert (await until_ended(MemorySignals(), job.read, "run", "job", 0)).status is RunStatus.RUNNING
    assert job.looks == 1
    assert (await until_ended(MemorySignals(), job.read, "run", "job", 0.05)).status is RunStatus.RUNNING
    assert job.looks == 3
