"""Builds: start, list, get, wait, abort, delete."""

from __future__ import annotations

from dataclasses import replace

from starlette.responses import Response

from gateway.api.access import own_actor, own_build, visible_actor, visible_build
from gateway.api.call import Call, Endpoint, answer, no_content
from gateway.api.errors import DeletingDefaultBuild, DeletingUnfinishedBuild
from gateway.api.fields import refuse
from gateway.api.meta import request_meta, request_origin
from gateway.api.pagination import listing, page_of
from gateway.api.version_changes import checked_number, checked_tag
from gateway.api.views import build_list_item, build_view
from gateway.api.waiting import until_ended
from gateway.core.errors import Conflict, RecordNotFound
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build

_TRIES = 20


async def start_build(call: Call) -> Response:
    """A build of one version under a tag (the version's own by default), waited for up to ``waitForFinish``."""
    actor = await own_actor(call)
    number = call.query.text("version")
    if number is None:
        raise refuse("version", "given: the number of the version to build, for example 0.1")
    wait_secs = call.query.wait_secs()
    version = await call.records.actor_version(actor.id, checked_number(number, "version"))
    if version is None:
        raise RecordNotFound("Actor version")
    tag = call.query.text("tag")
    build = await call.services.builder.create(
        actor,
        version,
        tag=checked_tag(tag, "tag") if tag is not None else version.build_tag,
        origin=request_origin(call),
        options={"useCache": call.query.flag("useCache"), "betaPackages": call.query.flag("betaPackages")},
        meta=request_meta(call),
    )
    return await _shown(call, build.id, wait_secs, 201)


async def list_builds(call: Call) -> Response:
    """One's own builds, of all Actors."""
    page = page_of(call.query)
    found = await call.records.list_builds(call.principal.user_id, None, page)
    return answer(listing([build_list_item(build) for build in found.items], page, found.total))


async def list_builds_of_actor(call: Call) -> Response:
    """The builds of one Actor."""
    actor = await visible_actor(call)
    page = page_of(call.query)
    found = await call.records.list_builds(None, actor.id, page)
    return answer(listing([build_list_item(build) for build in found.items], page, found.total))


async def get_build(call: Call) -> Response:
    """One build, waited for up to ``waitForFinish``."""
    return await _shown(call, call.path("build"), call.query.wait_secs(), 200)


async def get_build_of_actor(call: Call) -> Response:
    """One build of the Actor in the path."""
    actor = await visible_actor(call)
    build = await visible_build(call, call.path("build"))
    if build.actor_id != actor.id:
        raise RecordNotFound("Actor build")
    return await _shown(call, build.id, call.query.wait_secs(), 200)


async def get_default_build(call: Call) -> Response:
    """The build that runs use unless they ask for another."""
    actor = await visible_actor(call)
    wanted = actor.default_run_options.build
    for tag, tagged in actor.tagged_builds.items():
        if wanted in (tag, tagged.build_number):
            return await _shown(call, tagged.build_id, call.query.wait_secs(), 200)
    raise RecordNotFound("Default Actor build")


async def abort_build(call: Call) -> Response:
    """Ends a build; one that has ended is returned as it is."""
    build = await own_build(call, call.path("build"))
    for _ in range(_TRIES):
        if build.status.is_terminal:
            return answer(build_view(build, for_owner=True))
        try:
            build = await call.records.replace_build(_aborted(call, build))
        except Conflict:
            build = await own_build(call, build.id)
        else:
            await call.tell("build", build.id)
    raise Conflict(f"Build {build.id} changed {_TRIES} times while it was to be aborted.")


def _aborted(call: Call, build: Build) -> Build:
    return replace(
        build, status=RunStatus.ABORTED, finished_at=call.services.now(), status_message="The build was aborted."
    )


async def delete_build(call: Call) -> Response:
    """A finished build that no tag points to, with its log."""
    build = await own_build(call, call.path("build"))
    if not build.status.is_terminal:
        raise DeletingUnfinishedBuild
    actor = await call.records.actor(build.actor_id)
    if actor is not None:
        tags = tuple(tag for tag, tagged in actor.tagged_builds.items() if tagged.build_id == build.id)
        if tags:
            raise DeletingDefaultBuild(tags)
    await call.records.delete_build(build.id)
    await call.services.logs.delete(build.id)
    await call.tell("build", build.id)
    return no_content()


async def _shown(call: Call, build_id: str, wait_secs: int, status: int) -> Response:
    async def read() -> Build:
        return await visible_build(call, build_id)

    build = await until_ended(call.signals, read, "build", build_id, wait_secs)
    return answer(build_view(build, for_owner=build.user_id == call.principal.user_id), status)


ENDPOINTS = (
    Endpoint(method="GET", path="/actors/{actor}/builds", handler=list_builds_of_actor, scope="actors:read"),
    Endpoint(method="POST", path="/actors/{actor}/builds", handler=start_build, scope="actors:write"),
    Endpoint(method="GET", path="/actors/{actor}/builds/default", handler=get_default_build, scope="actors:read"),
    Endpoint(method="GET", path="/actors/{actor}/builds/{build}", handler=get_build_of_actor, scope="actors:read"),
    Endpoint(method="POST", path="/actors/{actor}/builds/{build}/abort", handler=abort_build, scope="actors:write"),
    Endpoint(method="GET", path="/actor-builds", handler=list_builds, scope="actors:read"),
    Endpoint(method="GET", path="/actor-builds/{build}", handler=get_build, scope="actors:read"),
    Endpoint(method="DELETE", path="/actor-builds/{build}", handler=delete_build, scope="actors:write"),
    Endpoint(method="POST", path="/actor-builds/{build}/abort", handler=abort_build, scope="actors:write"),
)
