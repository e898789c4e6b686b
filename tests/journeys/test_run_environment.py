"""What a run finds in its environment: the whole contract, each alias, and nothing of the server's own."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from journeys.greenroom import TOKEN, Greenroom, actor_folder, error_of, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SENTINEL = "only-for-the-server-itself"

ANY_PROGRAM_NEEDS = {"HOME", "TMPDIR", "LANG", "PATH", "PYTHONUNBUFFERED", "VIRTUAL_ENV"}
ALWAYS = {
    "APIFY_IS_AT_HOME",
    "APIFY_TOKEN",
    "APIFY_API_BASE_URL",
    "APIFY_API_PUBLIC_BASE_URL",
    "APIFY_META_ORIGIN",
    "APIFY_USER_ID",
    "APIFY_DEDICATED_CPUS",
    "ACTOR_FULL_NAME",
    "ACTOR_BUILD_TAGS",
    "ACTOR_PERMISSION_LEVEL",
}
ALIASES = [
    ("ACTOR_ID", "APIFY_ACTOR_ID", "APIFY_ACT_ID"),
    ("ACTOR_RUN_ID", "APIFY_ACTOR_RUN_ID", "APIFY_ACT_RUN_ID"),
    ("ACTOR_BUILD_ID", "APIFY_ACTOR_BUILD_ID"),
    ("ACTOR_BUILD_NUMBER", "APIFY_ACTOR_BUILD_NUMBER"),
    ("ACTOR_DEFAULT_KEY_VALUE_STORE_ID", "APIFY_DEFAULT_KEY_VALUE_STORE_ID"),
    ("ACTOR_DEFAULT_DATASET_ID", "APIFY_DEFAULT_DATASET_ID"),
    ("ACTOR_DEFAULT_REQUEST_QUEUE_ID", "APIFY_DEFAULT_REQUEST_QUEUE_ID"),
    ("ACTOR_INPUT_KEY", "APIFY_INPUT_KEY"),
    ("ACTOR_EVENTS_WEBSOCKET_URL", "APIFY_ACTOR_EVENTS_WS_URL"),
    ("ACTOR_MEMORY_MBYTES", "APIFY_MEMORY_MBYTES"),
    ("ACTOR_STARTED_AT", "APIFY_STARTED_AT"),
    ("ACTOR_WEB_SERVER_PORT", "APIFY_CONTAINER_PORT", "ACTOR_STANDBY_PORT"),
    ("ACTOR_WEB_SERVER_URL", "APIFY_CONTAINER_URL"),
]
TIMEOUT = ("ACTOR_TIMEOUT_AT", "APIFY_TIMEOUT_AT")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def greenroom(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Greenroom]:
    """One server, with things in its environment that must stay there."""
    environment = {"SENTINEL": SENTINEL, "GREENROOM_TICK_SECS": "1.5", "PYTHONHASHSEED": "7", "LC_ALL": "C.UTF-8"}
    async with Greenroom(tmp_path_factory.mktemp("environment") / "data", environment=environment) as server:
        yield server


def bare_folder(parent: Path, name: str, **fields: Any) -> Path:
    """A probe that no shell starts, so that nothing adds to its environment."""
    folder = actor_folder(parent, name, **fields)
    definition = json.loads((folder / ".actor" / "actor.json").read_text())
    del definition["scripts"]
    (folder / ".actor" / "actor.json").write_text(json.dumps(definition))
    (folder / ".actor" / "Dockerfile").write_text('FROM python:3\nCMD ["python3", "main.py"]\n')
    return folder


def names(*aliases: tuple[str, ...]) -> set[str]:
    return {name for group in aliases for name in group}


async def seen_by(greenroom: Greenroom, actor: str) -> dict[str, Any]:
    """What the probe's process tells of itself: ``env``, ``cwd``, ``argv``."""
    return dict((await greenroom.call(actor, "/env")).json())


async def test_a_standby_run_has_exactly_the_contract(greenroom: Greenroom) -> None:
    """No variable more, none less, none empty, all aliases equal, and each value that of the run's record."""
    parent = greenroom.data.parent / "exact"
    actor = await greenroom.push(bare_folder(parent, "exact", environmentVariables={"MINE": "my value"}))
    seen = await seen_by(greenroom, "exact")
    env = seen["env"]
    assert set(env) == ANY_PROGRAM_NEEDS | ALWAYS | names(*ALIASES) | {"ACTOR_STANDBY_URL", "MINE"}
    assert [name for name, value in env.items() if not value] == []
    for group in ALIASES:
        assert len({env[name] for name in group}) == 1, group
    run = await greenroom.run(env["ACTOR_RUN_ID"])
    port = greenroom.port
    expected = {
        "MINE": "my value",
        "APIFY_IS_AT_HOME": "1",
        "APIFY_API_BASE_URL": f"http://127.0.0.1:{port}",
        "APIFY_API_PUBLIC_BASE_URL": f"http://localhost:{port}",
        "APIFY_META_ORIGIN": "STANDBY",
        "APIFY_USER_ID": run["userId"],
        "APIFY_DEDICATED_CPUS": "1",
        "ACTOR_ID": actor["id"],
        "ACTOR_FULL_NAME": "local/exact",
        "ACTOR_BUILD_ID": run["buildId"],
        "ACTOR_BUILD_NUMBER": run["buildNumber"],
        "ACTOR_BUILD_TAGS": "latest",
        "ACTOR_DEFAULT_KEY_VALUE_STORE_ID": run["defaultKeyValueStoreId"],
        "ACTOR_DEFAULT_DATASET_ID": run["defaultDatasetId"],
        "ACTOR_DEFAULT_REQUEST_QUEUE_ID": run["defaultRequestQueueId"],
        "ACTOR_INPUT_KEY": "INPUT",
        "ACTOR_MEMORY_MBYTES": "1024",
        "ACTOR_STARTED_AT": run["startedAt"],
        "ACTOR_WEB_SERVER_URL": run["containerUrl"],
        "ACTOR_STANDBY_URL": f"http://local--exact.localhost:{port}",
        "ACTOR_PERMISSION_LEVEL": "LIMITED_PERMISSIONS",
    }
    assert {name: env[name] for name in expected} == expected
    events_url = rf"ws://127\.0\.0\.1:{port}/events/{run['id']}/[A-Za-z0-9_-]+"
    assert re.fullmatch(events_url, env["ACTOR_EVENTS_WEBSOCKET_URL"])
    assert 21000 <= int(env["ACTOR_WEB_SERVER_PORT"]) <= 30999


async def test_nothing_of_the_servers_environment_is_in_it(greenroom: Greenroom) -> None:
    """Neither its variables nor its token nor its folder of settings, in the environment or the command line."""
    await greenroom.push(bare_folder(greenroom.data.parent / "nothing", "nothing-more"))
    seen = await seen_by(greenroom, "nothing-more")
    text = json.dumps(seen)
    assert SENTINEL not in text
    assert TOKEN not in text
    assert [name for name in seen["env"] if name.startswith(("GREENROOM", "PYTHONHASHSEED", "LC_"))] == []
    assert str(Path(seen["cwd"])).startswith(str(greenroom.data))
    assert seen["env"]["HOME"] != str(Path.home())


async def test_variables_of_the_actors_own_never_win_over_the_contract(greenroom: Greenroom) -> None:
    """What the Actor may say is there; what only Greenroom may say stays Greenroom's, also where it says nothing."""
    own = {
        "ACTOR_RUN_ID": "forged",
        "APIFY_TOKEN": "forged",
        "APIFY_ACT_ID": "forged",
        "ACTOR_TIMEOUT_AT": "forged",
        "ACTOR_TASK_ID": "forged",
        "ACTOR_MAX_TOTAL_CHARGE_USD": "1000000",
        "MINE": "mine = yes\nand more",
        "PATH": "/my/own/bin",
    }
    await greenroom.push(bare_folder(greenroom.data.parent / "own", "own-variables", environmentVariables=own))
    env = (await seen_by(greenroom, "own-variables"))["env"]
    assert set(env) == ANY_PROGRAM_NEEDS | ALWAYS | names(*ALIASES) | {"ACTOR_STANDBY_URL", "MINE"}
    assert "forged" not in env.values()
    assert env["MINE"] == "mine = yes\nand more"
    assert "/my/own/bin" in env["PATH"].split(":")


async def test_a_batch_run_has_its_time_limit_and_options_too(greenroom: Greenroom) -> None:
    """ACTOR_TIMEOUT_AT with a timeout, the limits where they were given, no standby URL where standby is off."""
    parent = greenroom.data.parent / "batch"
    actor = await greenroom.push(bare_folder(parent, "batch", standby={"isEnabled": False}))
    query = "timeout=300&memory=8192&maxItems=7&maxTotalChargeUsd=0.00001&restartOnError=1"
    run = await greenroom.data_of("POST", f"/actors/{actor['id']}/runs?{query}")
    env = (await _page(greenroom, run))["env"]
    more = {"ACTOR_MAX_PAID_DATASET_ITEMS", "ACTOR_MAX_TOTAL_CHARGE_USD", "ACTOR_RESTART_ON_ERROR"}
    assert set(env) == ANY_PROGRAM_NEEDS | ALWAYS | names(*ALIASES, TIMEOUT) | more
    assert env["ACTOR_TIMEOUT_AT"] == env["APIFY_TIMEOUT_AT"]
    timeout_at, started_at = _time(env["ACTOR_TIMEOUT_AT"]), _time(env["ACTOR_STARTED_AT"])
    assert timeout_at - started_at == timedelta(seconds=300)
    assert (env["ACTOR_MEMORY_MBYTES"], env["ACTOR_RESTART_ON_ERROR"]) == ("8192", "1")
    assert (env["ACTOR_MAX_PAID_DATASET_ITEMS"], env["ACTOR_MAX_TOTAL_CHARGE_USD"]) == ("7", "0.00001")
    assert env["APIFY_META_ORIGIN"] == "API"
    assert 1 <= float(env["APIFY_DEDICATED_CPUS"]) <= 2  # 8192 MiB ÷ 4096, as far as this machine has them
    untimed = await greenroom.data_of("POST", f"/actors/{actor['id']}/runs?timeout=0")
    assert set((await _page(greenroom, untimed))["env"]) == ANY_PROGRAM_NEEDS | ALWAYS | names(*ALIASES)
    for started in (run, untimed):
        await greenroom.data_of("POST", f"/actor-runs/{started['id']}/abort")


async def test_a_port_that_the_actor_insists_on_is_the_one_it_gets(greenroom: Greenroom) -> None:
    """By its own ACTOR_WEB_SERVER_PORT, as images with a fixed port have it."""
    port = _free_port()
    variables = {"ACTOR_WEB_SERVER_PORT": str(port)}
    await greenroom.push(bare_folder(greenroom.data.parent / "port", "fixed-port", environmentVariables=variables))
    env = (await seen_by(greenroom, "fixed-port"))["env"]
    assert {env[name] for name in ("ACTOR_WEB_SERVER_PORT", "ACTOR_STANDBY_PORT", "APIFY_CONTAINER_PORT")} == {
        str(port)
    }


async def test_the_token_of_a_run_is_its_own_and_dies_with_it(greenroom: Greenroom) -> None:
    """Good for its own run and to call Actors, not for other runs or what its user has; 401 once the run has ended."""
    folder = greenroom.data.parent / "token"
    await greenroom.push(bare_folder(folder, "with-token"))
    await greenroom.push(bare_folder(folder, "beside"))
    env, beside = (await seen_by(greenroom, "with-token"))["env"], (await seen_by(greenroom, "beside"))["env"]
    token, run_id = env["APIFY_TOKEN"], env["ACTOR_RUN_ID"]
    assert token != beside["APIFY_TOKEN"]
    assert (await greenroom.run(run_id, token=token))["id"] == run_id
    assert (await greenroom.api("GET", f"/logs/{run_id}", token=token)).status_code == 200
    told = await greenroom.data_of("PUT", f"/actor-runs/{run_id}", token=token, json={"statusMessage": "at work"})
    assert told["statusMessage"] == "at work"
    other = beside["ACTOR_RUN_ID"]
    for method, path in [
        ("GET", f"/actor-runs/{other}"),
        ("PUT", f"/actor-runs/{other}"),
        ("POST", f"/actor-runs/{other}/abort"),
        ("GET", f"/logs/{other}"),
        ("GET", "/actor-runs"),
        ("GET", "/actors"),
        ("POST", "/actors"),
        ("DELETE", f"/actors/{env['ACTOR_ID']}"),
    ]:
        answer = await greenroom.api(method, path, token=token, **({"json": {}} if method in ("PUT", "POST") else {}))
        assert error_of(answer) == (403, "insufficient-permissions"), (method, path)
    await greenroom.data_of("POST", f"/actor-runs/{run_id}/abort")
    await greenroom.ended(run_id)

    async def is_dead() -> bool:
        return (await greenroom.api("GET", "/users/me", token=token)).status_code == 401

    await eventually(is_dead, within_secs=2, what="the end of the token")
    assert error_of(await greenroom.call("beside", token=token)) == (401, "user-or-token-not-found")


async def test_the_last_requests_of_an_ended_run_find_its_log_whole(greenroom: Greenroom) -> None:
    """What a run printed before its end is there, with a time on each line, and the token never was."""
    await greenroom.push(bare_folder(greenroom.data.parent / "logs", "logs"))
    env = (await seen_by(greenroom, "logs"))["env"]
    await greenroom.call("logs", "/log?text=a%20line%20of%20my%20own")
    await greenroom.call("logs", "/die?code=0")
    assert (await greenroom.ended(env["ACTOR_RUN_ID"]))["status"] == "SUCCEEDED"
    log = await greenroom.log_of(env["ACTOR_RUN_ID"])
    assert [line for line in log.splitlines() if not re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", line)] == []
    assert "Z a line of my own\n" in log
    assert "Z told to die\n" in log
    assert env["APIFY_TOKEN"] not in log + greenroom.log


async def _page(greenroom: Greenroom, run: dict[str, Any]) -> dict[str, Any]:
    """The probe's word about a batch run, by its live view."""

    async def page() -> dict[str, Any] | None:
        answer = await greenroom.at(run["containerUrl"].removeprefix("http://"), "/env")
        return dict(answer.json()) if answer.status_code == 200 else None

    return dict(await eventually(page, what="the live view"))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
