"""One open events socket, as the holder keeps it: frames go out, pings both ways, and a slow Actor delays nobody."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from websockets.exceptions import InvalidState
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

PING_SECS = 20.0
# Unanswered ones, some minutes: an Actor whose event loop is blocked lives, and Apify's SDK for JavaScript never
# connects again; of a process that has ended its connection tells. Counted, since a holder that stood still did not
# listen.
_MAX_PINGS = 15
_CLOSE_SECS = 5.0  # for the Actor to answer a close
_MAX_HEARD_BYTES = 64 * 1024  # of one message; clients have nothing to say here
_MAX_UNSENT_BYTES = 64 * 1024
_MAX_WAITING = 200

TOO_SLOW = 1013
# Of what is told each second only the newest matters.
_STALE = frozenset({"systemInfo", "cpuInfo"})


class HeldSocket(asyncio.Protocol):
    """
    A connection whose request, *head*, asks for the upgrade. All methods may be called before the handshake is done.

    ``heard``: the names of the events that went to it. *on_end* is called once, when the connection is gone.
    """

    def __init__(self, head: bytes, on_end: Callable[[HeldSocket], None]) -> None:
        self.heard: set[str] = set()
        self._head = head
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._frames = ServerProtocol(max_size=_MAX_HEARD_BYTES)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[str, tuple[str, ...]]] = deque()
        self._is_writable = False
        self._closing: tuple[int, str] | None = None
        self._pings = 0  # since it was last heard
        self._timer: asyncio.TimerHandle | None = None

    def send(self, name: str, frames: tuple[str, ...]) -> None:
        """Send text frames, the first of which is the event *name*; too many unsent ones are an end."""
        if self._closing is not None:
            return
        self.heard.add(name)
        self._waiting.append((name, frames))
        self._flush_waiting()
        if len(self._waiting) > _MAX_WAITING:
            stale = next((item for item in self._waiting if item[0] in _STALE), None)
            if stale is None:
                self.close(TOO_SLOW, "the Actor does not read its events")
            else:
                self._waiting.remove(stale)

    def close(self, code: int, reason: str) -> None:
        """Close after what has been sent so far; the connection is cut where the Actor does not answer in time."""
        if self._closing is not None:
            return
        self._closing = (code, reason)
        if self._transport is not None:
            self._begin_close()

    def give_up(self) -> None:
        """There is no connection (any more)."""
        if self._transport is not None:
            self._transport.abort()
        else:
            self._on_end(self)

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_MAX_UNSENT_BYTES)
        self._is_writable = True
        self._timer = self._loop.call_later(PING_SECS, self._ping)
        self._frames.receive_data(self._head)
        for event in self._frames.events_received():
            if isinstance(event, Request):
                self._frames.send_response(self._frames.accept(event))
        self._flush()
        if self._frames.state is not OPEN:
            self._transport.close()  # the handshake was refused, which has been told
            return
        self._flush_waiting()
        if self._closing is not None:
            self._begin_close()

    def data_received(self, data: bytes) -> None:
        self._pings = 0
        self._frames.receive_data(data)
        self._frames.events_received()  # pings are answered by that; what Actors say is not looked at
        self._flush()

    def eof_received(self) -> None:
        self._frames.receive_eof()

    def pause_writing(self) -> None:
        self._is_writable = False

    def resume_writing(self) -> None:
        self._is_writable = True
        self._flush_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        self._on_end(self)

    # Inside

    def _begin_close(self) -> None:
        assert self._closing is not None
        assert self._transport is not None
        self._flush_waiting()
        self._waiting.clear()
        try:
            self._frames.send_close(*self._closing)
        except InvalidState:
            self._transport.close()
            return
        self._flush()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_CLOSE_SECS, self._transport.abort)

    def _ping(self) -> None:
        assert self._transport is not None
        if self._pings >= _MAX_PINGS:
            self._transport.abort()
            return
        self._pings += 1
        self._timer = self._loop.call_later(PING_SECS, self._ping)
        if self._is_writable and self._frames.state is OPEN:
            self._frames.send_ping(b"")
            self._flush()

    def _flush_waiting(self) -> None:
        while self._waiting and self._is_writable and self._frames.state is OPEN:
            for text in self._waiting.popleft()[1]:
                self._frames.send_text(text.encode())
            self._flush()

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._frames.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()
