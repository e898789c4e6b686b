"""No I/O: which of a dataset's items a call asks for, and in which form. Source: apify-wire.md §7.3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.api.fields import Query, refuse
from gateway.core.item_formats import (
    CsvWriter,
    HtmlWriter,
    ItemFormat,
    JsonLinesWriter,
    JsonWriter,
    RssWriter,
    Writer,
    XmlWriter,
)
from gateway.core.item_view import ItemView

NO_LIMIT = 999_999_999_999  # what the header says where no limit was given

_MAX_NAMES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemsQuery:
    """What was asked for; ``limit`` None: all."""

    format: ItemFormat = ItemFormat.JSON
    offset: int = 0
    limit: int | None = None
    desc: bool = False
    view: ItemView = field(default_factory=ItemView)
    has_bom: bool = False
    delimiter: str = ","
    has_header: bool = True
    xml_root: str = "items"
    xml_row: str = "item"
    feed_title: str | None = None
    feed_description: str = ""
    is_attachment: bool = False

    def writer(self, columns: tuple[str, ...], *, name: str, url: str) -> Writer:
        """What writes the items of the dataset *name*; *columns* only where the format has any."""
        match self.format:
            case ItemFormat.JSONL:
                return JsonLinesWriter()
            case ItemFormat.CSV:
                return CsvWriter(columns, delimiter=self.delimiter, has_header=self.has_header)
            case ItemFormat.HTML:
                return HtmlWriter(columns)
            case ItemFormat.XML:
                return XmlWriter(root=self.xml_root, row=self.xml_row)
            case ItemFormat.RSS:
                return RssWriter(title=self.feed_title or name, link=url, description=self.feed_description)
            case _:
                return JsonWriter()


def items_query(query: Query, transformation: Mapping[str, Any] | None = None) -> ItemsQuery:
    """
    What *query* asks for; *transformation* (of a view in the dataset's schema) says what the query leaves open.

    Raises InvalidRequest.
    """
    given = transformation or {}
    item_format = _format(query)
    clean = query.flag("clean")
    view = ItemView(
        unwind=_names(query, "unwind", given),
        flatten=_names(query, "flatten", given),
        fields=_names(query, "fields", given),
        output_fields=_names(query, "outputFields", {}),
        omit=frozenset(_names(query, "omit", given)),
        skip_hidden=query.flag("skipHidden", clean),
        skip_empty=query.flag("skipEmpty", clean),
    )
    # Clients send 0 or the number in the header for "no limit".
    limit = query.whole("limit")
    limit = _whole(given, "limit") if limit is None else limit
    return ItemsQuery(
        format=item_format,
        offset=query.whole("offset") or 0,
        limit=limit if limit and limit < NO_LIMIT else None,
        desc=query.flag("desc", given.get("desc") is True),
        view=view,
        has_bom=query.flag("bom", item_format is ItemFormat.CSV),
        delimiter=_delimiter(query),
        has_header=not query.flag("skipHeaderRow"),
        xml_root=query.text("xmlRoot") or "items",
        xml_row=query.text("xmlRow") or "item",
        feed_title=query.text("feedTitle"),
        feed_description=query.text("feedDescription") or "",
        is_attachment=query.flag("attachment"),
    )


def _format(query: Query) -> ItemFormat:
    given = query.text("format") or ItemFormat.JSON
    try:
        return ItemFormat(given.lower())
    except ValueError:
        raise refuse("format", f"one of {', '.join(ItemFormat)}") from None


def _names(query: Query, parameter: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """A comma list; of *given* where the query has none."""
    text = query.text(parameter)
    if text is not None:
        names = tuple(name for part in text.split(",") if (name := part.strip()))
    else:
        listed = given.get(parameter)
        names = tuple(name for name in listed if isinstance(name, str)) if isinstance(listed, list) else ()
    if len(names) > _MAX_NAMES:
        raise refuse(parameter, f"a comma list of at most {_MAX_NAMES} names")
    return names


def _whole(given: Mapping[str, Any], key: str) -> int | None:
    value = given.get(key)
    return value if isinstance(value, int) and value > 0 else None


def _delimiter(query: Query) -> str:
    given = query.values.get("delimiter") or ","
    given = "\t" if given == "\\t" else given
    if len(given) != 1 or given in '"\r\n\0':
        raise refuse("delimiter", 'one character, and not " or the end of a line')
    return given
