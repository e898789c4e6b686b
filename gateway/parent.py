"""
The small parent process of ``greenroom serve``: holds the data folder's lock and the listening sockets.

All else happens in its worker (``python -m gateway.worker``), so that connections queue in the sockets while a crashed
worker is replaced. What the two agree on::

    argv     --sockets 3,4 --ready-fd 5     descriptors that the worker inherits
    stdin    the settings as JSON, so that no token ever stands in a command line
    ready-fd the worker writes the line ``ready`` once it serves
    signals  SIGTERM: drain and stop, exit code 0; SIGQUIT or a second SIGTERM: stop at once

The parent imports neither stores nor servers: it must not be the part that fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from gateway.data_dir import DataLock, make_data_dir, take_lock
from gateway.refusals import FAILED, USAGE, Refused
from gateway.settings import Settings
from gateway.urls import Urls

WORKER_COMMAND = (sys.executable, "-m", "gateway.worker")

STOPPED_AT_ONCE = 130  # as a shell tells of a program that Ctrl-C ended

_BACKLOG = 2048
_FIRST_PAUSE_SECS = 1.0
_LONGEST_PAUSE_SECS = 30.0
_STEADY_SECS = 60.0  # a worker that served for so long has not failed because of its start
_SPARE_SECS = 10.0  # beyond the time that the worker itself gives its shutdown
_KILL_AFTER_SECS = 2.0
_PARENT_VARIABLE = "GREENROOM_PARENT"
_PR_SET_PDEATHSIG = 1


def say(text: str) -> None:
    """One line for the person at the terminal."""
    print(f"greenroom: {text}", file=sys.stderr, flush=True)


# --- in the worker ----------------------------------------------------------------------------------------------------


def enter_worker(descriptors: Iterable[int]) -> None:
    """
    First thing in the worker: die with the parent, and let no child inherit *descriptors* or the lock.

    A shim that inherited a listening socket would keep the port busy after Greenroom has ended. On Linux the kernel
    kills the worker when the parent dies; a parent that died before this call is noticed here.
    """
    inherited = list(descriptors)
    parent_pid, _, lock = os.environ.pop(_PARENT_VARIABLE, "").partition(":")
    if lock:
        inherited.append(int(lock))
    for descriptor in inherited:
        os.set_inheritable(descriptor, False)
    if not parent_pid:
        return  # started by hand or by a test, without a parent
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent_pid):
        os.kill(os.getpid(), signal.SIGKILL)


# --- sockets ----------------------------------------------------------------------------------------------------------


def listen(host: str, port: int) -> list[socket.socket]:
    """
    The listening sockets for *host*; port 0 takes a free one. Raises Refused, saying what to do.

    For 127.0.0.1 the same port is opened on ::1 too, where that is possible: some browsers resolve ``*.localhost``
    to it first.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
    except (OSError, UnicodeError) as error:
        raise Refused(
            f"the address {host!r} to listen on is unknown ({error}): give another one with --host.", exit_code=USAGE
        ) from error
    try:
        sockets = [_bound(family, address)]
    except OSError as error:
        raise Refused(_why_not(error, host, port)) from error
    if host in ("127.0.0.1", "localhost"):
        twin_host = "::1" if family == socket.AF_INET else "127.0.0.1"
        twin_family = socket.AF_INET6 if family == socket.AF_INET else socket.AF_INET
        with contextlib.suppress(OSError):
            sockets.append(_bound(twin_family, (twin_host, sockets[0].getsockname()[1])))
    return sockets


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address[0] != "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is taken by another program: stop that one, "
            "or choose another port with --port N (0 takes a free one)."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} on {host} needs rights that this user lacks: choose one above 1023 with --port N."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine: give another one with --host."
    return f"can't listen on {host}, port {port}: {error.strerror}."


# --- the parent -------------------------------------------------------------------------------------------------------


def serve(settings: Settings, *, worker_command: Sequence[str] = WORKER_COMMAND) -> int:
    """
    Hold lock and sockets and keep a worker running until it is told to stop; the exit code of ``greenroom serve``.

    Must be called in the main thread: it takes over SIGINT, SIGTERM, SIGHUP and SIGCHLD. Raises Refused.
    """
    make_data_dir(settings.data)
    lock = take_lock(settings.data)
    sockets = listen(settings.host, settings.port)
    port = sockets[0].getsockname()[1]
    urls = Urls(
        scheme=settings.public_scheme,
        domain=settings.domain,
        port=settings.public_port or port,
        local_port=port,
    )
    lock.describe(os.getpid(), urls.local)
    try:
        with _Wakeups() as wakeups:
            return _Parent(settings, lock, sockets, worker_command, wakeups).run()
    finally:
        lock.release()


class _Wakeups:
    """Turns signals into bytes of a socket, so that one wait serves for signals, readiness and time."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._old: dict[int, object] = {}

    def __enter__(self) -> Self:
        for sock in (self._reader, self._writer):
            sock.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # SIGINT is taken even where a shell set it to "ignore", as it does for background jobs: `kill -INT` must work.
        # SIGHUP is left ignored under nohup.
        wanted = [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD]
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
class _Worker:
    process: subprocess.Popen[bytes]
    ready_fd: int
    is_ready: bool = False
    ready_at: float = 0.0


class _Parent:
    def __init__(
        self,
        settings: Settings,
        lock: DataLock,
        sockets: list[socket.socket],
        command: Sequence[str],
        wakeups: _Wakeups,
    ) -> None:
        self._settings = settings
        self._lock = lock
        self._sockets = sockets
        self._command = command
        self._wakeups = wakeups
        self._has_served = False
        self._pause_secs = _FIRST_PAUSE_SECS
        self._stops_asked = 0

    def run(self) -> int:
        while True:
            worker = self._start()
            code = self._watch(worker)
            if self._stops_asked:
                return code
            if not self._has_served:
                # It has told why; a start that fails at once is not repeated.
                return code or FAILED
            if worker.is_ready and time.monotonic() - worker.ready_at > _STEADY_SECS:
                self._pause_secs = _FIRST_PAUSE_SECS
            say(
                f"the worker ended unexpectedly ({_ended(worker.process.returncode)}); "
                f"a new one starts in {self._pause_secs:.0f} s, requests wait meanwhile."
            )
            if self._wait_for_stop(self._pause_secs):
                return 0
            self._pause_secs = min(self._pause_secs * 2, _LONGEST_PAUSE_SECS)

    def _start(self) -> _Worker:
        reader, writer = os.pipe()
        numbers = [sock.fileno() for sock in self._sockets]
        try:
            process = subprocess.Popen(
                [*self._command, "--sockets", ",".join(map(str, numbers)), "--ready-fd", str(writer)],
                stdin=subprocess.PIPE,
                # The lock goes along: while a worker of a killed parent is still dying, nobody else takes the folder.
                pass_fds=[*numbers, writer, self._lock.descriptor],
                env=os.environ | {_PARENT_VARIABLE: f"{os.getpid()}:{self._lock.descriptor}"},
                start_new_session=True,  # Ctrl-C reaches the parent alone
            )
        finally:
            os.close(writer)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended already: told by its exit code
            process.stdin.write(self._settings.model_dump_json().encode())
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return _Worker(process, reader)

    def _watch(self, worker: _Worker) -> int:
        """Until the worker has ended: pass signals on, notice when it serves. Its exit code, 128 + n for signal n."""
        kills = _Kills(worker.process)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wakeups, selectors.EVENT_READ)
                selector.register(worker.ready_fd, selectors.EVENT_READ)
                while (returncode := worker.process.poll()) is None:
                    for key, _ in selector.select(kills.secs_left()):
                        if key.fd == worker.ready_fd:
                            selector.unregister(worker.ready_fd)
                            self._note_ready(worker)
                    self._pass_on(self._wakeups.take(), kills)
                    kills.perform_due()
        finally:
            os.close(worker.ready_fd)
        if returncode == -signal.SIGTERM and self._stops_asked == 1:
            return 0  # asked to stop before it had begun anything that could be drained
        if returncode == -signal.SIGQUIT and self._stops_asked > 1:
            return STOPPED_AT_ONCE  # hit when it had just ended by itself
        return returncode if returncode >= 0 else 128 - returncode

    def _note_ready(self, worker: _Worker) -> None:
        if not os.read(worker.ready_fd, 64).startswith(b"ready"):
            return  # closed: the worker ends
        worker.is_ready, worker.ready_at = True, time.monotonic()
        if self._has_served:
            say("the new worker serves.")
        self._has_served = True

    def _pass_on(self, signals: bytes, kills: _Kills) -> None:
        for number in signals:
            if number == signal.SIGCHLD:
                continue
            self._stops_asked += 1
            if self._stops_asked == 1:
                say("stopping: requests in flight are finished first (press Ctrl-C again to stop at once)")
                kills.ask(signal.SIGTERM, self._settings.shutdown_timeout_secs + _SPARE_SECS)
            elif self._stops_asked == 2:
                say("stopping at once")
                kills.ask(signal.SIGQUIT, _KILL_AFTER_SECS)

    def _wait_for_stop(self, secs: float) -> bool:
        """Between two workers: whether a stop was asked for within *secs*."""
        until = time.monotonic() + secs
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeups, selectors.EVENT_READ)
            while (left := until - time.monotonic()) > 0:
                selector.select(left)
                if any(number != signal.SIGCHLD for number in self._wakeups.take()):
                    return True
        return False


class _Kills:
    """The rising insistence with which one worker is asked to end: SIGTERM, SIGQUIT, SIGKILL, each with a limit."""

    _NEXT = {signal.SIGTERM: signal.SIGQUIT, signal.SIGQUIT: signal.SIGKILL}

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._next: signal.Signals | None = None
        self._at = 0.0

    def ask(self, number: signal.Signals, limit_secs: float) -> None:
        """Send *number*; if the worker lives after *limit_secs*, the next one."""
        self._process.send_signal(number)
        self._next = self._NEXT.get(number)
        self._at = time.monotonic() + limit_secs

    def secs_left(self) -> float | None:
        """How long to wait at most for something to happen; None: as long as it takes."""
        return None if self._next is None else max(0.0, self._at - time.monotonic())

    def perform_due(self) -> None:
        """Go on to the next signal where the limit has passed."""
        if self._next is not None and time.monotonic() >= self._at:
            self.ask(self._next, _KILL_AFTER_SECS)


def _ended(returncode: int) -> str:
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"
