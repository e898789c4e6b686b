"""Which build of an Actor a call asks to be run."""

from __future__ import annotations

from gateway.api.call import Call
from gateway.api.errors import BuildNotFound, UnknownBuildTag
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Actor, Build, Page


def asked_tag(call: Call, actor: Actor) -> str:
    """The tag or number that the query names, else the Actor's own choice."""
    return call.query.text("build") or actor.default_run_options.build


async def asked_build(call: Call, actor: Actor) -> Build:
    """The finished build of that tag or number. Raises UnknownBuildTag, BuildNotFound where none is yet."""
    wanted = asked_tag(call, actor)
    tagged = actor.tagged_builds.get(wanted)
    if tagged is not None:
        build = await call.records.build(tagged.build_id)
    else:
        build = await call.records.build_by_number(actor.id, wanted)
    if build is not None and build.status is RunStatus.SUCCEEDED:
        return build
    if not (await call.records.list_builds(None, actor.id, Page(limit=1))).total:
        raise BuildNotFound("This Actor has no build yet: build one of its versions first.")
    known = ", ".join(sorted(actor.tagged_builds)) or "none"
    raise UnknownBuildTag(
        f"This Actor has no finished build with the tag or number '{wanted}'. Its tags: {known}.",
        data={"field": "build"},
    )
