"""
How a request gets to a connection of its run: who may send it, on what terms, a slot, and the connection.

What can be decided from memory is decided at once, and a warm request is on its way when ``begin`` returns, without a
task, a future or a timer of its own. For everything else (records, a slot, a new connection) there is one coroutine,
beside which the caller's connection is held.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from gateway.core.errors import GreenroomError, InvalidRequest, RecordNotFound, ShuttingDown
from gateway.core.standby import StandbyTarget
from gateway.observability import RequestKind
from gateway.proxy import preflight
from gateway.proxy.accounts import Timing
from gateway.proxy.decisions import monotonic
from gateway.proxy.hosts import LiveView, Standby, Target
from gateway.proxy.open_streams import OpenStream
from gateway.proxy.reuse import IDEMPOTENT
from gateway.proxy.route_table import LiveRun
from gateway.proxy.splice.back import Back
from gateway.proxy.splice.chunks import BadChunk
from gateway.proxy.splice.entrance import Entrance
from gateway.proxy.splice.own_answers import answer
from gateway.proxy.splice.request_cache import Seen
from gateway.proxy.splice.request_line import RequestLine
from gateway.proxy.splice.splicing import Splicing
from gateway.proxy.splice.terms import Terms
from gateway.proxy.splice.tunnel import Tunnel
from gateway.proxy.splice.upload import Upload
from gateway.proxy.upstream import UpstreamRefused

_log = logging.getLogger(__name__)


class CallerSide(Protocol):
    """The caller's connection, as its exchange uses it."""

    transport: asyncio.Transport
    is_full: bool
    is_last: bool

    @property
    def has_more(self) -> bool:
        """Whether something has come that follows this request."""

    @property
    def is_held(self) -> bool:
        """Whether nothing more of the request is read for now."""

    def stash(self, data: bytes) -> None:
        """It came past the end of this request's body."""

    def hold(self, *, is_held: bool) -> None:
        """What comes has nowhere to go yet; or has again."""

    def wait_until(self, at: float) -> None:
        """``Exchange.overdue`` is to be called then, unless another time is set before."""

    def answered(self, now: float, *, keeps: bool) -> None:
        """The answer is written completely *now*; *keeps*: another request may follow."""

    def become(self, tunnel: Tunnel) -> None:
        """The connection belongs to *tunnel* from now on."""

    def left_tunnel(self) -> None:
        """Which has ended."""


class Entering(ABC):
    """
    The present request of *front*, or none (``is_open``), as far as a connection to its run. ``Exchange`` is the rest.

    Its slot is given back exactly once, in ``_close``, however it ends.
    """

    __slots__ = (
        "_back", "_entrance", "_front", "_has_repeated", "_id", "_is_open_ended", "_is_usual", "_keeps", "_kept",
        "_kept_bytes", "_kind", "_pending", "_pending_bytes", "_problem", "_run", "_seen", "_shared", "_status",
        "_stream", "_target", "_terms", "_waiting", "host", "is_open", "method", "takes_chunks", "timing",
        "upgrade", "upload",
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
        self._stream: OpenStream | None = None  # it, where its silence has a limit
        self._waiting: asyncio.Task[None] | None = None
        # Of the present request
        self.method = self.host = self._target = b""
        self._id = b""
        self.upgrade: bytes | None = None  # to what the Actor was asked to switch
        self.takes_chunks = True
        self._kind: RequestKind = "own"
        self._status: int | None = None
        self._keeps = False
        self._is_open_ended = False  # the end of the connection is the end of the answer
        self._is_usual = False  # it is all use of a warm run, without a body, and another may follow
        self._pending: list[bytes] = []  # of the body, for an Actor whom nobody is connected to yet
        self._pending_bytes = 0
        self._kept: list[bytes] | None = None  # all that was sent, as long as it may be sent once more
        self._kept_bytes = 0
        self._has_repeated = False
        self._problem = ""  # of a connection that was lost while there was more to send

    @property
    def request_id(self) -> str:
        """The name of the present request."""
        return self._id.decode()

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
        self.takes_chunks = minor == 1
        self._status = self._kept = None
        self._has_repeated = self._is_usual = False
        self._problem = ""
        self._id = self._shared.request_ids.next_bytes()
        try:
            if at < len(data) or seen.length:
                self._begin_body(seen.length, data, at)
            if type(where) is Standby:
                self._kind = "standby"
                self._standby(where.label)
            elif type(where) is LiveView:
                self._kind = "live_view"
                self._live_view(where.label)
            else:
                self._kind = "own"
                # The same words as for an Actor that does not exist or may not be called.
                raise RecordNotFound("Actor")
        except GreenroomError as error:
            self.refuse(error)
        except BadChunk as error:
            self.refuse(bad_body(error))

    def _begin_body(self, length: int | None, data: bytes, at: int) -> None:
        if length:
            self.upload.begin(length)
            if at < len(data):
                self._pending, at = self.upload.feed(data, at)
                self._pending_bytes = sum(map(len, self._pending))
        if at < len(data):
            self._front.stash(data[at:])

    # Who may, and which run

    def _standby(self, label: str) -> None:
        decisions, timing = self._shared.decisions, self.timing
        target = decisions.target(label)
        head = self._seen.head
        if self.method == b"OPTIONS" and self._entrance.is_preflight(target, head.lowered):
            self._answer_preflight()
            return
        terms = self._entrance.standby_at_once(target, head, self._target, self.host, timing.arrived)
        if terms is None:
            self._wait(partial(self._ask, label, target))
            return
        self._terms = terms
        assert terms.want is not None
        run = decisions.take(terms.want)
        if run is None:
            timing.was_held = True
            self._wait(self._through)
            return
        self._run = timing.run = run
        timing.admitted = timing.arrived
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
        if run.is_frozen:
            self._wait(self._view_frozen)
        else:
            self._forward()

    def _answer_preflight(self) -> None:
        headers = [*preflight.preflight_answer(self._seen.head.lowered), self._id_header()]
        keeps = self._may_keep()
        connection = self._connection(keeps)
        self._front.transport.write(answer(204, headers, b"", method=self.method, connection=connection))
        self._status = 204
        now = self._close(None)
        self._front.answered(now, keeps=keeps)

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
        await self._view_frozen()

    async def _view_frozen(self) -> None:
        assert self._run is not None
        if self._run.is_frozen:
            self.timing.was_held = True
            await self._shared.decisions.until_awake(self._run, self.timing.arrived)
            self.timing.admitted = monotonic()
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
                if terms.ignores is not None and terms.ignores(self._target):
                    decisions.let_sleep(terms.want)
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
        assert self._run is not None
        pool = self._shared.pools.of(self._run)
        if pool is None or self._has_repeated or self._seen.head.upgrade is not None:
            return None
        # What can't be repeated deserves a look before: the other side may have closed a moment ago.
        return pool.take(self.timing.admitted, must_look=self.method not in IDEMPOTENT)

    # What comes after, and instead

    @abstractmethod
    def _send(self, back: Back) -> None:
        """The request goes out on *back*."""

    @abstractmethod
    def refuse(self, error: GreenroomError) -> None:
        """Answer with *error*."""

    # Its end

    def _give_back(self) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        desk = self._shared.decisions.desk
        if self._kind == "live_view":
            desk.end_view(run)
        elif self._terms.is_plain:
            desk.give_back(run)
        else:
            self._give_back_unused(run)

    def _give_back_unused(self, run: LiveRun) -> None:
        """The slot of a request that may have been no use, from its beginning or since it fell silent."""
        used_at = None
        stream, self._stream = self._stream, None
        if stream is not None:
            run.streams.discard(stream)
            if stream.silent_at <= monotonic():
                used_at = stream.heard_at
        ignores = self._terms.ignores
        if ignores is not None and ignores(self._target):
            used_at = 0.0
        self._shared.decisions.desk.give_back(run, used_at=used_at)

    def _close(self, error: GreenroomError | None, now: float | None = None) -> float:
        """The request has ended, *now* (which is returned): its slot is free, it is counted and noted."""
        if now is None:
            now = monotonic()
        if self.is_open:
            self.is_open = False
            self._give_back()
            method = self.method if self._seen.head.upgrade != b"websocket" else b"WEBSOCKET"
            self._shared.accounts.ended(self._kind, method, self._status, self.timing, self._id, error, now)
        return now

    def _may_keep(self) -> bool:
        """Whether another request may follow, as far as this one goes."""
        front = self._front
        return (
            self._seen.head.keeps_alive
            and self.upload.is_over
            and not front.is_last
            and (not self._shared.lobby.is_leaving or front.has_more)
        )

    def _connection(self, keeps: bool) -> bytes | None:
        if not keeps:
            return b"close"
        return None if self.takes_chunks else b"keep-alive"

    def _id_header(self) -> tuple[bytes, bytes]:
        return b"x-actor-request-id", self._id


def bad_body(error: BadChunk) -> InvalidRequest:
    """What is told to who frames his chunks wrongly."""
    return InvalidRequest(f"The body of the request is malformed: {error}.")
