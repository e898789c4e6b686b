"""
No I/O: how much a container may write, who keeps it to that, and when it has to be looked at.

Where the storage driver has quotas, the kernel refuses what is too much. Elsewhere containers are looked at, which
costs time for each of their files; so those are passed over that can't have written too much since the last look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SHORTEST_SECS = 1.0
_LONGEST_SECS = 30.0
_UNSEEN_WRITER_SECS = 2.0
_COST_SHARE = 20  # a look that took 1 s is not repeated for 20 s without need


def disk_mbytes(memory_mbytes: int) -> int:
    """What a run may write, as on the platform: twice its memory. Source: apify-platform.md §3.11."""
    return 2 * memory_mbytes


def may_have_quotas(info: Mapping[str, Any]) -> bool:
    """
    Whether the engine's storage driver, as ``info`` describes it, may have quotas for what a container itself writes.

    overlay2 on XFS has them if that is mounted with ``pquota``, which only a try tells. btrfs has quotas that count the
    image too: with one that is as large as the limit nothing could be written at all, so they are of no use here.
    """
    details = {str(line[0]): str(line[1]) for line in info.get("DriverStatus") or () if len(line) == 2}
    return info.get("Driver") == "overlay2" and details.get("Backing Filesystem") == "xfs"


def refuses_quotas(message: str) -> bool:
    """Whether the engine's refusal of a container is due to its quota alone."""
    return "storage-opt" in message.lower() or "storage opt" in message.lower()


def too_much(limit_mbytes: int) -> str:
    """Why a run was ended that has written more than *limit_mbytes*, and what to do."""
    return (
        f"Out of disk ({limit_mbytes} MiB): the run has written more than that into its container. Have it remove what "
        "it no longer needs, keep its results in storages, or give it more memory: it may write twice that much."
    )


def too_deep(deepest: int) -> str:
    """Why a run was ended of which nobody can say how much it has written."""
    return (
        f"The run has made more than {deepest} folders in one another in its container, so that it can't be told any "
        "more how much it has written there. Have it use fewer."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """
    The last look at a container: *at* that time, for *cost_secs*, *written_bytes* were found.

    What the rest of the machine said just before: *disk_used_bytes* of the whole disk, *cpu_secs* that the container
    had used; None where nobody could tell.
    """

    at: float
    cost_secs: float
    written_bytes: int
    disk_used_bytes: int | None
    cpu_secs: float | None


def is_due(
    last: Looked | None, now: float, *, limit_bytes: int, disk_used_bytes: int | None, cpu_secs: float | None
) -> bool:
    """
    Whether a container is to be looked at again; *now*, *disk_used_bytes* and *cpu_secs* are as in Looked.

    At least every 30 s. Sooner only if it has used the processor since, which nobody can write without; and if the
    whole disk has become fuller by half of what the container has left, at least.
    """
    if last is None:
        return True
    secs = now - last.at
    if secs >= _LONGEST_SECS:
        return True
    if secs < _SHORTEST_SECS or (cpu_secs is not None and cpu_secs == last.cpu_secs):
        return False
    is_affordable = secs >= _COST_SHARE * last.cost_secs
    if disk_used_bytes is None or last.disk_used_bytes is None:
        return secs >= _UNSEEN_WRITER_SECS and is_affordable
    left_bytes = max(0, limit_bytes - last.written_bytes)
    grown_bytes = disk_used_bytes - last.disk_used_bytes
    return grown_bytes >= left_bytes or (grown_bytes >= left_bytes / 2 and is_affordable)
