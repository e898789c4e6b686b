"""How a worker leaves its place: on a loop whose time passes at once, with a server and a gateway that only note."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from quick_loop import at_once

from gateway.proxy.open_sockets import OpenSockets
from gateway.stop_signals import StopSignals
from gateway.worker_ending import let_waiters_in, say_goodbye, until_served

HAND_OVER_SECS = 60.0  # what the parent allows


@dataclass
class Worker:
    """What of a worker is asked, and when it was told what; ``waits`` tells by the time whether a request does."""

    waits: Callable[[float], bool]
    stop: StopSignals = field(default_factory=StopSignals)
    told: dict[str, float] = field(default_factory=dict)

    async def let_waiters_in(self) -> None:
        desk = _Desk(self)
        gateway = SimpleNamespace(
            desk=desk, splicing=SimpleNamespace(is_deciding=False), admission=SimpleNamespace(asking=0)
        )
        server = SimpleNamespace(say_last=lambda: self.note("last"), stop_accepting=self._stop_accepting)
        await let_waiters_in(cast(Any, gateway), cast(Any, server), [], self.stop)
        self.note("end")

    async def _stop_accepting(self, _sockets: object, _limit_secs: float) -> None:
        self.note("closed")

    def note(self, what: str) -> None:
        self.told[what] = asyncio.get_running_loop().time()


class _Desk:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    @property
    def held(self) -> int:
        return int(self._worker.waits(asyncio.get_running_loop().time()))

    def refuse_all(self, _error: Exception) -> None:
        self._worker.note("refused")


def test_a_wait_that_lasts_hardly_stops_accepting() -> None:
    """The run may need a new connection to begin; nobody else accepts meanwhile, so that the gap is two seconds."""
    worker = Worker(lambda _: True)
    at_once(worker.let_waiters_in())
    assert worker.told["closed"] - worker.told["last"] > 29
    assert worker.told["refused"] - worker.told["closed"] <= 3
    assert worker.told["end"] < HAND_OVER_SECS - 20  # which it has for letting go of its runs


def test_sockets_are_left_when_the_last_waiter_is_in() -> None:
    """Not before, and not much later."""
    worker = Worker(lambda now: now < 25)
    at_once(worker.let_waiters_in())
    assert 25 <= worker.told["closed"] < 25.1
    assert worker.told["end"] < 25.2


@pytest.mark.parametrize("at", [0.5, 20, 31.5], ids=["at its beginning", "while it accepts", "when it does not"])
def test_a_stop_amid_a_hand_over_waits_for_nobody(at: float) -> None:
    """What is left is that of a stop, which tells those who wait and ends the runs."""
    worker = Worker(lambda _: True)

    async def main() -> None:
        asyncio.get_running_loop().call_later(at, worker.stop.drain.set)
        await worker.let_waiters_in()

    at_once(main())
    assert worker.told["end"] == pytest.approx(at, abs=0.2)


async def served_until(stops: dict[float, Callable[[StopSignals], None]], answered: float, *, is_deaf: bool) -> float:
    """How long a worker that has handed over, and has 30 s to stop, waits for the answer that is due at *answered*."""
    loop, stop = asyncio.get_running_loop(), StopSignals()
    server = SimpleNamespace(force_exit=False)

    async def serve() -> None:
        while loop.time() < answered and (is_deaf or not server.force_exit):  # noqa: ASYNC110 - as uvicorn does
            await asyncio.sleep(0.1)

    for at, tell in stops.items():
        loop.call_later(at, tell, stop)
    async with asyncio.TaskGroup() as group:
        await until_served(group.create_task(serve()), cast(Any, server), stop, 30)
    return loop.time()


@pytest.mark.parametrize("is_deaf", [False, True], ids=["ends when told", "waits for its connections"])
@pytest.mark.parametrize(
    ("stops", "answered", "expected"),
    [
        pytest.param({}, 290, 290, id="nobody stops: as long as it takes"),
        pytest.param({10: StopSignals._term}, 290, 40, id="a stop: its time"),
        pytest.param({10: StopSignals._term}, 20, 20, id="answered within that"),
        pytest.param({10: StopSignals._term, 12: StopSignals._term}, 290, 12, id="a second stop: at once"),
        pytest.param({10: StopSignals._quit}, 290, 10, id="a stop at once"),
    ],
)
def test_a_worker_that_has_handed_over_is_not_cut_but_by_a_stop(
    stops: dict[float, Callable[[StopSignals], None]], answered: float, expected: float, is_deaf: bool
) -> None:
    """It has the time of a drain, of which a stop leaves only that of a stop."""
    found: list[float] = []

    async def main() -> None:
        found.append(await served_until(stops, answered, is_deaf=is_deaf))

    at_once(main())
    assert found[0] == pytest.approx(expected, abs=1.5)


@pytest.mark.parametrize(
    ("leaves_after_secs", "ends_at"),
    [pytest.param(0.3, 0.3, id="who leaves"), pytest.param(None, 1.0, id="who does not")],
)
def test_open_sockets_hear_why_before_anybody_else_closes_them(leaves_after_secs: float | None, ends_at: float) -> None:
    """For a moment: whoever does not leave upon it holds nobody up."""
    sockets, heard = OpenSockets(), list[str]()

    def closing(_code: int, reason: str) -> None:
        heard.append(reason)
        if leaves_after_secs is not None:
            asyncio.get_running_loop().call_later(leaves_after_secs, sockets.discard, "run", closing)

    async def leave() -> None:
        gateway = SimpleNamespace(
            sockets=sockets, stop_taking=lambda is_reload: sockets.close(code=1012 if is_reload else 1001)
        )
        await say_goodbye(cast(Any, gateway), StopSignals(), is_reload=True)
        assert asyncio.get_running_loop().time() == pytest.approx(ends_at, abs=0.1)

    sockets.add("run", closing)
    at_once(leave())
    assert heard == ["restarting"]
