"""The worker's HTTP server: uvicorn, without its ideas about signals, and with a way to hand over its sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import uvicorn

from gateway.app import Gateway
from gateway.bounded_head import BoundedHead, PassOn
from gateway.dispatch import Dispatcher
from gateway.http2.protocol import Http2, Http2Limits
from gateway.proxy.http import quiet_cut_answers
from gateway.proxy.splice.front import Front
from gateway.proxy.splice.handover import ProtocolFactory
from gateway.proxy.splice.request_head import HeadLimits
from gateway.settings import Settings
from gateway.worker_place import Cover, Uncover

_GRACE_SECS = 5
_POLL_SECS = 0.01
_HANDSHAKE_SECS = 10
_TLS_GOODBYE_SECS = 1.0


@dataclass(frozen=True, slots=True)
class Tls:
    """The sockets that speak TLS, and the certificates they do it with."""

    sockets: list[socket.socket]
    context: ssl.SSLContext


class Server(uvicorn.Server):
    """
    Serves a gateway on inherited sockets, and on those of *tls*. WebSocket upgrades are offered to *pass_on* first.
    """

    def __init__(self, gateway: Gateway, pass_on: PassOn, tls: Tls | None = None) -> None:
        quiet_cut_answers()
        self._lobby = gateway.splicing.lobby
        self._covered: dict[int, Cover] = {}
        self._covering: dict[int, list[asyncio.Server]] = {}
        settings = gateway.services.settings
        self._tls = tls
        h1 = _http1(gateway, pass_on)
        h2 = partial(Http2, limits=_http2_limits(settings), connections=gateway.splicing.lobby.connections)
        super().__init__(
            uvicorn.Config(
                gateway,
                http=cast(Any, partial(Dispatcher, h1=h1, h2=h2 if settings.http2 else None)),
                ws="websockets-sansio",
                loop="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                # The Actor's own Date and Server pass; X-Forwarded-* are for gateway.client_address to believe or not.
                server_header=False,
                date_header=False,
                proxy_headers=False,
                ws_max_size=settings.max_websocket_message_bytes,
                timeout_keep_alive=cast(Any, settings.keep_alive_secs),
                timeout_graceful_shutdown=_GRACE_SECS,
            )
        )
        self.config.load()  # now, since while a worker takes over nobody accepts connections

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the worker's own."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn, which has one TLS context for all sockets or none; those of *tls* are served besides."""
        await super().startup(sockets=sockets)
        for sock in self._tls.sockets if self._tls is not None else ():
            self.servers.append(await self._listen(sock, self._tls))

    async def cover_lanes(self, orders: asyncio.Queue[Cover | Uncover]) -> None:
        """For ever, while this server accepts: do so for other lanes, too, as the parent orders it."""
        while True:
            order = await orders.get()
            self._uncover(order.lane)
            if isinstance(order, Cover):
                self._covered[order.lane] = order
                servers = self._covering[order.lane] = []
                wanted = [(sock, None) for sock in order.sockets] + [(sock, self._tls) for sock in order.tls_sockets]
                for sock, tls in wanted:
                    servers.append(await self._listen(sock, tls))
                    self.servers.append(servers[-1])

    def _uncover(self, lane: int) -> None:
        for server in self._covering.pop(lane, ()):
            server.close()
            self.servers.remove(server)
        order = self._covered.pop(lane, None)
        for sock in (*order.sockets, *order.tls_sockets) if order is not None else ():
            sock.close()

    async def _listen(self, sock: socket.socket, tls: Tls | None) -> asyncio.Server:
        make = partial(
            cast(Any, self.config.http_protocol_class),
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        loop, backlog = asyncio.get_running_loop(), self.config.backlog
        if tls is None:
            return await loop.create_server(make, sock=sock, backlog=backlog)
        return await loop.create_server(
            make,
            sock=sock,
            ssl=tls.context,
            backlog=backlog,
            ssl_handshake_timeout=_HANDSHAKE_SECS,
            ssl_shutdown_timeout=_TLS_GOODBYE_SECS,
        )

    async def has_started(self, serving: asyncio.Task[None]) -> None:
        """Until it accepts connections; uvicorn tells that by a flag alone. Ends too when *serving* does."""
        while not self.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)

    def say_last(self) -> None:
        """From now on each answer says that it is the last one of its connection. New ones are accepted as before."""
        self._lobby.is_leaving = True

    async def stop_accepting(self, sockets: list[socket.socket], limit_secs: float) -> None:
        """
        Leave the sockets to the next worker, and close what lies idle; returns when each connection that was accepted
        has sent a request, or after *limit_secs*.

        To be called some time after ``say_last``: who has not asked meanwhile is not about to.
        """
        for lane in list(self._covered):
            self._uncover(lane)
        for server in self.servers:
            server.close()
        for sock in [*sockets, *(self._tls.sockets if self._tls else ())]:
            sock.close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Http2):
                connection.say_goodbye()
            elif isinstance(connection, Front | BoundedHead) and connection.has_asked:
                connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_secs):
                await asyncio.sleep(_POLL_SECS)  # for the protocol of a connection that was accepted just now
                while self._has_fresh():  # noqa: ASYNC110 - uvicorn has no event for it
                    await asyncio.sleep(_POLL_SECS)

    def _has_fresh(self) -> bool:
        return any(not getattr(one, "has_asked", True) for one in self.server_state.connections)

    def finish_within(self, secs: float) -> None:
        """End once all requests are answered, or after *secs*."""
        self.config.timeout_graceful_shutdown = max(1, round(secs))
        self.should_exit = True


def _http2_limits(settings: Settings) -> Http2Limits:
    return Http2Limits(
        head=HeadLimits(max_bytes=settings.max_head_bytes, max_headers=settings.max_request_headers),
        head_timeout_secs=settings.head_timeout_secs,
        keep_alive_secs=settings.keep_alive_secs,
        body_idle_secs=settings.body_idle_timeout_secs,
    )


def _http1(gateway: Gateway, pass_on: PassOn) -> ProtocolFactory:
    """What makes the protocol of each connection that speaks HTTP/1, as uvicorn calls it."""
    own = partial(BoundedHead, pass_on=pass_on, lobby=gateway.splicing.lobby)
    if gateway.services.settings.proxy_protocol == "asgi":
        return own
    return partial(Front, shared=gateway.splicing, inner=own)
