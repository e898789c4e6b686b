"""
No I/O: a chunked body (RFC 9112 §7.1) walked from one end to the other, cut at any byte, in either direction.

What goes on has one spelling: sizes in small hexadecimal digits without leading zeros, no extensions, and of the
trailer only what may come late. Most senders spell it that way already; what they send goes on as it came, many chunks
in one piece and without a copy. All else is written anew.

Line breaks are CR and LF together; whatever two readers could take for two things is refused.
"""

from __future__ import annotations

import re

from gateway.proxy.headers import HOP_BY_HOP

MAX_TRAILER_BYTES = 16 * 1024
MAX_TRAILERS = 100

_MAX_SIZE_LINE_BYTES = 4096
_MAX_SIZE = 2**63 - 1  # many count with a sign
_MAX_EXCESS_BYTES = 16 * 1024
_FREE_PER_SIZE_LINE_BYTES = 16

_USUAL = re.compile(rb"([1-9a-f][0-9a-f]{0,14})\r\n")
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")

# Who reads a trailer may add it to the headers that it has already acted upon (RFC 9110 §6.5.1). So nothing comes late
# that says where a message goes, how long it is, who sends it, how it is to be read, or what only we may say.
_NOT_IN_TRAILERS = HOP_BY_HOP | frozenset(
    name.encode()
    for name in (
        "accept-encoding", "age", "authorization", "cache-control", "clear-site-data", "content-encoding",
        "content-length", "content-location", "content-range", "content-security-policy", "content-type", "cookie",
        "date", "expect", "expires", "forwarded", "host", "http2-settings", "if-match", "if-modified-since",
        "if-none-match", "if-range", "if-unmodified-since", "location", "max-forwards", "origin", "pragma",
        "proxy-authentication-info", "range", "referer", "retry-after", "set-cookie", "strict-transport-security",
        "vary", "via", "warning", "www-authenticate", "x-actor-request-id",
        "x-apify-authorization", "x-apify-container-server-readiness-probe",
    )
)  # fmt: skip
_NOT_IN_TRAILERS_BEGINNINGS = (b"x-forwarded-", b"sec-", b"access-control-")


class BadChunk(ValueError):
    """This is no chunked body that can be trusted; the text says why."""


# Where in a chunked body the next byte stands.
_IN_SIZE, _IN_DATA, _AFTER_DATA, _IN_TRAILER = range(4)

# A line whose end has not come, but perhaps its CR.
_SO_FAR = {
    _IN_SIZE: re.compile(rb"[0-9A-Fa-f]{1,16}(?:[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?)?\r?"),
    _AFTER_DATA: re.compile(rb"\r"),
    _IN_TRAILER: re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+(?::[\t\x20-\x7e\x80-\xff]*)?)?\r?"),
}
_PROBLEMS = {
    _IN_SIZE: "a chunk's size is malformed",
    _AFTER_DATA: "a chunk is longer than its size says",
    _IN_TRAILER: "its trailer is malformed or too long",
}


class ChunkWalker:
    """
    One chunked body; make a new one for each.

    ``feed`` it what comes until ``is_complete``. *bare*: only the data comes out, for who frames it otherwise or can't
    (HTTP/1.0, ASGI). ``data_bytes`` counts the data that went through.

    Costs one regular expression a chunk; data is copied only where a read brings something else beside it.
    """

    __slots__ = (
        "_at", "_bare", "_excess", "_max_trailer_bytes", "_max_trailers", "_partial", "_remaining", "_trailer_bytes",
        "_trailer_count", "_trailers", "data_bytes", "is_complete",
    )  # fmt: skip

    def __init__(
        self, *, bare: bool = False, max_trailer_bytes: int = MAX_TRAILER_BYTES, max_trailers: int = MAX_TRAILERS
    ) -> None:
        self._bare = bare
        self._max_trailer_bytes = max_trailer_bytes
        self._max_trailers = max_trailers
        self._at = _IN_SIZE
        self._remaining = 0  # of the present chunk's data
        self._partial = b""  # a line whose end has not come, or the CR after a chunk's data
        self._excess = 0
        self._trailers: list[bytes] = []
        self._trailer_bytes = 0
        self._trailer_count = 0
        self.data_bytes = 0
        self.is_complete = False

    def feed(self, data: bytes, start: int = 0) -> tuple[list[bytes], int]:
        """
        What goes on of ``data[start:]``, and where in *data* the next byte stands that is none of the body's: at its
        end, unless the body is complete. Raises BadChunk, upon which nothing must go on.
        """
        pieces: list[bytes] = []
        at = span = start  # what stands between them goes on as it came
        end = len(data)
        while at < end and not self.is_complete:
            state = self._at
            if state == _IN_DATA:
                stop = min(end, at + self._remaining)
                self._remaining -= stop - at
                self.data_bytes += stop - at
                if self._bare:
                    pieces.append(data[at:stop])
                at = stop
                if not self._remaining:
                    self._at = _AFTER_DATA
            elif state == _IN_SIZE and not self._partial and (usual := _USUAL.match(data, at)):
                size, at = int(usual[1], 16), usual.end()
                stop = at + size
                if data.startswith(b"\r\n", stop):  # the whole chunk is there
                    self.data_bytes += size
                    if self._bare:
                        pieces.append(data[at:stop])
                    at = stop + 2
                else:
                    self._remaining, self._at = size, _IN_DATA
            elif state == _IN_SIZE and not self._partial and data.startswith(b"0\r\n\r\n", at):
                at += 5
                self.is_complete = True
            elif state == _AFTER_DATA and not self._partial and data.startswith(b"\r\n", at):
                at += 2
                self._at = _IN_SIZE
            else:
                self._pass(pieces, data, span, at)
                at = span = self._finish_line(data, at, pieces)
        self._pass(pieces, data, span, at)
        return pieces, at

    def _finish_line(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Read a line that begins or goes on at *at*; returns where it ends, or *data* does. It is written anew."""
        stop = data.find(b"\n", at) + 1 or len(data)
        line = self._partial + data[at:stop]
        if not line.endswith(b"\n"):
            if not _SO_FAR[self._at].fullmatch(line) or len(line) > self._longest_line():
                raise BadChunk(_PROBLEMS[self._at])
            self._partial = line
            return stop
        self._partial = b""
        if not line.endswith(b"\r\n") or len(line) > self._longest_line() + 2:
            raise BadChunk(_PROBLEMS[self._at])
        line = line[:-2]
        if self._at == _AFTER_DATA:
            if line:
                raise BadChunk(_PROBLEMS[self._at])
            self._at = _IN_SIZE
            self._write(pieces, b"\r\n")
        elif self._at == _IN_SIZE:
            self._take_size(line, pieces)
        elif line:
            self._take_trailer(line)
        else:
            self.is_complete = True
            self._write(pieces, b"0\r\n%b\r\n" % b"".join(self._trailers))
        return stop

    def _take_size(self, line: bytes, pieces: list[bytes]) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise BadChunk(_PROBLEMS[_IN_SIZE])
        size = int(match[1], 16)
        if size > _MAX_SIZE:
            raise BadChunk("a chunk is larger than anybody can count")
        # Extensions are work for nothing: a sender may have them, but not much more of them than of data.
        self._excess = max(0, self._excess + len(line) - _FREE_PER_SIZE_LINE_BYTES - 2 * size)
        if self._excess > _MAX_EXCESS_BYTES:
            raise BadChunk("its chunks have more extensions than data")
        if size:
            self._remaining = size
            self._at = _IN_DATA
            self._write(pieces, b"%x\r\n" % size)
        else:
            self._at = _IN_TRAILER  # its line goes on when the trailer is known to be good

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        self._trailer_count += 1
        if self._trailer_count > self._max_trailers or self._trailer_bytes > self._max_trailer_bytes:
            raise BadChunk("its trailer is too long")
        match = _TRAILER.fullmatch(line)
        if match is None:
            raise BadChunk(_PROBLEMS[_IN_TRAILER])
        if may_come_late(match[1]):
            self._trailers.append(b"%b: %b\r\n" % (match[1], match[2].rstrip(b" \t")))

    def _longest_line(self) -> int:
        if self._at == _IN_TRAILER:
            return max(0, self._max_trailer_bytes - self._trailer_bytes)
        return _MAX_SIZE_LINE_BYTES

    def _pass(self, pieces: list[bytes], data: bytes, start: int, end: int) -> None:
        if start < end and not self._bare:
            pieces.append(data[start:end])

    def _write(self, pieces: list[bytes], text: bytes) -> None:
        if not self._bare:
            pieces.append(text)


def may_come_late(name: bytes) -> bool:
    """Whether a header of *name* may stand in a trailer that goes on."""
    dashed = name.lower().replace(b"_", b"-")  # CGI and WSGI can't tell them apart
    return dashed not in _NOT_IN_TRAILERS and not dashed.startswith(_NOT_IN_TRAILERS_BEGINNINGS)
