"""What there is for runs: the limits of the settings, and the memory of this machine."""

from __future__ import annotations

import os

from autoscaler.policy.room import Capacity
from gateway.settings import Settings

_RESERVED_RATIO = 0.1
_LEAST_RESERVED_MBYTES = 512
_MBYTE = 1024 * 1024


def capacity_of(settings: Settings, machine_mbytes: int | None = None) -> Capacity:
    """
    The limits in force. *machine_mbytes* is the machine's memory, by default as it says itself.

    Where ``max_memory_mbytes`` is not set, containers of an engine on this machine share its memory less a tenth, and
    at least less 512 MiB, which Greenroom and the engine need. Nothing holds processes to what they are said to need,
    and Swarm knows its nodes better: for them there is no limit then.
    """
    limit = settings.max_memory_mbytes
    engine = settings.docker_host or os.environ.get("DOCKER_HOST") or "unix://"
    is_local = engine.startswith("unix://")
    if limit is None and settings.launcher == "docker" and is_local:
        total = machine_mbytes if machine_mbytes is not None else _machine_mbytes()
        if total is not None:
            limit = max(_LEAST_RESERVED_MBYTES, int(total - max(_LEAST_RESERVED_MBYTES, _RESERVED_RATIO * total)))
    return Capacity(
        max_runs=settings.max_runs,
        max_memory_mbytes=limit,
        max_runs_per_user=settings.max_runs_per_user or None,
        max_memory_mbytes_per_user=settings.max_memory_mbytes_per_user or None,
    )


def _machine_mbytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MBYTE
    except (ValueError, OSError):
        return None
