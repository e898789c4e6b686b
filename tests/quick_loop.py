"""An event loop on which time passes at once, for what takes minutes by design."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Selector(selectors.DefaultSelector):
    """Never waits: the time that it was to wait for has passed."""

    passed_secs = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "nobody would ever go on"
        self.passed_secs += max(0.0, timeout)
        return super().select(0)


class QuickLoop(asyncio.SelectorEventLoop):
    """Where nobody has anything to do, it is later already."""

    def __init__(self) -> None:
        self._quick = _Selector()
        super().__init__(self._quick)

    def time(self) -> float:
        return self._quick.passed_secs

    def stand_still(self, secs: float) -> None:
        """As a process that is stopped, or gets no time."""
        self._quick.passed_secs += secs


def at_once(main: Coroutine[Any, Any, None]) -> None:
    """Run *main*, however many seconds it takes."""
    with asyncio.Runner(loop_factory=QuickLoop) as runner:
        runner.run(main)
