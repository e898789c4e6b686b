"""Storages of all three kinds as such: open or make, list, get, change, delete. What they hold has rooms of its own."""

from __future__ import annotations

from functools import partial

from starlette.responses import Response

from gateway.api.call import Call, Endpoint, answer, no_content
from gateway.api.fields import Fields, refuse
from gateway.api.pagination import listing, page_of
from gateway.api.storage_access import collection_path, require_usable, storage_endpoints, storage_of_path
from gateway.api.storage_views import storage_list_item, storage_view
from gateway.api.unnamed_blobs import delete_unnamed
from gateway.auth import url_signing_secret
from gateway.core.model import Storage, StorageKind
from gateway.core.storages import StorageChanges, checked_storage_name
from gateway.state.ports import Listing

_MAX_TITLE_CHARS = 500
_GENERAL_ACCESS = (
    "FOLLOW_USER_SETTING",
    "RESTRICTED",
    "ANYONE_WITH_ID_CAN_READ",
    "ANYONE_WITH_NAME_CAN_READ",
)
_SHARED, _OWNERSHIPS = "sharedWithMe", ("ownedByMe", "sharedWithMe")


async def get_or_create(kind: StorageKind, call: Call) -> Response:
    """
    The caller's storage of that ``name``: 200, or 201 where it was made now; without a name a new one.

    What is made with the token of a run belongs to that run and its Actor. A ``schema`` in the body is checked to be
    an object and not kept.
    """
    name = call.query.text("name")
    if name is not None:
        checked_storage_name(name)
    (await call.json()).object_or_none("schema")
    run_id = call.principal.run_id
    run = await call.records.run(run_id) if run_id is not None else None
    now = call.services.now()
    wanted = Storage(
        id=call.services.new_id(),
        kind=kind,
        user_id=call.principal.user_id,
        created_at=now,
        modified_at=now,
        accessed_at=now,
        name=name,
        actor_id=run.actor_id if run is not None else None,
        run_id=run_id,
    )
    storage, is_new = await call.storages.get_or_create(wanted)
    if not is_new:
        await require_usable(call, storage)
    return _shown(call, storage, 201 if is_new else 200)


async def list_storages(kind: StorageKind, call: Call) -> Response:
    """One's own; those without a name only where ``unnamed`` asks for them. Nobody shares any yet."""
    page = page_of(call.query)
    unnamed = call.query.flag("unnamed")
    ownership = call.query.text("ownership")
    if ownership is not None and ownership not in _OWNERSHIPS:
        raise refuse("ownership", f"one of {', '.join(_OWNERSHIPS)}")
    found: Listing[Storage] = Listing(items=(), total=0)
    if ownership != _SHARED:
        found = await call.storages.list_storages(call.principal.user_id, kind, unnamed=unnamed, page=page)
    items = [storage_list_item(storage, call.principal.username) for storage in found.items]
    return answer(listing(items, page, found.total))


async def get_storage(kind: StorageKind, call: Call) -> Response:
    """One storage."""
    return _shown(call, await storage_of_path(call, kind, to_write=False))


async def update_storage(kind: StorageKind, call: Call) -> Response:
    """Its name, title and general access; what is left out stays. Raises NameNotUnique."""
    storage = await storage_of_path(call, kind, to_write=True)
    changes = storage_changes(await call.json())
    if changes.fields:
        storage = await call.storages.change_storage(kind, storage.id, changes, call.services.now())
    return _shown(call, storage)


async def delete_storage(kind: StorageKind, call: Call) -> Response:
    """With all that it holds; also the default one of a run, which then finds it gone."""
    storage = await storage_of_path(call, kind, to_write=True)
    await delete_unnamed(call, *await call.storages.delete_storage(kind, storage.id))
    return no_content()


def storage_changes(fields: Fields) -> StorageChanges:
    """What the body of an update asks for. Raises InvalidRequest, whose message names the field."""
    changes: dict[str, str | None] = {}
    if fields.text_or_none("name") is not None:
        changes["name"] = checked_storage_name(fields.text("name"))
    if "title" in fields:
        changes["title"] = fields.text_or_none("title", max_chars=_MAX_TITLE_CHARS)
    access = fields.text_or_none("generalAccess")
    if access is not None:
        if access not in _GENERAL_ACCESS:
            raise refuse("generalAccess", f"one of {', '.join(_GENERAL_ACCESS)}")
        changes["general_access"] = access
    return StorageChanges(fields=changes)


def _shown(call: Call, storage: Storage, status: int = 200) -> Response:
    """
    The answer with *storage*, which the caller may use. Whoever holds the secret of its addresses can hand out what it
    holds for ever, so it is for those who could change it as well.
    """
    may_change = call.principal.may("storages:write") or call.principal.run_id is not None
    secret = url_signing_secret(call.services.box, storage.id) if may_change else None
    view = storage_view(storage, call.principal.username, call.services.urls, signing_secret=secret)
    return answer(view, status)


def _endpoints(kind: StorageKind) -> tuple[Endpoint, ...]:
    collection = collection_path(kind)
    return (
        Endpoint(
            method="POST",
            path=collection,
            handler=partial(get_or_create, kind),
            scope="storages:write",
            own_run=True,
        ),
        Endpoint(method="GET", path=collection, handler=partial(list_storages, kind), scope="storages:read"),
        *storage_endpoints("GET", kind, "", partial(get_storage, kind), writes=False),
        *storage_endpoints("PUT", kind, "", partial(update_storage, kind), writes=True),
        *storage_endpoints("DELETE", kind, "", partial(delete_storage, kind), writes=True),
    )


ENDPOINTS = tuple(endpoint for kind in StorageKind for endpoint in _endpoints(kind))
