"""One end of the Unix socket between a worker and the holder: messages, some with a descriptor, never blocking."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable

from gateway.holder_messages import Lines, Message, Take, encode

_READ_BYTES = 64 * 1024
_MAX_UNSENT_BYTES = 8 * 1024 * 1024
_MAX_DESCRIPTORS = 64  # in one read; the kernel never joins two of them


class Link:
    """
    Sends and receives from the moment it is made until ``close`` or the other side's end; both call *on_end*, once.

    *on_message* gets each message, a Take with the descriptor that came with it (None where it got lost), which it then
    owns. An end that does not read is given up when too much is unsent.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Link, Message, int | None], None],
        on_end: Callable[[Link], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._lines = Lines()
        self._unsent: deque[tuple[bytes, int | None]] = deque()
        self._unsent_bytes = 0
        self._descriptors: deque[int] = deque()
        self._is_writing = False
        self.is_open = True
        self._loop.add_reader(sock.fileno(), self._read)

    def send(self, message: Message, descriptor: int | None = None) -> bool:
        """Send *message*, now or soon; takes over *descriptor*. False where the link is, or has just been, given up."""
        data = encode(message)
        if self.is_open:
            self._unsent.append((data, descriptor))
            self._unsent_bytes += len(data)
            if not self._is_writing:
                self._write()
            if self._unsent_bytes > _MAX_UNSENT_BYTES:
                self.close()
            return self.is_open
        if descriptor is not None:
            os.close(descriptor)
        return False

    def close(self) -> None:
        """Give it up; what is unsent is lost."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._sock.fileno())
        if self._is_writing:
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for descriptor in (*(item[1] for item in self._unsent), *self._descriptors):
            if descriptor is not None:
                os.close(descriptor)
        self._unsent.clear()
        self._descriptors.clear()
        self._on_end(self)

    def _write(self) -> None:
        while self._unsent:
            data, descriptor = self._unsent[0]
            try:
                sent = self._sock.sendmsg([data], _ancillary(descriptor))
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            self._unsent_bytes -= sent
            if descriptor is not None:
                os.close(descriptor)
            if sent < len(data):
                self._unsent[0] = (data[sent:], None)
            else:
                self._unsent.popleft()
        if bool(self._unsent) is not self._is_writing:
            self._is_writing = bool(self._unsent)
            if self._is_writing:
                self._loop.add_writer(self._sock.fileno(), self._write)
            else:
                self._loop.remove_writer(self._sock.fileno())

    def _read(self) -> None:
        try:
            data, ancillary, _, _ = self._sock.recvmsg(_READ_BYTES, socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4))
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                for number in numbers:
                    os.set_inheritable(number, False)
                self._descriptors.extend(numbers)
        if not data:
            self.close()
            return
        try:
            for message in self._lines.feed(data):
                descriptor = self._descriptors.popleft() if isinstance(message, Take) and self._descriptors else None
                self._on_message(self, message, descriptor)
                if not self.is_open:
                    return
        except ValueError:  # of another version, or nobody of ours
            self.close()


def _ancillary(descriptor: int | None) -> list[tuple[int, int, bytes]]:
    if descriptor is None:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]).tobytes())]


def open_link(rendezvous: socket.socket) -> socket.socket:
    """
    A socket to whoever holds the other side of *rendezvous*, which gets its other end by that way.

    Unlike a name in the file system this has no length, no owner and no leftovers, and waits for a holder that is
    just being started. Raises OSError.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            rendezvous.sendmsg([b"+"], _ancillary(theirs.fileno()))
        except BaseException:
            ours.close()
            raise
    return ours


def accept_link(rendezvous: socket.socket) -> socket.socket | None:
    """The next socket that was opened by ``open_link``; None where there is none. Raises OSError."""
    try:
        _, descriptors, _, _ = socket.recv_fds(rendezvous, 1, 1)
    except BlockingIOError:
        return None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
        return socket.socket(fileno=descriptor)
    return None
