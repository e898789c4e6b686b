"""
No I/O: storages, and the requests of queues, as the API shows them.

Field names and required fields are those of apify-wire.md §5; the strictest reader refuses an object that lacks one,
a ``consoleUrl`` that is not absolute, and in lists a ``name`` that is null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.core.model import Storage, StorageKind
from gateway.core.signed_urls import storage_signature
from gateway.core.storages import AddedRequest, QueuedRequest, QueueHead, shown_stats
from gateway.core.times import iso
from gateway.urls import Urls

View = dict[str, Any]

# What the API shows beside ``stats``, as a field of the storage itself, and its value where nothing was counted.
_COUNTED: Mapping[StorageKind, Mapping[str, int | bool]] = {
    StorageKind.KEY_VALUE_STORE: {},
    StorageKind.DATASET: {"itemCount": 0, "cleanItemCount": 0},
    StorageKind.REQUEST_QUEUE: {
        "totalRequestCount": 0,
        "handledRequestCount": 0,
        "pendingRequestCount": 0,
        "hadMultipleClients": False,
    },
}
_ZERO_STATS: Mapping[StorageKind, Mapping[str, int]] = {
    StorageKind.KEY_VALUE_STORE: {
        "readCount": 0,
        "writeCount": 0,
        "deleteCount": 0,
        "listCount": 0,
        "storageBytes": 0,
    },
    StorageKind.DATASET: {"readCount": 0, "writeCount": 0, "storageBytes": 0},
    StorageKind.REQUEST_QUEUE: {
        "readCount": 0,
        "writeCount": 0,
        "deleteCount": 0,
        "headItemReadCount": 0,
        "storageBytes": 0,
    },
}
# kind → its collection, and the part of it that a signed address gives away
_ADDRESSES = {
    StorageKind.KEY_VALUE_STORE: ("key-value-stores", "keys"),
    StorageKind.DATASET: ("datasets", "items"),
    StorageKind.REQUEST_QUEUE: ("request-queues", None),
}


def storage_view(storage: Storage, username: str, urls: Urls, *, signing_secret: str | None) -> View:
    """
    One storage. With *signing_secret*, for who may change it, its public addresses are signed and work without a token.
    """
    collection, public_part = _ADDRESSES[storage.kind]
    view = _common(storage, username) | {
        "name": storage.name,
        "consoleUrl": f"{urls.of_host(f'console.{urls.domain}')}/storage/{collection}/{storage.id}",
    }
    if public_part is None:
        return view
    address = f"{urls.public}/v2/{collection}/{storage.id}"
    signature = f"?signature={storage_signature(signing_secret, storage.id)}" if signing_secret is not None else ""
    view[f"{public_part}PublicUrl"] = f"{address}/{public_part}{signature}"
    if storage.kind is StorageKind.KEY_VALUE_STORE:
        view["recordsPublicUrl"] = f"{address}/records"
    if signing_secret is not None:
        view["urlSigningSecretKey"] = signing_secret
    return view


def storage_list_item(storage: Storage, username: str) -> View:
    """One storage in a list. Clients want a name there, so one without shows its id, as the platform does."""
    return _common(storage, username) | {"name": storage.name or storage.id}


def _common(storage: Storage, username: str) -> View:
    counted, zeros = _COUNTED[storage.kind], _ZERO_STATS[storage.kind]
    stats = shown_stats(storage.stats)
    return {
        "id": storage.id,
        "title": storage.title,
        "userId": storage.user_id,
        "username": username,
        "createdAt": iso(storage.created_at),
        "modifiedAt": iso(storage.modified_at),
        "accessedAt": iso(storage.accessed_at),
        "actId": storage.actor_id,
        "actRunId": storage.run_id,
        "generalAccess": storage.general_access,
        "stats": {field: stats.get(field, zero) for field, zero in zeros.items()},
        **{field: stats.get(field, zero) for field, zero in counted.items()},
    }


def request_view(request: QueuedRequest) -> View:
    """One request of a queue, whole."""
    view = request.as_api_object()
    if request.lock_expires_at is not None:
        view["lockExpiresAt"] = iso(request.lock_expires_at)
    return view


def registration_view(added: AddedRequest) -> View:
    """What became of one request that was added or updated."""
    return {
        "requestId": added.request_id,
        "uniqueKey": added.unique_key,
        "wasAlreadyPresent": added.was_already_present,
        "wasAlreadyHandled": added.was_already_handled,
    }


def batch_view(processed: Sequence[View]) -> View:
    """What became of a batch: it is done as a whole, so nothing is left for the client to repeat."""
    return {"processedRequests": list(processed), "unprocessedRequests": []}


def head_view(head: QueueHead, limit: int) -> View:
    """The head of a queue; its requests are shown in part only."""
    return {
        "limit": limit,
        "queueModifiedAt": iso(head.modified_at),
        "hadMultipleClients": head.had_multiple_clients,
        "items": [_head_item(request) for request in head.items],
    }


def locked_head_view(head: QueueHead, limit: int, *, lock_secs: int, client_key: str | None) -> View:
    """The same of requests that were just locked."""
    return head_view(head, limit) | {
        "lockSecs": lock_secs,
        "queueHasLockedRequests": head.has_locked_requests,
        "clientKey": client_key,
    }


def _head_item(request: QueuedRequest) -> View:
    item: View = {
        "id": request.id,
        "uniqueKey": request.unique_key,
        "url": request.data["url"],
        "method": request.data.get("method") or "GET",
        "retryCount": request.data.get("retryCount") or 0,
    }
    if request.lock_expires_at is not None:
        item["lockExpiresAt"] = iso(request.lock_expires_at)
    return item
