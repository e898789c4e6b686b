"""One lane, whose workers are what the test says: only the line to each is real, and time passes when it is told to."""

from __future__ import annotations

import contextlib
import io
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from gateway import lane as lane_module
from gateway import serve_children
from gateway.data_dir import take_lock
from gateway.lane import Lane
from gateway.serve_children import HolderKeeper, Kills, Starter, Worker
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


class HolderProcess:
    """A holder, which ends when its stdin does."""

    def __init__(self) -> None:
        self.stdin = io.BytesIO()

    def poll(self) -> int | None:
        return 0 if self.stdin.closed else None

    def wait(self, _secs: float) -> None:
        assert self.stdin.closed


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
    holders: list[HolderProcess] = field(default_factory=list)
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

    def holder(self) -> HolderProcess:
        if self.trouble is not None:
            raise self.trouble
        self.holders.append(HolderProcess())
        return self.holders[-1]

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


def test_an_old_worker_that_does_not_hand_over_is_killed(world: World) -> None:
    """It may have left its sockets already; its successor, which is prepared, serves them."""
    old = world.serve()
    new = world.begin_turn()
    world.pass_secs(59)
    assert old.process.told == []
    world.pass_secs(1)
    assert old.process.returncode == -signal.SIGKILL
    world.lane.look()
    assert new.heard() == "go\n"
    world.hears(new, "ready")
    assert world.turns == [None]
    assert world.lane.serves
    assert len(world.lane.workers()) == 1


def test_a_successor_that_is_not_prepared_in_time_is_killed(world: World) -> None:
    """Nothing has been handed over to it: the old worker goes on."""
    old = world.serve()
    world.lane.begin_turn()
    world.pass_secs(300)
    assert world.turns == ["Its preparation took too long."]
    world.lane.look()
    assert world.made[1].process.returncode == -signal.SIGKILL
    assert old.heard() == ""
    assert world.lane.serves
    assert len(world.lane.workers()) == 1


MISSING = FileNotFoundError(2, "No such file or directory", "python")


def test_a_reload_that_can_start_nobody_fails(world: World) -> None:
    """With the reason; the old worker goes on, and the next reload works."""
    old = world.serve()
    world.trouble = MISSING
    world.lane.begin_turn()
    assert world.turns == ["no worker can be started: [Errno 2] No such file or directory: 'python'"]
    assert world.lane.serves
    world.trouble = None
    world.hears(old, "alive")
    world.begin_turn()
    assert old.heard() == "hand over\n"


def test_an_empty_lane_tries_again_where_nobody_can_be_started(world: World) -> None:
    """After pauses that grow; a reload meanwhile tries at once, and tells that it failed."""
    old = world.serve()
    old.process.returncode = 3
    world.lane.look()
    world.trouble = BlockingIOError(11, "Resource temporarily unavailable")
    world.pass_secs(1)
    assert world.lane.secs_left() == 2
    world.lane.begin_turn()
    assert world.turns == ["no worker can be started: [Errno 11] Resource temporarily unavailable"]
    assert world.lane.secs_left() == 4
    world.trouble = None
    world.pass_secs(4)
    world.hears(world.made[-1], "ready")
    assert world.lane.serves
    assert world.codes == []


def test_a_first_worker_that_cannot_be_started_ends_all(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, as everything else that keeps a server from serving for the first time."""
    world.trouble = MISSING
    world.lane.start()
    assert world.codes == [1]
    assert capsys.readouterr().err == (
        "greenroom: no worker can be started: [Errno 2] No such file or directory: 'python'\n"
    )


def test_a_holder_that_cannot_be_started_is_tried_again(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Each second, and told once; an end before that has nothing to end."""
    world.trouble = MISSING
    keeper = HolderKeeper(cast(Any, world))
    for _ in range(3):
        assert keeper.secs_left() == 1
        world.now += 1
        keeper.look()
    assert capsys.readouterr().err.count("\n") == 1
    keeper.end()
    world.trouble, world.now = None, world.now + 1
    keeper.look()
    assert keeper.secs_left() is None
    keeper.end()
    assert [one.stdin.closed for one in world.holders] == [True]


def open_files() -> set[str]:
    """The descriptors of this process."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_a_worker_that_cannot_be_started_leaves_nothing_open(tmp_path: Path) -> None:
    """Else tries that fail for want of descriptors would take the last ones."""
    lock = take_lock(tmp_path)
    starter = Starter(
        settings=Settings(data=tmp_path),
        lock=lock,
        sockets=[[]],
        tls_sockets=[[]],
        command=[str(tmp_path / "missing")],
    )
    before = open_files()
    with pytest.raises(FileNotFoundError) as told:
        starter.worker(is_successor=True)
    assert open_files() <= before
    assert "missing" in str(told.value)
    starter.close()
    lock.release()
