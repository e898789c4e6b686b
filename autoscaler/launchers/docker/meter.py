"""What runs use: from the kernel where that is this machine's, else from the engine, container by container."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from autoscaler.launchers.docker.cgroups import Cgroups
from autoscaler.launchers.docker.engine import Engine
from gateway.core.errors import LaunchError
from gateway.core.load import Usage

_AT_ONCE = 8
_PATIENCE_SECS = 5.0


class Measurable(Protocol):
    """A run in a container; ``cpus_after_boot`` is None once it has booted, ``container_id`` before it has one."""

    run_id: str
    ended: asyncio.Event
    cpus_after_boot: float | None

    @property
    def container_id(self) -> str | None: ...


class Meter:
    """
    Measures the containers of one engine. Of 100 containers the kernel tells in some ten milliseconds, in a thread.

    *cgroups*: None where the engine is not of this machine, or its groups are out of reach.
    """

    def __init__(self, engine: Engine, cgroups: Cgroups | None) -> None:
        self._engine = engine
        self._cgroups = cgroups
        self._unreachable: set[str] = set()
        self._cpu_secs: dict[str, float] = {}

    @classmethod
    def of(cls, engine: Engine) -> Meter:
        """One that uses what is in reach."""
        return cls(engine, Cgroups.of_this_machine() if engine.is_local else None)

    async def usage(self, runs: Iterable[Measurable]) -> dict[str, Usage]:
        """The usage of each run that lives, by its id; one call at a time. What can't be told is left out."""
        alive = {run.container_id: run for run in runs if run.container_id is not None and not run.ended.is_set()}
        found = await asyncio.to_thread(self._cgroups.read, [*alive]) if self._cgroups is not None else {}
        found |= await self._ask([container_id for container_id in alive if container_id not in found])
        self._unreachable &= alive.keys()
        self._cpu_secs = {container_id: usage.cpu_secs for container_id, usage in found.items()}
        return {
            run.run_id: replace(usage, is_booting=True) if run.cpus_after_boot is not None else usage
            for container_id, usage in found.items()
            if not (run := alive[container_id]).ended.is_set()
        }

    def cpu_secs(self, container_id: str) -> float | None:
        """What a container had used at the last look; None where that isn't known."""
        return self._cpu_secs.get(container_id)

    def processes(self, container_id: str) -> list[int]:
        """Its processes, where they are of this machine. Blocks for a moment."""
        return self._cgroups.processes(container_id) if self._cgroups is not None else []

    async def _ask(self, container_ids: list[str]) -> dict[str, Usage]:
        """By the engine, which tells where a group of an unusual name is, or what is in it."""
        found: dict[str, Usage] = {}
        gate = asyncio.Semaphore(_AT_ONCE)

        async def ask(container_id: str) -> None:
            async with gate:
                with contextlib.suppress(LaunchError):
                    usage = await self._usage(container_id)
                    if usage is not None:
                        found[container_id] = usage

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECS), asyncio.TaskGroup() as group:
                for container_id in container_ids:
                    group.create_task(ask(container_id))
        return found

    async def _usage(self, container_id: str) -> Usage | None:
        if self._cgroups is not None and container_id not in self._unreachable:
            described = await self._engine.ask(lambda client: client.inspect_container(container_id))
            pid = int(described["State"]["Pid"])
            if not pid:
                return None
            usage = await asyncio.to_thread(self._cgroups.learn, container_id, pid)
            if usage is not None:
                return usage
            self._unreachable.add(container_id)
        stats = await self._engine.ask(lambda client: client.stats(container_id, stream=False, one_shot=True))
        return usage_of_stats(container_id, stats)


def usage_of_stats(container_id: str, stats: Mapping[str, Any]) -> Usage | None:
    """What the engine's own statistics say; None of a container that has ended."""
    memory = stats.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    cpu = stats.get("cpu_stats") or {}
    details = memory.get("stats") or {}
    inactive = details.get("total_inactive_file", details.get("inactive_file", 0))
    networks = stats.get("networks")
    return Usage(
        life=container_id,
        cpu_secs=cpu["cpu_usage"]["total_usage"] / 1e9,
        memory_bytes=max(0, memory["usage"] - inactive),
        processes=int((stats.get("pids_stats") or {}).get("current") or 0),
        throttled_periods=(cpu.get("throttling_data") or {}).get("throttled_periods"),
        net_rx_bytes=None if networks is None else sum(one["rx_bytes"] for one in networks.values()),
        net_tx_bytes=None if networks is None else sum(one["tx_bytes"] for one in networks.values()),
    )
