"""
What the kernel says of other processes: who descends from whom, when each was started; signals that hit no stranger.

Standard library only: the shim imports it too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36

_HAS_PROC = Path("/proc/self/stat").exists()
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Process(NamedTuple):
    """One line of the process table. ``started`` tells apart two processes that had the same pid."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    started: str

    @property
    def is_gone(self) -> bool:
        """Whether it has ended, even if nobody has fetched its exit code."""
        return self.state in "ZX"


def stat_fields(pid: int) -> list[str] | None:
    """
    The line of *pid* in the kernel's table from its third field on, the state; None where there is none.

    So what ``man proc`` calls field n is at n - 3. A process that has ended, but that nobody has asked for its exit
    code, still has its line.
    """
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None
    try:
        text = os.read(fd, 4096).decode("ascii", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)
    # The second field is the name in parentheses and may hold anything, so count from its end.
    fields = text[text.rfind(")") + 2 :].split()
    return fields if len(fields) >= 22 else None


def process(pid: int) -> Process | None:
    """What the kernel knows of *pid*, or None where there is no such process or no ``/proc``."""
    fields = stat_fields(pid)
    if fields is None:
        return None
    return Process(pid, fields[0], int(fields[1]), int(fields[2]), int(fields[3]), fields[19])


def pids() -> list[int]:
    """The numbers of all processes; nothing where there is no ``/proc``."""
    try:
        with os.scandir("/proc") as entries:
            return [int(entry.name) for entry in entries if entry.name.isdigit()]
    except OSError:
        return []


def entries() -> list[tuple[int, int]]:
    """
    The same with the number of each one's entry in ``/proc``, which no other process has, were it of the same pid.

    It costs no call of the kernel for each. One that is there may get another number now and then.
    """
    try:
        with os.scandir("/proc") as found:
            return [(int(entry.name), entry.inode()) for entry in found if entry.name.isdigit()]
    except OSError:
        return []


def processes() -> Iterator[Process]:
    """All processes that still live; nothing where there is no ``/proc``."""
    for pid in pids():
        found = process(pid)
        if found is not None and not found.is_gone:
            yield found


def descendants(root: int) -> list[Process]:
    """The living children of *root*, their children, and so on."""
    children: dict[int, list[Process]] = {}
    for found in processes():
        children.setdefault(found.parent, []).append(found)
    family: list[Process] = []
    parents = [root]
    while parents:
        born = children.pop(parents.pop(), [])
        family += born
        parents += [child.pid for child in born]
    return family


def started_at(pid: int) -> str | None:
    """When *pid* was started, in the kernel's own unit: equal only for the same process. None if it has ended."""
    if _HAS_PROC:
        found = process(pid)
        return None if found is None or found.is_gone else found.started
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip() or None


def signal_exactly(target: Process, number: int) -> None:
    """Send a signal to that very process; one that took over its pid meanwhile is left alone."""
    with contextlib.suppress(OSError):
        if not hasattr(os, "pidfd_open"):
            os.kill(target.pid, number)
            return
        fd = os.pidfd_open(target.pid)
        try:
            now = process(target.pid)
            if now is not None and now.started == target.started:
                signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group, if there is any of it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def prctl(option: int, value: Any) -> None:
    """Set a property of this process that only Linux has; nothing elsewhere."""
    if _LIBC is not None:
        _LIBC.prctl(option, value, 0, 0, 0)
