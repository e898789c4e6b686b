"""Work that goes on behind a launcher's back: owned, bounded by its life, and unable to end anything but itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from gateway.core.errors import LaunchError

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Chores:
    """An async context manager: leaving it cancels what is under way, and what comes later is not begun."""

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None
        self._workers: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._group is None:
            return
        group, self._group = self._group, None
        for worker in self._workers:
            worker.cancel()
        # Not with the caller's error: the group would wrap it.
        await group.__aexit__(None, None, None)

    def do(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Begin *work*; None where that is not to be any more. A bug in it is logged, and ends nothing else."""
        if self._group is None:
            work.close()
            return None
        worker = self._group.create_task(_guarded(work))
        self._workers.add(worker)

        def done(worker: asyncio.Task[None]) -> None:
            self._workers.discard(worker)
            work.close()  # it may have been cancelled before it had begun

        worker.add_done_callback(done)
        return worker

    def begin(self, work: Coroutine[Any, Any, _T]) -> asyncio.Future[_T]:
        """Begin *work*, which goes on when whoever awaits the result is cancelled. Its LaunchError is the result's."""
        result: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        if self._group is None:
            work.close()
            raise LaunchError("Greenroom is stopping and starts no runs.")

        async def carry_out() -> None:
            try:
                result.set_result(await work)
            except LaunchError as error:
                result.set_exception(error)
                result.exception()  # it counts as seen, should everybody have left
            finally:
                if not result.done():
                    result.cancel()

        self.do(carry_out())
        return result


async def _guarded(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        _log.exception("a launcher failed at something")
