"""
What the process launcher keeps on disk of each run, ``<root>/runs/<run id>/``, for its user alone (mode 0700).

``starting.json``  which shim is just starting it; a moment later it has gone
``shim.json``  which processes it is (written by the shim once they exist; the same as ``Run.placement``)
``exit.json``  its exit code, until it is forgotten
``home/``, ``tmp/``  the Actor's HOME and TMPDIR
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autoscaler.launchers import shim
from autoscaler.launchers.process_table import Process, processes, signal_exactly
from gateway.core.errors import LaunchError

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ASIDE = ".aside-"
_SWEEP_SECS = 5.0


class RunFolders:
    """The folders of all runs below one root."""

    def __init__(self, root: Path) -> None:
        self._runs = root / "runs"

    def open(self) -> None:
        """Make what is missing. Raises LaunchError where the place can't be written to."""
        try:
            self._runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LaunchError(f"The folder for runs can't be made: {error}.") from error

    def of(self, run_id: str) -> Path:
        """A run's folder, which may not exist."""
        if not _RUN_ID.fullmatch(run_id):
            raise LaunchError(f"{run_id!r} is not a run id.")
        return self._runs / run_id

    def all(self) -> list[str]:
        """The ids of the runs that have a folder."""
        try:
            return sorted(folder.name for folder in self._runs.iterdir() if _RUN_ID.fullmatch(folder.name))
        except FileNotFoundError:
            return []

    def make(self, run_id: str) -> Path:
        """A fresh folder for a run that starts. Raises LaunchError."""
        folder = self.of(run_id)
        try:
            if folder.exists():
                remove_tree(folder)
            folder.mkdir(mode=0o700)
            for name in ("home", "tmp"):
                (folder / name).mkdir(mode=0o700)
        except OSError as error:
            raise LaunchError(f"The run's folder can't be made: {error}.") from error
        return folder

    def remove_unless_starting(self, run_id: str, lives: Callable[[Mapping[str, Any]], bool]) -> None:
        """Delete a run's folder, unless a shim that *lives* has begun to start the run in this very moment."""
        folder, aside = self.of(run_id), self._runs / f"{_ASIDE}{run_id}"
        with contextlib.suppress(FileNotFoundError):
            folder.rename(aside)  # from now on a shim that comes to it finds nothing, and gives up
            if any(lives(found) for found in (read_mark(aside), read_record(aside)) if found):
                aside.rename(folder)
            else:
                remove_tree(aside)

    def remove_set_aside(self) -> None:
        """Delete what a process that was killed amid ``remove_unless_starting`` has left."""
        for folder in self._runs.glob(f"{_ASIDE}*"):
            remove_tree(folder)


def read_mark(folder: Path) -> dict[str, Any] | None:
    """Which shim is just starting the run, or None; empty where that is being written."""
    mark = folder / shim.MARK_NAME
    return (_read_json(mark) or {}) if mark.exists() or mark.with_suffix(".new").exists() else None


def read_record(folder: Path) -> dict[str, Any] | None:
    """The shim's record of a run, or None."""
    return _read_json(folder / shim.RECORD_NAME)


def read_exit_code(folder: Path) -> int | None:
    """The exit code that the shim left, or None."""
    end = _read_json(folder / shim.EXIT_NAME)
    return end.get("exit_code") if end is not None else None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def boot_id() -> str:
    """Differs after each boot, so that pids and start times of another one are not believed; empty where unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def remove_tree(folder: Path) -> None:
    """Delete a folder with all that an Actor may have left there, also folders that it made read-only."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for path, _, _ in os.walk(folder):
            Path(path).chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)


def end_leftovers(folder: Path, record: Mapping[str, Any]) -> None:
    """
    Kill what is left of a run whose shim was killed, and return when it has gone (bounded).

    Without its shim nobody is the parent of all of it: it is known by the session that the shim made, and by the HOME
    in its environment, which only this run has. Reads the whole process table, so it is for this rare case only.
    """
    mark = b"HOME=" + os.fsencode(folder / "home")
    until = time.monotonic() + _SWEEP_SECS
    while left := [found for found in processes() if _belongs(found, record, mark)]:
        for found in left:
            signal_exactly(found, signal.SIGKILL)
        if time.monotonic() > until:
            return
        time.sleep(0.01)


def _belongs(found: Process, record: Mapping[str, Any], mark: bytes) -> bool:
    if found.pid == os.getpid():
        return False
    if found.group == record.get("actor_pid") and found.session == record.get("shim_pid"):
        return True
    try:
        environment = Path(f"/proc/{found.pid}/environ").read_bytes()
    except OSError:
        return False
    return mark in environment.split(b"\0")
