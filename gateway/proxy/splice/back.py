"""
A connection to a run as an asyncio protocol: reads one answer after the other, and hands each on as it comes.

Framing is by the answer's head (``answer_head``), strictly: what two readers could take for different answers is none,
and what comes past an answer's end is never believed to be the next one's beginning.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from gateway.core.model import Address
from gateway.proxy.sockets import acknowledge_at_once, keep_watch
from gateway.proxy.splice.answer_cache import AnswerHeads, KnownAnswer, SeenAnswer, seen_with
from gateway.proxy.splice.answer_head import (
    CHUNKED,
    MAX_HEAD_BYTES,
    UNTIL_EOF,
    NotHttp,
    may_have_body,
    refuse_partial_head,
)
from gateway.proxy.splice.chunks import BadChunk, ChunkWalker
from gateway.proxy.splice.shapes import Shapes

_IN_HEAD = -3
_MAX_KNOWN_BYTES = 4096


class Home(Protocol):
    """Where a connection lies when it is idle."""

    address: Address

    def keep(self, back: Back, now: float) -> None: ...
    def drop(self, back: Back) -> None: ...


class Receiver(Protocol):
    """Who gets the answer. ``failed`` and ``ended`` come once at most, and nothing after them."""

    method: bytes
    host: bytes
    upgrade: bytes | None
    takes_chunks: bool

    def interim(self, seen: SeenAnswer) -> None:
        """A 1xx."""

    def begun(self, seen: SeenAnswer, length: int, pieces: Sequence[bytes], *, is_whole: bool) -> None:
        """The head of the answer, with a body of *length* (or CHUNKED, UNTIL_EOF); *is_whole*: that was all of it."""

    def more(self, pieces: Sequence[bytes], *, is_last: bool) -> None:
        """More of the body; at its end *is_last*, perhaps with nothing."""

    def switched(self, seen: SeenAnswer, rest: bytes) -> None:
        """The Actor agreed to the upgrade; *rest* is what it has said since."""

    def failed(self, problem: str, *, has_begun: bool, saw_bytes: bool) -> None:
        """It broke off or is no HTTP; *problem* is to be read after "The Actor's web server"."""

    def actor_is_full(self, *, is_full: bool) -> None:
        """The Actor takes what is written to it more slowly than it comes; or no longer."""


class Back(asyncio.Protocol):
    """
    One connection to a run: carries one request at a time, or lies idle in its pool.

    ``can_stay`` tells, once an answer is whole, whether another request may follow it.
    """

    __slots__ = (
        "_answers", "_eof_seen", "_gone", "_known", "_known_host", "_known_method", "_left", "_length", "_partial",
        "_seen", "_shapes", "_socket", "_usual_bytes", "_walker", "can_stay", "has_news", "idle_until", "is_lost",
        "is_read_paused", "is_reused", "pool", "receiver", "saw_bytes", "transport",
    )  # fmt: skip

    def __init__(self, pool: Home, answers: AnswerHeads, gone: Callable[[Back], None]) -> None:
        self.pool = pool
        self._answers = answers
        self._gone = gone
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)  # from connection_made on
        self._socket: socket.socket | None = None
        self.receiver: Receiver | None = None
        self.is_reused = False
        self.is_lost = False
        self.is_read_paused = False
        self.has_news = True  # something has come since somebody looked
        self.idle_until = 0.0
        # The head that came last, with its empty line, what it answered, and what it says.
        self._known = b""
        self._known_host = b""
        self._known_method = b""
        self._seen = cast(SeenAnswer, None)  # from the first of them on
        self._length = 0
        # Of that head with its body, where it has a length and another request may follow; not while one is partial.
        self._usual_bytes = -1
        self._shapes: Shapes[KnownAnswer] | None = None
        # Of the present answer
        self._left = _IN_HEAD
        self._partial = b""
        self._walker: ChunkWalker | None = None
        self._eof_seen = False
        self.saw_bytes = False
        self.can_stay = False

    def carry(self, receiver: Receiver) -> None:
        """A request is about to be written: what comes is *receiver*'s."""
        self.receiver = receiver
        self._left = _IN_HEAD
        self.saw_bytes = self.can_stay = False

    def let_go(self, now: float, *, is_request_over: bool) -> None:
        """The answer is whole, or nobody wants it any more: back into the pool if all ended in good order, else cut."""
        self.receiver = None
        if self.is_lost:
            return
        # One that is about to close may lie there for a moment: whoever takes it looks.
        if self.can_stay and is_request_over and not self.transport.get_write_buffer_size():
            self.is_reused = True
            if self.is_read_paused:
                self.resume_reading()
            self.pool.keep(self, now)
        else:
            self.transport.abort()

    def pause_reading(self) -> None:
        """Until the caller has taken what was written to it."""
        if not self.is_read_paused and not self.transport.is_closing():
            self.is_read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.is_read_paused and not self.transport.is_closing():
            self.is_read_paused = False
            self.transport.resume_reading()

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._socket = self.transport.get_extra_info("socket")
        if self._socket is not None:
            keep_watch(self._socket)

    def data_received(self, data: bytes) -> None:
        receiver = self.receiver
        self.has_news = True
        if receiver is None:  # bytes that nobody asked for: never believe what follows
            self.transport.abort()
            return
        left = self._left
        if (
            len(data) == self._usual_bytes
            and left == _IN_HEAD
            and data.startswith(self._known)
            and self._known_host == receiver.host
            and self._known_method == receiver.method
        ):
            self._left = 0
            self.saw_bytes = self.can_stay = True
            self._answers.hits += 1
            length = self._length
            receiver.begun(self._seen, length, (data[-length:],) if length else (), is_whole=True)
            return
        if left == _IN_HEAD:
            self.saw_bytes = True
            try:
                self._head(receiver, data)
            except (NotHttp, BadChunk) as error:
                self._fail(f"answered with something that is not HTTP ({error})")
        elif left >= 0:
            count = len(data)
            if count < left:
                self._left = left - count
                receiver.more((data,), is_last=False)
            else:
                if count > left:
                    data, self.can_stay = data[:left], False
                receiver.more((data,), is_last=True)
        elif left == CHUNKED:
            self._chunks(receiver, data)
        else:
            receiver.more((data,), is_last=False)

    def eof_received(self) -> None:
        self._eof_seen = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.pool.drop(self)
        self._gone(self)
        receiver, self.receiver = self.receiver, None
        if receiver is None:
            return
        if self._left == UNTIL_EOF and self._eof_seen and exc is None:
            receiver.more((), is_last=True)
        elif self._left == _IN_HEAD:
            receiver.failed("dropped the connection before it answered", has_begun=False, saw_bytes=self.saw_bytes)
        else:
            receiver.failed("cut its answer short", has_begun=True, saw_bytes=True)

    def pause_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.actor_is_full(is_full=True)

    def resume_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.actor_is_full(is_full=False)

    # The answer

    def _head(self, receiver: Receiver, data: bytes) -> None:
        known = self._known
        if (
            known
            and data.startswith(known)
            and self._known_host == receiver.host
            and self._known_method == receiver.method
            and not self._partial
        ):
            seen, length = self._seen, self._length
            at = len(known)
            self._answers.hits += 1
        elif (looked := self._look(receiver, data)) is not None:
            seen, data, at = looked
            length = seen.length if may_have_body(seen.facts.status, receiver.method) else 0
            self._seen, self._length = seen, length
            self._known_host, self._known_method = receiver.host, receiver.method
            can_repeat = self._known and length >= 0 and seen.facts.keeps_alive
            self._usual_bytes = len(self._known) + length if can_repeat else -1
        else:
            return
        self.can_stay = seen.facts.keeps_alive
        if length >= 0:
            have = len(data) - at
            if have == length:
                self._left = 0
                receiver.begun(seen, length, (data[at:],) if length else (), is_whole=True)
            elif have < length:
                self._left = length - have
                receiver.begun(seen, length, (data[at:],) if have else (), is_whole=False)
                acknowledge_at_once(self._socket)
            else:
                self.can_stay = False
                self._left = 0
                receiver.begun(seen, length, (data[at : at + length],) if length else (), is_whole=True)
            return
        pieces: Sequence[bytes] = ()
        is_whole = False
        if length == CHUNKED:
            self._walker = ChunkWalker(bare=not receiver.takes_chunks)
            if at < len(data):
                pieces, at = self._walker.feed(data, at)
                is_whole = self._walker.is_complete
                if is_whole and at < len(data):
                    self.can_stay = False
        else:
            self.can_stay = False
            if at < len(data):
                pieces = (data[at:],)
        self._left = length
        receiver.begun(seen, length, pieces, is_whole=is_whole)
        if not is_whole:
            acknowledge_at_once(self._socket)

    def _look(self, receiver: Receiver, data: bytes) -> tuple[SeenAnswer, bytes, int] | None:
        """
        The head of the answer proper, what came with it and where in that it ends; None where that is yet to come.

        Whatever comes before it is passed on.
        """
        since, shapes = 0, self._shapes
        if self._partial:
            since = len(self._partial) - 1
            data, self._partial = self._partial + data, b""
        elif shapes is not None and (found := shapes.find(data, 0)) is not None and found[1].end() <= MAX_HEAD_BYTES:
            known, values = found
            self._answers.hits += 1
            at = values.end()
            self._known = data[:at] if at <= _MAX_KNOWN_BYTES else b""
            return seen_with(known, values.groups(), receiver.host), data, at
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                refuse_partial_head(data, since)
                self._partial, self._usual_bytes = data, -1
                acknowledge_at_once(self._socket)
                return None
            seen = self._answers.look(data[:end], receiver.host)
            at = end + 4
            status = seen.facts.status
            if status >= 200:
                self._known = data[:at] if at <= _MAX_KNOWN_BYTES else b""
                if self._known and len(seen.known.pieces) > 1:
                    if shapes is None:
                        shapes = self._shapes = Shapes(self._answers.shape)
                    shapes.note(data, 0, seen.known)
                return seen, data, at
            if status == 101:
                if receiver.upgrade is None or seen.facts.upgrade != receiver.upgrade:
                    raise NotHttp("it switches to a protocol that nobody asked for")
                receiver.switched(seen, data[at:])
                return None
            receiver.interim(seen)
            data, since = data[at:], 0
            if not data:
                return None

    def _chunks(self, receiver: Receiver, data: bytes) -> None:
        walker = self._walker
        assert walker is not None
        try:
            pieces, end = walker.feed(data)
        except BadChunk as error:
            self._fail(f"broke the rules in the middle of its answer ({error})")
            return
        if walker.is_complete:
            if end < len(data):
                self.can_stay = False
            receiver.more(pieces, is_last=True)
        else:
            receiver.more(pieces, is_last=False)

    def _fail(self, problem: str) -> None:
        receiver, self.receiver = self.receiver, None
        has_begun = self._left != _IN_HEAD
        self.transport.abort()
        if receiver is not None:
            receiver.failed(problem, has_begun=has_begun, saw_bytes=True)
