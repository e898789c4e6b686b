"""Waiting for what must come, within a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.state.ports import StateUnavailable

T = TypeVar("T")

DEADLINE_SECS = 60.0


async def until(holds: Callable[[], object]) -> None:
    """Look again and again until *holds*."""
    async with asyncio.timeout(DEADLINE_SECS):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


async def until_answered(ask: Callable[[], Awaitable[T]], wanted: Callable[[T], bool] = lambda _: True) -> T:
    """Ask again and again, also while the store can't be reached, until the answer is as *wanted*."""
    async with asyncio.timeout(DEADLINE_SECS):
        while True:
            try:
                answer = await ask()
            except StateUnavailable:
                await asyncio.sleep(0.01)
            else:
                if wanted(answer):
                    return answer
                await asyncio.sleep(0.01)
