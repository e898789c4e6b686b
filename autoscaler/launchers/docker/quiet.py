"""When the engine has nothing more urgent to do than what nobody waits for: while no container is being started."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

_PAUSE_SECS = 0.5


class Quiet:
    """Counts the starts under way."""

    def __init__(self) -> None:
        self._starts = 0
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()
        self._one_by_one = asyncio.Lock()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """A container is being started."""
        self._starts += 1
        self._is_quiet.clear()
        try:
            yield
        finally:
            self._starts -= 1
            if self._starts == 0:
                self._is_quiet.set()

    async def wait(self, limit_secs: float) -> None:
        """Until nothing is being started, or *limit_secs* have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_secs):
                await self._is_quiet.wait()

    async def turn(self) -> None:
        """Until nothing is being started, and has not been for a moment; for one caller after the other."""
        async with self._one_by_one:
            while True:
                await self._is_quiet.wait()
                await asyncio.sleep(_PAUSE_SECS)
                if self._is_quiet.is_set():
                    return
