"""
No I/O: items as rows of a table, for the formats that have columns.

Nested values get columns of their own, ``a/b`` for objects and ``a/0`` for arrays. The columns are those of all rows,
in the order in which they first appear, so the rows are looked through once before they are written. There is a bound
on columns and on their names' lengths: with more, the caller has to choose. Source: apify-wire.md §7.3.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gateway.core.errors import InvalidRequest
from gateway.core.item_view import Row

MAX_COLUMNS = 2000
MAX_COLUMN_NAME_CHARS = 200

Cell = str | int | float | bool | None

_MAX_DEPTH = 100  # what is nested deeper is one cell, as JSON


class TooManyColumns(InvalidRequest):
    """The items have more different fields than a table may have columns."""

    def __init__(self) -> None:
        super().__init__(
            f"These items would make more than {MAX_COLUMNS} columns: choose some with fields=, or take format=json.",
            data={"field": "fields", "maxColumns": MAX_COLUMNS},
        )


def cells(row: Row) -> dict[str, Cell]:
    """
    The values of *row* by column; an empty object or array is an empty cell.

    Columns whose names are the same in their first ``MAX_COLUMN_NAME_CHARS`` are one. Raises TooManyColumns.
    """
    found: dict[str, Cell] = {}
    waiting: list[tuple[str, int, Any]] = [(_cut(name), 1, value) for name, value in reversed(row.items())]
    while waiting:
        name, depth, value = waiting.pop()
        nested = _nested(value)
        if nested is None:
            found[name] = value
        elif depth >= _MAX_DEPTH:
            found[name] = json.dumps(value, ensure_ascii=False)
        elif nested:
            if len(nested) > MAX_COLUMNS:
                raise TooManyColumns
            waiting.extend((_cut(f"{name}/{key}"), depth + 1, below) for key, below in reversed(nested))
        else:
            found[name] = None
        if len(found) > MAX_COLUMNS:
            raise TooManyColumns
    return found


def _nested(value: Any) -> list[tuple[str, Any]] | None:
    match value:
        case dict():
            return list(value.items())
        case list():
            return [(str(index), below) for index, below in enumerate(value)]
        case _:
            return None


def _cut(name: str) -> str:
    return name[:MAX_COLUMN_NAME_CHARS]


class Columns:
    """Collects the columns of rows. *chosen* fields come first, in their order, also where no row has them."""

    def __init__(self, chosen: Sequence[str] = ()) -> None:
        self._chosen = tuple(_cut(name) for name in chosen)
        self._found: dict[str, None] = {}

    def see(self, rows: Iterable[Row]) -> None:
        """Take in the columns of *rows*. Raises TooManyColumns."""
        for row in rows:
            self._found.update(dict.fromkeys(cells(row)))
            if len(self._found) > MAX_COLUMNS:
                raise TooManyColumns

    def names(self) -> tuple[str, ...]:
        """All columns so far."""
        arranged: dict[str, None] = {}
        by_field: dict[str, list[str]] = {}
        for name in self._found:
            for field in self._fields_of(name):
                by_field.setdefault(field, []).append(name)
        for field in self._chosen:
            arranged.update(dict.fromkeys(by_field.get(field, [field])))
        arranged.update(self._found)
        return tuple(arranged)

    def _fields_of(self, name: str) -> Iterator[str]:
        """The chosen fields that the column may be of."""
        return (field for field in self._chosen if name == field or name.startswith(f"{field}/"))


def cell_text(value: Cell) -> str:
    """*value* as text: numbers and truth values as in JSON, null as nothing."""
    match value:
        case None:
            return ""
        case str():
            return value
        case _:
            return json.dumps(value)
