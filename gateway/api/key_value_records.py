"""Records of key-value stores: any bytes under a key, with the content type that they came with; and lists of keys."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC
from email.utils import format_datetime
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from gateway.api.body import pieces
from gateway.api.byte_ranges import NotSatisfiable, asked_range
from gateway.api.call import Call, answer, no_content
from gateway.api.envelope import failure
from gateway.api.errors import InvalidContentType, RangeNotSatisfiable, RecordTooLarge
from gateway.api.fields import refuse
from gateway.api.signatures import is_signed_for_record, is_signed_for_storage
from gateway.api.storage_access import storage_endpoints, storage_of_path
from gateway.api.unnamed_blobs import delete_unnamed
from gateway.auth import url_signing_secret
from gateway.core.errors import GreenroomError, InvalidRecordKey, InvalidRequest, RecordNotFound, RequestTooLarge
from gateway.core.model import Storage, StorageKind
from gateway.core.signed_urls import record_signature
from gateway.core.storages import MAX_INLINE_RECORD_BYTES, KeyValueRecord, checked_record_key

_log = logging.getLogger(__name__)

_STORE = StorageKind.KEY_VALUE_STORE
_NO_CONTENT_TYPE = "application/octet-stream"
_MAX_CONTENT_TYPE_CHARS = 1000
_MAX_KEYS = 1000
_PART_OF_A_KEY = re.compile(r"[A-Za-z0-9!\-_.'()]{0,256}")
_LOOKS = 5


async def get_record(call: Call) -> Response:
    """The record's bytes as they were stored."""
    key = _key(call)
    store = await storage_of_path(call, _STORE, to_write=False, is_signed_for=is_signed_for_record(call, key))
    return await record_answer(call, store.id, key)


async def record_answer(call: Call, store_id: str, key: str) -> Response:
    """What *call* asks of a record that it may read: all, a range, or whether it changed. Raises RecordNotFound."""
    for _ in range(_LOOKS):
        record = await call.storages.record(store_id, key)
        if record is None:
            raise RecordNotFound("Record")
        made = await _answer_from(call, record)
        if made is not None:
            return made
        # It was replaced between the two looks, and its old bytes are gone: look again.
    _log.error("the bytes of record %s of key-value store %s are not in the blobs", key, store_id)
    raise GreenroomError("The bytes of this record can't be found; Greenroom's log tells more.")


async def _answer_from(call: Call, record: KeyValueRecord) -> Response | None:
    """None where the blob of the record is gone."""
    asked = call.request.headers
    tag = _entity_tag(record)
    headers = {
        "Content-Type": record.content_type,
        "ETag": tag,
        "Last-Modified": format_datetime(record.modified_at.astimezone(UTC), usegmt=True),
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        # A record is anybody's page or picture: its scripts must not run on the API's origin.
        "Content-Security-Policy": "sandbox",
    }
    if call.query.flag("attachment"):
        headers["Content-Disposition"] = f'attachment; filename="{record.key}"'
    if _names_tag(asked.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers)
    is_unchanged = asked.get("if-range", tag) == tag
    try:
        part = asked_range(asked.get("range"), record.size) if is_unchanged else None
    except NotSatisfiable:
        error = RangeNotSatisfiable(record.size)
        about = {"Content-Type": "application/json; charset=utf-8", "Content-Range": f"bytes */{record.size}"}
        return Response(failure(error), status_code=error.http_status, headers=about)
    start, end = part or (0, record.size)
    headers["Content-Length"] = str(end - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{record.size}"
    status = 200 if part is None else 206
    if call.request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    if record.blob is None:
        return Response((record.value or b"")[start:end], status_code=status, headers=headers)
    chunks = await call.services.state.blobs.open(record.blob, start=start, end=end if part is not None else None)
    return StreamingResponse(chunks, status_code=status, headers=headers) if chunks is not None else None


async def put_record(call: Call) -> Response:
    """Store the body under the key, in place of what was there. Answered when it is durable."""
    key = _key(call)
    store = await storage_of_path(call, _STORE, to_write=True)
    record = await _received(call, store.id, key, _content_type(call))
    try:
        unnamed = await call.storages.put_record(record)
    except GreenroomError:
        # Nothing was stored. After any other error nobody knows whether the row names the blob by now: it stays.
        await delete_unnamed(call, record.blob)
        raise
    await delete_unnamed(call, unnamed)
    response = answer({}, 201)
    response.headers["Location"] = _address(call, store, key)
    return response


async def _received(call: Call, store_id: str, key: str, content_type: str) -> KeyValueRecord:
    """The record that the body makes; a large one's bytes lie in a blob of their own when this returns."""
    limit = call.services.settings.max_record_bytes
    stream = pieces(call.request, limit)
    size = 0

    async def whole() -> AsyncIterator[bytes]:
        nonlocal size
        size = len(head)
        yield bytes(head)
        async for piece in stream:
            size += len(piece)
            yield piece

    blob = None
    head = bytearray()
    try:
        async with aclosing(stream):
            async for piece in stream:
                head += piece
                if len(head) > MAX_INLINE_RECORD_BYTES:
                    blob = f"key-value-stores/{store_id}/{call.services.new_id()}"
                    await call.services.state.blobs.put(blob, whole())
    except RequestTooLarge:
        raise RecordTooLarge(limit) from None
    if not head and _is_json(content_type):
        raise InvalidRequest("An empty body is no JSON: send a value, null for none, or delete the record.")
    return KeyValueRecord(
        store_id=store_id,
        key=key,
        content_type=content_type,
        size=len(head) if blob is None else size,
        modified_at=call.services.now(),
        value=bytes(head) if blob is None else None,
        blob=blob,
    )


async def delete_record(call: Call) -> Response:
    """Delete the record; one that is not there is fine."""
    key = _key(call)
    store = await storage_of_path(call, _STORE, to_write=True)
    await delete_unnamed(call, await call.storages.delete_record(store.id, key, call.services.now()))
    return no_content()


async def list_keys(call: Call) -> Response:
    """Some keys of the store, in the order of their bytes, each with its size and address."""
    is_signed = is_signed_for_storage(call)
    store = await storage_of_path(call, _STORE, to_write=False, is_signed_for=is_signed)
    after = call.query.text("exclusiveStartKey")
    prefix = call.query.text("prefix") or ""
    for name, given in (("exclusiveStartKey", after or ""), ("prefix", prefix)):
        if not _PART_OF_A_KEY.fullmatch(given):
            raise refuse(name, "a key or the beginning of one: up to 256 of a-z, A-Z, 0-9 and !-_.'()")
    if call.query.text("collection") is not None:
        raise refuse("collection", "left out: use prefix= instead, collections of keys are not supported")
    limit = min(call.query.whole("limit") or _MAX_KEYS, _MAX_KEYS)
    page = await call.storages.list_keys(store.id, after=after, prefix=prefix, limit=limit)
    return answer(
        {
            "items": [
                {"key": record.key, "size": record.size, "recordPublicUrl": _public_url(call, store, record.key)}
                for record in page.items
            ],
            "count": len(page.items),
            "limit": limit,
            "isTruncated": page.is_truncated,
            "exclusiveStartKey": after,
            # Clients go on until this is null.
            "nextExclusiveStartKey": page.items[-1].key if page.is_truncated else None,
        }
    )


def _key(call: Call) -> str:
    """The key in the path, decoded once. Raises InvalidRecordKey."""
    # A slash at the end of a path is tidied away before it comes here; one that is written %2F is part of the key.
    if call.request.scope.get("raw_path", b"").rstrip(b"/").lower().endswith(b"%2f"):
        raise InvalidRecordKey("A record's key has no slash in it.", data={"field": "key"})
    return checked_record_key(call.path("key"))


def _content_type(call: Call) -> str:
    given = call.request.headers.get("content-type", "")
    if len(given) > _MAX_CONTENT_TYPE_CHARS or not given.isprintable():
        raise InvalidContentType(f"Content-Type must be printable and at most {_MAX_CONTENT_TYPE_CHARS} characters.")
    return given or _NO_CONTENT_TYPE


def _is_json(content_type: str) -> bool:
    essence = content_type.partition(";")[0].strip().lower()
    return essence == "application/json" or essence.endswith("+json")


def _entity_tag(record: KeyValueRecord) -> str:
    """A strong one: another value, or the same under another content type, has another."""
    known_by = record.blob.encode() if record.blob is not None else record.value or b""
    about = f"{record.store_id}\0{record.key}\0{record.content_type}\0{record.modified_at.isoformat()}\0{record.size}\0"
    return f'"{hashlib.sha256(about.encode() + known_by).hexdigest()[:32]}"'


def _names_tag(if_none_match: str, tag: str) -> bool:
    tags = {part.strip().removeprefix("W/") for part in if_none_match.split(",")}
    return tag in tags or "*" in tags


def _address(call: Call, store: Storage, key: str) -> str:
    return f"{call.services.urls.public}/v2/key-value-stores/{store.id}/records/{quote(key, safe='')}"


def _public_url(call: Call, store: Storage, key: str) -> str:
    """Signed for who could change the store as well: a record's signature holds for ever, whatever let him list it."""
    address = _address(call, store, key)
    if not call.principal.may("storages:write") and call.principal.run_id is None:
        return address
    return f"{address}?signature={record_signature(url_signing_secret(call.services.box, store.id), key)}"


_RECORD = "/records/{key:path}"  # so that a slash in a key is told as such, not as an unknown page

ENDPOINTS = (
    *storage_endpoints("GET", _STORE, "/keys", list_keys, writes=False, signed=True),
    *storage_endpoints("GET", _STORE, _RECORD, get_record, writes=False, signed=True),
    *storage_endpoints("PUT", _STORE, _RECORD, put_record, writes=True),
    *storage_endpoints("POST", _STORE, _RECORD, put_record, writes=True),
    *storage_endpoints("DELETE", _STORE, _RECORD, delete_record, writes=True),
)
