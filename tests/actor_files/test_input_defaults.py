"""What an input leaves undefined comes from the schema's defaults, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.actor_files.input_defaults import with_defaults

INNER = {
    "type": "object",
    "properties": {"x": {"default": 1}, "y": {"default": 2}, "z": {}},
}


@pytest.mark.parametrize(
    ("field", "given_input", "expected"),
    [
        pytest.param({"default": 1}, {}, {"f": 1}, id="absent"),
        pytest.param({"default": 1}, {"f": 2}, {"f": 2}, id="present"),
        pytest.param({"default": 1}, {"f": None}, {"f": None}, id="an explicit null stays"),
        pytest.param({"default": None}, {}, {"f": None}, id="null as the default"),
        pytest.param({"prefill": 1}, {}, {}, id="a prefill is none"),
        pytest.param({}, {"more": 1}, {"more": 1}, id="others are kept"),
        pytest.param(INNER, {}, {"f": {"x": 1, "y": 2}}, id="an absent object is made of its fields' defaults"),
        pytest.param({**INNER, "default": {"y": 3, "q": 4}}, {}, {"f": {"x": 1, "y": 3, "q": 4}}, id="its own win"),
        pytest.param({**INNER, "default": None}, {}, {"f": None}, id="even null"),
        pytest.param(INNER, {"f": {}}, {"f": {}}, id="a present object is not filled"),
        pytest.param({"properties": {"z": {}}}, {}, {}, id="an object without defaults stays away"),
        pytest.param(
            {"type": "array", "items": INNER},
            {"f": [{}, {"x": 5}, 1]},
            {"f": [{"x": 1, "y": 2}, {"x": 5, "y": 2}, 1]},
            id="objects in a present array are filled",
        ),
        pytest.param({"type": "array", "items": INNER}, {}, {}, id="an absent array stays away"),
        pytest.param(
            {"type": "array", "items": {"type": "array", "items": INNER}},
            {"f": [[{}], 1]},
            {"f": [[{"x": 1, "y": 2}], 1]},
            id="arrays in arrays",
        ),
        pytest.param({"properties": {"a": INNER}}, {}, {"f": {"a": {"x": 1, "y": 2}}}, id="objects in objects"),
        pytest.param(True, {}, {}, id="a field that is no object"),
    ],
)
def test_defaults(field: Any, given_input: dict[str, Any], expected: dict[str, Any]) -> None:
    """Undefined is filled, present is kept."""
    assert with_defaults({"properties": {"f": field}}, given_input) == expected


@given(st.dictionaries(st.sampled_from("abc"), st.integers()), st.dictionaries(st.sampled_from("abc"), st.integers()))
def test_given_values_always_win_and_twice_is_once(defaults: dict[str, int], value: dict[str, int]) -> None:
    """Filling a filled input changes nothing."""
    schema = {"properties": {name: {"default": default} for name, default in defaults.items()}}
    filled = with_defaults(schema, value)
    assert filled == {**defaults, **value}
    assert with_defaults(schema, filled) == filled
