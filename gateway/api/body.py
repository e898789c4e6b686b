"""
Reads a request's body within its bound, undoing its content encoding with the same bound, so that a small body that
unpacks to a huge one costs no more than an honest one.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Protocol

import brotli
from starlette.requests import ClientDisconnect, Request

from gateway.api.errors import BodyTooSlow, UnsupportedContentEncoding
from gateway.api.fields import Fields
from gateway.core.errors import InvalidRequest, RequestTooLarge

BODY_TIMEOUT_SECS = 300  # Source: apify-wire.md §4.2
_PART_BYTES = 256 * 1024
_SUPPORTED = "br, gzip, deflate, identity"


class _Decoder(Protocol):
    """Undoes one content encoding, piece by piece."""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """What *piece* unpacks to, in parts of about ``_PART_BYTES``, each unpacked when it is asked for."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether the encoded stream came to its own end."""
        ...


class _Identity:
    is_complete = True

    def feed(self, piece: bytes) -> Iterator[bytes]:
        yield piece


class _Zlib:
    """Gzip and deflate; the latter with or without the zlib head, since senders do both."""

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._inner = zlib.decompressobj(wbits)
        self._begun = False

    @property
    def is_complete(self) -> bool:
        return self._inner.eof

    def feed(self, piece: bytes) -> Iterator[bytes]:
        part = b""
        while piece or len(part) == _PART_BYTES:  # a full part may have left some more inside
            if piece and self._inner.eof:  # a gzip file may have several members
                self._inner = zlib.decompressobj(self._wbits)
            if piece and not self._begun:
                if self._wbits == zlib.MAX_WBITS and piece[0] & 0x0F != zlib.DEFLATED:
                    self._wbits = -zlib.MAX_WBITS
                    self._inner = zlib.decompressobj(self._wbits)
                self._begun = True
            part = self._inner.decompress(piece, _PART_BYTES)
            piece = self._inner.unused_data if self._inner.eof else self._inner.unconsumed_tail
            yield part


class _Brotli:
    def __init__(self) -> None:
        self._inner = brotli.Decompressor()

    @property
    def is_complete(self) -> bool:
        return bool(self._inner.is_finished())

    def feed(self, piece: bytes) -> Iterator[bytes]:
        part = bytes(self._inner.process(piece, output_buffer_limit=_PART_BYTES))
        yield part
        # A full part may have left some more inside, though the decoder says that it could take more.
        while not self._inner.is_finished() and (len(part) >= _PART_BYTES or not self._inner.can_accept_more_data()):
            part = bytes(self._inner.process(b"", output_buffer_limit=_PART_BYTES))
            yield part


def _decoder(encoding: str) -> _Decoder:
    match encoding.strip().lower():
        case "" | "identity":
            return _Identity()
        case "gzip" | "x-gzip":
            return _Zlib(16 + zlib.MAX_WBITS)
        case "deflate":
            return _Zlib(zlib.MAX_WBITS)
        case "br":
            return _Brotli()
        case other:
            raise UnsupportedContentEncoding(f"Content-Encoding '{other}' is not understood; use one of {_SUPPORTED}.")


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The body is larger than {limit} bytes.", data={"limitBytes": limit})


async def pieces(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """
    The decoded body of *request* as it comes, at most *limit* bytes of it and never much of it at once.

    Raises RequestTooLarge, UnsupportedContentEncoding, BodyTooSlow, and InvalidRequest when it can't be decoded.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    encoding = request.headers.get("content-encoding", "")
    decoder = _decoder(encoding)
    received = unpacked = 0
    stream = request.stream()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + BODY_TIMEOUT_SECS
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                piece = await anext(stream, None)
        except TimeoutError:
            raise BodyTooSlow(f"The body did not arrive within {BODY_TIMEOUT_SECS} s.") from None
        except ClientDisconnect:
            raise InvalidRequest("The body was cut off.") from None
        if piece is None:
            break
        received += len(piece)
        parts = decoder.feed(piece)
        while True:
            try:
                part = next(parts, None)
            except (zlib.error, brotli.error) as error:
                raise InvalidRequest(f"The body is not what Content-Encoding '{encoding}' says.") from error
            if part is None:
                break
            unpacked += len(part)
            if received > limit or unpacked > limit:
                raise _too_large(limit)
            if part:
                yield part
    if received and not decoder.is_complete:
        raise InvalidRequest(f"The body is cut off in the middle of its '{encoding}' encoding.")


async def read_body(request: Request, limit: int) -> bytes:
    """The whole decoded body, at most *limit* bytes."""
    return b"".join([piece async for piece in pieces(request, limit)])


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def parse_json(raw: bytes) -> Any:
    """The JSON value that *raw* is, one that every store can give back. Raises InvalidRequest."""
    try:
        value = json.loads(raw, parse_constant=_no_constant)
        # A lone surrogate (written as an escape) is no text and 1e999 no number: no store could give them back.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The body is not valid JSON: {_reason(error)}.") from error
    return value


def parse_object(raw: bytes) -> Fields:
    """The JSON object that *raw* is; an empty body is an empty object. Raises InvalidRequest."""
    if not raw.strip():
        return Fields({})
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return Fields(value)


def _reason(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return f"{error.msg} at line {error.lineno}, column {error.colno}"
        case RecursionError():
            return "it is nested too deeply"
        case UnicodeError():
            return "it is not UTF-8 text"
        case _:
            return "it has a number that is none or too long"
