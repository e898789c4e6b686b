"""What one subscriber has not read yet, within a bound."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")

QUEUE_BOUND = 10_000


class Subscription(Generic[T]):
    """Messages in their order; full, it loses the oldest (``has_lost`` tells). Once it has failed, readers hear why."""

    def __init__(self, bound: int) -> None:
        self._messages: deque[T] = deque(maxlen=bound)
        self._arrived = asyncio.Event()
        self._failure: Exception | None = None
        self.has_lost = False

    def put(self, message: T) -> None:
        """Add a message."""
        if len(self._messages) == self._messages.maxlen:
            self.has_lost = True
        self._messages.append(message)
        self._arrived.set()

    def restart_with(self, message: T) -> None:
        """Forget all, also that some were lost, and begin with *message*."""
        self.clear()
        self.put(message)

    def clear(self) -> None:
        """Forget all, also that some were lost."""
        self._messages.clear()
        self.has_lost = False

    def fail(self, error: Exception) -> None:
        """There will be no more; what has come is of no use any more either."""
        self._failure = error
        self._arrived.set()

    async def read(self) -> AsyncIterator[T]:
        """For ever, or until it fails."""
        while True:
            while self._failure is None and self._messages:
                yield self._messages.popleft()
            if self._failure is not None:
                raise self._failure
            self._arrived.clear()
            await self._arrived.wait()
