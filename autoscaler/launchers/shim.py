"""
The shim: guards one run's processes, stamps their output into the log, and keeps the exit code. It outlives Greenroom.

A program of its own, which imports the standard library and its neighbours only. Starting Python for each run would
cost more than a whole wake may, so there is one *fork server*, which has everything imported and always one shim forked
ahead. A launch is one byte to that shim, with the descriptor of a socket of this launch alone::

    launcher                    shim, waiting               Actor                   fork server
    one byte + descriptor  ──►  takes the launch
    order (JSON) ────────────►  mark, fork ───────────────► setpgid, waits
                                one byte ─────────────────────────────────────────► forks the next shim
    "go", once the run is on record ──────────────────────► exec
    ◄──────────── answer (JSON) record, in place of the mark, once exec worked
    one byte ────────────────►  "heard", or "given up"

A launcher that gives a start up says so, or is gone before "go": the shim ends the run, and leaves neither record nor
exit code: to whoever comes next this start has not happened. One that dies after "go" leaves a run that lives; who
comes next finds its record, or the mark, which says that a moment later there will be a record or nothing. The fork
server ends when its socket closes. Nothing of the environment, which holds secrets, is ever written or put into an
argv.

What the signals to a shim mean; the run's *group* is the Actor's process group:

    SIGTERM  SIGTERM to the group (and a frozen one goes on)     SIGUSR1  freeze: SIGSTOP to all
    SIGQUIT  SIGKILL to all                                      SIGUSR2  resume: SIGCONT to all
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autoscaler.launchers.process_table import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_NAME,
    descendants,
    prctl,
    signal_exactly,
    signal_group,
    started_at,
)
from autoscaler.launchers.shim_exec import SpawnFailed, become_actor
from autoscaler.launchers.shim_log import Log, now

CONTROL_BYTE = b"+"
READY_BYTE = b"R"
GO_BYTE = b"G"
HEARD_BYTE = b"!"
GIVEN_UP_BYTE = b"-"
FRAME_HEAD = struct.Struct("!I")

MARK_NAME = "starting.json"
RECORD_NAME = "shim.json"
EXIT_NAME = "exit.json"
FAILURE_NAME = "shim-error.txt"

_READ_BYTES = 64 * 1024
_JSON_BYTES = 512  # more than either of the two files needs
_REST_MS = 100  # before the next shim is forked ahead
_COURTESY_SECS = 3.0  # for the rest of a group that was asked to end, e.g. the server behind a shell that died at once
_KILL_SECS = 5.0  # for what was killed to be gone; only a process stuck in the kernel takes longer
_DRAIN_SECS = 2.0  # for output that somebody outside the run still holds open

# Signals that arrive together have lost their order (the last one's handler runs first). This is the harmless one: a
# run that should be frozen goes on, but none is frozen that should not be, and none misses its end.
_ORDER = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD)


def frame(value: Mapping[str, Any]) -> bytes:
    """*value* as JSON behind its length."""
    body = json.dumps(value).encode()
    return FRAME_HEAD.pack(len(body)) + body


def _receive_exactly(connection: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        chunk = connection.recv(count - len(received))
        if not chunk:
            raise ConnectionResetError("the launcher went away")
        received += chunk
    return bytes(received)


def _receive_frame(connection: socket.socket) -> dict[str, Any]:
    (length,) = FRAME_HEAD.unpack(_receive_exactly(connection, FRAME_HEAD.size))
    value: dict[str, Any] = json.loads(_receive_exactly(connection, length))
    return value


def _reserve(path: Path) -> None:
    """Take the room that ``_write_json`` will need, while there is some."""
    with contextlib.suppress(OSError), path.with_suffix(".new").open("wb") as file:
        file.write(b" " * _JSON_BYTES)


def _write_json(path: Path, value: Mapping[str, Any], *, durable: bool) -> None:
    """Replace a file atomically; a *durable* one survives a power cut once this returns."""
    new = path.with_suffix(".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT, 0o600)  # written over where it was reserved
    try:
        os.write(fd, json.dumps(value).encode().ljust(_JSON_BYTES))
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    new.rename(path)
    if durable:
        fd = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class Shim:
    """One run's guard, from the order to the exit code."""

    def __init__(self, signals: int) -> None:
        self._connection: socket.socket | None = None
        self._signals = signals
        self._poll = select.poll()
        self._poll.register(signals, select.POLLIN)
        self._actor = 0
        self._output = -1
        self._exit_status: int | None = None  # as subprocess has it: the exit code, or minus the signal
        self._is_reaped = False
        self._is_frozen = False
        self._has_frozen_strangers = False
        self._is_asked_to_end = False
        self._is_killed = False
        self._is_given_up = False

    def forget_signals(self) -> None:
        """Whatever was sent while there was no run was not meant for the run that comes."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._signals, 4096)

    def start(self, order: dict[str, Any], connection: socket.socket, forked: Callable[[], None]) -> dict[str, Any]:
        """
        Start the Actor and record it in the run's folder. Raises SpawnFailed, and then nothing is left of it.

        Its process waits for "go" on *connection* before it becomes the Actor's program. Calls *forked* as soon as
        the process exists and others may have the processor.
        """
        self._folder = Path(order["folder"])
        mark = self._folder / MARK_NAME
        try:
            _write_json(mark, {"shim_pid": os.getpid(), "shim_started": started_at(os.getpid())}, durable=False)
        except OSError as error:
            raise SpawnFailed(f"its folder can't be written to: {error}") from None
        try:
            return self._start(order, connection, forked)
        finally:
            mark.unlink(missing_ok=True)

    def _start(self, order: dict[str, Any], connection: socket.socket, forked: Callable[[], None]) -> dict[str, Any]:
        try:
            log = os.open(order["log_path"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise SpawnFailed(f"its log can't be opened: {error}") from None
        self._log = Log(log, order["max_log_chars"])
        me = os.getpid()
        self._output, output = os.pipe()
        failure, failure_of_actor = os.pipe()
        self._actor = os.fork()
        if self._actor == 0:
            become_actor(order, me, output, failure_of_actor, lambda: connection.recv(1) == GO_BYTE)
        forked()
        os.close(output)
        os.close(failure_of_actor)
        reason = b""
        while chunk := os.read(failure, 4096):  # ends at exec, which closes the other end
            reason += chunk
        os.close(failure)
        if reason:
            if os.fstat(log).st_size == 0:
                # Whoever gave this start up may have removed its log before it was opened here.
                Path(order["log_path"]).unlink(missing_ok=True)
            raise SpawnFailed(reason.decode("utf-8", "replace"))
        record = {**order["record"], "shim_pid": me, "shim_started": started_at(me), "actor_pid": self._actor}
        try:
            _write_json(self._folder / RECORD_NAME, record, durable=False)
        except OSError as error:
            self.kill()
            raise SpawnFailed(f"its record can't be written: {error}") from None
        return record

    def guard(self, connection: socket.socket) -> None:
        """Until nothing of the run is left; then its exit code is on disk. *connection* may say that it is given up."""
        os.set_blocking(self._output, False)
        self._poll.register(self._output, select.POLLIN)
        self._connection = connection
        self._poll.register(connection, select.POLLIN)
        _reserve(self._folder / EXIT_NAME)  # a disk that is full by then must not hide the run's end
        self._reap()  # it may have ended before anybody listened
        while self._exit_status is None:
            self._step(None)
        if self._is_asked_to_end:
            self._step_until(lambda: self._is_killed or not self._rest_of_group(), _COURTESY_SECS, 0.05)
        # The unreaped leader still holds the group's number, so this can't hit a stranger.
        signal_group(self._actor, signal.SIGKILL)
        if not self._is_reaped:
            os.waitpid(self._actor, 0)
            self._is_reaped = True
        self._step_until(self._kill_descendants, _KILL_SECS, 0.01)
        self._step_until(lambda: self._output < 0, _DRAIN_SECS, 0.1)
        self._log.flush()
        if self._is_given_up:
            return
        status = self._exit_status
        self._keep(status if status >= 0 else 128 - status, -status if status < 0 else None)

    def kill(self) -> None:
        """SIGKILL to all of it."""
        self._is_killed = True
        signal_group(self._actor, signal.SIGKILL)
        self._kill_descendants()

    def _keep(self, exit_code: int, by_signal: int | None) -> None:
        end = {"exit_code": exit_code, "signal": by_signal, "finished_at": now()}
        for _ in range(60):  # a full disk may find room; the exit code is worth a minute
            try:
                _write_json(self._folder / EXIT_NAME, end, durable=True)
            except FileNotFoundError:
                return  # the folder was removed: nobody will ask
            except OSError:
                time.sleep(1)
            else:
                return

    def _step(self, timeout_secs: float | None) -> None:
        """Wait for something to happen, at most so long, and deal with it."""
        for fd, _ in self._poll.poll(None if timeout_secs is None else timeout_secs * 1000):
            if fd == self._output:
                self._read_output()
            elif fd == self._signals:
                for number in sorted(os.read(self._signals, 4096), key=_ORDER.index):
                    self._obey(number)
            elif self._connection is not None:
                self._hear()

    def _step_until(self, is_done: Callable[[], bool], limit_secs: float, pause_secs: float) -> None:
        until = time.monotonic() + limit_secs
        while not is_done() and time.monotonic() < until:
            self._step(pause_secs)

    def _read_output(self) -> None:
        try:
            chunk = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return
        if chunk:
            self._log.feed(chunk)
            return
        self._poll.unregister(self._output)
        os.close(self._output)
        self._output = -1

    def _hear(self) -> None:
        """The launcher says that it knows of the run, or gives it up; or it has died, and another one will come."""
        assert self._connection is not None
        try:
            heard = self._connection.recv(1)
        except OSError:
            heard = b""
        self._poll.unregister(self._connection)
        self._connection.close()
        self._connection = None
        if heard == GIVEN_UP_BYTE and self._exit_status is None:
            # First of all, so that nobody adopts what is about to be killed and takes this for the run's own end.
            (self._folder / RECORD_NAME).unlink(missing_ok=True)
            self._is_given_up = True
            self.kill()

    def _obey(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif self._exit_status is not None and number != signal.SIGQUIT:
            return  # its group is being cleared already
        elif number == signal.SIGTERM:
            self._is_asked_to_end = True
            signal_group(self._actor, signal.SIGTERM)
            if self._is_frozen:
                self._thaw()
        elif number == signal.SIGUSR1:
            if not self._is_asked_to_end:
                self._freeze()
        elif number == signal.SIGUSR2:
            self._thaw()
        elif number == signal.SIGQUIT:
            self.kill()

    def _freeze(self) -> None:
        self._is_frozen = True
        signal_group(self._actor, signal.SIGSTOP)
        for _ in range(5):  # one that was just being forked shows up in the next look
            running = [child for child in descendants(os.getpid()) if child.state != "T"]
            strangers = [child for child in running if child.group != self._actor]
            if not strangers:
                return
            self._has_frozen_strangers = True
            for child in strangers:
                signal_exactly(child, signal.SIGSTOP)

    def _thaw(self) -> None:
        self._is_frozen = False
        # Somebody waits for the group; to look through all processes of the machine takes a while.
        signal_group(self._actor, signal.SIGCONT)
        if self._has_frozen_strangers:
            self._has_frozen_strangers = False
            for child in descendants(os.getpid()):
                if child.group != self._actor:
                    signal_exactly(child, signal.SIGCONT)

    def _reap(self) -> None:
        """
        Fetch the exit codes of children, also of those that were orphaned to us.

        The Actor's main process is only looked at where the system can do that: as long as it isn't fetched, its pid,
        which is the group's number, belongs to nobody else.
        """
        if hasattr(os, "waitid"):
            with contextlib.suppress(ChildProcessError):
                while not self._is_reaped and self._exit_status is None:
                    seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                    if seen is None:
                        return
                    if seen.si_pid == self._actor:
                        is_exit = seen.si_code == os.CLD_EXITED
                        self._exit_status = seen.si_status if is_exit else -seen.si_status
                        return
                    os.waitpid(seen.si_pid, 0)
            if not self._is_reaped:
                return
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._actor and not self._is_reaped:
                    self._is_reaped = True
                    self._exit_status = os.waitstatus_to_exitcode(status)

    def _rest_of_group(self) -> bool:
        return any(child.group == self._actor for child in descendants(os.getpid()))

    def _kill_descendants(self) -> bool:
        """SIGKILL to every descendant; whether there was none."""
        self._reap()
        left = descendants(os.getpid())
        for child in left:
            signal_exactly(child, signal.SIGKILL)
        return not left


def _take_signals() -> int:
    """From now on signals arrive as bytes at the returned descriptor."""
    signals, wakeup = os.pipe()
    os.set_blocking(signals, False)
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    for number in _ORDER:
        signal.signal(number, lambda *_: None)
    return signals


def _receive_connection(control: socket.socket) -> socket.socket | None:
    """The socket of the next launch; None when the launcher has gone."""
    try:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
    except ConnectionError:
        return None
    if not descriptors:
        return None
    os.set_inheritable(descriptors[0], False)
    return socket.socket(fileno=descriptors[0])


def _be_shim(control: socket.socket, taken: int) -> None:
    """Wait for a launch, and be the shim of its run; *taken* gets a byte when the next shim may be forked."""
    os.setsid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_NAME, b"greenroom-shim")
    shim = Shim(_take_signals())
    connection = _receive_connection(control)
    control.close()
    if connection is None:
        return
    shim.forget_signals()
    order = _receive_frame(connection)
    folder = Path(order["folder"])

    def forked() -> None:
        os.write(taken, CONTROL_BYTE)
        os.close(taken)

    try:
        try:
            record = shim.start(order, connection, forked)
        except SpawnFailed as error:
            connection.sendall(frame({"error": str(error)}))
            return
        del order  # with all the secrets in it
        with contextlib.suppress(OSError):  # a launcher that has gone is noticed by what follows
            connection.sendall(frame(record))
        shim.guard(connection)
    except BaseException:
        shim.kill()
        with (folder / FAILURE_NAME).open("a", encoding="utf-8") as file:
            traceback.print_exc(file=file)
        raise


def _fork_shim(control: socket.socket) -> int:
    """A shim that waits for its launch; returns what becomes readable when it has got one, or has ended."""
    taken, taken_by_shim = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(taken)
        os.close(taken_by_shim)
        raise
    if pid == 0:
        code = 70
        try:
            os.close(taken)
            _be_shim(control, taken_by_shim)
            code = 0
        finally:
            os._exit(code)
    os.close(taken_by_shim)
    return taken


def _refuse(control: socket.socket, error: OSError) -> bool:
    """Tell the next launch that no shim could be forked; whether there is still a launcher."""
    connection = _receive_connection(control)
    if connection is None:
        return False
    with connection, contextlib.suppress(OSError):
        connection.sendall(frame({"error": f"no process could be forked: {error.strerror}"}))
    return True


def serve_forks(control_fd: int) -> None:
    """The fork server: keep one shim ready for the next launch, until the control socket closes."""
    # Whatever else Greenroom may have left open when it started this (an event loop of its own may): not for Actors.
    os.closerange(3, control_fd)
    os.closerange(control_fd + 1, max(4096, os.sysconf("SC_OPEN_MAX")))
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # shims need no reaping, and the kernel keeps no zombies of them
    gc.collect()
    gc.disable()
    gc.freeze()  # shared pages stay shared
    is_told = False
    while True:
        try:
            taken = _fork_shim(control)
        except OSError as error:
            if not _refuse(control, error):
                return
            continue
        if not is_told:
            control.sendall(READY_BYTE)
            is_told = True
        poll = select.poll()
        poll.register(taken, select.POLLIN)
        poll.register(control, 0)  # the waiting shim reads it; here only its end counts
        if any(fd != taken for fd, _ in poll.poll()):
            return
        if not os.read(taken, 1):
            time.sleep(0.05)  # it ended without a launch: somebody kills shims, or there is no memory
        os.close(taken)
        # The Actor that was just started needs the processor more than the next one, unless that waits already.
        poll.unregister(taken)
        poll.modify(control, select.POLLIN)
        poll.poll(_REST_MS)
