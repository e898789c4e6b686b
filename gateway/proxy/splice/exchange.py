"""
One request after the other of one caller's connection, each from its head to the end of its answer.

What can be decided from memory is decided at once, and a warm request is on its way when ``begin`` returns, without a
task, a future or a timer of its own. For everything else (records, a slot, a new connection) there is one coroutine,
beside which the caller's connection is held.

    begin → [waiting]* → sent → interim* → begun → more*     → closed
                 └────────┴────────┴─ refuse ─┘     └─ cut ─┘

The slot is given back exactly once, in ``_close``, however the request ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from gateway.core.errors import GreenroomError, InvalidRequest, RecordNotFound, RequestTooSlow, ShuttingDown
from gateway.core.standby import StandbyTarget
from gateway.observability import RequestKind
from gateway.proxy import preflight
from gateway.proxy.accounts import Timing
from gateway.proxy.decisions import bad_gateway, monotonic, no_first_byte
from gateway.proxy.hosts import LiveView, Standby, Target
from gateway.proxy.route_table import LiveRun
from gateway.proxy.splice.answer_cache import SeenAnswer
from gateway.proxy.splice.answer_head import CHUNKED
from gateway.proxy.splice.back import Back
from gateway.proxy.splice.chunks import BadChunk
from gateway.proxy.splice.entrance import Entrance
from gateway.proxy.splice.own_answers import answer, error_answer
from gateway.proxy.splice.request_cache import Seen, target_for_actor
from gateway.proxy.splice.request_line import RequestLine
from gateway.proxy.splice.splicing import Splicing
from gateway.proxy.splice.terms import Terms
from gateway.proxy.splice.tunnel import Tunnel, TunnelEnd
from gateway.proxy.splice.upload import MAX_KEPT_BYTES, Upload
from gateway.proxy.splice.wheel import NEVER
from gateway.proxy.upstream import UpstreamRefused

_log = logging.getLogger(__name__)

_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
# Up to here a copy costs less than a second buffer for the kernel.
_JOINED_BYTES = 32 * 1024


class CallerSide(Protocol):
    """The caller's connection, as its exchange uses it."""

    transport: asyncio.Transport
    is_full: bool
    is_last: bool

    @property
    def is_held(self) -> bool:
        """Whether nothing more of the request is read for now."""

    def stash(self, data: bytes) -> None:
        """It came past the end of this request's body."""

    def hold(self, *, is_held: bool) -> None:
        """What comes has nowhere to go yet; or has again."""

    def wait_until(self, at: float) -> None:
        """``Exchange.overdue`` is to be called then, unless another time is set before."""

    def answered(self, *, keeps: bool) -> None:
        """The answer is written completely; *keeps*: another request may follow."""

    def become(self, tunnel: Tunnel) -> None:
        """The connection belongs to *tunnel* from now on."""

    def left_tunnel(self) -> None:
        """Which has ended."""


class Exchange:
    """The present request of *front*, or none (``is_open``)."""

    __slots__ = (
        "_back", "_entrance", "_front", "_has_repeated", "_keeps", "_kept", "_kept_bytes", "_kind", "_pending",
        "_pending_bytes", "_problem", "_run", "_seen", "_shared", "_status", "_target", "_terms", "_waiting", "host",
        "is_open", "may_switch", "method", "request_id", "takes_chunks", "timing", "upload",
    )  # fmt: skip

    _seen: Seen
    _terms: Terms

    def __init__(self, front: CallerSide, shared: Splicing, entrance: Entrance) -> None:
        self._front = front
        self._shared = shared
        self._entrance = entrance
        self.is_open = False
        self.upload = Upload()
        self.timing = Timing(arrived=0.0)
        self._back: Back | None = None
        self._run: LiveRun | None = None
        self._waiting: asyncio.Task[None] | None = None
        # Of the present request
        self.method = self.host = self._target = b""
        self.request_id = ""
        self.may_switch = False
        self.takes_chunks = True
        self._kind: RequestKind = "own"
        self._status: int | None = None
        self._keeps = False
        self._pending: list[bytes] = []  # of the body, for an Actor whom nobody is connected to yet
        self._pending_bytes = 0
        self._kept: list[bytes] | None = None  # all that was sent, as long as it may be sent once more
        self._kept_bytes = 0
        self._has_repeated = False
        self._problem = ""  # of a connection that was lost while there was more to send

    # The request

    def begin(self, line: RequestLine, seen: Seen, host: bytes, where: Target, data: bytes, at: int) -> None:
        """A head has come: *line* and *seen*, for *host*, which means *where*. ``data[at:]`` came after it."""
        timing = self.timing
        timing.arrived = monotonic()
        timing.was_held = timing.was_cut = False
        timing.run = None
        self.is_open = True
        self.method, self._target, minor, _ = line
        self.host = host
        self._seen = seen
        self.may_switch = False
        self.takes_chunks = minor == 1
        self._kind = "own"
        self._status = None
        self._kept = None
        self._has_repeated = False
        self._problem = ""
        self.request_id = self._shared.request_ids.next()
        try:
            if seen.length:
                self.upload.begin(seen.length)
                if at < len(data):
                    self._pending, at = self.upload.feed(data, at)
                    self._pending_bytes = sum(map(len, self._pending))
            if at < len(data):
                self._front.stash(data[at:])
            if type(where) is Standby:
                self._kind = "standby"
                self._standby(where.label)
            elif type(where) is LiveView:
                self._kind = "live_view"
                self._live_view(where.label)
            else:
                # The same words as for an Actor that does not exist or may not be called.
                raise RecordNotFound("Actor")
        except GreenroomError as error:
            self.refuse(error)
        except BadChunk as error:
            self.refuse(_bad_body(error))

    def body(self, data: bytes) -> None:
        """More of the request's body."""
        try:
            pieces, at = self.upload.feed(data)
        except BadChunk as error:
            self.refuse(_bad_body(error))
            return
        if at < len(data):
            self._front.stash(data[at:])
        if self._kept is not None:
            self._keep(pieces)
        if self._back is None:
            self._hold(pieces)
            return
        if len(pieces) == 1:
            self._back.transport.write(pieces[0])
        elif pieces:
            self._back.transport.writelines(pieces)
        self._wait_for_more()

    def _hold(self, pieces: list[bytes]) -> None:
        """There is no connection to the Actor, yet or any more."""
        if self._problem:
            if self._kept is None:
                self.refuse(self._bad_gateway(self._problem))
            elif self.upload.is_over:
                self._repeat()
            return
        self._pending += pieces
        self._pending_bytes += sum(map(len, pieces))
        if self._pending_bytes > MAX_KEPT_BYTES:
            self._front.hold(is_held=True)

    # Who may, and which run

    def _standby(self, label: str) -> None:
        decisions = self._shared.decisions
        target = decisions.target(label)
        head = self._seen.head
        if self.method == b"OPTIONS" and self._entrance.is_preflight(target, head.lowered):
            self._answer_preflight()
            return
        terms = self._entrance.standby_at_once(target, head, self._target, self.host, self.timing.arrived)
        if terms is None:
            self._wait(partial(self._ask, label, target))
            return
        assert terms.want is not None
        self._terms = terms
        run = decisions.take(terms.want)
        if run is None:
            self.timing.was_held = True
            self._wait(self._through)
            return
        self._enter(run)
        self._forward()

    def _live_view(self, label: str) -> None:
        head, decisions = self._seen.head, self._shared.decisions
        run = decisions.desk.routes.by_label(label)
        if run is None or run.route.address is None:
            self._wait(partial(self._no_view, label))
            return
        terms = self._entrance.view_at_once(label, head, self._target, self.host, self.timing.arrived)
        if terms is None:
            self._wait(partial(self._ask_view, label))
            return
        self._terms = terms
        decisions.desk.view(run)
        self._enter(run)
        self._forward()

    def _answer_preflight(self) -> None:
        headers = [*preflight.preflight_answer(self._seen.head.lowered), self._id_header()]
        keeps = self._may_keep()
        connection = self._connection(keeps)
        self._front.transport.write(answer(204, headers, b"", method=self.method, connection=connection))
        self._status = 204
        self._close(None)
        self._front.answered(keeps=keeps)

    def _enter(self, run: LiveRun) -> None:
        """A slot of *run* is held by this request from now on."""
        timing = self.timing
        self._run = timing.run = run
        timing.admitted = monotonic() if timing.was_held or self._waiting is not None else timing.arrived

    def _forward(self) -> None:
        back = self._pooled()
        if back is None:
            self._wait(self._through)
        else:
            self._send(back)

    # What has to be awaited

    def _wait(self, work: Callable[[], Awaitable[None]]) -> None:
        self._waiting = self._shared.spawn(self._guarded(work))
        if self._waiting is None:
            raise ShuttingDown

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Nobody awaits this task, so whatever happens in it is answered from here."""
        error: GreenroomError | None = None
        try:
            await work()
        except GreenroomError as raised:
            error = raised
        except Exception:
            _log.exception("a request met an internal error", extra={"request_id": self.request_id})
            error = GreenroomError(f"Greenroom had an internal error; its log tells more (request {self.request_id}).")
        finally:
            if self._waiting is asyncio.current_task():  # else it was given up, and another request may be here
                self._waiting = None
        if error is not None:
            self.refuse(error)

    async def _ask(self, label: str, target: StandbyTarget) -> None:
        self._terms = terms = await self._entrance.standby(label, target, self._seen.head, self._target, self.host)
        assert terms.want is not None
        run = self._shared.decisions.take(terms.want)
        if run is None:
            self.timing.was_held = True
        else:
            self._enter(run)
        await self._through()

    async def _ask_view(self, label: str) -> None:
        self._terms = await self._entrance.view(label, self._seen.head, self._target, self.host)
        decisions = self._shared.decisions
        run = decisions.desk.routes.by_label(label)
        if run is None or run.route.address is None:
            raise await decisions.why_no_view(label)
        decisions.desk.view(run)
        self._enter(run)
        await self._through()

    async def _no_view(self, label: str) -> None:
        raise await self._shared.decisions.why_no_view(label)

    async def _through(self) -> None:
        """Until the request is sent: a slot, where none is held, and a connection; a run that refuses is left."""
        decisions, terms = self._shared.decisions, self._terms
        avoid: set[str] = set()
        while True:
            if self._run is None:
                assert terms.want is not None
                arrived = self.timing.arrived
                self.timing.was_held = True
                run = await decisions.slot_later(terms.want, arrived, arrived + terms.pick_secs)
                avoid.clear()
                self._enter(run)
            assert self._run is not None
            back = self._pooled()
            if back is None:
                try:
                    back = await self._shared.pools.connect(self._run)
                except UpstreamRefused:
                    if terms.want is None:  # it may have ended a moment ago, before its route was taken back
                        assert isinstance(terms.subject, str)
                        raise await decisions.why_no_view(terms.subject) from None
                    # Nothing was sent: the same request goes to another run, or waits until this one is probed again.
                    decisions.desk.refused(self._run)
                    avoid.add(self._run.route.run_id)
                    self._give_back()
                    other = decisions.take(terms.want, frozenset(avoid))
                    if other is not None:
                        self._enter(other)
                    continue
            self._send(back)
            return

    def _pooled(self) -> Back | None:
        if self._has_repeated or self._seen.head.upgrade is not None:
            return None
        assert self._run is not None
        # What can't be repeated deserves a look before: the other side may have closed a moment ago.
        must_look = self.method not in _IDEMPOTENT
        return self._shared.pools.take(self._run, self.timing.admitted, must_look=must_look)

    # On its way

    def _send(self, back: Back) -> None:
        self._back = back
        back.carry(self)
        if self._has_repeated:
            assert self._kept is not None
            again, self._kept = self._kept, None
            back.transport.write(b"".join(again))
            self._wait_for_more()
            return
        seen, terms = self._seen, self._terms
        self.may_switch = seen.head.upgrade is not None
        parts = [self.method, b" ", target_for_actor(self._target, terms.keep_credentials), b" HTTP/1.1\r\n"]
        if seen.values:
            for segment, value in zip(terms.segments, seen.values, strict=False):
                parts.append(segment)
                parts.append(value)
        parts.append(terms.segments[-1])
        parts.append(self.request_id.encode())
        parts.append(b"\r\n\r\n")
        pieces, size = self._pending, self._pending_bytes
        if pieces:
            self._pending, self._pending_bytes = [], 0
            self._front.hold(is_held=False)
            if size <= _JOINED_BYTES:
                parts += pieces
                pieces = []
        sent = b"".join(parts)
        if back.is_reused and self.method in _IDEMPOTENT and len(sent) + size <= 2 * MAX_KEPT_BYTES:
            self._kept, self._kept_bytes = [sent, *pieces], size
        if pieces:
            back.transport.writelines([sent, *pieces])
        else:
            back.transport.write(sent)
        self._wait_for_more()

    def _keep(self, pieces: Sequence[bytes]) -> None:
        assert self._kept is not None
        self._kept_bytes += sum(map(len, pieces))
        if self._kept_bytes > MAX_KEPT_BYTES:
            self._kept = None
        else:
            self._kept += [bytes(piece) for piece in pieces]

    def _repeat(self) -> None:
        """The Actor can't have seen it, or it does no harm to do it twice: once more, on a new connection."""
        self._has_repeated = True
        self._problem = ""
        try:
            self._wait(self._through)
        except GreenroomError as error:
            self.refuse(error)

    def actor_is_full(self, *, is_full: bool) -> None:
        """The Actor takes what is written to it more slowly than it comes; or no longer."""
        self._front.hold(is_held=is_full)
        if not is_full:
            self._wait_for_more()

    # The answer

    def interim(self, seen: SeenAnswer) -> None:
        """A 1xx goes on as it came; HTTP/1.0 has none."""
        if self.takes_chunks:
            self._front.transport.write(seen.head + b"\r\n")

    def begun(self, seen: SeenAnswer, length: int, pieces: Sequence[bytes], *, is_whole: bool) -> None:
        """The answer begins."""
        front = self._front
        self._status = seen.facts.status
        keeps = self._keeps = (length >= 0 or (length == CHUNKED and self.takes_chunks)) and self._may_keep()
        parts = [seen.head, b"X-Actor-Request-ID: ", self.request_id.encode()]
        if self.timing.was_held and (told := self.timing.told(monotonic())) is not None:
            parts += (b"\r\nServer-Timing: ", told)
        if length == CHUNKED and self.takes_chunks:
            parts.append(b"\r\nTransfer-Encoding: chunked")
        if not keeps:
            parts.append(b"\r\nConnection: close\r\n\r\n")
        elif self.takes_chunks:
            parts.append(b"\r\n\r\n")
        else:
            parts.append(b"\r\nConnection: keep-alive\r\n\r\n")
        if sum(map(len, pieces)) <= _JOINED_BYTES:
            parts += pieces
            front.transport.write(b"".join(parts))
        else:
            front.transport.writelines([b"".join(parts), *pieces])
        if is_whole:
            self._done()
        else:
            self._go_on()

    def more(self, pieces: Sequence[bytes], *, is_last: bool) -> None:
        """The answer goes on, or ends."""
        transport = self._front.transport
        if len(pieces) == 1:
            transport.write(pieces[0])
        elif pieces:
            transport.writelines(pieces)
        if is_last:
            self._done()
        else:
            self._go_on()

    def switched(self, seen: SeenAnswer, rest: bytes) -> None:
        """The Actor agreed to the upgrade: from now on there are bytes, or frames, both ways."""
        back, run, front = self._back, self._run, self._front
        assert back is not None
        assert run is not None
        protocol = seen.facts.upgrade
        assert protocol is not None
        self._status, self._back = 101, None
        back.receiver = None
        self._shared.pools.let_go(back)
        front.transport.write(b"".join((seen.head, b"X-Actor-Request-ID: ", self.request_id.encode(), b"\r\n\r\n")))

        def ended(_end: TunnelEnd) -> None:
            self._shared.sockets.discard(run.route.run_id, closing)
            self._shared.metrics.count_websockets(-1)
            self._close(None)
            front.left_tunnel()

        tunnel = Tunnel(
            client=front.transport,
            actor=back.transport,
            protocol=protocol,
            has_extensions=any(name.lower() == b"sec-websocket-extensions" for name, _ in seen.facts.headers),
            max_message_bytes=self._shared.decisions.settings.max_websocket_message_bytes,
            on_activity=_nothing,
            on_end=ended,
        )
        closing = tunnel.close
        self._shared.sockets.add(run.route.run_id, closing)
        self._shared.metrics.count_websockets(1)
        back.transport.set_protocol(tunnel.actor_side)
        front.become(tunnel)
        if rest:
            tunnel.actor_side.data_received(rest)

    def failed(self, problem: str, *, has_begun: bool, saw_bytes: bool) -> None:
        """The connection to the Actor is gone, or worth nothing."""
        self._back = None
        if has_begun:
            self._cut()
        elif self._kept is None or saw_bytes:
            self.refuse(self._bad_gateway(problem))
        elif self.upload.is_over:
            self._repeat()
        else:
            self._problem = problem  # the rest of the body is still to come
            self._front.hold(is_held=False)
            self._front.wait_until(monotonic() + self._shared.decisions.settings.body_idle_timeout_secs)

    def _done(self) -> None:
        back, self._back = self._back, None
        assert back is not None
        back.let_go(monotonic(), is_request_over=self.upload.is_over)
        self._close(None)
        self._front.answered(keeps=self._keeps)

    # Ends before time

    def refuse(self, error: GreenroomError) -> None:
        """Answer with *error*; where an answer has begun already, all that is left is to break it off."""
        if self._status is not None:
            self._cut()
            return
        self._abandon()
        self._status = error.http_status
        keeps = self._may_keep()
        connection = self._connection(keeps)
        self._front.transport.write(
            error_answer(error, method=self.method, request_id=self.request_id, connection=connection)
        )
        self._close(error)
        self._front.answered(keeps=keeps)

    def caller_gone(self) -> None:
        """Nobody wants the answer any more."""
        self._abandon()
        self._close(None)

    def caller_is_full(self, *, is_full: bool) -> None:
        """The caller takes what is written to it more slowly than it comes; or no longer."""
        if self._back is None:
            return
        if is_full:
            self._back.pause_reading()
        else:
            self._back.resume_reading()
            if self._status is not None:
                self._go_on()

    def overdue(self, now: float) -> None:
        """The time set by ``wait_until`` is over."""
        if self._waiting is not None or self._back is None:
            if self._problem:
                self.refuse(self._bad_gateway(self._problem))
            return
        settings, terms = self._shared.decisions.settings, self._terms
        if self._status is not None:
            self._cut()
            return
        run, waited_secs = self._run, now - self.timing.arrived
        if waited_secs < terms.first_byte_secs:
            self.refuse(
                RequestTooSlow(
                    f"Nothing more of the request's body came for {settings.body_idle_timeout_secs:g} s "
                    "(setting: body_idle_timeout_secs)."
                )
            )
            return
        assert run is not None
        self.refuse(no_first_byte(run, waited_secs, terms.first_byte_secs, is_view=terms.want is None))

    def _wait_for_more(self) -> None:
        """Of the answer, and of the body where it has not ended; while the Actor is slow, that is its own affair."""
        if self._status is not None:
            self._go_on()
            return
        due = self.timing.arrived + self._terms.first_byte_secs
        if not self.upload.is_over and not self._front.is_held:
            due = min(due, monotonic() + self._shared.decisions.settings.body_idle_timeout_secs)
        self._front.wait_until(due)

    def _go_on(self) -> None:
        """The answer is under way: there are limits to an Actor's silence, and to a caller who takes nothing of it."""
        limit_secs, back = self._terms.stream_idle_secs, self._back
        settings = self._shared.decisions.settings
        if self._front.is_full:
            limit_secs = settings.keep_alive_secs
            if back is not None:
                back.pause_reading()
        elif not self.upload.is_over and not self._front.is_held:
            limit_secs = min(limit_secs or NEVER, settings.body_idle_timeout_secs)
        self._front.wait_until(NEVER if limit_secs is None else monotonic() + limit_secs)

    def _cut(self) -> None:
        """The answer must not look whole."""
        self.timing.was_cut = True
        self._abandon()
        self._close(None)
        self._front.transport.abort()

    def _abandon(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
        back, self._back = self._back, None
        if back is not None:
            back.receiver = None
            back.transport.abort()
        if self._pending:
            self._pending, self._pending_bytes = [], 0
        self._kept = None

    def _give_back(self) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        desk = self._shared.decisions.desk
        if self._kind == "live_view":
            desk.end_view(run)
        else:
            desk.give_back(run)

    def _close(self, error: GreenroomError | None) -> None:
        """The request has ended: its slot is free, it is counted and noted."""
        if not self.is_open:
            return
        self.is_open = False
        self._give_back()
        method = "WEBSOCKET" if self._seen.head.upgrade == b"websocket" else self.method.decode()
        self._shared.accounts.ended(self._kind, method, self._status, self.timing, self.request_id, error)

    def _may_keep(self) -> bool:
        """Whether another request may follow, as far as this one goes."""
        if not self.upload.is_over or self._shared.is_leaving or self._front.is_last:
            return False
        head = self._seen.head
        if self.takes_chunks:
            return not head.options or not head.wants_close
        return head.wants_keep_alive

    def _connection(self, keeps: bool) -> bytes | None:
        if not keeps:
            return b"close"
        return None if self.takes_chunks else b"keep-alive"

    def _id_header(self) -> tuple[bytes, bytes]:
        return b"x-actor-request-id", self.request_id.encode()

    def _bad_gateway(self, problem: str) -> GreenroomError:
        assert self._run is not None
        return bad_gateway(self._run, problem)


def _bad_body(error: BadChunk) -> InvalidRequest:
    return InvalidRequest(f"The body of the request is malformed: {error}.")


def _nothing() -> None:
    """The slot is held for as long as the socket is open: that is use, with or without activity."""
