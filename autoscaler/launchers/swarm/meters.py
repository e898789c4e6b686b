"""What runs use, node by node: the manager's own from the kernel or its engine, the others' from theirs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.docker.meter import Meter
from autoscaler.launchers.swarm.run_service import RunService
from gateway.core.load import Usage

_SECS_PER_CALL = 0.1  # a call takes some 5 ms of our processor, so measuring 40 runs takes a twentieth of a core
_LONGEST_SECS = 4.0  # loads are good for five


class NodeMeters:
    """
    One meter for each engine that holds runs; that of *local* is the manager's own.

    Far engines are asked container by container, so the more runs they hold the less often they are asked.
    """

    def __init__(self, local: Engine) -> None:
        self._local = local
        self._meters: dict[Engine, Meter] = {}
        self._next_at: dict[Engine, float] = {}

    async def usage(self, runs: Iterable[RunService]) -> dict[str, Usage]:
        """The usage of each run that was measured now, by its id; one call at a time."""
        by_engine: dict[Engine, list[RunService]] = {}
        for run in runs:
            if (way := run.way()) is not None:
                by_engine.setdefault(way[0], []).append(run)
        self._meters = {engine: self._meters.get(engine) or Meter.of(engine) for engine in by_engine}
        now = time.monotonic()
        far = sum(len(held) for engine, held in by_engine.items() if engine is not self._local)
        due = [engine for engine in by_engine if self._next_at.get(engine, 0.0) <= now]
        self._next_at = {engine: self._next_at.get(engine, 0.0) for engine in by_engine}
        async with asyncio.TaskGroup() as group:
            measuring = [group.create_task(self._meters[engine].usage(by_engine[engine])) for engine in due]
        for engine in due:
            if engine is not self._local:
                self._next_at[engine] = now + min(_LONGEST_SECS, far * _SECS_PER_CALL)
        return {run_id: usage for task in measuring for run_id, usage in task.result().items()}
