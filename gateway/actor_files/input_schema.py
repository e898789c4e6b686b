"""
No I/O: an Actor's input schema, ready to complete inputs and to say what is wrong with them.

Inputs are checked with the semantics of JSON Schema draft 7 and the platform's additions: ``nullable``,
``errorMessage``, a required field with a default counts as optional, a required array has at least one item, and what
editors ask for. ``$ref`` is no part of input schemas, so nothing is fetched and nothing recurs. What is checked costs
time in proportion to its size, patterns within ``PATTERN_SECS`` in all. Source: apify-platform.md §4.4.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any

from jsonschema import Draft7Validator, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import extend

from gateway.actor_files.input_defaults import with_defaults
from gateway.actor_files.input_errors import Problem, problem, told
from gateway.actor_files.input_fields import field_problems
from gateway.actor_files.patterns import PatternBudget, TooSlow, UnusablePattern, compiled

MAX_SCHEMA_BYTES = 500_000
PATTERN_SECS = 1.0
MAX_PROBLEMS = 50

# In the order in which the platform's library looks at them, hence tells what is wrong.
_PLAIN = (
    *("type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("maxLength", "minLength", "pattern", "const", "enum"),
    *("maxItems", "minItems", "uniqueItems", "maxProperties", "minProperties", "required"),
)
_ONE_SCHEMA = ("not", "additionalItems", "contains", "propertyNames", "additionalProperties")
_SCHEMA_LIST = ("anyOf", "oneOf", "allOf")
_SCHEMA_MAP = ("properties", "patternProperties")
_KEPT = ("nullable", "errorMessage")


class UnusableSchema(ValueError):
    """This is no input schema; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class InputSchema:
    """One input schema. *has_patterns*: a check may take up to ``PATTERN_SECS`` longer, whatever the input's size."""

    document: Mapping[str, Any]
    has_patterns: bool
    _rules: Mapping[str, Any]

    @property
    def secret_fields(self) -> tuple[str, ...]:
        """The fields whose values are to be kept encrypted."""
        fields = self.document.get("properties", {})
        return tuple(name for name, of_field in fields.items() if _is_secret(of_field))

    def completed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """*given* with the schema's defaults."""
        return with_defaults(self.document, given)

    def problems(self, given: Mapping[str, Any], clock: Callable[[], float]) -> tuple[Problem, ...]:
        """What is wrong with the completed input *given*, at most ``MAX_PROBLEMS`` things; *clock* is monotonic."""
        budget = PatternBudget(clock, PATTERN_SECS)
        token = _budget.set(budget)
        try:
            errors = _Checker(self._rules).iter_errors(given)
            found = [told(error) for error in islice(errors, MAX_PROBLEMS)]
            required = self._rules.get("required", ())
            found += field_problems(self.document.get("properties", {}), required, given, budget)
            return tuple(found[:MAX_PROBLEMS])
        except TooSlow as error:
            return (problem("", f'Input takes too long to check against the pattern "{error.pattern}" of its schema'),)
        except RecursionError:
            return (problem("", "Input is nested too deeply"),)
        finally:
            _budget.reset(token)


def read_schema(document: Any) -> InputSchema:
    """The input schema that *document* is. Raises UnusableSchema."""
    if not isinstance(document, Mapping):
        raise UnusableSchema("it must be an object")
    try:
        size = len(json.dumps(document, ensure_ascii=False).encode())
        if size > MAX_SCHEMA_BYTES:
            raise UnusableSchema(f"it has {size} bytes, and at most {MAX_SCHEMA_BYTES} are allowed")
        if document.get("type", "object") != "object":
            raise UnusableSchema('schema.type must be "object"')
        rules = {"type": "object", **_rules(document, "schema")}
        mistake = best_match(_META.iter_errors(rules))
    except RecursionError:
        raise UnusableSchema("it is nested too deeply") from None
    except ValueError as error:
        raise error if isinstance(error, UnusableSchema) else UnusableSchema(str(error)) from error
    if mistake is not None:
        raise UnusableSchema(told(mistake, "schema").message)
    _check_required(document)
    has_patterns = _has_patterns(document)
    return InputSchema(document=document, has_patterns=has_patterns, _rules=rules)


@dataclass(frozen=True, slots=True)
class _Source:
    """What a build says of its input; known by the build, since a finished one never changes."""

    build_id: str
    document: Any = field(compare=False)


def schema_of(build_id: str, definition: Mapping[str, Any]) -> InputSchema | None:
    """The input schema in a finished build's *definition*, remembered; None: it has none. Raises UnusableSchema."""
    document = definition.get("input")
    return _remembered(_Source(build_id, document)) if document is not None else None


@lru_cache(maxsize=100)
def _remembered(source: _Source) -> InputSchema:
    return read_schema(source.document)


# Reading a schema


def _rules(schema: Any, where: str) -> Any:
    """What of *schema* is a rule, in the order in which it is told, with the platform's own meanings written out."""
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, Mapping):
        raise UnusableSchema(f"{where} must be an object")
    if "$ref" in schema:
        raise UnusableSchema(f"{where} has $ref, which input schemas don't: write out what it refers to")
    rules: dict[str, Any] = {keyword: schema[keyword] for keyword in _PLAIN if keyword in schema}
    _check_pattern(rules.get("pattern"), f"{where}.pattern")
    for keyword in _SCHEMA_LIST:
        if isinstance(parts := schema.get(keyword), list):
            rules[keyword] = [_rules(part, f"{where}.{keyword}.{index}") for index, part in enumerate(parts)]
    if isinstance(items := schema.get("items"), list):
        rules["items"] = [_rules(item, f"{where}.items.{index}") for index, item in enumerate(items)]
    elif items is not None:
        rules["items"] = _rules(items, f"{where}.items")
    for keyword in _ONE_SCHEMA:
        if keyword in schema:
            rules[keyword] = _rules(schema[keyword], f"{where}.{keyword}")
    for keyword in _SCHEMA_MAP:
        if keyword in schema:
            if not isinstance(schema[keyword], Mapping):
                raise UnusableSchema(f"{where}.{keyword} must be an object")
            rules[keyword] = {name: _rules(part, f"{where}.{keyword}.{name}") for name, part in schema[keyword].items()}
    for pattern in rules.get("patternProperties", {}):
        _check_pattern(pattern, f"{where}.patternProperties")
    for keyword in ("patternKey", "patternValue"):
        _check_pattern(schema.get(keyword), f"{where}.{keyword}")
    rules |= {keyword: schema[keyword] for keyword in _KEPT if keyword in schema}
    _write_out_required(rules, schema)
    return rules


def _check_pattern(pattern: Any, where: str) -> None:
    if isinstance(pattern, str):
        try:
            compiled(pattern)
        except UnusablePattern as error:
            raise UnusableSchema(f"{where} must be a regular expression, but {error}") from error


def _write_out_required(rules: dict[str, Any], schema: Mapping[str, Any]) -> None:
    """A required field with a default counts as optional; a required array has at least one item."""
    required, properties = rules.get("required"), rules.get("properties")
    if not isinstance(required, list) or not isinstance(properties, dict):
        return
    kept = [name for name in required if not (isinstance(name, str) and _has_default(schema, name))]
    rules["required"] = kept
    for name in kept:
        of_field = properties.get(name) if isinstance(name, str) else None
        if isinstance(of_field, dict) and of_field.get("type") == "array" and of_field.get("minItems", 0) in (0, 0.0):
            properties[name] = _ordered({**of_field, "minItems": 1})


def _has_default(schema: Mapping[str, Any], name: str) -> bool:
    of_field = schema["properties"].get(name)
    return isinstance(of_field, Mapping) and "default" in of_field


def _ordered(rules: Mapping[str, Any]) -> dict[str, Any]:
    first = {keyword: rules[keyword] for keyword in _PLAIN if keyword in rules}
    return {**first, **rules}


def _check_required(document: Mapping[str, Any]) -> None:
    for name in document.get("required", ()):
        if name not in document.get("properties", {}):
            raise UnusableSchema(
                f"Field schema.properties.{name} does not exist, but it is specified in schema.required. "
                "Either define the field or remove it from schema.required."
            )


def _is_secret(of_field: Any) -> bool:
    return isinstance(of_field, Mapping) and of_field.get("isSecret") is True


def _has_patterns(schema: Any) -> bool:
    match schema:
        case Mapping():
            return any(
                keyword in ("pattern", "patternProperties", "patternKey", "patternValue") or _has_patterns(part)
                for keyword, part in schema.items()
            )
        case list():
            return any(_has_patterns(part) for part in schema)
        case _:
            return False


# Keywords that jsonschema reads differently, or at a cost without bound

_budget: ContextVar[PatternBudget] = ContextVar("_budget")
_META = Draft7Validator(Draft7Validator.META_SCHEMA)
_Found = Iterator[ValidationError]


def _type(validator: Any, types: Any, instance: Any, schema: Mapping[str, Any]) -> _Found:
    if instance is None and schema.get("nullable") is True:
        return
    names = types if isinstance(types, list) else [types]
    if not any(validator.is_type(instance, name) for name in names):
        yield ValidationError("must be of the type")


def _required(validator: Any, required: list[str], instance: Any, _schema: Mapping[str, Any]) -> _Found:
    if validator.is_type(instance, "object"):
        for name in required:
            if name not in instance:
                yield ValidationError("is required", path=(name,))


def _pattern(validator: Any, pattern: str, instance: Any, _schema: Mapping[str, Any]) -> _Found:
    if validator.is_type(instance, "string") and not _budget.get().finds(pattern, instance):
        yield ValidationError("does not match")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, _: Mapping[str, Any]) -> _Found:
    if validator.is_type(instance, "object"):
        for pattern, rules in patterns.items():
            for name, value in instance.items():
                if _budget.get().finds(pattern, name):
                    yield from validator.descend(value, rules, path=name, schema_path=pattern)


def _additional_properties(validator: Any, rules: Any, instance: Any, schema: Mapping[str, Any]) -> _Found:
    if rules is True or not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", ())
    for name, value in instance.items():
        if name in known or any(_budget.get().finds(pattern, name) for pattern in patterns):
            continue
        if rules is False:
            yield ValidationError("is not allowed", path=(name,))
        else:
            yield from validator.descend(value, rules, path=name)


def _unique_items(validator: Any, is_asked: Any, instance: Any, _schema: Mapping[str, Any]) -> _Found:
    """By their texts, in one pass; jsonschema compares each item with each other one."""
    if is_asked is not True or not validator.is_type(instance, "array"):
        return
    seen: dict[str, int] = {}
    twice: tuple[int, int] | None = None
    for index, item in enumerate(instance):
        text = json.dumps(_as_one_kind(item), sort_keys=True)
        if text in seen:
            twice = seen[text], index
        seen[text] = index
    if twice is not None:
        yield ValidationError(f"must NOT have duplicate items (items ## {twice[0]} and {twice[1]} are identical)")


def _as_one_kind(value: Any) -> Any:
    """JSON has one kind of number: 5.0 is 5."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_as_one_kind(item) for item in value]
        case dict():
            return {key: _as_one_kind(item) for key, item in value.items()}
        case _:
            return value


_Checker = extend(  # type: ignore[no-untyped-call]
    Draft7Validator,
    {
        "type": _type,
        "required": _required,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    },
)
