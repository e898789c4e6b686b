"""
No I/O: HTTP/1.1 as a strict reader has it, for both ends of a gateway under test.

A reader is a generator over a growing buffer: it yields when it needs more bytes, and gets Ended thrown in where none
will come. So the caller's side (blocking sockets) and the Actor's side (asyncio) read by the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, replace

Headers = tuple[tuple[bytes, bytes], ...]
Reading = Generator[None, None, "Message"]

_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) HTTP/1\.[01]")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2}) ?([\t\x20-\x7e\x80-\xff]*)")

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})([ \t]*;[\t\x20-\x7e\x80-\xff]*)?")


class Ended(Exception):
    """The other side sends nothing more."""


class Broken(Exception):
    """These bytes are no message that can be read in one way only; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request or an answer. ``is_whole`` is False where the stream ended before its body did."""

    first: bytes
    headers: Headers
    raw_head: bytes
    body: bytes = b""
    trailers: Headers = ()
    is_whole: bool = True
    ends_at_eof: bool = False

    @property
    def method(self) -> bytes:
        """Of a request."""
        return self.first.split(b" ")[0]

    @property
    def target(self) -> bytes:
        """Of a request."""
        return self.first.split(b" ")[1]

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.first.split(b" ")[1])

    def values(self, name: bytes) -> list[bytes]:
        """Of all headers with this *name* (lower case)."""
        return [value for key, value in self.headers if key.lower() == name]

    def one(self, name: bytes) -> bytes | None:
        """The only value of a header, or None."""
        values = self.values(name)
        assert len(values) < 2, (name, values)
        return values[0] if values else None

    @property
    def keeps_alive(self) -> bool:
        """Whether another message may follow on this connection."""
        options = {option.strip().lower() for value in self.values(b"connection") for option in value.split(b",")}
        if b"HTTP/1.0" in self.first:
            return b"keep-alive" in options and not self.ends_at_eof
        return b"close" not in options and not self.ends_at_eof


def head_of(buffer: bytearray, *, is_answer: bool, skips_empty_lines: bool = False) -> Reading:
    """
    The next head, without its body. Raises Broken.

    *skips_empty_lines*: as RFC 9112 §2.2 asks of servers; what a gateway sends has none.
    """
    while skips_empty_lines and (not buffer or buffer.startswith(b"\r")):
        if buffer.startswith(b"\r\n"):
            del buffer[:2]
        elif len(buffer) > 1:
            raise Broken("a bare CR before the first line")
        else:
            yield
    while (end := buffer.find(b"\r\n\r\n")) < 0:
        yield
    raw = bytes(buffer[: end + 4])
    del buffer[: end + 4]
    first, *lines = raw[:-4].split(b"\r\n")
    pattern = _STATUS_LINE if is_answer else _REQUEST_LINE
    if not pattern.fullmatch(first):
        raise Broken(f"the first line is {first[:200]!r}")
    return Message(first=first, headers=_headers(lines), raw_head=raw)


def body_of(
    buffer: bytearray, head: Message, *, method: bytes | None = None, allows_extensions: bool = False
) -> Reading:
    """
    *head* with the body that follows it; *method* is that of the request that an answer belongs to. Raises Broken.

    *allows_extensions* of chunks: a caller may send them, a gateway has to drop them.
    """
    length, is_chunked, is_until_eof = _framing(head, method)
    if is_chunked:
        return (yield from _chunked(buffer, head, allows_extensions))
    if is_until_eof:
        try:
            while True:
                yield
        except Ended:
            body = bytes(buffer)
            buffer.clear()
            return replace(head, body=body, ends_at_eof=True)
    is_whole = True
    try:
        while len(buffer) < length:
            yield
    except Ended:
        is_whole = False
    body = bytes(buffer[:length])
    del buffer[:length]
    return replace(head, body=body, is_whole=is_whole)


def _framing(head: Message, method: bytes | None) -> tuple[int, bool, bool]:
    lengths, codings = head.values(b"content-length"), head.values(b"transfer-encoding")
    if lengths and codings:
        raise Broken("both Content-Length and Transfer-Encoding")
    if len(lengths) > 1 or len(codings) > 1:
        raise Broken("a length twice")
    if lengths and not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
        raise Broken(f"Content-Length {lengths[0]!r}")
    if codings and codings[0].lower() != b"chunked":
        raise Broken(f"Transfer-Encoding {codings[0]!r}")
    if method is not None and (method == b"HEAD" or head.status in (204, 304) or head.status < 200):
        return 0, False, False
    if codings:
        return 0, True, False
    return int(lengths[0]) if lengths else 0, False, method is not None and not lengths


def _chunked(buffer: bytearray, head: Message, allows_extensions: bool) -> Reading:
    body = bytearray()
    try:
        while size := int(_size((yield from _line(buffer)), allows_extensions), 16):
            while len(buffer) < size + 2:
                yield
            if buffer[size : size + 2] != b"\r\n":
                raise Broken("a chunk is not as long as it says")
            body += buffer[:size]
            del buffer[: size + 2]
        trailers = []
        while line := (yield from _line(buffer)):
            trailers.append(line)
    except Ended:
        buffer.clear()
        return replace(head, body=bytes(body), is_whole=False)
    return replace(head, body=bytes(body), trailers=_headers(trailers))


def _line(buffer: bytearray) -> Generator[None, None, bytes]:
    while (end := buffer.find(b"\r\n")) < 0:
        yield
    line = bytes(buffer[:end])
    del buffer[: end + 2]
    return line


def _size(line: bytes, allows_extensions: bool) -> bytes:
    match = _CHUNK_LINE.fullmatch(line)
    if match is None or (match[2] and not allows_extensions):
        raise Broken(f"a chunk's size is {line[:100]!r}")
    return match[1]


def _headers(lines: list[bytes]) -> Headers:
    found = []
    for line in lines:
        match = _HEADER_LINE.fullmatch(line)
        if match is None:
            raise Broken(f"a header line is {line[:200]!r}")
        found.append((match[1], match[2]))
    return tuple(found)
