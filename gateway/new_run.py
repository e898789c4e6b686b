"""Creates the records of a new run: the run itself (READY), its own token, its default storages; all or none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gateway.auth import RUN_TOKEN_SCOPES, run_token
from gateway.core import ids
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build, Origin, Run, RunOptions, Storage, StorageKind, Token
from gateway.core.standby import PoolKey
from gateway.secret_box import SecretBox
from gateway.state.ports import Records

# Complete and zero-filled, since older clients refuse a run without some of these. Source: apify-wire.md §5.
ZERO_STATS: Mapping[str, Any] = {
    "inputBodyLen": 0,
    "migrationCount": 0,
    "rebootCount": 0,
    "restartCount": 0,
    "resurrectCount": 0,
    "memAvgBytes": 0,
    "memMaxBytes": 0,
    "memCurrentBytes": 0,
    "cpuAvgUsage": 0,
    "cpuMaxUsage": 0,
    "cpuCurrentUsage": 0,
    "netRxBytes": 0,
    "netTxBytes": 0,
    "durationMillis": 0,
    "runTimeSecs": 0,
    "metamorph": 0,
    "computeUnits": 0,
}


def bare_run(
    *,
    build: Build,
    user_id: str,
    origin: Origin,
    options: RunOptions,
    now: datetime,
    random_bytes: bytes,
    pool: PoolKey | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Run:
    """A READY run of *build* for *user_id*; *random_bytes* are at least 80 fresh ones."""
    parts = [random_bytes[i * 16 : (i + 1) * 16] for i in range(5)]
    return Run(
        id=ids.record_id(parts[0]),
        actor_id=build.actor_id,
        user_id=user_id,
        build_id=build.id,
        build_number=build.build_number,
        status=RunStatus.READY,
        started_at=now,
        origin=origin,
        options=options,
        live_view_label=ids.live_view_label(parts[1]),
        default_key_value_store_id=ids.record_id(parts[2]),
        default_dataset_id=ids.record_id(parts[3]),
        default_request_queue_id=ids.record_id(parts[4]),
        meta=dict(meta or {}),
        stats=dict(ZERO_STATS),
        pool_id=pool.id if pool else None,
    )


async def store_run(records: Records, run: Run, box: SecretBox, token_id: str) -> None:
    """Write *run* with its token (only its hash is kept) and its three default storages."""
    token = Token(
        id=token_id,
        user_id=run.user_id,
        name=f"run {run.id}",
        token_hash=ids.token_hash(run_token(box, run.id)),
        scopes=RUN_TOKEN_SCOPES,
        created_at=run.started_at,
        run_id=run.id,
    )
    storages = [
        Storage(
            id=storage_id,
            kind=kind,
            user_id=run.user_id,
            created_at=run.started_at,
            modified_at=run.started_at,
            accessed_at=run.started_at,
            actor_id=run.actor_id,
            run_id=run.id,
        )
        for kind, storage_id in (
            (StorageKind.KEY_VALUE_STORE, run.default_key_value_store_id),
            (StorageKind.DATASET, run.default_dataset_id),
            (StorageKind.REQUEST_QUEUE, run.default_request_queue_id),
        )
    ]
    await records.add_run(run, token, storages)
