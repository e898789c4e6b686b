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
from gateway.proxy.splice.entrance import SharedTerms
from gateway.proxy.splice.lobby import Lobby
from gateway.proxy.splice.pool import Pools


@dataclass(slots=True, kw_only=True)
class Splicing:
    """
    Whom the connections ask, and what they have in common. To be made in the event loop, where ``run`` then goes on.
    """

    lobby: Lobby
    decisions: Decisions
    hosts: HostMap
    metrics: Metrics
    request_ids: RequestIds
    sockets: OpenSockets
    accounts: Accounts = field(init=False)
    answers: AnswerHeads = field(default_factory=AnswerHeads)
    terms: SharedTerms = field(default_factory=dict)
    pools: Pools = field(init=False)
    _group: asyncio.TaskGroup | None = None
    _waiting: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        requests, answers = self.lobby.requests, self.answers
        self.accounts = Accounts(self.metrics)
        self.pools = Pools(self.lobby.wheel, answers, connect_timeout_secs=self.decisions.settings.connect_timeout_secs)
        self.metrics.watch_cache("request", lambda: requests.hits, lambda: requests.misses)
        self.metrics.watch_cache("answer", lambda: answers.hits, lambda: answers.misses)

    async def run(self) -> None:
        """Until cancelled, do what requests have to wait for; then end what stands, and forget what was seen."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            self.lobby.wheel.stop()
            await self.pools.aclose()
            self.lobby.requests.clear()
            self.answers.clear()
            self.terms.clear()

    def spawn(self, waiting: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Await *waiting*, which must not fail, beside everything else; None where nothing is awaited any more."""
        if self._group is None:
            waiting.close()
            return None
        task = self._group.create_task(waiting)
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)
        return task

    @property
    def is_deciding(self) -> bool:
        """Whether any request waits for something before it is sent: for whose it is, a slot or a connection."""
        return bool(self._waiting)

    def close_idle(self, run: LiveRun) -> None:
        """*run* is to stand still."""
        self.pools.close_idle(run)

    def forget(self, run: LiveRun, now: float) -> None:
        """*run* has ended."""
        self.pools.forget(run, now)
