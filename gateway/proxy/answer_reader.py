"""
No I/O: an Actor's HTTP/1.1 answer, bytes in, head and pieces of body out.

Strict on purpose: whatever two readers could frame in two ways (bare line feeds, Content-Length twice or beside
Transfer-Encoding, folded lines) is refused, so that no answer can be taken for the next one on the same connection.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.proxy.plan import Headers

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 1000
CHUNKED = -1
UNTIL_EOF = -2

_MAX_CHUNK_LINE_BYTES = 4096
_MAX_TRAILER_BYTES = 16 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_BARE_LF = re.compile(rb"(?:^|[^\r])\n")


class NotHttp(Exception):
    """These bytes are no HTTP/1.1 answer that can be trusted; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerHead:
    """A final answer's head. *length* is its body's, CHUNKED or UNTIL_EOF; *keeps_alive*: a next request may follow."""

    status: int
    headers: Headers
    length: int
    keeps_alive: bool


class AnswerReader:
    """
    Reads one answer; make a new one for each request.

    ``feed`` returns the pieces of body that came; ``head`` is there once the final head has come (1xx are skipped);
    after ``is_complete`` nothing more belongs to the answer, and what came nevertheless is in ``leftover``.
    ``saw_bytes`` and ``saw_continue`` tell of the time before the head.
    """

    __slots__ = (
        "_buffer", "_chunks", "_is_upgrade", "_method", "_remaining",
        "head", "is_complete", "leftover", "saw_bytes", "saw_continue",
    )  # fmt: skip

    def __init__(self, method: str, *, is_upgrade: bool = False) -> None:
        self._method = method
        self._is_upgrade = is_upgrade
        self._buffer = b""
        self._chunks: ChunkReader | None = None
        self._remaining = 0
        self.head: AnswerHead | None = None
        self.is_complete = False
        self.leftover = b""
        self.saw_bytes = False
        self.saw_continue = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came; returns the body's pieces in it. Raises NotHttp."""
        self.saw_bytes = True
        if self.is_complete:
            self.leftover += data
            return []
        if self.head is not None:
            return self._body(data)
        seen = len(self._buffer)
        self._buffer += data
        while True:
            end = self._buffer.find(b"\r\n\r\n", max(0, seen - 3))
            if end < 0:
                self._check_partial(max(0, seen - 1))
                return []
            if end > MAX_HEAD_BYTES:
                raise NotHttp(f"its head is longer than {MAX_HEAD_BYTES} bytes")
            head = scan_head(self._buffer[:end], self._method)
            self._buffer = self._buffer[end + 4 :]
            seen = 0
            if head.status >= 200 or (head.status == 101 and self._is_upgrade):
                break
            if head.status == 101:
                raise NotHttp("it switches protocols unasked")
            self.saw_continue = self.saw_continue or head.status == 100
            if not self._buffer:
                return []
        self.head = head
        rest, self._buffer = self._buffer, b""
        if head.length == CHUNKED:
            self._chunks = ChunkReader()
        elif head.length >= 0:
            self._remaining = head.length
        return self._body(rest)

    def eof(self) -> bool:
        """The connection has ended in good order; returns whether the answer is whole."""
        if self.head is not None and self.head.length == UNTIL_EOF:
            self.is_complete = True
        return self.is_complete

    def _body(self, data: bytes) -> list[bytes]:
        assert self.head is not None
        if self.head.length == UNTIL_EOF:
            return [data] if data else []
        if self._chunks is not None:
            pieces = self._chunks.feed(data)
            if self._chunks.is_complete:
                self.is_complete, self.leftover = True, self._chunks.leftover
            return pieces
        piece, self.leftover = data[: self._remaining], data[self._remaining :]
        self._remaining -= len(piece)
        self.is_complete = self._remaining == 0
        return [piece] if piece else []

    def _check_partial(self, since: int) -> None:
        start = self._buffer[:7]
        if not b"HTTP/1.".startswith(start):
            raise NotHttp(f"it begins with {start!r}")
        if len(self._buffer) > MAX_HEAD_BYTES:
            raise NotHttp(f"its head is longer than {MAX_HEAD_BYTES} bytes")
        if _BARE_LF.search(self._buffer, since):
            raise NotHttp("a line of its head ends without a carriage return")


class ChunkReader:
    """A chunked body (RFC 9112 §7.1), cut at any byte; extensions and trailers are checked and dropped."""

    __slots__ = ("_partial", "_remaining", "_state", "_trailer_bytes", "is_complete", "leftover")

    def __init__(self) -> None:
        self._state = "size"
        self._remaining = 0
        self._partial = b""
        self._trailer_bytes = 0
        self.is_complete = False
        self.leftover = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces of body in *data*. Raises NotHttp."""
        if self._partial:
            data, self._partial = self._partial + data, b""
        pieces: list[bytes] = []
        at = 0
        while at < len(data):
            if self._state == "data":
                piece = data[at : at + self._remaining]
                pieces.append(piece)
                at += len(piece)
                self._remaining -= len(piece)
                if not self._remaining:
                    self._state = "data-end"
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._keep_partial(data[at:])
                break
            line, at = data[at:end], end + 2
            self._line(line)
            if self.is_complete:
                self.leftover = data[at:]
                break
        return pieces

    def _line(self, line: bytes) -> None:
        if self._state == "data-end":
            if line:
                raise NotHttp("a chunk is longer than its size says")
            self._state = "size"
        elif self._state == "size":
            match = _CHUNK_LINE.fullmatch(line)
            if match is None or len(line) > _MAX_CHUNK_LINE_BYTES:
                raise NotHttp("a chunk's size is malformed")
            self._remaining = int(match[1], 16)
            self._state = "data" if self._remaining else "trailer"
        elif not line:
            self.is_complete = True
        else:
            self._trailer_bytes += len(line) + 2
            if self._trailer_bytes > _MAX_TRAILER_BYTES or not _HEADER_LINE.fullmatch(line):
                raise NotHttp("its trailer is malformed or too long")

    def _keep_partial(self, rest: bytes) -> None:
        # No CRLF in it, so any line feed is a bare one, and after a chunk's data nothing but a CR may stand.
        limit = {"data-end": 1, "size": _MAX_CHUNK_LINE_BYTES, "trailer": _MAX_TRAILER_BYTES}[self._state]
        if len(rest) > limit or b"\n" in rest or (self._state == "data-end" and rest != b"\r"):
            raise NotHttp("a chunk is malformed")
        self._partial = rest


def scan_head(block: bytes, method: str) -> AnswerHead:
    """
    The head in *block* (without its empty line) that answers a *method* request. Raises NotHttp.

    HEAD, 1xx, 204 and 304 have no body whatever their headers say (RFC 9112 §6.3).
    """
    first, *lines = block.split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise NotHttp("its status line is malformed, or has none of the statuses from 100 to 599")
    if len(lines) > MAX_HEADERS:
        raise NotHttp(f"it has more than {MAX_HEADERS} headers")
    headers: Headers = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    options: list[bytes] = []
    for line in lines:
        match = _HEADER_LINE.fullmatch(line)
        if match is None:
            raise NotHttp("a line of its head is malformed")
        name, value = match[1].lower(), match[2].rstrip(b" \t")
        headers.append((name, value))
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value.lower())
        elif name == b"connection":
            options += [option.strip(b" \t").lower() for option in value.split(b",")]
    status, is_http_11 = int(status_line[2]), status_line[1] == b"1"
    length = _length(lengths, codings, is_http_11=is_http_11)
    if method == "HEAD" or status < 200 or status in (204, 304):
        length = 0
    return AnswerHead(
        status=status,
        headers=headers,
        length=length,
        keeps_alive=is_http_11 and b"close" not in options and length != UNTIL_EOF,
    )


def _length(lengths: list[bytes], codings: list[bytes], *, is_http_11: bool) -> int:
    if codings:
        if lengths:
            raise NotHttp("it has both Content-Length and Transfer-Encoding")
        if codings != [b"chunked"] or not is_http_11:
            raise NotHttp("its Transfer-Encoding is not plain 'chunked'")
        return CHUNKED
    if not lengths:
        return UNTIL_EOF
    if len(lengths) > 1:
        raise NotHttp("it has several Content-Length headers")
    if not lengths[0].isdigit() or len(lengths[0]) > 18:
        raise NotHttp("its Content-Length is no number")
    return int(lengths[0])
