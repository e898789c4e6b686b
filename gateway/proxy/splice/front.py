"""
A caller's connection, as an asyncio protocol under uvicorn: HTTP/1.1 for proxied hosts, spliced to their runs.

It cuts the heads out of what comes and gives each request to its ``Exchange``; what comes past a request waits until
that is answered. A request for Greenroom's own hosts hands the connection over to uvicorn's protocol, which keeps it.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.core.errors import GreenroomError, RequestTooSlow, TooManyConnections
from gateway.proxy.decisions import monotonic
from gateway.proxy.hosts import Own
from gateway.proxy.sockets import has_hung_up
from gateway.proxy.splice.entrance import Entrance
from gateway.proxy.splice.handover import Place, ProtocolFactory
from gateway.proxy.splice.head_reader import HeadReader
from gateway.proxy.splice.own_answers import error_answer
from gateway.proxy.splice.quick import QuickExchange
from gateway.proxy.splice.splicing import Splicing
from gateway.proxy.splice.tunnel import Tunnel
from gateway.proxy.splice.wheel import NEVER

_MAX_STASH_BYTES = 64 * 1024
_LINGER_SECS = 1.0  # for a caller who still sends when he has his answer
_LOOK_SECS = 0.5  # while nothing is read, whether he is still there


class _State(IntEnum):
    """What becomes of what comes."""

    HEAD = 0  # it is the next head, or its beginning
    REQUEST = 1  # it is the rest of the request's body, or waits
    WAIT = 2  # it waits: the request is answered, but the caller has not taken the answer yet
    LINGER = 3  # nobody wants it
    GONE = 4


# Each request asks for these, and an enumeration is slow to answer.
_HEAD, _REQUEST, _GONE = _State.HEAD, _State.REQUEST, _State.GONE


class _Pause(IntEnum):
    """Why nothing is read at the moment; each reason stands for itself."""

    STASH = 1
    HELD = 2


class Front(asyncio.Protocol):
    """
    One connection. Made by uvicorn with its four arguments; *shared* and *inner* are bound before.

    *inner* makes the protocol that serves Greenroom's own hosts.
    """

    __slots__ = (
        "_due", "_exchange", "_heads", "_inner", "_paused", "_place", "_same", "_shared", "_stash", "_stash_bytes",
        "_state", "deadline", "has_asked", "is_full", "is_last", "peer", "transport",
        "visit_at",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        shared: Splicing,
        inner: ProtocolFactory,
    ) -> None:
        self._place = Place(config, server_state, app_state, _loop)
        self._shared = shared
        self._inner = inner
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)  # from connection_made on
        self.peer = ""
        self._exchange: QuickExchange = cast(QuickExchange, None)
        self._state = _State.HEAD
        self.has_asked = False
        """Whether a request has come, or has begun to."""
        self.is_last = False
        """The present request is the last one."""
        self.is_full = False
        """The caller takes what is written to it more slowly than it comes."""
        self._heads = HeadReader(shared.lobby.requests)
        self._same: bytes | None = None
        """The request that came last, where it can be had ``again``."""
        self._stash: list[bytes] = []
        self._stash_bytes = 0
        self._paused = 0
        self._due = NEVER
        self.deadline = NEVER
        self.visit_at = NEVER

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shared = self._shared
        self.transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if isinstance(name, tuple | list) and name else ""
        is_tls = transport.get_extra_info("ssl_object") is not None
        scheme = "https" if is_tls else shared.decisions.settings.public_scheme
        self._exchange = QuickExchange(self, shared, Entrance(shared.decisions, self.peer, scheme, shared.terms))
        self._place.enter(self)
        setting = shared.lobby.connections.admit(self.transport, self.peer)
        if setting is not None:
            self._refuse(TooManyConnections(setting))
            return
        self.wait_until(monotonic() + shared.decisions.settings.head_timeout_secs)

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state is _HEAD:
            if data == self._same:
                self._state = _REQUEST
                if self._exchange.again():
                    return
                self._state = _HEAD
            try:
                self._head(data)
            except GreenroomError as error:
                self._refuse(error)
        elif state is _REQUEST and not self._exchange.upload.is_over:
            self._exchange.body(data)
        elif state is not _State.LINGER:
            self.stash(data)

    def eof_received(self) -> bool | None:
        if self._state is _State.REQUEST:  # as a caller who has gone: uvicorn and nginx take it so, too
            self.transport.abort()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._state = _State.GONE
        if self._exchange.is_open:
            self._exchange.caller_gone()

    def pause_writing(self) -> None:
        self.is_full = True
        self._exchange.caller_is_full(is_full=True)

    def resume_writing(self) -> None:
        self.is_full = False
        if self._state is _State.WAIT:
            self._next()
        else:
            self._exchange.caller_is_full(is_full=False)

    def expired(self, now: float) -> None:
        """The wheel comes by."""
        if self._paused and has_hung_up(self.transport):
            self.transport.abort()
            return
        if now < self._due:
            self.wait_until(self._due)
            return
        self._due = NEVER
        settings = self._shared.decisions.settings
        if self._state is _State.REQUEST:
            self._exchange.overdue(now)
        elif self._state is _State.HEAD and self._heads.held:
            self._refuse(
                RequestTooSlow(
                    f"The head of the request did not come within {settings.head_timeout_secs:g} s "
                    "(setting: head_timeout_secs)."
                )
            )
        elif self._state is _State.WAIT or self.transport.is_closing():  # he takes nothing of what he asked for
            self.transport.abort()
        else:
            self._close()

    # From uvicorn

    def shutdown(self) -> None:
        """The server ends: no further request after this one."""
        self.is_last = True
        if self._state is _State.HEAD and not self._heads.held:
            self._close()

    # The next request

    def _head(self, data: bytes) -> None:
        self.has_asked = True
        self._same = None
        heads, shared = self._heads, self._shared
        was_held = heads.held
        head = heads.read(data)
        if head is None:
            if not was_held:
                self.wait_until(monotonic() + shared.decisions.settings.head_timeout_secs)
            return
        line, seen, host, data, at = head
        where = shared.hosts.look(host) if host else _OWN
        if type(where) is Own:
            self._hand_over(data)
            return
        self._state = _REQUEST
        self._due = NEVER
        self._exchange.begin(line, seen, host, where, data, at)
        if heads.is_same and self._exchange.note():
            self._same = data

    def _hand_over(self, data: bytes) -> None:
        """Greenroom's own: uvicorn's protocol has the connection from now on."""
        self._leave(is_gone=False)
        self._state = _State.GONE
        self._place.hand_over(self.transport, data, self._inner)

    def _next(self) -> None:
        """The answer has gone: what waits is next, if anything does."""
        if self._state is _State.GONE:
            return
        self._state = _State.HEAD
        if not self._stash:
            self.wait_until(monotonic() + self._shared.decisions.settings.keep_alive_secs)
            return
        data = self._stash[0] if len(self._stash) == 1 else b"".join(self._stash)
        self._stash, self._stash_bytes = [], 0
        self._resume(_Pause.STASH)
        self.data_received(data)

    # For the exchange

    def stash(self, data: bytes) -> None:
        """It came past the end of this request: it waits."""
        self._stash.append(data)
        self._stash_bytes += len(data)
        if self._stash_bytes > _MAX_STASH_BYTES:
            self._pause(_Pause.STASH)

    @property
    def has_more(self) -> bool:
        """Whether something has come that follows this request."""
        return bool(self._stash)

    @property
    def is_held(self) -> bool:
        """Whether nothing more of the request is read for now."""
        return bool(self._paused)

    def hold(self, *, is_held: bool) -> None:
        """What comes has nowhere to go yet; or has again."""
        if is_held:
            self._pause(_Pause.HELD)
        else:
            self._resume(_Pause.HELD)

    def wait_until(self, at: float) -> None:
        """It is time for something then, unless another time is set before."""
        self._due = at
        if self._paused:
            at = min(at, monotonic() + _LOOK_SECS)
        self.deadline = at
        if at < self.visit_at:
            self._shared.lobby.wheel.watch(self)

    def answered(self, now: float, *, keeps: bool) -> None:
        """The answer is written completely *now*; *keeps*: another request may follow."""
        if self._state is _GONE:
            return
        if self._paused:
            self._resume(_Pause.HELD)
        if not keeps:
            self._end()
        elif self.is_full:  # what is next could make more that he doesn't take
            self._state = _State.WAIT
            self.wait_until(now + self._shared.lobby.keep_alive_secs)
        elif self._stash:
            self._state = _State.WAIT
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self._state = _HEAD
            lobby = self._shared.lobby
            self._due = self.deadline = at = now + lobby.keep_alive_secs
            if at < self.visit_at:
                lobby.wheel.watch(self)

    def become(self, tunnel: Tunnel) -> None:
        """The connection belongs to *tunnel* from now on."""
        self._shared.lobby.wheel.forget(self)
        self.deadline = NEVER
        self._state = _State.GONE
        stash, self._stash = self._stash, []
        self._paused = 0  # the tunnel reads on
        self.transport.set_protocol(tunnel.client_side)
        for data in stash:
            tunnel.client_side.data_received(data)

    def left_tunnel(self) -> None:
        """Which has ended."""
        self._leave()

    # The end

    def _refuse(self, error: GreenroomError) -> None:
        """What came is no request, or too much: answered with *error*, and then there is no telling what follows."""
        answer = error_answer(error, method=b"GET", request_id=None, connection=b"close")
        self.transport.write(answer)
        self._linger()

    def _end(self) -> None:
        """No further request: close, but not upon a caller who still sends, or could not know that he must not."""
        is_told_just_now = self.is_last or self._shared.lobby.is_leaving
        if self._exchange.upload.is_over and not (is_told_just_now and self.transport.can_write_eof()):
            self._close()
        else:
            self._linger()

    def _close(self) -> None:
        """When all is written; who takes nothing of it is cut off in the end."""
        self._state = _State.LINGER
        self.transport.close()
        self.wait_until(monotonic() + self._shared.decisions.settings.keep_alive_secs)

    def _linger(self) -> None:
        """
        Half-close, and read on for a moment.

        Closing while more comes would reset the connection, and could destroy the answer on its way.
        """
        self._state = _State.LINGER
        self._heads.held, self._stash = b"", []
        self._resume(_Pause.STASH)
        self._resume(_Pause.HELD)
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self.wait_until(monotonic() + _LINGER_SECS)

    def _leave(self, *, is_gone: bool = True) -> None:
        self._place.leave(self)
        self._shared.lobby.wheel.forget(self)
        self.deadline = NEVER
        if is_gone:
            self._shared.lobby.connections.gone(self.transport, self.peer)
        elif self._paused:
            self._resume(_Pause.STASH)
            self._resume(_Pause.HELD)

    def _pause(self, why: _Pause) -> None:
        if not self._paused and not self.transport.is_closing():
            self.transport.pause_reading()
        self._paused |= why
        self.wait_until(self._due)

    def _resume(self, why: _Pause) -> None:
        if self._paused & why:
            self._paused &= ~why
            if not self._paused and not self.transport.is_closing():
                self.transport.resume_reading()


_OWN = Own()
