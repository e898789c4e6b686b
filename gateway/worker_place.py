"""What a worker has from its parent, which tells the rules of it (``gateway.parent``)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass, field

ALIVE_EVERY_SECS = 1.0

_MAX_DESCRIPTORS = 16  # of one lane: a few addresses, each with and without TLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    What the parent gave this worker: the sockets to serve on, the way to the holder of events sockets, its *role*.

    Of several workers each has a *lane*; only that of lane 0 tells the person at the terminal what is served.
    """

    sockets: list[socket.socket]
    tls_sockets: list[socket.socket] = field(default_factory=list)
    rendezvous: socket.socket | None = None
    is_successor: bool = False
    lane: int = 0
    role: str = "serve"


@dataclass(frozen=True, slots=True)
class Cover:
    """Accept at these sockets of another lane, too, until it is uncovered."""

    lane: int
    sockets: list[socket.socket]
    tls_sockets: list[socket.socket]


@dataclass(frozen=True, slots=True)
class Uncover:
    """That lane has a worker of its own again."""

    lane: int


class ParentLine:
    """The worker's end of the lines to and from its parent; without a *control* socket nobody listens."""

    def __init__(self, control: socket.socket | None) -> None:
        self._control = control
        self._unread = b""
        self._descriptors: list[int] = []
        self.hand_over = asyncio.Event()
        self.go = asyncio.Event()
        self.covers: asyncio.Queue[Cover | Uncover] = asyncio.Queue()

    def say(self, line: str) -> None:
        """Tell the parent; should it be dying, this process is too."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.sendall(f"{line}\n".encode())

    async def keep_talking(self) -> None:
        """For ever: tell that this worker is not stuck."""
        while self._control is not None:
            # A parent that does not read is no reason to become stuck.
            with contextlib.suppress(OSError):
                self._control.send(b"alive\n", socket.MSG_DONTWAIT)
            await asyncio.sleep(ALIVE_EVERY_SECS)

    def listen(self) -> None:
        """Note what it says from now on."""
        if self._control is not None:
            asyncio.get_running_loop().add_reader(self._control.fileno(), self._read)

    def _read(self) -> None:
        assert self._control is not None
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, 4096, _MAX_DESCRIPTORS, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._descriptors += descriptors
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            word, _, rest = line.partition(b": ")
            if word == b"hand over":
                self.hand_over.set()
            elif word == b"go":
                self.go.set()
            elif word == b"cover":
                lane, plain = map(int, rest.split())
                # All that have come: the kernel gives those of two messages in two reads.
                sockets = [socket.socket(fileno=descriptor) for descriptor in self._descriptors]
                self._descriptors.clear()
                self.covers.put_nowait(Cover(lane, sockets[:plain], sockets[plain:]))
            elif word == b"uncover":
                self.covers.put_nowait(Uncover(int(rest)))
