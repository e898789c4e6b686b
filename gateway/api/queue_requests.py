"""
The requests of queues: add, list, get, replace, delete, one by one and in batches.

A batch is done as a whole or not at all, since clients repeat what they are told was left undone; so a malformed
request makes the whole batch a 400 that names it, and ``unprocessedRequests`` is always empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from starlette.responses import Response

from gateway.api.body import parse_json
from gateway.api.call import Call, Endpoint, Handler, answer, no_content
from gateway.api.envelope import encoded
from gateway.api.fields import refuse
from gateway.api.queue_clients import client_key
from gateway.api.storage_access import storage_endpoints, storage_of_path
from gateway.api.storage_views import batch_view, registration_view, request_view
from gateway.core.errors import InvalidRequest, RecordNotFound
from gateway.core.model import Storage, StorageKind
from gateway.core.queue_requests import (
    cursor_after,
    id_of_cursor,
    is_request_id,
    named_requests,
    queued_request,
    queued_requests,
)
from gateway.core.storages import QueuedRequest

QUEUE = StorageKind.REQUEST_QUEUE
MAX_LISTED = 10_000

# A page of a list ends early where its requests are large: so much of it is held in memory, and one chunk more.
_MAX_PAGE_BYTES = 32 * 1024 * 1024
_FIRST_CHUNK, _MAX_CHUNK = 25, 1000
_FILTERS = frozenset({"pending", "locked"})


async def add_request(call: Call) -> Response:
    """One request; one that is there already, by its ``uniqueKey``, stays as it is."""
    queue = await _queue(call)
    request = queued_request(parse_json(await call.body()))
    (added,) = await _added(call, queue, [request])
    return answer(added, 201)


async def add_requests(call: Call) -> Response:
    """Up to 25 of them."""
    queue = await _queue(call)
    requests = queued_requests(parse_json(await call.body()))
    return answer(batch_view(await _added(call, queue, requests)), 201)


async def _added(call: Call, queue: Storage, requests: Sequence[QueuedRequest]) -> list[dict[str, object]]:
    added = await call.storages.add_requests(
        queue.id,
        requests,
        forefront=call.query.flag("forefront"),
        client=client_key(call),
        now=call.services.now(),
    )
    return [registration_view(one) for one in added]


async def get_request(call: Call) -> Response:
    """One request, whole, with the end of its lock while it has one."""
    queue = await _queue(call, to_write=False)
    request_id = call.path("request")
    if not is_request_id(request_id):
        raise RecordNotFound("Request")
    request = await call.storages.request(queue.id, request_id, now=call.services.now())
    if request is None:
        raise RecordNotFound("Request")
    return answer(request_view(request))


async def put_request(call: Call) -> Response:
    """Replace a request, or add it: clients that know its id themselves say so that they have handled it."""
    queue = await _queue(call)
    request = queued_request(parse_json(await call.body()), path_id=call.path("request"))
    put = await call.storages.put_request(
        queue.id,
        request,
        forefront=call.query.flag("forefront"),
        client=client_key(call),
        now=call.services.now(),
    )
    return answer(registration_view(put))


async def delete_request(call: Call) -> Response:
    """One request; that it is not there (any more) is fine, as the answer of a first call may have been lost."""
    queue = await _queue(call)
    await call.storages.delete_requests(
        queue.id, [call.path("request")], client=client_key(call), now=call.services.now()
    )
    return no_content()


async def delete_requests(call: Call) -> Response:
    """Up to 25 of them, by id or unique key. All count as processed, those that were not there as well."""
    queue = await _queue(call)
    named = named_requests(parse_json(await call.body()))
    deleted = await call.storages.delete_requests(
        queue.id, list(named), client=client_key(call), now=call.services.now()
    )
    unique_keys = dict(named) | {request.id: request.unique_key for request in deleted}
    return answer(
        batch_view(
            [
                {"id": request_id} if unique_key is None else {"id": request_id, "uniqueKey": unique_key}
                for request_id, unique_key in unique_keys.items()
            ]
        )
    )


async def list_requests(call: Call) -> Response:
    """
    The requests in the order in which they were added, at most 10,000 in a page; ``nextCursor`` is absent at the end.

    ``filter`` names states, of which any will do; a locked request is a pending one too. Of ``cursor`` and the older
    ``exclusiveStartId`` the first counts.
    """
    queue = await _queue(call, to_write=False)
    limit = min(call.query.whole("limit") or MAX_LISTED, MAX_LISTED)
    states = _states(call)
    cursor, start_id = call.query.text("cursor"), call.query.text("exclusiveStartId")
    after = start_id
    if cursor is not None:
        after = id_of_cursor(cursor)
    elif start_id is not None and not is_request_id(start_id):
        raise refuse("exclusiveStartId", "the id of a request")
    items: list[bytes] = []
    size = 0
    # Where the next requests follow: the last one that was read, or one before it where that is deleted by then.
    anchors = [after]
    while True:
        chunk = min(limit + 1 - len(items), _chunk(len(items), size))
        try:
            found = await call.storages.list_requests(
                queue.id,
                after=anchors[-1],
                limit=chunk,
                is_pending="pending" in states,
                is_locked=states == {"locked"},
                now=call.services.now(),
            )
        except InvalidRequest:
            if len(anchors) == 1:
                raise
            anchors.pop()
            continue
        for request in found:
            if len(items) == limit or size > _MAX_PAGE_BYTES:
                return _page(call, items, limit, cursor_after(anchors[-1] or ""))
            items.append(encoded(request_view(request)))
            size += len(items[-1])
            anchors.append(request.id)
        if len(found) < chunk:
            return _page(call, items, limit, None)


def _chunk(count: int, size: int) -> int:
    """How many requests to read next, where *count* of them had *size* bytes: few large ones, many small ones."""
    if not count:
        return _FIRST_CHUNK
    return max(1, min(_MAX_CHUNK, (_MAX_PAGE_BYTES - size) * count // max(size, 1)))


def _page(call: Call, items: list[bytes], limit: int, next_cursor: str | None) -> Response:
    """The envelope around *items*, which are JSON already."""
    facts: dict[str, object] = {"count": len(items), "limit": limit}
    for name in ("cursor", "exclusiveStartId"):
        given = call.query.text(name)
        if given is not None:
            facts[name] = given
    if next_cursor is not None:
        facts["nextCursor"] = next_cursor
    body = b'{"data":{"items":[' + b",".join(items) + b"]," + encoded(facts)[1:] + b"}"
    return Response(body, media_type="application/json; charset=utf-8")


def _states(call: Call) -> frozenset[str]:
    given = call.query.text("filter")
    states = frozenset(state.strip() for state in given.split(",")) if given is not None else frozenset()
    if not states <= _FILTERS:
        raise refuse("filter", f"a comma list of {', '.join(sorted(_FILTERS))}")
    return states


async def _queue(call: Call, *, to_write: bool = True) -> Storage:
    return await storage_of_path(call, QUEUE, to_write=to_write)


_REQUESTS, _BATCH, _REQUEST = "/requests", "/requests/batch", "/requests/{request}"


def _endpoints() -> Iterator[Endpoint]:
    # The batch stands before the single request, whose path it would fit too.
    handlers: tuple[tuple[str, str, Handler], ...] = (
        ("POST", _BATCH, add_requests),
        ("DELETE", _BATCH, delete_requests),
        ("GET", _REQUESTS, list_requests),
        ("POST", _REQUESTS, add_request),
        ("GET", _REQUEST, get_request),
        ("PUT", _REQUEST, put_request),
        ("DELETE", _REQUEST, delete_request),
    )
    for method, suffix, handler in handlers:
        yield from storage_endpoints(method, QUEUE, suffix, handler, writes=method != "GET")


ENDPOINTS = tuple(_endpoints())
