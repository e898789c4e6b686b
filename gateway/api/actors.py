"""Actors: list, create, get, update, delete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from gateway.api.access import is_own, own_actor, owner_of, visible_actor
from gateway.api.actor_changes import changed_actor, checked_name
from gateway.api.call import Call, Endpoint, answer, no_content
from gateway.api.fields import Fields, refuse
from gateway.api.pagination import listing, page_of
from gateway.api.version_changes import changed_version, checked_tag, new_version
from gateway.api.views import ActorFigures, actor_list_item, actor_view
from gateway.core.errors import ActorNameNotUnique, NameNotUnique
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Actor, ActorVersion, Build, Page, TaggedBuild
from gateway.state.changes import change_actor


async def list_actors(call: Call) -> Response:
    """One's own Actors; ``my`` changes nothing, as there are no others in the list."""
    page = page_of(call.query)
    call.query.flag("my")
    if call.query.text("sortBy") not in (None, "createdAt"):
        raise refuse("sortBy", "createdAt")
    found = await call.records.list_actors(call.principal.user_id, page)
    items = [actor_list_item(actor, call.principal.username) for actor in found.items]
    return answer(listing(items, page, found.total))


async def create_actor(call: Call) -> Response:
    """A new Actor, with the ``versions`` that were given."""
    fields, now = await call.json(), call.services.now()
    blank = Actor(
        id=call.services.new_id(),
        user_id=call.principal.user_id,
        name=checked_name(fields),
        created_at=now,
        modified_at=now,
    )
    actor = changed_actor(blank, fields, {}, now)
    versions = _versions(call, actor, fields)
    try:
        await call.records.add_actor(actor)
    except NameNotUnique as error:
        raise _name_taken(actor.name) from error
    for version in versions:
        await call.records.put_version(version)
    await call.tell("actor", actor.id)
    return answer(await _view(call, actor), 201)


async def get_actor(call: Call) -> Response:
    """One Actor."""
    return answer(await _view(call, await visible_actor(call)))


async def update_actor(call: Call) -> Response:
    """What was given is changed, the rest stays; ``versions`` that were given are created or overwritten."""
    actor = await own_actor(call)
    fields, now = await call.json(), call.services.now()
    tags = await _tags(call, actor, fields)
    versions = _versions(call, actor, fields, await call.records.list_versions(actor.id))
    try:
        changed = await change_actor(call.records, actor.id, lambda present: changed_actor(present, fields, tags, now))
    except NameNotUnique as error:
        raise _name_taken(fields.text("name")) from error
    for version in versions:
        await call.records.put_version(version)
    await call.tell("actor", actor.id)
    return answer(await _view(call, changed))


async def delete_actor(call: Call) -> Response:
    """The Actor with its versions and builds; its runs stay, with their logs and results."""
    actor = await own_actor(call)
    builds = [build.id for build in await _all_builds(call, actor)]
    await call.records.delete_actor(actor.id)
    await call.tell("actor", actor.id)
    for build_id in builds:
        await call.services.logs.delete(build_id)
    return no_content()


async def _all_builds(call: Call, actor: Actor) -> list[Build]:
    builds: list[Build] = []
    while True:
        found = await call.records.list_builds(None, actor.id, Page(offset=len(builds)))
        builds.extend(found.items)
        if not found.items or len(builds) >= found.total:
            return builds


def _name_taken(name: str) -> ActorNameNotUnique:
    return ActorNameNotUnique(f"You have an Actor named '{name}' already (letter case does not count).")


def _versions(call: Call, actor: Actor, fields: Fields, stored: Sequence[ActorVersion] = ()) -> list[ActorVersion]:
    """The versions in *fields*, all checked before the first is stored."""
    known = {version.version_number: version for version in stored}
    versions: dict[str, ActorVersion] = {}
    for entry in fields.objects("versions"):
        number = entry.text("versionNumber")
        if number in versions:
            raise refuse(entry.name_of("versionNumber"), "unique in versions")
        versions[number] = _one_version(call, actor, entry, known.get(number))
    return list(versions.values())


def _one_version(call: Call, actor: Actor, entry: Fields, stored: ActorVersion | None) -> ActorVersion:
    seal = call.services.box.seal
    return changed_version(stored, entry, seal) if stored is not None else new_version(actor.id, entry, seal)


async def _tags(call: Call, actor: Actor, fields: Fields) -> dict[str, TaggedBuild | None]:
    """The ``taggedBuilds`` to set, each a finished build of this Actor, and with None those to remove."""
    given = fields.object_or_none("taggedBuilds")
    tags: dict[str, TaggedBuild | None] = {}
    if given is None:
        return tags
    for tag in given.values:
        entry = given.object_or_none(tag)
        if entry is None:
            tags[tag] = None
            continue
        if "buildId" not in entry:
            continue
        where = entry.name_of("buildId")
        build = await call.records.build(entry.needed_text("buildId"))
        if build is None or build.actor_id != actor.id or build.status is not RunStatus.SUCCEEDED:
            raise refuse(where, "the id of a build of this Actor that has succeeded")
        tags[checked_tag(tag, f"taggedBuilds.{tag}")] = TaggedBuild(
            build_id=build.id, build_number=build.build_number, finished_at=build.finished_at
        )
    return tags


async def _view(call: Call, actor: Actor) -> dict[str, Any]:
    newest = Page(limit=1, desc=True)
    runs = await call.records.list_runs(actor_id=actor.id, page=newest)
    builds = await call.records.list_builds(None, actor.id, newest)
    return actor_view(
        actor,
        (await owner_of(call, actor)).username,
        await call.records.list_versions(actor.id),
        call.services.urls,
        figures=ActorFigures(
            total_builds=builds.total,
            total_runs=runs.total,
            last_run_started_at=runs.items[0].started_at if runs.items else None,
        ),
        for_owner=is_own(call, actor) and not call.is_limited_to_own_run,
        names=await call.records.list_names(actor.id),
    )


ENDPOINTS = (
    Endpoint(method="GET", path="/actors", handler=list_actors, scope="actors:read"),
    Endpoint(method="POST", path="/actors", handler=create_actor, scope="actors:write"),
    Endpoint(method="GET", path="/actors/{actor}", handler=get_actor, scope="actors:read", own_run=True),
    Endpoint(method="PUT", path="/actors/{actor}", handler=update_actor, scope="actors:write"),
    Endpoint(method="DELETE", path="/actors/{actor}", handler=delete_actor, scope="actors:write"),
)
