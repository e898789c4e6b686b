"""The environment contract of a run: the whole of it, for a standby run and for a batch run."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.run_environment import RunContext, opened, run_environment, wanted_port
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Actor, Build, EnvVar, Origin, Run, RunOptions, TaggedBuild
from gateway.input_secrets import PrivateKey
from gateway.secret_box import SecretBox

AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
ACTOR = Actor(
    id="ActorId0000000001",
    user_id="OwnerId0000000001",
    name="hello",
    created_at=AT,
    modified_at=AT,
    tagged_builds={
        "latest": TaggedBuild(build_id="BuildId0000000001", build_number="0.1.7", finished_at=AT),
        "beta": TaggedBuild(build_id="BuildId0000000001", build_number="0.1.7", finished_at=AT),
        "old": TaggedBuild(build_id="BuildId0000000000", build_number="0.1.6", finished_at=AT),
    },
)
BUILD = Build(
    id="BuildId0000000001",
    actor_id=ACTOR.id,
    user_id=ACTOR.user_id,
    version_number="0.1",
    build_number="0.1.7",
    status=RunStatus.SUCCEEDED,
    started_at=AT,
    origin=Origin.CLI,
)
STANDBY_RUN = Run(
    id="RunId000000000001",
    actor_id=ACTOR.id,
    user_id="CallerId000000001",
    build_id=BUILD.id,
    build_number="0.1.7",
    status=RunStatus.READY,
    started_at=AT,
    origin=Origin.STANDBY,
    options=RunOptions(timeout_secs=0, memory_mbytes=1024),
    live_view_label="label",
    default_key_value_store_id="KeyValueStoreId01",
    default_dataset_id="DatasetId00000001",
    default_request_queue_id="RequestQueueId001",
)
BATCH_RUN = replace(
    STANDBY_RUN,
    origin=Origin.API,
    task_id="TaskId00000000001",
    options=RunOptions(
        timeout_secs=60, memory_mbytes=8192, max_items=100, max_total_charge_usd=12345.67, restart_on_error=True
    ),
)
CONTEXT = RunContext(
    owner_name="bob",
    token="greenroom_run_secret",
    api_url="http://127.0.0.1:8010",
    public_api_url="http://localhost:8010",
    events_url="ws://127.0.0.1:8010/events/RunId000000000001/s",
    live_view_url="http://label.runs.localhost:8010",
    standby_url="http://bob--hello.localhost:8010",
    web_server_port=21000,
    dedicated_cpus=1.0,
)

COMMON = {
    "APIFY_IS_AT_HOME": "1",
    "APIFY_TOKEN": "greenroom_run_secret",
    "APIFY_API_BASE_URL": "http://127.0.0.1:8010",
    "APIFY_API_PUBLIC_BASE_URL": "http://localhost:8010",
    "APIFY_USER_ID": "CallerId000000001",
    "ACTOR_FULL_NAME": "bob/hello",
    "ACTOR_PERMISSION_LEVEL": "LIMITED_PERMISSIONS",
    "ACTOR_ID": "ActorId0000000001",
    "APIFY_ACTOR_ID": "ActorId0000000001",
    "APIFY_ACT_ID": "ActorId0000000001",
    "ACTOR_RUN_ID": "RunId000000000001",
    "APIFY_ACTOR_RUN_ID": "RunId000000000001",
    "APIFY_ACT_RUN_ID": "RunId000000000001",
    "ACTOR_BUILD_ID": "BuildId0000000001",
    "APIFY_ACTOR_BUILD_ID": "BuildId0000000001",
    "ACTOR_BUILD_NUMBER": "0.1.7",
    "APIFY_ACTOR_BUILD_NUMBER": "0.1.7",
    "ACTOR_BUILD_TAGS": "beta,latest",
    "ACTOR_DEFAULT_KEY_VALUE_STORE_ID": "KeyValueStoreId01",
    "APIFY_DEFAULT_KEY_VALUE_STORE_ID": "KeyValueStoreId01",
    "ACTOR_DEFAULT_DATASET_ID": "DatasetId00000001",
    "APIFY_DEFAULT_DATASET_ID": "DatasetId00000001",
    "ACTOR_DEFAULT_REQUEST_QUEUE_ID": "RequestQueueId001",
    "APIFY_DEFAULT_REQUEST_QUEUE_ID": "RequestQueueId001",
    "ACTOR_INPUT_KEY": "INPUT",
    "APIFY_INPUT_KEY": "INPUT",
    "ACTOR_EVENTS_WEBSOCKET_URL": "ws://127.0.0.1:8010/events/RunId000000000001/s",
    "APIFY_ACTOR_EVENTS_WS_URL": "ws://127.0.0.1:8010/events/RunId000000000001/s",
    "ACTOR_STARTED_AT": "2026-01-02T03:04:05.678Z",
    "APIFY_STARTED_AT": "2026-01-02T03:04:05.678Z",
    "ACTOR_WEB_SERVER_PORT": "21000",
    "APIFY_CONTAINER_PORT": "21000",
    "ACTOR_STANDBY_PORT": "21000",
    "ACTOR_WEB_SERVER_URL": "http://label.runs.localhost:8010",
    "APIFY_CONTAINER_URL": "http://label.runs.localhost:8010",
}


def test_a_standby_run() -> None:
    """Everything under its condition: no timeout, no task and no limits, so none of their variables."""
    assert run_environment(STANDBY_RUN, ACTOR, BUILD, CONTEXT, {}) == {
        **COMMON,
        "APIFY_META_ORIGIN": "STANDBY",
        "APIFY_DEDICATED_CPUS": "1",
        "ACTOR_MEMORY_MBYTES": "1024",
        "APIFY_MEMORY_MBYTES": "1024",
        "ACTOR_STANDBY_URL": "http://bob--hello.localhost:8010",
    }


def test_a_batch_run_with_everything() -> None:
    """A task, a timeout, limits and restart on error; no standby mode; the version has variables of its own."""
    context = replace(CONTEXT, standby_url=None, dedicated_cpus=2.5)
    assert run_environment(BATCH_RUN, ACTOR, BUILD, context, {"MINE": "x", "EMPTY": ""}) == {
        **COMMON,
        "MINE": "x",
        "EMPTY": "",
        "APIFY_META_ORIGIN": "API",
        "APIFY_DEDICATED_CPUS": "2.5",
        "ACTOR_MEMORY_MBYTES": "8192",
        "APIFY_MEMORY_MBYTES": "8192",
        "ACTOR_TASK_ID": "TaskId00000000001",
        "APIFY_ACTOR_TASK_ID": "TaskId00000000001",
        "ACTOR_TIMEOUT_AT": "2026-01-02T03:05:05.678Z",
        "APIFY_TIMEOUT_AT": "2026-01-02T03:05:05.678Z",
        "ACTOR_MAX_PAID_DATASET_ITEMS": "100",
        "ACTOR_MAX_TOTAL_CHARGE_USD": "12345.67",
        "ACTOR_RESTART_ON_ERROR": "1",
    }


def test_the_key_of_the_input_is_the_runs() -> None:
    """It changes with a metamorph."""
    made = run_environment(replace(BATCH_RUN, input_key="INPUT-2"), ACTOR, BUILD, CONTEXT, {})
    assert (made["ACTOR_INPUT_KEY"], made["APIFY_INPUT_KEY"]) == ("INPUT-2", "INPUT-2")


def test_the_key_for_secret_fields() -> None:
    """Both variables, which SDKs want together, where the input has secrets; else neither."""
    context = replace(CONTEXT, input_key=PrivateKey("cGVt", "phrase"))
    made = run_environment(BATCH_RUN, ACTOR, BUILD, context, {})
    assert made["APIFY_INPUT_SECRETS_PRIVATE_KEY_FILE"] == "cGVt"
    assert made["APIFY_INPUT_SECRETS_PRIVATE_KEY_PASSPHRASE"] == "phrase"
    assert not [name for name in run_environment(BATCH_RUN, ACTOR, BUILD, CONTEXT, {}) if "SECRETS" in name]


def test_declared_storages() -> None:
    """All of them, the default ones too, where the build declares more than those."""
    run = replace(BATCH_RUN, storage_ids={"datasets": {"products": "DatasetId00000002"}})
    assert json.loads(run_environment(run, ACTOR, BUILD, CONTEXT, {})["ACTOR_STORAGES_JSON"]) == {
        "keyValueStores": {"default": "KeyValueStoreId01"},
        "datasets": {"default": "DatasetId00000001", "products": "DatasetId00000002"},
        "requestQueues": {"default": "RequestQueueId001"},
    }


FULL = run_environment(BATCH_RUN, ACTOR, BUILD, CONTEXT, {})


@given(st.dictionaries(st.sampled_from(sorted(FULL)), st.text("abc", max_size=5)), st.booleans())
def test_own_variables_never_win(own: dict[str, str], is_standby: bool) -> None:
    """Also not where we set none: a stale ``ACTOR_TIMEOUT_AT`` of the Actor's own would be believed."""
    one = STANDBY_RUN if is_standby else BATCH_RUN
    assert run_environment(one, ACTOR, BUILD, CONTEXT, own) == run_environment(one, ACTOR, BUILD, CONTEXT, {})


def test_nothing_is_empty_and_untagged_builds_have_no_tags() -> None:
    """An empty value breaks SDKs: a variable is unset instead."""
    bare = run_environment(STANDBY_RUN, replace(ACTOR, tagged_builds={}), BUILD, CONTEXT, {})
    assert "ACTOR_BUILD_TAGS" not in bare
    assert [name for name, value in {**bare, **FULL}.items() if not value] == []


def test_limits_of_zero_are_limits() -> None:
    """Nothing may be charged or stored: that is not the same as no limit."""
    options = replace(BATCH_RUN.options, max_items=0, max_total_charge_usd=0.0)
    made = run_environment(replace(BATCH_RUN, options=options), ACTOR, BUILD, CONTEXT, {})
    assert (made["ACTOR_MAX_PAID_DATASET_ITEMS"], made["ACTOR_MAX_TOTAL_CHARGE_USD"]) == ("0", "0")


@given(st.floats(0, 1e18))
def test_amounts_are_exact_plain_decimals(amount: float) -> None:
    """No exponent, no rounding."""
    options = replace(BATCH_RUN.options, max_total_charge_usd=amount)
    text = run_environment(replace(BATCH_RUN, options=options), ACTOR, BUILD, CONTEXT, {})["ACTOR_MAX_TOTAL_CHARGE_USD"]
    assert float(text) == amount
    assert set(text) <= set("0123456789.")


@pytest.mark.parametrize(
    ("env_vars", "expected"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"ACTOR_WEB_SERVER_PORT": "8080"}, 8080, id="the present name"),
        pytest.param({"ACTOR_STANDBY_PORT": "8081"}, 8081, id="its deprecated twin"),
        pytest.param({"APIFY_CONTAINER_PORT": "8082"}, 8082, id="its old name"),
        pytest.param({"ACTOR_STANDBY_PORT": "1", "ACTOR_WEB_SERVER_PORT": "2"}, 2, id="the present name wins"),
        pytest.param({"ACTOR_WEB_SERVER_PORT": "x", "ACTOR_STANDBY_PORT": "8081"}, 8081, id="nonsense is passed over"),
        pytest.param({"ACTOR_WEB_SERVER_PORT": "0"}, None, id="too low"),
        pytest.param({"ACTOR_WEB_SERVER_PORT": "65536"}, None, id="too high"),
        pytest.param({"ACTOR_WEB_SERVER_PORT": "-1"}, None, id="negative"),
        pytest.param({"ACTOR_WEB_SERVER_PORT": "80.5"}, None, id="no whole number"),
        pytest.param({"ACTOR_WEB_SERVER_PORT": ""}, None, id="empty"),
        pytest.param({"ACTOR_WEB_SERVER_PORT": "²"}, None, id="a digit that is no number"),
        pytest.param({"ACTOR_WEB_SERVER_PORT": "9" * 5000}, None, id="absurdly long"),
        pytest.param({"PORT": "3000"}, None, id="another name"),
    ],
)
def test_the_port_that_a_version_insists_on(env_vars: dict[str, str], expected: int | None) -> None:
    """For programs that have theirs built in."""
    assert wanted_port(env_vars) == expected


def test_the_port_in_force_is_the_placements() -> None:
    """Whatever the version said: the launcher has asked ``wanted_port`` and placed the run."""
    made = run_environment(STANDBY_RUN, ACTOR, BUILD, CONTEXT, {"ACTOR_STANDBY_PORT": "1"})
    assert {made[name] for name in ("ACTOR_WEB_SERVER_PORT", "ACTOR_STANDBY_PORT", "APIFY_CONTAINER_PORT")} == {"21000"}


def test_secret_variables_are_opened() -> None:
    """The others are taken as they stand."""
    box = SecretBox(b"key")
    variables = [EnvVar(name="A", value="plain"), EnvVar(name="B", value=box.seal("secret"), is_secret=True)]
    assert opened(variables, box.open) == {"A": "plain", "B": "secret"}
