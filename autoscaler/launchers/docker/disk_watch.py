"""
Ends runs that write more into their containers than they may, where the storage driver has no quota for that.

On this machine, as root, a layer is measured where it lies, with the container's volumes and the files that it has
deleted but still holds open. Elsewhere the engine is asked, which knows the layers alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autoscaler.launchers.docker.disk_rules import Looked, is_due, too_deep, too_much
from autoscaler.launchers.docker.disk_usage import DEEPEST, TooDeep, deleted_bytes, disk_used_bytes, tree_bytes
from autoscaler.launchers.docker.engine import Engine, EngineError
from autoscaler.launchers.docker.meter import Meter
from autoscaler.launchers.docker.run_container import RunContainer
from gateway.core.errors import LaunchError
from gateway.installation import Installation

_log = logging.getLogger(__name__)

_TICK_SECS = 0.5
_REST_SHARE = 2  # after a round of looks that took 1 s, 2 s of rest
_PAUSE_SECS = 5.0
_MIB = 1024 * 1024


@dataclass(slots=True, eq=False)
class _Watched:
    """One run's container, and what is known of its disk: ``folders``, its layer and volumes, where in reach."""

    run: RunContainer
    limit_bytes: int
    folders: Sequence[str] | None = None
    is_described: bool = False
    last: Looked | None = None
    problem: str | None = None


@dataclass(slots=True, kw_only=True)
class DiskWatch:
    """
    *runs* gives those to watch, *meter* what they use. ``root`` is the engine's folder, where that is of this machine.

    *has_quotas*: the layers themselves have one, so that only volumes are left to be watched.
    """

    engine: Engine
    installation: Installation
    runs: Callable[[], Iterable[RunContainer]]
    meter: Meter
    has_quotas: Callable[[], bool]
    root: str | None
    _watched: dict[str, _Watched] = field(default_factory=dict)

    @staticmethod
    def root_of(engine: Engine, info: Mapping[str, Any]) -> str | None:
        """The engine's folder, as its ``info`` names it, where it is of this machine and ours to read."""
        root = str(info.get("DockerRootDir") or "")
        return root if root and engine.is_local and os.access(root, os.R_OK | os.X_OK) else None

    async def watch_for_ever(self) -> None:
        """Twice a second those are looked at that have to be; an engine out of reach is tried again later."""
        rest_secs, is_told = _TICK_SECS, False
        while True:
            await asyncio.sleep(rest_secs)
            began = time.monotonic()
            try:
                await self.look()
            except LaunchError as error:
                if not is_told:
                    _log.warning("what runs have written can't be measured: %s", error.message)
                rest_secs, is_told = _PAUSE_SECS, True
            else:
                is_told = False
                rest_secs = max(_TICK_SECS, _REST_SHARE * (time.monotonic() - began))

    async def look(self) -> None:
        """One round. Raises LaunchError."""
        self._take_note()
        if not self._watched:
            return
        used_bytes = await asyncio.to_thread(disk_used_bytes, self.root) if self.root is not None else None
        now = time.monotonic()
        due = [
            one
            for one in self._watched.values()
            if is_due(
                one.last,
                now,
                limit_bytes=one.limit_bytes,
                disk_used_bytes=used_bytes,
                cpu_secs=self.meter.cpu_secs(one.run.container_id),
            )
        ]
        for one in due:
            if not one.is_described:
                await self._describe(one)
        here = [one for one in due if one.folders is not None]
        await asyncio.to_thread(self._measure, here, used_bytes)
        # What could not be read, although it should be in reach, is asked for like the rest.
        await self._ask([one for one in due if one.folders is None], used_bytes)
        for one in due:
            self._judge(one)

    def _take_note(self) -> None:
        alive = {run.container_id: run for run in self.runs() if not run.ended.is_set()}
        for container_id in self._watched.keys() - alive.keys():
            del self._watched[container_id]
        for container_id, run in alive.items():
            if container_id not in self._watched:
                self._watched[container_id] = _Watched(run, run.disk_mbytes * _MIB)

    async def _describe(self, one: _Watched) -> None:
        try:
            found = await self.engine.ask(lambda client: client.inspect_container(one.run.container_id))
        except EngineError:  # it has gone; or the engine can't describe it, and is asked how large it is instead
            return
        one.is_described = True
        if self.root is not None:
            one.folders = _folders_of(found, self.has_quotas())

    def _measure(self, watched: Iterable[_Watched], used_bytes: int | None) -> None:
        """On a thread."""
        for one in watched:
            assert one.folders is not None
            began, cpu_secs = time.monotonic(), self.meter.cpu_secs(one.run.container_id)
            enough, written = one.limit_bytes, 0
            try:
                for folder in one.folders:
                    written += tree_bytes(folder, enough - written)
                if written <= enough:
                    written += deleted_bytes(self.meter.processes(one.run.container_id), one.folders)
            except TooDeep:
                written = enough + 1
                one.problem = too_deep(DEEPEST)
            except OSError:
                one.folders = None
                continue
            self._note(one, began, time.monotonic() - began, written, used_bytes, cpu_secs)

    async def _ask(self, watched: Sequence[_Watched], used_bytes: int | None) -> None:
        if not watched or self.has_quotas():
            return
        began = time.monotonic()
        cpu_secs = {one: self.meter.cpu_secs(one.run.container_id) for one in watched}
        filters = {"label": [self.installation.label], "id": [one.run.container_id for one in watched]}
        found = await self.engine.ask(lambda client: client.containers(size=True, filters=filters))
        sizes = {one["Id"]: one.get("SizeRw") or 0 for one in found}
        cost_secs = (time.monotonic() - began) / len(watched)
        for one in watched:
            written = sizes.get(one.run.container_id, 0)
            self._note(one, began, cost_secs, written, used_bytes, cpu_secs[one])

    @staticmethod
    def _note(
        one: _Watched, began: float, cost_secs: float, written: int, used_bytes: int | None, cpu_secs: float | None
    ) -> None:
        one.last = Looked(
            at=began, cost_secs=cost_secs, written_bytes=written, disk_used_bytes=used_bytes, cpu_secs=cpu_secs
        )

    def _judge(self, one: _Watched) -> None:
        if one.last is None or one.last.written_bytes <= one.limit_bytes:
            return
        one.run.end_because(one.problem or too_much(one.run.disk_mbytes))


def _folders_of(found: Mapping[str, Any], has_quotas: bool) -> Sequence[str] | None:
    """Where a container writes, as the engine says; None where that is not in our reach."""
    volumes = [str(mount["Source"]) for mount in found.get("Mounts") or () if mount.get("Type") == "volume"]
    layer = ((found.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
    if has_quotas:
        folders = volumes
    elif layer is None:
        return None
    else:
        folders = [str(layer), *volumes]
    return folders if all(os.access(folder, os.R_OK | os.X_OK) for folder in folders) else None
