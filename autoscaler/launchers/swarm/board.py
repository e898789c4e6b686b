"""
What the manager of the Swarm says, read again and again in two calls for all runs together.

Swarm has no events of tasks. So its tasks are read each second, ten times a second while anything is starting or
stopping, and at once when an event tells of a node (drained, lost) or of a service.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import docker

from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.docker.watch import Watch
from autoscaler.launchers.swarm.tasks import Node, Task, first_of_each_service, node_of, task_of
from gateway.core.errors import LaunchError
from gateway.installation import RUN_LABEL, Installation

_log = logging.getLogger(__name__)

_CALM_SECS = 1.0
_HURRY_SECS = 0.1
_EVENTS: Mapping[str, list[str]] = {"type": ["node", "service"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Nodes by id and tasks by service, as they were some moment after *began* (monotonic)."""

    began: float
    nodes: Mapping[str, Node]
    tasks: Mapping[str, Task]

    def node_of(self, task: Task | None) -> Node | None:
        """The node that a task has been placed on."""
        return self.nodes.get(task.node_id) if task is not None and task.node_id is not None else None


class Board:
    """Reads, and calls *on_snapshot* with each reading. ``run`` is its life."""

    def __init__(self, engine: Engine, installation: Installation, on_snapshot: Callable[[Snapshot], None]) -> None:
        self._engine = engine
        self._installation = installation
        self._on_snapshot = on_snapshot
        self._poked = asyncio.Event()
        self._hurried = 0
        self._is_silent = False
        self._watch: Watch | None = None
        self.nodes: Mapping[str, Node] = {}

    @contextlib.contextmanager
    def hurry(self) -> Iterator[None]:
        """Something changes: read often."""
        self._hurried += 1
        self._poked.set()
        try:
            yield
        finally:
            self._hurried -= 1

    async def run(self) -> None:
        """For ever; a manager that does not answer is asked again, and what was known meanwhile stays as it was."""
        self._watch = Watch(
            self._engine,
            self._installation,
            on_event=lambda event: self._poked.set(),
            on_connected=self._poked.set,
            filters=_EVENTS,
        )
        self._watch.start()
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_HURRY_SECS if self._hurried else _CALM_SECS):
                        await self._poked.wait()
                self._poked.clear()
                await self._read_once()
        finally:
            self._watch.close()

    async def _read_once(self) -> None:
        try:
            snapshot = await self.read()
        except LaunchError as error:
            if not self._is_silent:
                _log.warning("the Swarm's manager is out of reach, trying again: %s", error.message)
            self._is_silent = True
            return
        self._is_silent = False
        self._on_snapshot(snapshot)

    async def read(self) -> Snapshot:
        """All that concerns this Greenroom, now. Raises LaunchError."""
        began = time.monotonic()
        filters = {"label": [self._installation.label]}

        def ask(client: docker.APIClient) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
            # In this order: where the loss or drain of a node is why a task is unwanted, the node says so already.
            tasks: list[dict[str, Any]] = client.tasks(filters=filters)  # type: ignore[no-untyped-call]
            return tasks, client.nodes()

        tasks, nodes = await self._engine.ask(ask)
        self.nodes = {node.id: node for node in map(node_of, nodes)}
        ours = [task_of(task) for task in tasks if RUN_LABEL in _labels(task)]
        return Snapshot(began=began, nodes=self.nodes, tasks=first_of_each_service(ours))


def _labels(task: Mapping[str, Any]) -> Mapping[str, str]:
    return (task.get("Spec", {}).get("ContainerSpec") or {}).get("Labels") or {}
