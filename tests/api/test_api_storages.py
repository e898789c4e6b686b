"""Storages as such: opened, listed, changed and deleted, by their owner and by runs, as the real client reads them."""

from __future__ import annotations

from typing import Any

import pytest
from apify_client import _models as models
from pydantic import BaseModel

from gateway.core.ids import ID_PATTERN
from gateway.core.model import StorageKind
from gateway.core.signed_urls import is_storage_signature
from gateway.core.storages import KeyValueRecord
from gateway.state.ports import StateUnavailable

KINDS = {
    "key-value-stores": StorageKind.KEY_VALUE_STORE,
    "datasets": StorageKind.DATASET,
    "request-queues": StorageKind.REQUEST_QUEUE,
}
ONE: dict[str, type[BaseModel]] = {
    "key-value-stores": models.KeyValueStoreResponse,
    "datasets": models.DatasetResponse,
    "request-queues": models.RequestQueueResponse,
}
MANY: dict[str, type[BaseModel]] = {
    "key-value-stores": models.ListOfKeyValueStoresResponse,
    "datasets": models.ListOfDatasetsResponse,
    "request-queues": models.ListOfRequestQueuesResponse,
}
DEFAULT_IDS = {
    "key-value-stores": ("key-value-store", "defaultKeyValueStoreId"),
    "datasets": ("dataset", "defaultDatasetId"),
    "request-queues": ("request-queue", "defaultRequestQueueId"),
}

every_kind = pytest.mark.parametrize("kind", list(KINDS))


def parsed(kind: str, view: Any) -> Any:
    """What the official client makes of one storage; it refuses one that lacks a required field."""
    return ONE[kind].model_validate({"data": view}).data  # type: ignore[attr-defined]


@every_kind
async def test_open_by_name(api: Any, bob: Any, kind: str) -> None:
    """The first call makes it, later ones find it, in any letter case; all views are the same and complete."""
    made = await bob.post(f"/{kind}?name=My-Store")
    assert ID_PATTERN.fullmatch(made["id"])
    parsed(kind, made)
    assert (made["name"], made["userId"], made["username"]) == ("My-Store", bob.user.id, "bob")
    assert (made["actId"], made["actRunId"]) == (None, None)
    assert made["createdAt"] == made["modifiedAt"] == made["accessedAt"] == "2026-03-04T05:06:07.890Z"
    api.clock.pass_by(minutes=1)
    assert await bob.post(f"/{kind}?name=my-store", 200) == made
    for reference in (made["id"], "My-Store", "my-store", "~my-store", "bob~My-Store"):
        assert await bob.get(f"/{kind}/{reference}") == made


@every_kind
async def test_empty_ones_count_zero(bob: Any, kind: str) -> None:
    """What nothing was done with shows every counter that clients read, at zero."""
    view = await bob.post(f"/{kind}")
    assert set(view["stats"].values()) == {0}
    counters = {
        "key-value-stores": {},
        "datasets": {"itemCount": 0, "cleanItemCount": 0},
        "request-queues": {
            "totalRequestCount": 0,
            "handledRequestCount": 0,
            "pendingRequestCount": 0,
            "hadMultipleClients": False,
        },
    }[kind]
    assert view | counters == view


@every_kind
async def test_without_a_name(bob: Any, kind: str) -> None:
    """Each call makes a new one, which has no name."""
    first, second = await bob.post(f"/{kind}"), await bob.post(f"/{kind}?name=")
    assert first["id"] != second["id"]
    assert first["name"] is second["name"] is None


@every_kind
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"headers": {"Content-Type": "application/x-www-form-urlencoded"}}, id="JavaScript: no body"),
        pytest.param({"json": {}}, id="Python: an empty object"),
        pytest.param({"json": {"schema": {"actorSpecification": 1}}}, id="Python: with a schema"),
        pytest.param({"json": {"schema": None}}, id="a schema that is null"),
    ],
)
async def test_bodies_of_clients(bob: Any, kind: str, options: Any) -> None:
    """What both clients send along is fine."""
    made = await bob.post(f"/{kind}?name=store", **options)
    assert (await bob.post(f"/{kind}?name=store", 200, **options))["id"] == made["id"]


@every_kind
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"params": {"name": "-store"}}, id="a hyphen first"),
        pytest.param({"params": {"name": "store-"}}, id="a hyphen last"),
        pytest.param({"params": {"name": "my store"}}, id="a space"),
        pytest.param({"params": {"name": "../store"}}, id="a path"),
        pytest.param({"params": {"name": "bob~store"}}, id="another's"),
        pytest.param({"params": {"name": "störe"}}, id="no ASCII"),
        pytest.param({"params": {"name": "x" * 64}}, id="too long"),
        pytest.param({"content": b"[]"}, id="a list for a body"),
        pytest.param({"content": b"{"}, id="half a body"),
        pytest.param({"json": {"schema": "text"}}, id="a text for a schema"),
    ],
)
async def test_bad_opening(bob: Any, kind: str, options: Any) -> None:
    """What can't be a storage is refused, and none is made."""
    assert (await bob.post(f"/{kind}", 400, **options))["type"] == "invalid-request"
    assert (await bob.get(f"/{kind}?unnamed=1"))["total"] == 0


@every_kind
async def test_lists(api: Any, bob: Any, kind: str) -> None:
    """The named ones in order, all of them where that is asked for; one without a name shows its id."""
    ids = []
    for name in ("b", "", "a", "c"):
        ids.append((await bob.post(f"/{kind}?name={name}"))["id"])
        api.clock.pass_by(seconds=1)
    await api.eve.post(f"/{kind}?name=hers")

    async def listed(query: str) -> list[str]:
        data = await bob.get(f"/{kind}?{query}")
        page = MANY[kind].model_validate({"data": data}).data  # type: ignore[attr-defined]
        assert page.count == len(page.items)
        return [item.name for item in page.items]

    assert await listed("") == ["b", "a", "c"]
    assert await listed("desc=1") == ["c", "a", "b"]
    assert await listed("offset=1&limit=1&desc=false") == ["a"]
    assert await listed("ownership=ownedByMe") == ["b", "a", "c"]
    assert await listed("ownership=sharedWithMe") == []
    assert await listed("unnamed=true") == ["b", ids[1], "a", "c"]
    assert (await bob.get(f"/{kind}?unnamed=1&limit=2"))["total"] == 4


@every_kind
@pytest.mark.parametrize("query", ["ownership=others", "limit=x", "offset=-1", "desc=maybe", "unnamed=2"])
async def test_bad_lists(bob: Any, kind: str, query: str) -> None:
    """A question that makes no sense is refused."""
    assert (await bob.get(f"/{kind}?{query}", 400))["type"] == "invalid-request"


@every_kind
async def test_changes(api: Any, bob: Any, kind: str) -> None:
    """What a change names is changed, the rest stays; the old name is free again."""
    made = await bob.post(f"/{kind}")
    api.clock.pass_by(minutes=1)
    named = await bob.put(f"/{kind}/{made['id']}", json={"name": "kept", "unknown": 1})
    assert (named["name"], named["title"]) == ("kept", None)
    assert named["modifiedAt"] == "2026-03-04T05:07:07.890Z"
    access = {"title": "For all", "generalAccess": "ANYONE_WITH_ID_CAN_READ"}
    changed = await bob.put(f"/{kind}/kept", json=access)
    parsed(kind, changed)
    assert changed | access | {"name": "kept"} == changed
    assert (await bob.put(f"/{kind}/kept", json={"name": "other", "title": None}))["title"] is None
    assert (await bob.get(f"/{kind}/kept", 404))["type"] == "record-not-found"
    assert (await bob.post(f"/{kind}?name=kept"))["id"] != made["id"]


@every_kind
async def test_changes_of_nothing(api: Any, bob: Any, kind: str) -> None:
    """An empty change is none, and null leaves what must have a value."""
    made = await bob.post(f"/{kind}?name=store")
    api.clock.pass_by(minutes=1)
    for body in ({}, {"name": None}, {"generalAccess": None}):
        assert await bob.put(f"/{kind}/store", json=body) == made


@every_kind
@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        pytest.param({"name": "TAKEN"}, 409, "name-not-unique", id="a name that is taken, in any letter case"),
        pytest.param({"name": ""}, 400, "invalid-request", id="an empty name"),
        pytest.param({"name": "a/b"}, 400, "invalid-request", id="a path"),
        pytest.param({"name": 5}, 400, "invalid-request", id="a number for a name"),
        pytest.param({"name": "new", "title": "x" * 501}, 400, "invalid-request", id="too long a title"),
        pytest.param({"name": "new", "generalAccess": "ALL"}, 400, "invalid-request", id="unknown access"),
        pytest.param([], 400, "invalid-request", id="a list"),
    ],
)
async def test_bad_changes(bob: Any, kind: str, body: Any, status: int, error: str) -> None:
    """A bad change is refused as a whole."""
    await bob.post(f"/{kind}?name=taken")
    made = await bob.post(f"/{kind}?name=store")
    assert (await bob.put(f"/{kind}/store", status, json=body))["type"] == error
    assert await bob.get(f"/{kind}/store") == made


@every_kind
async def test_delete(bob: Any, kind: str) -> None:
    """It is gone, and deleting it again finds nothing."""
    made = await bob.post(f"/{kind}?name=store")
    assert await bob.delete(f"/{kind}/store") is None
    for method in ("GET", "PUT", "DELETE"):
        assert (await bob.ask(method, f"/{kind}/{made['id']}", 404))["type"] == "record-not-found"
    assert (await bob.get(f"/{kind}"))["total"] == 0


@pytest.mark.parametrize("blobs_work", [True, False])
async def test_values_go_with_their_store(api: Any, bob: Any, monkeypatch: Any, blobs_work: bool) -> None:
    """Large values are deleted too; where they can't be, the store is gone all the same and nobody hears a 5xx."""
    state = api.services.state
    store = await bob.post("/key-value-stores")
    await state.blobs.put("values/large", b"x" * 20_000)
    record = KeyValueRecord(
        store_id=store["id"],
        key="LARGE",
        content_type="text/plain",
        size=20_000,
        modified_at=api.clock.now(),
        blob="values/large",
    )
    await state.storages.put_record(record)

    async def refuse(_key: str) -> None:
        raise StateUnavailable("the disk is full")

    if not blobs_work:
        monkeypatch.setattr(type(state.blobs), "delete", lambda _self, key: refuse(key))
    await bob.delete(f"/key-value-stores/{store['id']}")
    await bob.get(f"/key-value-stores/{store['id']}", 404)
    assert (await state.blobs.size("values/large") is None) == blobs_work


async def _run(bob: Any, name: str = "hello") -> Any:
    await bob.built_actor(name)
    return await bob.post(f"/actors/{name}/runs")


@every_kind
async def test_whose_it_is(api: Any, bob: Any, kind: str) -> None:
    """What belongs to somebody else looks like what is not there; the same name can be had by both."""
    made = await bob.post(f"/{kind}?name=store")
    for method in ("GET", "PUT", "DELETE"):
        for reference in (made["id"], "store", "bob~store"):
            refused = await api.eve.ask(
                method, f"/{kind}/{reference}", 404, **({"json": {}} if method == "PUT" else {})
            )
            assert refused["type"] == "record-not-found"
    assert (await api.eve.post(f"/{kind}?name=store"))["id"] != made["id"]
    assert await bob.get(f"/{kind}/store") == made


@every_kind
async def test_scopes(api: Any, bob: Any, kind: str) -> None:
    """Who may only read can't make, change or delete, and doesn't get the secret that opens a storage for ever."""
    made = await bob.post(f"/{kind}?name=store")
    reader = await api.caller(bob.user, frozenset({"storages:read"}))
    seen = await reader.get(f"/{kind}/store")
    parsed(kind, seen)
    assert "urlSigningSecretKey" not in seen
    assert not any("signature=" in str(value) for value in seen.values())
    for method, path in (("POST", f"/{kind}?name=new"), ("PUT", f"/{kind}/store"), ("DELETE", f"/{kind}/store")):
        assert (await reader.ask(method, path, 403))["type"] == "insufficient-permissions"
    stranger = await api.caller(bob.user, frozenset({"actors:read"}))
    for path in (f"/{kind}", f"/{kind}/store"):
        assert (await stranger.get(path, 403))["type"] == "insufficient-permissions"
    assert await bob.get(f"/{kind}/store") == made


@pytest.mark.parametrize(("kind", "part"), [("key-value-stores", "keys"), ("datasets", "items")])
async def test_public_addresses(bob: Any, kind: str, part: str) -> None:
    """They are absolute, and signed with the secret that is shown beside them, so that clients can make more."""
    made = await bob.post(f"/{kind}?name=store")
    base, _, signature = made[f"{part}PublicUrl"].partition("?signature=")
    assert base == f"http://localhost:8010/v2/{kind}/{made['id']}/{part}"
    assert is_storage_signature(signature, made["urlSigningSecretKey"], made["id"], now_ms=0)
    assert made["consoleUrl"] == f"http://console.localhost:8010/storage/{kind}/{made['id']}"
    other = await bob.post(f"/{kind}?name=other")
    assert other["urlSigningSecretKey"] != made["urlSigningSecretKey"]


@every_kind
async def test_what_a_run_makes(api: Any, bob: Any, kind: str) -> None:
    """It is known whose it is; the run, later ones of its Actor and its owner may use it, other Actors may not."""
    first = await _run(bob)
    run = await api.run_itself(first)
    made = await run.post(f"/{kind}?name=store")
    parsed(kind, made)
    assert (made["actId"], made["actRunId"], made["userId"]) == (first["actId"], first["id"], bob.user.id)
    assert await run.post(f"/{kind}?name=store", 200) == made == await run.get(f"/{kind}/store")
    later = await api.run_itself(await bob.post("/actors/hello/runs"))
    assert await later.post(f"/{kind}?name=store", 200) == made
    assert await later.put(f"/{kind}/store", json={}) == made
    assert await bob.get(f"/{kind}/store") == made
    other = await api.run_itself(await _run(bob, "other"))
    for method, path in (
        ("POST", f"/{kind}?name=store"),
        ("GET", f"/{kind}/store"),
        ("PUT", f"/{kind}/store"),
        ("DELETE", f"/{kind}/store"),
    ):
        refused = await other.ask(method, path, 403)
        assert refused["type"] == "insufficient-permissions"
        assert "made by neither this Actor nor a run that it started" in refused["message"]
    assert (await other.get(f"/{kind}", 403))["type"] == "insufficient-permissions"


@every_kind
async def test_a_name_of_the_owners(api: Any, bob: Any, kind: str) -> None:
    """A run that asks for a name under which its owner keeps something is told what to do, and changes nothing."""
    made = await bob.post(f"/{kind}?name=private")
    run = await api.run_itself(await _run(bob))
    refused = await run.post(f"/{kind}?name=private", 403)
    assert refused["type"] == "insufficient-permissions"
    assert "another name" in refused["message"]
    assert await bob.get(f"/{kind}/private") == made


@every_kind
async def test_default_storages(api: Any, bob: Any, kind: str) -> None:
    """They are there before the run starts, for it and its owner, under all their addresses."""
    of_run, field = DEFAULT_IDS[kind]
    started = await _run(bob)
    run = await api.run_itself(started)
    shown = await bob.get(f"/{kind}/{started[field]}")
    parsed(kind, shown)
    assert (shown["actId"], shown["actRunId"], shown["name"]) == (started["actId"], started["id"], None)
    for path in (
        f"/{kind}/{started[field]}",
        f"/actor-runs/{started['id']}/{of_run}",
        f"/actors/hello/runs/{started['id']}/{of_run}",
        "/actors/hello/runs/last/" + of_run,
        f"/acts/bob~hello/runs/last/{of_run}?status=READY",
    ):
        assert await bob.get(path) == shown
        assert await run.get(path) == shown
        await api.eve.get(path, 404)
    named = await run.put(f"/actor-runs/{started['id']}/{of_run}", json={"name": "kept"})
    assert (await bob.get(f"/{kind}/kept")) == named
    await bob.delete(f"/actors/hello/runs/last/{of_run}")
    assert (await run.get(f"/actor-runs/{started['id']}/{of_run}", 404))["type"] == "record-not-found"


@every_kind
@pytest.mark.parametrize("reference", ["nothing", "A" * 17, "~nothing", "nobody~store", "a b", "%00", "..%2F..", "~"])
async def test_no_such_storage(bob: Any, kind: str, reference: str) -> None:
    """JavaScript's SDK looks a name up before it makes it: whatever it is, it is not found, in the words it knows."""
    assert (await bob.get(f"/{kind}/{reference}", 404))["type"] in {"record-not-found", "page-not-found"}
