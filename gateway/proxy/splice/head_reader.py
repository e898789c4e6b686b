"""No I/O: where one request's head ends, and what it says; for every connection that speaks HTTP/1."""

from __future__ import annotations

import re

from gateway.core.errors import HeadTooLarge, InvalidRequest
from gateway.proxy.splice.request_cache import RequestHeads, Seen, seen_with
from gateway.proxy.splice.request_head import RequestHead
from gateway.proxy.splice.request_line import RequestLine, agreed_host, parse_line
from gateway.proxy.splice.shapes import Shapes

_MAX_KNOWN_BYTES = 4096
_MAX_BLANK_LINES = 4
_BARE_LF = re.compile(rb"(?:^|[^\r])\n")
_BEGINNING = re.compile(rb"[A-Z][!-~]*(?: |$)|\r?$")

# The request line, what the headers say, the host that is asked for, what came altogether, and where the head ends.
Head = tuple[RequestLine, Seen, bytes, bytes, int]


class HeadReader:
    """
    Reads the heads of one connection, one by one; ``held`` is the beginning of one whose end has not come.

    What came last is compared first: callers repeat themselves, if not whole requests, then the headers. Where their
    bytes are the same, they end where those ended. (Both begin after the first line break, and end with the first empty
    line after it.) Where it is the same headers with other values, their shape is.
    """

    __slots__ = ("_host", "_known", "_line", "_minor", "_requests", "_seen", "_shapes", "_whole", "held", "is_same")

    _line: RequestLine
    _seen: Seen

    def __init__(self, requests: RequestHeads) -> None:
        self._requests = requests
        self._whole: bytes | None = None  # the head that came last, with nothing behind it
        self._known = b""  # its headers, with the empty line
        self._minor = 1
        self._host = b""
        self._shapes: Shapes[RequestHead] | None = None
        self.held = b""
        self.is_same = False
        """Whether the head that was read last is, byte for byte, the one before it, with nothing behind it."""

    def read(self, data: bytes) -> Head | None:
        """
        The head that ends in *data*, or None where more has to come.

        Raises the errors of ``parse_line`` and ``analyse``, and refuses the beginning of what can't become a good head
        before its end has come.
        """
        if self.held:
            data = self.held + data
        if data == self._whole:
            self._requests.hits += 1
            self.held = b""
            self.is_same = True
            return self._line, self._seen, self._host, data, len(data)
        first = data.find(b"\r\n")
        known = self._known
        if first > 0 and known and data.startswith(known, first + 2):
            line = parse_line(data, 0, first)
            at = first + 2 + len(known)
            if line.minor == self._minor:
                seen = self._seen
                self._requests.hits += 1
            else:
                seen = self._requests.look(known[:-4], line.minor)
        elif first > 0 and self._shapes is not None and (found := self._shapes.find(data, first + 2)) is not None:
            return self._of_shape(data, first, *found)
        else:
            if first == 0:
                data = _without_blank_lines(data)
                first = data.find(b"\r\n")
            end = data.find(b"\r\n\r\n", max(0, first))
            if end < 0:
                self._hold(data)
                return None
            at = end + 4
            if at > self._requests.limits.max_bytes:
                raise self._too_large()
            line = parse_line(data, 0, first)
            seen = self._requests.look(data[first + 2 : end], line.minor)
            known = data[first + 2 : at]
            if seen.values and at <= _MAX_KNOWN_BYTES:
                if self._shapes is None:
                    self._shapes = Shapes(self._requests.shape)
                self._shapes.note(data, first + 2, seen.head)
        return self._remember(line, seen, data, at, known)

    def _of_shape(self, data: bytes, first: int, head: RequestHead, found: re.Match[bytes]) -> Head:
        at = found.end()
        if at > self._requests.limits.max_bytes:
            raise self._too_large()
        line = parse_line(data, 0, first)
        if line.minor != head.minor:
            seen = self._requests.look(data[first + 2 : at - 4], line.minor)
        else:
            seen = seen_with(head, found.groups())
            self._requests.hits += 1
        return self._remember(line, seen, data, at, data[first + 2 : at])

    def _remember(self, line: RequestLine, seen: Seen, data: bytes, at: int, known: bytes) -> Head:
        """*known* are the headers, with the empty line."""
        self.held = b""
        self.is_same = False
        host = seen.head.host
        if line.authority:
            host = agreed_host(line, host)
        self._seen, self._minor, self._line, self._host = seen, line.minor, line, host
        if at <= _MAX_KNOWN_BYTES:
            self._known, self._whole = known, data if at == len(data) else None
        else:
            self._known, self._whole = b"", None
        return line, seen, host, data, at

    def _hold(self, data: bytes) -> None:
        if len(data) > self._requests.limits.max_bytes:
            raise self._too_large()
        if _BARE_LF.search(data, max(0, len(self.held) - 1)):
            raise InvalidRequest("Lines end with CR and LF together, and neither stands alone.")
        if not self.held and not _BEGINNING.match(data):
            raise InvalidRequest("This is no HTTP request: it must begin with 'METHOD target HTTP/1.1'.")
        self.held = data

    def _too_large(self) -> HeadTooLarge:
        limit = self._requests.limits.max_bytes
        return HeadTooLarge(f"The head of a request may have {limit} bytes (setting: max_head_bytes).")


def _without_blank_lines(data: bytes) -> bytes:
    """A few of them may stand before a request (RFC 9112 §2.2)."""
    for _ in range(_MAX_BLANK_LINES):
        if not data.startswith(b"\r\n"):
            return data
        data = data[2:]
    if data.startswith(b"\r\n"):
        raise InvalidRequest("A request begins with its first line, and not with blank ones.")
    return data
