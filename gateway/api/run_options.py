"""No I/O: what a run is started with: the call's own options, over the build's, over the Actor's."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

from gateway.api.actor_changes import checked_memory
from gateway.api.errors import NotImplementedHere
from gateway.api.fields import Query, refuse
from gateway.core.model import MEMORY_STEPS_MBYTES, RunDefaults, RunOptions

_LIMITED, _FULL = "LIMITED_PERMISSIONS", "FULL_PERMISSIONS"


def nearest_step(mbytes: float) -> int:
    """The nearest power of two, e.g. 300 is 256, 900 is 1024, 3600 is 4096; the larger where two are as near."""
    return min(MEMORY_STEPS_MBYTES, key=lambda step: (abs(step - mbytes), -step))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def default_memory(defaults: RunDefaults, definition: Mapping[str, Any]) -> int:
    """
    The memory of a run whose start gives none: ``defaultMemoryMbytes`` of the build's ``actor.json``, else the Actor's;
    then rounded to the nearest step and held within ``minMemoryMbytes`` and ``maxMemoryMbytes``.

    An expression in place of a number falls back to the Actor's figure. Source: apify-platform.md §3.11.
    """
    wanted = _number(definition.get("defaultMemoryMbytes")) or float(defaults.memory_mbytes)
    least = _number(definition.get("minMemoryMbytes")) or 0
    most = _number(definition.get("maxMemoryMbytes")) or math.inf
    step = nearest_step(wanted)
    fitting = [candidate for candidate in MEMORY_STEPS_MBYTES if least <= candidate <= most]
    if not fitting:
        return step
    return min(max(step, fitting[0]), fitting[-1])


def _charge_limit(query: Query) -> float | None:
    text = query.text("maxTotalChargeUsd")
    if text is None:
        return None
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit) or limit < 0:
        raise refuse("maxTotalChargeUsd", "a number of at least 0")
    return limit


def refuse_unknown_powers(query: Query) -> None:
    """
    Refuse what a start asks for and would not get: webhooks of its own, and full permissions.

    Raises NotImplementedHere, and InvalidRequest for what nobody understands.
    """
    webhooks = query.text("webhooks")
    if webhooks is not None and _webhooks(webhooks):
        raise NotImplementedHere("Runs with webhooks are not supported yet: start the run without 'webhooks'.")
    level = query.text("forcePermissionLevel")
    if level == _FULL:
        raise NotImplementedHere(f"Every run has {_LIMITED} here: leave 'forcePermissionLevel' out.")
    if level not in {None, _LIMITED}:
        raise refuse("forcePermissionLevel", f"{_LIMITED} or {_FULL}")


def _webhooks(text: str) -> list[Any]:
    try:
        # A plus sign that was not escaped arrives as a blank.
        value = json.loads(base64.b64decode(text.replace(" ", "+"), validate=True))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list):
        raise refuse("webhooks", "a list of webhooks as JSON, in base64")
    return value


def run_options(query: Query, build: str, defaults: RunDefaults, definition: Mapping[str, Any]) -> RunOptions:
    """
    The options of a run of *build* (as it was asked for: a tag or number). Disk is twice the memory; no timeout is 0.

    Raises InvalidRequest, and InvalidValue for a memory that is no legal step.
    """
    memory = query.whole("memory")
    memory_mbytes = default_memory(defaults, definition) if memory is None else checked_memory("memory", memory)
    timeout_secs, max_items = query.whole("timeout"), query.whole("maxItems")
    return RunOptions(
        build=build,
        timeout_secs=defaults.timeout_secs if timeout_secs is None else timeout_secs,
        memory_mbytes=memory_mbytes,
        disk_mbytes=2 * memory_mbytes,
        max_items=(defaults.max_items if max_items is None else max_items) or None,
        max_total_charge_usd=_charge_limit(query),
        restart_on_error=query.flag("restartOnError", defaults.restart_on_error),
    )
