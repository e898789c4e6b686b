"""One HTTP request read from a client: its head within bounds, then its body as it comes. Read by one strict parser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httptools

from autoscaler.launchers.docker.socket_filter.forbidden import Forbidden, Malformed

MAX_HEAD_BYTES = 256 * 1024  # the arguments of a build stand in its target
MAX_JSON_BYTES = 4 * 1024 * 1024
_READ_BYTES = 64 * 1024
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class Request:
    """
    The one request of a connection. What follows it is not looked at: the connection ends with the answer.

    ``registry_config``: credentials for the base images of a build, the one header that is passed on.
    """

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._parser: Any = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._is_head_read = False
        self._is_read = False
        self._pieces: list[bytes] = []

    # What the parser calls

    def on_url(self, piece: bytes) -> None:
        self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_head_read:
            raise ValueError("headers after the body")
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._is_head_read = True

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        self._is_read = True

    # What the filter calls

    async def read_head(self) -> bool:
        """False where the client left without a word. Raises Malformed, or Forbidden for an upgrade."""
        size = 0
        while not self._is_head_read:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                if size == 0:
                    return False
                raise Malformed("The request ends in its head.")
            self._feed(data)
            size += len(data)
            if size > MAX_HEAD_BYTES and not self._is_head_read:
                raise Malformed(f"The head has more than {MAX_HEAD_BYTES} bytes.")
        framing = [name for name, _ in self._headers if name in _FRAMING]
        if len(framing) > 1:
            raise Malformed("The head gives the length of the body more than once.")
        if self._header(b"upgrade") is not None:
            raise Forbidden("an upgrade to another protocol")
        if self._header(b"expect") is not None:
            raise Malformed("Send the body at once, without an Expect header.")
        return True

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise Forbidden("an upgrade to another protocol") from error
        except httptools.HttpParserError as error:
            raise Malformed(f"This is no HTTP request: {error}.") from error

    def _header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self._headers if key == name), None)

    @property
    def method(self) -> str:
        """``GET``, ``POST``, …"""
        return str(self._parser.get_method().decode())

    @property
    def target(self) -> str:
        """As it stands in the request line. Raises Malformed."""
        try:
            return self._target.decode("ascii")
        except ValueError as error:
            raise Malformed("The target has letters that belong into no URL.") from error

    @property
    def registry_config(self) -> bytes | None:
        """The header ``X-Registry-Config``."""
        return self._header(b"x-registry-config")

    async def body(self) -> AsyncIterator[bytes]:
        """Piece by piece, to its end. Raises Malformed where it breaks off."""
        while True:
            pieces, self._pieces = self._pieces, []
            for piece in pieces:
                yield piece
            if self._is_read:
                return
            data = await self._reader.read(_READ_BYTES)
            if not data:
                raise Malformed("The request ends in its body.")
            self._feed(data)

    async def whole_body(self) -> bytes:
        """All of it. Raises Malformed, also beyond the limit for JSON."""
        content = bytearray()
        async for piece in self.body():
            content += piece
            if len(content) > MAX_JSON_BYTES:
                raise Malformed(f"The body has more than {MAX_JSON_BYTES} bytes.")
        return bytes(content)

    async def left(self) -> None:
        """Until the client sends no more. What it may still say is for nobody."""
        while await self._reader.read(_READ_BYTES):
            pass
