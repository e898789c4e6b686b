"""One page of the records of a kind, with the number of all that match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.model import Page
from gateway.state.database import Database
from gateway.state.ports import Listing
from gateway.state.rows import Rows

T = TypeVar("T")


async def list_page(
    database: Database, rows: Rows[T], order: str, page: Page, *conditions: ColumnElement[bool], **keys: str | None
) -> Listing[T]:
    """The records whose columns have the values of *keys* (None: any); page and total are of one moment."""
    columns = rows.table.c
    where = [*conditions, *(columns[name] == key for name, key in keys.items() if key is not None)]
    part = rows.select.where(*where).order_by(*_ordered(columns[order], columns.id, desc=page.desc))
    found = part.offset(page.offset).limit(page.limit).subquery()
    total = select(func.count().label("total")).select_from(rows.table).where(*where).subquery()
    # The total on the left: an empty page has it too, on a row without a record.
    both = select(total.c.total, *found.c).select_from(total.outerjoin(found, true()))
    statement = both.order_by(*_ordered(found.c[order], found.c.id, desc=page.desc))

    async def look(connection: AsyncConnection) -> Sequence[Row[*tuple[Any, ...]]]:
        return (await connection.execute(statement)).all()

    answer = await database.read(look)
    return Listing(
        items=tuple(rows.record(row[1:]) for row in answer if row[1] is not None),
        total=answer[0].total,
    )


def _ordered(*columns: ColumnElement[Any], desc: bool) -> list[ColumnElement[Any]]:
    return [column.desc() if desc else column.asc() for column in columns]
