"""
Carries one HTTP request to its run and the answer back, both as they come, with back-pressure both ways.

The caller's side is watched by one task, started only where the answer is not there within some milliseconds or a
body has to be sent; so a quick request without a body costs no task. Greenroom's own server tells when a caller leaves,
so there the task is for bodies that have not come whole. A caller who leaves cuts the Actor's side.

An answer that breaks off must not look whole to the caller. ASGI has no word for that: ``forward`` raises UpstreamCut,
and the app catches it and returns without completing the response. Upon that uvicorn closes the connection (the caller
misses bytes or the last chunk) and logs an error; ``quiet_cut_answers`` takes exactly that line out of its log: call it
once, where uvicorn is set up.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from enum import StrEnum
from typing import NamedTuple

from gateway.proxy.answer_reader import AnswerHead, KeptHeaders
from gateway.proxy.asgi import Lines, Message, Receive, Scope, Send, Wire, raw_path_of, wire_of
from gateway.proxy.headers import Prepared, as_text, head_of, kept_headers, prepare, target
from gateway.proxy.plan import Errand, ForwardPlan, Headers
from gateway.proxy.splice.request_cache import target_for_actor
from gateway.proxy.upstream import Abandoned, Exchange, UpstreamCut, Upstreams

_UNWATCHED_SECS = 0.05  # a caller who leaves within these is noticed after them
_CONTINUE_SECS = 1.0  # what curl waits for a 100 before it sends its body all the same
_DRAIN_SECS = 1.0  # for the rest of a body that the Actor didn't want
_MAX_HOSTS_OF_A_HEAD = 8
_new = tuple.__new__  # a NamedTuple's own constructor takes twice as long

_is_cut: ContextVar[bool] = ContextVar("greenroom_answer_is_cut", default=False)


class Ended(StrEnum):
    """How a forwarded request ended."""

    COMPLETE = "complete"
    CALLER_GONE = "caller-gone"


class ForwardOutcome(NamedTuple):
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
    scope: Scope,
    receive: Receive,
    send: Send,
    plan: ForwardPlan,
    upstreams: Upstreams,
    errand: Errand | None = None,
    prepared: Prepared | None = None,
) -> ForwardOutcome:
    """
    Carry the request of *scope* to ``plan.address`` and its answer to the caller.

    With an *errand*, what it has in common with the plan is its own; *prepared* is what ``headers.prepare`` says.

    Raises, before anything was sent to the caller, InvalidRequest for a request that may not be passed on, and
    UpstreamRefused, UpstreamDropped, UpstreamInvalid or UpstreamTimeout; after UpstreamRefused nothing of the body was
    taken either, or it is ``UpstreamRefused.taken``: the same request may go to another run.
    Raises UpstreamCut when the answer broke off or stood still in the middle: the app must return without completing
    the response. To be awaited in the request's own task, or ``quiet_cut_answers`` can't know of it.
    """
    wire = wire_of(scope)
    method: str = scope["method"]
    if errand is None:
        errand = Errand(plan.address, plan.request_id, plan.first_byte_deadline, plan.answer_headers)
    if prepared is None:
        version = scope.get("http_version", "1.1")
        prepared = prepare(list(scope["headers"]), plan, is_chunked=may_be_unsized(scope), version=version)
    if wire is not None and not plan.prefix:
        whole = target_for_actor(wire.target, plan.keep_credentials)
    else:
        whole = target(raw_path_of(scope), scope.get("query_string", b""), plan)
    exchange = await upstreams.send(
        errand.address,
        head_of(method, whole, prepared, errand.request_id),
        method=method,
        body_length=prepared.length,
        is_held=bool(prepared.length) and wire is not None and wire.has_whole_body,
    )
    try:
        return await _Forwarding(scope, receive, send, plan, exchange, errand, wire).run()
    finally:
        if wire is not None:
            wire.when_gone(None)
        exchange.release()


def may_be_unsized(scope: Scope) -> bool:
    """
    Whether a request whose headers say nothing of a body may have one.

    HTTP/1 says in its head whether a body follows; from HTTP/2 on only the first message does.
    """
    return not scope.get("http_version", "1.1").startswith("1") and scope["method"] not in ("GET", "HEAD")


class _CallerGone(Exception):
    """The server's ``send`` says that nobody listens."""


class _Upload:
    """What sender and receiver of a body tell each other: it was read as far as it will be; its answer has begun."""

    __slots__ = ("answered", "read")

    def __init__(self) -> None:
        self.read = asyncio.Event()
        self.answered = asyncio.Event()


class _Forwarding:
    """One request under way."""

    __slots__ = (
        "_bytes_down", "_bytes_up", "_errand", "_exchange", "_first_byte_at", "_loop", "_plan", "_receive", "_scope",
        "_send_message", "_status", "_upload", "_wire",
    )  # fmt: skip

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        plan: ForwardPlan,
        exchange: Exchange,
        errand: Errand,
        wire: Wire | None,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send_message = send
        self._plan = plan
        self._exchange = exchange
        self._errand = errand
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._upload: _Upload | None = None  # while the body may not have been read
        self._status: int | None = None
        self._first_byte_at: float | None = None
        self._bytes_up = 0
        self._bytes_down = 0

    async def run(self) -> ForwardOutcome:
        try:
            if self._wire is not None and (self._exchange.is_sent or self._wire.has_whole_body):
                self._wire.when_gone(self._leave)
                if not self._exchange.is_sent:
                    await self._send_whole_body()
                await self._answer()
            else:
                await self._run_watched()
        except (Abandoned, _CallerGone):
            return self._outcome(Ended.CALLER_GONE)
        except UpstreamCut:
            _is_cut.set(True)
            raise
        return self._outcome(Ended.COMPLETE)

    async def _run_watched(self) -> None:
        """Where nobody tells when the caller leaves, or where there is a body to wait for."""
        exchange = self._exchange
        if exchange.is_sent:
            if (await self._receive())["type"] == "http.disconnect":
                raise _CallerGone
            await exchange.wait_for_head(self._loop.time() + _UNWATCHED_SECS)
            if exchange.has_answer and exchange.is_over:
                await self._answer()
                return
        self._upload = _Upload()
        if exchange.is_sent:
            self._upload.read.set()
        await self._answer_watched(self._upload)

    async def _send_whole_body(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _CallerGone
        body: bytes = message["body"]
        self._bytes_up = len(body)
        if await self._exchange.write(body) and not self._exchange.is_sent:
            self._exchange.finish()

    async def _answer_watched(self, upload: _Upload) -> None:
        error: Exception | None = None
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch_caller(upload))
            try:
                await self._answer()
            except Exception as caught:  # kept aside: a TaskGroup would wrap it
                error = caught
            finally:
                watch.cancel()
        if error is not None:
            raise error

    async def _answer(self) -> None:
        exchange, upload = self._exchange, self._upload
        head = await exchange.head(self._errand.first_byte_deadline)
        self._first_byte_at = self._loop.time()
        self._status = head.status
        body = exchange.take_whole() if upload is None else None
        if body is not None and self._answer_at_once(head, body):
            return
        await self._send(self._start(head))
        if body is not None:
            await self._send_body(body, more=False)
            return
        if upload is not None:
            upload.answered.set()
        while True:
            piece = await exchange.next_piece(self._plan.stream_idle_timeout_secs)
            if exchange.is_complete:  # the last piece, or none
                break
            await self._send_body(piece, more=True)
        if upload is None or upload.read.is_set():
            await self._send_body(piece, more=False)
        else:
            await self._finish_early(piece, upload)

    async def _finish_early(self, piece: bytes, upload: _Upload) -> None:
        """
        The Actor has answered without reading the whole body (413, say).

        The caller may still be sending. Closing now would reset the connection and could destroy the answer on its
        way, so the rest is read for a moment, with all of the answer but its end already sent.
        """
        if piece:
            await self._send_body(piece, more=True)
        try:
            async with asyncio.timeout(_DRAIN_SECS):
                await upload.read.wait()
        except TimeoutError:
            pass
        await self._send_body(b"", more=False)

    def _answer_at_once(self, head: AnswerHead, body: bytes) -> bool:
        """The whole answer, where the server takes it in one."""
        wire, plan, make_ours = self._wire, self._plan, self._errand.answer_headers
        if wire is None or self._send_message != wire.send:
            return False
        kept = head.kept.get((plan.host, plan.is_sandboxed)) or self._kept(head)
        text = kept.text if make_ours is None else kept.text + _text(make_ours())
        try:
            is_taken = wire.answer(head.status, _new(Lines, (text, kept.length)), body)
        except (OSError, RuntimeError) as error:  # as in ``_send``
            self._exchange.abandon()
            raise _CallerGone from error
        if is_taken:
            self._bytes_down = len(body)
        return is_taken

    def _start(self, head: AnswerHead) -> Message:
        plan, make_ours, upload = self._plan, self._errand.answer_headers, self._upload
        kept = head.kept.get((plan.host, plan.is_sandboxed)) or self._kept(head)
        ours = make_ours() if make_ours is not None else []
        if upload is not None and not upload.read.is_set() and self._scope.get("http_version", "1.1").startswith("1"):
            ours = [*ours, (b"connection", b"close")]
        elif self._wire is not None:
            return {
                "type": "http.response.start",
                "status": head.status,
                "headers": [*kept.headers, *ours],
                "greenroom": Lines(kept.text + _text(ours), kept.length),
            }
        return {"type": "http.response.start", "status": head.status, "headers": [*kept.headers, *ours]}

    def _kept(self, head: AnswerHead) -> KeptHeaders:
        """What of *head* goes to every such caller."""
        plan = self._plan
        headers = kept_headers(head.headers, plan.host, is_sandboxed=plan.is_sandboxed)
        # uvicorn would insist on the bytes that a 304's Content-Length tells of.
        if head.status == 204 or (head.status == 304 and self._wire is None):
            headers = [(name, value) for name, value in headers if name != b"content-length"]
        lengths = [int(value) for name, value in headers if name == b"content-length"]
        kept = KeptHeaders(headers, as_text(headers), lengths[0] if lengths else None)
        if self._wire is not None:  # else the next caller's server may be another
            if len(head.kept) >= _MAX_HOSTS_OF_A_HEAD:
                head.kept.clear()
            head.kept[plan.host, plan.is_sandboxed] = kept
        return kept

    async def _send_body(self, piece: bytes, *, more: bool) -> None:
        self._bytes_down += len(piece)
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _send(self, message: Message) -> None:
        try:
            await self._send_message(message)
        except (OSError, RuntimeError) as error:  # ASGI 2.4, and uvloop's word for a transport that is closed
            self._exchange.abandon()
            raise _CallerGone from error

    async def _watch_caller(self, upload: _Upload) -> None:
        """Send the caller's body up as it comes, then wait for the caller to leave."""
        if await self._is_body_wanted(upload):
            is_wanted = True
            while not upload.read.is_set():
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    upload.read.set()
                    self._leave()
                    return
                chunk: bytes = message.get("body", b"")
                if is_wanted and chunk:
                    is_wanted = await self._exchange.write(chunk)
                    self._bytes_up += len(chunk)
                if not message.get("more_body", False):
                    upload.read.set()
            if is_wanted and not self._exchange.is_sent:
                self._exchange.finish()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self._exchange.is_complete:  # else only the server's ``send`` is left, and it knows
            self._exchange.abandon()

    async def _is_body_wanted(self, upload: _Upload) -> bool:
        """
        False where the caller asked first (``Expect: 100-continue``) and the Actor gave its answer at once.

        ASGI servers send the caller's 100 when the body is first asked for, so that is put off until the Actor's 100.
        """
        if self._exchange.is_sent or not _expects_continue(self._scope["headers"]):
            return True
        if await self._exchange.wait_for_continue(self._loop.time() + _CONTINUE_SECS):
            return True
        await upload.answered.wait()
        upload.read.set()  # as far as it will be: what the caller sends now is the server's to skip
        return False

    def _outcome(self, ended: Ended) -> ForwardOutcome:
        return _new(ForwardOutcome, (ended, self._status, self._first_byte_at, self._bytes_up, self._bytes_down))


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


def _text(ours: Headers) -> bytes:
    return b"%b: %b\r\n" % ours[0] if len(ours) == 1 else as_text(ours)


def _expects_continue(headers: Headers) -> bool:
    return any(name.lower() == b"expect" and value.lower() == b"100-continue" for name, value in headers)
