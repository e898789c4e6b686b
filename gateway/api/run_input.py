"""
The input of a run as a call gives it: completed and checked by the input schema of the build, or taken as it is.

Source of order, types and messages: apify-platform.md §4.4, "Start-time processing".
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, replace
from typing import Any

from starlette.responses import Response

from gateway.actor_files.input_schema import InputSchema, UnusableSchema, schema_of
from gateway.api.access import visible_actor
from gateway.api.body import parse_json
from gateway.api.call import Call, Endpoint
from gateway.api.errors import InvalidContentType, InvalidInput, InvalidInputSchema
from gateway.api.run_build import asked_build
from gateway.core.errors import InvalidRequest
from gateway.core.model import Build, Run
from gateway.input_secrets import KEY_ID, public_key, with_secrets_encrypted
from gateway.run_input import JSON_CONTENT_TYPE, json_input

_JSON = "application/json"
_NO_CONTENT_TYPE = "application/octet-stream"
_MAX_CONTENT_TYPE_CHARS = 1000
# Smaller ones are checked quicker than a thread begins.
_CHECK_HERE_BYTES = 32 * 1024
_KINDS = {list: "array", str: "string", int: "number", float: "number", bool: "boolean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenInput:
    """
    An input that is right. *body_bytes* is the size of what was sent, *content* is what is to be stored, once the
    *secret_fields* of the object that it is have been encrypted.
    """

    content: bytes
    content_type: str
    body_bytes: int
    secret_fields: tuple[str, ...] = ()


async def given_input(call: Call, build: Build) -> GivenInput | None:
    """
    The input that *call* gives to a run of *build*; None where it gives none and the build has no input schema.

    A GET gives none. Raises InvalidInput, InvalidInputSchema, InvalidContentType, and what reading a body raises.
    """
    body = await call.body() if call.request.method != "GET" else b""
    content_type = call.request.headers.get("content-type", "")
    if len(content_type) > _MAX_CONTENT_TYPE_CHARS or not content_type.isprintable():
        raise InvalidContentType(f"Content-Type must be printable and at most {_MAX_CONTENT_TYPE_CHARS} characters.")
    schema = await _schema(build)
    if schema is None:
        if not body:
            return None
        return GivenInput(content=body, content_type=content_type or _NO_CONTENT_TYPE, body_bytes=len(body))
    if body.strip() and content_type.partition(";")[0].strip().lower() != _JSON:
        raise InvalidInput(f'Actor input must have content type "{_JSON}".')
    if len(body) <= _CHECK_HERE_BYTES and not schema.has_patterns:
        content = _checked(schema, body)
    else:
        content = await asyncio.to_thread(_checked, schema, body)
    return GivenInput(
        content=content,
        content_type=JSON_CONTENT_TYPE,
        body_bytes=len(body),
        secret_fields=schema.secret_fields,
    )


async def encrypted(call: Call, run: Run, given: GivenInput) -> tuple[Run, GivenInput]:
    """*given* as the run may store it, and the run that knows with which key it is encrypted, if any of it is."""
    if not given.secret_fields:
        return run, given
    key = await public_key(call.services.state.blobs, call.services.box, run.user_id, run.actor_id)

    def encrypt() -> bytes:
        return json_input(with_secrets_encrypted(json.loads(given.content), given.secret_fields, key))

    content = await asyncio.to_thread(encrypt)
    return replace(run, meta={**run.meta, KEY_ID: key.id}), replace(given, content=content)


async def validate_input(call: Call) -> Response:
    """Whether the body would do as an input; nothing is started. The answer stands bare, without ``data``."""
    actor = await visible_actor(call)
    await given_input(call, await asked_build(call, actor))
    return Response(json.dumps({"valid": True}), media_type="application/json; charset=utf-8")


async def _schema(build: Build) -> InputSchema | None:
    """Read in a thread: the first time that may take as long as a schema is large."""
    if "input" not in build.definition:
        return None
    try:
        return await asyncio.to_thread(schema_of, build.id, build.definition)
    except UnusableSchema as error:
        raise InvalidInputSchema(str(error)) from error


def _checked(schema: InputSchema, body: bytes) -> bytes:
    """*body*, completed, as it is stored. Raises InvalidInput."""
    value = _parsed(body)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise InvalidInput(f'The input JSON must be object, got "{_KINDS[type(value)]}" instead.')
    completed = schema.completed(value)
    problems = schema.problems(completed, time.monotonic)
    if problems:
        told = ", ".join(problem.message for problem in problems)
        raise InvalidInput(f"Input is not valid: {told}", [problem.field for problem in problems])
    return json_input(completed)


def _parsed(body: bytes) -> Any:
    if not body.strip():
        return None
    try:
        return parse_json(body)
    except InvalidRequest as error:
        raise InvalidInput(f"Cannot parse input JSON body: {error.message}") from error


ENDPOINTS = (
    Endpoint(method="POST", path="/actors/{actor}/validate-input", handler=validate_input, scope="actors:run"),
)
