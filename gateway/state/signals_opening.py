"""Opens the signals that a URL names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.state.ports import Signals
from gateway.state.signals_memory import MemorySignals


@asynccontextmanager
async def open_signals(url: str | None, *, namespace: str = "greenroom") -> AsyncIterator[Signals]:
    """
    Signals in Redis at *url*, or (None) in this process, for as long as the block lasts.

    Raises InvalidConfig for a URL that is none of Redis. Redis need not be there yet: what is asked meanwhile raises
    StateUnavailable.
    """
    if url is None:
        signals = MemorySignals()
        try:
            yield signals
        finally:
            await signals.close()
        return
    # The driver takes its time to load, and most Greenrooms never need it.
    from gateway.state.redis.address import parse_address
    from gateway.state.redis.signals import open_redis_signals

    async with open_redis_signals(parse_address(url), namespace=namespace) as on_redis:
        yield on_redis
