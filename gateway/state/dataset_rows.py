"""Items of datasets, a row each, and the pushes that clients may repeat; see ``Storages`` for what is promised."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import bindparam, delete, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.model import StorageKind
from gateway.core.storages import DatasetPage
from gateway.state.database import Database
from gateway.state.storage_rows import Holdings, added, count, lock_storage, look_at_storage, note_change
from gateway.state.tables import dataset_items, dataset_pushes

_KIND = StorageKind.DATASET
_REMEMBERED = timedelta(minutes=10)  # clients give up repeating long before
_FORGOTTEN_AT_ONCE = 500

_ITEMS = insert(dataset_items)
_REMEMBER = insert(dataset_pushes)
_FORGET_ONE = delete(dataset_pushes).where(dataset_pushes.c.id == bindparam("of_id"))
_REPEATED = (
    select(dataset_pushes.c.id)
    .where(
        dataset_pushes.c.dataset_id == bindparam("of_dataset"),
        dataset_pushes.c.digest == bindparam("of_digest"),
        dataset_pushes.c.process != bindparam("of_process"),
        dataset_pushes.c.at > bindparam("too_old"),
    )
    .order_by(dataset_pushes.c.at)
    .limit(1)
)


class DatasetRows(Holdings):
    """
    The part of ``Storages`` on datasets.

    One object stands for one process: pushes that it stored itself are never taken for each other's repetitions.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._process = uuid.uuid4().hex
        self._answered: set[str] = set()
        self._too_old = datetime.min.replace(tzinfo=UTC)  # pushes up to this time count no more

    async def push_items(
        self, dataset_id: str, items: Sequence[str], *, clean_count: int, now: datetime, push_id: str, digest: str
    ) -> bool:
        answered, too_old = self._some_answered(), now - _REMEMBERED
        asked = {"of_dataset": dataset_id, "of_digest": digest, "of_process": self._process, "too_old": too_old}

        async def change(connection: AsyncConnection) -> bool:
            stats = await lock_storage(connection, _KIND, dataset_id)
            if answered:
                await _forget(connection, answered, too_old)
            repeated = (await connection.execute(_REPEATED, asked)).scalar()
            if repeated is not None:
                await connection.execute(_FORGET_ONE, {"of_id": repeated})
                return False
            first = count(stats, "itemCount")
            rows = [
                {"dataset_id": dataset_id, "position": position, "item": item}
                for position, item in enumerate(items, first)
            ]
            if rows:
                await connection.execute(_ITEMS, rows)
            push = {"id": push_id, "dataset_id": dataset_id, "digest": digest, "process": self._process, "at": now}
            await connection.execute(_REMEMBER, push)
            size = sum(len(item.encode()) for item in items)
            stats = added(
                stats, itemCount=len(items), cleanItemCount=clean_count, storageBytes=size, writeCount=len(items)
            )
            await note_change(connection, dataset_id, stats, now)
            return True

        is_new = await self._database.write(change)
        self._answered.difference_update(answered)
        self._too_old = too_old
        return is_new

    def push_was_answered(self, push_id: str) -> None:
        self._answered.add(push_id)

    async def flush_answered(self) -> None:
        """
        Forget the pushes whose answers have gone out; without any, it costs nothing.

        For the gateway's background work, several times a second: a push makes room for itself, but the last one of a
        burst must not be remembered until the next.
        """
        while answered := self._some_answered():
            await self._database.write(partial(_forget, push_ids=answered, too_old=self._too_old))
            self._answered.difference_update(answered)

    async def items(self, dataset_id: str, *, offset: int, limit: int | None, desc: bool) -> DatasetPage:
        async def look(connection: AsyncConnection) -> DatasetPage:
            stats, _ = await look_at_storage(connection, _KIND, dataset_id)
            # Those that are pushed after this look lie behind *total* and are not seen.
            total = count(stats, "itemCount")
            number = max(0, total - offset if limit is None else min(limit, total - offset))
            if number == 0:
                return DatasetPage(total=total)
            first = total - offset - number if desc else offset
            position = dataset_items.c.position
            statement = (
                select(dataset_items.c.item)
                .where(dataset_items.c.dataset_id == dataset_id, position >= first, position < first + number)
                .order_by(position.desc() if desc else position)
            )
            return DatasetPage(items=tuple((await connection.execute(statement)).scalars()), total=total)

        return await self._database.read(look)

    def _some_answered(self) -> tuple[str, ...]:
        return tuple(push_id for push_id, _ in zip(self._answered, range(_FORGOTTEN_AT_ONCE), strict=False))


async def _forget(connection: AsyncConnection, push_ids: Sequence[str], too_old: datetime) -> None:
    """These pushes and those that count no more."""
    gone = or_(dataset_pushes.c.id.in_(push_ids), dataset_pushes.c.at <= too_old)
    await connection.execute(delete(dataset_pushes).where(gone))
