"""
No I/O: an Actor's HTTP/1.1 answer, bytes in, head and pieces of body out.

For the ASGI proxy, which has no words for 1xx and trailers: these are checked and dropped. The rules are those of
``splice.answer_head`` and ``splice.chunks``, the same for both ways of proxying.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.proxy.plan import Headers
from gateway.proxy.splice.answer_head import (
    CHUNKED,
    MAX_HEAD_BYTES,
    UNTIL_EOF,
    NotHttp,
    analyse_answer,
    body_length,
    refuse_partial_head,
)
from gateway.proxy.splice.chunks import BadChunk, ChunkWalker

__all__ = ["CHUNKED", "UNTIL_EOF", "AnswerHead", "AnswerReader", "KeptHeaders", "LastHead", "NotHttp", "scan_head"]

_MAX_KNOWN_BYTES = 4096


class KeptHeaders(NamedTuple):
    """What of an answer's headers goes to a caller, the same as text, and the body's length where they state it."""

    headers: Headers
    text: bytes
    length: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerHead:
    """
    A final answer's head. *length* is its body's, CHUNKED or UNTIL_EOF; *keeps_alive*: a next request may follow.

    *kept* is what goes to callers, by their host and whether they came by the path form: answers can share their head.
    """

    status: int
    headers: Headers
    length: int
    keeps_alive: bool
    kept: dict[tuple[str, bool], KeptHeaders] = field(default_factory=dict, compare=False, repr=False)


@dataclass(slots=True)
class LastHead:
    """
    The final head that came last over one connection, with its empty line, and the method that it answered.

    An Actor's answers often begin alike, at least within a second (``Date``); where the bytes are the same, so is what
    they say.
    """

    block: bytes = b""
    method: str = ""
    head: AnswerHead | None = None


class AnswerReader:
    """
    Reads one answer; make a new one for each request.

    ``feed`` returns the pieces of body that came; ``head`` is there once the final head has come (1xx are skipped);
    after ``is_complete`` nothing more belongs to the answer, and what came nevertheless is in ``leftover``.
    ``saw_bytes`` and ``saw_continue`` tell of the time before the head. *last* is the connection's.
    """

    __slots__ = (
        "_buffer", "_chunks", "_is_upgrade", "_last", "_method", "_remaining",
        "head", "is_complete", "leftover", "saw_bytes", "saw_continue",
    )  # fmt: skip

    def __init__(self, method: str, *, is_upgrade: bool = False, last: LastHead | None = None) -> None:
        self._method = method
        self._last = last
        self._is_upgrade = is_upgrade
        self._buffer = b""
        self._chunks: ChunkWalker | None = None
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
        last = self._last
        if (
            last is not None
            and last.head is not None
            and not self._buffer
            and data.startswith(last.block)
            and last.method == self._method
        ):
            return self._begin(last.head, data[len(last.block) :])
        seen = len(self._buffer)
        self._buffer += data
        while True:
            end = self._buffer.find(b"\r\n\r\n", max(0, seen - 3))
            if end < 0:
                refuse_partial_head(self._buffer, seen - 1)
                return []
            if end > MAX_HEAD_BYTES:
                raise NotHttp(f"its head is longer than {MAX_HEAD_BYTES} bytes")
            block, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
            head = scan_head(block[:-4], self._method)
            seen = 0
            if head.status >= 200:
                if last is not None and len(block) <= _MAX_KNOWN_BYTES:
                    last.block, last.method, last.head = block, self._method, head
                break
            if head.status == 101 and self._is_upgrade:
                break
            if head.status == 101:
                raise NotHttp("it switches protocols unasked")
            self.saw_continue = self.saw_continue or head.status == 100
            if not self._buffer:
                return []
        rest, self._buffer = self._buffer, b""
        return self._begin(head, rest)

    def _begin(self, head: AnswerHead, rest: bytes) -> list[bytes]:
        self.head = head
        if head.length == CHUNKED:
            self._chunks = ChunkWalker(bare=True)
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
            try:
                pieces, end = self._chunks.feed(data)
            except BadChunk as error:
                raise NotHttp(str(error)) from error
            if self._chunks.is_complete:
                self.is_complete, self.leftover = True, data[end:]
            return pieces
        piece, self.leftover = data[: self._remaining], data[self._remaining :]
        self._remaining -= len(piece)
        self.is_complete = self._remaining == 0
        return [piece] if piece else []


def scan_head(block: bytes, method: str) -> AnswerHead:
    """The head in *block* (without its empty line) that answers a *method* request, names in lower case. NotHttp."""
    facts = analyse_answer(block)
    length = body_length(facts, method.encode("latin-1", "replace"))
    return AnswerHead(
        status=facts.status,
        headers=[(name.lower(), value) for name, value in facts.headers],
        length=length,
        keeps_alive=facts.keeps_alive and length != UNTIL_EOF,
    )
