"""
uvicorn's HTTP/1.1 with a bound on the head of a request: its parser would collect one without end in memory.

Connections that are to outlive this process can leave it here, before uvicorn makes WebSockets of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway.core.errors import HeadTooLarge
from gateway.proxy.splice.splicing import Splicing
from gateway.whole_requests import WholeRequest

MAX_HEAD_BYTES = 64 * 1024
_LINGER_SECS = 1.0
_AROUND_HEADER = len(": \r\n")

# Method, target, headers and descriptor of a connection that asks for an upgrade: whether somebody else has taken it.
PassOn = Callable[[str, bytes, Sequence[tuple[bytes, bytes]], int], bool]


class BoundedHead(HttpToolsProtocol):
    """
    A head of more than 64 KiB is answered with 431, and the connection closed. Of one that has no end at most as much
    again as one read of the socket is taken in before that. *pass_on* is offered each upgrade to a WebSocket.
    """

    def __init__(
        self, *arguments: Any, pass_on: PassOn | None = None, shared: Splicing | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._pass_on = pass_on
        self._shared = shared
        self._is_in_head = False
        self._is_too_large = False
        self._head_bytes = 0
        self._unparsed_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Parse, and count what stays in the parser because the line that it belongs to has no end yet."""
        if self._is_too_large:
            return
        was_in_head = self._is_in_head
        super().data_received(data)
        if was_in_head and self._is_in_head and not self._is_too_large:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > MAX_HEAD_BYTES:
                self._is_too_large = True
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """A head begins."""
        self._is_in_head, self._head_bytes, self._unparsed_bytes = True, 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header."""
        self._count(len(name) + len(value) + _AROUND_HEADER)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._is_in_head = False
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """A request has its head: it is served with all of it that comes, whether or not its sender stays."""
        whole: Any = WholeRequest(app, cycle)
        super()._start_asgi_task(cycle, whole)

    @property
    def has_asked(self) -> bool:
        """Whether a request has come over this connection, or has begun to."""
        return self.cycle is not None or self._is_in_head

    def handle_websocket_upgrade(self) -> None:
        """Asked for a WebSocket: one that somebody else takes is dropped here without being shut down."""
        if self._pass_on is not None and self._may_leave():
            connection = self.transport.get_extra_info("socket").fileno()
            if self._pass_on(self.scope["method"], self.url, self.headers, connection):
                self.transport.abort()
                return
        super().handle_websocket_upgrade()

    def _may_leave(self) -> bool:
        """Nothing of an earlier answer is still on its way, and what is on its way can be read without our keys."""
        if self.transport.get_extra_info("ssl_object") is not None:
            return False
        is_idle = self.cycle is None or self.cycle.response_complete
        return is_idle and not self.transport.get_write_buffer_size() and self.scope["http_version"] == "1.1"

    def send_400_response(self, msg: str) -> None:
        """What uvicorn answers to that which is no HTTP; here also what is answered to too long a head."""
        if not self._is_too_large:
            super().send_400_response(msg)
            return
        error = HeadTooLarge(f"The head of a request may have {MAX_HEAD_BYTES} bytes.")
        body = json.dumps(error.body()).encode()
        self.transport.write(
            b"HTTP/1.1 %d Request Header Fields Too Large\r\ncontent-type: application/json; charset=utf-8\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (error.http_status, len(body), body)
        )
        # Closing while more comes would reset the connection, and could destroy the answer on its way.
        self.loop.call_later(_LINGER_SECS, self.transport.close)

    def _count(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > MAX_HEAD_BYTES:
            self._is_too_large = True
            raise ValueError("The head is too large.")  # ends the parser, upon which uvicorn sends its 400: see there
