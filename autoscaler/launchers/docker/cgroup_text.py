"""
No I/O: what stands in the kernel's files about control groups (cgroups), of both versions, and where those files lie.

Sources: the kernel's documentation, ``admin-guide/cgroup-v1`` and ``admin-guide/cgroup-v2``; ``man 5 proc``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_V1_CONTROLLERS = ("cpu", "cpuacct", "memory")
_MOUNT_POINT, _ROOT = 4, 3


@dataclass(frozen=True, slots=True)
class Mounts:
    """
    Where this machine has its control groups: *v1* by the name of the controller, else all of them at *unified*.

    Where both are mounted, the controllers are those of version 1, and the other one only names the groups.
    """

    v1: Mapping[str, str]
    unified: str | None

    @property
    def is_v1(self) -> bool:
        """Whether the controllers that are asked for are those of version 1."""
        return all(name in self.v1 for name in _V1_CONTROLLERS)


@dataclass(frozen=True, slots=True)
class Files:
    """
    The files of one container's group, all that a look at it reads. ``cpu_usage`` is None with version 2, where
    ``cpu_stat`` tells that too.
    """

    cpu_usage: str | None
    cpu_stat: str
    memory_usage: str
    memory_stat: str
    processes: str


def mounts_of(mountinfo: str) -> Mounts:
    """What ``/proc/self/mountinfo`` says. Groups that are seen from within a group of one's own are left out."""
    v1: dict[str, str] = {}
    unified = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, of_type = left.split(), right.split()
        if len(fields) <= _MOUNT_POINT or len(of_type) < 3 or fields[_ROOT] != "/":
            continue
        if of_type[0] == "cgroup":
            v1 |= dict.fromkeys(of_type[2].split(","), fields[_MOUNT_POINT])
        elif of_type[0] == "cgroup2":
            unified = fields[_MOUNT_POINT]
    return Mounts(v1, unified)


def usual_groups(container_id: str) -> tuple[str, str]:
    """The group of a container as the engine names it with its two drivers, ``cgroupfs`` and ``systemd``."""
    return f"/docker/{container_id}", f"/system.slice/docker-{container_id}.scope"


def groups_of(proc_cgroup: str) -> dict[str, str]:
    """What ``/proc/<pid>/cgroup`` says: the group by controller, that of version 2 by ``""``."""
    groups: dict[str, str] = {}
    for line in proc_cgroup.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            groups |= dict.fromkeys(parts[1].split(","), parts[2])
    return groups


def files_of(mounts: Mounts, groups: Mapping[str, str]) -> Files | None:
    """The files of the group that *groups* name (see ``groups_of``); None where they can't be in reach."""
    wanted = _V1_CONTROLLERS if mounts.is_v1 else ("",)
    if any(name not in groups or ".." in groups[name] for name in wanted):  # ".." is outside of our own namespace
        return None
    if mounts.is_v1:
        cpu, cpuacct, memory = (f"{mounts.v1[name]}{groups[name]}" for name in wanted)
        return Files(
            cpu_usage=f"{cpuacct}/cpuacct.usage",
            cpu_stat=f"{cpu}/cpu.stat",
            memory_usage=f"{memory}/memory.usage_in_bytes",
            memory_stat=f"{memory}/memory.stat",
            processes=f"{memory}/cgroup.procs",
        )
    if mounts.unified is None:
        return None
    group = f"{mounts.unified}{groups['']}"
    return Files(
        cpu_usage=None,
        cpu_stat=f"{group}/cpu.stat",
        memory_usage=f"{group}/memory.current",
        memory_stat=f"{group}/memory.stat",
        processes=f"{group}/cgroup.procs",
    )


def usual_files(mounts: Mounts, container_id: str) -> Iterator[Files]:
    """Where the files of a container may be, by its id alone."""
    for group in usual_groups(container_id):
        found = files_of(mounts, dict.fromkeys(("", *_V1_CONTROLLERS), group))
        if found is not None:
            yield found


def value_of(name: bytes, text: bytes) -> int | None:
    """The number behind *name* in a file of lines ``name number``."""
    if text.startswith(name + b" "):
        start = len(name) + 1
    else:
        start = text.find(b"\n" + name + b" ")
        if start < 0:
            return None
        start += len(name) + 2
    end = text.find(b"\n", start)
    return int(text[start:] if end < 0 else text[start:end])


def memory_in_use(usage: int, stat: bytes) -> int:
    """
    Memory of a group less the files that the kernel can drop at once: just what ``docker stats`` shows.

    What the processes share, and what lies in ``/dev/shm`` and other file systems in memory, counts: it is gone only
    when they give it up.
    """
    inactive = value_of(b"total_inactive_file", stat)  # version 1, with all groups below it
    if inactive is None:
        inactive = value_of(b"inactive_file", stat) or 0
    return max(0, usage - inactive)


def network_bytes(net_dev: bytes) -> tuple[int, int]:
    """Received and sent, over all interfaces but the one to oneself, from ``/proc/<pid>/net/dev``."""
    received = sent = 0
    for line in net_dev.splitlines()[2:]:
        name, _, figures = line.partition(b":")
        fields = figures.split()
        if name.strip() != b"lo" and len(fields) >= 9:
            received += int(fields[0])
            sent += int(fields[8])
    return received, sent
