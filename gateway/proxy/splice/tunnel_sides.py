"""The two connections of a tunnel, each as the protocol of one transport: what comes of one goes to the *other*."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from typing import Protocol

from gateway.proxy.actor_socket import LOST
from gateway.proxy.sockets import reset_on_abort
from gateway.proxy.splice.frames import NO_CODE, Ending, FrameWalker, close_frame
from gateway.proxy.websocket import GOING_AWAY, INTERNAL_ERROR, ClosedBy


class Owner(Protocol):
    """What the sides tell their tunnel."""

    def on_activity(self) -> None:
        """Something passed that counts as use."""

    def begin_to_end(self, by: ClosedBy, code: int, reason: str, *, is_limited: bool = False) -> None:
        """It will end; the first word on why counts, and from then on nobody waits for ever."""

    def paused(self) -> None:
        """A side is not read from for now, and so nobody would see its end."""

    def lost(self) -> None:
        """One of the connections is gone."""


class Side(asyncio.Protocol, ABC):
    """
    One connection.

    Reading from it pauses while the other one is written to more slowly than it sends.
    """

    __slots__ = (
        "_owner", "by", "bytes_dropped", "bytes_passed", "is_eof", "is_lost", "is_read_paused", "is_told", "other",
        "transport",
    )  # fmt: skip

    other: Side

    def __init__(self, owner: Owner, transport: asyncio.Transport, by: ClosedBy) -> None:
        self._owner = owner
        self.transport = transport
        self.by = by
        self.bytes_passed = 0
        """Of what came from it."""
        self.bytes_dropped = 0
        """Of what came after a fault of its own."""
        self.is_eof = False  # nothing more comes
        self.is_told = False  # nothing more is written to it
        self.is_lost = False
        self.is_read_paused = True  # perhaps, by the previous protocol
        self.resume_reading()

    @property
    def messages(self) -> int:
        """Messages that came from it, where there is such a thing."""
        return 0

    def pause_writing(self) -> None:
        if not self.is_told:  # else what comes of the other is dropped: only its end is waited for
            self.other.pause_reading()

    def resume_writing(self) -> None:
        self.other.resume_reading()

    def pause_reading(self) -> None:
        """Until the other side has taken what was written to it."""
        if not self.is_read_paused and not self.transport.is_closing():
            self.is_read_paused = True
            self.transport.pause_reading()
            self._owner.paused()

    def resume_reading(self) -> None:
        """Read on."""
        if self.is_read_paused and not self.transport.is_closing():
            self.is_read_paused = False
            self.transport.resume_reading()

    @abstractmethod
    def bid_farewell(self, code: int, reason: str) -> None:
        """Greenroom wants to close."""

    def abort(self) -> None:
        """Cut it."""
        if not self.is_lost:
            self.transport.abort()

    def end_writing(self) -> None:
        """Pass the end of a direction on; TLS has none but the end of both."""
        self.is_told = True
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _stays_open(self) -> bool:
        """What to answer to an end of stream: over TLS the transport closes anyway, and complains about a yes."""
        if self.transport.get_extra_info("ssl_object") is None:
            return True
        self.is_told = True
        return False


class ByteSide(Side):
    """A side of any upgrade but a WebSocket's: all is bytes, and each direction ends by itself."""

    __slots__ = ()

    other: ByteSide

    def data_received(self, data: bytes) -> None:
        self._owner.on_activity()
        if not self.other.is_told:
            self.bytes_passed += len(data)
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self.is_eof = True
        self.other.end_writing()
        if self.other.is_eof:
            self._owner.begin_to_end(self.other.by, NO_CODE, "")
            self.other.transport.close()
            self.transport.close()
        return self._stays_open()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = self.is_told = True
        if exc is None and self.other.is_eof:  # over TLS, where the other's end was passed on by closing
            self._owner.begin_to_end(self.other.by, NO_CODE, "")
        else:
            self._owner.begin_to_end(self.by, LOST, "")
        if not self.other.is_lost:
            if self.is_eof:
                self.other.transport.close()
            else:
                self.other.reset()
        self._owner.lost()

    def reset(self) -> None:
        """Cut it so that nobody takes what has passed for the whole: a plain cut is an end of stream there."""
        reset_on_abort(self.transport)
        self.transport.abort()

    def bid_farewell(self, code: int, reason: str) -> None:
        """There is no word for it."""
        self.abort()


class FrameSide(Side):
    """
    A side of a WebSocket.

    It is done when no more of its frames may pass: after its close frame, a fault, or its end. It was told when no more
    frames may follow towards it. Both together, and it may leave: a caller is closed, an Actor closes by itself (RFC
    6455 §7.1.1), for else all the ports would wait on our side.
    """

    __slots__ = ("_is_broken", "farewell", "is_done", "walker")

    other: FrameSide

    def __init__(self, owner: Owner, transport: asyncio.Transport, by: ClosedBy, walker: FrameWalker) -> None:
        super().__init__(owner, transport, by)
        self.walker = walker  # over what comes from it
        self.farewell = b""  # a close frame that waits for the end of the frame before it
        self.is_done = False
        self._is_broken = False  # its bytes can't be read any more, the answer to a close frame included

    @property
    def messages(self) -> int:
        return self.walker.messages

    def data_received(self, data: bytes) -> None:
        other = self.other
        if other.farewell:
            left = self.walker.bytes_to_boundary
            self._pass(data[:left])
            if not self.walker.is_at_boundary:
                return
            other.say_last(other.farewell)
            data = data[left:]
        self._pass(data)

    def eof_received(self) -> bool:
        self.is_eof = True
        self._vanish()
        self.leave()
        return self._stays_open()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_eof = self.is_lost = True
        self._vanish()
        self.is_told = True
        self.other.resume_reading()  # its end must be seen
        self._owner.lost()

    def bid_farewell(self, code: int, reason: str) -> None:
        """A close frame, as soon as one may stand there; without effect if there was one already."""
        if self.is_told or self.farewell:
            return
        frame = close_frame(code, reason, os.urandom(4) if self.by is ClosedBy.ACTOR else b"")
        if self.other.walker.is_at_boundary:
            self.say_last(frame)
        else:
            self.farewell = frame

    def _pass(self, data: bytes) -> None:
        walker = self.walker
        passed = walker.feed(data)
        if passed and not self.other.is_told:
            self.bytes_passed += len(passed)
            self.other.transport.write(passed)
            if walker.has_data:
                self._owner.on_activity()
        elif self._is_broken:
            self.bytes_dropped += len(data)
        if walker.ending is not None and not self.is_done:
            self._hear(walker.ending)

    def _hear(self, ending: Ending) -> None:
        """Its close frame, or its fault."""
        self.is_done = True
        self._is_broken = ending.is_fault
        self._owner.begin_to_end(self.by, ending.code, ending.reason, is_limited=ending.is_fault)
        if ending.is_fault:
            self.other.bid_farewell(ending.code, ending.reason)
            self.bid_farewell(ending.code, ending.reason)
        else:
            self.other.is_told = True
            self.resume_reading()  # although the other may not have taken it yet
            self.other.leave()
        self.leave()

    def _vanish(self) -> None:
        """It ended without a close frame."""
        if self.is_done:
            return
        self.is_done = True
        self._owner.begin_to_end(self.by, LOST, "")
        if not self.walker.is_at_boundary or self.other.is_done:
            self.other.cut()
        elif self.by is ClosedBy.CLIENT:
            self.other.bid_farewell(GOING_AWAY, "")
        else:
            self.other.bid_farewell(INTERNAL_ERROR, "run ended")

    def say_last(self, frame: bytes) -> None:
        """*frame* now, and nothing after it."""
        self.is_told = True  # before it is written: the other's reading is not to pause for it
        self.farewell = b""
        if not self.transport.is_closing():
            self.transport.write(frame)
        self.other.resume_reading()
        self.leave()

    def cut(self) -> None:
        """Nothing that could follow would be understood."""
        if not self.is_told:
            self.farewell = b""
            self.end_writing()
            self.leave()

    def leave(self) -> None:
        """Close it, if nothing is to be said any more in either direction."""
        if not (self.is_done and self.is_told) or self.is_lost:
            return
        if self.is_eof or (self.by is ClosedBy.CLIENT and not self._is_broken):
            self.transport.close()
        elif self._is_broken:
            # Closed at once, with its bytes unread, the kernel would reset the connection and the close frame with it.
            self.end_writing()
