"""Signals about what is stored already."""

from __future__ import annotations

import logging

from gateway.state.ports import Changed, Signals, StateUnavailable

_log = logging.getLogger(__name__)


async def tell_stored(signals: Signals, change: Changed) -> None:
    """
    Signal a *change* of records that is stored. A signal that is lost must not become an error: whoever asked for the
    change would ask again. Who listens looks at the records from time to time anyway.
    """
    try:
        await signals.changed(change)
    except StateUnavailable as error:
        _log.warning("a change was stored but not signalled: %s %s: %s", change.kind, change.id, error)
