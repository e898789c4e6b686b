"""``waitForFinish``: holds a call until a run or build has ended, or its time is up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Protocol, TypeVar

from gateway.core.errors import RecordNotFound
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Run
from gateway.state.ports import Changed, Records, Signals, StateUnavailable

# Signals may be lost, so records are looked at again at least so often.
LOOK_AGAIN_SECS = 5.0
_UNTOLD_SECS = 0.5


class _Job(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def status(self) -> RunStatus: ...


J = TypeVar("J", bound=_Job)


async def awaited_run(records: Records, signals: Signals, run_id: str, secs: float) -> Run:
    """The run as soon as it has ended, or as it is after *secs*. Raises RecordNotFound, also where it is deleted."""

    async def read() -> Run:
        run = await records.run(run_id)
        if run is None:
            raise RecordNotFound("Actor run")
        return run

    return await until_ended(signals, read, "run", run_id, secs)


async def until_ended(signals: Signals, read: Callable[[], Awaitable[J]], kind: str, job_id: str, secs: float) -> J:
    """
    What *read* gives as soon as its status is terminal, or after *secs*; at once when it is terminal or *secs* is 0.

    It listens before it reads, so no change falls between the two; while nobody can tell, it looks again and again.
    Only *read* fails: whoever has just started a run must not take a lost signal for a start that failed.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + secs
    if secs <= 0:
        return await read()
    while True:
        async with AsyncExitStack() as stack:
            changes: AsyncIterator[Changed] | None = None
            with suppress(StateUnavailable):
                changes = await stack.enter_async_context(signals.watch_changes())
            job = await read()
            left = deadline - loop.time()
            if job.status.is_terminal or left <= 0:
                return job
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK_AGAIN_SECS)):
                    await _told(changes, Changed(kind=kind, id=job_id))


async def _told(changes: AsyncIterator[Changed] | None, of: Changed) -> None:
    """Returns when told *of* the change, and soon where nobody tells."""
    with suppress(StateUnavailable):
        if changes is not None:
            async for change in changes:
                if change == of:
                    return
    await asyncio.sleep(_UNTOLD_SECS)
