"""No I/O: what the body of a create or update makes of an Actor, checked as a whole before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from gateway.api.errors import InvalidValue
from gateway.api.fields import Fields, refuse
from gateway.core.ids import ACTOR_NAME_PATTERN
from gateway.core.model import MEMORY_STEPS_MBYTES, Actor, RunDefaults, TaggedBuild
from gateway.core.standby import merge, parse_standby

_MAX_TITLE_CHARS = 500
_MAX_DESCRIPTION_CHARS = 10_000

# Fields that are stored and returned, but that Greenroom does not act on, and the kinds that clients accept in them.
_KEPT: dict[str, tuple[type, ...]] = {
    "seoTitle": (str,),
    "seoDescription": (str,),
    "pictureUrl": (str,),
    "notice": (str,),
    "readmeSummary": (str,),
    "deploymentKey": (str,),
    "actorPermissionLevel": (str,),
    "categories": (list,),
    "pricingInfos": (list,),
    "exampleRunInput": (dict,),
    "restartOnError": (bool,),
    "isDeprecated": (bool,),
    "isCritical": (bool,),
    "isGeneric": (bool,),
    "isSourceCodeHidden": (bool,),
    "hasNoDataset": (bool,),
}
_KIND_NAMES = {str: "a text", list: "a list", dict: "an object", bool: "true or false"}


def checked_name(fields: Fields) -> str:
    """The Actor's name, fit for a host name. Raises InvalidRequest."""
    name = fields.needed_text("name")
    if not ACTOR_NAME_PATTERN.fullmatch(name):
        raise refuse(
            fields.name_of("name"),
            "3 to 63 letters, digits and hyphens, with a letter or digit at both ends: it becomes part of a host name",
        )
    return name


def checked_memory(field: str, mbytes: int) -> int:
    """A legal step of memory. Raises InvalidValue."""
    if mbytes not in MEMORY_STEPS_MBYTES:
        raise InvalidValue(
            f"{field} is a power of two from {MEMORY_STEPS_MBYTES[0]} to {MEMORY_STEPS_MBYTES[-1]} megabytes, "
            f"not {mbytes}.",
            data={"field": field},
        )
    return mbytes


def changed_defaults(defaults: RunDefaults, fields: Fields) -> RunDefaults:
    """The partial ``defaultRunOptions`` object over *defaults*."""
    max_items = defaults.max_items
    if "maxItems" in fields:
        max_items = fields.whole("maxItems", 0) or None
    return RunDefaults(
        build=fields.text("build") or defaults.build,
        timeout_secs=fields.whole("timeoutSecs", defaults.timeout_secs),
        memory_mbytes=checked_memory(
            fields.name_of("memoryMbytes"), fields.whole("memoryMbytes", defaults.memory_mbytes)
        ),
        restart_on_error=fields.flag("restartOnError", defaults.restart_on_error),
        max_items=max_items,
    )


def _kept(extra: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    kept = dict(extra)
    for key, kinds in _KEPT.items():
        if key not in fields:
            continue
        value = fields.values[key]
        if value is None:
            kept.pop(key, None)
        elif isinstance(value, kinds):
            kept[key] = value
        else:
            raise refuse(fields.name_of(key), " or ".join(_KIND_NAMES[kind] for kind in kinds))
    return kept


def changed_standby(actor: Actor, fields: Fields) -> Mapping[str, Any] | None:
    """
    The partial ``actorStandby`` of *fields* merged over what the API set before; null or absent leaves it.

    Raises InvalidConfig when the result, over what the Actor's file says, would not be valid.
    """
    given = fields.object_or_none("actorStandby")
    if given is None:
        return actor.standby_from_api
    merged = merge(actor.standby_from_api, given.values)
    parse_standby(merge(actor.standby_from_file, merged))
    return merged


def changed_actor(actor: Actor, fields: Fields, tags: Mapping[str, TaggedBuild | None], now: datetime) -> Actor:
    """
    *actor* as *fields* want it; what they leave out stays. *tags* are the tags to move, or with None to remove.

    Raises InvalidRequest, whose message names the field.
    """
    defaults = fields.object_or_none("defaultRunOptions")
    tagged = {tag: build for tag, build in {**actor.tagged_builds, **tags}.items() if build is not None}
    return replace(
        actor,
        name=checked_name(fields) if fields.values.get("name") is not None else actor.name,
        title=fields.text_or_none("title", max_chars=_MAX_TITLE_CHARS) if "title" in fields else actor.title,
        description=(
            fields.text_or_none("description", max_chars=_MAX_DESCRIPTION_CHARS)
            if "description" in fields
            else actor.description
        ),
        is_public=fields.flag("isPublic", actor.is_public),
        default_run_options=(
            changed_defaults(actor.default_run_options, defaults) if defaults else actor.default_run_options
        ),
        standby_from_api=changed_standby(actor, fields),
        tagged_builds=tagged,
        extra=_kept(actor.extra, fields),
        modified_at=now,
    )
