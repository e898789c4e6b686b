"""A launcher in the hands of one who may lose the lead: what would change a run is done only while he has it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autoscaler.launchers.base import Exited, FoundRun, Launcher, LaunchSpec, Placement
from gateway.core.load import Usage
from gateway.core.model import Build


@dataclass(slots=True)
class LedLauncher:
    """
    *launcher*, each act of which waits for *confirm*: that returns while its caller leads, and waits while he does not.

    Who has lost the lead is cancelled there. Looks, and what touches no run, pass at once.
    """

    launcher: Launcher
    confirm: Callable[[], Awaitable[None]]
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.launcher.name

    @property
    def first_probe_secs(self) -> float:
        """As the launcher's."""
        return self.launcher.first_probe_secs

    def cpu_share(self, memory_mbytes: int) -> float:
        """As the launcher's."""
        return self.launcher.cpu_share(memory_mbytes)

    async def prepare(self, build: Build, progress: Callable[[str], None]) -> None:
        """As the launcher's: what several make of one build is the same."""
        await self.launcher.prepare(build, progress)

    def is_prepared(self, build: Build) -> bool:
        """As the launcher's."""
        return self.launcher.is_prepared(build)

    async def place(self, run_id: str, wanted_port: int | None) -> Placement:
        """As the launcher's."""
        return await self.launcher.place(run_id, wanted_port)

    async def start(
        self, spec: LaunchSpec, may_begin: Callable[[], Awaitable[None]] | None = None
    ) -> Mapping[str, Any]:
        """The lead is confirmed once more when all is ready, before the program begins."""

        async def may_begin_led() -> None:
            if may_begin is not None:
                await may_begin()
            await self.confirm()

        await self.confirm()
        return await self.launcher.start(spec, may_begin_led)

    async def has_booted(self, run_id: str) -> None:
        """While it leads."""
        await self.confirm()
        await self.launcher.has_booted(run_id)

    async def stop(self, run_id: str, *, grace_secs: float) -> None:
        """While it leads."""
        await self.confirm()
        await self.launcher.stop(run_id, grace_secs=grace_secs)

    async def freeze(self, run_id: str) -> None:
        """While it leads."""
        await self.confirm()
        await self.launcher.freeze(run_id)

    async def resume(self, run_id: str) -> None:
        """While it leads."""
        await self.confirm()
        await self.launcher.resume(run_id)

    async def wait(self, run_id: str) -> Exited:
        """As the launcher's; what follows from the end is for one who leads."""
        exited = await self.launcher.wait(run_id)
        await self.confirm()
        return exited

    async def usage(self) -> Mapping[str, Usage]:
        """As the launcher's."""
        return await self.launcher.usage()

    async def list(self) -> Sequence[FoundRun]:
        """While it leads, since it waits for starts of others and clears away what they left."""
        await self.confirm()
        return await self.launcher.list()

    async def adopt(self, run_id: str, placement: Mapping[str, Any]) -> bool:
        """While it leads, since it ends what a lost run left."""
        await self.confirm()
        return await self.launcher.adopt(run_id, placement)

    async def forget(self, run_id: str) -> None:
        """While it leads."""
        await self.confirm()
        await self.launcher.forget(run_id)

    async def close(self) -> None:
        """Whoever opened the launcher closes it."""
