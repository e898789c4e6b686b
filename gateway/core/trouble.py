"""No I/O: what everybody may know of a pool that the autoscaler leaves alone for a while."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.standby import Generation, PoolKey

RETRY = "retry"
"""The kind of change that asks for an Actor's pools to be tried again; the id is the Actor's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTrouble:
    """
    A pool in quarantine: nothing is started for another ``retry_after_secs`` (0: the next request has it tried).

    ``failed_starts`` are those in a row that did not serve, ``crashes`` the runs that failed soon after they had begun
    to; ``message`` tells of both in words. ``run_id`` is the last run that failed.
    """

    pool: PoolKey
    generation: Generation
    failed_starts: int
    crashes: int
    message: str
    run_id: str
    retry_after_secs: float
