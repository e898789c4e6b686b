"""How a process of Greenroom is told to stop."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field


@dataclass(slots=True)
class StopSignals:
    """SIGTERM: drain and stop. SIGQUIT, or a second SIGTERM: stop at once."""

    drain: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self, *, with_interrupt: bool = False) -> None:
        """Take over the signals of this process; SIGINT too where no parent passes it on as SIGTERM."""
        loop = asyncio.get_running_loop()
        if with_interrupt:
            loop.add_signal_handler(signal.SIGINT, self._term)
        loop.add_signal_handler(signal.SIGTERM, self._term)
        loop.add_signal_handler(signal.SIGQUIT, self._quit)

    def _term(self) -> None:
        if self.drain.is_set():
            self.at_once.set()
        self.drain.set()

    def _quit(self) -> None:
        self.drain.set()
        self.at_once.set()
