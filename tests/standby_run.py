"""One standby run, as plain as it may be, for tests of what becomes of it."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.core.lifecycle import RunStatus
from gateway.core.model import Origin, Run, RunOptions
from gateway.core.standby import PoolKey

POOL = PoolKey(target_id="actor", user_id="owner")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = Run(
    id="run",
    actor_id="actor",
    user_id="owner",
    build_id="build",
    build_number="0.0.1",
    status=RunStatus.RUNNING,
    started_at=NOW,
    origin=Origin.STANDBY,
    options=RunOptions(build="latest", timeout_secs=0, memory_mbytes=128, disk_mbytes=256),
    live_view_label="label",
    default_key_value_store_id="k",
    default_dataset_id="d",
    default_request_queue_id="q",
    pool_id=POOL.id,
)
