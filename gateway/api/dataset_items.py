"""Items of datasets: pushed as JSON, read in many formats. Source: apify-wire.md §7.3."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft7Validator
from starlette.background import BackgroundTask
from starlette.responses import Response, StreamingResponse

from gateway.api.body import parse_json
from gateway.api.call import Call, answer
from gateway.api.dataset_schemas import check_items, item_validator, view_transformation
from gateway.api.item_pages import ItemPages
from gateway.api.item_query import NO_LIMIT, ItemsQuery, items_query
from gateway.api.signatures import is_signed_for_storage
from gateway.api.storage_access import storage_endpoints, storage_of_path
from gateway.core.errors import InvalidRequest
from gateway.core.item_formats import ItemFormat, json_text
from gateway.core.item_view import is_clean
from gateway.core.model import Storage, StorageKind

_DATASET = StorageKind.DATASET
# Smaller bodies are read quicker than a thread begins.
_READ_HERE_BYTES = 32 * 1024


async def push_items(call: Call) -> Response:
    """Append an object, or an array of them: all or none."""
    dataset = await storage_of_path(call, _DATASET, to_write=True)
    validator = await item_validator(call, dataset)
    body = await call.body()
    if len(body) <= _READ_HERE_BYTES:
        pushed = _pushed(body, validator)
    else:
        pushed = await asyncio.to_thread(_pushed, body, validator)
    if not pushed.texts:
        return answer({}, 201)
    push_id = call.services.new_id()
    await call.storages.push_items(
        dataset.id,
        pushed.texts,
        clean_count=pushed.clean_count,
        now=call.services.now(),
        push_id=push_id,
        digest=_digest(dataset.id, call.principal.token_id, body),
    )

    async def was_answered() -> None:
        call.storages.push_was_answered(push_id)

    answered = answer({}, 201)
    answered.background = BackgroundTask(was_answered)
    return answered


async def get_items(call: Call) -> Response:
    """The items, in the format and with the changes that the query asks for."""
    is_signed = is_signed_for_storage(call)
    return await items_answer(call, await storage_of_path(call, _DATASET, to_write=False, is_signed_for=is_signed))


async def items_answer(call: Call, dataset: Storage) -> Response:
    """What the query of *call* asks of the items of *dataset*, which the caller may read."""
    view = call.query.text("view")
    transformation = await view_transformation(call, dataset, view) if view is not None else None
    asked = items_query(call.query, transformation)
    pages = await ItemPages.open(call.storages, dataset, asked)
    headers = _headers(dataset, asked, pages)
    if call.request.method == "HEAD":
        return _streamed(_nothing(), headers)
    if asked.format is ItemFormat.XLSX:
        return _streamed(await pages.workbook(), headers)
    columns = await pages.columns() if asked.format.has_columns else ()
    url = f"{call.services.urls.public}/v2/datasets/{dataset.id}/items"
    chunks = pages.written(asked.writer(columns, name=dataset.name or dataset.id, url=url))
    if pages.is_one and asked.view.is_plain:
        return Response(b"".join([chunk async for chunk in chunks]), headers=headers)
    return _streamed(chunks, headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pushed:
    """The items of one push as they are stored."""

    texts: tuple[str, ...]
    clean_count: int


def _pushed(body: bytes, validator: Draft7Validator | None) -> _Pushed:
    """Raises InvalidRequest, SchemaValidationFailed."""
    if not body.strip():
        raise InvalidRequest("The body must be an object or an array of objects; it is empty.")
    value = parse_json(body)
    items = value if isinstance(value, list) else [value]
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            where = f"the one at position {position}" if value is items else "the body"
            raise InvalidRequest(
                f"Items must be JSON objects; {where} is none.",
                data={"itemPosition": position} if value is items else {},
            )
    if validator is not None:
        check_items(validator, items)
    return _Pushed(texts=tuple(map(json_text, items)), clean_count=sum(map(is_clean, items)))


def _digest(dataset_id: str, token_id: str, body: bytes) -> str:
    """Of all that was sent: by it a repeated push is recognised."""
    digest = hashlib.sha256(f"{dataset_id}\0{token_id}\0".encode())
    digest.update(body)
    return digest.hexdigest()


def _headers(dataset: Storage, asked: ItemsQuery, pages: ItemPages) -> dict[str, str]:
    headers = {
        "Content-Type": asked.format.content_type,
        # Clients require all five.
        "X-Apify-Pagination-Total": str(pages.total),
        "X-Apify-Pagination-Offset": str(asked.offset),
        "X-Apify-Pagination-Count": str(pages.count),
        "X-Apify-Pagination-Limit": str(NO_LIMIT if asked.limit is None else asked.limit),
        "X-Apify-Pagination-Desc": str(asked.desc).lower(),
        # Items are whatever was scraped: a page made of them must not run on the API's origin.
        "Content-Security-Policy": "sandbox",
    }
    if asked.is_attachment:
        headers["Content-Disposition"] = f'attachment; filename="{dataset.id}.{asked.format}"'
    return headers


def _streamed(chunks: AsyncIterator[bytes], headers: dict[str, Any]) -> Response:
    return StreamingResponse(chunks, headers=headers)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


ENDPOINTS = (
    *storage_endpoints("GET", _DATASET, "/items", get_items, writes=False, signed=True),
    *storage_endpoints("POST", _DATASET, "/items", push_items, writes=True),
)
