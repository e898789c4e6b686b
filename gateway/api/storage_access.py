"""
Which storage a call means, and who may use it.

A storage is named by its id, by ``username~name`` or ``~name``, by the caller's own name for it, or as the default one
of a run. The token of a run may use what belongs to it: its default storages, those that its Actor has made in any run
of the same user, and those of the runs that it has started. Source: apify-platform.md §8 (limited permissions).
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.api.access import run_of_path
from gateway.api.call import Call, Endpoint, Handler
from gateway.api.errors import InvalidSignature
from gateway.core.errors import InsufficientPermissions, RecordNotFound, TokenNotProvided
from gateway.core.ids import ID_PATTERN
from gateway.core.model import Run, Storage, StorageKind

# kind → its collection, and what a run calls its default one
_COLLECTIONS = {
    StorageKind.KEY_VALUE_STORE: ("key-value-stores", "key-value-store"),
    StorageKind.DATASET: ("datasets", "dataset"),
    StorageKind.REQUEST_QUEUE: ("request-queues", "request-queue"),
}
_SHOWN = {
    StorageKind.KEY_VALUE_STORE: "Key-value store",
    StorageKind.DATASET: "Dataset",
    StorageKind.REQUEST_QUEUE: "Request queue",
}


def collection_path(kind: StorageKind) -> str:
    """The path of all storages of a kind, e.g. ``/datasets``."""
    return f"/{_COLLECTIONS[kind][0]}"


def storage_paths(kind: StorageKind, suffix: str = "") -> tuple[str, ...]:
    """All paths under which one storage of *kind* answers, each with *suffix*, e.g. ``/items``."""
    collection, of_run = _COLLECTIONS[kind]
    return (
        f"/{collection}/{{storage}}{suffix}",
        f"/actor-runs/{{run}}/{of_run}{suffix}",
        f"/actors/{{actor}}/runs/{{run}}/{of_run}{suffix}",
    )


def storage_endpoints(
    method: str, kind: StorageKind, suffix: str, handler: Handler, *, writes: bool, signed: bool = False
) -> tuple[Endpoint, ...]:
    """*handler* under all paths of a storage; *signed*: a signature in the query may stand for a token."""
    scope = "storages:write" if writes else "storages:read"
    return tuple(
        Endpoint(method=method, path=path, handler=handler, scope=scope, own_run=True, signed=signed)
        for path in storage_paths(kind, suffix)
    )


async def storage_of_path(
    call: Call,
    kind: StorageKind,
    *,
    to_write: bool,
    is_signed_for: Callable[[Storage], bool] | None = None,
) -> Storage:
    """
    The storage that the path names, if the caller may read it or, with *to_write*, change it.

    A call without a token is let through only where *is_signed_for* says that its signature is right for that storage.
    Raises RecordNotFound for what is not there or somebody else's, InsufficientPermissions for what the token of a run
    may not use, InvalidSignature, TokenNotProvided.
    """
    if call.is_anonymous:
        return await _signed(call, kind, None if to_write else is_signed_for)
    if "run" in call.request.path_params:
        run = await run_of_path(call)
        storage = await call.storages.storage(kind, default_storage_id(run, kind))
        if storage is None:
            raise RecordNotFound(_SHOWN[kind])
        return storage
    storage = await _named(call, kind, call.path("storage"))
    if storage is None or storage.user_id != call.principal.user_id:
        raise RecordNotFound(_SHOWN[kind])
    await require_usable(call, storage)
    return storage


def default_storage_id(run: Run, kind: StorageKind) -> str:
    """The id of the run's default storage of *kind*."""
    return {
        StorageKind.KEY_VALUE_STORE: run.default_key_value_store_id,
        StorageKind.DATASET: run.default_dataset_id,
        StorageKind.REQUEST_QUEUE: run.default_request_queue_id,
    }[kind]


async def require_usable(call: Call, storage: Storage) -> None:
    """Raise InsufficientPermissions where the caller is a run that *storage* is none of the business of."""
    own_id = call.principal.run_id
    if not call.is_limited_to_own_run or storage.run_id == own_id:
        return
    own = await call.records.run(own_id or "")
    if own is not None and storage.actor_id == own.actor_id:
        return
    maker = await call.records.run(storage.run_id) if storage.run_id is not None else None
    if maker is None or maker.parent_run_id != own_id:
        raise InsufficientPermissions(
            f"This {_SHOWN[storage.kind].lower()} was made by neither this Actor nor a run that it started, so the "
            "token of a run may not use it: take another name, or give the Actor a token of yours."
        )


async def _named(call: Call, kind: StorageKind, reference: str) -> Storage | None:
    storages, records = call.storages, call.records
    username, tilde, name = reference.partition("~")
    if tilde:
        owner_id: str | None = call.principal.user_id
        if username:
            owner = await records.user_by_name(username)
            owner_id = owner.id if owner is not None else None
        return await storages.storage_by_name(owner_id, kind, name) if owner_id is not None else None
    if ID_PATTERN.fullmatch(reference):
        storage = await storages.storage(kind, reference)
        if storage is not None and storage.user_id == call.principal.user_id:
            return storage
    return await storages.storage_by_name(call.principal.user_id, kind, reference)


async def _signed(call: Call, kind: StorageKind, is_signed_for: Callable[[Storage], bool] | None) -> Storage:
    if is_signed_for is None or "storage" not in call.request.path_params:
        raise TokenNotProvided
    reference = call.path("storage")
    storage = await call.storages.storage(kind, reference) if ID_PATTERN.fullmatch(reference) else None
    # One answer for a wrong signature and for no such storage: neither tells whether there is one.
    if storage is None or not is_signed_for(storage):
        raise InvalidSignature
    return storage
