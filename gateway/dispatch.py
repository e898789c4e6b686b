"""
Which protocol a connection speaks: over TLS as the two sides have agreed (ALPN), else by its first bytes.

HTTP/2 without TLS is for those who know that it is served here (RFC 9113 §3.3), such as a proxy in front: they begin
with its preface. ``Upgrade: h2c`` was taken out of HTTP/2, and is ignored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

ProtocolFactory = Callable[..., asyncio.Protocol]
"""Called with the four arguments that uvicorn constructs its protocols with, by name."""


class HandedOver(Exception):
    """Told to a protocol instead of an error: the connection lives, and is no longer its own."""


class Dispatcher(asyncio.Protocol):
    """
    Hands each connection to *h1* or *h2*, and is then out of its way; without *h2* all are HTTP/1.1.

    Without TLS, *h1* has the connection from its beginning, so that its limits hold from then on.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        h1: ProtocolFactory,
        h2: ProtocolFactory | None,
    ) -> None:
        self._arguments = {"config": config, "server_state": server_state, "app_state": app_state, "_loop": _loop}
        self._h1 = h1
        self._h2 = h2
        self._first: asyncio.Protocol
        self._transport: asyncio.Transport
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Over TLS the choice has been made."""
        self._transport = cast(asyncio.Transport, transport)
        tls = transport.get_extra_info("ssl_object")
        is_h2 = tls is not None and self._h2 is not None and tls.selected_alpn_protocol() == "h2"
        self._first = (self._h2 if is_h2 and self._h2 is not None else self._h1)(**self._arguments)
        if tls is not None or self._h2 is None:
            self._transport.set_protocol(self._first)
        self._first.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Decide as soon as it is sure."""
        seen = self._seen = self._seen + data
        if seen.startswith(PREFACE):
            assert self._h2 is not None
            self._first.connection_lost(HandedOver())
            second = self._h2(**self._arguments)
            self._transport.set_protocol(second)
            try:
                second.connection_made(self._transport)
            except RuntimeError:  # it was refused already, and all has been said
                self._transport.abort()
                return
            second.data_received(seen)
        elif not PREFACE.startswith(seen):
            self._transport.set_protocol(self._first)
            self._first.data_received(seen)

    def eof_received(self) -> bool | None:
        """As HTTP/1.1 has it: what came is no preface."""
        self._transport.set_protocol(self._first)
        if self._seen:
            self._first.data_received(self._seen)
        return self._first.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Before anything was sure."""
        self._first.connection_lost(exc)

    def pause_writing(self) -> None:
        """As HTTP/1.1 has it."""
        self._first.pause_writing()

    def resume_writing(self) -> None:
        """As HTTP/1.1 has it."""
        self._first.resume_writing()
