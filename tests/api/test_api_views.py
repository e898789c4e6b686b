"""Every object has the fields that the strictest client demands, each of the kind that it parses."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.api.views import (
    ActorFigures,
    actor_list_item,
    actor_view,
    build_list_item,
    build_number_int,
    build_view,
    env_var_view,
    run_list_item,
    run_view,
    user_private_view,
    user_public_view,
    version_view,
)
from gateway.core.lifecycle import RunStatus
from gateway.core.model import (
    Actor,
    ActorVersion,
    Build,
    EnvVar,
    Origin,
    Run,
    RunOptions,
    TaggedBuild,
    User,
)
from gateway.new_run import ZERO_STATS
from gateway.urls import Urls

NOW = datetime(2026, 3, 4, 5, 6, 7, 890123, UTC)
URLS = Urls(scheme="http", domain="localhost", port=8010, local_port=8010)
USER = User(id="u", username="bob", is_admin=False, created_at=NOW)
VERSION = ActorVersion(
    actor_id="a",
    version_number="0.1",
    source_type="SOURCE_FILES",
    source={"sourceFiles": []},
    env_vars=(EnvVar(name="X", value="1"),),
)
ACTOR = Actor(
    id="a",
    user_id="u",
    name="hello",
    created_at=NOW,
    modified_at=NOW,
    standby_from_api={"isEnabled": True},
    tagged_builds={"latest": TaggedBuild(build_id="b", build_number="0.1.7", finished_at=NOW)},
)
BUILD = Build(
    id="b",
    actor_id="a",
    user_id="u",
    version_number="0.1",
    build_number="0.1.7",
    status=RunStatus.SUCCEEDED,
    started_at=NOW,
    finished_at=NOW,
    origin=Origin.API,
    definition={"name": "hello", "environmentVariables": {"X": "1"}},
)
RUN = Run(
    id="r",
    actor_id="a",
    user_id="u",
    build_id="b",
    build_number="0.1.7",
    status=RunStatus.RUNNING,
    started_at=NOW,
    origin=Origin.API,
    options=RunOptions(max_items=5, max_total_charge_usd=1.5),
    live_view_label="l",
    default_key_value_store_id="k",
    default_dataset_id="d",
    default_request_queue_id="q",
    stats={"memMaxBytes": 5.3, "cpuAvgUsage": 5.3},
    task_id="t",
)
VIEWS = {
    "Actor": actor_view(ACTOR, "bob", [VERSION], URLS, figures=ActorFigures(last_run_started_at=NOW), for_owner=True),
    "ActorListItem": actor_list_item(ACTOR, "bob"),
    "Version": version_view(VERSION, for_owner=True),
    "EnvVar": env_var_view(VERSION.env_vars[0]),
    "Build": build_view(BUILD, for_owner=True),
    "BuildListItem": build_list_item(BUILD),
    "Run": run_view(RUN, URLS),
    "RunListItem": run_list_item(RUN),
    "UserPrivateInfo": user_private_view(USER, "pw"),
    "UserPublicInfo": user_public_view(USER),
}

# Source: apify-wire.md §5. A "?" marks what may be absent or null.
FIELDS = {
    "Run": "id actId userId startedAt:date status meta:object stats:object options:object buildId "
    "defaultKeyValueStoreId defaultDatasetId defaultRequestQueueId actorTaskId? finishedAt?:date statusMessage? "
    "isStatusMessageTerminal?:bool exitCode?:int generalAccess? storageIds?:object buildNumber? containerUrl?:url "
    "isContainerServerReady?:bool usage?:object usageTotalUsd?:number usageUsd?:object",
    "RunListItem": "id actId status startedAt:date buildId meta:object usageTotalUsd:number defaultKeyValueStoreId "
    "defaultDatasetId defaultRequestQueueId userId? actorTaskId? finishedAt?:date buildNumber? buildNumberInt?:int",
    "Actor": "id userId name username isPublic:bool createdAt:date modifiedAt:date stats:object versions:list "
    "defaultRunOptions:object description? title? taggedBuilds?:object actorStandby?:object standbyUrl?:url",
    "ActorListItem": "id createdAt:date modifiedAt:date name username title?",
    "Version": "versionNumber sourceType envVars?:list applyEnvVarsToBuild?:bool buildTag? sourceFiles?:list",
    "EnvVar": "name value? isSecret?:bool",
    "Build": "id actId userId startedAt:date status meta:object buildNumber finishedAt?:date stats?:object "
    "options?:object usage?:object usageTotalUsd?:number usageUsd?:object actorDefinition?:object statusMessage?",
    "BuildListItem": "id status startedAt:date usageTotalUsd:number buildNumber actId? userId? finishedAt?:date "
    "buildNumberInt?:int meta?:object",
    "UserPrivateInfo": "username id? profile?:object proxy?:object createdAt?:date isPaying?:bool",
    "UserPublicInfo": "username profile?:object",
    "Run.meta": "origin",
    "Run.options": "build timeoutSecs:int memoryMbytes:int diskMbytes:int maxItems?:int maxTotalChargeUsd?:number "
    "restartOnError?:bool",
    "Run.stats": "inputBodyLen:int migrationCount:int rebootCount:int restartCount:int resurrectCount:int "
    "memAvgBytes:number memMaxBytes:int memCurrentBytes:int cpuAvgUsage:number cpuMaxUsage:number "
    "cpuCurrentUsage:number netRxBytes:int netTxBytes:int durationMillis:int runTimeSecs:number metamorph:int "
    "computeUnits:number",
    "Build.meta": "origin",
    "Build.options": "useCache?:bool betaPackages?:bool memoryMbytes?:int diskMbytes?:int",
    "Actor.stats": "totalBuilds:int totalRuns:int totalUsers:int totalUsers7Days:int totalUsers30Days:int "
    "totalUsers90Days:int totalMetamorphs:int lastRunStartedAt?:date",
    "Actor.defaultRunOptions": "build? timeoutSecs?:int memoryMbytes?:int restartOnError?:bool maxItems?:int",
    "Actor.taggedBuilds.latest": "buildId? buildNumber? buildNumberInt?:int finishedAt?:date",
    "UserPrivateInfo.proxy": "password groups?:list",
}
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def _is(kind: str, value: Any) -> bool:
    match kind:
        case "date":
            return isinstance(value, str) and _DATE.fullmatch(value) is not None
        case "url":
            return isinstance(value, str) and value.startswith("http://")
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "object":
            return isinstance(value, dict)
        case "list":
            return isinstance(value, list)
    return isinstance(value, str) and value != ""


@pytest.mark.parametrize("name", FIELDS)
def test_fields(name: str) -> None:
    """Required fields are there and not null; all fields are known ones and of their kind."""
    first, *path = name.split(".")
    view = VIEWS[first]
    for part in path:
        view = view[part]
    known = set()
    for entry in FIELDS[name].split():
        field, _, kind = entry.partition(":")
        key = field.rstrip("?")
        known.add(key)
        if field.endswith("?") and view.get(key) is None:
            continue
        assert _is(kind, view[key]), (key, view[key])
    assert set(view) <= known


def test_zero_stats_are_the_clients() -> None:
    """A new run's statistics are complete: older clients refuse a run without some of them."""
    assert set(run_view(RUN, URLS)["stats"]) == set(ZERO_STATS)


def test_others_see_less() -> None:
    """Source, variables and the variables of ``actor.json`` are for the owner alone."""
    assert set(version_view(VERSION, for_owner=False)) == {
        "versionNumber",
        "sourceType",
        "buildTag",
        "applyEnvVarsToBuild",
    }
    assert "environmentVariables" not in build_view(BUILD, for_owner=False)["actorDefinition"]
    assert "environmentVariables" in build_view(BUILD, for_owner=True)["actorDefinition"]


@pytest.mark.parametrize(("number", "expected"), [("0.1.7", 100007), ("1.2.3", 10200003), ("99.99.99999", 999999999)])
def test_build_number_int(number: str, expected: int) -> None:
    """The whole-number form of a build's number."""
    assert build_number_int(number) == expected


def test_standby_that_fits_no_more_is_shown_as_it_stands() -> None:
    """Two halves that were each valid when stored, but contradict each other, do not break the whole object."""
    from dataclasses import replace

    actor = replace(
        ACTOR,
        standby_from_api={"isEnabled": True, "maxRequestsPerActorRun": 5},
        standby_from_file={"desiredRequestsPerActorRun": 9},
    )
    view = actor_view(actor, "bob", [], URLS, figures=ActorFigures(), for_owner=True)
    assert view["actorStandby"] == {
        "isEnabled": True,
        "maxRequestsPerActorRun": 5,
        "desiredRequestsPerActorRun": 9,
    }
