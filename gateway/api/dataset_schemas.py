"""
What an Actor's build declares about the items of its runs' datasets: checks at a push, and views.

Only what is pushed to a run's default dataset is checked. A schema may refer to parts of itself, never to other
addresses: nothing is fetched. Source: apify-platform.md §4.5.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import referencing
from jsonschema import Draft7Validator, SchemaError, ValidationError
from referencing.exceptions import Unresolvable

from gateway.api.call import Call
from gateway.api.errors import DatasetViewNotFound, SchemaValidationFailed
from gateway.core.errors import InvalidRequest
from gateway.core.model import Build, Run, Storage

_MAX_CACHED = 200
_MAX_TOLD_ITEMS = 100
_MAX_TOLD_ERRORS = 10  # for each of them
_MAX_MESSAGE_CHARS = 300

# By build, since a finished build never changes; None: it declares nothing.
_validators: OrderedDict[str, Draft7Validator | None] = OrderedDict()


async def item_validator(call: Call, dataset: Storage) -> Draft7Validator | None:
    """What items pushed to *dataset* must pass, if anything. Raises InvalidRequest where its schema is unusable."""
    run = await _run_of(call, dataset)
    if run is None or run.default_dataset_id != dataset.id:
        return None
    if run.build_id in _validators:
        _validators.move_to_end(run.build_id)
        return _validators[run.build_id]
    build = await call.records.build(run.build_id)
    validator = _compiled(_schema_of(build, run, dataset)) if build is not None else None
    _validators[run.build_id] = validator
    if len(_validators) > _MAX_CACHED:
        _validators.popitem(last=False)
    return validator


async def view_transformation(call: Call, dataset: Storage, name: str) -> Mapping[str, Any]:
    """How the view *name* of the dataset's schema shows items. Raises DatasetViewNotFound."""
    run = await _run_of(call, dataset)
    build = await call.records.build(run.build_id) if run is not None else None
    views = _schema_of(build, run, dataset).get("views") if build is not None and run is not None else None
    view = views.get(name) if isinstance(views, dict) else None
    if not isinstance(view, dict):
        raise DatasetViewNotFound(name)
    transformation = view.get("transformation")
    return transformation if isinstance(transformation, dict) else {}


def check_items(validator: Draft7Validator, items: Sequence[Any]) -> None:
    """Raise SchemaValidationFailed, with all that is wrong, unless every one of *items* passes."""
    invalid: list[dict[str, Any]] = []
    try:
        for position, item in enumerate(items):
            errors = []
            for error in validator.iter_errors(item):
                errors.append(_told(error))
                if len(errors) == _MAX_TOLD_ERRORS:
                    break
            if errors:
                invalid.append({"itemPosition": position, "validationErrors": errors})
                if len(invalid) == _MAX_TOLD_ITEMS:
                    break
    except Unresolvable as error:
        raise _unusable("it refers to what is not in it") from error
    except RecursionError as error:
        raise InvalidRequest("An item is nested too deeply for the dataset's schema.") from error
    if invalid:
        raise SchemaValidationFailed(invalid)


async def _run_of(call: Call, dataset: Storage) -> Run | None:
    return await call.records.run(dataset.run_id) if dataset.run_id is not None else None


def _schema_of(build: Build, run: Run, dataset: Storage) -> Mapping[str, Any]:
    """The dataset schema that *build* declares for this dataset of *run*; empty where there is none."""
    declared = build.definition.get("storages")
    if not isinstance(declared, dict):
        return {}
    by_alias = declared.get("datasets")
    schemas = dict(by_alias) if isinstance(by_alias, dict) else {}
    if "dataset" in declared:
        schemas["default"] = declared["dataset"]
    aliases = [alias for alias, storage_id in run.storage_ids.get("datasets", {}).items() if storage_id == dataset.id]
    if dataset.id == run.default_dataset_id:
        aliases = ["default"]
    schema = next((schemas[alias] for alias in aliases if alias in schemas), None)
    return schema if isinstance(schema, dict) else {}


def _compiled(schema: Mapping[str, Any]) -> Draft7Validator | None:
    fields = schema.get("fields")
    if not fields or not isinstance(fields, dict):
        return None
    try:
        Draft7Validator.check_schema(fields)
    except SchemaError as error:
        raise _unusable(error.message[:_MAX_MESSAGE_CHARS]) from error
    # Without a registry of our own the library would fetch what "$ref" names.
    registry: referencing.Registry[Any] = referencing.Registry()
    return Draft7Validator(fields, registry=registry)


def _unusable(why: str) -> InvalidRequest:
    return InvalidRequest(f"The schema of this dataset's fields can't be used: {why}. Correct it and build the Actor.")


def _told(error: ValidationError) -> dict[str, Any]:
    """*error* in the shape that the platform's validator has."""
    keyword, expected = str(error.validator), error.validator_value
    return {
        "instancePath": _pointer(error.absolute_path),
        "schemaPath": f"#{_pointer(error.absolute_schema_path)}",
        "keyword": keyword,
        "params": {keyword: expected} if isinstance(expected, str | int | float | bool) else {},
        "message": error.message[:_MAX_MESSAGE_CHARS],
    }


def _pointer(path: Sequence[str | int]) -> str:
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
