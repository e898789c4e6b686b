"""Slot leases within one process: the ledger itself, which dies with those who borrow from it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from gateway.core.slot_leases import SlotAnswer, SlotLedger, SlotMessage, SlotRequest
from gateway.state.subscriptions import QUEUE_BOUND, Subscription


class MemorySlots:
    """The SlotLeases port for one process. *clock* is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ledger = SlotLedger()
        self._watchers: dict[str, set[Subscription[SlotMessage]]] = {}

    async def settle(self, request: SlotRequest) -> SlotAnswer:
        # Nobody can have borrowed in another process, so there is nothing to wait for: as if it were infinitely old.
        settled = self._ledger.settle(request, now=self._clock(), server="memory", age_secs=math.inf)
        for borrower, message in settled.messages:
            for watcher in self._watchers.get(borrower, ()):
                watcher.put(message)
        return settled.answer

    async def withdraw(self, borrower: str) -> None:
        self._ledger.withdraw(borrower)

    async def holders(self, run_id: str) -> frozenset[str] | None:
        return self._ledger.holders(run_id, now=self._clock(), server="memory", age_secs=math.inf)

    def watch(self, borrower: str) -> AbstractAsyncContextManager[AsyncIterator[SlotMessage]]:
        return self._watch(borrower)

    @asynccontextmanager
    async def _watch(self, borrower: str) -> AsyncIterator[AsyncIterator[SlotMessage]]:
        watcher: Subscription[SlotMessage] = Subscription(QUEUE_BOUND)
        watchers = self._watchers.setdefault(borrower, set())
        watchers.add(watcher)
        try:
            yield watcher.read()
        finally:
            watchers.discard(watcher)
            if not watchers:
                self._watchers.pop(borrower, None)
