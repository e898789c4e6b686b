"""The messages of the system-events socket."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from gateway.core.system_events import abort_frames, frame

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)


def test_a_frame_has_name_and_time() -> None:
    """Without data there is no ``data`` key; empty data is data."""
    assert json.loads(frame("migrating", AT)) == {"name": "migrating", "createdAt": "2026-01-02T03:04:05.678Z"}
    assert json.loads(frame("cpuInfo", AT, {}))["data"] == {}
    assert json.loads(frame("cpuInfo", AT, {"isCpuOverloaded": True}))["data"] == {"isCpuOverloaded": True}


def test_before_its_end_a_run_hears_aborting_first() -> None:
    """``aborting``, then ``persistState`` that says that it is no migration."""
    aborting, persist = (json.loads(text) for text in abort_frames(AT))
    assert aborting == {"name": "aborting", "createdAt": "2026-01-02T03:04:05.678Z"}
    assert persist == {
        "name": "persistState",
        "createdAt": "2026-01-02T03:04:05.678Z",
        "data": {"isMigrating": False},
    }
