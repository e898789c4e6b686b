"""
HTTP/2 from clients: a protocol class under uvicorn's server, around zttp's engine, for the same ASGI app.

uvicorn has such a class (``protocols.http.zttp_h2_impl``). It is not this one's base, since it

- does not know zttp's word that a request has no body (``Request.end_stream``): an app that reads it waits for ever,
- lets zttp keep all of an answer that the client does not take, and stops all requests of a connection for one body,
- answers requests of a connection that is to end with 503, where GOAWAY sends them to another one,
- passes on the offer of WebSockets over HTTP/2, which it does not serve.

What the engine does well is left to it: frames, HPACK, states of streams, RFC 9113 §8. It is young, so its version is
pinned, and ``tests/http2`` holds it to the sections of h2spec and to the cases of smuggling.

The windows are the smallest that there are (64 KiB): bodies sent over a long way come slower than over HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote

import zttp
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from gateway.core.errors import GreenroomError
from gateway.http2.heads import plain_headers, refuse_bad_head
from gateway.http2.output import window_update, without_credit, without_websockets
from gateway.http2.request import NO_ERROR, Http2Request
from gateway.proxy import replies
from gateway.proxy.asgi import Receive, Scope, Send
from gateway.proxy.splice.connections import Connections
from gateway.proxy.splice.request_head import HeadLimits

PROTOCOL_ERROR, ENHANCE_YOUR_CALM = 1, 11

# zttp ends a connection for which 256 streams were reset, however long it lasts; one that is used well ends in order.
_RESETS_TO_GOODBYE = 200
# Frames that want an answer and move nothing: PING, SETTINGS. (Of empty DATA zttp says nothing, so it costs little.)
_IDLE_FRAMES_AT_ONCE = 1000
_IDLE_FRAMES_PER_SEC = 50.0

_LINGER_SECS = 1.0
_READ_SECS = 0.1  # for a client to read what it was answered

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Limits:
    """
    The bounds of a connection, as the settings of the same names have them.

    ``goodbye_secs`` is how long requests under way are waited for before GOAWAY is said; ``keep_alive_secs`` also how
    long a client may take nothing of an answer.
    """

    head: HeadLimits = field(default_factory=HeadLimits)
    head_timeout_secs: float = 30
    keep_alive_secs: float = 75
    body_idle_secs: float = 60
    goodbye_secs: float = 0.5


class Http2(asyncio.Protocol):
    """
    One connection. Constructed as uvicorn constructs its protocols, with *limits* besides, and with *connections*,
    among which it counts.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Http2Limits,
        connections: Connections | None = None,
    ) -> None:
        self._app: Any = config.loaded_app
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_event_loop()
        self._limits = limits
        self._connections = connections
        self._engine = zttp.Connection(zttp.SERVER, zttp.HTTP2)
        self._requests: dict[int, Http2Request] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._goodbye_timer: asyncio.TimerHandle | None = None
        self._untaken_timer: asyncio.TimerHandle | None = None
        self._is_ending = False
        self._takes_no_more = False
        self._last_taken = 0
        self._has_left = False
        self.has_asked = False
        """Whether a request has come over this connection."""
        self._has_credit_come = False
        self._resets = 0
        self._idle_frames = 0.0
        self._idle_frames_at = 0.0
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._transport: asyncio.Transport
        self._about: dict[str, Any] = {}
        self._address = ""

    # -- asyncio.Protocol ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what this side keeps to; or, where there are too many connections already, that nothing is taken."""
        self._transport = cast(asyncio.Transport, transport)
        client = get_remote_addr(self._transport)
        cast(set[Any], self._server_state.connections).add(self)
        self._about = {
            "server": get_local_addr(self._transport),
            "client": client,
            "scheme": "https" if is_ssl(self._transport) else "http",
        }
        self._engine.initiate_connection()
        self._transport.write(without_websockets(self._engine.data_to_send()))
        self._idle_frames_at = self._loop.time()
        self._address = client[0] if client else ""
        if self._connections is not None and self._connections.admit(self._transport, self._address) is not None:
            self._engine.close(ENHANCE_YOUR_CALM)
            self._leave()
            return
        self._wait(self._limits.head_timeout_secs)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever works for this client learns of it."""
        cast(set[Any], self._server_state.connections).discard(self)
        if self._connections is not None:
            self._connections.gone(self._transport, self._address)
        self._stop_waiting()
        if self._goodbye_timer is not None:
            self._goodbye_timer.cancel()
        self._taken()
        self._can_write.set()
        self._forget_requests()

    def _forget_requests(self) -> None:
        requests, self._requests = list(self._requests.values()), {}
        for request in requests:
            request.disconnect()

    def data_received(self, data: bytes) -> None:
        """Take in frames, and answer those that want an answer."""
        if self._has_left or self._transport.is_closing():
            return
        try:
            self._engine.receive_data(data)
            while (event := self._engine.next_event()) is not zttp.NEED_DATA:
                self._take(event)
            if self._has_credit_come:
                self._has_credit_come = False
                for request in self._requests.values():
                    request.credit_has_come()
        except zttp.RemoteProtocolError as error:
            _log.debug("HTTP/2: %s", error)
            self._leave()
            return
        self.write_out()

    def _leave(self) -> None:
        self.write_out()
        self._has_left = True
        self._forget_requests()
        self._stop_waiting()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        # Closing while more comes would reset the connection, and could destroy the GOAWAY on its way.
        self._timer = self._loop.call_later(_LINGER_SECS, self._close)

    def _close(self) -> None:
        """When all is written; who takes nothing of it is cut off in the end."""
        self._transport.close()
        self._timer = self._loop.call_later(self._limits.keep_alive_secs, self._transport.abort)

    def eof_received(self) -> None:
        """A client that says no more is gone: nothing could be asked of it in HTTP/2, and no credit comes from it."""

    def pause_writing(self) -> None:
        """While the client takes nothing, nothing that wants an answer is read; and in the end it is cut off."""
        self._can_write.clear()
        self._transport.pause_reading()
        self._watch_taking()

    def resume_writing(self) -> None:
        """It takes again."""
        self._taken()
        self._can_write.set()
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _watch_taking(self) -> None:
        left_bytes = self._transport.get_write_buffer_size()

        def look() -> None:
            if self._transport.get_write_buffer_size() < left_bytes:  # it takes slowly
                self._watch_taking()
            else:
                self._transport.abort()

        self._untaken_timer = self._loop.call_later(self._limits.keep_alive_secs, look)

    def _taken(self) -> None:
        if self._untaken_timer is not None:
            self._untaken_timer.cancel()
            self._untaken_timer = None

    # -- for the server --------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """End in good order, as ``say_goodbye`` does."""
        self.say_goodbye()

    def say_goodbye(self) -> None:
        """
        Send new requests elsewhere: GOAWAY with the number of the last one that was taken (RFC 9113 §6.8). What came
        after that one may be sent again, to whoever serves then; it is left without a word, as the RFC allows.

        From now on nothing is taken but the first request of a connection; GOAWAY waits until what was taken is
        answered and read, or for ``goodbye_secs``: there are clients (httpx) that take it for the end of whatever they
        have not read to its end.
        """
        if not self._is_ending and not self._has_left:
            self._is_ending = True
            is_at_rest = self.has_asked and not self._requests
            self._say_goodbye_in(_READ_SECS if is_at_rest else self._limits.goodbye_secs)

    def _say_goodbye_in(self, secs: float) -> None:
        if self._goodbye_timer is not None:
            self._goodbye_timer.cancel()
        self._goodbye_timer = self._loop.call_later(secs, self._take_no_more)

    def _take_no_more(self) -> None:
        if self._takes_no_more or self._has_left or self._transport.is_closing():
            return
        self._takes_no_more = True
        self._engine.close(NO_ERROR, self._last_taken)
        self.write_out()
        if not self._requests:
            self._leave()

    # -- for its requests ------------------------------------------------------------------------------------------

    def write_out(self) -> None:
        """Send what zttp has to send, less the credit for bodies that nobody has taken yet."""
        data = self._engine.data_to_send()
        if not data:
            return
        output = without_credit(data)
        if output.frames and not self._has_left and not self._transport.is_closing():
            self._transport.write(output.frames)
        for stream_id, credit in output.credit.items():
            request = self._requests.get(stream_id)
            if request is not None:  # else nobody wants the rest of that body
                request.owe(credit)

    def give_credit(self, stream_id: int, credit: int) -> None:
        """Let the client send so many bytes more of this body."""
        if not self._transport.is_closing():
            self._transport.write(window_update(stream_id, credit))

    async def writable(self) -> None:
        """Until what was sent has left, but for a little."""
        await self._can_write.wait()

    def is_over(self, request: Http2Request) -> None:
        """Nothing more comes from this request."""
        self._server_state.total_requests += 1
        if self._requests.pop(request.stream_id, None) is None:  # reset, or the connection is gone
            return
        self._after_one()

    def _after_one(self) -> None:
        if not self._requests and not self._transport.is_closing():
            self._wait(self._limits.keep_alive_secs)
            if self._takes_no_more:
                self._leave()
            elif self._is_ending:
                self._say_goodbye_in(_READ_SECS)

    # -- events ----------------------------------------------------------------------------------------------------

    def _take(self, event: zttp.Event) -> None:
        match event:
            case zttp.Request():
                self._begin(event)
            case zttp.Data():
                if request := self._requests.get(event.stream_id):
                    request.feed(event.data)
            case zttp.EndOfMessage():
                if request := self._requests.get(event.stream_id):
                    request.finish_body()
            case zttp.RstStream():
                self._count_reset()
                if request := self._requests.pop(event.stream_id, None):
                    request.disconnect()
                    self._after_one()
            case zttp.WindowUpdate():
                self._has_credit_come = True
            case zttp.Settings():
                self._count_idle_frame()
                self._has_credit_come = True  # the window that streams begin with may have grown
            case zttp.Ping():
                self._count_idle_frame()
            case zttp.GoAway():
                self.say_goodbye()

    def _begin(self, event: zttp.Request) -> None:
        if self._takes_no_more or (self._is_ending and self.has_asked):
            return
        stream = self._engine.stream(event.stream_id)
        if event.protocol is not None:  # RFC 8441, which was not offered
            stream.reset(PROTOCOL_ERROR)
            return
        self._stop_waiting()
        self.has_asked = True
        self._last_taken = event.stream_id
        headers = plain_headers(event.headers)
        app: Any = self._app
        try:
            refuse_bad_head(event.method, event.target, headers, self._limits.head)
        except GreenroomError as error:
            app = _Refusal(error)
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            **self._about,
            "method": event.method.decode("latin-1"),
            "root_path": "",
            "path": unquote(event.path.decode("latin-1")),
            "raw_path": event.path,
            "query_string": event.query,
            "headers": headers,
            "state": self._app_state.copy(),
            "extensions": {},
        }
        request = self._requests[event.stream_id] = Http2Request(
            scope,
            stream,
            self,
            is_empty=event.end_stream,
            asks_first=(b"expect", b"100-continue") in [(name, value.lower()) for name, value in headers],
            body_idle_secs=self._limits.body_idle_secs,
            untaken_secs=self._limits.keep_alive_secs,
        )
        # Owned by uvicorn's server, which waits for its tasks when it ends.
        task = self._loop.create_task(request.run(app))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    # -- limits ----------------------------------------------------------------------------------------------------

    def _wait(self, secs: float) -> None:
        """For a whole request; nothing less makes it longer, so a head that dribbles in does not either."""
        self._stop_waiting()
        self._timer = self._loop.call_later(secs, self._waited)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _waited(self) -> None:
        self._timer = None
        self._take_no_more()

    def _count_reset(self) -> None:
        self._resets += 1
        if self._resets >= _RESETS_TO_GOODBYE:
            self.say_goodbye()

    def _count_idle_frame(self) -> None:
        now = self._loop.time()
        gone = (now - self._idle_frames_at) * _IDLE_FRAMES_PER_SEC
        self._idle_frames = max(0.0, self._idle_frames - gone) + 1
        self._idle_frames_at = now
        if self._idle_frames > _IDLE_FRAMES_AT_ONCE:
            self._engine.close(ENHANCE_YOUR_CALM)
            raise zttp.RemoteProtocolError("too many frames that move nothing")


class _Refusal:
    """Answers one request with *error*."""

    def __init__(self, error: GreenroomError) -> None:
        self._error = error

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        await replies.send_error(scope, send, self._error, [])
