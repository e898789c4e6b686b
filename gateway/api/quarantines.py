"""Pools in quarantine, below ``/v2/greenroom``: which of an Actor's are, and having them tried again at once."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from starlette.responses import Response

from gateway.api.access import managed_actor
from gateway.api.call import Call, Endpoint, answer
from gateway.core.errors import InsufficientPermissions
from gateway.core.model import Actor
from gateway.core.trouble import RETRY, PoolTrouble
from gateway.state.ports import Changed

_HEARD_WITHIN_SECS = 5.0
_LOOK_EVERY_SECS = 0.02


async def list_quarantines(call: Call) -> Response:
    """
    ``GET /v2/greenroom/actors/{actor}/quarantine``: the Actor's pools for which nothing is started for now, and why.

    For its owner and administrators.
    """
    actor = await managed_actor(call)
    return answer({"items": [quarantine_view(trouble) for trouble in await _troubles_of(call, actor)]})


async def retry_actor(call: Call) -> Response:
    """
    ``POST /v2/greenroom/actors/{actor}/retry``: the next request, or ``minRuns``, starts a run again, whatever failed
    before. Answers those of the Actor's pools that were in quarantine, once they no longer are (or after 5 s, where no
    autoscaler is there to hear of it); none is no mistake.

    For its owner and administrators; a run may not.
    """
    if call.principal.run_id is not None:
        raise InsufficientPermissions("A run can't have an Actor tried again; its owner and administrators can.")
    actor = await managed_actor(call)
    troubles = await _troubles_of(call, actor)
    await call.signals.changed(Changed(kind=RETRY, id=actor.id))
    deadline = time.monotonic() + _HEARD_WITHIN_SECS
    while await _troubles_of(call, actor) and time.monotonic() < deadline:  # noqa: ASYNC110 - signals tell of no end
        await asyncio.sleep(_LOOK_EVERY_SECS)
    return answer({"items": [quarantine_view(trouble) for trouble in troubles]})


async def _troubles_of(call: Call, actor: Actor) -> list[PoolTrouble]:
    return [trouble for trouble in await call.signals.troubles() if trouble.pool.target_id == actor.id]


def quarantine_view(trouble: PoolTrouble) -> dict[str, Any]:
    """One pool in quarantine; ``retryAfterSecs`` 0: the next request has it tried again."""
    return {
        "poolId": trouble.pool.id,
        "buildId": trouble.generation.build_id,
        "failedStarts": trouble.failed_starts,
        "crashes": trouble.crashes,
        "message": trouble.message,
        "lastRunId": trouble.run_id,
        "retryAfterSecs": math.ceil(trouble.retry_after_secs),
    }


ENDPOINTS = (
    Endpoint(method="GET", path="/greenroom/actors/{actor}/quarantine", handler=list_quarantines, scope="actors:read"),
    Endpoint(method="POST", path="/greenroom/actors/{actor}/retry", handler=retry_actor, scope="actors:write"),
)
