"""Workers that ask each other for their figures, by way of a real holder."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.event_holder import Holder
from gateway.holder_link import Link, open_link
from gateway.holder_messages import Figures
from gateway.worker_figures import WorkerFigures


class House:
    """A holder, and workers that are linked to it."""

    def __init__(self, holder: Holder, rendezvous: socket.socket, stack: contextlib.ExitStack) -> None:
        self._holder = holder
        self._rendezvous = rendezvous
        self._stack = stack
        self._links = 0

    async def worker(self, lane: int, requests: int, *, workers: int, serves: bool = True) -> WorkerFigures:
        """One in this lane that has counted so many requests."""
        text = f"# HELP requests Of all kinds.\n# TYPE requests counter\nrequests {requests}\n".encode()
        figures = WorkerFigures(
            own_id=f"worker-{lane}-{requests}",
            lane=lane,
            workers=workers,
            render=lambda: text,
            send=lambda message: link.send(message),
            serves=serves,
        )
        link = Link(open_link(self._rendezvous), lambda _link, message, _: figures.hear(message), lambda _: None)
        self._stack.callback(link.close)
        self._links += 1
        async with asyncio.timeout(10):
            while len(self._holder._links) < self._links:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.005)
        return figures


@pytest.fixture
async def house() -> AsyncIterator[House]:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    with ours, theirs:
        async with asyncio.TaskGroup() as group:
            holder = Holder(theirs, group)
            holder.open()
            with contextlib.ExitStack() as stack:
                yield House(holder, ours, stack)
            await holder.close()


def requests_of(text: bytes) -> dict[str, float]:
    """What each worker has counted."""
    (family,) = text_string_to_metric_families(text.decode())
    return {sample.labels["worker"]: sample.value for sample in family.samples}


async def test_each_worker_tells_of_all(house: House) -> None:
    """Whichever is asked; also when both are at the same time."""
    workers = [await house.worker(lane, lane + 10, workers=3) for lane in range(3)]
    async with asyncio.TaskGroup() as group:
        told = [group.create_task(one.of_all()) for one in (*workers, *workers)]
    assert [requests_of(one.result()) for one in told] == [{"0": 10, "1": 11, "2": 12}] * 6


async def test_one_worker_alone_has_no_label(house: House) -> None:
    """Nobody is asked, and nothing waited for."""
    assert b"\nrequests 7\n" in await (await house.worker(0, 7, workers=1)).of_all()


async def test_who_does_not_serve_yet_or_any_more_says_nothing(house: House) -> None:
    """The lane's figures are those of the worker that serves there."""
    asked = await house.worker(0, 10, workers=2)
    await house.worker(1, 1, workers=2, serves=False)
    await house.worker(1, 11, workers=2)
    assert requests_of(await asked.of_all()) == {"0": 10, "1": 11}


async def test_who_does_not_answer_is_left_out(house: House) -> None:
    """Soon, and without disturbing the others; a late answer goes nowhere."""
    asked, _ = await house.worker(0, 10, workers=3), await house.worker(1, 11, workers=3)
    began = time.monotonic()
    assert requests_of(await asked.of_all()) == {"0": 10, "1": 11}
    assert time.monotonic() - began < 10
    asked.hear(Figures("worker-0-10/1", 2, "late"))
    assert requests_of(await asked.of_all()) == {"0": 10, "1": 11}


async def test_without_a_holder_a_worker_tells_of_itself() -> None:
    """At once."""
    alone = WorkerFigures(
        own_id="x", lane=1, workers=2, render=lambda: b"# TYPE requests counter\nrequests 5\n", send=lambda _: False
    )
    assert requests_of(await alone.of_all()) == {"1": 5}
