"""
The owner check: finds what a call names, and only what its caller may see.

What belongs to somebody else looks exactly like what does not exist. Public Actors are the one exception: everybody
may see and run them; they have an owner, who alone may change them.
"""

from __future__ import annotations

from gateway.api.call import Call
from gateway.api.fields import refuse
from gateway.core.errors import InsufficientPermissions, RecordNotFound
from gateway.core.ids import ID_PATTERN
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Actor, Build, Origin, Page, Run, User

_NEWEST = Page(limit=1, desc=True)
_ACTOR, _BUILD, _RUN, _USER = "Actor", "Actor build", "Actor run", "User"


async def _named_actor(call: Call, reference: str) -> Actor | None:
    """By id, ``username~name``, ``~name`` or the caller's own ``name``; names in any case."""
    records = call.records
    username, tilde, name = reference.partition("~")
    if tilde:
        if not username:
            return await records.actor_by_name(call.principal.user_id, name)
        owner = await records.user_by_name(username)
        return await records.actor_by_name(owner.id, name) if owner is not None else None
    if ID_PATTERN.fullmatch(reference):
        actor = await records.actor(reference)
        if actor is not None and is_visible(call, actor):
            return actor
    return await records.actor_by_name(call.principal.user_id, reference)


def is_own(call: Call, actor: Actor) -> bool:
    """Whether the caller owns *actor*."""
    return actor.user_id == call.principal.user_id


def is_visible(call: Call, actor: Actor) -> bool:
    """Whether the caller may know of *actor*, and run it."""
    return is_own(call, actor) or actor.is_public


async def visible_actor(call: Call) -> Actor:
    """The Actor of the path, one's own or a public one. Raises RecordNotFound."""
    actor = await _named_actor(call, call.path("actor"))
    if actor is None or not is_visible(call, actor):
        raise RecordNotFound(_ACTOR)
    return actor


async def own_actor(call: Call) -> Actor:
    """The Actor of the path, to change it. Raises RecordNotFound, or InsufficientPermissions at others' public ones."""
    actor = await visible_actor(call)
    if not is_own(call, actor):
        raise InsufficientPermissions("This Actor belongs to somebody else: you may run it, but not change it.")
    return actor


async def managed_actor(call: Call) -> Actor:
    """The same, and for an administrator everybody's. Raises as ``own_actor``."""
    reference = call.path("actor")
    if not (call.principal.is_admin and call.principal.run_id is None):
        return await own_actor(call)
    anybodys = await call.records.actor(reference) if ID_PATTERN.fullmatch(reference) else None
    actor = anybodys or await _named_actor(call, reference)
    if actor is None:
        raise RecordNotFound(_ACTOR)
    return actor


async def owner_of(call: Call, actor: Actor) -> User:
    """The user that *actor* belongs to."""
    owner = await call.records.user(actor.user_id)
    if owner is None:
        raise RecordNotFound(_USER)
    return owner


async def visible_build(call: Call, build_id: str) -> Build:
    """A build of one's own, or of a public Actor. Raises RecordNotFound."""
    build = await call.records.build(build_id)
    if build is None:
        raise RecordNotFound(_BUILD)
    if build.user_id != call.principal.user_id:
        actor = await call.records.actor(build.actor_id)
        if actor is None or not actor.is_public:
            raise RecordNotFound(_BUILD)
    return build


async def own_build(call: Call, build_id: str) -> Build:
    """A build of one's own. Raises RecordNotFound, and InsufficientPermissions at those of others' public Actors."""
    build = await visible_build(call, build_id)
    if build.user_id != call.principal.user_id:
        raise InsufficientPermissions("This build belongs to somebody else.")
    return build


async def own_run(call: Call, run_id: str) -> Run:
    """
    A run of one's own; for the token of a run, that run and those that it has started.

    Raises RecordNotFound, InsufficientPermissions.
    """
    run = await call.records.run(run_id)
    own_id = call.principal.run_id
    if call.is_limited_to_own_run and run_id != own_id and (run is None or run.parent_run_id != own_id):
        call.principal.require(call.scope or "")
    if run is None or run.user_id != call.principal.user_id:
        raise RecordNotFound(_RUN)
    return run


async def run_of_path(call: Call) -> Run:
    """
    The run that the path names: by its id, under an Actor also ``last`` (of one's own, with ``?status=`` and
    ``?origin=``).
    """
    run_id = call.path("run")
    if "actor" not in call.request.path_params:
        return await own_run(call, run_id)
    actor = await visible_actor(call)
    if run_id != "last":
        run = await own_run(call, run_id)
        if run.actor_id != actor.id:
            raise RecordNotFound(_RUN)
        return run
    found = await call.records.list_runs(
        user_id=call.principal.user_id,
        actor_id=actor.id,
        statuses=statuses(call),
        origin=_origin(call),
        page=_NEWEST,
    )
    if not found.items:
        raise RecordNotFound(_RUN)
    return await own_run(call, found.items[0].id)


def statuses(call: Call) -> frozenset[RunStatus]:
    """``?status=``, a comma list; none given is none. Raises InvalidRequest."""
    given = call.query.text("status")
    if given is None:
        return frozenset()
    try:
        return frozenset(RunStatus(status.strip()) for status in given.split(","))
    except ValueError:
        raise refuse("status", f"a comma list of {', '.join(RunStatus)}") from None


def _origin(call: Call) -> Origin | None:
    given = call.query.text("origin")
    try:
        return Origin(given) if given is not None else None
    except ValueError:
        raise refuse("origin", f"one of {', '.join(Origin)}") from None
