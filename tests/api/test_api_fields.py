"""Fields of bodies and queries: what is taken, and that each mistake names its field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.fields import MAX_INT, Fields, Query
from gateway.api.pagination import listing, page_of
from gateway.core.errors import InvalidRequest
from gateway.core.model import Page


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("true", True, id="as Python clients write it"),
        pytest.param("false", False, id="and its opposite"),
        pytest.param("1", True, id="as JavaScript clients write it"),
        pytest.param("0", False, id="0 is off"),
        pytest.param("TRUE", True, id="letter case does not count"),
        pytest.param("", False, id="empty is off"),
    ],
)
def test_flags_in_queries(text: str, expected: bool) -> None:
    """Both clients' spellings of a boolean are understood."""
    assert Query({"x": text}).flag("x", default=not expected) is expected


@pytest.mark.parametrize("text", ["yes", "2", "tru e", "nul"])
def test_no_flag(text: str) -> None:
    """Anything else is refused by name."""
    with pytest.raises(InvalidRequest, match="desc"):
        Query({"desc": text}).flag("desc")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param({}, Page(), id="nothing: the first thousand"),
        pytest.param({"limit": "5", "offset": "7", "desc": "1"}, Page(offset=7, limit=5, desc=True), id="all given"),
        pytest.param({"limit": "100000"}, Page(limit=1000), id="never more than a thousand"),
        pytest.param({"limit": "0"}, Page(limit=1000), id="0 is no wish"),
        pytest.param({"offset": "9" * 400}, Page(offset=MAX_INT), id="absurd but harmless"),
    ],
)
def test_page(query: dict[str, str], expected: Page) -> None:
    """Lists are cut by offset and limit."""
    assert page_of(Query(query)) == expected


@pytest.mark.parametrize("field", ["offset", "limit"])
@pytest.mark.parametrize("text", ["-1", "1.5", "ten", "\u0661", "-", "1e3"])
def test_page_refused(field: str, text: str) -> None:
    """A negative or malformed figure is refused, and the field named."""
    with pytest.raises(InvalidRequest, match=field) as refused:
        page_of(Query({field: text}))
    assert refused.value.data == {"field": field}


def test_listing_has_all_counters() -> None:
    """Clients refuse a list that lacks one of the five counters."""
    page = Page(offset=2, limit=10, desc=True)
    assert listing(["a", "b"], page, 4) == {
        "total": 4,
        "offset": 2,
        "limit": 10,
        "count": 2,
        "desc": True,
        "items": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("given_secs", "held_secs"),
    [("999999", 60), ("60", 60), ("5", 5), ("0", 0), ("", 0)],
)
def test_wait_is_clamped(given_secs: str, held_secs: int) -> None:
    """Clients ask to wait for ever; they are held for a minute and ask again."""
    assert Query({"waitForFinish": given_secs}).wait_secs() == held_secs


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_any_value_is_read_or_refused(value: Any) -> None:
    """Whatever stands in a field, reading it gives a value of the asked kind or an InvalidRequest, nothing else."""
    fields = Fields({"x": value})
    readers: list[tuple[Any, type]] = [
        (lambda: fields.text("x"), str),
        (lambda: fields.flag("x"), bool),
        (lambda: fields.whole("x", 1), int),
        (lambda: list(fields.objects("x")), list),
        (lambda: fields.object_or_none("x") or fields, Fields),
    ]
    for read, kind in readers:
        try:
            assert isinstance(read(), kind)
        except InvalidRequest:
            continue


def test_nested_fields_are_named_by_their_place() -> None:
    """A mistake deep in the body says where it is."""
    fields = Fields({"versions": [{}, {"sourceFiles": [{"name": 5}]}]})
    second = list(fields.objects("versions"))[1]
    with pytest.raises(InvalidRequest, match=r"versions\[1\]\.sourceFiles\[0\]\.name"):
        next(second.objects("sourceFiles")).needed_text("name")
