"""
No I/O: what is wrong with an input, in the words that the platform's callers know.

Source: apify-platform.md §4.4; the words after ``Field input.…`` are those of the platform's JSON Schema library.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import ValidationError

_MAX_MESSAGE_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the path of its field, e.g. ``startUrls.0.url`` (empty: the whole input), and the sentence."""

    field: str
    message: str


def problem(field: str, message: str) -> Problem:
    """A mistake told in *message*, which is cut where it is very long."""
    if len(message) > _MAX_MESSAGE_CHARS:
        message = f"{message[:_MAX_MESSAGE_CHARS]}…"
    return Problem(field, message)


def named(field: str, root: str = "input") -> str:
    """The field as messages name it, e.g. ``input.a.b``."""
    return f"{root}.{field}" if field else root


def told(error: ValidationError, root: str = "input") -> Problem:
    """What *error* says; the text that the field's ``errorMessage`` has for it, if any, in place of all else."""
    field = ".".join(str(step) for step in error.absolute_path)
    own = _own_text(error)
    return problem(field, own if own is not None else _sentence(error, named(field, root)))


def _own_text(error: ValidationError) -> str | None:
    schema: Any = error.schema
    if error.validator == "required" and isinstance(schema, Mapping):
        # The field that is missing has the text, not the object that lacks it.
        schema = schema.get("properties", {}).get(error.path[-1])
    texts = schema.get("errorMessage") if isinstance(schema, Mapping) else None
    text = texts.get(str(error.validator)) if isinstance(texts, Mapping) else None
    return text if isinstance(text, str) else None


def _sentence(error: ValidationError, name: str) -> str:
    keyword, limit = str(error.validator), error.validator_value
    match keyword:
        case "required":
            return f"Field {name} is required"
        case "additionalProperties":
            return f"Property {name} is not allowed."
        case "uniqueItems" if error.message.startswith("must "):
            return f"Field {name} {error.message}"
        case _:
            words = _WORDS.get(keyword)
            demand = words(limit) if words is not None else f"must be as {keyword} asks"
            return f"Field {name} {demand}"


def _types(limit: Any) -> str:
    return f"must be {','.join(limit) if isinstance(limit, list) else limit}"


def _choices(limit: Any) -> str:
    choices = '", "'.join(choice if isinstance(choice, str) else json.dumps(choice) for choice in limit)
    return f'must be equal to one of the allowed values: "{choices}"'


def _number(limit: Any) -> str:
    return str(int(limit)) if isinstance(limit, float) and limit.is_integer() else str(limit)


_WORDS: Mapping[str, Callable[[Any], str]] = {
    "type": _types,
    "enum": _choices,
    "const": lambda _: "must be equal to constant",
    "minimum": lambda limit: f"must be >= {_number(limit)}",
    "maximum": lambda limit: f"must be <= {_number(limit)}",
    "exclusiveMinimum": lambda limit: f"must be > {_number(limit)}",
    "exclusiveMaximum": lambda limit: f"must be < {_number(limit)}",
    "multipleOf": lambda limit: f"must be multiple of {_number(limit)}",
    "minLength": lambda limit: f"must NOT have fewer than {_number(limit)} characters",
    "maxLength": lambda limit: f"must NOT have more than {_number(limit)} characters",
    "pattern": lambda limit: f'must match pattern "{limit}"',
    "minItems": lambda limit: f"must NOT have fewer than {_number(limit)} items",
    "maxItems": lambda limit: f"must NOT have more than {_number(limit)} items",
    "additionalItems": lambda _: "must NOT have additional items",
    "contains": lambda _: "must contain at least 1 valid item(s)",
    "minProperties": lambda limit: f"must NOT have fewer than {_number(limit)} properties",
    "maxProperties": lambda limit: f"must NOT have more than {_number(limit)} properties",
    "propertyNames": lambda _: "property name must be valid",
    "anyOf": lambda _: "must match a schema in anyOf",
    "oneOf": lambda _: "must match exactly one schema in oneOf",
    "not": lambda _: "must NOT be valid",
}
