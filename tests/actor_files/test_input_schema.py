"""Inputs against an Actor's input schema: defaults, what is refused, and in which words."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.actor_files import input_schema
from gateway.actor_files.input_schema import MAX_PROBLEMS, UnusableSchema, read_schema, schema_of


def a_schema(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    """An input schema with these fields."""
    return {"title": "T", "type": "object", "schemaVersion": 1, "properties": properties, "required": required or []}


def messages(schema: dict[str, Any], value: Any) -> list[str]:
    """What is said about *value*, completed first as a start does it."""
    read = read_schema(schema)
    return [problem.message for problem in read.problems(read.completed(value), time.monotonic)]


TEXT, NUMBER = {"type": "string", "editor": "textfield"}, {"type": "integer"}
SOURCES = {"type": "array", "editor": "requestListSources"}
PROXY = {"type": "object", "editor": "proxy"}
NESTED = {"type": "object", "editor": "json", "properties": {"b": TEXT, "c": NUMBER}, "required": ["b"]}


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        pytest.param(TEXT, 5, "Field input.f must be string", id="type"),
        pytest.param(TEXT, None, "Field input.f must be string", id="null is no text"),
        pytest.param({"type": ["object", "array"]}, 1, "Field input.f must be object,array", id="types"),
        pytest.param(NUMBER, 5.5, "Field input.f must be integer", id="a fraction"),
        pytest.param(NUMBER, True, "Field input.f must be integer", id="true is no number"),
        pytest.param({**NUMBER, "minimum": 1}, 0, "Field input.f must be >= 1", id="minimum"),
        pytest.param({**NUMBER, "minimum": 1.0}, 0, "Field input.f must be >= 1", id="a limit as JavaScript shows it"),
        pytest.param({**NUMBER, "maximum": 1}, 2, "Field input.f must be <= 1", id="maximum"),
        pytest.param({**NUMBER, "exclusiveMinimum": 1}, 1, "Field input.f must be > 1", id="exclusive minimum"),
        pytest.param({**NUMBER, "exclusiveMaximum": 1}, 1, "Field input.f must be < 1", id="exclusive maximum"),
        pytest.param({**NUMBER, "multipleOf": 5}, 7, "Field input.f must be multiple of 5", id="multiple"),
        pytest.param(
            {**TEXT, "minLength": 2}, "a", "Field input.f must NOT have fewer than 2 characters", id="too short"
        ),
        pytest.param(
            {**TEXT, "maxLength": 2}, "abc", "Field input.f must NOT have more than 2 characters", id="too long"
        ),
        pytest.param({**TEXT, "pattern": "^a+$"}, "ab", 'Field input.f must match pattern "^a+$"', id="pattern"),
        pytest.param(
            {**TEXT, "enum": ["a", "b"], "enumTitles": ["A", "B"]},
            "c",
            'Field input.f must be equal to one of the allowed values: "a", "b"',
            id="enum",
        ),
        pytest.param({"const": 1}, 2, "Field input.f must be equal to constant", id="const"),
        pytest.param(
            {"type": "array", "minItems": 1}, [], "Field input.f must NOT have fewer than 1 items", id="too few"
        ),
        pytest.param(
            {"type": "array", "maxItems": 1}, [1, 2], "Field input.f must NOT have more than 1 items", id="too many"
        ),
        pytest.param(
            {"type": "array", "uniqueItems": True},
            [{"a": 1}, 2, {"a": 1.0}],
            "Field input.f must NOT have duplicate items (items ## 0 and 2 are identical)",
            id="twice",
        ),
        pytest.param({"type": "array", "items": TEXT}, ["a", 1], "Field input.f.1 must be string", id="an item"),
        pytest.param(
            {"type": "object", "minProperties": 1},
            {},
            "Field input.f must NOT have fewer than 1 properties",
            id="too few properties",
        ),
        pytest.param(
            {"type": "object", "maxProperties": 1},
            {"a": 1, "b": 1},
            "Field input.f must NOT have more than 1 properties",
            id="too many properties",
        ),
        pytest.param(NESTED, {}, "Field input.f.b is required", id="a nested field"),
        pytest.param(
            {**NESTED, "additionalProperties": False},
            {"b": "", "x": 1},
            "Property input.f.x is not allowed.",
            id="a property too many",
        ),
        pytest.param(
            {"type": "object", "patternProperties": {"^n": NUMBER}},
            {"n1": "x", "m": "x"},
            "Field input.f.n1 must be integer",
            id="properties by pattern",
        ),
        pytest.param({"anyOf": [TEXT, NUMBER]}, [], "Field input.f must match a schema in anyOf", id="any of"),
        pytest.param(
            {**TEXT, "minLength": 3, "errorMessage": {"minLength": "Give it a name!"}}, "a", "Give it a name!", id="own"
        ),
        pytest.param(
            SOURCES,
            [{"url": "https://a.com"}, {"url": "a.com"}, None, {"requestsFromUrl": "http://localhost:1/x"}, {}],
            "Items in input.f at positions [1,2,4] do not contain valid URLs",
            id="sources",
        ),
        pytest.param(
            {"type": "array", "editor": "keyValue", "patternKey": "^k", "patternValue": "^v"},
            [{"key": "k", "value": "v"}, {"key": "x", "value": "x"}],
            'Keys in input.f at positions [1] must match regular expression "^k", '
            'Values in input.f at positions [1] must match regular expression "^v"',
            id="pairs",
        ),
        pytest.param(
            {"type": "array", "editor": "stringList", "patternValue": "^v"},
            ["v", "x", 1],
            'Values in input.f at positions [1,2] must match regular expression "^v"',
            id="texts",
        ),
        pytest.param(
            {"type": "object", "editor": "json", "patternKey": "^k", "patternValue": "^v"},
            {"k": 1},
            'Keys [k] in input.f must have string value which matches regular expression "^v"',
            id="an object by patterns",
        ),
        pytest.param(
            PROXY,
            {"useApifyProxy": False, "proxyUrls": ["http://a:secret@b"]},
            "Proxy URL at position 0 in input.f has invalid format, "
            "it must be http://[username[:password]]@hostname:port.",
            id="a proxy without a port",
        ),
        pytest.param(
            PROXY,
            {"useApifyProxy": True, "apifyProxyCountry": "Mars"},
            'Country code "Mars" is invalid. Only ISO 3166-1 alpha-2 country codes are supported.',
            id="no country",
        ),
        pytest.param(
            PROXY,
            {"apifyProxyCountry": "US"},
            "The country for Apify Proxy can be specified only when using Apify Proxy.",
            id="a country without the proxy",
        ),
    ],
)
def test_what_is_wrong_with_a_field(field: dict[str, Any], value: Any, expected: str) -> None:
    """In the platform's words, and that alone."""
    assert messages(a_schema(f=field), {"f": value}) == [expected]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param({**TEXT, "nullable": True}, None, id="null where it is allowed"),
        pytest.param(NUMBER, 5.0, id="5.0 is an integer"),
        pytest.param({**TEXT, "minLength": 1, "maxLength": 1}, "😀", id="one character of two UTF-16 units"),
        pytest.param({**TEXT, "editor": "datepicker", "dateType": "absolute"}, "soon", id="dates are not enforced"),
        pytest.param({**TEXT, "enumSuggestedValues": ["a"]}, "b", id="suggestions are not enforced"),
        pytest.param({**TEXT, "resourceType": "dataset"}, "anything", id="resources are not looked up"),
        pytest.param({"type": "array", "editor": "globs"}, [{"glob": "*"}, "x"], id="globs are not looked into"),
        pytest.param({"type": "array", "uniqueItems": True}, [1, True, "1", [1], None], id="five different items"),
        pytest.param(SOURCES, [{"url": "http://127.0.0.1:8080/?a=b#c", "method": "POST"}], id="a source"),
        pytest.param(PROXY, {"proxyUrls": ["http://u:p@h:1", "socks5://h:2"]}, id="proxies"),
        pytest.param(PROXY, {"useApifyProxy": True, "apifyProxyCountry": "US"}, id="the platform's proxy"),
        pytest.param({"title": "anything"}, {"a": [1]}, id="no type at all"),
        pytest.param({**TEXT, "format": "email"}, "none", id="formats are not checked"),
    ],
)
def test_what_is_right(field: dict[str, Any], value: Any) -> None:
    """Nothing is said."""
    assert messages(a_schema(f=field), {"f": value}) == []


def test_all_problems_are_told_in_the_platforms_order() -> None:
    """What is missing, what is too much, then field by field in the order of the schema, then what editors ask."""
    schema = {**a_schema(["a", "s"], s=SOURCES, a=TEXT, n=NUMBER), "additionalProperties": False}
    read = read_schema(schema)
    found = read.problems({"s": [1], "n": "x", "more": 1}, time.monotonic)
    assert [(problem.field, problem.message) for problem in found] == [
        ("a", "Field input.a is required"),
        ("more", "Property input.more is not allowed."),
        ("n", "Field input.n must be integer"),
        ("s", "Items in input.s at positions [0] do not contain valid URLs"),
    ]


def test_required() -> None:
    """A default makes a required field optional; a required array has an item; the text for a missing field is its."""
    texts = {"errorMessage": {"required": "Where to?"}}
    schema = a_schema(
        ["a", "b", "c", "p"], a={**TEXT, "default": "x"}, b={"type": "array"}, c={**TEXT, **texts}, p=PROXY
    )
    assert messages(schema, {"b": [], "p": {"useApifyProxy": False}}) == [
        "Where to?",
        "Field input.b must NOT have fewer than 1 items",
        "Field input.p is required. Please provide custom proxy URLs or use Apify Proxy.",
    ]
    assert messages(schema, {}) == [
        "Field input.b is required",
        "Where to?",
        "Field input.p is required",
    ]


def test_a_present_object_lacks_nothing_that_has_a_default() -> None:
    """It is not filled, so its required fields with a default count as optional too."""
    inner = {"type": "object", "properties": {"x": {**TEXT, "default": "d"}}, "required": ["x"]}
    assert messages(a_schema(o=inner), {"o": {}}) == []


def test_problems_are_bounded() -> None:
    """However much is wrong."""
    schema = a_schema(f={"type": "array", "items": NUMBER}, t={**TEXT, "enum": ["x" * 100_000]})
    told = messages(schema, {"f": ["x"] * 100_000, "t": ""})
    assert len(told) == MAX_PROBLEMS
    assert len(messages(schema, {"t": ""})[0]) < 2000


@pytest.mark.timeout(20)
def test_a_pattern_that_backtracks_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows then whether the input is right, so it is refused for that alone."""
    monkeypatch.setattr(input_schema, "PATTERN_SECS", 0.2)
    schema = a_schema(f={"type": "array", "items": {**TEXT, "pattern": "^(a|a)*$"}})
    (told,) = messages(schema, {"f": ["!", "a" * 50 + "!"]})
    assert told == 'Input takes too long to check against the pattern "^(a|a)*$" of its schema'


def test_many_items_are_compared_quickly() -> None:
    """``uniqueItems`` costs what the items cost, not its square."""
    began = time.monotonic()
    schema = a_schema(f={"type": "array", "uniqueItems": True})
    assert messages(schema, {"f": [{"n": n} for n in range(20_000)]}) == []
    assert time.monotonic() - began < 10


def test_a_deep_input() -> None:
    """Neither a crash nor a wrong word."""
    deep: Any = []
    for _ in range(800):
        deep = [deep]
    assert messages(a_schema(f={"type": "array"}), {"f": deep}) == []
    twice = messages(a_schema(f={"type": "array", "uniqueItems": True}), {"f": [deep, deep]})
    assert len(twice) == 1


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param([], "must be an object", id="no object"),
        pytest.param({"type": "array"}, 'schema.type must be "object"', id="not of objects"),
        pytest.param({"properties": []}, "schema.properties must be an object", id="properties"),
        pytest.param({"properties": {"a": 1}}, "schema.properties.a must be an object", id="a field"),
        pytest.param(a_schema(["x"]), "Field schema.properties.x does not exist", id="requires what is not there"),
        pytest.param({"required": "x"}, "Field schema.required must be array", id="required is no list"),
        pytest.param(a_schema(a={"type": "text"}), "Field schema.properties.a.type", id="an unknown type"),
        pytest.param(
            a_schema(a={"minimum": "1"}), "Field schema.properties.a.minimum must be number", id="a limit in quotes"
        ),
        pytest.param(a_schema(a={"minLength": -1}), "schema.properties.a.minLength must be >= 0", id="negative"),
        pytest.param(a_schema(a={"pattern": "("}), "schema.properties.a.pattern must be a regular", id="a pattern"),
        pytest.param(a_schema(a={"patternKey": "["}), "schema.properties.a.patternKey", id="another pattern"),
        pytest.param(a_schema(a={"$ref": "http://127.0.0.1:9/"}), "$ref", id="a reference"),
        pytest.param({"properties": {"a": {"description": "x" * 500_000}}}, "at most 500000", id="too large"),
    ],
)
def test_schemas_that_are_none(document: Any, expected: str) -> None:
    """Told with the place."""
    with pytest.raises(UnusableSchema) as caught:
        read_schema(document)
    assert expected in str(caught.value)


def test_a_schema_nested_too_deeply() -> None:
    """Told, not crashed over."""
    deep: Any = {}
    for _ in range(5000):
        deep = {"properties": {"a": deep}}
    with pytest.raises(UnusableSchema):
        read_schema(deep)


def test_schemas_are_remembered_by_build() -> None:
    """Read once for each build; a build without one has none."""
    document = a_schema(a=TEXT)
    first = schema_of("BuildId0000000101", {"input": document})
    assert schema_of("BuildId0000000101", {"input": document}) is first
    assert schema_of("BuildId0000000102", {"input": document}) is not first
    assert schema_of("BuildId0000000103", {"name": "x"}) is None
    with pytest.raises(UnusableSchema):
        schema_of("BuildId0000000104", {"input": []})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    [TEXT, NUMBER, SOURCES, PROXY, NESTED, {"type": "array", "uniqueItems": True, "items": NESTED}, {"nullable": True}]
)


@given(st.dictionaries(st.sampled_from("abc"), FIELDS, max_size=3), st.dictionaries(st.sampled_from("abcd"), JSON))
def test_any_input_gets_an_answer(fields: dict[str, Any], value: dict[str, Any]) -> None:
    """Whatever is sent: sentences or none, never an exception; and the input itself is not changed."""
    before = json.dumps(value)
    told = messages(a_schema(sorted(fields)[:1], **fields), value)
    assert all(isinstance(message, str) and message for message in told)
    assert json.dumps(value) == before
