"""All rows of the records, out of one database and into another: every table, every column, as plain values."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    String,
    Table,
    TypeDecorator,
    insert,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from gateway.core.dump_format import BadDump
from gateway.core.errors import InvalidRequest
from gateway.state.database import Database
from gateway.state.tables import metadata

Row = dict[str, Any]
Rows = Sequence[Row]

_READ_AT_ONCE = 20  # items of datasets can have megabytes
_ROWS_AT_ONCE = 500
_VALUES_AT_ONCE = 8 * 1024 * 1024  # characters of texts and bytes, in one statement
_REPLACEMENT = "\ufffd"


def _plain(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type of a column without what turns values into Greenroom's own."""
    if isinstance(kind, TypeDecorator):
        kind = kind.impl_instance
    if isinstance(kind, JSON):
        return JSON(none_as_null=True)
    for plain in (LargeBinary, Boolean):
        if isinstance(kind, plain):
            return plain()
    return BigInteger() if isinstance(kind, Integer) else String()


# Each after those that it refers to.
_TABLES = {
    table.name: Table(table.name, MetaData(), *(Column(column.name, _plain(column.type)) for column in table.columns))
    for table in metadata.sorted_tables
}
_KEYS = {table.name: [column.name for column in table.primary_key] for table in metadata.sorted_tables}


async def is_empty(database: Database) -> bool:
    """Whether no table holds a row."""

    async def look(connection: AsyncConnection) -> bool:
        return await _holds_nothing(connection)

    return await database.read(look)


async def export_rows(database: Database, take: Callable[[str, Rows], None]) -> None:
    """Give all rows to *take*, some at a time, in the order in which ``import_rows`` wants them; all of one moment."""

    async def change(connection: AsyncConnection) -> None:
        for name, table in _TABLES.items():
            statement = select(table).order_by(*(table.c[key] for key in _KEYS[name]))
            found = await connection.stream(statement.execution_options(yield_per=_READ_AT_ONCE))
            async for some in found.mappings().partitions():
                take(name, [_written(row) for row in some])

    await database.long_write(change, is_snapshot=True)


async def import_rows(database: Database, rows: Iterator[tuple[str, Row]], note: Callable[[str, int], None]) -> int:
    """
    Store *rows*, each with its table, in an empty database: all or, where *rows* raise an error, none.

    *note* hears how many rows each table has got. Answers how many texts and numbers had to be mended, because the
    database can't hold them: a character 0 becomes U+FFFD, what is no number null. Raises BadDump for rows that don't
    fit, and InvalidRequest where the database is not empty.
    """
    mended = 0

    async def change(connection: AsyncConnection) -> None:
        nonlocal mended
        if not await _holds_nothing(connection):
            raise InvalidRequest("The records are not empty.")
        for name, some in _batches(rows):
            table = _TABLES[name]
            values = [_read(table, row) for row in some]
            if not database.holds_anything:
                mended += sum(_mend(value) for value in values)
            await connection.execute(insert(table), values)
            note(name, len(values))

    await database.long_write(change, is_alone=True)
    return mended


async def _holds_nothing(connection: AsyncConnection) -> bool:
    for table in _TABLES.values():
        if (await connection.execute(select(*table.columns).limit(1))).first() is not None:
            return False
    return True


def _batches(rows: Iterator[tuple[str, Row]]) -> Iterator[tuple[str, Rows]]:
    """Rows of one table, as many as go into one statement."""
    order = list(_TABLES)
    table, batch, size = order[0], list[Row](), 0
    for name, row in rows:
        if name not in _TABLES or order.index(name) < order.index(table):
            raise BadDump(f"Rows of {name!r} don't belong where they stand.")
        if name != table or len(batch) == _ROWS_AT_ONCE or size > _VALUES_AT_ONCE:
            if batch:
                yield table, batch
            table, batch, size = name, [], 0
        batch.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, str))
    if batch:
        yield table, batch


def _written(row: RowMapping) -> Row:
    """A row for JSON."""
    return {
        str(name): base64.b64encode(value).decode() if isinstance(value, bytes | memoryview) else value
        for name, value in row.items()
    }


def _read(table: Table, row: Row) -> Row:
    """A row for the database. Raises BadDump where it is none of *table*."""
    if row.keys() != set(table.columns.keys()):
        raise BadDump(f"A row of {table.name} has other columns than this Greenroom knows: {sorted(row)}.")
    values = dict(row)
    for column in table.columns:
        value = values[column.name]
        if value is None or isinstance(column.type, JSON):
            continue
        if isinstance(column.type, LargeBinary):
            value = values[column.name] = _bytes(value)
        expected = column.type.python_type
        if type(value) is not expected:
            raise BadDump(f"A row of {table.name} has a {type(value).__name__} as {column.name}.")
    return values


def _bytes(value: Any) -> Any:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return None


def _mend(values: Row) -> int:
    """Replace what a strict database refuses; how often."""
    mended = 0
    for name, value in values.items():
        if isinstance(value, str) and "\0" in value:
            values[name] = value.replace("\0", _REPLACEMENT)
            mended += 1
        elif isinstance(value, dict | list):
            values[name], number = _without_nan(value)
            mended += number
    return mended


def _without_nan(value: Any) -> tuple[Any, int]:
    """JSON with null in place of what JSON has no word for; how often."""
    if isinstance(value, float) and not math.isfinite(value):
        return None, 1
    if isinstance(value, dict):
        parts = {name: _without_nan(part) for name, part in value.items()}
        return {name: part for name, (part, _) in parts.items()}, sum(number for _, number in parts.values())
    if isinstance(value, list):
        items = [_without_nan(item) for item in value]
        return [item for item, _ in items], sum(number for _, number in items)
    return value, 0
