"""What becomes of items on their way to a reader, and that every format can be read back."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest
from gateway.core.item_formats import (
    CsvWriter,
    HtmlWriter,
    ItemFormat,
    JsonLinesWriter,
    JsonWriter,
    RssWriter,
    Writer,
    XmlWriter,
    tag_name,
)
from gateway.core.item_tables import MAX_COLUMNS, Columns, TooManyColumns, cells
from gateway.core.item_view import ItemView, is_clean

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXTS, below, max_size=3),
    max_leaves=8,
)
ITEMS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), max_size=5)


@pytest.mark.parametrize(
    ("view", "item", "rows"),
    [
        pytest.param({}, {"a": 1}, [{"a": 1}], id="nothing asked: as it is"),
        pytest.param({"fields": ("b", "a", "x")}, {"a": 1, "b": 2, "c": 3}, [{"b": 2, "a": 1}], id="fields in order"),
        pytest.param(
            {"fields": ("a", "b"), "output_fields": ("x", "y")}, {"b": 2, "a": 1}, [{"x": 1, "y": 2}], id="renamed"
        ),
        pytest.param({"omit": frozenset({"a"})}, {"a": 1, "b": 2}, [{"b": 2}], id="omit"),
        pytest.param({"skip_hidden": True}, {"#debug": 1, "a": {"#b": 2}}, [{"a": {"#b": 2}}], id="hidden at the top"),
        pytest.param({"skip_empty": True}, {}, [], id="an empty one is skipped"),
        pytest.param({}, {}, [{}], id="an empty one stays"),
        pytest.param(
            {"skip_hidden": True, "skip_empty": True}, {"#debug": 1}, [], id="clean: only hidden fields is empty"
        ),
        pytest.param({"fields": ("x",), "skip_empty": True}, {"a": 1}, [], id="nothing chosen is empty"),
        pytest.param(
            {"unwind": ("a",)},
            {"a": [{"b": 1}, {"b": 2, "k": 3}], "k": 0},
            [{"k": 0, "b": 1}, {"k": 3, "b": 2}],
            id="unwind an array of objects",
        ),
        pytest.param({"unwind": ("a",)}, {"a": [1, 2], "k": 0}, [{"a": 1, "k": 0}, {"a": 2, "k": 0}], id="of values"),
        pytest.param({"unwind": ("a",)}, {"a": {"b": 1}, "k": 0}, [{"b": 1, "k": 0}], id="unwind an object"),
        pytest.param({"unwind": ("a",)}, {"a": "text"}, [{"a": "text"}], id="unwind what is neither"),
        pytest.param({"unwind": ("a",)}, {"k": 0}, [{"k": 0}], id="unwind what is not there"),
        pytest.param({"unwind": ("a",)}, {"a": [], "k": 0}, [], id="unwind an empty array"),
        pytest.param(
            {"unwind": ("a", "b")},
            {"a": [{"b": [1, 2]}, {"b": [3]}]},
            [{"b": 1}, {"b": 2}, {"b": 3}],
            id="one after the other",
        ),
        pytest.param(
            {"flatten": ("a",)},
            {"a": {"b": {"c": 1}, "d": [{"e": 2}], "f": {}}, "k": 0},
            [{"a.b.c": 1, "a.d": [{"e": 2}], "a.f": {}, "k": 0}],
            id="flatten objects to any depth, arrays stay",
        ),
        pytest.param({"flatten": ("a", "x")}, {"a": 1}, [{"a": 1}], id="flatten what is no object"),
        pytest.param(
            {"unwind": ("a",), "flatten": ("b",), "fields": ("b.c",)},
            {"a": [{"b": {"c": 1}}]},
            [{"b.c": 1}],
            id="unwind, then flatten, then fields",
        ),
    ],
)
def test_rows(view: dict[str, Any], item: Any, rows: Any) -> None:
    """Each step does what the reference says, in its order; the order of fields counts."""
    found = list(ItemView(**view).rows([item]))
    assert found == rows
    if "unwind" not in view:
        assert [list(row) for row in found] == [list(row) for row in rows]


def test_names_must_match() -> None:
    """New names are given to all chosen fields or to none."""
    with pytest.raises(InvalidRequest, match="outputFields must name as many"):
        ItemView(fields=("a", "b"), output_fields=("x",))


def test_flattening_is_bounded() -> None:
    """A field whose flat names would multiply it stays nested, however deep it is."""
    nested: Any = 1
    for _ in range(900):
        nested = {"k" * 10_000: nested}
    assert list(ItemView(flatten=("a",)).rows([{"a": nested}])) == [{"a": nested}]


def test_unwinding_is_lazy() -> None:
    """The first row of a huge product is there at once."""
    view = ItemView(unwind=("a", "b", "c"))
    numbers = list(range(10_000))
    assert next(view.rows([{"a": numbers, "b": numbers, "c": numbers}])) == {"a": 0, "b": 0, "c": 0}


@pytest.mark.parametrize(
    ("item", "clean"),
    [({"a": None}, True), ({"#a": 1, "b": 1}, True), ({"#a": 1}, False), ({}, False)],
    ids=["a field", "a field and a hidden one", "only hidden", "empty"],
)
def test_clean_items(item: Any, clean: bool) -> None:
    """A clean item has a field that is not hidden; the view that cleans shows just those."""
    assert is_clean(item) is clean
    assert bool(list(ItemView(skip_hidden=True, skip_empty=True).rows([item]))) is clean


def test_cells() -> None:
    """Nested values have columns by their path; what is empty is an empty cell."""
    row = {"a": {"b": [1, {"c": True}]}, "d": {}, "e": None, "f": "x"}
    assert cells(row) == {"a/b/0": 1, "a/b/1/c": True, "d": None, "e": None, "f": "x"}
    assert list(cells(row)) == ["a/b/0", "a/b/1/c", "d", "e", "f"]


def test_columns() -> None:
    """The columns are those of all rows as they appear; chosen fields come first and are never missing."""
    rows: list[Any] = [{"b": 1}, {"a": {"x": 1}, "b": 2}, {"a": {"y": 1}, "c": 3}]
    columns = Columns()
    columns.see(rows)
    assert columns.names() == ("b", "a/x", "a/y", "c")
    chosen = Columns(["a", "none", "b"])
    chosen.see(rows)
    assert chosen.names() == ("a/x", "a/y", "none", "b", "c")


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([{f"f{n}": n for n in range(MAX_COLUMNS + 1)}], id="in one row"),
        pytest.param([{f"f{n}": n} for n in range(MAX_COLUMNS + 1)], id="over many rows"),
        pytest.param([{"a": list(range(MAX_COLUMNS + 1))}], id="in an array"),
        pytest.param([{"a": [[n, n] for n in range(MAX_COLUMNS // 2 + 1)]}], id="in arrays of an array"),
    ],
)
def test_too_many_columns(rows: Any) -> None:
    """More columns than a table may have are refused, not left out."""
    with pytest.raises(TooManyColumns, match="choose some with fields="):
        Columns().see(rows)


def test_as_many_columns_as_may_be() -> None:
    """The bound itself is fine; long names are cut, deep values are JSON."""
    columns = Columns()
    columns.see([{f"f{n}": n for n in range(MAX_COLUMNS)}])
    assert len(columns.names()) == MAX_COLUMNS
    nested: Any = {"k": 1}
    for _ in range(300):
        nested = [nested]
    ((name, value),) = cells({"a" * 300: nested}).items()
    assert name == "a" * 200
    assert json.loads(str(value))


def _written(writer: Writer, *pages: Any) -> str:
    return writer.head() + "".join("".join(writer.rows(page)) for page in pages) + writer.tail()


@given(first=ITEMS, second=ITEMS)
def test_json_is_read_back(first: Any, second: Any) -> None:
    """All items of all pages, as one array or as lines, whatever they hold."""
    assert json.loads(_written(JsonWriter(), first, second)) == first + second
    lines = _written(JsonLinesWriter(), first, second).split("\n")
    assert [json.loads(line) for line in lines[:-1]] == first + second


@given(items=ITEMS, delimiter=st.sampled_from([",", ";", "\t", "|", " "]))
def test_csv_is_read_back(items: Any, delimiter: str) -> None:
    """A CSV reader finds each text in its column, with commas, quotes and line ends in it."""
    rows = [{name: value for name, value in item.items() if isinstance(value, str)} for item in items]
    columns = Columns()
    columns.see(rows)
    names = columns.names()
    written = _written(CsvWriter(names, delimiter=delimiter), rows)
    read = list(csv.reader(io.StringIO(written, newline=""), delimiter=delimiter, strict=True))
    expected = [list(names), *([row.get(name, "") for name in names] for row in rows)] if names else [[]] * len(rows)
    assert read == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        pytest.param({}, "a,b\r\n1,\r\n,true\r\n", id="numbers, nothing, truth"),
        pytest.param({"has_header": False}, "1,\r\n,true\r\n", id="no header"),
        pytest.param({"delimiter": ";"}, "a;b\r\n1;\r\n;true\r\n", id="another delimiter"),
    ],
)
def test_csv(options: dict[str, Any], text: str) -> None:
    """The exact text of a small table."""
    assert _written(CsvWriter(("a", "b"), **options), [{"a": 1}, {"a": None, "b": True}]) == text


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_html_keeps_markup_as_text() -> None:
    """Markup in names and values is shown, never obeyed."""
    page = _Cells()
    evil = "<script>alert('1')</script>&amp;"
    page.feed(_written(HtmlWriter((evil, "b")), [{evil: 1, "b": evil}]))
    assert set(page.tags) == {"html", "head", "meta", "body", "table", "tr", "th", "td"}
    assert page.texts.count(evil) == 2


XML_ITEM = {
    "@": {"id": 1, "class": '"<&'},
    "#": "text & more",
    "list": [1, [2, 3]],
    "none": None,
    "empty": "",
    "yes": True,
    "2 bad<name": {"deep": 1.5},
}


def test_xml() -> None:
    """Attributes, text, repeated elements, empty ones, nested ones, and names made fit."""
    root = ElementTree.fromstring(_written(XmlWriter(root="all things", row="thing"), [XML_ITEM], [{}]))
    assert root.tag == "all_things"
    item, empty = root
    assert (item.tag, item.attrib, item.text) == ("thing", {"id": "1", "class": '"<&'}, "text & more")
    assert [(child.tag, child.text) for child in item] == [
        ("list", "1"),
        ("list", "2"),
        ("list", "3"),
        ("none", None),
        ("empty", None),
        ("yes", "true"),
        ("_2_bad_name", None),
    ]
    assert item[-1][0].text == "1.5"
    assert (empty.tag, list(empty)) == ("thing", [])


def test_rss() -> None:
    """A feed with a channel and an item each."""
    feed = RssWriter(title="a < b", link="http://x/", description="")
    root = ElementTree.fromstring(_written(feed, [{"title": "one"}, {"title": "two"}]))
    assert root.attrib == {"version": "2.0"}
    assert root.findtext("channel/title") == "a < b"
    assert [item.findtext("title") for item in root.iter("item")] == ["one", "two"]


@given(items=ITEMS)
def test_xml_is_well_formed(items: Any) -> None:
    """Whatever items hold, what is written is XML and has an element for each of them."""
    assert len(ElementTree.fromstring(_written(XmlWriter(), items))) == len(items)
    rss = ElementTree.fromstring(_written(RssWriter(title="t", link="l", description="d"), items))
    assert len([child for child in rss[0] if child.tag == "item"]) == len(items)


def test_deep_items_in_xml() -> None:
    """What is nested deeper than elements should be is written as JSON."""
    nested: Any = "x"
    for _ in range(300):
        nested = {"a": [nested]}
    texts = "".join(ElementTree.fromstring(_written(XmlWriter(), [nested])).itertext())
    assert json.loads(texts)


@given(name=TEXTS)
def test_tag_names(name: str) -> None:
    """Any name becomes one that XML allows."""
    ElementTree.fromstring(f"<{tag_name(name)}/>")


@pytest.mark.parametrize("format_", list(ItemFormat), ids=list(ItemFormat))
def test_every_format_has_a_content_type(format_: ItemFormat) -> None:
    """Texts say that they are UTF-8."""
    assert "/" in format_.content_type
    assert format_ is ItemFormat.XLSX or format_.content_type.endswith("; charset=utf-8")
