"""
One request after the other of one caller's connection, each from its head to the end of its answer.

    begin → [waiting]* → sent → interim* → begun → more*     → closed
                 └────────┴────────┴─ refuse ─┘     └─ cut ─┘

An answer goes on as it comes. What breaks off before it has begun is answered with an error, or the request is sent
once more where that does no harm; what breaks off later must not look whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.core.errors import GreenroomError, RequestTooSlow
from gateway.proxy.decisions import bad_gateway, monotonic, no_first_byte
from gateway.proxy.open_streams import OpenStream, ear_for
from gateway.proxy.reuse import IDEMPOTENT
from gateway.proxy.sockets import reset_on_abort
from gateway.proxy.splice.answer_cache import SeenAnswer
from gateway.proxy.splice.answer_head import CHUNKED
from gateway.proxy.splice.back import Back
from gateway.proxy.splice.chunks import BadChunk
from gateway.proxy.splice.entering import Entering, bad_body
from gateway.proxy.splice.own_answers import error_answer
from gateway.proxy.splice.request_cache import target_for_actor
from gateway.proxy.splice.tunnel import Tunnel, TunnelEnd
from gateway.proxy.splice.upload import MAX_KEPT_BYTES
from gateway.proxy.splice.wheel import NEVER

JOINED_BYTES = 32 * 1024
"""Up to here a copy costs less than a second buffer for the kernel."""


class Exchange(Entering):
    """The present request of *front*, or none (``is_open``)."""

    __slots__ = ()

    def body(self, data: bytes) -> None:
        """More of the request's body."""
        try:
            pieces, at = self.upload.feed(data)
        except BadChunk as error:
            self.refuse(bad_body(error))
            return
        if at < len(data):
            self._front.stash(data[at:])
        if self._kept is not None:
            self._keep(pieces)
        if self._back is None:
            self._hold(pieces)
            return
        if self._stream is not None:
            self._stream.heard(monotonic())
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
        head, values, _ = self._seen
        terms, method, target = self._terms, self.method, self._target
        self.upgrade = head.upgrade
        if b"?" in target:
            target = target_for_actor(target, terms.keep_credentials)
        parts = [method, b" ", target]
        if values:
            for segment, value in zip(terms.segments, values, strict=False):
                parts += (segment, value)
        parts += (terms.segments[-1], self._id, b"\r\n\r\n")
        pieces, size = self._pending, self._pending_bytes
        if pieces:
            self._pending, self._pending_bytes = [], 0
            self._front.hold(is_held=False)
            if size <= JOINED_BYTES:
                parts += pieces
                pieces = []
        sent = b"".join(parts)
        if back.is_reused and method in IDEMPOTENT and len(sent) + size <= 2 * MAX_KEPT_BYTES:
            self._kept, self._kept_bytes = [sent, *pieces], size
        if pieces:
            back.transport.writelines([sent, *pieces])
        else:
            back.transport.write(sent)
        if self.upload.is_over:
            timing = self.timing
            self._is_usual = (
                terms.is_plain
                and terms.want is not None
                and self.takes_chunks
                and head.keeps_alive
                and head.upgrade is None
                and not timing.was_held
            )
            self._front.wait_until(timing.arrived + terms.first_byte_secs)
        else:
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
        transport, takes_chunks = self._front.transport, self.takes_chunks
        self._status = seen.facts.status
        parts = [seen.head, b"X-Actor-Request-ID: ", self._id]
        if self.timing.was_held and (told := self.timing.told(monotonic())) is not None:
            parts += (b"\r\nServer-Timing: ", told)
        keeps, size = self._may_keep(), length
        if length < 0:
            size = sum(map(len, pieces))
            if length == CHUNKED and takes_chunks:
                parts.append(b"\r\nTransfer-Encoding: chunked")
            else:
                self._is_open_ended, keeps = True, False
        self._keeps = keeps
        if not keeps:
            parts.append(b"\r\nConnection: close\r\n\r\n")
        elif takes_chunks:
            parts.append(b"\r\n\r\n")
        else:
            parts.append(b"\r\nConnection: keep-alive\r\n\r\n")
        if size <= JOINED_BYTES or not pieces:
            parts += pieces
            transport.write(b"".join(parts))
        else:
            transport.writelines([b"".join(parts), *pieces])
        if is_whole:
            self._done()
            return
        if self._terms.silence_secs is not None:
            self._listen(seen, length, pieces)
        self._go_on()

    def _listen(self, seen: SeenAnswer, length: int, pieces: Sequence[bytes]) -> None:
        """From now on the answer's silence has a limit."""
        stream = self._open_stream(lambda _code, _reason: self._cut())
        stream.ear = ear_for(seen.facts.headers, is_chunked=length == CHUNKED and self.takes_chunks)
        stream.hear(pieces, stream.heard_at)

    def _open_stream(self, close: Callable[[int, str], None]) -> OpenStream:
        limit_secs, run = self._terms.silence_secs, self._run
        assert limit_secs is not None
        assert run is not None
        self._stream = stream = OpenStream(limit_secs, monotonic(), close)
        run.streams.add(stream)
        return stream

    def more(self, pieces: Sequence[bytes], *, is_last: bool) -> None:
        """The answer goes on, or ends."""
        if self._stream is not None:
            self._stream.hear(pieces, monotonic())
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
        front.transport.write(b"".join((seen.head, b"X-Actor-Request-ID: ", self._id, b"\r\n\r\n")))

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
        if self._terms.silence_secs is not None:
            stream = self._open_stream(closing)
            tunnel.on_activity = lambda: stream.heard(monotonic())
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
        now = monotonic()
        back.let_go(now, is_request_over=self.upload.is_over)
        self._close(None, now)
        self._front.answered(now, keeps=self._keeps)

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
        self._front.answered(self._close(error), keeps=keeps)

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
        transport = self._front.transport
        if self._is_open_ended:
            reset_on_abort(transport)
        transport.abort()

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

    def _bad_gateway(self, problem: str) -> GreenroomError:
        assert self._run is not None
        return bad_gateway(self._run, problem)


def _nothing() -> None:
    """The slot is held for as long as the socket is open: that is use, unless silence has a limit."""
