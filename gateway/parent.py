"""
The small parent process of ``greenroom serve`` and ``gateway``: holds the data folder's lock and the listening sockets.

All else happens in its workers (``python -m gateway.worker``), so that connections queue in the sockets while a worker
is replaced. What the two agree on::

    argv        --sockets 3,4 --control-fd 5 --rendezvous-fd 6     descriptors that the worker inherits
                --tls-sockets 7,8                                  those that speak TLS, where there are any
    stdin       the settings as JSON, so that no token ever stands in a command line
    control-fd  lines both ways: the worker says "ready" once it serves, "refused: why" where it can't
    signals     SIGTERM: drain and stop, exit code 0; SIGQUIT or a second SIGTERM: stop at once

Each of several workers has a lane of its own (``gateway.lane``; ``--lane 1`` for the second, none for the first) with
sockets of its own, over which the system spreads connections. While a lane has no worker that serves, or one that is
stuck, that of another lane covers it, so that nobody waits in its queue::

    control-fd  the parent says "cover: 1 2" with the descriptors of lane 1, the first 2 of which don't speak TLS, and
                "uncover: 1"; the worker says "alive" each second

The first lane is filled alone, since its worker makes what is made once.

A reload (SIGUSR1) starts a successor beside the worker that serves, lane after lane; the first that fails ends it::

    successor   --successor in argv; says "prepared" when all is done that needs no lead, then waits for "go"
    old worker  is told "hand over": stops accepting, lets go of its runs, says "handed over", finishes what it has

The events sockets of Actors outlive workers in a process of their own, ``gateway.event_holder``. The parent imports
neither stores nor servers: it must not be the part that fails.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from gateway.data_dir import DataLock, make_data_dir, take_lock
from gateway.lane import STOPPED_AT_ONCE as STOPPED_AT_ONCE
from gateway.lane import Lane
from gateway.listening import listen_in_lanes
from gateway.reload_status import ReloadStatus, read_status, write_status
from gateway.serve_children import WORKER_COMMAND, HolderKeeper, Starter, Worker, say
from gateway.settings import Settings
from gateway.urls import Urls


def serve(
    settings: Settings,
    *,
    worker_command: Sequence[str] = WORKER_COMMAND,
    workers: int = 1,
    take_lock: Callable[[Path], DataLock] = take_lock,
) -> int:
    """
    Hold lock and sockets and keep *workers* running until told to stop; the exit code of ``greenroom serve``.

    Must be called in the main thread: it takes over SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGCHLD. Raises Refused.
    """
    make_data_dir(settings.data)
    lock = take_lock(settings.data)
    try:
        sockets = listen_in_lanes(workers, settings.host, settings.port, settings.run_host)
        tls_sockets = _listen_for_tls(settings, workers)
        port = sockets[0][0].getsockname()[1]
        urls = Urls(
            scheme=settings.public_scheme,
            domain=settings.domain,
            port=settings.public_port or port,
            local_port=port,
        )
        with _Wakeups() as wakeups:
            lock.describe(os.getpid(), urls.local)
            starter = Starter(
                settings=settings, lock=lock, sockets=sockets, tls_sockets=tls_sockets, command=worker_command
            )
            return _Parent(starter, wakeups, workers).run()
    finally:
        lock.release()


def _listen_for_tls(settings: Settings, lanes: int) -> list[list[socket.socket]]:
    if settings.tls_port is None:
        return [[] for _ in range(lanes)]
    return listen_in_lanes(lanes, settings.host, settings.tls_port, given_by="--set tls_port=N")


class _Wakeups:
    """Turns signals into bytes of a socket, so that one wait serves for signals, workers and time."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._old: dict[int, object] = {}

    def __enter__(self) -> Self:
        for sock in (self._reader, self._writer):
            sock.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # SIGINT is taken even where a shell set it to "ignore", as it does for background jobs: `kill -INT` must work.
        # SIGHUP is left ignored under nohup.
        wanted = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            wanted.append(signal.SIGHUP)
        for number in wanted:
            self._old[number] = signal.signal(number, lambda _number, _frame: None)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        """For ``selectors``."""
        return self._reader.fileno()

    def take(self) -> bytes:
        """The numbers of the signals that have come since the last call."""
        try:
            return self._reader.recv(4096)
        except BlockingIOError:
            return b""


@dataclass(slots=True, eq=False)
class _Reload:
    """The reload under way: since when, the lanes whose turn comes yet, and whether one has its turn now."""

    number: int
    began_at: float
    waiting: list[Lane]
    has_lane: bool = False


@dataclass(slots=True, eq=False)
class _Parent:
    """All lanes of one server, and what concerns more than one of them."""

    starter: Starter
    wakeups: _Wakeups
    workers: int
    stops_asked: int = 0
    has_served: bool = False
    _lanes: list[Lane] = field(init=False)
    _codes: dict[int, int] = field(default_factory=dict)
    _covers: dict[int, Worker] = field(default_factory=dict)  # who covers a lane
    _reload: _Reload | None = None
    _reload_asked: bool = False
    _reloads: int = 0

    def __post_init__(self) -> None:
        names = [
            f"worker {number + 1} of {self.workers}: " if self.workers > 1 else "" for number in range(self.workers)
        ]
        self._lanes = [
            Lane(number=number, name=name, house=self, starter=self.starter) for number, name in enumerate(names)
        ]

    def run(self) -> int:
        """Until all lanes have ended for good and nobody lives any more: the first exit code that is not 0, if any."""
        before = read_status(self.starter.lock.folder)
        self._reloads = before.number  # so that nobody takes an earlier server's last one for his own
        holder = HolderKeeper(self.starter)
        try:
            self._lanes[0].start()
            while len(self._codes) < len(self._lanes) or any(lane.workers() for lane in self._lanes):
                self._wait(holder.secs_left())
                for number in self.wakeups.take():
                    self._take_signal(number)
                for lane in self._lanes:
                    lane.look()
                holder.look()
                for lane in self._lanes:
                    lane.perform_due()
                self._go_on_with_reload()
                self._cover_lanes()
        finally:
            holder.end()
            self.starter.close()
        return next((code for _, code in sorted(self._codes.items()) if code), 0)

    def _wait(self, holder_secs: float | None) -> None:
        """Until a signal, a word of a worker, or the next thing is due."""
        limits = [lane.secs_left() for lane in self._lanes] + [holder_secs]
        with selectors.DefaultSelector() as selector:
            selector.register(self.wakeups, selectors.EVENT_READ)
            for lane in self._lanes:
                for worker in lane.workers():
                    if worker.is_talking:
                        selector.register(worker.control, selectors.EVENT_READ)
            selector.select(min((limit for limit in limits if limit is not None), default=None))

    def _take_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            return
        if number == signal.SIGUSR1:
            self._reload_asked = True
            return
        self.stops_asked += 1
        if self.stops_asked == 1:
            say("stopping: requests in flight are finished first (press Ctrl-C again to stop at once)")
        elif self.stops_asked == 2:
            say("stopping at once")
        for lane in self._lanes:
            lane.stop()
        self._end_reload("Greenroom is being stopped.")  # where it was between two lanes

    def _cover_lanes(self) -> None:
        present = [worker for lane in self._lanes if (worker := lane.accepting) is not None]
        for lane in self._lanes:
            cover = self._covers.get(lane.number)
            if lane.accepting is not None or self.stops_asked:
                if self._covers.pop(lane.number, None) in present and cover is not None:
                    cover.uncover(lane.number)
            elif present and cover not in present:
                self._covers[lane.number] = chosen = present[lane.number % len(present)]
                chosen.cover(lane.number, self.starter.sockets[lane.number], self.starter.tls_sockets[lane.number])

    def _go_on_with_reload(self) -> None:
        if self._reload_asked and self._reload is None and not self.stops_asked:
            if not any(lane.serves for lane in self._lanes):
                return
            self._reload_asked = False
            self._reloads += 1
            self._reload = _Reload(self._reloads, time.monotonic(), list(self._lanes))
        reload = self._reload
        if reload is None or reload.has_lane:
            return
        # Whoever has been replaced since, after a crash, is new already.
        reload.waiting = [one for one in reload.waiting if not (one.serves and one.began_after(reload.began_at))]
        if not reload.waiting:
            self._end_reload(None)
            return
        # Where a worker is just starting, its turn comes once it serves: a word or an end of it wakes this loop.
        lane = next((one for one in reload.waiting if not one.is_starting), None)
        if lane is not None:
            reload.waiting.remove(lane)
            reload.has_lane = True
            lane.begin_turn()

    def _end_reload(self, problem: str | None) -> None:
        if self._reload is None:
            return
        number, self._reload = self._reload.number, None
        if problem is not None:
            say(f"the reload failed: {problem}")
        told = problem or ("the new worker serves" if self.workers == 1 else "all new workers serve")
        self._tell(ReloadStatus(os.getpid(), number, told, has_failed=problem is not None))

    def _tell(self, status: ReloadStatus) -> None:
        # Without room on the disk nobody hears of it; the reload itself needs none.
        with contextlib.suppress(OSError):
            write_status(self.starter.lock.folder, status)

    # -- what lanes tell ------------------------------------------------------------------------------------------

    def lane_serves(self) -> None:
        """The first to serve has made all that is made once, and the others find it made."""
        if not self.has_served:
            self.has_served = True
            for lane in self._lanes[1:]:
                if not self.stops_asked:
                    lane.start()

    def step(self, text: str) -> None:
        """A step of the reload, for whoever has asked for it."""
        assert self._reload is not None
        self._tell(ReloadStatus(os.getpid(), self._reload.number, text, is_over=False))

    def turn_is_over(self, problem: str | None) -> None:
        """The next lane has its turn; after a failure none, so that the old workers go on."""
        if problem is not None:
            self._end_reload(problem)
        elif self._reload is not None:
            self._reload.has_lane = False

    def lane_is_over(self, lane: Lane, code: int) -> None:
        """It is not filled any more. Where that is so at the start already, no lane is."""
        self._codes.setdefault(lane.number, code)
        if not self.stops_asked:
            self._codes |= {one.number: code for one in self._lanes}
