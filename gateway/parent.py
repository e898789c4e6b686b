"""
The small parent process of ``greenroom serve``: holds the data folder's lock and the listening sockets.

All else happens in its workers (``python -m gateway.worker``), so that connections queue in the sockets while a worker
is replaced. What the two agree on::

    argv        --sockets 3,4 --control-fd 5 --rendezvous-fd 6     descriptors that the worker inherits
                --tls-sockets 7,8                                  those that speak TLS, where there are any
    stdin       the settings as JSON, so that no token ever stands in a command line
    control-fd  lines both ways: the worker says "ready" once it serves, "refused: why" where it can't
    signals     SIGTERM: drain and stop, exit code 0; SIGQUIT or a second SIGTERM: stop at once

A reload (SIGUSR1) starts a successor beside the worker that serves::

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
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from gateway.data_dir import make_data_dir, take_lock
from gateway.listening import listen
from gateway.refusals import FAILED
from gateway.reload_status import ReloadStatus, read_status, write_status
from gateway.serve_children import KILL_AFTER_SECS, WORKER_COMMAND, HolderKeeper, Starter, Worker
from gateway.settings import Settings
from gateway.urls import Urls

STOPPED_AT_ONCE = 130  # as a shell tells of a program that Ctrl-C ended

_FIRST_PAUSE_SECS = 1.0
_LONGEST_PAUSE_SECS = 30.0
_STEADY_SECS = 60.0  # a worker that served for so long has not failed because of its start
_SPARE_SECS = 10.0  # beyond the time that the worker itself gives its shutdown
_PREPARE_SECS = 300.0
_HAND_OVER_SECS = 60.0


def say(text: str) -> None:
    """One line for the person at the terminal."""
    print(f"greenroom: {text}", file=sys.stderr, flush=True)


def serve(settings: Settings, *, worker_command: Sequence[str] = WORKER_COMMAND) -> int:
    """
    Hold lock and sockets and keep a worker running until it is told to stop; the exit code of ``greenroom serve``.

    Must be called in the main thread: it takes over SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGCHLD. Raises Refused.
    """
    make_data_dir(settings.data)
    lock = take_lock(settings.data)
    try:
        sockets = listen(settings.host, settings.port, settings.run_host)
        tls_sockets = _listen_for_tls(settings)
        port = sockets[0].getsockname()[1]
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
            return _Parent(settings, starter, wakeups).run()
    finally:
        lock.release()


def _listen_for_tls(settings: Settings) -> list[socket.socket]:
    if settings.tls_port is None:
        return []
    return listen(settings.host, settings.tls_port, given_by="--set tls_port=N")


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


@dataclass(slots=True)
class _Reload:
    """The reload under way: its *successor* until that is promoted, and until when the present step may last."""

    number: int
    deadline: float
    successor: Worker | None = None
    is_prepared: bool = False


@dataclass(slots=True)
class _Parent:
    settings: Settings
    starter: Starter
    wakeups: _Wakeups
    _current: Worker | None = None
    _retired: list[Worker] = field(default_factory=list)
    _reload: _Reload | None = None
    _reload_asked: bool = False
    _reloads: int = 0
    _has_served: bool = False
    _pause_secs: float = _FIRST_PAUSE_SECS
    _restart_at: float | None = None
    _stops_asked: int = 0
    _code: int | None = None

    def run(self) -> int:
        before = read_status(self.settings.data)
        self._reloads = before.number  # so that nobody takes an earlier server's last one for his own
        holder = HolderKeeper(self.starter)
        try:
            self._current = self.starter.worker(is_successor=False)
            while self._code is None or self._workers():
                self._wait(holder.secs_left())
                for number in self.wakeups.take():
                    self._take_signal(number)
                for worker in self._workers():
                    self._look_at(worker)
                holder.look()
                self._perform_due()
        finally:
            holder.end()
            self.starter.close()
        return self._code

    def _workers(self) -> list[Worker]:
        successor = self._reload.successor if self._reload else None
        return [worker for worker in (self._current, successor, *self._retired) if worker is not None]

    def _wait(self, holder_secs: float | None) -> None:
        """Until a signal, a word of a worker, or the next thing is due."""
        limits = [worker.kills.secs_left() for worker in self._workers()] + [holder_secs]
        now = time.monotonic()
        limits += [max(0.0, at - now) for at in (self._restart_at, self._reload and self._reload.deadline) if at]
        with selectors.DefaultSelector() as selector:
            selector.register(self.wakeups, selectors.EVENT_READ)
            for worker in self._workers():
                if worker.is_talking:
                    selector.register(worker.control, selectors.EVENT_READ)
            selector.select(min((limit for limit in limits if limit is not None), default=None))

    def _take_signal(self, number: int) -> None:
        if number == signal.SIGCHLD:
            return
        if number == signal.SIGUSR1:
            self._reload_asked = True
            return
        self._stops_asked += 1
        if self._reload is not None:
            successor, self._reload.successor = self._reload.successor, None
            if successor is not None:  # it has begun nothing
                successor.process.kill()
                self._retired.append(successor)
            self._end_reload("Greenroom is being stopped.")
        if self._restart_at is not None:
            self._restart_at, self._code = None, 0
        if self._stops_asked == 1:
            say("stopping: requests in flight are finished first (press Ctrl-C again to stop at once)")
            self._ask_all(signal.SIGTERM, self.settings.shutdown_timeout_secs + _SPARE_SECS)
        elif self._stops_asked == 2:
            say("stopping at once")
            self._ask_all(signal.SIGQUIT, KILL_AFTER_SECS)

    def _ask_all(self, number: signal.Signals, limit_secs: float) -> None:
        for worker in self._workers():
            worker.kills.ask(number, limit_secs)

    def _look_at(self, worker: Worker) -> None:
        returncode = worker.returncode  # asked first: what it said last is heard nevertheless
        for line in worker.heard():
            self._hear(worker, line)
        if returncode is not None:
            worker.close()
            self._has_ended(worker, returncode)

    def _hear(self, worker: Worker, line: str) -> None:
        is_current = worker is self._current
        word, _, why = line.partition(": ")
        if word == "refused":
            worker.why = f"{worker.why} {why}".strip()
        elif word == "ready" and is_current:
            worker.ready_at = time.monotonic()
            if self._has_served:
                say("the new worker serves.")
            self._has_served = True
            if self._reload is not None and self._reload.successor is None:
                self._end_reload(None)
        elif word == "prepared":
            if is_current:  # the old one has ended meanwhile
                worker.say("go")
            elif self._reload is not None and worker is self._reload.successor and self._current is not None:
                self._reload.is_prepared = True
                self._step("the new worker is prepared; the old one hands over", _HAND_OVER_SECS)
                self._current.say("hand over")
        elif word == "handed over" and is_current:
            self._retire(worker)

    def _retire(self, worker: Worker) -> None:
        worker.kills.plan(signal.SIGTERM, self.settings.shutdown_timeout_secs + _SPARE_SECS)
        self._retired.append(worker)
        self._current = None
        if not self._promote():  # its successor has failed in the last moment
            self._current = self.starter.worker(is_successor=False)

    def _promote(self) -> bool:
        """The successor takes the place of the worker that served; False where there is none."""
        if self._reload is None or self._reload.successor is None:
            return False
        self._current, self._reload.successor = self._reload.successor, None
        if self._reload.is_prepared:
            self._current.say("go")
        self._step("the new worker takes over", _PREPARE_SECS)
        return True

    def _has_ended(self, worker: Worker, returncode: int) -> None:
        if worker in self._retired:
            self._retired.remove(worker)
        elif self._reload is not None and worker is self._reload.successor:
            self._reload.successor = None
            self._end_reload(
                worker.why or f"The new worker ended ({_ended(returncode)}); the log of the server may tell why."
            )
        elif worker is self._current:
            self._current = None
            self._current_has_ended(worker, returncode)

    def _current_has_ended(self, worker: Worker, returncode: int) -> None:
        if self._stops_asked or not self._has_served:
            # Without having served it has told why; a start that fails at once is not repeated.
            self._code = self._exit_code(returncode) or (0 if self._stops_asked else FAILED)
            return
        if self._promote():
            say(f"the worker ended unexpectedly ({_ended(returncode)}); the one of the reload takes over.")
            return
        if self._reload is not None:
            self._end_reload(worker.why or f"The new worker ended ({_ended(returncode)}) before it served.")
        if worker.ready_at is not None and time.monotonic() - worker.ready_at > _STEADY_SECS:
            self._pause_secs = _FIRST_PAUSE_SECS
        say(
            f"the worker ended unexpectedly ({_ended(returncode)}); "
            f"a new one starts in {self._pause_secs:.0f} s, requests wait meanwhile."
        )
        self._restart_at = time.monotonic() + self._pause_secs
        self._pause_secs = min(self._pause_secs * 2, _LONGEST_PAUSE_SECS)

    def _exit_code(self, returncode: int) -> int:
        if returncode == -signal.SIGTERM and self._stops_asked == 1:
            return 0  # asked to stop before it had begun anything that could be drained
        if returncode == -signal.SIGQUIT and self._stops_asked > 1:
            return STOPPED_AT_ONCE  # hit when it had just ended by itself
        return returncode if returncode >= 0 else 128 - returncode

    def _perform_due(self) -> None:
        now = time.monotonic()
        for worker in self._workers():
            worker.kills.perform_due()
        if self._restart_at is not None and now >= self._restart_at:
            self._restart_at = None
            self._current = self.starter.worker(is_successor=False)
        if self._reload is not None and now >= self._reload.deadline:
            self._give_up_on_reload(self._reload)
        is_serving = self._current is not None and self._current.ready_at is not None
        if self._reload_asked and self._reload is None and is_serving and not self._stops_asked:
            self._reload_asked = False
            self._reloads += 1
            self._reload = _Reload(self._reloads, 0.0, self.starter.worker(is_successor=True))
            say("reloading: a new worker is prepared beside the one that serves.")
            self._step("a new worker is prepared", _PREPARE_SECS)

    def _give_up_on_reload(self, reload: _Reload) -> None:
        if reload.successor is not None:
            reload.successor.process.kill()
            self._retired.append(reload.successor)
            reload.successor = None
            why = (
                "The old worker did not hand over in time." if reload.is_prepared else "Its preparation took too long."
            )
            self._end_reload(why)
        elif self._current is not None:  # handed over to, and stuck: its end is that of any worker
            self._current.process.kill()
            reload.deadline = time.monotonic() + _PREPARE_SECS

    def _step(self, text: str, limit_secs: float) -> None:
        assert self._reload is not None
        self._reload.deadline = time.monotonic() + limit_secs
        self._tell(ReloadStatus(os.getpid(), self._reload.number, text, is_over=False))

    def _end_reload(self, problem: str | None) -> None:
        assert self._reload is not None
        number, self._reload = self._reload.number, None
        if problem is not None:
            say(f"the reload failed: {problem}")
        self._tell(
            ReloadStatus(os.getpid(), number, problem or "the new worker serves", has_failed=problem is not None)
        )

    def _tell(self, status: ReloadStatus) -> None:
        # Without room on the disk nobody hears of it; the reload itself needs none.
        with contextlib.suppress(OSError):
            write_status(self.settings.data, status)


def _ended(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"
