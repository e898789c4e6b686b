"""Builds through the API, made by the real builder."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build, Origin
from gateway.state.ports import Changed


@pytest.fixture
async def actor(bob: Any) -> Any:
    """An Actor with one build."""
    return await bob.built_actor()


async def unfinished(api: Any, actor: Any) -> Build:
    """A build that somebody is making."""
    build: Build = await api.services.state.records.add_build(
        Build(
            id=api.services.new_id(),
            actor_id=actor["id"],
            user_id=actor["userId"],
            version_number="0.1",
            build_number="",
            status=RunStatus.RUNNING,
            started_at=api.clock.now(),
            origin=Origin.API,
        )
    )
    return build


async def test_build_from_source_files(bob: Any, actor: Any) -> None:
    """A build of a version succeeds, moves the version's tag and can be seen in all lists."""
    build = await bob.post("/actors/hello/builds?version=0.1&useCache=1&waitForFinish=60")
    assert (build["status"], build["buildNumber"]) == ("SUCCEEDED", "0.1.2")
    assert build["options"]["useCache"] is True
    assert build["actorDefinition"]["name"] == "hello"
    assert await bob.get(f"/actor-builds/{build['id']}") == build
    assert await bob.get(f"/actors/hello/builds/{build['id']}") == build
    assert await bob.get("/actors/hello/builds/default") == build
    for path in ("/actor-builds", "/actors/hello/builds"):
        listed = await bob.get(f"{path}?desc=1")
        assert listed["total"] == 2
        assert {item["buildNumberInt"] for item in listed["items"]} == {100001, 100002}


async def test_a_tag_of_ones_own(bob: Any, actor: Any) -> None:
    """A build can be put under another tag than its version's."""
    build = await bob.post("/actors/hello/builds?version=0.1&tag=beta&waitForFinish=60")
    tags = (await bob.get("/actors/hello"))["taggedBuilds"]
    assert tags["beta"]["buildId"] == build["id"]
    assert tags["latest"]["buildNumber"] == "0.1.1"


async def test_a_broken_source(bob: Any, actor: Any) -> None:
    """A mistake in the Actor's files makes a failed build that says where, and moves no tag."""
    broken = [{"name": ".actor/actor.json", "format": "TEXT", "content": "{"}]
    await bob.put("/actors/hello/versions/0.1", json={"sourceFiles": broken})
    build = await bob.post("/actors/hello/builds?version=0.1&waitForFinish=60")
    assert build["status"] == "FAILED"
    assert "actor.json" in build["statusMessage"]
    assert (await bob.get("/actors/hello/builds/default"))["buildNumber"] == "0.1.1"


async def test_a_source_that_is_fetched(bob: Any, actor: Any) -> None:
    """The answer does not wait for what takes its time: the build is READY until somebody begins it."""
    url = "https://example.com/a.tgz"
    await bob.put("/actors/hello/versions/0.1", json={"sourceType": "TARBALL", "tarballUrl": url})
    build = await bob.post("/actors/hello/builds?version=0.1")
    assert (build["status"], build["buildNumber"], build["finishedAt"]) == ("READY", "0.1.2", None)
    assert (await bob.get("/actors/hello/builds/default"))["buildNumber"] == "0.1.1"
    assert (await bob.post(f"/actor-builds/{build['id']}/abort", 200))["status"] == "ABORTED"


@pytest.mark.parametrize(
    ("query", "status", "kind"),
    [
        ("", 400, "invalid-request"),
        ("?version=1", 400, "invalid-request"),
        ("?version=9.9", 404, "record-not-found"),
        ("?version=0.1&tag=no%20spaces", 400, "invalid-request"),
        ("?version=0.1&waitForFinish=-1", 400, "invalid-request"),
        ("?version=0.1&useCache=perhaps", 400, "invalid-request"),
    ],
)
async def test_mistakes(bob: Any, actor: Any, query: str, status: int, kind: str) -> None:
    """A start that can't be done is refused, and no build is made."""
    assert (await bob.post(f"/actors/hello/builds{query}", status))["type"] == kind
    assert (await bob.get("/actor-builds"))["total"] == 1


async def test_wait(api: Any, bob: Any, actor: Any, until: Any) -> None:
    """Who waits for a build hears of its end when it comes."""
    build = await unfinished(api, actor)
    state = api.services.state
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        waiting = group.create_task(bob.get(f"/actor-builds/{build.id}?waitForFinish=60"))
        await until(lambda: state.signals._store.change_watchers)
        await state.records.replace_build(replace(build, status=RunStatus.FAILED, finished_at=api.clock.now()))
        await state.signals.changed(Changed(kind="build", id=build.id))
    assert waiting.result()["status"] == "FAILED"


async def test_abort(api: Any, bob: Any, actor: Any) -> None:
    """An unfinished build is ended; one that has ended is returned as it is."""
    build = await unfinished(api, actor)
    aborted = await bob.post(f"/actor-builds/{build.id}/abort", 200)
    assert (aborted["status"], aborted["finishedAt"]) == ("ABORTED", "2026-03-04T05:06:07.890Z")
    first = (await bob.get("/actors/hello/builds/default"))["id"]
    assert (await bob.post(f"/actor-builds/{first}/abort", 200))["status"] == "SUCCEEDED"


async def test_delete(api: Any, bob: Any, actor: Any) -> None:
    """Only a finished build that no tag points to can be deleted, and its log goes with it."""
    first = (await bob.get("/actors/hello/builds/default"))["id"]
    assert (await bob.delete(f"/actor-builds/{first}", 400))["type"] == "deleting-default-build"
    build = await unfinished(api, actor)
    assert (await bob.delete(f"/actor-builds/{build.id}", 400))["type"] == "deleting-unfinished-build"
    await bob.post("/actors/hello/builds?version=0.1&waitForFinish=60")
    await bob.delete(f"/actor-builds/{first}")
    await bob.get(f"/actor-builds/{first}", 404)
    await bob.get(f"/actor-builds/{first}/log", 404)


async def test_a_build_is_found_under_its_own_actor_alone(bob: Any, actor: Any) -> None:
    """The path names Actor and build; both must fit."""
    await bob.built_actor("other")
    build = await bob.get("/actors/hello/builds/default")
    await bob.get(f"/actors/other/builds/{build['id']}", 404)


async def test_no_default_build(bob: Any) -> None:
    """An Actor that was never built has none."""
    await bob.post("/actors", json={"name": "empty"})
    await bob.get("/actors/empty/builds/default", 404)
