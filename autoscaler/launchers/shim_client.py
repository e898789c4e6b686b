"""The launcher's side of the shim: asks the fork server for shims, and watches and signals them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from autoscaler.launchers import shim
from autoscaler.launchers.process_table import started_at
from gateway.core.errors import LaunchError

_READY_SECS = 20.0
_ANSWER_SECS = 20.0
_CLOSE_SECS = 5.0
# Isolated and without site-packages, hence quick to start; the path is only for the shim and its neighbours.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from autoscaler.launchers.shim import serve_forks; serve_forks(int(sys.argv[2]))"
)
_POLL_SECS = 0.2  # only where the system has no pidfd


class ForkServer:
    """One process that forks shims on request; started again whenever it is found dead."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._handing_over = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The pid of the fork server, while there is one."""
        return self._process.pid if self._process is not None else None

    async def open(self) -> None:
        """Start it; returns when it can fork at once. Raises LaunchError."""
        await self.close()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                # A session of its own: Ctrl-C at the terminal is for Greenroom. No output: a shim must not hold the
                # terminal or pipe that Greenroom was started with.
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", "-c", _PROGRAM, _import_root(), str(theirs.fileno())),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
                    cwd="/",
                    start_new_session=True,
                )
            async with asyncio.timeout(_READY_SECS):
                if await asyncio.get_running_loop().sock_recv(ours, 1) != shim.READY_BYTE:
                    raise LaunchError("The helper that starts runs ended at once.")
        except BaseException as error:
            ours.close()
            if isinstance(error, OSError | TimeoutError):
                raise LaunchError(f"The helper that starts runs could not be started: {error}.") from error
            raise
        self._control = ours

    async def launch(
        self, order: Mapping[str, Any], may_begin: Callable[[], Awaitable[None]] | None = None
    ) -> dict[str, Any]:
        """
        Have a shim start what *order* says; returns its record. Raises LaunchError with the reason.

        *may_begin* is awaited, once, while the shim makes the process; what it raises is raised here. Cancelled, or
        given up for any other reason, nothing is left running: the shim is told so. Killed after *may_begin*, it leaves
        a run that lives. Costs four small socket messages.
        """
        has_asked = False

        async def ask_once() -> None:
            nonlocal has_asked
            if may_begin is not None and not has_asked:
                has_asked = True
                await may_begin()

        message = shim.frame(order)
        for _ in range(3):  # the first may find the shim dead, the second the fork server
            try:
                async with asyncio.timeout(_ANSWER_SECS):
                    answer = await self._ask(message, ask_once)
            except TimeoutError:
                raise LaunchError(f"The shim did not answer within {_ANSWER_SECS:g} s.") from None
            except OSError:
                continue  # the fork server or the shim was killed, and the Actor with it: once more
            if "error" in answer:
                raise LaunchError(f"{answer['error']}.")
            return answer
        raise LaunchError("The shim ended before it had started the Actor; the machine may be out of memory.")

    async def close(self) -> None:
        """End it; the shims live on."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                async with asyncio.timeout(_CLOSE_SECS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
            self._process = None

    async def _ask(self, message: bytes, may_begin: Callable[[], Awaitable[None]]) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            with theirs:
                await self._hand_over(theirs)
            last_word = shim.GIVEN_UP_BYTE
            try:
                await loop.sock_sendall(ours, message)
                await may_begin()
                await loop.sock_sendall(ours, shim.GO_BYTE)
                (length,) = shim.FRAME_HEAD.unpack(await _receive_exactly(ours, shim.FRAME_HEAD.size))
                answer: dict[str, Any] = json.loads(await _receive_exactly(ours, length))
                last_word = shim.HEARD_BYTE  # no await from here on: what was heard is also returned
            finally:
                with contextlib.suppress(OSError):  # the shim may have ended already, or have no whole order
                    ours.send(last_word)
        return answer

    async def _hand_over(self, theirs: socket.socket) -> None:
        async with self._handing_over:
            if self._control is None:
                await self.open()
            assert self._control is not None
            while True:
                try:
                    socket.send_fds(self._control, [shim.CONTROL_BYTE], [theirs.fileno()])
                except BlockingIOError:
                    await _writable(self._control)
                except ConnectionError:
                    await self.close()
                    raise
                else:
                    return


def _import_root() -> str:
    return str(Path(shim.__file__).absolute().parents[2])


async def _writable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    writable = asyncio.Event()
    loop.add_writer(connection, writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(connection)


async def _receive_exactly(connection: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    received = bytearray()
    while len(received) < count:
        chunk = await loop.sock_recv(connection, count - len(received))
        if not chunk:
            raise ConnectionResetError("the shim went away")
        received += chunk
    return bytes(received)


class ShimHandle:
    """
    A living shim. Where the system has pidfds it is held by one, so that its pid can't become somebody else's unseen.

    ``close`` gives back the descriptor; the shim is told by ``on_exit`` at once, or within 0.2 s without pidfds.
    """

    def __init__(self, pid: int, started: str, pidfd: int | None) -> None:
        self.pid = pid
        self._started = started
        self._pidfd = pidfd
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def find(cls, pid: int, started: str) -> ShimHandle | None:
        """The living process *pid* that was started at *started*, or None: it has ended, or that is another one."""
        pidfd: int | None = None
        if hasattr(os, "pidfd_open"):
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                return None
            except OSError:
                pidfd = None  # a kernel or sandbox without pidfds
        if started_at(pid) != started:
            if pidfd is not None:
                os.close(pidfd)
            return None
        return cls(pid, started, pidfd)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended gets none."""
        try:
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            elif started_at(self.pid) == self._started:
                os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Have *callback* called once, by the event loop, when the shim has ended."""
        self._loop = asyncio.get_running_loop()
        if self._pidfd is not None:
            self._loop.add_reader(self._pidfd, callback)
        else:
            self._look(callback)

    def close(self) -> None:
        """Stop watching; may be called again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pidfd is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        self._loop = None

    def _look(self, callback: Callable[[], None]) -> None:
        if self._loop is None:
            return
        if started_at(self.pid) != self._started:
            callback()
        else:
            self._timer = self._loop.call_later(_POLL_SECS, self._look, callback)
