"""
What a connection becomes after an upgrade: bytes both ways as they come, until both ends are gone.

A WebSocket's frames are walked (``frames``), so that pings are told from data, limits hold, and whoever is left learns
by a close frame what became of the other: the other's own close frame passes as it is, a caller that vanished is 1001
to the Actor, an Actor that vanished 1011 to the caller, a fault is named to both (1002, 1009). Where a frame has passed
in part no other can follow, and that side is cut. Extensions, subprotocols, pings and text are the two ends' business.
Any other protocol is bytes, and the end of one direction passes as such.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway.proxy.actor_socket import LOST
from gateway.proxy.sockets import has_hung_up
from gateway.proxy.splice.frames import NO_CODE, FrameWalker
from gateway.proxy.splice.tunnel_sides import ByteSide, FrameSide, Side
from gateway.proxy.websocket import ClosedBy

_ANSWER_SECS = 1.0  # for an end to answer a close frame, or to close its connection
_STALL_SECS = 10.0  # instead, while bytes wait to be written to an end
_FAREWELL_SECS = 10.0  # for all that, after a fault or where Greenroom itself wants to close
_CHECK_SECS = 0.25
_WATCH_SECS = 15.0  # between two looks at an end that nobody reads from


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelEnd:
    """
    How a tunnel ended.

    *by* closed it first, vanished, or broke the rules; *code* and *reason* are those that it gave or name its fault,
    with 1005 for an end in good order without a code (all that other protocols have) and 1006 for a lost connection.
    """

    by: ClosedBy
    code: int
    reason: str
    messages_up: int
    messages_down: int
    bytes_up: int
    bytes_down: int


class Tunnel:
    """
    Two connections as one, from the moment when the Actor has agreed to *protocol* and the caller was told.

    Whoever makes it gives ``client_side`` and ``actor_side`` to the two transports as their protocols, in the same step
    of the loop, and feeds each what had been read ahead of it. *on_activity* is called when something passed that is no
    ping, pong or close frame; *on_end* once, when both connections are gone. *has_extensions* tells whether the Actor
    agreed to any. A message of a WebSocket may have *max_message_bytes*, as it stands on the wire.
    """

    __slots__ = (
        "_by", "_code", "_on_end", "_patience", "_reason", "_watched", "_watching", "actor_side", "client_side",
        "on_activity",
    )  # fmt: skip

    client_side: Side
    actor_side: Side

    def __init__(
        self,
        *,
        client: asyncio.Transport,
        actor: asyncio.Transport,
        protocol: bytes,
        has_extensions: bool,
        max_message_bytes: int,
        on_activity: Callable[[], None],
        on_end: Callable[[TunnelEnd], None],
    ) -> None:
        self.on_activity = on_activity
        self._on_end = on_end
        self._by: ClosedBy | None = None
        self._code = NO_CODE
        self._reason = ""
        self._patience: _Patience | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._watched: tuple[int, ...] = ()
        if protocol.lower() == b"websocket":
            up, down = (
                FrameWalker(is_masked=is_up, has_extensions=has_extensions, max_message_bytes=max_message_bytes)
                for is_up in (True, False)
            )
            self.client_side = FrameSide(self, client, ClosedBy.CLIENT, up)
            self.actor_side = FrameSide(self, actor, ClosedBy.ACTOR, down)
        else:
            self.client_side = ByteSide(self, client, ClosedBy.CLIENT)
            self.actor_side = ByteSide(self, actor, ClosedBy.ACTOR)
        self.client_side.other = self.actor_side
        self.actor_side.other = self.client_side

    def close(self, code: int, reason: str) -> None:
        """
        Ask both ends to leave: a close frame between two of the frames that pass, and a second to answer it.

        Other protocols than WebSocket have no word for it and are cut at once.
        """
        is_ending = self._patience is not None
        self.begin_to_end(ClosedBy.GATEWAY, code, reason, is_limited=True)
        if not is_ending:  # else the ends are about to close by themselves
            self.client_side.bid_farewell(code, reason)
            self.actor_side.bid_farewell(code, reason)

    def abort(self) -> None:
        """Cut both connections."""
        self.begin_to_end(ClosedBy.GATEWAY, LOST, "")
        self.client_side.abort()
        self.actor_side.abort()

    # For its sides

    def begin_to_end(self, by: ClosedBy, code: int, reason: str, *, is_limited: bool = False) -> None:
        """It will end; the first word on why counts, and from now on nobody waits for ever."""
        if self._patience is None:
            self._by, self._code, self._reason = by, code, reason
            self._patience = _Patience(self)
        if is_limited:
            self._patience.limit(_FAREWELL_SECS)

    def movement(self) -> tuple[int, ...]:
        """What waits to be written, and figures that change whenever something comes."""
        sides = (self.client_side, self.actor_side)
        unwritten = sum(side.transport.get_write_buffer_size() for side in sides if not side.is_lost)
        return (unwritten, *(side.bytes_passed + side.bytes_dropped for side in sides))

    def paused(self) -> None:
        """A side is not read from for now. Were it to vanish while the other reads nothing, nobody would notice."""
        if self._watching is None:
            self._watched = self.movement()
            self._watching = asyncio.get_running_loop().call_later(_WATCH_SECS, self._watch)

    def _watch(self) -> None:
        self._watching = None
        paused = [side for side in (self.client_side, self.actor_side) if side.is_read_paused and not side.is_lost]
        if self.movement() == self._watched:
            for side in paused:
                if has_hung_up(side.transport):
                    side.abort()
        if paused:
            self.paused()

    def lost(self) -> None:
        """One of the connections is gone."""
        if not (self.client_side.is_lost and self.actor_side.is_lost):
            return
        assert self._by is not None
        assert self._patience is not None
        self._patience.cancel()
        if self._watching is not None:
            self._watching.cancel()
        self._on_end(
            TunnelEnd(
                by=self._by,
                code=self._code,
                reason=self._reason,
                messages_up=self.client_side.messages,
                messages_down=self.actor_side.messages,
                bytes_up=self.client_side.bytes_passed,
                bytes_down=self.actor_side.bytes_passed,
            )
        )


class _Patience:
    """
    How long a tunnel that is to end waits: until nothing has moved for a second, or for ten where an end has not taken
    yet what is written to it. Then it is cut.

    An end that is still busy with a message that was refused moves, too: a reset in the middle of it would take the
    close frame away that tells why.
    """

    __slots__ = ("_loop", "_mark", "_moved_at", "_timer", "_tunnel", "_until")

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._loop = asyncio.get_running_loop()
        self._mark = tunnel.movement()
        self._moved_at = self._loop.time()
        self._until: float | None = None
        self._timer = self._loop.call_later(_CHECK_SECS, self._check)

    def limit(self, secs: float) -> None:
        """For all that, at most *secs* from now on."""
        if self._until is None:
            self._until = self._loop.time() + secs

    def cancel(self) -> None:
        """It has ended."""
        self._timer.cancel()

    def _check(self) -> None:
        now = self._loop.time()
        mark = self._tunnel.movement()
        if mark != self._mark:
            self._mark, self._moved_at = mark, now
        allowed_secs = _STALL_SECS if mark[0] else _ANSWER_SECS
        if now - self._moved_at >= allowed_secs or (self._until is not None and now >= self._until):
            self._tunnel.abort()
        else:
            self._timer = self._loop.call_later(_CHECK_SECS, self._check)
