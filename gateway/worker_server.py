"""The worker's HTTP server: uvicorn, without its ideas about signals, and with a way to hand over its sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import uvicorn

from gateway.app import Gateway
from gateway.bounded_head import BoundedHead, PassOn
from gateway.proxy.http import quiet_cut_answers

_GRACE_SECS = 5
_POLL_SECS = 0.01


class Server(uvicorn.Server):
    """Serves a gateway on inherited sockets. WebSocket upgrades are offered to *pass_on* first."""

    def __init__(self, gateway: Gateway, pass_on: PassOn) -> None:
        quiet_cut_answers()
        super().__init__(
            uvicorn.Config(
                gateway,
                http=cast(Any, partial(BoundedHead, pass_on=pass_on)),
                ws="websockets-sansio",
                loop="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                # The Actor's own Date and Server pass; X-Forwarded-* are for gateway.client_address to believe or not.
                server_header=False,
                date_header=False,
                proxy_headers=False,
                ws_max_size=gateway.services.settings.max_websocket_message_bytes,
                timeout_graceful_shutdown=_GRACE_SECS,
            )
        )
        self.config.load()  # now, since while a worker takes over nobody accepts connections

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the worker's own."""
        yield

    async def has_started(self, serving: asyncio.Task[None]) -> None:
        """Until it accepts connections; uvicorn tells that by a flag alone. Ends too when *serving* does."""
        while not self.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)

    async def stop_accepting(self, sockets: list[socket.socket], limit_secs: float) -> None:
        """
        Leave the sockets to the next worker; returns when each connection that was accepted has sent a request, or
        after *limit_secs*.
        """
        for server in self.servers:
            server.close()
        for sock in sockets:
            sock.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_secs):
                while self._has_fresh():  # noqa: ASYNC110 - uvicorn has no event for it
                    await asyncio.sleep(_POLL_SECS)

    def _has_fresh(self) -> bool:
        return any(isinstance(one, BoundedHead) and not one.has_asked for one in self.server_state.connections)

    def finish_within(self, secs: float) -> None:
        """End once all requests are answered, or after *secs*."""
        self.config.timeout_graceful_shutdown = max(1, round(secs))
        self.should_exit = True
