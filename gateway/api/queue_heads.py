"""
The heads of queues and the locks on requests.

A client that shares a queue locks what it takes from the head, and prolongs or drops the locks; who holds no lock gets
403 ``request-not-locked``, on which both SDKs leave the request to whoever has it now.
"""

from __future__ import annotations

from datetime import timedelta

from starlette.responses import Response

from gateway.api.call import Call, answer, no_content
from gateway.api.fields import refuse
from gateway.api.queue_clients import client_key, lock_owner
from gateway.api.storage_access import storage_endpoints, storage_of_path
from gateway.api.storage_views import head_view, locked_head_view
from gateway.core.errors import RecordNotFound
from gateway.core.model import Storage, StorageKind
from gateway.core.queue_requests import is_request_id
from gateway.core.times import iso

QUEUE = StorageKind.REQUEST_QUEUE
MAX_HEAD, MAX_LOCKED_HEAD = 1000, 25
MAX_LOCK_SECS = 24 * 3600


async def get_head(call: Call) -> Response:
    """The first pending requests that nobody has locked, at most 1000 of them."""
    queue = await _queue(call, to_write=False)
    limit = _limit(call, MAX_HEAD)
    head = await call.storages.head(queue.id, limit=limit, client=client_key(call), now=call.services.now())
    return answer(head_view(head, limit))


async def lock_head(call: Call) -> Response:
    """The same, at most 25 of them, locked for the caller for ``lockSecs``."""
    queue = await _queue(call)
    limit, lock_secs = _limit(call, MAX_LOCKED_HEAD), _lock_secs(call)
    now = call.services.now()
    head = await call.storages.lock_head(
        queue.id,
        limit=limit,
        until=now + timedelta(seconds=lock_secs),
        owner=lock_owner(call),
        client=client_key(call),
        now=now,
    )
    return answer(locked_head_view(head, limit, lock_secs=lock_secs, client_key=client_key(call)), 201)


async def prolong_lock(call: Call) -> Response:
    """The lock now ends ``lockSecs`` from now; with ``forefront`` the request is then at the front."""
    queue, request_id = await _queue(call), _request_id(call)
    now = call.services.now()
    until = now + timedelta(seconds=_lock_secs(call))
    await call.storages.prolong_lock(
        queue.id, request_id, until=until, owner=lock_owner(call), forefront=call.query.flag("forefront"), now=now
    )
    return answer({"lockExpiresAt": iso(until)})


async def drop_lock(call: Call) -> Response:
    """The request is free at once, with ``forefront`` at the front."""
    queue, request_id = await _queue(call), _request_id(call)
    await call.storages.drop_lock(
        queue.id,
        request_id,
        owner=lock_owner(call),
        forefront=call.query.flag("forefront"),
        now=call.services.now(),
    )
    return no_content()


async def unlock_requests(call: Call) -> Response:
    """Free all that the caller has locked."""
    queue = await _queue(call)
    count = await call.storages.unlock_all(queue.id, owner=lock_owner(call), now=call.services.now())
    return answer({"unlockedCount": count})


def _limit(call: Call, most: int) -> int:
    """``limit``, at most *most*, which is also meant by 0 or none; the answer says which one holds."""
    return min(call.query.whole("limit") or most, most)


def _lock_secs(call: Call) -> int:
    lock_secs = call.query.whole("lockSecs")
    if lock_secs is None or not 1 <= lock_secs <= MAX_LOCK_SECS:
        raise refuse("lockSecs", f"given, a whole number of seconds from 1 to {MAX_LOCK_SECS}")
    return lock_secs


def _request_id(call: Call) -> str:
    request_id = call.path("request")
    if not is_request_id(request_id):
        raise RecordNotFound("Request")
    return request_id


async def _queue(call: Call, *, to_write: bool = True) -> Storage:
    return await storage_of_path(call, QUEUE, to_write=to_write)


_LOCK = "/requests/{request}/lock"

ENDPOINTS = (
    *storage_endpoints("GET", QUEUE, "/head", get_head, writes=False),
    *storage_endpoints("POST", QUEUE, "/head/lock", lock_head, writes=True),
    *storage_endpoints("POST", QUEUE, "/requests/unlock", unlock_requests, writes=True),
    *storage_endpoints("PUT", QUEUE, _LOCK, prolong_lock, writes=True),
    *storage_endpoints("DELETE", QUEUE, _LOCK, drop_lock, writes=True),
)
