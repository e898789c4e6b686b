"""
Creates the records of a new run: the run itself (READY), its own token, its default storages and those that its build
declares, its input; all or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from gateway.auth import RUN_TOKEN_SCOPES, run_token
from gateway.core import ids
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build, Origin, Run, RunOptions, Storage, StorageKind, Token
from gateway.core.standby import PoolKey
from gateway.core.storages import KeyValueRecord
from gateway.secret_box import SecretBox
from gateway.state.ports import Records

MAX_DECLARED_DATASETS = 10
_OWN_IDS = 5
# Enough for a run with as many datasets as its build may declare.
RANDOM_BYTES = (_OWN_IDS + MAX_DECLARED_DATASETS) * ids.ID_BYTES

DEFAULT_ALIAS = "default"

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
    parent_run_id: str | None = None,
) -> Run:
    """
    A READY run of *build* for *user_id*; *random_bytes* are fresh ones, at least ``RANDOM_BYTES`` (80 are enough for a
    build that declares no datasets).
    """
    parts = [random_bytes[at : at + ids.ID_BYTES] for at in range(0, len(random_bytes), ids.ID_BYTES)]
    aliases = declared_datasets(build)
    datasets = {alias: ids.record_id(part) for alias, part in zip(aliases, parts[_OWN_IDS:], strict=False)}
    assert len(datasets) == len(aliases), "too few random bytes"
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
        storage_ids={"datasets": datasets} if datasets else {},
        parent_run_id=parent_run_id,
    )


def declared_datasets(build: Build) -> tuple[str, ...]:
    """The aliases of the datasets that *build* declares beside the default one. Source: apify-platform.md §4.5."""
    storages = build.definition.get("storages")
    datasets = storages.get("datasets") if isinstance(storages, Mapping) else None
    if not isinstance(datasets, Mapping):
        return ()
    return tuple(alias for alias in datasets if alias != DEFAULT_ALIAS)[:MAX_DECLARED_DATASETS]


def storages_of(run: Run) -> Iterator[tuple[StorageKind, str]]:
    """Kind and id of each storage that is made with *run*."""
    yield StorageKind.KEY_VALUE_STORE, run.default_key_value_store_id
    yield StorageKind.DATASET, run.default_dataset_id
    yield StorageKind.REQUEST_QUEUE, run.default_request_queue_id
    for storage_id in run.storage_ids.get("datasets", {}).values():
        yield StorageKind.DATASET, storage_id


def storage_ids(run: Run) -> dict[str, dict[str, str]]:
    """The storages of *run* as the API shows them: kind → alias → id."""
    defaults = {
        "keyValueStores": run.default_key_value_store_id,
        "datasets": run.default_dataset_id,
        "requestQueues": run.default_request_queue_id,
    }
    return {kind: {DEFAULT_ALIAS: default, **run.storage_ids.get(kind, {})} for kind, default in defaults.items()}


async def store_run(
    records: Records, run: Run, box: SecretBox, token_id: str, contents: Iterable[KeyValueRecord] = ()
) -> None:
    """
    Write *run* with its token (only its hash is kept), its storages and *contents*, what its key-value store begins
    with: its input, if any.
    """
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
        for kind, storage_id in storages_of(run)
    ]
    await records.add_run(run, token, storages, contents)
