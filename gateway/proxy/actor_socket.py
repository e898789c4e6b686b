"""
The Actor's side of a relayed WebSocket, after its opening handshake: frames by the sans-I/O client of ``websockets``.

It gathers whole messages and answers the Actor's pings by itself; a tunnel (``splice/tunnel``) does neither.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidState, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import WebSocketURI

_MAX_QUEUED_BYTES = 256 * 1024
_MAX_QUEUED_MESSAGES = 64

NO_CODE = 1005
LOST = 1006
INVALID_DATA = 1007
TOO_BIG = 1009


class ActorSocket(asyncio.Protocol):
    """
    The Actor's side of an open WebSocket, after its handshake.

    Reading pauses while more than some messages wait to be taken, and ``send`` waits while the Actor reads slowly.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._frames = ClientProtocol(
            WebSocketURI(secure=False, host="actor", port=80, path="/", query=""),
            state=OPEN,
            max_size=max_message_bytes,
        )
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._messages: deque[str | bytes] = deque()
        self._queued_bytes = 0
        self._partial = bytearray()
        self._is_partial_text = False
        self._is_read_paused = False
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self._sent_code: int | None = None

    @property
    def close_code(self) -> int:
        """The code that ended it: the Actor's, or ours where the Actor broke the rules; 1005 none, 1006 lost."""
        if self._frames.close_rcvd is not None:
            return self._frames.close_rcvd.code
        if self.is_our_fault and self._frames.close_sent is not None:
            return self._frames.close_sent.code
        return LOST

    @property
    def close_reason(self) -> str:
        """The reason that goes with the code."""
        if self._frames.close_rcvd is not None:
            return self._frames.close_rcvd.reason
        return {TOO_BIG: "message too big", INVALID_DATA: "invalid data"}.get(self.close_code, "")

    @property
    def is_our_fault(self) -> bool:
        """Whether we closed because the Actor broke the protocol or a limit."""
        return self._frames.close_rcvd is None and self._sent_code is None and self._frames.close_sent is not None

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._frames.receive_data(data)
        self._take_events()
        self._flush()
        if self._queued_bytes > _MAX_QUEUED_BYTES or len(self._messages) > _MAX_QUEUED_MESSAGES:
            self._pause_reading()

    def eof_received(self) -> None:
        self._frames.receive_eof()
        self._take_events()
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._frames.receive_eof()
        self._lost.set()
        self._arrived.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # For the relay

    async def receive(self) -> str | bytes | None:
        """The next message, or None when none will follow."""
        while not self._messages:
            if self._frames.state is not OPEN or self._lost.is_set():
                return None
            self._arrived.clear()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._queued_bytes -= len(message)
        if not self._messages:
            self._resume_reading()
        return message

    async def send(self, data: bytes, *, is_text: bool) -> None:
        """Send a message, waiting while the Actor reads slowly; after the end it goes nowhere."""
        try:
            if is_text:
                self._frames.send_text(data)
            else:
                self._frames.send_binary(data)
        except InvalidState:
            return
        self._flush()
        await self._writable.wait()

    def send_close(self, code: int | None, reason: str) -> None:
        """Begin to close; without effect once it is closing."""
        try:
            self._frames.send_close(code, reason)
        except (InvalidState, ProtocolError):
            return
        self._sent_code = NO_CODE if code is None else code
        self._messages.clear()
        self._queued_bytes = 0
        self._flush()
        self._resume_reading()  # or the Actor's answer might never be seen

    async def wait_closed(self, secs: float) -> None:
        """Until the Actor has closed the connection, for *secs* at most."""
        if self._transport is None or self._transport.is_closing():
            return
        self._resume_reading()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(secs):
                await self._lost.wait()

    def abort(self) -> None:
        """Cut the connection, if it still stands."""
        if self._transport is not None and not self._lost.is_set():
            self._transport.abort()

    def _take_events(self) -> None:
        for event in self._frames.events_received():
            if not isinstance(event, Frame):
                continue
            if event.opcode in (Opcode.TEXT, Opcode.BINARY):
                self._is_partial_text = event.opcode is Opcode.TEXT
            elif event.opcode is not Opcode.CONT:
                continue
            self._partial += event.data
            if event.fin:
                self._take_message()
        if self._frames.state is not OPEN:
            self._arrived.set()

    def _take_message(self) -> None:
        data, self._partial = bytes(self._partial), bytearray()
        if self._sent_code is not None:
            return  # we are closing: read on for the Actor's close frame alone
        message: str | bytes = data
        if self._is_partial_text:
            try:
                message = data.decode()
            except UnicodeDecodeError:
                self._frames.fail(INVALID_DATA, "invalid UTF-8")
                return
        self._messages.append(message)
        self._queued_bytes += len(message)
        self._arrived.set()

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._frames.data_to_send():
            if self._transport.is_closing():
                return
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._is_read_paused and not self._transport.is_closing():
            self._is_read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._transport is not None and self._is_read_paused and not self._transport.is_closing():
            self._is_read_paused = False
            self._transport.resume_reading()
