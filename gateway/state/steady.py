"""Background work that outlives trouble with the stores."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.state.ports import StateUnavailable

_log = logging.getLogger(__name__)

_PAUSE_SECS = 1.0


async def steadily(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """
    Do *work*, which goes on for ever, and begin it anew a second after a store was unavailable.

    *work* must read what it needs anew when it begins, since signals were missed meanwhile.
    """
    while True:
        try:
            await work()
        except StateUnavailable as error:
            _log.warning("%s pauses: %s", what, error)
            await asyncio.sleep(_PAUSE_SECS)
        else:
            return
