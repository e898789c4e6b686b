"""No I/O: the input of a run as the record that its key-value store begins with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.actor_files.input_defaults import with_defaults
from gateway.core.model import Build, Run
from gateway.core.storages import KeyValueRecord

JSON_CONTENT_TYPE = "application/json; charset=utf-8"


def json_input(value: Mapping[str, Any]) -> bytes:
    """The object *value* as it is stored."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def input_record(run: Run, content: bytes, content_type: str, *, blob: str | None = None) -> KeyValueRecord:
    """The record of the input *content*; its bytes lie in *blob* where there is one."""
    return KeyValueRecord(
        store_id=run.default_key_value_store_id,
        key=run.input_key,
        content_type=content_type,
        size=len(content),
        modified_at=run.started_at,
        value=content if blob is None else None,
        blob=blob,
    )


def standby_input(run: Run, build: Build) -> tuple[KeyValueRecord, ...]:
    """
    What a standby run that is passed an input finds: the defaults of its schema; nothing where the build has none.

    It lies in its row whatever its size: a blob would cost a wake more time than it has, and schemas are bounded.
    """
    schema = build.definition.get("input")
    if not isinstance(schema, Mapping):
        return ()
    return (input_record(run, json_input(with_defaults(schema, {})), JSON_CONTENT_TYPE),)
