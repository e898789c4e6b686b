"""
No I/O: the messages of the system-events socket, as an Actor reads them.

Source: apify-wire.md §2; ``systemInfo`` and ``cpuInfo`` come with the measurement of load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

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
