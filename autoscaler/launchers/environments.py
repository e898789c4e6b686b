"""
What a build needs to run as a process: its source unpacked, its interpreter environment, its start command.

Everything lies below ``<data>/process``: ``sources/<sha256>/`` and ``envs/<hash of the requirement files>/``. Nothing
is ever written into the Actor's own folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.core.model import Build


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """How to start one build: in *cwd*, *argv*, with *path_dirs* before the system's PATH, and *extra_env*."""

    cwd: Path
    argv: tuple[str, ...]
    path_dirs: tuple[Path, ...] = ()
    extra_env: Mapping[str, str] = field(default_factory=dict)


class Environments:
    """Makes and remembers what builds need. (Interface; see the brief.)"""

    async def prepare(self, build: Build, progress: Callable[[str], None]) -> Prepared:
        """Make what is missing, telling *progress* line by line; simultaneous calls for the same thing join."""
        raise LookupError

    def ready(self, build: Build) -> Prepared | None:
        """What ``prepare`` would return, if nothing has to be made; no I/O once it was asked before."""
        return None
