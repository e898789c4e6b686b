"""Records of key-value stores, a row each; see ``Storages`` for what is promised."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, bindparam, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.model import StorageKind
from gateway.core.storages import KeyPage, KeyValueRecord
from gateway.state.rows import KEY_VALUE_RECORDS
from gateway.state.storage_rows import Holdings, added, lock_storage, look_at_storage, not_found, note_change
from gateway.state.tables import key_value_records, storages

_KIND = StorageKind.KEY_VALUE_STORE
_AFTER_ALL_KEYS = "\U0010ffff"  # greater than any character of a key

_columns = key_value_records.c
_IS_THE_ONE = (_columns.store_id == bindparam("of_store")) & (_columns.key == bindparam("of_key"))
_HELD = select(_columns.size, _columns.blob).where(_IS_THE_ONE)
_REPLACE = KEY_VALUE_RECORDS.replace("store_id", "key")
_DELETE = delete(key_value_records).where(_IS_THE_ONE)
# The store on the left: a record that is not there and a store that is not there are told apart in one statement.
_RECORD = (
    select(*KEY_VALUE_RECORDS.columns)
    .select_from(
        storages.outerjoin(
            key_value_records, (_columns.store_id == storages.c.id) & (_columns.key == bindparam("of_key"))
        )
    )
    .where(storages.c.kind == _KIND, storages.c.id == bindparam("of_store"))
)
_LISTED = [column for column in KEY_VALUE_RECORDS.columns if column.name != "value"]


class KeyValueRows(Holdings):
    """The part of ``Storages`` on key-value stores."""

    async def put_record(self, record: KeyValueRecord) -> str | None:
        row = KEY_VALUE_RECORDS.values(record)

        async def change(connection: AsyncConnection) -> str | None:
            stats = await lock_storage(connection, _KIND, record.store_id)
            old = await _held(connection, record.store_id, record.key)
            if old is None:
                await connection.execute(KEY_VALUE_RECORDS.insert, row)
            else:
                await connection.execute(_REPLACE, {**row, "old_store_id": record.store_id, "old_key": record.key})
            growth = record.size - (old.size if old else 0)
            stats = added(stats, writeCount=1, storageBytes=growth)
            await note_change(connection, record.store_id, stats, record.modified_at)
            return old.blob if old and old.blob != record.blob else None

        return await self._database.write(change)

    async def record(self, store_id: str, key: str) -> KeyValueRecord | None:
        async def look(connection: AsyncConnection) -> Row[*tuple[Any, ...]] | None:
            return (await connection.execute(_RECORD, {"of_store": store_id, "of_key": key})).first()

        row = await self._database.read(look)
        if row is None:
            raise not_found(_KIND)
        return None if row.key is None else KEY_VALUE_RECORDS.record(row)

    async def delete_record(self, store_id: str, key: str, now: datetime) -> str | None:
        async def change(connection: AsyncConnection) -> str | None:
            stats = await lock_storage(connection, _KIND, store_id)
            old = await _held(connection, store_id, key)
            if old is None:
                return None
            await connection.execute(_DELETE, {"of_store": store_id, "of_key": key})
            await note_change(connection, store_id, added(stats, deleteCount=1, storageBytes=-old.size), now)
            blob: str | None = old.blob
            return blob

        return await self._database.write(change)

    async def list_keys(self, store_id: str, *, after: str | None, prefix: str, limit: int) -> KeyPage:
        among = select(*_LISTED).where(_columns.store_id == store_id)
        if prefix:
            among = among.where(_columns.key >= prefix, _columns.key < prefix + _AFTER_ALL_KEYS)
        if after is not None:
            among = among.where(_columns.key > after)
        statement = among.order_by(_columns.key).limit(limit + 1)

        async def look(connection: AsyncConnection) -> Sequence[Row[*tuple[Any, ...]]]:
            await look_at_storage(connection, _KIND, store_id)
            return (await connection.execute(statement)).all()

        rows = await self._database.read(look)
        return KeyPage(
            items=tuple(KeyValueRecord(**row._asdict()) for row in rows[:limit]), is_truncated=len(rows) > limit
        )


async def _held(connection: AsyncConnection, store_id: str, key: str) -> Row[*tuple[Any, ...]] | None:
    """Size and blob of the record as it is now."""
    return (await connection.execute(_HELD, {"of_store": store_id, "of_key": key})).first()
