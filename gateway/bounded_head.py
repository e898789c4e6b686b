"""
HTTP/1.1 for the ASGI app, by the same strict reading of requests that the protocol class has, and with the same limits.

uvicorn has a class for that, too. Its parser collects heads without end, and takes for a request what another server
reads in another way; and half of what a request costs there is that parser's calls, a timer and a second write. What
uvicorn's server knows of its connections is the same here.

WebSockets are uvicorn's. Connections that are to outlive this process can leave it before it makes one of them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from gateway.bounded_request import AsgiRequest
from gateway.core.errors import GreenroomError, InvalidRequest, RequestTooSlow, TooManyConnections
from gateway.proxy.asgi import Scope
from gateway.proxy.decisions import monotonic
from gateway.proxy.plan import Headers
from gateway.proxy.splice.chunks import BadChunk
from gateway.proxy.splice.head_reader import HeadReader
from gateway.proxy.splice.lobby import Lobby
from gateway.proxy.splice.own_answers import error_answer
from gateway.proxy.splice.request_cache import CUT, Seen
from gateway.proxy.splice.request_head import RequestHead
from gateway.proxy.splice.request_line import RequestLine
from gateway.proxy.splice.upload import Upload
from gateway.proxy.splice.wheel import NEVER

_LINGER_SECS = 1.0
_MAX_WAITING_BYTES = 64 * 1024  # of a body that nobody takes, or of the next requests
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_ASGI = {"version": "3.0", "spec_version": "2.3"}

# Method, target, headers and descriptor of a connection that asks for an upgrade: whether somebody else has taken it.
PassOn = Callable[[str, bytes, Sequence[tuple[bytes, bytes]], int], bool]


class BoundedHead(asyncio.Protocol):
    """
    One connection. Constructed as uvicorn constructs its protocols, with *lobby* besides, which has the limits. What is
    refused is answered with its error, and the connection closed. *pass_on* is offered each upgrade to a WebSocket.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        lobby: Lobby,
        pass_on: PassOn | None = None,
    ) -> None:
        self._config = config
        self._app: Any = config.loaded_app
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._lobby = lobby
        self._pass_on = pass_on
        self._heads = HeadReader(lobby.requests)
        self._upload = Upload(bare=True)
        self._request: AsgiRequest | None = None  # until it is answered
        self._stash: list[bytes] = []
        self._stash_bytes = 0
        self._is_paused = False
        self._is_over = False  # nothing more is taken in
        self._is_last = False
        self._room: asyncio.Event | None = None
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)  # from connection_made on
        self.is_full = False
        """The caller takes what is written to it more slowly than it comes."""
        self._full_since = 0.0
        self.has_asked = False
        """Whether a request has come over this connection, or has begun to."""
        self._peer = ""
        self._about: dict[str, Any] = {}
        # The headers that came last, as an app sees them.
        self._known: RequestHead | None = None
        self._known_headers: Headers = []
        self._memo: dict[str, Any] = {}
        # For the wheel
        self.deadline = NEVER
        self.visit_at = NEVER

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Counted, also where somebody else had it before."""
        self.transport = cast(asyncio.Transport, transport)
        client = get_remote_addr(self.transport)
        cast(set[Any], self._server_state.connections).add(self)
        self._about = {
            "type": "http",
            "asgi": _ASGI,
            "server": get_local_addr(self.transport),
            "client": client,
            "scheme": "https" if is_ssl(self.transport) else "http",
            "root_path": "",
        }
        self._peer = client[0] if client else ""
        setting = self._lobby.connections.admit(self.transport, self._peer)
        if setting is not None:
            self._refuse(TooManyConnections(setting))
        else:
            self._wait(self._lobby.settings.head_timeout_secs)

    def connection_lost(self, exc: Exception | None) -> None:
        """No longer counted."""
        cast(set[Any], self._server_state.connections).discard(self)
        self._is_over = True
        self._stop_waiting()
        self._lobby.connections.gone(self.transport, self._peer)
        self.is_full = False
        if self._room is not None:
            self._room.set()
        request, self._request = self._request, None
        if request is not None:
            request.disconnect()

    def data_received(self, data: bytes) -> None:
        """Heads are read, and bodies given to their request; what comes before its time waits."""
        try:
            while data and not self._is_over:
                if not self._upload.is_over:
                    data = self._body(data)
                elif self._stash or self._request is not None:
                    self._keep(data)
                    return
                else:
                    data = self._head(data)
        except GreenroomError as error:
            self._refuse(error)
        except BadChunk as error:
            self._refuse(InvalidRequest(f"The body of the request is malformed: {error}."))

    def pause_writing(self) -> None:
        """Whoever takes nothing of his answer is cut off in the end."""
        self.is_full = True
        self._full_since = monotonic()
        if self._upload.is_over:
            self._wait(self._lobby.settings.keep_alive_secs)

    def resume_writing(self) -> None:
        """It goes on."""
        self.is_full = False
        if self._room is not None:
            self._room.set()
        if self._request is not None and self._upload.is_over and not self._is_over:
            self.deadline = NEVER

    def expired(self, now: float) -> None:
        """The wheel comes by."""
        settings = self._lobby.settings
        if self._is_over:
            self.transport.abort() if self.transport.is_closing() else self.transport.close()
            self._wait(settings.keep_alive_secs)
        elif not self._upload.is_over:
            if not self._is_paused:
                self._refuse(
                    RequestTooSlow(
                        f"Nothing more of the request's body came for {settings.body_idle_timeout_secs:g} s "
                        "(setting: body_idle_timeout_secs)."
                    )
                )
            elif self.is_full and now >= self._full_since + settings.keep_alive_secs:  # which the app waits for, maybe
                self.transport.abort()
            else:  # it is the app that takes its time
                self._wait(settings.body_idle_timeout_secs)
        elif self._heads.held:
            self._refuse(
                RequestTooSlow(
                    f"The head of the request did not come within {settings.head_timeout_secs:g} s "
                    "(setting: head_timeout_secs)."
                )
            )
        elif self.is_full:
            self.transport.abort()
        elif self._request is None:
            self.close()

    # From uvicorn

    def shutdown(self) -> None:
        """The server ends: no further request after this one."""
        self._is_last = True
        if self._request is None and not self._heads.held and not self._stash:
            self.close()

    # What comes

    def _head(self, data: bytes) -> bytes:
        """The next head, or its beginning; what is left of *data*."""
        self.has_asked = True
        was_held = self._heads.held
        head = self._heads.read(data)
        if head is None:
            if not was_held:
                self._wait(self._lobby.settings.head_timeout_secs)
            return b""
        line, seen, _, data, at = head
        if seen.head.upgrade == b"websocket":
            self._upgrade(line, seen, data, at)
            return b""
        if seen.length:
            self._upload.begin(seen.length)
            self._wait(self._lobby.settings.body_idle_timeout_secs)
        else:
            self.deadline = NEVER
        request = self._request = AsgiRequest(
            self,
            self._scope(line, seen),
            line.target,
            minor=line.minor,
            is_empty=not seen.length,
            asks_first=seen.head.expects_continue,
            memo=None if seen.values else self._memo,
        )
        # Owned by uvicorn's server, which waits for its tasks when it ends.
        request.task = task = self._loop.create_task(request.run(self._app))
        self._server_state.tasks.add(task)
        return data[at:] if at < len(data) else b""

    def _scope(self, line: RequestLine, seen: Seen) -> Scope:
        path, _, query = line.target.partition(b"?")
        text = unquote_to_bytes(path) if b"%" in path else path
        return {
            **self._about,
            "http_version": "1.1" if line.minor else "1.0",
            "method": line.method.decode(),
            "path": text.decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "headers": self._headers(seen),
            "state": self._app_state.copy(),
        }

    def _headers(self, seen: Seen) -> Headers:
        if seen.head is not self._known:
            self._known, self._known_headers, self._memo = seen.head, seen.head.lowered, {}
        if not seen.values:
            return self._known_headers.copy()
        values = iter(seen.values)
        return [(name, next(values) if value == CUT else value) for name, value in self._known_headers]

    def _body(self, data: bytes) -> bytes:
        """More of the body; what is left of *data*."""
        pieces, at = self._upload.feed(data)
        request = self._request
        waiting_bytes = request.feed(pieces) if request is not None and pieces else 0
        if not self._upload.is_over:
            if waiting_bytes > _MAX_WAITING_BYTES:  # not for a whole body: no app has to take it
                self._pause()
            self._wait(self._lobby.settings.body_idle_timeout_secs)
        elif request is not None:
            if self.is_full:
                self._wait(self._lobby.settings.keep_alive_secs)
            else:
                self.deadline = NEVER
            request.finish()
        else:  # it was skipped
            self._wait(self._lobby.settings.keep_alive_secs)
        return data[at:]

    def _keep(self, data: bytes) -> None:
        self._stash.append(data)
        self._stash_bytes += len(data)
        if self._stash_bytes > _MAX_WAITING_BYTES:
            self._pause()

    def _next(self) -> None:
        stash, self._stash, self._stash_bytes = self._stash, [], 0
        self._resume()
        self.data_received(b"".join(stash))

    def _pause(self) -> None:
        if not self._is_paused and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()

    # For the request

    def may_follow(self, request: AsgiRequest) -> bool:
        """Whether another request may follow *request*, as far as its sender and the server go."""
        if self._is_last or (self._lobby.is_leaving and not self._stash):
            return False
        if request.asks_first and not request.has_whole_body:  # nobody knows whether its body will come
            return False
        head = self._known
        assert head is not None
        return (not head.options or not head.wants_close) if head.minor else head.wants_keep_alive

    def taken(self) -> None:
        """What had come of the body was taken: more may come."""
        if self._is_paused and not self._stash:
            self._resume()

    async def room(self) -> None:
        """Until the caller has taken what was written, but for a little; or has gone."""
        if self._upload.is_over and self.deadline == NEVER:  # he takes nothing of the answer before this one
            self._wait(self._lobby.settings.keep_alive_secs)
        while self.is_full:
            if self._room is None:
                self._room = asyncio.Event()
            self._room.clear()
            await self._room.wait()

    def answered(self, *, keeps: bool) -> None:
        """The answer is written completely; *keeps*: another request may follow."""
        self._request = None
        self._server_state.total_requests += 1
        if self._is_over or self.transport.is_closing():
            return
        if not keeps:
            self._is_over = True
            # Nor upon a caller who could not know that he must not send.
            is_told_just_now = self._is_last or self._lobby.is_leaving
            if self._upload.is_over and not (is_told_just_now and self.transport.can_write_eof()):
                self.close()
            else:
                self._linger()
        elif not self._upload.is_over:  # the rest of what was answered early is skipped
            self._resume()
        else:
            self._wait(self._lobby.settings.keep_alive_secs)
            if self._stash:
                self._loop.call_soon(self._next)

    def close(self) -> None:
        """When all is written; who takes nothing of it is cut off in the end."""
        self._is_over = True
        self.transport.close()
        self._wait(self._lobby.settings.keep_alive_secs)

    def is_over(self, request: AsgiRequest) -> None:
        """The app has returned."""
        if request.task is not None:
            self._server_state.tasks.discard(request.task)

    # WebSockets

    def _upgrade(self, line: RequestLine, seen: Seen, data: bytes, at: int) -> None:
        """Asked for a WebSocket: one that somebody else takes is dropped here without being shut down."""
        self._is_over = True
        self._stop_waiting()
        if self._pass_on is not None and self._may_leave():
            connection = self.transport.get_extra_info("socket").fileno()
            if self._pass_on(line.method.decode(), line.target, self._headers(seen), connection):
                self.transport.abort()
                return
        cast(set[Any], self._server_state.connections).discard(self)
        make = cast(Any, self._config.ws_protocol_class)
        protocol = make(config=self._config, server_state=self._server_state, app_state=self._app_state)
        protocol.connection_made(self.transport)
        # The target as it was understood: of a whole address, the path. What curl sends as it was typed, uvicorn can't
        # read.
        target = line.target if line.target.isascii() else _NOT_ASCII.sub(_percent_encoded, line.target)
        # uvicorn takes the names of headers as they come, where ASGI has them in small letters.
        lines = [b"%b %b HTTP/1.1" % (line.method, target)]
        lines += [b"%b: %b" % header for header in self._headers(seen)]
        protocol.data_received(b"\r\n".join([*lines, b"", data[at:]]))
        self.transport.set_protocol(protocol)

    def _may_leave(self) -> bool:
        """Nothing of an earlier answer is still on its way, and what is on its way can be read without our TLS keys."""
        if self.transport.get_extra_info("ssl_object") is not None:
            return False
        return not self.transport.get_write_buffer_size()

    # The end

    def _refuse(self, error: GreenroomError) -> None:
        """Answered with *error*, as far as no answer has begun; and then there is no telling what follows."""
        if self._is_over:
            return
        self._is_over = True
        request, self._request = self._request, None
        if request is not None:
            request.disconnect()
            if request.status is not None:
                self.transport.abort()
                return
        elif not self._upload.is_over:  # it has its answer already
            self.close()
            return
        self.transport.write(error_answer(error, method=b"GET", request_id=None, connection=b"close"))
        self._linger()

    def _linger(self) -> None:
        """
        Half-close, and read on for a moment.

        Closing while more comes would reset the connection, and could destroy the answer on its way.
        """
        self._stash, self._heads.held = [], b""
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self._resume()
        self._wait(_LINGER_SECS)

    def _wait(self, secs: float) -> None:
        self.deadline = monotonic() + secs
        if self.deadline < self.visit_at:
            self._lobby.wheel.watch(self)

    def _stop_waiting(self) -> None:
        self._lobby.wheel.forget(self)
        self.deadline = NEVER


def _percent_encoded(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % found[0][0]
