"""Items as an OOXML workbook with one sheet, put together in temporary files instead of in memory."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from typing import IO, Any, Self

import xlsxwriter

from gateway.core.errors import InvalidRequest
from gateway.core.item_tables import Cell, cell_text, cells
from gateway.core.item_view import Row

# The format's own bounds.
_MAX_ROWS = 1_048_576
_MAX_CELL_CHARS = 32_767
_MAX_EXACT_INT = 10**15  # a sheet's numbers have 15 digits


class TooManyRows(InvalidRequest):
    """More rows than a sheet can have."""

    def __init__(self) -> None:
        super().__init__(
            f"A sheet has at most {_MAX_ROWS} rows: ask for fewer with limit= and offset=, or take format=csv.",
            data={"field": "limit", "maxRows": _MAX_ROWS},
        )


class Workbook:
    """
    One sheet of rows. Texts are texts, whatever they look like: no formulas, no links.

    Numbers that a sheet would round are written as texts; a text longer than a cell may hold is cut. Not for several
    threads at once.
    """

    def __init__(self, columns: Sequence[str], *, has_header: bool) -> None:
        self._columns = tuple(columns)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by whoever reads it, or by __exit__
        self._book = xlsxwriter.Workbook(
            self._file,
            {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False},
        )
        self._sheet = self._book.add_worksheet()
        self._next_row = 0
        self._is_finished = False
        if has_header:
            self._write(self._columns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_finished:
            self._book.close()
            self._file.close()

    def add(self, rows: Iterable[Row]) -> None:
        """Append *rows*. Raises TooManyRows."""
        for row in rows:
            found = cells(row)
            self._write([found.get(column) for column in self._columns])

    def finish(self) -> IO[bytes]:
        """The whole workbook, from its first byte; the caller closes it, with which it is gone."""
        self._book.close()
        self._is_finished = True
        self._file.seek(0)
        return self._file

    def _write(self, values: Sequence[Cell]) -> None:
        if self._next_row == _MAX_ROWS:
            raise TooManyRows
        for column, value in enumerate(values):
            _write_cell(self._sheet, self._next_row, column, value)
        self._next_row += 1


def _write_cell(sheet: Any, row: int, column: int, value: Cell) -> None:
    match value:
        case None | "":
            return
        case bool():
            sheet.write_boolean(row, column, value)
        case int() | float() if abs(value) < _MAX_EXACT_INT and math.isfinite(value):
            sheet.write_number(row, column, value)
        case _:
            sheet.write_string(row, column, cell_text(value)[:_MAX_CELL_CHARS])
