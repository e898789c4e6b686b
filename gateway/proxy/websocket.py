"""
Relays one WebSocket: the Actor's side is opened first, so that what the client is offered is what the Actor agreed to.

The handshake with the Actor goes through our own HTTP client (the same strict reader, the same headers, the raw target,
a refusal passed on as it is); its frames through the sans-I/O client of ``websockets``. The client's side is ASGI.

Close codes: each side is told what the other said. 1005 and 1006 are never sent: no code stays no code towards the
Actor (1000 towards the client, since ASGI has no word for it); a client that vanished is 1001 to the Actor, an Actor
that vanished is 1011 to the client.

This is the way of the path form, of connections that were handed over, and of other servers. At a proxied host the
protocol class tunnels instead (``splice/tunnel``), and there is more to be had there: extensions are agreed on by the
two ends, where here the client's compression is the server's and the Actor is offered none; pings and pongs go from end
to end, where here each side's are answered by its own connection and the Actor's never reach the client; messages are
passed frame by frame, where here each is gathered first; a frame's bytes, its mask included, stay as they are; and what
is no WebSocket can be upgraded to.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from gateway.proxy.actor_socket import LOST, NO_CODE, TOO_BIG, ActorSocket
from gateway.proxy.answer_reader import AnswerHead
from gateway.proxy.asgi import Message, Receive, Scope, Send, raw_path_of
from gateway.proxy.headers import accept_headers, answer_headers, upgrade_head
from gateway.proxy.plan import ForwardPlan, Headers
from gateway.proxy.upstream import Abandoned, Exchange, UpstreamCut, UpstreamInvalid, Upstreams

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_MAX_REFUSAL_BYTES = 1024 * 1024  # ASGI servers hold a refusal's body in memory
_CLOSE_SECS = 1.0  # for the Actor to answer a close frame

GOING_AWAY = 1001
INTERNAL_ERROR = 1011


class Closing:
    """What tells a relay to close, and with which words."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._words = (GOING_AWAY, "going away")

    def set(self, code: int = GOING_AWAY, reason: str = "going away") -> None:
        """Close; who asks first is heard."""
        if not self._asked.is_set():
            self._words = (code, reason)
            self._asked.set()

    async def wait(self) -> tuple[int, str]:
        """The code and the reason, once somebody has asked."""
        await self._asked.wait()
        return self._words


class ClosedBy(StrEnum):
    """Who ended a relay."""

    CLIENT = "client"
    ACTOR = "actor"
    GATEWAY = "gateway"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayOutcome:
    """
    What became of one WebSocket.

    *status* is the Actor's (101, or that of its refusal), None where the client left before; *code* and *reason* are
    those that *closed_by* gave, with 1005 for none and 1006 for a lost connection.
    """

    status: int | None
    closed_by: ClosedBy
    code: int
    reason: str
    messages_up: int
    messages_down: int
    first_byte_at: float | None


async def relay(
    scope: Scope,
    receive: Receive,
    send: Send,
    plan: ForwardPlan,
    *,
    upstreams: Upstreams,
    max_message_bytes: int,
    closing: Closing,
    on_activity: Callable[[], None] | None = None,
) -> RelayOutcome:
    """
    Relay until either side closes, or *closing* is set (then both get what that says).

    *on_activity* is called for each message either way; pings and pongs are no activity. Messages longer than
    *max_message_bytes* close both sides with 1009. Raises InvalidRequest, UpstreamRefused, UpstreamDropped,
    UpstreamInvalid or UpstreamTimeout before the client was answered; after UpstreamRefused nothing was received
    either, so another run may be tried.
    """
    handshake = _Handshake(scope, receive, send, plan, upstreams)
    actor = ActorSocket(max_message_bytes)
    try:
        head = await handshake.open(actor)
    except (Abandoned, _ClientGone):
        return _outcome(None, _End(ClosedBy.CLIENT, LOST, ""), None)
    first_byte_at = asyncio.get_running_loop().time()
    if head.status != 101:
        return _outcome(head.status, _End(ClosedBy.REFUSED, LOST, ""), first_byte_at)
    session = _Session(receive, send, actor, max_message_bytes, on_activity or _nothing)
    try:
        try:
            await handshake.accept(head)
        except _ClientGone:
            end = _End(ClosedBy.CLIENT, LOST, "")
        else:
            end = await session.run(closing)
        await session.close(end)
    finally:
        actor.abort()
    return _outcome(101, end, first_byte_at, session)


class _ClientGone(Exception):
    """The server's ``send`` says that nobody listens."""


@dataclass(frozen=True, slots=True)
class _End:
    by: ClosedBy
    code: int
    reason: str


class _Handshake:
    """Both opening handshakes, the Actor's first."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, plan: ForwardPlan, upstreams: Upstreams) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._plan = plan
        self._upstreams = upstreams
        self._is_client_gone = False

    async def open(self, actor: ActorSocket) -> AnswerHead:
        """The Actor's answer; with 101 *actor* is connected, with any other status the client was told."""
        key = base64.b64encode(os.urandom(16))
        query_string: bytes = self._scope.get("query_string", b"")
        head = upgrade_head(raw_path_of(self._scope), query_string, list(self._scope["headers"]), self._plan, key)
        exchange = await self._upstreams.send(self._plan.address, head, is_upgrade=True)
        try:
            if (await self._receive())["type"] != "websocket.connect":
                raise _ClientGone
            answer = await self._answer(exchange)
            if answer.status == 101:
                self._check(answer, key)
                exchange.take_over(actor)
            return answer
        finally:
            exchange.release()

    async def accept(self, answer: AnswerHead) -> None:
        """Open the client's side with what the Actor chose."""
        await _to_client(
            self._send,
            {
                "type": "websocket.accept",
                "subprotocol": _chosen_subprotocol(answer.headers),
                "headers": accept_headers(answer.headers, self._plan),
            },
        )

    async def _answer(self, exchange: Exchange) -> AnswerHead:
        """Wait for the Actor while watching the client; passes a refusal on."""
        error: Exception | None = None
        answer: AnswerHead | None = None
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch_client(exchange))
            try:
                answer = await exchange.head(self._plan.first_byte_deadline)
                if answer.status != 101:
                    await self._refuse(exchange, answer)
            except Exception as caught:  # kept aside: a TaskGroup would wrap it
                error = caught
            finally:
                watch.cancel()
        if self._is_client_gone:
            raise _ClientGone
        if error is not None:
            raise error
        assert answer is not None
        return answer

    async def _watch_client(self, exchange: Exchange) -> None:
        while (await self._receive())["type"] != "websocket.disconnect":
            pass
        self._is_client_gone = True
        exchange.abandon()

    async def _refuse(self, exchange: Exchange, answer: AnswerHead) -> None:
        if "websocket.http.response" not in self._scope.get("extensions", {}):
            await _to_client(self._send, {"type": "websocket.close", "code": 1008, "reason": ""})
            return
        await _to_client(
            self._send,
            {
                "type": "websocket.http.response.start",
                "status": answer.status,
                "headers": answer_headers(answer.headers, self._plan),
            },
        )
        passed = 0
        try:
            while passed <= _MAX_REFUSAL_BYTES:
                piece = await exchange.next_piece(self._plan.stream_idle_timeout_secs)
                passed += len(piece)
                more = not exchange.is_complete
                await _to_client(
                    self._send, {"type": "websocket.http.response.body", "body": piece, "more_body": more}
                )  # fmt: skip
                if not more:
                    return
        except UpstreamCut:
            pass  # left incomplete: the server closes without it having looked whole

    def _check(self, answer: AnswerHead, key: bytes) -> None:
        """RFC 6455 §4.1: what a client must verify. Raises UpstreamInvalid."""
        options = {
            part.strip().lower() for value in _values(answer.headers, b"connection") for part in value.split(b",")
        }
        upgrades = [value.lower() for value in _values(answer.headers, b"upgrade")]
        expected = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        problem = None
        if b"upgrade" not in options or upgrades != [b"websocket"]:
            problem = "no upgrade to websocket"
        elif _values(answer.headers, b"sec-websocket-accept") != [expected]:
            problem = "a wrong Sec-WebSocket-Accept"
        elif _values(answer.headers, b"sec-websocket-extensions"):
            problem = "extensions that nobody offered"
        else:
            chosen = _values(answer.headers, b"sec-websocket-protocol")
            if len(chosen) > 1 or (chosen and chosen[0].decode("latin-1") not in self._scope.get("subprotocols", ())):
                problem = "a subprotocol that nobody offered"
        if problem:
            raise UpstreamInvalid(self._plan.address, f"answered the WebSocket handshake with {problem}")


class _Session:
    """An open relay: two pumps and the wish to close, whichever ends first."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        actor: ActorSocket,
        max_message_bytes: int,
        on_activity: Callable[[], None],
    ) -> None:
        self._receive = receive
        self._send = send
        self._actor = actor
        self._max_message_bytes = max_message_bytes
        self._on_activity = on_activity
        self._ended: asyncio.Future[_End] = asyncio.get_running_loop().create_future()
        self.messages_up = 0
        self.messages_down = 0

    async def run(self, closing: Closing) -> _End:
        """Relay until it is over; returns who ended it and how."""
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(worker) for worker in (self._up(), self._down(), self._drain(closing))]
            try:
                return await self._ended
            finally:
                for worker in workers:
                    worker.cancel()

    async def close(self, end: _End) -> None:
        """Tell the side, or sides, that did not end it."""
        if end.by is not ClosedBy.CLIENT:
            code = {NO_CODE: 1000, LOST: INTERNAL_ERROR}.get(end.code, end.code)
            reason = "run ended" if end.code == LOST else end.reason
            with contextlib.suppress(_ClientGone):
                await _to_client(self._send, {"type": "websocket.close", "code": code, "reason": reason})
        if end.by is not ClosedBy.ACTOR:
            code = GOING_AWAY if end.code in (LOST, 1015) else end.code
            self._actor.send_close(None if code == NO_CODE else code, end.reason)
        await self._actor.wait_closed(_CLOSE_SECS)

    async def _up(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code")
                return self._end(ClosedBy.CLIENT, NO_CODE if code is None else code, message.get("reason") or "")
            if message["type"] != "websocket.receive":
                continue
            text: str | None = message.get("text")
            data: bytes = message["bytes"] if text is None else text.encode()
            if len(data) > self._max_message_bytes:
                return self._end(ClosedBy.GATEWAY, TOO_BIG, "message too big")
            self._on_activity()
            self.messages_up += 1
            await self._actor.send(data, is_text=text is not None)

    async def _down(self) -> None:
        while (message := await self._actor.receive()) is not None:
            self._on_activity()
            kind = "text" if isinstance(message, str) else "bytes"
            try:
                await _to_client(self._send, {"type": "websocket.send", kind: message})
            except _ClientGone:
                return  # how it left is told by ``receive``
            self.messages_down += 1
        by = ClosedBy.GATEWAY if self._actor.is_our_fault else ClosedBy.ACTOR
        self._end(by, self._actor.close_code, self._actor.close_reason)

    async def _drain(self, closing: Closing) -> None:
        self._end(ClosedBy.GATEWAY, *await closing.wait())

    def _end(self, by: ClosedBy, code: int, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(_End(by, code, reason))


async def _to_client(send: Send, message: Message) -> None:
    """
    ``send``, with a client that is gone told apart.

    uvicorn raises an OSError for it, and a RuntimeError where it has closed the socket by itself meanwhile (a missed
    pong, a message beyond its limit).
    """
    try:
        await send(message)
    except (OSError, RuntimeError) as error:
        raise _ClientGone from error


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _chosen_subprotocol(headers: Headers) -> str | None:
    chosen = _values(headers, b"sec-websocket-protocol")
    return chosen[0].decode("latin-1") if chosen else None


def _outcome(
    status: int | None, end: _End, first_byte_at: float | None, session: _Session | None = None
) -> RelayOutcome:
    return RelayOutcome(
        status=status,
        closed_by=end.by,
        code=end.code,
        reason=end.reason,
        messages_up=session.messages_up if session else 0,
        messages_down=session.messages_down if session else 0,
        first_byte_at=first_byte_at,
    )


def _nothing() -> None:
    """For who isn't interested in activity."""
