"""
What the runs of this machine use, all of them in one pass over the process table.

A run's processes are those below its shim: whatever one of them did to detach itself, the shim is who inherits it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from autoscaler.launchers.process_table import pids, stat_fields
from gateway.core.load import Usage

_TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class _Line(NamedTuple):
    """What counts of one process: its own ticks, and those of the children that it has asked for their exit code."""

    pid: int
    own_ticks: int
    childrens_ticks: int
    started: str


def measure(shims: Mapping[str, tuple[int, str]]) -> dict[str, Usage]:
    """
    The usage of each run, by the pid and the start of its shim; nothing of one whose shim has gone.

    A process that ends amid the look may be missed in it, or counted twice. Blocks for as long as the kernel takes:
    about 10 µs for each process of the machine, and as much again for each of a run.
    """
    lines: dict[int, _Line] = {}
    children: dict[int, list[_Line]] = {}
    for pid in pids() if shims else ():
        fields = stat_fields(pid)
        if fields is not None:
            line = _Line(pid, int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14]), fields[19])
            lines[pid] = line
            children.setdefault(int(fields[1]), []).append(line)
    return {
        run_id: _usage(lines[pid], children)
        for run_id, (pid, started) in shims.items()
        if pid in lines and lines[pid].started == started
    }


def _usage(shim: _Line, children: Mapping[int, list[_Line]]) -> Usage:
    # What the shim itself does is Greenroom's.
    ticks, memory_bytes, processes = shim.childrens_ticks, 0, 0
    parents = [shim.pid]
    while parents:
        for child in children.get(parents.pop(), ()):
            ticks += child.own_ticks + child.childrens_ticks
            memory_bytes += _memory_bytes(child.pid)
            processes += 1
            parents.append(child.pid)
    return Usage(
        life=f"{shim.pid} {shim.started}",
        cpu_secs=ticks / _TICKS_PER_SEC,
        memory_bytes=memory_bytes,
        processes=processes,
    )


def _memory_bytes(pid: int) -> int:
    """What a process has in memory without what it shares with files or others; 0 for one that has ended."""
    try:
        fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY)
    except OSError:
        return 0
    try:
        fields = os.read(fd, 256).split()
    except OSError:
        return 0
    finally:
        os.close(fd)
    return max(0, int(fields[1]) - int(fields[2])) * _PAGE_BYTES if len(fields) > 2 else 0
