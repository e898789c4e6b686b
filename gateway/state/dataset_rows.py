"""Items of datasets, a row each, and the pushes that clients may repeat; see ``Storages`` for what is promised."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import bindparam, delete, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.model import JsonObject, StorageKind
from gateway.core.storages import DatasetPage
from gateway.state.database import Database
from gateway.state.storage_rows import Holdings, added, count, lock_storage, look_at_storage, note_change
from gateway.state.tables import dataset_items, dataset_pushes

_KIND = StorageKind.DATASET
_REMEMBERED = timedelta(minutes=10)  # clients give up repeating long before
_FORGOTTEN_AT_ONCE = 500
# How long another process may take to forget what it has answered; a living one needs a fraction of a second. What it
# still remembers then passes for unanswered: too long costs a repeated push time, too short loses a new one.
_LOOK_AGAIN_SECS = 0.25
_LOOKS = 20

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
)
_STILL_THERE = (
    select(dataset_pushes.c.id)
    .where(dataset_pushes.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(dataset_pushes.c.at)
    .limit(1)
)


class DatasetRows(Holdings):
    """
    The part of ``Storages`` on datasets.

    One object stands for one process: pushes that it stored itself are never taken for each other's repetitions.
    """

    def __init__(self, database: Database, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        super().__init__(database)
        self._sleep = sleep
        self._process = uuid.uuid4().hex
        self._answered: set[str] = set()
        self._too_old = datetime.min.replace(tzinfo=UTC)  # pushes up to this time count no more

    async def push_items(
        self, dataset_id: str, items: Sequence[str], *, clean_count: int, now: datetime, push_id: str, digest: str
    ) -> bool:
        answered, too_old = self._some_answered(), now - _REMEMBERED
        asked = {"of_dataset": dataset_id, "of_digest": digest, "of_process": self._process, "too_old": too_old}
        push = {"id": push_id, "dataset_id": dataset_id, "digest": digest, "process": self._process, "at": now}

        async def append(connection: AsyncConnection, stats: JsonObject) -> None:
            first = count(stats, "itemCount")
            rows = [
                {"dataset_id": dataset_id, "position": position, "item": item}
                for position, item in enumerate(items, first)
            ]
            if rows:
                await connection.execute(_ITEMS, rows)
            await connection.execute(_REMEMBER, push)
            size = sum(len(item.encode()) for item in items)
            stats = added(
                stats, itemCount=len(items), cleanItemCount=clean_count, storageBytes=size, writeCount=len(items)
            )
            await note_change(connection, dataset_id, stats, now)

        async def append_unless_alike(connection: AsyncConnection) -> Sequence[str]:
            """What this may be a repetition of; only where there is nothing, it is stored."""
            stats = await lock_storage(connection, _KIND, dataset_id)
            if answered:
                await _forget(connection, answered, too_old)
            alike = (await connection.execute(_REPEATED, asked)).scalars().all()
            if not alike:
                await append(connection, stats)
            return alike

        async def append_unless_there(connection: AsyncConnection, ids: Collection[str]) -> bool:
            stats = await lock_storage(connection, _KIND, dataset_id)
            repeated = (await connection.execute(_STILL_THERE, {"ids": ids})).scalar()
            if repeated is not None:
                await connection.execute(_FORGET_ONE, {"of_id": repeated})
                return False
            await append(connection, stats)
            return True

        alike = await self._database.write(append_unless_alike)
        self._answered.difference_update(answered)
        self._too_old = too_old
        if not alike:
            return True
        await self._until_forgotten(alike)
        return await self._database.write(partial(append_unless_there, ids=alike))

    async def _until_forgotten(self, push_ids: Collection[str]) -> None:
        """Until those of living processes are, which forget what they have answered; those of dead ones stay."""

        async def look(connection: AsyncConnection) -> bool:
            return (await connection.execute(_STILL_THERE, {"ids": push_ids})).first() is not None

        for _ in range(_LOOKS):
            await self._sleep(_LOOK_AGAIN_SECS)
            if not await self._database.read(look):
                return

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
