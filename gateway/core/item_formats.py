"""
No I/O: items as JSON, JSON lines, CSV, HTML, XML and RSS, written piece by piece.

A writer's ``head()`` comes first, then the pieces of ``rows()``, called as often as there are pages, then ``tail()``.
What is written is text for a program or a browser that trusts nobody: markup in items stays text.
Source: apify-wire.md §7.3.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from html import escape
from typing import Any, Protocol

from gateway.core.item_tables import cell_text, cells
from gateway.core.item_view import Row

BOM = "\ufeff"

_MAX_XML_DEPTH = 100  # what is nested deeper is written as JSON
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NOT_IN_TAGS = re.compile(r"[^A-Za-z0-9_.\-]")
_MAX_TAG_CHARS = 200


class ItemFormat(StrEnum):
    """How items can be had; the words of ``?format=`` and the endings of file names."""

    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    HTML = "html"
    XLSX = "xlsx"
    XML = "xml"
    RSS = "rss"

    @property
    def content_type(self) -> str:
        """As it stands in the header."""
        return _CONTENT_TYPES[self]

    @property
    def has_columns(self) -> bool:
        """Whether the columns must be known before the first row."""
        return self in {ItemFormat.CSV, ItemFormat.HTML, ItemFormat.XLSX}


_CONTENT_TYPES = {
    ItemFormat.JSON: "application/json; charset=utf-8",
    ItemFormat.JSONL: "application/jsonl; charset=utf-8",
    ItemFormat.CSV: "text/csv; charset=utf-8",
    ItemFormat.HTML: "text/html; charset=utf-8",
    ItemFormat.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ItemFormat.XML: "application/xml; charset=utf-8",
    ItemFormat.RSS: "application/rss+xml; charset=utf-8",
}


class Writer(Protocol):
    """Writes all rows of one answer; see the module."""

    def head(self) -> str: ...
    def rows(self, rows: Iterable[Row]) -> Iterator[str]: ...
    def tail(self) -> str: ...


def json_text(item: Any) -> str:
    """*item* as compact JSON, the form in which items are stored and answered."""
    return json.dumps(item, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class JsonWriter:
    """One array."""

    def __init__(self) -> None:
        self._separator = ""

    def head(self) -> str:
        """The array begins."""
        return "["

    def rows(self, rows: Iterable[Row]) -> Iterator[str]:
        """Its elements."""
        return self.texts(map(json_text, rows))

    def texts(self, texts: Iterable[str]) -> Iterator[str]:
        """The same of items that are JSON texts already."""
        for text in texts:
            yield f"{self._separator}{text}"
            self._separator = ","

    def tail(self) -> str:
        """The array ends."""
        return "]"


class JsonLinesWriter:
    """A JSON object on each line."""

    def head(self) -> str:
        """Nothing."""
        return ""

    def rows(self, rows: Iterable[Row]) -> Iterator[str]:
        """A line each."""
        return self.texts(map(json_text, rows))

    def texts(self, texts: Iterable[str]) -> Iterator[str]:
        """The same of items that are JSON texts already."""
        return (f"{text}\n" for text in texts)

    def tail(self) -> str:
        """Nothing."""
        return ""


class CsvWriter:
    """RFC 4180: fields are quoted where they must be, lines end with CR LF."""

    def __init__(self, columns: Sequence[str], *, delimiter: str = ",", has_header: bool = True) -> None:
        self._columns = tuple(columns)
        self._delimiter = delimiter
        self._has_header = has_header

    def head(self) -> str:
        """The names of the columns."""
        return self._line(self._columns) if self._has_header and self._columns else ""

    def rows(self, rows: Iterable[Row]) -> Iterator[str]:
        """A line each."""
        for row in rows:
            found = cells(row)
            yield self._line([cell_text(found.get(column)) for column in self._columns])

    def _line(self, values: Sequence[str]) -> str:
        line = io.StringIO()
        csv.writer(line, delimiter=self._delimiter).writerow(values)
        return line.getvalue()

    def tail(self) -> str:
        """Nothing."""
        return ""


class HtmlWriter:
    """A page with one table."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = tuple(columns)

    def head(self) -> str:
        """The page up to the first row."""
        names = "".join(f"<th>{escape(column)}</th>" for column in self._columns)
        return f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"></head><body><table>\n<tr>{names}</tr>\n'

    def rows(self, rows: Iterable[Row]) -> Iterator[str]:
        """A row each."""
        for row in rows:
            found = cells(row)
            values = "".join(f"<td>{escape(cell_text(found.get(column)))}</td>" for column in self._columns)
            yield f"<tr>{values}</tr>\n"

    def tail(self) -> str:
        """The end of the page."""
        return "</table></body></html>\n"


class XmlWriter:
    """
    One element for each item, its fields as elements in it.

    An array repeats its element, null is an empty one, the object under ``@`` holds attributes, ``#`` text. Characters
    that a name of XML may not have become ``_``; those that no XML may have are replaced.
    """

    def __init__(self, *, root: str = "items", row: str = "item") -> None:
        self._root, self._row = tag_name(root), tag_name(row)

    def head(self) -> str:
        """The root begins."""
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<{self._root}>\n'

    def rows(self, rows: Iterable[Row]) -> Iterator[str]:
        """An element each."""
        for row in rows:
            yield from _elements(self._row, row, 1)
            yield "\n"

    def tail(self) -> str:
        """The root ends."""
        return f"</{self._root}>\n"


class RssWriter:
    """An RSS 2.0 feed; items written as in XML, so fields called ``title`` and ``link`` mean what feeds mean."""

    def __init__(self, *, title: str, link: str, description: str) -> None:
        self._channel = {"title": title, "link": link, "description": description}

    def head(self) -> str:
        """The channel begins."""
        channel = "".join(f"<{name}>{_xml_text(value)}</{name}>\n" for name, value in self._channel.items())
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<rss version="2.0"><channel>\n{channel}'

    def rows(self, rows: Iterable[Row]) -> Iterator[str]:
        """An item each."""
        for row in rows:
            yield from _elements("item", row, 1)
            yield "\n"

    def tail(self) -> str:
        """The channel ends."""
        return "</channel></rss>\n"


def tag_name(name: str) -> str:
    """*name*, or what is nearest to it among the names that an element may have."""
    tag = _NOT_IN_TAGS.sub("_", name[:_MAX_TAG_CHARS])
    return tag if tag[:1].isalpha() or tag[:1] == "_" else f"_{tag}"


def _xml_text(value: Any) -> str:
    """A value that is no object or array, or is nested too deeply, as text of XML."""
    text = json_text(value) if isinstance(value, dict | list) else cell_text(value)
    return escape(_NOT_IN_XML.sub("\ufffd", text))


def _elements(name: str, value: Any, depth: int) -> Iterator[str]:
    """The element *name*, or as many of it as the array *value* has elements."""
    tag = tag_name(name)
    match value:
        case list() if depth < _MAX_XML_DEPTH:
            for element in value:
                yield from _elements(name, element, depth + 1)
        case dict() if depth < _MAX_XML_DEPTH:
            attributes = value.get("@")
            has_attributes = isinstance(attributes, dict)
            yield f"<{tag}{_attributes(attributes) if isinstance(attributes, dict) else ''}>"
            for key, below in value.items():
                if key == "@" and has_attributes:
                    continue
                if key == "#" and not isinstance(below, dict | list):
                    yield _xml_text(below)
                else:
                    yield from _elements(key, below, depth + 1)
            yield f"</{tag}>"
        case None | "":
            yield f"<{tag}/>"
        case _:
            yield f"<{tag}>{_xml_text(value)}</{tag}>"


def _attributes(values: dict[str, Any]) -> str:
    by_name = {tag_name(name): value for name, value in values.items()}  # an element has each attribute once
    return "".join(f' {name}="{_xml_text(value)}"' for name, value in by_name.items())
