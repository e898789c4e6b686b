"""
One request of an HTTP/1.1 connection as ASGI: the body in, the answer out.

A body that has come whole is given whole, also where its sender has gone before anybody looked at it: a process that
reports its last word and exits in the next millisecond, as the JavaScript SDK does, would have said nothing.

The head of an answer waits for the first piece of its body, so that both go out in one write; where none is there at
once, the head goes alone.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

from gateway.proxy.asgi import Lines, Message, Scope
from gateway.proxy.plan import Headers
from gateway.proxy.sockets import reset_on_abort
from gateway.proxy.splice.answer_head import never_has_body

_STATUS_LINES = {status: b"HTTP/1.1 %d \r\n" % status for status in range(100, 600)} | {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus
}
# An app of our own may pass on what a user has stored, such as a content type.
_LINES = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+")
# Up to here a copy costs less than a second buffer for the kernel.
_JOINED_BYTES = 32 * 1024

_log = logging.getLogger("uvicorn.error")  # as for HTTP/2


class Connection(Protocol):
    """What a request needs of its connection."""

    transport: asyncio.Transport
    is_full: bool

    def may_follow(self, request: AsgiRequest) -> bool:
        """Whether another request may follow this one, as far as its sender and the server go."""

    def taken(self) -> None:
        """What had come of the body was taken: more may come."""

    def answered(self, *, keeps: bool) -> None:
        """The answer is written completely; *keeps*: another request may follow."""

    async def room(self) -> None:
        """Until the caller has taken what was written, but for a little; or has gone."""

    def close(self) -> None:
        """Nothing more is said; who takes nothing of what was is cut off in the end."""

    def is_over(self, request: AsgiRequest) -> None:
        """The app has returned."""


class AsgiRequest:
    """
    *scope* for an app, with *target* as it was sent. It is itself the extension ``greenroom`` (``proxy.asgi.Wire``).

    *minor* is that of HTTP/1.``minor``; *asks_first*: the body is held until a 100. *memo* is ``Wire.memo``.
    """

    __slots__ = (
        "_connection", "_has_chunks", "_has_no_body", "_head", "_is_given", "_keeps", "_left", "_minor", "_news",
        "_on_gone", "_pieces", "_size", "asks_first", "has_whole_body", "is_answered", "is_disconnected", "memo",
        "scope", "status", "target", "task",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        scope: Scope,
        target: bytes,
        *,
        minor: int,
        is_empty: bool,
        asks_first: bool,
        memo: dict[str, Any] | None,
    ) -> None:
        self._connection = connection
        self.scope = scope
        scope["extensions"] = {"greenroom": self}
        self.target = target
        self.memo = memo
        self.task: asyncio.Task[None] | None = None
        self._minor = minor
        self.asks_first = asks_first
        self.has_whole_body = is_empty
        self.is_disconnected = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_given = False  # all of the body
        self._news: asyncio.Event | None = None
        self._on_gone: Callable[[], None] | None = None
        self.status: int | None = None
        self.is_answered = False
        self._head = b""  # which was not written yet
        self._keeps = False
        self._has_chunks = self._has_no_body = False
        self._left: int | None = None  # of the answer's body; None: as much as comes

    # What comes from the connection

    def feed(self, pieces: list[bytes]) -> int:
        """More of the body; how much of it waits."""
        self._pieces += pieces
        self._size += sum(map(len, pieces))
        self.wake()
        return self._size

    def finish(self) -> None:
        """The body has come whole."""
        self.has_whole_body = True
        self.wake()

    def disconnect(self) -> None:
        """Nobody listens any more."""
        self.is_disconnected = True
        self.wake()
        if self._on_gone is not None:
            self._on_gone()

    def wake(self) -> None:
        """There is news for whoever waits in ``receive``."""
        if self._news is not None:
            self._news.set()

    # What the app does

    def when_gone(self, tell: Callable[[], None] | None) -> None:
        """Call *tell*, and none before it, when the caller leaves before he is answered; at once if he has left."""
        self._on_gone = tell
        if tell is not None and self.is_disconnected:
            tell()

    async def run(self, app: Any) -> None:
        """Until the app has returned."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:
            _log.exception("Exception in ASGI application")
            self._fail()
        except BaseException:  # cancelled: the server ends
            self._cut()
            raise
        else:
            if not self.is_answered and not self.is_disconnected:
                # The proxy cuts what broke off at the Actor. Its words are uvicorn's, and quiet for that case.
                _log.error("ASGI callable returned without completing response.")
                self._fail()
        finally:
            self.scope = {}  # which refers to this
            self._connection.is_over(self)

    async def receive(self) -> Message:
        """The next piece of the body, or that nobody listens any more."""
        if self.asks_first:
            self._ask()
        while True:
            if not self._is_given and (self.has_whole_body or (self._pieces and not self.is_disconnected)):
                break
            if self.is_disconnected or self.is_answered:
                return {"type": "http.disconnect"}
            if self._news is None:
                self._news = asyncio.Event()
            self._news.clear()
            await self._news.wait()
        body = b""
        if self._pieces:
            body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces, self._size = [], 0
            self._connection.taken()
        self._is_given = self.has_whole_body
        return {"type": "http.request", "body": body, "more_body": not self.has_whole_body}

    def _ask(self) -> None:
        """The body is wanted."""
        self.asks_first = False
        if not (self.has_whole_body or self._pieces or self.status or self.is_disconnected):
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def send(self, message: Message) -> None:
        """The answer's head, or a piece of its body."""
        if self._connection.is_full and not self.is_disconnected:
            await self._connection.room()
        if self.is_disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start" and self.status is None:
            lines = message.get("greenroom")
            says_close = False
            if lines is None:
                lines, says_close = _lines(message.get("headers", ()))
            self._start(message["status"], lines, says_close=says_close)
            asyncio.get_running_loop().call_soon(self._flush)
        elif kind == "http.response.body" and self.status is not None and not self.is_answered:
            self._more(message.get("body", b""), is_last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"Unexpected ASGI message {kind!r}.")

    def answer(self, status: int, lines: Lines, body: bytes) -> bool:
        """The whole answer in one; False, and nothing done, where the caller takes none at the moment."""
        if self.is_disconnected or self._connection.is_full or self.status is not None:
            return False
        self._start(status, lines, says_close=False)
        self._more(body, is_last=True)
        return True

    def _start(self, status: int, lines: Lines, *, says_close: bool) -> None:
        text, length = lines
        keeps = not says_close and self._connection.may_follow(self)
        if self.scope["method"] == "HEAD" or never_has_body(status):
            self._has_no_body = True
        elif length is not None:
            self._left = length
        elif self._minor:
            self._has_chunks = True
            text += b"transfer-encoding: chunked\r\n"
        else:
            keeps = False  # it ends with the connection
        if keeps:
            end = b"\r\n" if self._minor else b"connection: keep-alive\r\n\r\n"
        else:
            end = b"\r\n" if says_close else b"connection: close\r\n\r\n"
        self.status, self._keeps, self._head = status, keeps, b"".join((_STATUS_LINES[status], text, end))

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self.is_disconnected:
            self._connection.transport.write(head)

    def _more(self, body: bytes, *, is_last: bool) -> None:
        if self._has_no_body:
            body = b""
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (is_last and self._left):
                raise RuntimeError("The body of the answer does not have the length that its head tells.")
        pieces: list[bytes] = []
        if self._head:
            pieces.append(self._head)
            self._head = b""
        if not self._has_chunks:
            if body:
                pieces.append(body)
        else:
            if body:
                pieces += (b"%x\r\n" % len(body), body, b"\r\n")
            if is_last:
                pieces.append(b"0\r\n\r\n")
        transport = self._connection.transport
        if len(body) > _JOINED_BYTES and len(pieces) > 1:
            transport.writelines(pieces)
        elif pieces:
            transport.write(b"".join(pieces))
        if is_last:
            self.is_answered = True
            self.wake()
            self._connection.answered(keeps=self._keeps)

    def _fail(self) -> None:
        """Nothing more comes from the app: an error is told where no answer has begun, else it must not look whole."""
        if self.is_disconnected or self.is_answered:
            return
        if self.status is not None:
            self._cut()
            return
        self._head, self._has_chunks = b"", False
        text = b"Internal Server Error"
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n" % len(text)
        self._start(500, Lines(head, len(text)), says_close=True)
        self._more(text, is_last=True)

    def _cut(self) -> None:
        if self.is_disconnected or self.is_answered:
            return
        self._flush()
        transport = self._connection.transport
        if not self._has_chunks and not self._has_no_body and self._left is None:
            # The end of the connection would be the end of the answer.
            reset_on_abort(transport)
            transport.abort()
        else:
            self._connection.close()


def _lines(headers: Headers) -> tuple[Lines, bool]:
    """
    *headers* as text, without what is the server's to say, and whether they say that the connection ends.

    Raises RuntimeError for one that would be another.
    """
    lines: list[bytes] = []
    length: int | None = None
    says_close = False
    for name, value in headers:
        lower = name.lower()
        if lower == b"content-length":
            length = int(value)
        elif lower == b"transfer-encoding":  # whoever sends the body frames it
            continue
        elif lower == b"connection" and b"close" in value.lower():
            says_close = True
        lines.append(b"%b: %b\r\n" % (name, value))
    text = b"".join(lines)
    if not _LINES.fullmatch(text) or text.count(b"\n") != len(lines):
        raise RuntimeError("A header of the answer holds characters that may not stand there.")
    return Lines(text, length), says_close
