"""
No I/O: what of a dataset's items a reader asks for, once some of them have been selected.

In this order: *unwind*, *flatten*, *fields* or *omit*, *skip_hidden*, *skip_empty*. Nothing is ever built of more than
one item, so a page costs no more memory than its largest row. Source: apify-wire.md §7.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.errors import InvalidRequest

Row = dict[str, Any]

# Names of nested fields repeat those above them; what would grow beyond this is left nested.
_MAX_FLAT_CHARS = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemView:
    """
    All empty: items as they are stored. Names mean fields at the top of an item (after *flatten* also ``a.b``).

    *fields* are taken in this order, under the names *output_fields* where those are given.
    """

    unwind: tuple[str, ...] = ()
    flatten: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    output_fields: tuple[str, ...] = ()
    omit: frozenset[str] = frozenset()
    skip_hidden: bool = False
    skip_empty: bool = False

    def __post_init__(self) -> None:
        if self.output_fields and len(self.output_fields) != len(self.fields):
            raise InvalidRequest(
                f"outputFields must name as many fields as fields does, which are {len(self.fields)}.",
                data={"field": "outputFields"},
            )

    @property
    def is_plain(self) -> bool:
        """Whether items come out as they went in."""
        return self == _PLAIN

    @property
    def shown_fields(self) -> tuple[str, ...]:
        """The names under which the chosen fields come out; none where all do."""
        return self.output_fields or self.fields

    def rows(self, items: Iterable[Row]) -> Iterator[Row]:
        """What becomes of *items*, one after the other."""
        for item in items:
            for row in _unwound(item, self.unwind):
                seen = self._seen(row)
                if seen or not self.skip_empty:
                    yield seen

    def _seen(self, row: Row) -> Row:
        for name in self.flatten:
            row = _flattened(row, name)
        if self.fields:
            shown = zip(self.fields, self.shown_fields, strict=True)
            row = {output: row[name] for name, output in shown if name in row}
        if self.omit:
            row = {name: value for name, value in row.items() if name not in self.omit}
        return without_hidden(row) if self.skip_hidden else row


_PLAIN = ItemView()


def without_hidden(row: Mapping[str, Any]) -> Row:
    """*row* without the fields whose names begin with ``#``."""
    return {name: value for name, value in row.items() if not name.startswith("#")}


def is_clean(item: Mapping[str, Any]) -> bool:
    """Whether anything of *item* is left without its hidden fields: such items make up ``cleanItemCount``."""
    return any(not name.startswith("#") for name in item)


def _unwound(row: Row, names: tuple[str, ...]) -> Iterator[Row]:
    """
    One row for each element of the array *names[0]*, and so on with the other names.

    An object takes the place of its field, in an array as without one; anything else stays under the field's name.
    An array without elements makes no row.
    """
    if not names:
        yield row
        return
    name, rest = names[0], names[1:]
    value = row.get(name)
    if not isinstance(value, list | dict):
        yield from _unwound(row, rest)
        return
    parent = {key: other for key, other in row.items() if key != name}
    for element in value if isinstance(value, list) else [value]:
        merged = {**parent, **element} if isinstance(element, dict) else {**parent, name: element}
        yield from _unwound(merged, rest)


def _flattened(row: Row, name: str) -> Row:
    """*row* with the object *name*, to whatever depth, spread out as ``name.a``, ``name.a.b`` in its place."""
    value = row.get(name)
    if not isinstance(value, dict) or not value:
        return row
    spread: Row = {}
    chars = 0
    waiting = [(name, value)]
    while waiting:
        path, nested = waiting.pop()
        if isinstance(nested, dict) and nested:
            chars += sum(len(path) + len(key) for key in nested)
            if chars > _MAX_FLAT_CHARS:
                return row
            waiting.extend((f"{path}.{key}", below) for key, below in reversed(nested.items()))
        else:
            spread[path] = nested
    flat: Row = {}
    for key, other in row.items():
        flat.update(spread if key == name else {key: other})
    return flat
