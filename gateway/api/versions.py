"""
Versions of an Actor and their environment variables. Secret values are sealed before they are stored, and never shown.

Two changes of one version at the same moment: the later one wins as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from gateway.api.access import is_own, own_actor, visible_actor
from gateway.api.call import Call, Endpoint, answer, no_content
from gateway.api.fields import Fields
from gateway.api.version_changes import changed_env_var, changed_version, new_version
from gateway.api.views import env_var_view, version_view
from gateway.core.errors import NameNotUnique, RecordNotFound
from gateway.core.model import ActorVersion, EnvVar


def _whole(items: Sequence[Any]) -> dict[str, Any]:
    """These two lists have no pages. Source: apify-wire.md §6."""
    return {"total": len(items), "items": list(items)}


async def _version(call: Call, actor_id: str) -> ActorVersion:
    version = await call.records.actor_version(actor_id, call.path("version"))
    if version is None:
        raise RecordNotFound("Actor version")
    return version


async def list_versions(call: Call) -> Response:
    """All versions of an Actor."""
    actor = await visible_actor(call)
    versions = await call.records.list_versions(actor.id)
    return answer(_whole([version_view(version, for_owner=is_own(call, actor)) for version in versions]))


async def create_version(call: Call) -> Response:
    """A new version."""
    actor = await own_actor(call)
    version = new_version(actor.id, await call.json(), call.services.box.seal)
    if await call.records.actor_version(actor.id, version.version_number) is not None:
        raise NameNotUnique(f"This Actor has a version {version.version_number} already.")
    return await _stored(call, version, 201)


async def get_version(call: Call) -> Response:
    """One version."""
    actor = await visible_actor(call)
    return answer(version_view(await _version(call, actor.id), for_owner=is_own(call, actor)))


async def update_version(call: Call) -> Response:
    """What was given is changed, the rest stays; one that does not exist is created, as clients expect of a PUT."""
    actor = await own_actor(call)
    fields, number = await call.json(), call.path("version")
    stored = await call.records.actor_version(actor.id, number)
    seal = call.services.box.seal
    if stored is None:
        return await _stored(call, new_version(actor.id, Fields({**fields.values, "versionNumber": number}), seal), 201)
    return await _stored(call, changed_version(stored, fields, seal), 200)


async def delete_version(call: Call) -> Response:
    """One version; its builds stay."""
    actor = await own_actor(call)
    version = await _version(call, actor.id)
    await call.records.delete_version(actor.id, version.version_number)
    return no_content()


async def _stored(call: Call, version: ActorVersion, status: int) -> Response:
    await call.records.put_version(version)
    return answer(version_view(version, for_owner=True), status)


def _variable(version: ActorVersion, name: str) -> EnvVar:
    for variable in version.env_vars:
        if variable.name == name:
            return variable
    raise RecordNotFound("Environment variable")


async def _own_version(call: Call) -> ActorVersion:
    return await _version(call, (await own_actor(call)).id)


async def list_env_vars(call: Call) -> Response:
    """The variables of a version, for its owner alone."""
    version = await _own_version(call)
    return answer(_whole([env_var_view(variable) for variable in version.env_vars]))


async def create_env_var(call: Call) -> Response:
    """One more variable."""
    version = await _own_version(call)
    variable = changed_env_var(None, await call.json(), call.services.box.seal)
    if any(known.name == variable.name for known in version.env_vars):
        raise NameNotUnique(f"This version has a variable {variable.name} already.")
    await call.records.put_version(replace(version, env_vars=(*version.env_vars, variable)))
    return answer(env_var_view(variable), 201)


async def get_env_var(call: Call) -> Response:
    """One variable."""
    return answer(env_var_view(_variable(await _own_version(call), call.path("name"))))


async def update_env_var(call: Call) -> Response:
    """One variable changed, also its name."""
    version = await _own_version(call)
    stored = _variable(version, call.path("name"))
    fields = await call.json()
    named = Fields({"name": stored.name, **fields.values})
    variable = changed_env_var(stored, named, call.services.box.seal)
    if variable.name != stored.name and any(known.name == variable.name for known in version.env_vars):
        raise NameNotUnique(f"This version has a variable {variable.name} already.")
    changed = tuple(variable if known is stored else known for known in version.env_vars)
    await call.records.put_version(replace(version, env_vars=changed))
    return answer(env_var_view(variable))


async def delete_env_var(call: Call) -> Response:
    """One variable less."""
    version = await _own_version(call)
    gone = _variable(version, call.path("name"))
    kept = tuple(known for known in version.env_vars if known is not gone)
    await call.records.put_version(replace(version, env_vars=kept))
    return no_content()


_ALL = "/actors/{actor}/versions"
_ONE = _ALL + "/{version}"
_VARIABLES = _ONE + "/env-vars"
_VARIABLE = _VARIABLES + "/{name}"

ENDPOINTS = (
    Endpoint(method="GET", path=_ALL, handler=list_versions, scope="actors:read"),
    Endpoint(method="POST", path=_ALL, handler=create_version, scope="actors:write"),
    Endpoint(method="GET", path=_ONE, handler=get_version, scope="actors:read"),
    Endpoint(method="PUT", path=_ONE, handler=update_version, scope="actors:write"),
    Endpoint(method="POST", path=_ONE, handler=update_version, scope="actors:write"),  # as the platform has it
    Endpoint(method="DELETE", path=_ONE, handler=delete_version, scope="actors:write"),
    Endpoint(method="GET", path=_VARIABLES, handler=list_env_vars, scope="actors:read"),
    Endpoint(method="POST", path=_VARIABLES, handler=create_env_var, scope="actors:write"),
    Endpoint(method="GET", path=_VARIABLE, handler=get_env_var, scope="actors:read"),
    Endpoint(method="PUT", path=_VARIABLE, handler=update_env_var, scope="actors:write"),
    Endpoint(method="POST", path=_VARIABLE, handler=update_env_var, scope="actors:write"),
    Endpoint(method="DELETE", path=_VARIABLE, handler=delete_env_var, scope="actors:write"),
)
