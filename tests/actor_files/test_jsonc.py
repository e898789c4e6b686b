"""Hand-written JSON: what is taken, what is refused, and the line that is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.actor_files.jsonc import parse
from gateway.core.errors import DefinitionError

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=JSON_VALUES, indent=st.sampled_from([None, 2]), ascii_only=st.booleans())
def test_all_json_is_taken(value, indent, ascii_only):
    """Whatever is JSON means here what it means everywhere."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert parse("a.json", text.encode("utf-8", "surrogatepass")).value == value


@given(content=st.binary(max_size=60) | st.text(alphabet="{}[]\":,'/*\\ux0-1e+.tf \n", max_size=60).map(str.encode))
def test_anything_else_is_a_mistake_with_a_line(content):
    """No input does anything but parse or raise DefinitionError with a line that is in the file."""
    line: int | None = 1
    try:
        parse("a.json", content)
    except DefinitionError as error:
        line = error.line
    assert line is not None
    assert 1 <= line <= content.count(b"\n") + 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param('{"a": 1, // one\n "b": /* two */ 2}', {"a": 1, "b": 2}, id="comments"),
        pytest.param('{"a": [1, 2,],}', {"a": [1, 2]}, id="trailing commas"),
        pytest.param('{a: \'it"s\', $b_1: "x"}', {"a": 'it"s', "$b_1": "x"}, id="unquoted keys, single quotes"),
        pytest.param("[0x1F, +1, .5, 5., -2e3]", [31, 1, 0.5, 5.0, -2000.0], id="numbers of JSON5"),
        pytest.param(
            r'["\x41\u00e9\'\v\0", "a\
b"]',
            ["Aé'\v\0", "ab"],
            id="escapes of JSON5",
        ),
        pytest.param(r'"\ud83d\ude00"', "😀", id="surrogate pair"),
        pytest.param('\ufeff{"a": 1}', {"a": 1}, id="byte order mark"),
        pytest.param('{"a": 1, "a": 2}', {"a": 2}, id="a key given twice: the last"),
        pytest.param('"// no comment"', "// no comment", id="slashes inside a text"),
    ],
)
def test_what_is_taken_beyond_json(text, value):
    """Comments, trailing commas and the rest of what people write."""
    assert parse("a.json", text.encode()).value == value


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        pytest.param('{\n  "a": 1\n  "b": 2\n}', 3, 'a comma or } is expected, not "b": 2', id="comma missing"),
        pytest.param('{\n  "a" 1\n}', 2, 'a colon after "a" is expected, not 1', id="colon missing"),
        pytest.param('{\n  "a": 1\n', 3, "a comma or } is expected, not the end of the file", id="end missing"),
        pytest.param('{"a": tru}', 1, "a value (an object, an array", id="unknown word"),
        pytest.param('{"a":\n "x\n}', 2, "this text has no end", id="text without end"),
        pytest.param("{}\n/* x", 2, "this comment has no end", id="comment without end"),
        pytest.param("{}\n{}", 2, "the end of the file is expected", id="something behind"),
        pytest.param("[007]", 1, "a number without leading zeros", id="leading zeros"),
        pytest.param("[NaN]", 1, "a value", id="NaN is no JSON"),
        pytest.param("[1e999]", 1, "a number that fits 64 bits", id="infinite"),
        pytest.param('["\\ud83d"]', 1, "both halves of a surrogate pair", id="half a character"),
        pytest.param('["\\u12"]', 1, "4 hexadecimal digits", id="short escape"),
        pytest.param("[" * 200, 1, "at most 100 levels", id="too deep"),
        pytest.param("", 1, "not the end of the file", id="empty"),
    ],
)
def test_mistakes_are_told_with_line_and_what_is_expected(text, line, problem):
    """A syntax error names its line and what should stand there."""
    with pytest.raises(DefinitionError) as caught:
        parse(".actor/actor.json", text.encode())
    assert (caught.value.file, caught.value.line) == (".actor/actor.json", line)
    assert problem in caught.value.problem


def test_text_must_be_utf8():
    """Another encoding is told with the line of its first wrong byte."""
    with pytest.raises(DefinitionError, match=r"a\.json:2: text in UTF-8 is expected"):
        parse("a.json", b'{\n "a": "\xff"}')


def test_each_value_knows_its_line():
    """``line_of`` gives the line of a member's key or an item; what is missing has the line of its container."""
    document = parse("a.json", b'{\n "a": {\n  "b":\n   [1,\n    2]\n },\n "c": 3\n}')
    lines = {path: document.line_of(path) for path in [(), ("a",), ("a", "b"), ("a", "b", 1), ("c",)]}
    assert lines == {(): 1, ("a",): 2, ("a", "b"): 3, ("a", "b", 1): 5, ("c",): 7}
    assert document.line_of(("a", "missing", "deep")) == 2
    assert document.line_of(("missing",)) == 1


def test_a_repeated_key_has_its_last_line():
    """Lines follow the value that counts, also below a repeated key."""
    document = parse("a.json", b'{"a": {"x": 1},\n"a": {"y": 2}}')
    assert document.line_of(("a",)) == document.line_of(("a", "y")) == document.line_of(("a", "x")) == 2
