"""The ``Storages`` port by SQLAlchemy Core: here what all kinds share, in its bases what each kind holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import NameNotUnique
from gateway.core.model import Page, Storage, StorageKind
from gateway.core.storages import StorageChanges
from gateway.state.dataset_rows import DatasetRows
from gateway.state.key_value_rows import KeyValueRows
from gateway.state.paging import list_page
from gateway.state.ports import Listing
from gateway.state.queue_rows import QueueRows
from gateway.state.rows import STORAGES, name_key
from gateway.state.storage_rows import lock_storage
from gateway.state.tables import key_value_records, storages

_TRIES = 3
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

        async def change(connection: AsyncConnection) -> Sequence[str]:
            await lock_storage(connection, kind, storage_id)
            blobs = (await connection.execute(in_blobs)).scalars().all()
            # What it holds goes by the foreign keys.
            await connection.execute(delete(storages).where(storages.c.id == storage_id))
            return blobs

        return await self._database.write(change)

    async def _first(self, statement: Select[*tuple[Any, ...]], **keys: str) -> Storage | None:
        async def look(connection: AsyncConnection) -> Storage | None:
            row = (await connection.execute(statement, keys)).first()
            return STORAGES.record(row) if row is not None else None

        return await self._database.read(look)


def _taken(kind: StorageKind, name: str | None) -> NameNotUnique:
    called = f"called {name}" if name else "with this id"
    return NameNotUnique(f"There is a {kind} {called} already: choose another.")
