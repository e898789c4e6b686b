"""
What containers use, straight from the kernel's files: a few hundred microseconds for each, and no call of the engine.

Every file may vanish between two reads, since containers end when they like; what can't be read is not told.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from autoscaler.launchers.docker.cgroup_text import (
    Files,
    Mounts,
    files_of,
    groups_of,
    memory_in_use,
    mounts_of,
    network_bytes,
    usual_files,
    value_of,
)
from gateway.core.load import Usage

_MOST_BYTES = 65536
_SURELY_WHOLE_BYTES = 2048
_PROCESSES_ASKED = 3


class Cgroups:
    """
    The control groups below *mounts*, those of containers by their ids. Its methods block.

    A container's group is found by the names that the engine usually gives it, or by ``learn``. ``read`` and ``learn``
    are for one caller at a time.
    """

    def __init__(self, mounts: Mounts) -> None:
        self._mounts = mounts
        self._files: dict[str, Files] = {}

    @classmethod
    def of_this_machine(cls) -> Self:
        """Those that are mounted here; where there are none, nothing is found."""
        try:
            return cls(mounts_of(Path("/proc/self/mountinfo").read_text(errors="replace")))
        except OSError:
            return cls(Mounts({}, None))

    def read(self, container_ids: Iterable[str]) -> dict[str, Usage]:
        """The usage of each container, without those whose group can't be found or has just gone."""
        usages: dict[str, Usage] = {}
        files: dict[str, Files] = {}
        for container_id in container_ids:
            found = self._files.get(container_id) or self._find(container_id)
            usage = _usage(container_id, found) if found is not None else None
            if found is not None and usage is not None:
                usages[container_id], files[container_id] = usage, found
        self._files = files  # those of ended containers are forgotten
        return usages

    def processes(self, container_id: str) -> list[int]:
        """The processes of a container; none where its group can't be found."""
        files = self._files.get(container_id) or self._find(container_id)
        try:
            return [int(pid) for pid in _read(files.processes).split()] if files is not None else []
        except (OSError, ValueError):
            return []

    def learn(self, container_id: str, pid: int) -> Usage | None:
        """Find a container's group by its process *pid*, whatever its name is; the usage, None where out of reach."""
        try:
            groups = groups_of(_read(f"/proc/{pid}/cgroup").decode(errors="replace"))
        except OSError:
            return None
        if not any(container_id in group for group in groups.values()):
            return None  # the pid is another one's by now, or is not of this machine
        found = files_of(self._mounts, groups)
        usage = _usage(container_id, found) if found is not None else None
        if found is not None and usage is not None:
            self._files[container_id] = found
        return usage

    def _find(self, container_id: str) -> Files | None:
        usual = usual_files(self._mounts, container_id)
        return next((files for files in usual if Path(files.memory_usage).exists()), None)


def _usage(container_id: str, files: Files) -> Usage | None:
    try:
        return _read_usage(container_id, files)
    except (OSError, ValueError):  # it has just ended, or a controller is missing
        return None


def _read_usage(container_id: str, files: Files) -> Usage:
    cpu_stat = _read(files.cpu_stat)
    if files.cpu_usage is not None:
        cpu_secs = int(_read(files.cpu_usage)) / 1e9
    else:
        cpu_secs = (value_of(b"usage_usec", cpu_stat) or 0) / 1e6
    pids = _read(files.processes).split()
    received, sent = _network(pids)
    return Usage(
        life=container_id,
        cpu_secs=cpu_secs,
        memory_bytes=memory_in_use(int(_read(files.memory_usage)), _read(files.memory_stat)),
        processes=len(pids),
        throttled_periods=value_of(b"nr_throttled", cpu_stat),
        net_rx_bytes=received,
        net_tx_bytes=sent,
    )


def _network(pids: list[bytes]) -> tuple[int, int] | tuple[None, None]:
    """All processes of a container have one network, so the first one that still lives tells of all."""
    for pid in pids[:_PROCESSES_ASKED]:
        try:
            return network_bytes(_read(f"/proc/{int(pid)}/net/dev"))
        except OSError:
            continue
    return None, None


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, _MOST_BYTES)
        if len(data) < _SURELY_WHOLE_BYTES:
            return data
        parts = [data]  # such files come in pieces of about a page
        while more := os.read(fd, _MOST_BYTES):
            parts.append(more)
        return b"".join(parts)
    finally:
        os.close(fd)
