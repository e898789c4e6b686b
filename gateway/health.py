"""What health pages tell of the stores: those that can't be reached, by their names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.state.ports import State, StateUnavailable

_ANSWER_SECS = 2.0
_FRESH_SECS = 1.0


@dataclass(slots=True)
class StoreHealth:
    """Asks the records at most once a second, however many look; of the signals it is known. *clock* is monotonic."""

    state: State
    clock: Callable[[], float]
    _looked_at: float | None = None
    _has_records: bool = True

    async def look(self) -> Mapping[str, str]:
        """Nothing while all is well, else e.g. ``{"signals": "unavailable"}``."""
        now = self.clock()
        if self._looked_at is None or now - self._looked_at >= _FRESH_SECS:
            self._looked_at = now
            self._has_records = await self._ask_records()
        present = {"signals": self.state.signals.trouble is None, "records": self._has_records}
        return {name: "unavailable" for name, is_there in present.items() if not is_there}

    async def _ask_records(self) -> bool:
        try:
            async with asyncio.timeout(_ANSWER_SECS):
                await self.state.records.user("")
        except (StateUnavailable, TimeoutError):
            return False
        return True
