"""The forgetting of old decisions, in small writes: between two of them others have their turn."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.state.database import Database
from gateway.state.rows import DECISIONS

_AT_ONCE = 2000


async def forget_decisions(database: Database, before: datetime, keep_per_pool: int) -> int:
    """Delete those made *before*, and of each pool all but the newest *keep_per_pool*; how many there were."""
    columns = DECISIONS.table.c
    forgotten = await _delete(database, columns.at < before)
    for pool_id in await _crowded(database, keep_per_pool):
        last = await _last_kept(database, pool_id, keep_per_pool)
        if last is not None:
            at, last_id = literal(last[0], columns.at.type), literal(last[1], columns.id.type)
            older = tuple_(columns.at, columns.id) < tuple_(at, last_id)
            forgotten += await _delete(database, columns.pool_id == pool_id, older)
    return forgotten


async def _crowded(database: Database, keep: int) -> list[str]:
    columns = DECISIONS.table.c
    statement = select(columns.pool_id).group_by(columns.pool_id).having(func.count() > keep)

    async def look(connection: AsyncConnection) -> list[str]:
        return list((await connection.execute(statement)).scalars())

    return await database.read(look)


async def _last_kept(database: Database, pool_id: str, keep: int) -> tuple[datetime, str] | None:
    columns = DECISIONS.table.c
    newest_first = select(columns.at, columns.id).where(columns.pool_id == pool_id)
    statement = newest_first.order_by(columns.at.desc(), columns.id.desc()).offset(keep - 1).limit(1)

    async def look(connection: AsyncConnection) -> tuple[datetime, str] | None:
        row = (await connection.execute(statement)).first()
        return (row.at, row.id) if row is not None else None

    return await database.read(look)


async def _delete(database: Database, *which: ColumnElement[bool]) -> int:
    columns = DECISIONS.table.c
    some = select(columns.id).where(*which).limit(_AT_ONCE)
    statement = delete(DECISIONS.table).where(columns.id.in_(some))

    async def change(connection: AsyncConnection) -> int:
        return (await connection.execute(statement)).rowcount

    deleted = 0
    while True:
        count = await database.write(change)
        deleted += count
        if count < _AT_ONCE:
            return deleted
