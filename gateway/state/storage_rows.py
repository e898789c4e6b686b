"""
How a change of what a storage holds begins and ends: its row is locked, then told what changed.

The lock makes changes of one storage follow each other where a database has several writers; counters in ``stats`` and
what they count are therefore always of one moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import RecordNotFound
from gateway.core.model import JsonObject, StorageKind
from gateway.state.database import Database
from gateway.state.tables import storages

_WHICH = (storages.c.kind == bindparam("of_kind")) & (storages.c.id == bindparam("of_id"))
_LOOK = select(storages.c.stats, storages.c.modified_at).where(_WHICH)
_LOCK = select(storages.c.stats).where(_WHICH).with_for_update()
_NOTE = update(storages).where(storages.c.id == bindparam("of_id"))

_WORDS = {
    StorageKind.KEY_VALUE_STORE: "Key-value store",
    StorageKind.DATASET: "Dataset",
    StorageKind.REQUEST_QUEUE: "Request queue",
}


class Holdings:
    """What the three kinds of storages are built on: one database."""

    def __init__(self, database: Database) -> None:
        self._database = database


def not_found(kind: StorageKind) -> RecordNotFound:
    """There is no storage of this kind with the id that was asked for."""
    return RecordNotFound(_WORDS[kind])


async def lock_storage(connection: AsyncConnection, kind: StorageKind, storage_id: str) -> dict[str, Any]:
    """The ``stats`` of a storage that nobody else changes until this transaction ends. Raises RecordNotFound."""
    row = (await connection.execute(_LOCK, {"of_kind": kind, "of_id": storage_id})).first()
    if row is None:
        raise not_found(kind)
    return dict(row.stats)


async def look_at_storage(
    connection: AsyncConnection, kind: StorageKind, storage_id: str
) -> tuple[dict[str, Any], datetime]:
    """Its ``stats`` and when it was last changed. Raises RecordNotFound."""
    row = (await connection.execute(_LOOK, {"of_kind": kind, "of_id": storage_id})).first()
    if row is None:
        raise not_found(kind)
    return dict(row.stats), row.modified_at


async def note_change(connection: AsyncConnection, storage_id: str, stats: JsonObject, now: datetime) -> None:
    """The end of a change of what the storage holds."""
    values = {"of_id": storage_id, "stats": stats, "modified_at": now, "accessed_at": now}
    await connection.execute(_NOTE, values)


async def note_stats(connection: AsyncConnection, storage_id: str, stats: JsonObject) -> None:
    """Keep what was learned of the storage's users; what it holds is unchanged."""
    await connection.execute(_NOTE, {"of_id": storage_id, "stats": stats})


def added(stats: JsonObject, **amounts: int) -> dict[str, Any]:
    """*stats* with *amounts* added to its counters."""
    return {**stats, **{name: count(stats, name) + amount for name, amount in amounts.items()}}


def count(stats: Mapping[str, Any], name: str) -> int:
    """A counter; one that is absent stands at 0."""
    return int(stats.get(name, 0))
