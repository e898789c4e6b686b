"""Background work that outlives trouble with the stores."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

from gateway.state.ports import StateUnavailable

_log = logging.getLogger(__name__)

_PAUSE_SECS = 1.0
_SAY_AGAIN_SECS = 60.0
# Work that went on for longer than an attempt takes was all right meanwhile.
_SAME_TROUBLE_SECS = 10.0


async def steadily(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """
    Do *work*, which goes on for ever, and begin it anew a second after a store was unavailable.

    *work* must read what it needs anew when it begins, since signals were missed meanwhile. The log hears of a trouble
    that goes on once a minute: many works stand still with a store. Cancelled, it ends, also where what *work* still
    does then fails for want of a store.
    """
    said_at = -math.inf
    clock = asyncio.get_running_loop().time
    while True:
        began_at = clock()
        try:
            await work()
        except StateUnavailable as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError from error  # which the error took the place of
            now = clock()
            if now - began_at > _SAME_TROUBLE_SECS:
                said_at = -math.inf
            if now - said_at > _SAY_AGAIN_SECS:
                _log.warning("%s pauses: %s", what, error)
                said_at = now
            await asyncio.sleep(_PAUSE_SECS)
        else:
            return
