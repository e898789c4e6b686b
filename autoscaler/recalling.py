"""What was learned of a pool before this process led: it stands in the last decision on record."""

from __future__ import annotations

from dataclasses import replace

from autoscaler.policy.memory import Memory
from autoscaler.policy.observing import Observation
from gateway.core.errors import InvalidRequest
from gateway.core.model import Page
from gateway.core.standby import PoolKey
from gateway.state.ports import Records


async def recalled(records: Records, pool: PoolKey) -> Memory:
    """
    A memory that begins anew, with the gaps and habits of *pool*; without, where none are on record.

    All else in it is of moments that are over, on another process's clock.
    """
    found = await records.list_decisions(pool.id, Page(limit=1, desc=True))
    if not found.items:
        return Memory()
    try:
        stored = Observation.from_json(found.items[0].inputs["observation"]).memory
    except (InvalidRequest, LookupError, TypeError, ValueError):
        # Of a version that stored something else.
        return Memory()
    return Memory(gaps=stored.gaps, foresight=replace(stored.foresight, plan=None))
