"""
What the runs of this machine use, all of them in one pass over the process table.

A run's processes are those below its shim: whatever one of them did to detach itself, the shim is who inherits it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from autoscaler.launchers.process_table import entries, stat_fields
from gateway.core.load import Usage

_TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class _Line(NamedTuple):
    """What counts of one process: its own ticks, and those of the children that it has asked for their exit code."""

    pid: int
    own_ticks: int
    childrens_ticks: int
    started: str


class Meter:
    """
    Measures again and again, and looks only once at a process that is none of a run's.

    For such a one never becomes one: whoever loses its parent goes to the next of its forefathers that takes it, and no
    shim is among them. What is remembered of it is the number of its entry in ``/proc`` besides its pid: whoever has
    the same pid later has another entry.
    """

    def __init__(self) -> None:
        self._shims: frozenset[tuple[int, str]] = frozenset()
        self._strangers: set[tuple[int, int]] = set()

    def measure(self, shims: Mapping[str, tuple[int, str]]) -> dict[str, Usage]:
        """
        The usage of each run, by the pid and the start of its shim; nothing of one whose shim has gone.

        A process that ends amid the look may be missed in it, or counted twice. Blocks for as long as the kernel takes:
        about 20 µs for each process of a run, and 1 µs for each other one that was there before.
        """
        known = frozenset(shims.values())
        if known - self._shims:  # what seemed to be a stranger may have been a shim, or below it
            self._strangers.clear()
        self._shims = known
        present = entries() if known else []
        self._strangers.intersection_update(present)
        lines: dict[int, _Line] = {}
        children: dict[int, list[_Line]] = {}
        looked_at = [entry for entry in present if entry not in self._strangers]
        for pid, _ in looked_at:
            fields = stat_fields(pid)
            if fields is not None:
                line = _Line(pid, int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14]), fields[19])
                lines[pid] = line
                children.setdefault(int(fields[1]), []).append(line)
        usages: dict[str, Usage] = {}
        own: set[int] = set()
        for run_id, (pid, started) in shims.items():
            if pid in lines and lines[pid].started == started:
                family = _family(lines[pid], children)
                usages[run_id] = _usage(lines[pid], family)
                own.add(pid)
                own.update(one.pid for one in family)
        self._remember(looked_at, children, own)
        return usages

    def _remember(
        self, looked_at: Sequence[tuple[int, int]], children: Mapping[int, list[_Line]], own: Collection[int]
    ) -> None:
        """
        Whoever descends from the first process or from a stranger without a shim between.

        Not whose parent has ended amid the look: it may have been one of a run's.
        """
        found: set[int] = set()
        parents = [0, *(pid for pid, _ in self._strangers)]
        while parents:
            born = [child.pid for child in children.get(parents.pop(), ()) if child.pid not in own]
            found.update(born)
            parents += born
        self._strangers.update(entry for entry in looked_at if entry[0] in found)


def _family(shim: _Line, children: Mapping[int, list[_Line]]) -> list[_Line]:
    """All that descend from *shim*."""
    family: list[_Line] = []
    parents = [shim.pid]
    while parents:
        born = children.get(parents.pop(), ())
        family += born
        parents += [child.pid for child in born]
    return family


def _usage(shim: _Line, family: Sequence[_Line]) -> Usage:
    # What the shim itself does is Greenroom's.
    return Usage(
        life=f"{shim.pid} {shim.started}",
        cpu_secs=(shim.childrens_ticks + sum(one.own_ticks + one.childrens_ticks for one in family)) / _TICKS_PER_SEC,
        memory_bytes=sum(_memory_bytes(one.pid) for one in family),
        processes=len(family),
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
