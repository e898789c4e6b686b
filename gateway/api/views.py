"""
No I/O: records as the API shows them.

Field names, required fields and kinds are those of apify-wire.md §5, whose strictest reader refuses an object that
lacks one: dates have milliseconds and ``Z``, counters are integers, and statistics are complete and zero-filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.api.name_views import name_view
from gateway.core.errors import InvalidConfig
from gateway.core.ids import shown_standby_label
from gateway.core.model import (
    Actor,
    ActorVersion,
    Build,
    DecisionRecord,
    EnvVar,
    Run,
    RunDefaults,
    TaggedBuild,
    User,
)
from gateway.core.names import ActorName
from gateway.core.standby import as_api_object, effective
from gateway.core.times import iso, iso_or_none
from gateway.new_run import ZERO_STATS, storage_ids
from gateway.urls import Urls

View = dict[str, Any]

BUILD_MEMORY_MBYTES = 4096  # Source: apify-platform.md §3.11
SOURCE_KEYS = ("sourceFiles", "gitRepoUrl", "tarballUrl", "gitHubGistUrl")
_SHOWN_META = ("clientIp", "userAgent", "scheduleId", "scheduledAt")
_FRACTIONAL_STATS = frozenset(
    {"memAvgBytes", "cpuAvgUsage", "cpuMaxUsage", "cpuCurrentUsage", "runTimeSecs", "computeUnits"}
)
_ZERO_RUN_USAGE = {
    "ACTOR_COMPUTE_UNITS": 0,
    "DATASET_READS": 0,
    "DATASET_WRITES": 0,
    "KEY_VALUE_STORE_READS": 0,
    "KEY_VALUE_STORE_WRITES": 0,
    "KEY_VALUE_STORE_LISTS": 0,
    "REQUEST_QUEUE_READS": 0,
    "REQUEST_QUEUE_WRITES": 0,
    "DATA_TRANSFER_INTERNAL_GBYTES": 0,
    "DATA_TRANSFER_EXTERNAL_GBYTES": 0,
    "PROXY_RESIDENTIAL_TRANSFER_GBYTES": 0,
    "PROXY_SERPS": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorFigures:
    """What is counted about one Actor."""

    total_builds: int = 0
    total_runs: int = 0
    last_run_started_at: datetime | None = None


def build_number_int(build_number: str) -> int:
    """``0.1.7`` is 100007: major · 10⁷ + minor · 10⁵ + build. Source: apify-platform.md §5."""
    major, minor, number = (int(part) for part in build_number.split("."))
    return major * 10_000_000 + minor * 100_000 + number


def user_private_view(user: User, proxy_password: str) -> View:
    """What a user sees of himself."""
    return {
        "id": user.id,
        "username": user.username,
        "profile": {"name": user.username},
        "proxy": {"password": proxy_password, "groups": []},
        "createdAt": iso(user.created_at),
        "isPaying": False,
    }


def user_public_view(user: User) -> View:
    """What others see of a user."""
    return {"username": user.username, "profile": {"name": user.username}}


def env_var_view(variable: EnvVar) -> View:
    """A variable; the value of a secret one is never shown."""
    view: View = {"name": variable.name, "isSecret": variable.is_secret}
    if not variable.is_secret:
        view["value"] = variable.value
    return view


def version_view(version: ActorVersion, *, for_owner: bool) -> View:
    """A version; its source and variables are for its owner alone."""
    view: View = {
        "versionNumber": version.version_number,
        "sourceType": version.source_type,
        "buildTag": version.build_tag,
        "applyEnvVarsToBuild": version.apply_env_vars_to_build,
    }
    if for_owner:
        view["envVars"] = [env_var_view(variable) for variable in version.env_vars]
        view |= {key: version.source[key] for key in SOURCE_KEYS if key in version.source}
    return view


def _defaults_view(defaults: RunDefaults) -> View:
    view: View = {
        "build": defaults.build,
        "timeoutSecs": defaults.timeout_secs,
        "memoryMbytes": defaults.memory_mbytes,
        "restartOnError": defaults.restart_on_error,
    }
    if defaults.max_items is not None:
        view["maxItems"] = defaults.max_items
    return view


def tagged_build_view(tagged: TaggedBuild) -> View:
    """What a tag points to."""
    return {
        "buildId": tagged.build_id,
        "buildNumber": tagged.build_number,
        "buildNumberInt": build_number_int(tagged.build_number),
        "finishedAt": iso_or_none(tagged.finished_at),
    }


def _actor_stats(figures: ActorFigures) -> View:
    view: View = {
        "totalBuilds": figures.total_builds,
        "totalRuns": figures.total_runs,
        "totalUsers": 0,
        "totalUsers7Days": 0,
        "totalUsers30Days": 0,
        "totalUsers90Days": 0,
        "totalMetamorphs": 0,
    }
    if figures.last_run_started_at is not None:
        view["lastRunStartedAt"] = iso(figures.last_run_started_at)
    return view


def standby_url(actor: Actor, username: str, urls: Urls) -> str | None:
    """Where the Actor stands by; None unless standby is on."""
    shown = _standby_object(actor)
    if not shown or not shown.get("isEnabled"):
        return None
    return urls.standby(shown_standby_label(username, actor.name, actor.id))


def _standby_object(actor: Actor) -> View | None:
    merged = effective(actor)
    try:
        return as_api_object(merged)
    except InvalidConfig:
        # Each half was valid when it was stored, the two together no longer are: shown as they stand.
        return merged


def actor_view(
    actor: Actor,
    username: str,
    versions: Sequence[ActorVersion],
    urls: Urls,
    *,
    figures: ActorFigures,
    for_owner: bool,
    names: Sequence[ActorName] = (),
) -> View:
    """
    The whole Actor object. Of Greenroom's own it has ``names``, where there are any; those that are not verified are
    for its owner alone.
    """
    shown_names = [name_view(name, urls) for name in names if for_owner or name.is_verified]
    return {
        **actor.extra,
        "id": actor.id,
        "userId": actor.user_id,
        "username": username,
        "name": actor.name,
        "title": actor.title,
        "description": actor.description,
        "isPublic": actor.is_public,
        "createdAt": iso(actor.created_at),
        "modifiedAt": iso(actor.modified_at),
        "stats": _actor_stats(figures),
        "versions": [version_view(version, for_owner=for_owner) for version in versions],
        "defaultRunOptions": _defaults_view(actor.default_run_options),
        "taggedBuilds": {tag: tagged_build_view(tagged) for tag, tagged in actor.tagged_builds.items()},
        "actorStandby": _standby_object(actor),
        "standbyUrl": standby_url(actor, username, urls),
        **({"names": shown_names} if shown_names else {}),
    }


def actor_list_item(actor: Actor, username: str) -> View:
    """An Actor in a list."""
    return {
        "id": actor.id,
        "createdAt": iso(actor.created_at),
        "modifiedAt": iso(actor.modified_at),
        "name": actor.name,
        "username": username,
        "title": actor.title,
    }


def _meta(origin: str, meta: Mapping[str, Any]) -> View:
    return {"origin": origin, **{key: meta[key] for key in _SHOWN_META if meta.get(key) is not None}}


def build_view(build: Build, *, for_owner: bool) -> View:
    """The whole build object; variables of its ``actor.json`` are for its owner alone."""
    definition = dict(build.definition)
    if not for_owner:
        definition.pop("environmentVariables", None)
    millis = _millis(build.started_at, build.finished_at)
    view: View = {
        "id": build.id,
        "actId": build.actor_id,
        "userId": build.user_id,
        "startedAt": iso(build.started_at),
        "finishedAt": iso_or_none(build.finished_at),
        "status": str(build.status),
        "statusMessage": build.status_message,
        "meta": _meta(build.origin, build.meta),
        "buildNumber": build.build_number,
        "stats": {"durationMillis": millis, "runTimeSecs": millis / 1000, "computeUnits": 0},
        "options": {
            "useCache": bool(build.options.get("useCache", False)),
            "betaPackages": bool(build.options.get("betaPackages", False)),
            "memoryMbytes": BUILD_MEMORY_MBYTES,
            "diskMbytes": 2 * BUILD_MEMORY_MBYTES,
        },
        "usage": {"ACTOR_COMPUTE_UNITS": 0},
        "usageTotalUsd": 0,
        "usageUsd": {"ACTOR_COMPUTE_UNITS": 0},
    }
    if definition:
        view["actorDefinition"] = definition
        if isinstance(definition.get("readme"), str):
            view["readme"] = definition["readme"]
    return view


def build_list_item(build: Build) -> View:
    """A build in a list."""
    return {
        "id": build.id,
        "actId": build.actor_id,
        "userId": build.user_id,
        "status": str(build.status),
        "startedAt": iso(build.started_at),
        "finishedAt": iso_or_none(build.finished_at),
        "usageTotalUsd": 0,
        "buildNumber": build.build_number,
        "buildNumberInt": build_number_int(build.build_number),
        "meta": _meta(build.origin, build.meta),
    }


def _millis(start: datetime, end: datetime | None) -> int:
    return max(0, round((end - start).total_seconds() * 1000)) if end is not None else 0


def _run_stats(run: Run) -> View:
    known: View = {}
    for key, value in {**ZERO_STATS, **run.stats}.items():
        is_counter = key in ZERO_STATS and key not in _FRACTIONAL_STATS and isinstance(value, float)
        known[key] = round(value) if is_counter else value
    return known


def run_view(run: Run, urls: Urls) -> View:
    """The whole run object."""
    view: View = {
        "id": run.id,
        "actId": run.actor_id,
        "userId": run.user_id,
        "startedAt": iso(run.started_at),
        "finishedAt": iso_or_none(run.finished_at),
        "status": str(run.status),
        "statusMessage": run.status_message,
        "isStatusMessageTerminal": run.is_status_message_terminal,
        "meta": _meta(run.origin, run.meta),
        "stats": _run_stats(run),
        "options": {
            "build": run.options.build,
            "timeoutSecs": run.options.timeout_secs,
            "memoryMbytes": run.options.memory_mbytes,
            "diskMbytes": run.options.disk_mbytes,
            "restartOnError": run.options.restart_on_error,
        },
        "buildId": run.build_id,
        "buildNumber": run.build_number,
        "exitCode": run.exit_code,
        "generalAccess": run.general_access,
        "defaultKeyValueStoreId": run.default_key_value_store_id,
        "defaultDatasetId": run.default_dataset_id,
        "defaultRequestQueueId": run.default_request_queue_id,
        "storageIds": storage_ids(run),
        "containerUrl": urls.live_view(run.live_view_label),
        "isContainerServerReady": run.is_container_server_ready,
        "usage": dict(_ZERO_RUN_USAGE),
        "usageTotalUsd": 0,
        "usageUsd": dict(_ZERO_RUN_USAGE),
    }
    if run.options.max_items is not None:
        view["options"]["maxItems"] = run.options.max_items
    if run.options.max_total_charge_usd is not None:
        view["options"]["maxTotalChargeUsd"] = run.options.max_total_charge_usd
    if run.task_id is not None:
        view["actorTaskId"] = run.task_id
    return view


def run_list_item(run: Run) -> View:
    """A run in a list."""
    view: View = {
        "id": run.id,
        "actId": run.actor_id,
        "userId": run.user_id,
        "status": str(run.status),
        "startedAt": iso(run.started_at),
        "finishedAt": iso_or_none(run.finished_at),
        "buildId": run.build_id,
        "buildNumber": run.build_number,
        "buildNumberInt": build_number_int(run.build_number),
        "meta": _meta(run.origin, run.meta),
        "usageTotalUsd": 0,
        "defaultKeyValueStoreId": run.default_key_value_store_id,
        "defaultDatasetId": run.default_dataset_id,
        "defaultRequestQueueId": run.default_request_queue_id,
    }
    if run.task_id is not None:
        view["actorTaskId"] = run.task_id
    return view


def decision_view(decision: DecisionRecord) -> View:
    """One change of the autoscaler's mind, and what the policy saw; an object of Greenroom's own."""
    return {
        "id": decision.id,
        "poolId": decision.pool_id,
        "actorId": decision.actor_id,
        "at": iso(decision.at),
        "wantedRuns": decision.wanted_runs,
        "presentRuns": decision.present_runs,
        "reasons": list(decision.reasons),
        "decision": dict(decision.decision),
        "inputs": dict(decision.inputs),
    }
