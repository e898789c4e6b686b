"""
No I/O: the messages of the system-events socket, as an Actor reads them.

Source: apify-wire.md §2, apify-platform.md §3.15.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gateway.core.load import Load
from gateway.core.times import iso


def frame(name: str, at: datetime, data: Mapping[str, Any] | None = None) -> str:
    """One text frame: ``{name, createdAt, data?}``."""
    message: dict[str, Any] = {"name": name, "createdAt": iso(at)}
    if data is not None:
        message["data"] = data
    return json.dumps(message, separators=(",", ":"))


def abort_frames(at: datetime) -> tuple[str, str]:
    """What a run hears, in this order, when it is about to be stopped: ``aborting``, then ``persistState``."""
    return frame("aborting", at), frame("persistState", at, {"isMigrating": False})


def migrating_frame(at: datetime, time_remaining_secs: float) -> str:
    """
    What a run hears when it is to be started elsewhere, and how long it has at most.

    Alone: SDKs make their ``persistState`` of it themselves.
    """
    return frame("migrating", at, {"timeRemainingSecs": round(max(0.0, time_remaining_secs), 3)})


def load_frames(at: datetime, load: Load, memory_mbytes: int) -> tuple[str, str]:
    """
    ``systemInfo`` and the older ``cpuInfo``, of one measurement.

    The Python SDK drops a ``systemInfo`` without all of the eight fields. ``memMaxBytes`` is the run's limit.
    """
    info = {
        "memAvgBytes": load.memory_avg,
        "memCurrentBytes": load.memory_current,
        "memMaxBytes": memory_mbytes * 1024 * 1024,
        "cpuAvgUsage": round(load.cpu_avg, 3),
        "cpuMaxUsage": round(load.cpu_max, 3),
        "cpuCurrentUsage": round(load.cpu_current, 3),
        "isCpuOverloaded": load.is_cpu_overloaded,
        "createdAt": iso(at),
    }
    return frame("systemInfo", at, info), frame("cpuInfo", at, {"isCpuOverloaded": load.is_cpu_overloaded})
