"""The processes that ``gateway.parent`` starts, from its side: workers, the holder of events sockets."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.child import PARENT_VARIABLE
from gateway.data_dir import DataLock
from gateway.settings import Settings

WORKER_COMMAND = (sys.executable, "-m", "gateway.worker")
_HOLDER_COMMAND = (sys.executable, "-m", "gateway.event_holder")

KILL_AFTER_SECS = 2.0
_HOLDER_PAUSE_SECS = 1.0
_MAX_UNREAD_BYTES = 64 * 1024
_SILENT_SECS = 4.0  # some words of those that workers say each second


def say(text: str) -> None:
    """One line for the person at the terminal."""
    print(f"greenroom: {text}", file=sys.stderr, flush=True)


class Kills:
    """The rising insistence with which one process is asked to end: SIGTERM, SIGQUIT, SIGKILL, each with a limit."""

    _NEXT = {signal.SIGTERM: signal.SIGQUIT, signal.SIGQUIT: signal.SIGKILL}

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._next: signal.Signals | None = None
        self._at = 0.0

    def ask(self, number: signal.Signals, limit_secs: float) -> None:
        """Send *number*; if the process lives after *limit_secs*, the next one."""
        self._process.send_signal(number)
        self._next = self._NEXT.get(number)
        self._at = time.monotonic() + limit_secs

    def plan(self, number: signal.Signals, limit_secs: float) -> None:
        """If the process lives after *limit_secs*, ask it by *number*."""
        self._next = number
        self._at = time.monotonic() + limit_secs

    def secs_left(self) -> float | None:
        """How long to wait at most for something to happen; None: as long as it takes."""
        return None if self._next is None else max(0.0, self._at - time.monotonic())

    def perform_due(self) -> None:
        """Go on to the next signal where the limit has passed."""
        if self._next is not None and time.monotonic() >= self._at:
            self.ask(self._next, KILL_AFTER_SECS)


@dataclass(slots=True, eq=False)
class Worker:
    """One worker. ``control`` carries lines both ways, see ``gateway.parent``."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    kills: Kills
    started_at: float = field(default_factory=time.monotonic)
    ready_at: float | None = None
    is_leaving: bool = False
    alive_at: float | None = None
    why: str = ""
    is_talking: bool = True
    _unread: bytes = b""

    @property
    def returncode(self) -> int | None:
        """Its exit code, -n for signal n; None while it lives."""
        return self.process.poll()

    def say(self, line: str) -> None:
        """Tell it something; one that has ended is told by its exit code."""
        with contextlib.suppress(OSError):
            self.control.sendall(f"{line}\n".encode())

    @property
    def secs_to_silence(self) -> float | None:
        """How long it may still say nothing before it counts as stuck, 0 where it does; None: it promised no word."""
        return None if self.alive_at is None else max(0.0, self.alive_at + _SILENT_SECS - time.monotonic())

    def hand_over(self) -> None:
        """Have it leave its place to its successor."""
        self.is_leaving = True
        self.say("hand over")

    def cover(self, lane: int, sockets: Sequence[socket.socket], tls_sockets: Sequence[socket.socket]) -> None:
        """Have it accept connections of another lane, too."""
        numbers = [sock.fileno() for sock in (*sockets, *tls_sockets)]
        with contextlib.suppress(OSError):
            socket.send_fds(self.control, [f"cover: {lane} {len(sockets)}\n".encode()], numbers)

    def uncover(self, lane: int) -> None:
        """That lane has a worker of its own again."""
        self.say(f"uncover: {lane}")

    def heard(self) -> list[str]:
        """The lines that it has said since the last call; never waits."""
        with contextlib.suppress(OSError):
            while chunk := self.control.recv(4096, socket.MSG_DONTWAIT):
                self._unread += chunk
            self.is_talking = False
        *lines, self._unread = self._unread.split(b"\n")
        self._unread = self._unread[:_MAX_UNREAD_BYTES]
        return [line.decode(errors="replace") for line in lines]

    def close(self) -> None:
        """It has ended."""
        self.control.close()


@dataclass(slots=True, kw_only=True)
class Starter:
    """What all processes of one server are started with."""

    settings: Settings
    lock: DataLock
    sockets: Sequence[Sequence[socket.socket]]  # of each lane
    command: Sequence[str]
    tls_sockets: Sequence[Sequence[socket.socket]]

    _rendezvous: socket.socket = field(init=False)
    _holder_side: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self._rendezvous, self._holder_side = socket.socketpair()
        for sock in (self._rendezvous, self._holder_side):
            sock.setblocking(False)

    def worker(self, *, is_successor: bool, lane: int = 0) -> Worker:
        """A new worker in this *lane*; a successor prepares itself and waits. Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undo:
            undo.enter_context(ours)
            numbers = [sock.fileno() for sock in self.sockets[lane]]
            tls_numbers = [sock.fileno() for sock in self.tls_sockets[lane]]
            told = [theirs.fileno(), self._rendezvous.fileno()]
            process = subprocess.Popen(
                [
                    *self.command,
                    *("--sockets", ",".join(map(str, numbers))),
                    *(["--tls-sockets", ",".join(map(str, tls_numbers))] if tls_numbers else []),
                    *("--control-fd", str(told[0]), "--rendezvous-fd", str(told[1])),
                    *(["--lane", str(lane)] if lane else []),
                    *(["--successor"] if is_successor else []),
                ],
                stdin=subprocess.PIPE,
                # The lock goes along: while a worker of a killed parent is still dying, nobody else takes the folder.
                pass_fds=[*numbers, *tls_numbers, *told, self.lock.descriptor],
                env=self._environment(),
                start_new_session=True,  # Ctrl-C reaches the parent alone
            )
            undo.pop_all()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended already: told by its exit code
            process.stdin.write(self.settings.model_dump_json().encode())
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return Worker(process, ours, Kills(process))

    def holder(self) -> subprocess.Popen[bytes]:
        """A new holder of the events sockets; it ends with its stdin. Raises OSError."""
        number = self._holder_side.fileno()
        return subprocess.Popen(
            [*_HOLDER_COMMAND, "--rendezvous-fd", str(number)],
            stdin=subprocess.PIPE,
            pass_fds=[number, self.lock.descriptor],
            env=self._environment(),
            start_new_session=True,
        )

    def close(self) -> None:
        """Everything has ended."""
        self._rendezvous.close()
        self._holder_side.close()

    def _environment(self) -> dict[str, str]:
        return os.environ | {PARENT_VARIABLE: f"{os.getpid()}:{self.lock.descriptor}"}


class HolderKeeper:
    """Keeps a holder running."""

    def __init__(self, starter: Starter) -> None:
        self._starter = starter
        self._process: subprocess.Popen[bytes] | None = None
        self._again_at: float | None = None
        self._is_told = False
        self._start()

    def secs_left(self) -> float | None:
        """Until the next one is due; None while one lives."""
        return None if self._again_at is None else max(0.0, self._again_at - time.monotonic())

    def look(self) -> None:
        """After a SIGCHLD, or when time has passed: start another where it has ended, after a pause."""
        if self._again_at is None:
            if self._process is None or self._process.poll() is None:
                return
            self._close_stdin()
            self._again_at = time.monotonic() + _HOLDER_PAUSE_SECS
        elif time.monotonic() >= self._again_at:
            self._start()

    def end(self) -> None:
        """End it: gently, then not."""
        if self._process is None:
            return
        self._close_stdin()
        try:
            self._process.wait(KILL_AFTER_SECS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        try:
            self._process, self._again_at, self._is_told = self._starter.holder(), None, False
        except OSError as error:
            if not self._is_told:
                say(f"the process that holds the events sockets of Actors can't be started yet: {error}")
            self._is_told = True
            self._again_at = time.monotonic() + _HOLDER_PAUSE_SECS

    def _close_stdin(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
