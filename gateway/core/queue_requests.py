"""
No I/O: a request as a client sends it to a queue, checked so that every client can read it back.

The object is kept as it was given, unknown fields included; only what the queue itself says of a request (``id``,
``lockExpiresAt``) is taken out, and ``handledAt`` is written as the API writes times. Source: apify-wire.md §5, §7.4.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from gateway.core.errors import InvalidRequest
from gateway.core.storages import REQUEST_ID_CHARS, QueuedRequest, request_id
from gateway.core.times import iso, parse_iso

MAX_BATCH_REQUESTS = 25

_MAX_RETRIES = 2**53 - 1
_REQUEST_ID = re.compile(rf"[A-Za-z0-9]{{{REQUEST_ID_CHARS}}}")
_OF_THE_QUEUE = frozenset({"id", "lockExpiresAt"})
# Fields that a client may leave out or set to null, and what the strictest reader takes in them.
_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "method": ((str,), "a text"),
    "loadedUrl": ((str,), "a text"),
    "payload": ((str, dict), "a text or an object"),
    "headers": ((dict,), "an object"),
    "userData": ((dict,), "an object"),
    "noRetry": ((bool,), "true or false"),
    "errorMessages": ((list,), "a list of texts"),
}


def queued_request(given: Any, *, where: str = "", path_id: str | None = None) -> QueuedRequest:
    """
    The request that the JSON value *given* is; *where* is its place in the body, e.g. ``[3].``.

    Its id follows from its ``uniqueKey``, so an ``id`` in it and the one of the path, *path_id*, must be that one.
    Raises InvalidRequest, whose message names the field.
    """
    if not isinstance(given, dict):
        raise InvalidRequest(
            f"{where.rstrip('.') or 'The body'} must be a JSON object: a request with uniqueKey and url."
        )
    unique_key = _needed_text(given, "uniqueKey", where)
    _needed_text(given, "url", where)
    for field, (kinds, expected) in _KINDS.items():
        value = given.get(field)
        if value is not None and not isinstance(value, kinds):
            raise _refusal(where, field, expected)
    if any(not isinstance(message, str) for message in given.get("errorMessages") or ()):
        raise _refusal(where, "errorMessages", "a list of texts")
    data = {field: value for field, value in given.items() if field not in _OF_THE_QUEUE}
    if data.get("retryCount") is not None:
        data["retryCount"] = _retries(data["retryCount"], where)
    handled_at = _handled_at(data.get("handledAt"), where)
    if handled_at is not None:
        data["handledAt"] = iso(handled_at)
    own_id = request_id(unique_key)
    if given.get("id") not in (None, own_id):
        raise _refusal(where, "id", f"left out or {own_id}, which follows from the uniqueKey")
    if path_id not in (None, own_id):
        raise InvalidRequest(
            f"This uniqueKey is that of the request {own_id}, not of {path_id}, which the path names: a request keeps "
            "its uniqueKey for ever, so add one with another uniqueKey instead.",
            data={"field": f"{where}uniqueKey"},
        )
    return QueuedRequest(id=own_id, unique_key=unique_key, data=data, handled_at=handled_at)


def queued_requests(given: Any) -> Sequence[QueuedRequest]:
    """
    The requests of a batch, all or none of them: clients repeat what they are told was left undone, which would not
    mend a malformed one. Raises InvalidRequest, whose message says which request is wrong.
    """
    return [queued_request(one, where=f"[{index}].") for index, one in enumerate(_batch(given, "requests"))]


def named_requests(given: Any) -> Mapping[str, str | None]:
    """
    The requests that a batch of ``{"id"}`` and ``{"uniqueKey"}`` names: id → unique key, where that was given.

    Raises InvalidRequest.
    """
    named: dict[str, str | None] = {}
    for index, one in enumerate(_batch(given, "objects with an id or a uniqueKey")):
        where = f"[{index}]"
        if not isinstance(one, dict):
            raise InvalidRequest(f"{where} must be an object with an id or a uniqueKey.", data={"field": where})
        if one.get("uniqueKey") is not None:
            unique_key = _needed_text(one, "uniqueKey", f"{where}.")
            named[request_id(unique_key)] = unique_key
        else:
            named.setdefault(_needed_text(one, "id", f"{where}."), None)
    return named


def is_request_id(text: str) -> bool:
    """Whether a request could have this id."""
    return _REQUEST_ID.fullmatch(text) is not None


def cursor_after(last_id: str) -> str:
    """What stands for "after the request *last_id*" in a list's ``nextCursor``; opaque to clients."""
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def id_of_cursor(cursor: str) -> str:
    """The id that ``cursor_after`` was given. Raises InvalidRequest."""
    try:
        found = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        found = ""
    if not is_request_id(found):
        raise InvalidRequest(
            "cursor must be the nextCursor of an earlier page of this list, as it was given.", data={"field": "cursor"}
        )
    return found


def _batch(given: Any, of_what: str) -> list[Any]:
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_BATCH_REQUESTS:
        raise InvalidRequest(f"The body must be a JSON list of 1 to {MAX_BATCH_REQUESTS} {of_what}.")
    return given


def _needed_text(given: Mapping[str, Any], field: str, where: str) -> str:
    value = given.get(field)
    if not isinstance(value, str) or not value:
        raise _refusal(where, field, "a text that is not empty")
    return value


def _retries(value: Any, where: str) -> int:
    """A whole number; ``5.0`` is one, as JSON knows no difference."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_RETRIES:
        raise _refusal(where, "retryCount", f"a whole number from 0 to {_MAX_RETRIES}")
    return value


def _handled_at(value: Any, where: str) -> datetime | None:
    if value is None:
        return None
    expected = "a time in ISO 8601, such as 2026-01-02T03:04:05.678Z"
    if not isinstance(value, str):
        raise _refusal(where, "handledAt", expected)
    try:
        at = parse_iso(value)
        iso(at)
    except (ValueError, OverflowError):  # the latter: a year that only its offset puts out of the calendar
        raise _refusal(where, "handledAt", expected) from None
    return at


def _refusal(where: str, field: str, expected: str) -> InvalidRequest:
    return InvalidRequest(f"{where}{field} must be {expected}.", data={"field": f"{where}{field}"})
