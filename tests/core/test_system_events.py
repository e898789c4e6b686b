"""The messages of the system-events socket."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from gateway.core.load import Load
from gateway.core.system_events import abort_frames, frame, load_frames, migrating_frame

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


def test_migrating_tells_the_time_that_is_left() -> None:
    """Seconds, never fewer than none; and no ``persistState``, which SDKs make themselves."""
    assert json.loads(migrating_frame(AT, 29.98765)) == {
        "name": "migrating",
        "createdAt": "2026-01-02T03:04:05.678Z",
        "data": {"timeRemainingSecs": 29.988},
    }
    assert json.loads(migrating_frame(AT, -3))["data"] == {"timeRemainingSecs": 0}


def test_the_load_is_told_in_both_ways_from_one_measurement() -> None:
    """``systemInfo`` with exactly its eight fields, then ``cpuInfo``; the memory's maximum is the run's limit."""
    load = Load(
        cpu_current=123.45678,
        cpu_avg=50,
        cpu_max=200,
        memory_current=5_000,
        memory_avg=4_000,
        memory_max=6_000,
        is_cpu_overloaded=True,
    )
    info, cpu = (json.loads(text) for text in load_frames(AT, load, 256))
    assert info == {
        "name": "systemInfo",
        "createdAt": "2026-01-02T03:04:05.678Z",
        "data": {
            "memAvgBytes": 4_000,
            "memCurrentBytes": 5_000,
            "memMaxBytes": 256 * 1024 * 1024,
            "cpuAvgUsage": 50,
            "cpuMaxUsage": 200,
            "cpuCurrentUsage": 123.457,
            "isCpuOverloaded": True,
            "createdAt": "2026-01-02T03:04:05.678Z",
        },
    }
    assert cpu == {"name": "cpuInfo", "createdAt": "2026-01-02T03:04:05.678Z", "data": {"isCpuOverloaded": True}}
