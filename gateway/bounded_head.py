"""
uvicorn's HTTP/1.1 behind the same strict reading of requests that the protocol class has, and with the same limits.

Its parser alone collects heads without end, and takes for a request what another server reads in another way. So
whatever comes is read by us first, and reaches that parser only in the one form that cannot be misunderstood: a head
that was checked, a body that is as long as it says, chunks without extensions and trailers, and no request before the
one before it is answered.

Connections that are to outlive this process can leave it here, before uvicorn makes WebSockets of them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.core.errors import GreenroomError, InvalidRequest, RequestTooSlow, TooManyConnections
from gateway.proxy.decisions import monotonic
from gateway.proxy.splice.chunks import BadChunk
from gateway.proxy.splice.head_reader import HeadReader
from gateway.proxy.splice.lobby import Lobby
from gateway.proxy.splice.own_answers import error_answer
from gateway.proxy.splice.request_head import split_block
from gateway.proxy.splice.upload import Upload
from gateway.proxy.splice.wheel import NEVER
from gateway.whole_requests import WholeRequest

_LINGER_SECS = 1.0
_MAX_STASH_BYTES = 64 * 1024
# What curl sends as it was typed, uvicorn can't read.
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_SPACE_AT_END = re.compile(rb"[ \t]+(?=\r\n)")

# Method, target, headers and descriptor of a connection that asks for an upgrade: whether somebody else has taken it.
PassOn = Callable[[str, bytes, Sequence[tuple[bytes, bytes]], int], bool]


class BoundedHead(HttpToolsProtocol):
    """
    What is refused is answered with its error, and the connection closed. *pass_on* is offered each upgrade to a
    WebSocket. *lobby* has the limits.
    """

    def __init__(self, *arguments: Any, lobby: Lobby, pass_on: PassOn | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lobby = lobby
        self._pass_on = pass_on
        self._heads = HeadReader(lobby.requests)
        self._upload = Upload(bare=True)
        self._is_chunked = False
        self._stash: list[bytes] = []
        self._stash_bytes = 0
        self._is_over = False  # nothing more is taken in
        self._peer = ""
        # For the wheel
        self.deadline = NEVER
        self.visit_at = NEVER

    @property
    def has_asked(self) -> bool:
        """Whether a request has come over this connection, or has begun to."""
        return self.cycle is not None or bool(self._heads.held)

    # From the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Counted, also where somebody else had it before."""
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else ""
        setting = self._lobby.connections.admit(transport, self._peer)
        if setting is not None:
            self._refuse(TooManyConnections(setting))
        else:
            self._wait(self._lobby.settings.head_timeout_secs)

    def connection_lost(self, exc: Exception | None) -> None:
        """No longer counted."""
        self._is_over = True
        self._lobby.wheel.forget(self)
        self.deadline = NEVER
        self._lobby.connections.gone(self.transport, self._peer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """What is checked goes to the parser; what comes before its time waits."""
        try:
            while data and not self._is_over:
                if not self._upload.is_over:
                    data = self._body(data)
                elif self._stash or self._is_answering():
                    self._keep(data)
                    return
                else:
                    data = self._head(data)
        except GreenroomError as error:
            self._refuse(error)
        except BadChunk as error:
            self._refuse(InvalidRequest(f"The body of the request is malformed: {error}."))

    def expired(self, now: float) -> None:
        """The wheel comes by."""
        settings = self._lobby.settings
        if self._is_over:
            self.transport.abort() if self.transport.is_closing() else self.transport.close()
            self._wait(settings.keep_alive_secs)
        elif not self._upload.is_over:
            if self.flow.read_paused:  # it is the app that takes its time
                self._wait(settings.body_idle_timeout_secs)
                return
            self._refuse(
                RequestTooSlow(
                    f"Nothing more of the request's body came for {settings.body_idle_timeout_secs:g} s "
                    "(setting: body_idle_timeout_secs)."
                )
            )
        elif self._heads.held:
            self._refuse(
                RequestTooSlow(
                    f"The head of the request did not come within {settings.head_timeout_secs:g} s "
                    "(setting: head_timeout_secs)."
                )
            )
        elif not self._is_answering():
            self.transport.close()

    # What comes

    def _head(self, data: bytes) -> bytes:
        """The next head, or its beginning; what is left of *data*."""
        was_held = self._heads.held
        self._unset_keepalive_if_required()
        head = self._heads.read(data)
        if head is None:
            if not was_held:
                self._wait(self._lobby.settings.head_timeout_secs)
            return b""
        line, seen, _, data, at = head
        self._is_chunked = (seen.length or 0) < 0
        if seen.length:
            self._upload.begin(seen.length)
            self._wait(self._lobby.settings.body_idle_timeout_secs)
        else:
            self.deadline = NEVER
        # The target as it was understood: of a whole address, the path.
        target = line.target if line.target.isascii() else _NOT_ASCII.sub(_percent_encoded, line.target)
        begin = b"%b %b HTTP/1.%d" % (line.method, target, line.minor)
        lines = data[data.find(b"\r\n") : at]
        if b"upgrade" in seen.head.options and seen.head.upgrade != b"websocket":
            lines = _without_upgrade(lines)
        if b" \r\n" in lines or b"\t\r\n" in lines:  # which the parser takes for a part of the value
            lines = _SPACE_AT_END.sub(b"", lines)
        super().data_received(begin + lines)
        return data[at:]

    def _body(self, data: bytes) -> bytes:
        """More of the body; what is left of *data*."""
        pieces, at = self._upload.feed(data)
        if self._is_chunked:
            pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece]
            if self._upload.is_over:
                pieces.append(b"0\r\n\r\n")
        if self._upload.is_over:
            self.deadline = NEVER
        else:
            self._wait(self._lobby.settings.body_idle_timeout_secs)
        if pieces:
            super().data_received(b"".join(pieces))
        return data[at:]

    def _keep(self, data: bytes) -> None:
        self._stash.append(data)
        self._stash_bytes += len(data)
        if self._stash_bytes > _MAX_STASH_BYTES:
            self.flow.pause_reading()

    def _next(self) -> None:
        stash, self._stash, self._stash_bytes = self._stash, [], 0
        self.data_received(b"".join(stash))

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # From uvicorn

    def on_headers_complete(self) -> None:
        """The head is whole."""
        super().on_headers_complete()
        if self._lobby.is_leaving and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """The answer has gone: what waits is next."""
        super().on_response_complete()
        if self.transport.is_closing() or not self._upload.is_over:  # the rest of what was answered early is skipped
            return
        self._wait(self._lobby.settings.keep_alive_secs)
        if self._stash:
            self.loop.call_soon(self._next)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """A request has its head: it is served with all of it that comes, whether or not its sender stays."""
        whole: Any = WholeRequest(app, cycle)
        super()._start_asgi_task(cycle, whole)

    def handle_websocket_upgrade(self) -> None:
        """Asked for a WebSocket: one that somebody else takes is dropped here without being shut down."""
        self._is_over = True
        self._lobby.wheel.forget(self)
        self.deadline = NEVER
        if self._pass_on is not None and self._may_leave():
            connection = self.transport.get_extra_info("socket").fileno()
            if self._pass_on(self.scope["method"], self.url, self.headers, connection):
                self.transport.abort()
                return
        super().handle_websocket_upgrade()

    def _may_leave(self) -> bool:
        """Nothing of an earlier answer is still on its way, and what is on its way can be read without our TLS keys."""
        if self.transport.get_extra_info("ssl_object") is not None:
            return False
        return not self.transport.get_write_buffer_size() and self.scope["http_version"] == "1.1"

    def send_400_response(self, msg: str) -> None:
        """uvicorn's parser is stricter than ours here and there."""
        self._refuse(InvalidRequest(f"{msg.rstrip('.')}."))

    # The end

    def _refuse(self, error: GreenroomError) -> None:
        """Answered with *error*, as far as no answer has begun; and then there is no telling what follows."""
        if self._is_over:
            return
        self._is_over = True
        self._stash, self._heads.held = [], b""
        cycle = self.cycle
        if self._is_answering():
            has_begun, cycle.disconnected = cycle.response_started, True
            cycle.message_event.set()
            if has_begun:
                self.transport.abort()
                return
        elif not self._upload.is_over:  # it has its answer already
            self.transport.close()
            return
        self.transport.write(error_answer(error, method=b"GET", request_id=None, connection=b"close"))
        # Closing while more comes would reset the connection, and could destroy the answer on its way.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._wait(_LINGER_SECS)

    def _wait(self, secs: float) -> None:
        self.deadline = monotonic() + secs
        self._lobby.wheel.watch(cast(Any, self))


def _percent_encoded(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % found[0][0]


def _without_upgrade(lines: bytes) -> bytes:
    """The lines of a head without a wish for an upgrade that nobody here can fulfil, and which may be ignored."""
    kept = [b""]
    for name, value in split_block(lines[2:-4]):
        if name.lower() == b"upgrade":
            continue
        if name.lower() == b"connection":
            options = [option.strip(b" \t") for option in value.split(b",")]
            value = b", ".join(option for option in options if option.lower() != b"upgrade")
        kept.append(name + b": " + value)
    return b"\r\n".join([*kept, b"", b""])
