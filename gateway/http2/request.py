"""One request of an HTTP/2 connection as ASGI: the body in, with credit for what was taken; the answer out likewise."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

import zttp

from gateway.proxy.asgi import Message, Scope
from gateway.proxy.plan import Headers

NO_ERROR, INTERNAL_ERROR, CANCEL = 0, 2, 8

# RFC 9113 §8.2.2: these have no meaning there.
_OF_THE_CONNECTION = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})

_log = logging.getLogger("uvicorn.error")  # as for HTTP/1.1


class Connection(Protocol):
    """What a request needs of its connection."""

    def write_out(self) -> None:
        """Send what zttp has to send."""

    def give_credit(self, stream_id: int, credit: int) -> None:
        """Let the client send so many bytes more of this body."""

    async def writable(self) -> None:
        """Until what was sent has left, but for a little."""

    def is_over(self, request: Http2Request) -> None:
        """Nothing more comes from this request."""


class Http2Request:
    """
    *app* called with one request; what it does not finish is cut, and says so to the client by a reset of the stream.

    A body that has come whole is given whole, also where its sender has gone since. At most one window of a body
    (64 KiB) waits here, and one piece of an answer: credit decides on both sides. A client that takes nothing of an
    answer for *untaken_secs* gets no more of it.
    """

    def __init__(
        self, scope: Scope, stream: zttp.Stream, connection: Connection, *, is_empty: bool, asks_first: bool,
        body_idle_secs: float, untaken_secs: float,
    ) -> None:  # fmt: skip
        self.stream_id = stream.stream_id
        self.has_whole_body = is_empty
        self.is_disconnected = False
        self._scope = scope
        self._stream = stream
        self._connection = connection
        self._asks_first = asks_first
        self._body_idle_secs = body_idle_secs
        self._untaken_secs = untaken_secs
        self._body = bytearray()
        self._owed = 0
        self._is_body_given = False
        self._news = asyncio.Event()
        self._credit = asyncio.Event()
        self._has_status = False
        self._has_no_body = False
        self._length_left: int | None = None
        self._is_answered = False

    # -- what comes from the connection ----------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """A piece of the body."""
        self._body += data
        self._news.set()

    def owe(self, credit: int) -> None:
        """zttp would let the client send so much more: so do we, once the body that waits here was taken."""
        self._owed += credit
        if not self._body:
            self._pay()

    def finish_body(self) -> None:
        """The body has come whole."""
        self.has_whole_body = True
        self._news.set()

    def disconnect(self) -> None:
        """The client has gone, or has cancelled this request."""
        self.is_disconnected = True
        self._news.set()
        self._credit.set()

    def credit_has_come(self) -> None:
        """The client takes more of answers."""
        self._credit.set()

    # -- what the app does -----------------------------------------------------------------------------------------

    async def run(self, app: Any) -> None:
        """Until the app has returned."""
        try:
            await app(self._scope, self._receive, self._send)
        except Exception:
            _log.exception("Exception in ASGI application")
            await self._fail()
        except BaseException:  # cancelled: the server ends
            self._cut(CANCEL)
            raise
        else:
            if not self._is_answered and not self.is_disconnected:
                # The proxy cuts what broke off at the Actor. Its words are uvicorn's, and quiet for that case.
                _log.error("ASGI callable returned without completing response.")
                await self._fail()
        finally:
            self._connection.is_over(self)

    async def _receive(self) -> Message:
        if self._asks_first and not (self.has_whole_body or self._body or self._has_status or self.is_disconnected):
            self._asks_first = False
            self._stream.send_informational(100)
            self._connection.write_out()
        while not (self._body or self.is_disconnected or self._is_answered or self._is_end_due()):
            self._news.clear()
            if self.has_whole_body:
                await self._news.wait()
            else:
                await self._more_of_the_body()
        if not self._body and not self._is_end_due():
            return {"type": "http.disconnect"}
        body = bytes(self._body)
        self._body.clear()
        self._is_body_given = self.has_whole_body
        self._pay()
        return {"type": "http.request", "body": body, "more_body": not self.has_whole_body}

    def _is_end_due(self) -> bool:
        return self.has_whole_body and not self._is_body_given

    async def _more_of_the_body(self) -> None:
        try:
            async with asyncio.timeout(self._body_idle_secs):
                await self._news.wait()
        except TimeoutError:
            self._cut(CANCEL)

    async def _send(self, message: Message) -> None:
        await self._connection.writable()
        if self.is_disconnected or self._is_answered:
            return
        if message["type"] == "http.response.start" and not self._has_status:
            self._start(message["status"], list(message.get("headers", [])))
        elif message["type"] == "http.response.body" and self._has_status:
            await self._send_body(message.get("body", b""), is_last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"Unexpected ASGI message {message['type']!r}.")

    def _start(self, status: int, headers: Headers) -> None:
        self._has_no_body = self._scope["method"] == "HEAD" or status in (204, 304)
        kept: Headers = []
        for name, value in headers:
            lower = name.lower()
            if lower in _OF_THE_CONNECTION:
                continue
            if lower == b"content-length" and not self._has_no_body:
                self._length_left = int(value)
            kept.append((lower, value))
        self._stream.send_response(status, kept)
        self._has_status = True
        self._connection.write_out()

    async def _send_body(self, body: bytes, *, is_last: bool) -> None:
        if self._has_no_body:
            body = b""
        if self._length_left is not None:
            self._length_left -= len(body)
            if self._length_left < 0 or (is_last and self._length_left):
                raise RuntimeError("The body of the answer does not have the length that its head tells.")
        if body:
            self._stream.send_data(body)
            self._connection.write_out()
            await self._until_taken()
        if is_last and not self.is_disconnected:
            self._stream.end_message()
            self._is_answered = True
            if not self.has_whole_body:  # RFC 9113 §8.1: the rest of the body is not wanted
                self._stream.reset(NO_ERROR)
            self._connection.write_out()
            self._news.set()

    async def _until_taken(self) -> None:
        """The client has given credit for all that was sent, or is gone."""
        while (pending_bytes := self._stream.pending_bytes) and not self.is_disconnected:
            try:
                async with asyncio.timeout(self._untaken_secs):
                    while self._stream.pending_bytes == pending_bytes and not self.is_disconnected:
                        self._credit.clear()  # it may be for another answer
                        await self._credit.wait()
            except TimeoutError:
                self._cut(CANCEL)

    async def _fail(self) -> None:
        if self._has_status or self.is_disconnected:
            self._cut(INTERNAL_ERROR)
            return
        text = b"Internal Server Error"
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
        self._start(500, headers)
        await self._send_body(text, is_last=True)

    def _cut(self, code: int) -> None:
        """The client sees that this answer is not whole, while others on its connection go on."""
        if not self.is_disconnected and not self._is_answered:
            self._stream.reset(code)
            self._connection.write_out()
        self.disconnect()

    def _pay(self) -> None:
        if self._owed and not self.has_whole_body and not self.is_disconnected and not self._is_answered:
            self._connection.give_credit(self.stream_id, self._owed)
            self._owed = 0
