"""
No I/O: fills what an input leaves undefined from the defaults in its schema. Source: apify-platform.md §4.4.

An explicit null is a value and stays; ``prefill`` is for forms and plays no part here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNDEFINED = object()


def with_defaults(schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """
    *given* with the defaults of the fields that it lacks.

    An absent object is made of the defaults of its fields, over which its own ``default`` wins key by key. A present
    object is not filled; the objects in a present array are, from the defaults in ``items``.
    """
    filled = dict(given)
    for name, field in _properties(schema).items():
        if name in given:
            filled[name] = _filled(field, given[name])
        elif (default := _default(field)) is not _UNDEFINED:
            filled[name] = default
    return filled


def _properties(schema: Any) -> Mapping[str, Any]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}


def _default(field: Any) -> Any:
    """What stands for an absent *field*."""
    if not isinstance(field, Mapping):
        return _UNDEFINED
    nested = {
        name: default for name, inner in _properties(field).items() if (default := _default(inner)) is not _UNDEFINED
    }
    own = field.get("default", _UNDEFINED)
    if own is _UNDEFINED:
        return nested or _UNDEFINED
    return {**nested, **own} if isinstance(own, Mapping) else own


def _filled(field: Any, value: Any) -> Any:
    """A present *value*: arrays are filled item by item, all else stays."""
    items = field.get("items") if isinstance(field, Mapping) else None
    if not isinstance(value, list) or not isinstance(items, Mapping):
        return value
    return [with_defaults(items, item) if isinstance(item, Mapping) else _filled(items, item) for item in value]
