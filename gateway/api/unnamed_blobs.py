"""Making room: the blobs that no record names any more."""

from __future__ import annotations

import logging

from gateway.api.call import Call
from gateway.state.ports import StateUnavailable

_log = logging.getLogger(__name__)


async def delete_unnamed(call: Call, *blobs: str | None) -> None:
    """
    Each that can be deleted, None being none; the log tells which could not.

    The rows are gone already, so a failure must not become a 5xx: clients would repeat the call, which then finds
    nothing to do. Nor must it keep the other blobs.
    """
    for blob in blobs:
        if blob is None:
            continue
        try:
            await call.services.state.blobs.delete(blob)
        except StateUnavailable:
            _log.warning("a blob that nothing names any more could not be deleted: %s", blob, exc_info=True)
