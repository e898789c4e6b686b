"""What the Standby settings do, end to end: each by an Actor that has it, and changes by the API while it serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from journeys.greenroom import TOKEN, Greenroom, actor_folder, error_of, eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def greenroom(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Greenroom]:
    """One server for all of these tests, with an Actor that is to be warm from its start."""
    data = tmp_path_factory.mktemp("settings") / "data"
    early = actor_folder(data.parent / "given", "early", {"minRuns": 1, "idleTimeoutSecs": 1})
    settings = {"wind_down_grace_secs": 1, "tick_secs": 0.5, "trusted_proxies": "127.0.0.1"}
    async with Greenroom(data, (early,), settings=settings) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(greenroom: Greenroom) -> str:
    """The token of a user without Actors of his own."""
    return await greenroom.user("guest")


async def change(greenroom: Greenroom, actor: dict[str, Any], **fields: Any) -> None:
    """Change an Actor by the API."""
    await greenroom.data_of("PUT", f"/actors/{actor['id']}", json=fields)


async def pass_idle_timeout(greenroom: Greenroom) -> None:
    """More than a second passes, as the autoscaler counts it: another Actor's run is wound down as idle for one."""
    actor = await greenroom.probe("idle-clock", {"idleTimeoutSecs": 1})
    await greenroom.call("idle-clock")
    await greenroom.ended((await greenroom.runs_of(actor))[-1]["id"])


async def run_of(greenroom: Greenroom, actor: str, **options: Any) -> str:
    """Which run answers a call."""
    answer = await greenroom.call(actor, "/count", **options)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["runId"])


# -- how many runs -----------------------------------------------------------------------------------------------------


async def test_max_runs_is_never_exceeded_and_everybody_is_served(greenroom: Greenroom) -> None:
    """With one run of one request at a time, six callers are served one after the other."""
    standby = {"maxRuns": 1, "maxRequestsPerActorRun": 1, "desiredRequestsPerActorRun": 1}
    actor = await greenroom.probe("one-run", standby)
    answers = await asyncio.gather(*(greenroom.call("one-run", "/slow?ms=20") for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["busiest"] for answer in answers} == {1}
    assert len(await greenroom.runs_of(actor)) == 1


@pytest.mark.slow
async def test_min_runs_are_warm_without_any_request_also_right_after_the_start(greenroom: Greenroom) -> None:
    """They begin by themselves, outlive their idle timeout, and are replaced when they die."""
    early = await greenroom.data_of("GET", "/actors/~early")
    (first,) = await greenroom.serving(early, 1)
    actor = await greenroom.probe("kept-warm", {"minRuns": 2, "idleTimeoutSecs": 1})
    kept = await greenroom.serving(actor, 2)
    await pass_idle_timeout(greenroom)
    await pass_idle_timeout(greenroom)
    assert await greenroom.serving(actor, 2) == kept
    assert await greenroom.serving(early, 1) == [first]
    await greenroom.call("early", "/die?code=1")
    assert (await greenroom.ended(first))["status"] == "FAILED"
    assert await greenroom.serving(early, 1) != [first]
    await change(greenroom, actor, actorStandby={"minRuns": 0})
    assert {(await greenroom.ended(run_id))["status"] for run_id in kept} == {"SUCCEEDED"}


async def test_above_the_desired_load_everywhere_one_run_is_started_ahead(greenroom: Greenroom) -> None:
    """Two requests in a run that would rather have one: a second run is there before anybody has to wait for it."""
    standby = {"desiredRequestsPerActorRun": 1, "maxRequestsPerActorRun": 4}
    actor, gate = await greenroom.probe("ahead", standby), greenroom.data.parent / "ahead.gate"
    first = await run_of(greenroom, "ahead")
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(greenroom.call("ahead", f"/until?file={gate}")) for _ in range(2)]
        runs = await greenroom.serving(actor, 2)
        assert first in runs
        gate.touch()
    assert {call.result().json()["runId"] for call in calls} == {first}


async def test_an_idle_run_ends_after_the_idle_timeout_and_not_before(greenroom: Greenroom) -> None:
    """Two Actors, woken one after the other: the one with the short timeout ends, the other one stays."""
    patient = await greenroom.probe("patient", {"idleTimeoutSecs": 300})
    await greenroom.call("patient")
    await pass_idle_timeout(greenroom)
    (run,) = await greenroom.runs_of(patient)
    assert (await greenroom.run(run["id"]))["status"] == "RUNNING"
    await change(greenroom, patient, actorStandby={"idleTimeoutSecs": 1})
    assert (await greenroom.ended(run["id"]))["status"] == "SUCCEEDED"


# -- whose run ---------------------------------------------------------------------------------------------------------


async def test_single_tenancy_gives_each_caller_runs_of_his_own(greenroom: Greenroom, guest: str) -> None:
    """The default, for an Actor that others may run."""
    actor = await greenroom.probe("each-his-own")
    await change(greenroom, actor, isPublic=True)
    mine, theirs = await run_of(greenroom, "each-his-own"), await run_of(greenroom, "each-his-own", token=guest)
    assert [run["id"] for run in await greenroom.runs_of(actor)] == [mine]
    assert [run["id"] for run in await greenroom.runs_of(actor, token=guest)] == [theirs]


@pytest.mark.parametrize("standby", [{"tenancy": "MULTI_TENANT"}, {"public": True}], ids=["multi-tenant", "public"])
async def test_shared_actors_serve_all_callers_from_the_owners_run(
    greenroom: Greenroom, guest: str, standby: dict[str, Any]
) -> None:
    """One run for both, which belongs to the owner and is shown to him alone."""
    name = f"shared-{len(standby)}-{next(iter(standby))}".lower()
    actor = await greenroom.probe(name, standby)
    await change(greenroom, actor, isPublic=True)
    shared = await run_of(greenroom, name)
    assert await run_of(greenroom, name, token=guest) == shared
    if "public" in standby:
        assert await run_of(greenroom, name, token=None) == shared
    assert [run["id"] for run in await greenroom.runs_of(actor)] == [shared]
    assert await greenroom.runs_of(actor, token=guest) == []


async def test_owner_only_hides_the_host_of_an_actor_that_others_may_see(greenroom: Greenroom, guest: str) -> None:
    """404 for them, as if there were none; the owner is served."""
    actor = await greenroom.probe("mine-only", {"ownerOnly": True})
    await change(greenroom, actor, isPublic=True)
    assert error_of(await greenroom.call("mine-only", token=guest)) == (404, "record-not-found")
    assert (await greenroom.call("mine-only")).status_code == 200


# -- what a run gets ---------------------------------------------------------------------------------------------------


async def test_forward_credentials_lets_the_callers_token_through(greenroom: Greenroom) -> None:
    """For Actors that act for their caller: header and query as they were sent."""
    await greenroom.probe("acts-for-caller", {"forwardCredentials": True})
    answer = await greenroom.call("acts-for-caller", f"/seen?token={TOKEN}&x=1")
    assert answer.json()["target"] == f"/seen?token={TOKEN}&x=1"
    assert ["authorization", f"Bearer {TOKEN}"] in [[name.lower(), value] for name, value in answer.json()["headers"]]
    assert TOKEN not in greenroom.log


async def test_forward_credentials_is_refused_where_runs_are_shared(greenroom: Greenroom) -> None:
    """A stranger's token must not reach another one's run; what was set before holds on."""
    actor = await greenroom.probe("never-both", {"forwardCredentials": True})
    refused = await greenroom.api("PUT", f"/actors/{actor['id']}", json={"actorStandby": {"public": True}})
    assert refused.status_code == 400
    assert "forwardCredentials" in refused.json()["error"]["message"]
    assert error_of(await greenroom.call("never-both", token=None)) == (401, "user-not-authenticated")


async def test_memory_is_told_to_the_run_and_a_change_makes_new_runs(greenroom: Greenroom) -> None:
    """The run of the new size takes over from that of the old one."""
    actor = await greenroom.probe("sized", {"memoryMbytes": 256})
    env = (await greenroom.call("sized", "/env")).json()["env"]
    assert (env["ACTOR_MEMORY_MBYTES"], env["APIFY_DEDICATED_CPUS"]) == ("256", "1")
    assert (await greenroom.run(env["ACTOR_RUN_ID"]))["options"]["memoryMbytes"] == 256
    await change(greenroom, actor, actorStandby={"memoryMbytes": 512})

    async def resized() -> bool:
        return bool((await greenroom.call("sized", "/env")).json()["env"]["ACTOR_MEMORY_MBYTES"] == "512")

    await eventually(resized, what="a run of the new size")
    assert (await greenroom.ended(env["ACTOR_RUN_ID"]))["status"] == "SUCCEEDED"


async def test_pick_timeout_secs_bounds_the_wait_for_a_run(greenroom: Greenroom) -> None:
    """The Actor's own setting wins over the server's; while its run still starts, that is what is told."""
    gate = greenroom.data.parent / "pick.gate"
    await greenroom.probe("slow-start", {"pickTimeoutSecs": 0.3}, environmentVariables={"PROBE_START": f"file:{gate}"})
    assert error_of(await greenroom.call("slow-start")) == (504, "standby-run-not-ready")
    gate.touch()


# -- changes while it serves -------------------------------------------------------------------------------------------


async def test_a_change_by_the_api_holds_for_the_next_request(greenroom: Greenroom) -> None:
    """Public and private again, without a moment in between."""
    actor = await greenroom.probe("changing")
    for _ in range(5):
        assert (await greenroom.call("changing", token=None)).status_code == 401
        await change(greenroom, actor, actorStandby={"public": True})
        assert (await greenroom.call("changing", token=None)).status_code == 200
        await change(greenroom, actor, actorStandby={"public": False})


async def test_what_the_api_set_wins_over_the_file_of_a_later_push(greenroom: Greenroom) -> None:
    """Key by key; what the API never set follows the file."""
    actor = await greenroom.probe("both-ways", {"maxRuns": 3, "idleTimeoutSecs": 100})
    await change(greenroom, actor, actorStandby={"maxRuns": 5})
    pushed = await greenroom.probe("both-ways", {"maxRuns": 4, "idleTimeoutSecs": 200})
    assert pushed["id"] == actor["id"]
    standby = (await greenroom.data_of("GET", f"/actors/{actor['id']}"))["actorStandby"]
    assert (standby["maxRuns"], standby["idleTimeoutSecs"]) == (5, 200)


async def test_standby_switched_off_says_so_and_drains(greenroom: Greenroom) -> None:
    """400 at once; what is in flight is answered, then the run is wound down; switched on again it serves."""
    actor, gate = await greenroom.probe("switched"), greenroom.data.parent / "switched.gate"
    run_id = await run_of(greenroom, "switched")
    async with asyncio.TaskGroup() as group:
        call = group.create_task(greenroom.call("switched", f"/until?file={gate}"))
        await eventually(gate.with_name("switched.gate.begun").exists, what="the request")
        await change(greenroom, actor, actorStandby={"isEnabled": False})
        assert error_of(await greenroom.call("switched")) == (400, "standby-not-enabled")
        gate.touch()
    assert (call.result().status_code, call.result().json()["runId"]) == (200, run_id)
    assert (await greenroom.ended(run_id))["status"] == "SUCCEEDED"
    await change(greenroom, actor, actorStandby={"isEnabled": True})
    assert (await greenroom.call("switched")).status_code == 200


async def test_a_deleted_actor_is_gone_and_its_runs_are_wound_down(greenroom: Greenroom) -> None:
    """404 at once; the run ends SUCCEEDED and stays on record with its log."""
    actor = await greenroom.probe("deleted")
    run_id = await run_of(greenroom, "deleted")
    assert (await greenroom.api("DELETE", f"/actors/{actor['id']}")).status_code == 204
    assert error_of(await greenroom.call("deleted")) == (404, "record-not-found")
    assert (await greenroom.ended(run_id))["status"] == "SUCCEEDED"
    assert "probe starts" in await greenroom.log_of(run_id)


@pytest.mark.parametrize(
    ("standby", "word"),
    [
        ({"maxRuns": 0}, "maxRuns"),
        ({"idleTimeoutSecs": 0.5}, "idleTimeoutSecs"),
        ({"memoryMbytes": 300}, "memoryMbytes"),
        ({"desiredRequestsPerActorRun": 9, "maxRequestsPerActorRun": 8}, "greater than or equal"),
        ({"noSuchSetting": 1}, "noSuchSetting"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_settings_that_do_not_fit_change_nothing(
    greenroom: Greenroom, standby: dict[str, Any], word: str
) -> None:
    """400 with the name of the setting; the Actor serves on as before."""
    actor = await greenroom.data_of("GET", "/actors/~early")
    refused = await greenroom.api("PUT", f"/actors/{actor['id']}", json={"actorStandby": standby})
    assert refused.status_code == 400
    assert word in refused.json()["error"]["message"]
    # Its statistics go on, e.g. by a run that an earlier test's load has started ahead.
    assert await greenroom.data_of("GET", "/actors/~early") | {"stats": None} == actor | {"stats": None}


# -- the server's own --------------------------------------------------------------------------------------------------


async def test_a_trusted_proxy_says_who_calls(greenroom: Greenroom) -> None:
    """What it heard reaches the Actor, the proxy after the client, and the record of a run that is started so."""
    heard = {"X-Forwarded-For": "6.6.6.6, 203.0.113.7, 127.0.0.1", "X-Forwarded-Proto": "https"}
    actor = await greenroom.probe("behind-a-proxy")
    answer = await greenroom.call("behind-a-proxy", "/seen", headers=heard)
    seen = {name.lower(): value for name, value in answer.json()["headers"]}
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == ("203.0.113.7, 127.0.0.1, 127.0.0.1", "https")
    run = await greenroom.data_of("POST", f"/actors/{actor['id']}/runs", headers=heard)
    assert run["meta"]["clientIp"] == "203.0.113.7"
    await greenroom.api("POST", f"/actor-runs/{run['id']}/abort")
