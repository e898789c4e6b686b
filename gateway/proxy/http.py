"""
Carries one HTTP request to its run and the answer back, both as they come, with back-pressure both ways.

The caller's side is watched by one task, started only where the answer is not there within some milliseconds or a
body has to be sent; so a quick request without a body costs no task. A caller who leaves cuts the Actor's side.

An answer that breaks off must not look whole to the caller. ASGI has no word for that: ``forward`` raises UpstreamCut,
and the app catches it and returns without completing the response. Upon that uvicorn closes the connection (the caller
misses bytes or the last chunk) and logs an error; ``quiet_cut_answers`` takes exactly that line out of its log: call it
once, where uvicorn is set up.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from gateway.proxy.answer_reader import AnswerHead
from gateway.proxy.asgi import Message, Receive, Scope, Send, raw_path_of
from gateway.proxy.headers import CHUNKED, answer_headers, body_length, upstream_head
from gateway.proxy.plan import ForwardPlan, Headers
from gateway.proxy.upstream import Abandoned, Exchange, UpstreamCut, Upstreams

_UNWATCHED_SECS = 0.05  # a caller who leaves within these is noticed after them
_CONTINUE_SECS = 1.0  # what curl waits for a 100 before it sends its body all the same
_DRAIN_SECS = 1.0  # for the rest of a body that the Actor didn't want

_is_cut: ContextVar[bool] = ContextVar("greenroom_answer_is_cut", default=False)


class Ended(StrEnum):
    """How a forwarded request ended."""

    COMPLETE = "complete"
    CALLER_GONE = "caller-gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardOutcome:
    """
    What became of one request: *status* and *first_byte_at* (the loop's clock) are None where the caller left before.

    The bytes are those of the bodies, as far as they were passed on.
    """

    ended: Ended
    status: int | None
    first_byte_at: float | None
    bytes_up: int
    bytes_down: int


async def forward(
    scope: Scope, receive: Receive, send: Send, plan: ForwardPlan, upstreams: Upstreams
) -> ForwardOutcome:
    """
    Carry the request of *scope* to ``plan.address`` and its answer to the caller.

    Raises, before anything was sent to the caller, InvalidRequest for a request that may not be passed on, and
    UpstreamRefused, UpstreamDropped, UpstreamInvalid or UpstreamTimeout; after UpstreamRefused nothing of the body was
    taken either, so the same request may go to another run.
    Raises UpstreamCut when the answer broke off or stood still in the middle: the app must return without completing
    the response. To be awaited in the request's own task, or ``quiet_cut_answers`` can't know of it.
    """
    method: str = scope["method"]
    headers: Headers = list(scope["headers"])
    length = body_length(headers)
    # HTTP/1 says in its head whether a body follows; from HTTP/2 on only the first message does.
    has_unsized_body = length is None and not scope.get("http_version", "1.1").startswith("1")
    if has_unsized_body and method not in ("GET", "HEAD"):
        length = CHUNKED
    head = upstream_head(
        method,
        raw_path_of(scope),
        scope.get("query_string", b""),
        headers,
        plan,
        is_chunked=length == CHUNKED,
        version=scope.get("http_version", "1.1"),
    )
    exchange = await upstreams.send(plan.address, head, method=method, body_length=length)
    try:
        return await _Forwarding(scope, receive, send, plan, exchange).run()
    finally:
        exchange.release()


class _CallerGone(Exception):
    """The server's ``send`` says that nobody listens."""


class _Forwarding:
    """One request under way."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, plan: ForwardPlan, exchange: Exchange) -> None:
        self._scope = scope
        self._receive = receive
        self._send_message = send
        self._plan = plan
        self._exchange = exchange
        self._loop = asyncio.get_running_loop()
        self._body_read = asyncio.Event()
        self._answer_started = asyncio.Event()
        self._status: int | None = None
        self._first_byte_at: float | None = None
        self._bytes_up = 0
        self._bytes_down = 0

    async def run(self) -> ForwardOutcome:
        try:
            if self._exchange.is_sent:
                if not await self._take_empty_body():
                    return self._outcome(Ended.CALLER_GONE)
                await self._exchange.wait_for_head(self._loop.time() + _UNWATCHED_SECS)
            if self._exchange.is_sent and self._exchange.has_answer and self._exchange.is_over:
                await self._answer()
            else:
                await self._answer_watched()
        except (Abandoned, _CallerGone):
            return self._outcome(Ended.CALLER_GONE)
        except UpstreamCut:
            _is_cut.set(True)
            raise
        return self._outcome(Ended.COMPLETE)

    async def _answer_watched(self) -> None:
        error: Exception | None = None
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch_caller())
            try:
                await self._answer()
            except Exception as caught:  # kept aside: a TaskGroup would wrap it
                error = caught
            finally:
                watch.cancel()
        if error is not None:
            raise error

    async def _answer(self) -> None:
        head = await self._exchange.head(self._plan.first_byte_deadline)
        self._first_byte_at = self._loop.time()
        self._status = head.status
        await self._send({"type": "http.response.start", "status": head.status, "headers": self._headers(head)})
        self._answer_started.set()
        while True:
            piece = await self._exchange.next_piece(self._plan.stream_idle_timeout_secs)
            if self._exchange.is_complete:  # the last piece, or none
                break
            await self._send_body(piece, more=True)
        if self._body_read.is_set():
            await self._send_body(piece, more=False)
        else:
            await self._finish_early(piece)

    async def _finish_early(self, piece: bytes) -> None:
        """
        The Actor has answered without reading the whole body (413, say).

        The caller may still be sending. Closing now would reset the connection and could destroy the answer on its
        way, so the rest is read for a moment, with all of the answer but its end already sent.
        """
        if piece:
            await self._send_body(piece, more=True)
        try:
            async with asyncio.timeout(_DRAIN_SECS):
                await self._body_read.wait()
        except TimeoutError:
            pass
        await self._send_body(b"", more=False)

    def _headers(self, head: AnswerHead) -> Headers:
        headers = answer_headers(head.headers, self._plan)
        if head.status in (204, 304):  # uvicorn would insist on the bytes that a 304's Content-Length tells of
            headers = [(name, value) for name, value in headers if name != b"content-length"]
        if not self._body_read.is_set() and self._scope.get("http_version", "1.1").startswith("1"):
            headers.append((b"connection", b"close"))
        return headers

    async def _send_body(self, piece: bytes, *, more: bool) -> None:
        self._bytes_down += len(piece)
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _send(self, message: Message) -> None:
        try:
            await self._send_message(message)
        except (OSError, RuntimeError) as error:  # ASGI 2.4, and uvloop's word for a transport that is closed
            self._exchange.abandon()
            raise _CallerGone from error

    async def _take_empty_body(self) -> bool:
        self._body_read.set()
        message = await self._receive()
        return bool(message["type"] != "http.disconnect")

    async def _watch_caller(self) -> None:
        """Send the caller's body up as it comes, then wait for the caller to leave."""
        if await self._is_body_wanted():
            is_wanted = True
            while not self._body_read.is_set():
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    self._leave()
                    return
                chunk: bytes = message.get("body", b"")
                if is_wanted and chunk:
                    is_wanted = await self._exchange.write(chunk)
                    self._bytes_up += len(chunk)
                if not message.get("more_body", False):
                    self._body_read.set()
            if is_wanted and not self._exchange.is_sent:
                self._exchange.finish()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self._body_read.set()
        if not self._exchange.is_complete:  # else only the server's ``send`` is left, and it knows
            self._exchange.abandon()

    async def _is_body_wanted(self) -> bool:
        """
        False where the caller asked first (``Expect: 100-continue``) and the Actor gave its answer at once.

        ASGI servers send the caller's 100 when the body is first asked for, so that is put off until the Actor's 100.
        """
        if self._exchange.is_sent or not _expects_continue(self._scope["headers"]):
            return True
        if await self._exchange.wait_for_continue(self._loop.time() + _CONTINUE_SECS):
            return True
        await self._answer_started.wait()
        self._body_read.set()  # as far as it will be: what the caller sends now is the server's to skip
        return False

    def _outcome(self, ended: Ended) -> ForwardOutcome:
        return ForwardOutcome(
            ended=ended,
            status=self._status,
            first_byte_at=self._first_byte_at,
            bytes_up=self._bytes_up,
            bytes_down=self._bytes_down,
        )


class _WithoutCuts(logging.Filter):
    """
    Drops uvicorn's complaint about a response that was left incomplete on purpose; and the one that it has about each
    WebSocket that was refused with an answer, as though that were none. Nothing else.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message == "ASGI callable returned without completing handshake.":
            return False
        return not (_is_cut.get() and message == "ASGI callable returned without completing response.")


_WITHOUT_CUTS = _WithoutCuts()


def cut_here() -> None:
    """The app itself has broken the answer of this task off, as ``forward`` does when it raises UpstreamCut."""
    _is_cut.set(True)


def quiet_cut_answers() -> None:
    """Keep answers that were cut on purpose out of uvicorn's error log. May be called more than once."""
    logging.getLogger("uvicorn.error").addFilter(_WITHOUT_CUTS)


def _expects_continue(headers: Headers) -> bool:
    return any(name.lower() == b"expect" and value.lower() == b"100-continue" for name, value in headers)
