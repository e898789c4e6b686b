"""The caller's side: a raw, blocking connection to a gateway under test."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable
from typing import Self

from proxy.suite.wire import Ended, Message, Reading, body_of, head_of

WAIT_SECS = 5.0
"""For anything that must come; on a busy machine nothing takes so long."""


class Client:
    """One connection. Every wait has a limit: what does not come in time fails the test."""

    def __init__(
        self, address: tuple[str, int], *, wait_secs: float = WAIT_SECS, read_buffer_bytes: int | None = None
    ) -> None:
        self.sock = socket.socket()
        if read_buffer_bytes is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer_bytes)
        self.sock.settimeout(wait_secs)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect(address)
        self.buffer = bytearray()
        self._wait_secs = wait_secs
        self.was_reset = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes, *, pieces: Iterable[int] = ()) -> None:
        """Send *data*, cut at the offsets in *pieces*. The other side may have closed: that shows when reading."""
        at = 0
        with contextlib.suppress(ConnectionError):
            for cut in (*pieces, len(data)):
                self.sock.sendall(data[at:cut])
                at = cut

    def head(self) -> Message:
        """The next answer's head."""
        return self._read(head_of(self.buffer, is_answer=True))

    def body(self, head: Message, method: bytes = b"GET") -> Message:
        """*head* with its body."""
        return self._read(body_of(self.buffer, head, method=method))

    def answer(self, method: bytes = b"GET") -> Message:
        """The next answer, whole or cut (``is_whole``). Interim ones are answers too."""
        head = self.head()
        return self.body(head, method)

    def final(self, method: bytes = b"GET") -> Message:
        """The next answer that is no interim one."""
        while (answer := self.answer(method)).status < 200:
            pass
        return answer

    def some(self) -> bytes:
        """Whatever has come and comes next; ``b""`` at the end."""
        if not self.buffer:
            self._receive()
        data = bytes(self.buffer)
        self.buffer.clear()
        return data

    def rest(self) -> bytes:
        """All that comes until the end; TimeoutError where it does not end."""
        while self._receive():
            pass
        data = bytes(self.buffer)
        self.buffer.clear()
        return data

    def pause(self, secs: float) -> None:
        """Do nothing for *secs*, in which nothing may come."""
        self.sock.settimeout(secs)
        with contextlib.suppress(TimeoutError):
            raise AssertionError(f"came too soon: {self.sock.recv(65_536)!r}")
        self.sock.settimeout(self._wait_secs)

    def half_close(self) -> None:
        """Send nothing more."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Cut."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _receive(self) -> bool:
        try:
            data = self.sock.recv(262_144)
        except ConnectionError:
            self.was_reset = True
            return False
        self.buffer += data
        return bool(data)

    def _read(self, reading: Reading) -> Message:
        try:
            next(reading)
            while True:
                if self._receive():
                    next(reading)
                else:
                    reading.throw(Ended(f"after {bytes(self.buffer[-200:])!r}"))
        except StopIteration as done:
            message: Message = done.value
            return message
