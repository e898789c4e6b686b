"""
Further names of an Actor, below ``/v2/greenroom/actors/{actor}/names``: aliases, and custom domains with their proof.

Several users may claim one custom domain; the first who proves it has it until he gives it up. Pointing DNS at
Greenroom shows that somebody agrees, but not with whom: where claims compete, only the TXT record counts.
"""

from __future__ import annotations

from starlette.responses import Response

from gateway.api.access import managed_actor
from gateway.api.call import Call, Endpoint, answer, no_content
from gateway.api.host_names import canonical, checked_name
from gateway.api.name_views import owned_name_view, what_to_do
from gateway.api.pagination import listing
from gateway.core.errors import InvalidRequest, NameNotUnique, NameNotVerified, RecordNotFound
from gateway.core.model import Actor, Page
from gateway.core.names import CHALLENGE_BYTES, MAX_NAMES_PER_ACTOR, ActorName, NameKind

_MAX_NAME_CHARS = 1000


async def list_names(call: Call) -> Response:
    """All of them; an Actor has few."""
    names = await call.records.list_names((await managed_actor(call)).id)
    return answer(listing([_view(call, name) for name in names], Page(), len(names)))


async def create_name(call: Call) -> Response:
    """
    An alias, which routes at once, or a custom domain, which does not before it is verified; the body has its ``name``.

    What the Actor has already is answered as it is, so that the call can be repeated.
    """
    actor = await managed_actor(call)
    text = (await call.json()).needed_text("name", max_chars=_MAX_NAME_CHARS)
    kind, name = checked_name(text, call.services.settings.domain)
    names = await call.records.list_names(actor.id)
    present = next((one for one in names if one.name == name), None)
    if present is not None:
        return answer(_view(call, present))
    if len(names) >= MAX_NAMES_PER_ACTOR:
        raise InvalidRequest(f"An Actor has at most {MAX_NAMES_PER_ACTOR} further names: remove one first.")
    await _refuse_taken(call, actor, name)
    now = call.services.now()
    added = ActorName(
        id=call.services.new_id(),
        actor_id=actor.id,
        user_id=actor.user_id,
        kind=kind,
        name=name,
        challenge=call.services.random_bytes(CHALLENGE_BYTES).hex(),
        created_at=now,
        verified_at=now if kind is NameKind.ALIAS else None,
    )
    try:
        await call.records.add_name(added)
    except NameNotUnique as error:  # since we looked
        raise _taken(name) from error
    await call.tell("actor", actor.id)
    return answer(_view(call, added), 201)


async def verify_name(call: Call) -> Response:
    """
    Look for the proof of a custom domain, now, and let it route if there is one.

    One that routes already goes on doing so whatever is found; its proof is looked for in DNS only, since by HTTP it is
    the Actor that answers there.
    """
    actor = await managed_actor(call)
    name = await _named(call, actor)
    if name.kind is NameKind.ALIAS:
        return answer(_view(call, name))
    claims = await _refuse_taken(call, actor, name.name)
    is_contested = any(claim.user_id != name.user_id for claim in claims)
    proofs = call.services.name_proofs
    missing = await proofs.missing(name, by_http=not (is_contested or name.is_verified))
    if missing:
        raise NameNotVerified(_unproven(call, name, missing, is_contested=is_contested), data={"found": missing})
    try:
        verified = await call.records.verify_name(name.id, call.services.now())
    except NameNotUnique as error:
        raise _taken(name.name) from error
    await call.tell("actor", actor.id)
    return answer(_view(call, verified))


async def delete_name(call: Call) -> Response:
    """Requests to it are not routed any more, and others may have it."""
    actor = await managed_actor(call)
    await call.records.delete_name((await _named(call, actor)).id)
    await call.tell("actor", actor.id)
    return no_content()


async def _named(call: Call, actor: Actor) -> ActorName:
    # Not checked otherwise: what is not allowed any more, as Greenroom's own domain has changed, can still be removed.
    wanted = canonical(call.path("host"))
    for name in await call.records.list_names(actor.id):
        if wanted in (name.name, name.host(call.services.settings.domain)):
            return name
    raise RecordNotFound("Name")


async def _refuse_taken(call: Call, actor: Actor, name: str) -> list[ActorName]:
    """The claims of *name* by other Actors. Raises NameNotUnique where one of them has it."""
    claims = [claim for claim in await call.records.claims_of(name) if claim.actor_id != actor.id]
    holder = next((claim for claim in claims if claim.is_verified), None)
    if holder is None:
        return claims
    may_know = holder.user_id == call.principal.user_id or call.principal.is_admin
    held_by = await call.records.actor(holder.actor_id) if may_know else None
    raise _taken(name, held_by)


def _taken(name: str, held_by: Actor | None = None) -> NameNotUnique:
    """What strangers hear is no more than that."""
    if held_by is None:
        return NameNotUnique(f"The name {name} is taken.")
    return NameNotUnique(
        f"The Actor {held_by.name} ({held_by.id}) has the name {name}: remove it there first.",
        data={"actorId": held_by.id},
    )


def _unproven(call: Call, name: ActorName, missing: list[str], *, is_contested: bool) -> str:
    found = "; ".join(missing)
    if name.is_verified:
        return f"{name.name} was verified and stays so, but is not proven now ({found})."
    todo = what_to_do(name, call.services.urls, call.services.name_proofs.url(name))
    only = " Others claim this name too, so only the TXT record counts." if is_contested else ""
    return f"{name.name} is not proven yet ({found}).{only} {todo}"


def _view(call: Call, name: ActorName) -> dict[str, object]:
    return owned_name_view(name, call.services.urls, call.services.name_proofs.url(name))


_ALL = "/greenroom/actors/{actor}/names"
_ONE = f"{_ALL}/{{host}}"

ENDPOINTS = (
    Endpoint(method="GET", path=_ALL, handler=list_names, scope="actors:read"),
    Endpoint(method="POST", path=_ALL, handler=create_name, scope="actors:write"),
    Endpoint(method="DELETE", path=_ONE, handler=delete_name, scope="actors:write"),
    Endpoint(method="POST", path=f"{_ONE}/verify", handler=verify_name, scope="actors:write"),
)
