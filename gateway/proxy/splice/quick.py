"""
The usual request at one stroke: warm, without a body, of use to its run for as long as it is open, answered whole.

It goes the same way as every other (``entering``, ``exchange``), with the same checks at the same places, but in as few
steps as there can be. And where a connection brings the very request that it has just brought, byte for byte, what was
decided of that stands as long as all that it was decided by: the directory of Actors and the authenticator count their
changes, and what is believed of a token has its time. Which run takes it, on which connection, and whether there is a
slot for it at all, is asked anew each time.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.errors import GreenroomError
from gateway.proxy.decisions import monotonic
from gateway.proxy.route_table import LiveRun
from gateway.proxy.slots import Want
from gateway.proxy.splice.answer_cache import SeenAnswer
from gateway.proxy.splice.entering import CallerSide
from gateway.proxy.splice.entrance import Entrance
from gateway.proxy.splice.exchange import JOINED_BYTES, Exchange
from gateway.proxy.splice.request_cache import target_for_actor
from gateway.proxy.splice.splicing import Splicing
from gateway.request_log import About

_REPEATED = frozenset({b"GET", b"HEAD"})
_AFTER_HEAD = b"\r\n\r\n"
_NEVER_SEEN = -1


class QuickExchange(Exchange):
    """An ``Exchange`` that knows the usual case. ``note`` a request that comes the second time, and then ``again``."""

    __slots__ = (
        "_about", "_about_method", "_about_run", "_directory_version", "_epoch", "_first_byte_secs", "_text", "_until",
        "_want",
    )  # fmt: skip

    _about: About  # of requests of that method to that run
    _want: Want
    _first_byte_secs: float

    def __init__(self, front: CallerSide, shared: Splicing, entrance: Entrance) -> None:
        super().__init__(front, shared, entrance)
        self._about_run: LiveRun | None = None
        self._about_method = b""
        # What was noted: the request as it goes to the Actor, up to its id, and what it was decided by.
        self._text = b""
        self._directory_version = self._epoch = _NEVER_SEEN
        self._until = 0.0

    # The same request

    def note(self) -> bool:
        """Whether the present request, which has just begun, can be had ``again`` where the next one is the same."""
        values = self._seen.values
        if not (self._is_usual and self._back is not None and self.method in _REPEATED):
            return False
        terms, target = self._terms, self._target
        assert terms.want is not None
        if b"?" in target:
            target = target_for_actor(target, terms.keep_credentials)
        parts = [self.method, b" ", target]
        for segment, value in zip(terms.segments, values, strict=False):
            parts += (segment, value)
        self._text = b"".join((*parts, terms.segments[-1]))
        self._want, self._until, self._epoch = terms.want, terms.until, terms.epoch
        self._directory_version = self._shared.decisions.directory.version
        self._first_byte_secs = terms.first_byte_secs
        return True

    def again(self) -> bool:
        """
        The request that was noted has come once more, with none between; False: it has to ``begin`` like any other.

        Nothing has happened then.
        """
        shared, now = self._shared, monotonic()
        decisions = shared.decisions
        if (
            decisions.directory.version != self._directory_version
            or decisions.auth.epoch != self._epoch
            or now >= self._until
            or decisions.is_stopping
        ):
            return False
        run = decisions.desk.take(self._want, now=now)
        if run is None:
            return False
        shared.lobby.requests.hits += 1
        timing = self.timing
        timing.arrived = timing.admitted = now
        timing.was_held = timing.was_cut = False
        self._run = timing.run = run
        self.is_open = True
        self._status = None
        self._has_repeated = False
        self._problem = ""
        self._id = shared.request_ids.next_bytes()
        pool = shared.pools.of(run)
        back = pool.take(now, must_look=False) if pool is not None else None
        if back is None:
            self._kept = None
            self._connect()
            return True
        self._back = back
        back.carry(self)
        sent = self._text + self._id + _AFTER_HEAD
        self._kept = [sent]
        back.transport.write(sent)
        self._front.wait_until(now + self._first_byte_secs)
        return True

    def _connect(self) -> None:
        try:
            self._wait(self._through)
        except GreenroomError as error:
            self.refuse(error)

    # The whole answer

    def begun(self, seen: SeenAnswer, length: int, pieces: Sequence[bytes], *, is_whole: bool) -> None:
        front, back, shared = self._front, self._back, self._shared
        if (
            not is_whole
            or not self._is_usual
            or not 0 <= length <= JOINED_BYTES
            or front.is_last
            or shared.lobby.is_leaving
            or back is None
        ):
            super().begun(seen, length, pieces, is_whole=is_whole)
            return
        _, facts, _, text = seen
        self._status = status = facts[0]  # by place: a NamedTuple takes long to answer by name
        request_id, run = self._id, self._run
        front.transport.write(b"".join((text, b"X-Actor-Request-ID: ", request_id, _AFTER_HEAD, *pieces)))
        # As ``_done`` and ``_close``: all is given back, counted and noted.
        assert run is not None
        now = monotonic()
        self._back = self._run = None
        self.is_open = False
        back.let_go(now, is_request_over=True)
        shared.decisions.desk.give_back(run, now=now)
        method = self.method
        if run is not self._about_run or method is not self._about_method:
            self._about = shared.accounts.about("standby", method, run.route.run_id)
            self._about_run, self._about_method = run, method
        shared.accounts.add(self._about, status, request_id, self.timing.arrived, now)
        front.answered(now, keeps=True)
