"""Actors through the API: names, partial updates, standby settings that are taken as a whole or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.model import User

STANDBY_DEFAULTS = {"desiredRequestsPerActorRun": 3, "maxRequestsPerActorRun": 4, "idleTimeoutSecs": 300}


async def test_create_and_get(bob: Any) -> None:
    """A new Actor is found by its id and by every spelling of its name."""
    actor = await bob.post("/actors", json={"name": "Hello-World", "title": "Hello", "seoTitle": "A greeting"})
    for reference in (actor["id"], "Hello-World", "hello-world", "~hello-world", "bob~hello-world", "BOB~HELLO-WORLD"):
        assert await bob.get(f"/actors/{reference}") == actor
    assert actor["actorStandby"] is None
    assert actor["standbyUrl"] is None
    assert actor["seoTitle"] == "A greeting"
    assert actor["createdAt"] == "2026-03-04T05:06:07.890Z"


async def test_an_id_of_another_is_a_name_of_ones_own(api: Any) -> None:
    """A name that happens to look like another's id still finds one's own Actor."""
    theirs = await api.eve.post("/actors", json={"name": "theirs"})
    mine = await api.bob.post("/actors", json={"name": theirs["id"]})
    assert (await api.bob.get(f"/actors/{theirs['id']}"))["id"] == mine["id"]


@pytest.mark.parametrize(
    "name",
    [None, "", "ab", "a" * 64, "-abc", "abc-", "a_b_c", "a.b.c", "käse", "a b c", 5, "abc\n"],
)
async def test_names_fit_for_hosts(bob: Any, name: Any) -> None:
    """A name that could not stand in a host name is refused, and the message names the field."""
    refused = await bob.post("/actors", 400, json={"name": name})
    assert refused["type"] == "invalid-request"
    assert "name" in refused["message"]


async def test_names_are_unique_for_each_user(api: Any) -> None:
    """The same name twice is refused in any case of letters, at creation and at renaming; another user may have it."""
    await api.bob.post("/actors", json={"name": "hello"})
    other = await api.bob.post("/actors", json={"name": "other"})
    assert (await api.bob.post("/actors", 409, json={"name": "HELLO"}))["type"] == "actor-name-not-unique"
    assert (await api.bob.put("/actors/other", 409, json={"name": "Hello"}))["type"] == "actor-name-not-unique"
    assert (await api.bob.get("/actors/other"))["name"] == "other"
    await api.eve.post("/actors", json={"name": "hello"})
    renamed = await api.bob.put("/actors/other", json={"name": "another"})
    assert (renamed["id"], renamed["name"]) == (other["id"], "another")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", 5),
        ("description", ["x"]),
        ("isPublic", "yes"),
        ("defaultRunOptions", []),
        ("defaultRunOptions", {"timeoutSecs": -1}),
        ("defaultRunOptions", {"timeoutSecs": 10**30}),
        ("defaultRunOptions", {"memoryMbytes": 1000}),
        ("categories", "AI"),
        ("versions", {}),
        ("versions", [{"versionNumber": "1"}]),
        ("actorStandby", []),
        ("actorStandby", {"isEnabled": "yes"}),
        ("actorStandby", {"unheardOf": 1}),
        ("actorStandby", {"desiredRequestsPerActorRun": 9}),
        ("taggedBuilds", {"latest": {"buildId": "AAAAAAAAAAAAAAAAA"}}),
        ("taggedBuilds", {"latest": 5}),
    ],
)
async def test_a_mistake_changes_nothing(bob: Any, field: str, value: Any) -> None:
    """One wrong field among good ones is told by its name, and none of the others is taken."""
    actor = await bob.built_actor(actorStandby={"isEnabled": True})
    before = await bob.get(f"/actors/{actor['id']}")
    refused = await bob.put(f"/actors/{actor['id']}", 400, json={"title": "New", "description": "New", field: value})
    assert refused["type"] in ("invalid-request", "invalid-value")
    assert field in refused["message"] or field in str(refused.get("data"))
    assert await bob.get(f"/actors/{actor['id']}") == before
    if field != "taggedBuilds":
        await bob.post("/actors", 400, json={"name": "never", field: value})
        await bob.get("/actors/never", 404)


async def test_updates_are_partial(bob: Any) -> None:
    """What an update leaves out stays; null takes a text away."""
    await bob.post(
        "/actors",
        json={"name": "hello", "title": "T", "description": "D", "defaultRunOptions": {"timeoutSecs": 5}},
    )
    changed = await bob.put("/actors/hello", json={"title": None, "defaultRunOptions": {"memoryMbytes": 256}})
    assert (changed["title"], changed["description"]) == (None, "D")
    assert changed["defaultRunOptions"]["timeoutSecs"] == 5
    assert changed["defaultRunOptions"]["memoryMbytes"] == 256


async def test_what_was_read_can_be_written_back(bob: Any) -> None:
    """Clients read an object, change one field and write it all back; nothing else changes by that."""
    await bob.built_actor(actorStandby={"isEnabled": True, "maxRequestsPerActorRun": 9})
    actor = await bob.get("/actors/hello")
    written = await bob.put("/actors/hello", json={**actor, "title": "New"})
    assert written == {**actor, "title": "New"}


async def test_standby_settings(bob: Any) -> None:
    """A partial object is merged over the stored one, over the defaults; the address is there while it is on."""
    await bob.post("/actors", json={"name": "hello"})
    on = await bob.put("/actors/hello", json={"actorStandby": {"isEnabled": True, "maxRequestsPerActorRun": 10}})
    assert on["standbyUrl"] == "http://bob--hello.localhost:8010"
    assert on["actorStandby"] | STANDBY_DEFAULTS | {"maxRequestsPerActorRun": 10} == on["actorStandby"]
    more = await bob.put("/actors/hello", json={"actorStandby": {"desiredRequestsPerActorRun": 8}})
    assert more["actorStandby"]["maxRequestsPerActorRun"] == 10
    assert more["actorStandby"]["isEnabled"] is True
    off = await bob.put("/actors/hello", json={"actorStandby": {"isEnabled": False}})
    assert off["standbyUrl"] is None
    assert off["actorStandby"]["desiredRequestsPerActorRun"] == 8


async def test_standby_address_by_id(api: Any) -> None:
    """Where DNS has no room for user and name, the address has the id."""
    user = User(id="U" * 17, username="a" * 30, is_admin=False, created_at=api.clock.now())
    await api.services.state.records.add_user(user)
    caller = await api.caller(user)
    actor = await caller.post("/actors", json={"name": "b" * 60, "actorStandby": {"isEnabled": True}})
    assert actor["standbyUrl"] == f"http://{actor['id'].lower()}.localhost:8010"


async def test_lists(api: Any) -> None:
    """One's own Actors in the order of their creation, in pages with all counters."""
    for name in ("one", "two", "three"):
        await api.bob.post("/actors", json={"name": name})
        api.clock.pass_by(seconds=1)
    await api.eve.post("/actors", json={"name": "hers"})
    listed = await api.bob.get("/actors?desc=1&offset=1&limit=1&my=1")
    assert [item["name"] for item in listed.pop("items")] == ["two"]
    assert listed == {"total": 3, "offset": 1, "limit": 1, "count": 1, "desc": True}
    assert (await api.bob.get("/actors?sortBy=name", 400))["data"]["field"] == "sortBy"


async def test_versions_with_the_actor(bob: Any) -> None:
    """Versions given with an Actor are created, and with an update created or changed."""
    version = {"versionNumber": "0.1", "sourceType": "GIT_REPO", "gitRepoUrl": "https://example.com/a.git"}
    await bob.post("/actors", json={"name": "hello", "versions": [version]})
    other = {"versionNumber": "1.0", "sourceType": "TARBALL", "tarballUrl": "https://example.com/a.tgz"}
    changed = await bob.put("/actors/hello", json={"versions": [other, {"versionNumber": "0.1", "buildTag": "beta"}]})
    assert [(v["versionNumber"], v["buildTag"]) for v in changed["versions"]] == [("0.1", "beta"), ("1.0", "latest")]
    assert changed["versions"][0]["gitRepoUrl"] == "https://example.com/a.git"


async def test_tags_are_moved_and_removed(bob: Any) -> None:
    """A tag can be given to another build of the same Actor, and taken away."""
    await bob.built_actor()
    first = (await bob.get("/actors/hello"))["taggedBuilds"]["latest"]
    await bob.post("/actors/hello/builds?version=0.1&waitForFinish=30")
    moved = await bob.put("/actors/hello", json={"taggedBuilds": {"stable": {"buildId": first["buildId"]}}})
    assert moved["taggedBuilds"]["stable"] == first
    assert moved["taggedBuilds"]["latest"]["buildNumber"] == "0.1.2"
    removed = await bob.put("/actors/hello", json={"taggedBuilds": {"latest": None}})
    assert list(removed["taggedBuilds"]) == ["stable"]
    other = await bob.built_actor("other")
    foreign = (await bob.get(f"/actors/{other['id']}"))["taggedBuilds"]["latest"]["buildId"]
    await bob.put("/actors/hello", 400, json={"taggedBuilds": {"latest": {"buildId": foreign}}})


async def test_figures(api: Any, bob: Any) -> None:
    """The object counts builds and runs."""
    await bob.built_actor()
    await bob.post("/actors/hello/runs")
    stats = (await bob.get("/actors/hello"))["stats"]
    assert (stats["totalBuilds"], stats["totalRuns"]) == (1, 1)
    assert stats["lastRunStartedAt"] == "2026-03-04T05:06:07.890Z"


async def test_delete(api: Any, bob: Any) -> None:
    """A deleted Actor is gone with its builds and their logs; its runs can still be read."""
    await bob.built_actor()
    run = await bob.post("/actors/hello/runs")
    build = (await bob.get("/actor-builds"))["items"][0]["id"]
    await bob.delete("/actors/hello")
    await bob.get("/actors/hello", 404)
    await bob.get(f"/actor-builds/{build}", 404)
    await bob.get(f"/logs/{build}", 404)
    assert (await bob.get(f"/actor-runs/{run['id']}"))["id"] == run["id"]
    await bob.delete("/actors/hello", 404)
    assert (await bob.post("/actors", json={"name": "hello"}))["taggedBuilds"] == {}


async def test_changes_are_signalled(api: Any, bob: Any) -> None:
    """Whoever keeps Actors in mind hears of each change, after it is stored."""
    async with api.services.state.signals.watch_changes() as changes:
        actor = await bob.post("/actors", json={"name": "hello"})
        await bob.put("/actors/hello", json={"title": "x"})
        await bob.delete("/actors/hello")
        heard = [await anext(changes) for _ in range(3)]
    assert {(change.kind, change.id) for change in heard} == {("actor", actor["id"])}
