"""One lane, whose workers are what the test says: only the line to each is real, and time passes when it is told to."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from gateway import lane as lane_module
from gateway import serve_children
from gateway.lane import Lane
from gateway.serve_children import Kills, Worker
from gateway.settings import Settings


class Process:
    """A process as far as a lane knows it; ``told``: the signals that it got."""

    def __init__(self) -> None:
        self.returncode: int | None = None
        self.told: list[signal.Signals] = []

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        self.told.append(number)

    def kill(self) -> None:
        self.told.append(signal.SIGKILL)
        self.returncode = -signal.SIGKILL


@dataclass
class Made:
    """A worker that was started, and its own end of its line."""

    process: Process
    line: socket.socket
    is_successor: bool

    def says(self, line: str) -> None:
        self.line.sendall(f"{line}\n".encode())

    def heard(self) -> str:
        """All that it was told since."""
        with contextlib.suppress(BlockingIOError):
            return self.line.recv(4096, socket.MSG_DONTWAIT).decode()
        return ""


@dataclass
class World:
    """The parent's part and the starter's, of one lane: what it told and whom it started."""

    stack: contextlib.ExitStack
    settings: Settings
    now: float = 1000.0
    stops_asked: int = 0
    has_served: bool = False
    made: list[Made] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    turns: list[str | None] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    trouble: OSError | None = None

    def __post_init__(self) -> None:
        self.lane = Lane(number=0, name="", house=self, starter=cast(Any, self))

    def worker(self, *, is_successor: bool, lane: int = 0) -> Worker:
        assert lane == 0
        if self.trouble is not None:
            raise self.trouble
        ours, theirs = map(self.stack.enter_context, socket.socketpair())
        self.made.append(Made(Process(), theirs, is_successor))
        process = cast(Any, self.made[-1].process)
        return Worker(process, ours, Kills(process), started_at=self.now)

    def lane_serves(self) -> None:
        self.has_served = True

    def step(self, text: str) -> None:
        self.steps.append(text)

    def turn_is_over(self, problem: str | None) -> None:
        self.turns.append(problem)

    def lane_is_over(self, lane: Lane, code: int) -> None:
        assert lane is self.lane
        self.codes.append(code)

    def monotonic(self) -> float:
        return self.now

    def hears(self, made: Made, *lines: str) -> None:
        """That worker says *lines*, and the lane looks."""
        for line in lines:
            made.says(line)
        self.lane.look()

    def serve(self) -> Made:
        """The first worker, once it serves."""
        self.lane.start()
        self.hears(self.made[0], "ready")
        return self.made[0]

    def begin_turn(self) -> Made:
        """The successor, once it is prepared."""
        self.lane.begin_turn()
        self.hears(self.made[-1], "prepared")
        return self.made[-1]

    def pass_secs(self, secs: float) -> None:
        self.now += secs
        self.lane.perform_due()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        world = World(stack, Settings(data=tmp_path, shutdown_timeout_secs=30, drain_timeout_secs=300))
        for module in (lane_module, serve_children):
            monkeypatch.setattr(module, "time", world)
        yield world


def test_who_has_handed_over_has_the_time_of_a_drain(world: World) -> None:
    """Only then is it told to stop, and soon after killed."""
    old = world.serve()
    new = world.begin_turn()
    assert old.heard() == "hand over\n"
    world.hears(old, "handed over")
    assert new.heard() == "go\n"
    world.hears(new, "ready")
    assert world.turns == [None]
    world.pass_secs(300)
    assert old.process.told == []
    world.pass_secs(15)
    assert old.process.told == [signal.SIGTERM]


@pytest.mark.parametrize("code", [0, 130])
@pytest.mark.parametrize("says", [[], ["handed over"]], ids=["before it", "too late"])
def test_a_stop_amid_a_hand_over_starts_nobody(world: World, says: list[str], code: int) -> None:
    """The successor is killed; the end of the old worker, which may still have handed over, is that of the lane."""
    old = world.serve()
    new = world.begin_turn()
    world.stops_asked = 1
    world.lane.stop()
    assert world.turns == ["Greenroom is being stopped."]
    world.hears(old, *says)
    assert old.process.told == [signal.SIGTERM]
    assert new.process.returncode == -signal.SIGKILL
    old.process.returncode = code
    world.lane.look()
    assert world.codes == [code]
    assert world.lane.workers() == []
    assert len(world.made) == 2
