"""
The launcher port: how runs become processes or containers. Only the supervisor talks to launchers.

What may be called when::

    prepare(build)*  →  place(run)  →  start(spec)  →  [freeze ⇄ resume]*  →  stop  →  wait  →  forget(run)

- ``wait`` may be called at any time after ``start`` (or ``adopt``), by one caller, and returns the one true end.
- ``forget`` comes after the end was recorded; only then may the launcher drop the exit code and the run's folder.
- After a restart of Greenroom, ``list`` tells what there is; ``adopt`` takes a run up again, alive or ended meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gateway.core.load import Usage
from gateway.core.model import Address, Build


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a run will listen: *address* as the gateway reaches it, *port* as the Actor must open it."""

    address: Address
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """All that a launcher needs to start one run. ``env`` is the run's environment contract, without PATH and HOME."""

    run_id: str
    build: Build
    env: Mapping[str, str]
    placement: Placement
    memory_mbytes: int
    log_path: Path
    max_log_chars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The end of a run: its real exit code (128 + n for signal n), and a *reason* where the code alone misleads."""

    exit_code: int
    reason: str | None = None
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRun:
    """A run that the launcher has something of: a living process, or an exit code that nobody has fetched."""

    run_id: str
    is_alive: bool
    placement: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """A living run that must leave its machine soon, and why; who does not act on it loses the run."""

    run_id: str
    reason: str


@runtime_checkable
class ClearsMachines(Protocol):
    """What a launcher with several machines does besides: it tells which runs must leave one that is to be cleared."""

    def leaving(self) -> AsyncIterator[Leaving]:
        """Each such run once, as it comes to pass; never ends."""
        ...


@runtime_checkable
class MakesAhead(Protocol):
    """What a launcher does besides whose preparation of one run takes time and, until it is started, no memory."""

    async def make_ahead(self, spec: LaunchSpec) -> None:
        """
        Make all that can be made before ``start``, which takes it when it is called for the same run.

        ``forget`` removes it unused; so does ``list`` of a later Greenroom. Variables that differ in the spec of
        ``start`` are those of this one.
        """
        ...


class Launcher(Protocol):
    """One platform that runs Actors. Every method raises LaunchError, with the reason in words, when it can't."""

    name: str

    @property
    def first_probe_secs(self) -> float:
        """How soon, and at first how often, it pays to ask after a start whether it serves."""
        ...

    def cpu_share(self, memory_mbytes: int) -> float:
        """How many cores a run of so much memory has, once it has booted."""
        ...

    async def prepare(self, build: Build, progress: Callable[[str], None]) -> None:
        """
        Make what *build* needs to start (environment, image) unless it is there; may take minutes.

        Calls *progress* with lines as they come. Simultaneous calls for one build share the work, which goes on when
        the caller who began it is cancelled.
        """
        ...

    def is_prepared(self, build: Build) -> bool:
        """Whether ``prepare`` would have nothing to do; cheap, since a wake asks it."""
        ...

    async def place(self, run_id: str, wanted_port: int | None) -> Placement:
        """Reserve an address; *wanted_port* is set where the Actor insists on its own."""
        ...

    async def start(
        self, spec: LaunchSpec, may_begin: Callable[[], Awaitable[None]] | None = None
    ) -> Mapping[str, Any]:
        """
        Start the run; returns, once its process exists, what ``adopt`` will need (stored in ``Run.placement``).

        *may_begin* is called once, when all else is under way, and the Actor's own program begins only when it has
        returned: what it does (writing the record) costs the wake no time of its own. When it raises, its exception
        is raised here and nothing is left of the run.
        """
        ...

    async def has_booted(self, run_id: str) -> None:
        """The run's server answers: whatever it was given for its start alone ends now."""
        ...

    async def stop(self, run_id: str, *, grace_secs: float) -> None:
        """SIGTERM to all of the run, SIGKILL after *grace_secs* (0: at once). Returns when it was asked for."""
        ...

    async def freeze(self, run_id: str) -> None:
        """Every process of the run stands still, within a moment of returning; its memory is kept."""
        ...

    async def resume(self, run_id: str) -> None:
        """They go on, also where a freeze is still under way; a run that is not frozen is fine."""
        ...

    async def wait(self, run_id: str) -> Exited:
        """Until the run has ended and nothing of it is left."""
        ...

    async def usage(self) -> Mapping[str, Usage]:
        """
        What each living run uses, by run id; its whole process tree, whatever of it has detached itself or ended.

        Runs of which that can't be told are left out; on some systems that is every one.
        """
        ...

    async def list(self) -> Sequence[FoundRun]: ...

    async def adopt(self, run_id: str, placement: Mapping[str, Any]) -> bool:
        """
        Take up a run of an earlier Greenroom, by run id and start time, so that ``wait``, ``stop`` and the rest work.

        True where something of it is left: it lives, or its exit code is kept. False where nothing is known of it.
        """
        ...

    async def forget(self, run_id: str) -> None:
        """Drop the exit code, the address and the folder of a run whose end is recorded."""
        ...

    async def close(self) -> None:
        """Let go of what this process holds; runs live on."""
        ...
