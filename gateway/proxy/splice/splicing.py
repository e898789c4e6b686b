"""What all connections of the protocol class share in one process, and the work that goes on beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from gateway.observability import Metrics
from gateway.proxy.accounts import Accounts
from gateway.proxy.decisions import Decisions
from gateway.proxy.host_map import HostMap
from gateway.proxy.open_sockets import OpenSockets
from gateway.proxy.request_ids import RequestIds
from gateway.proxy.route_table import LiveRun
from gateway.proxy.splice.answer_cache import AnswerHeads
from gateway.proxy.splice.connections import Connections
from gateway.proxy.splice.pool import Pools
from gateway.proxy.splice.request_cache import RequestHeads
from gateway.proxy.splice.request_head import HeadLimits
from gateway.proxy.splice.wheel import Wheel


@dataclass(slots=True, kw_only=True)
class Splicing:
    """
    Whom the connections ask, and what they have in common. To be made in the event loop, where ``run`` then goes on.

    ``is_leaving``: another process takes the new connections already, so each answer says that it is the last one.
    """

    decisions: Decisions
    hosts: HostMap
    metrics: Metrics
    request_ids: RequestIds
    sockets: OpenSockets
    is_leaving: bool = False
    accounts: Accounts = field(init=False)
    requests: RequestHeads = field(init=False)
    answers: AnswerHeads = field(init=False)
    wheel: Wheel = field(init=False)
    pools: Pools = field(init=False)
    connections: Connections = field(init=False)
    _group: asyncio.TaskGroup | None = None

    def __post_init__(self) -> None:
        settings = self.decisions.settings
        self.accounts = Accounts(self.metrics)
        self.requests = RequestHeads(
            limits=HeadLimits(max_bytes=settings.max_head_bytes, max_headers=settings.max_request_headers)
        )
        self.answers = AnswerHeads()
        self.wheel = Wheel()
        self.pools = Pools(self.wheel, self.answers, connect_timeout_secs=settings.connect_timeout_secs)
        self.connections = Connections(
            limit=settings.max_connections,
            limit_per_address=settings.max_connections_per_address,
            trusted=settings.trusted_proxies,
        )
        self.metrics.watch_cache("request", lambda: self.requests.hits, lambda: self.requests.misses)
        self.metrics.watch_cache("answer", lambda: self.answers.hits, lambda: self.answers.misses)

    async def run(self) -> None:
        """Until cancelled, do what requests have to wait for; then end what stands, and forget what was seen."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            self.wheel.stop()
            await self.pools.aclose()
            self.requests.clear()
            self.answers.clear()

    def spawn(self, waiting: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Await *waiting*, which must not fail, beside everything else; None where nothing is awaited any more."""
        if self._group is None:
            waiting.close()
            return None
        return self._group.create_task(waiting)

    def forget(self, run: LiveRun, now: float) -> None:
        """*run* has ended."""
        self.pools.forget(run, now)
