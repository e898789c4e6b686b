"""The ``Storages`` port by SQLAlchemy Core: here what all kinds share, in its bases what each kind holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import NameNotUnique
from gateway.core.model import JsonObject, Page, Storage, StorageKind
from gateway.core.storages import StorageChanges
from gateway.state.dataset_rows import DatasetRows
from gateway.state.key_value_rows import KeyValueRows
from gateway.state.paging import list_page
from gateway.state.ports import Listing
from gateway.state.queue_rows import QueueRows
from gateway.state.rows import STORAGES, name_key
from gateway.state.storage_rows import count, lock_storage, note_stats
from gateway.state.tables import dataset_items, key_value_records, queue_requests, storages

_TRIES = 3
_DELETED_AT_ONCE = 2000
_CHANGEABLE = frozenset({"name", "title", "general_access"})

_STORAGE = STORAGES.by("kind", "id")
_STORAGE_BY_NAME = STORAGES.by("user_id", "kind", "name_key")
_REPLACE = STORAGES.replace("id")


class SqlStorages(KeyValueRows, DatasetRows, QueueRows):
    """
    The ``Storages`` port. Safe for any number of concurrent callers.

    Cost: as ``SqlRecords``; a write is one transaction with one sync of the disk, however many items it has.
    """

    async def get_or_create(self, storage: Storage) -> tuple[Storage, bool]:
        row, taken = STORAGES.values(storage), _taken(storage.kind, storage.name)

        async def add(connection: AsyncConnection) -> None:
            await connection.execute(STORAGES.insert, row)

        # Another caller may make it between the look and the write, and a third one delete it again.
        for _ in range(_TRIES):
            if storage.name is not None:
                found = await self.storage_by_name(storage.user_id, storage.kind, storage.name)
                if found is not None:
                    return found, False
            try:
                await self._database.write(add, taken)
            except NameNotUnique:
                continue
            return storage, True
        raise taken

    async def storage(self, kind: StorageKind, storage_id: str) -> Storage | None:
        return await self._first(_STORAGE, kind=kind, id=storage_id)

    async def storage_by_name(self, user_id: str, kind: StorageKind, name: str) -> Storage | None:
        return await self._first(_STORAGE_BY_NAME, user_id=user_id, kind=kind, name_key=name_key(name))

    async def list_storages(self, user_id: str, kind: StorageKind, *, unnamed: bool, page: Page) -> Listing[Storage]:
        conditions: list[ColumnElement[bool]] = [] if unnamed else [storages.c.name.is_not(None)]
        return await list_page(self._database, STORAGES, "created_at", page, *conditions, user_id=user_id, kind=kind)

    async def change_storage(
        self, kind: StorageKind, storage_id: str, changes: StorageChanges, now: datetime
    ) -> Storage:
        if unknown := changes.fields.keys() - _CHANGEABLE:
            raise ValueError(f"no fields of a storage that change: {sorted(unknown)}")

        async def change(connection: AsyncConnection) -> Storage:
            await lock_storage(connection, kind, storage_id)
            row = (await connection.execute(_STORAGE, {"kind": kind, "id": storage_id})).one()
            changed = replace(STORAGES.record(row), **changes.fields, modified_at=now, accessed_at=now)
            await connection.execute(_REPLACE, {**STORAGES.values(changed), "old_id": storage_id})
            return changed

        return await self._database.write(change, _taken(kind, changes.fields.get("name")))

    async def delete_storage(self, kind: StorageKind, storage_id: str) -> Sequence[str]:
        in_blobs = select(key_value_records.c.blob).where(
            key_value_records.c.store_id == storage_id, key_value_records.c.blob.is_not(None)
        )

        async def change(connection: AsyncConnection) -> Sequence[str] | None:
            """None: there is more of it."""
            stats = await lock_storage(connection, kind, storage_id)
            if not await _delete_some(connection, kind, storage_id, stats):
                return None
            blobs = (await connection.execute(in_blobs)).scalars().all()
            # What is left goes by the foreign keys.
            await connection.execute(delete(storages).where(storages.c.id == storage_id))
            return blobs

        # In small writes, as a large one would exceed the time that a statement has, or keep all others waiting.
        while (blobs := await self._database.write(change)) is None:
            pass
        return blobs

    async def _first(self, statement: Select[*tuple[Any, ...]], **keys: str) -> Storage | None:
        async def look(connection: AsyncConnection) -> Storage | None:
            row = (await connection.execute(statement, keys)).first()
            return STORAGES.record(row) if row is not None else None

        return await self._database.read(look)


async def _delete_some(connection: AsyncConnection, kind: StorageKind, storage_id: str, stats: JsonObject) -> bool:
    """
    Of what the storage holds, and which may be much, so many rows; whether few or none are left.

    Should the rest never follow, what is left is in order: a dataset lacks its last items. Records in blobs stay to the
    end, since only with the row it is told which these were; they are small rows.
    """
    match kind:
        case StorageKind.DATASET:
            left = max(0, count(stats, "itemCount") - _DELETED_AT_ONCE)
            those = (dataset_items.c.dataset_id == storage_id) & (dataset_items.c.position >= left)
            await connection.execute(delete(dataset_items).where(those))
            await note_stats(connection, storage_id, {**stats, "itemCount": left})
            return left == 0
        case StorageKind.KEY_VALUE_STORE:
            holder, key = key_value_records.c.store_id, key_value_records.c.key
            some = select(key).where(holder == storage_id, key_value_records.c.blob.is_(None))
        case StorageKind.REQUEST_QUEUE:
            holder, key = queue_requests.c.queue_id, queue_requests.c.id
            some = select(key).where(holder == storage_id)
    statement = delete(key.table).where(holder == storage_id, key.in_(some.limit(_DELETED_AT_ONCE)))
    return (await connection.execute(statement)).rowcount < _DELETED_AT_ONCE


def _taken(kind: StorageKind, name: str | None) -> NameNotUnique:
    called = f"called {name}" if name else "with this id"
    return NameNotUnique(f"There is a {kind} {called} already: choose another.")
