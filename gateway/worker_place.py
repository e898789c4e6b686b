"""What a worker has from its parent, which tells the rules of it (``gateway.parent``)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field


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


class ParentLine:
    """The worker's end of the lines to and from its parent; without a *control* socket nobody listens."""

    def __init__(self, control: socket.socket | None) -> None:
        self._control = control
        self._unread = b""
        self.hand_over = asyncio.Event()
        self.go = asyncio.Event()

    def say(self, line: str) -> None:
        """Tell the parent; should it be dying, this process is too."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.sendall(f"{line}\n".encode())

    def listen(self) -> None:
        """Note what it says from now on."""
        if self._control is not None:
            asyncio.get_running_loop().add_reader(self._control.fileno(), self._read)

    def _read(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            if line == b"hand over":
                self.hand_over.set()
            elif line == b"go":
                self.go.set()
