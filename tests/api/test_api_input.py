"""The input of runs through the API: stored where the Actor reads it, completed and checked where there is a schema."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.core.model import StorageKind
from gateway.input_secrets import KEY_ID, private_key

SCHEMA = {
    "title": "Input",
    "type": "object",
    "schemaVersion": 1,
    "properties": {
        "name": {"title": "Name", "type": "string", "description": "", "editor": "textfield", "minLength": 2},
        "count": {"title": "Count", "type": "integer", "description": "", "default": 3, "minimum": 1},
        "mode": {"title": "Mode", "type": "string", "description": "", "editor": "textfield", "pattern": "^[a-z]+$"},
        "hint": {"title": "Hint", "type": "string", "description": "", "editor": "textfield", "prefill": "never"},
    },
    "required": ["name"],
}


async def built(bob: Any, name: str, **definition: Any) -> Any:
    """An Actor with a build whose ``actor.json`` says *definition*."""
    actor_json = {"actorSpecification": 1, "name": name, "version": "0.1", **definition}
    files = [{"name": ".actor/actor.json", "format": "TEXT", "content": json.dumps(actor_json)}]
    files.append({"name": "Dockerfile", "format": "TEXT", "content": 'FROM python:3.12\nCMD ["python", "main.py"]\n'})
    version = {"versionNumber": "0.1", "sourceType": "SOURCE_FILES", "buildTag": "latest", "sourceFiles": files}
    actor = await bob.post("/actors", json={"name": name, "versions": [version]})
    build = await bob.post(f"/actors/{actor['id']}/builds?version=0.1&waitForFinish=30")
    assert build["status"] == "SUCCEEDED", build
    return actor


@pytest.fixture(autouse=True)
async def actors(bob: Any) -> None:
    """One with a schema, one without."""
    await built(bob, "plain")
    await built(bob, "strict", input=SCHEMA)


async def stored(bob: Any, run: Any) -> Any:
    """The record that the run's Actor reads; None for none."""
    answer = await bob.http.get(f"/v2/key-value-stores/{run['defaultKeyValueStoreId']}/records/INPUT?attachment=true")
    if answer.status_code == 404:
        return None
    assert answer.status_code == 200, answer.text
    return answer.headers["content-type"], answer.content


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        pytest.param("application/json; charset=utf-8", b'{ "a" : 1 }', id="JSON with its blanks"),
        pytest.param("text/csv", b"a,b\n1,2\n", id="no JSON"),
        pytest.param("application/json", b"{broken", id="JSON that is none"),
        pytest.param("image/png", bytes(range(256)) * 200, id="many bytes"),
    ],
)
async def test_without_a_schema_it_is_kept_as_it_came(bob: Any, content_type: str, body: bytes) -> None:
    """Byte by byte, under its content type."""
    run = await bob.post("/actors/plain/runs", content=body, headers={"Content-Type": content_type})
    assert await stored(bob, run) == (content_type, body)
    assert run["stats"]["inputBodyLen"] == len(body)


async def test_no_body_and_no_schema_is_no_input(bob: Any) -> None:
    """So that an SDK's ``get_input`` gives none."""
    assert await stored(bob, await bob.post("/actors/plain/runs")) is None


async def test_a_large_input_is_there_with_its_run(api: Any, bob: Any) -> None:
    """As a blob, which the store counts like any other record."""
    body = json.dumps({"name": "x" * 100_000})
    run = await bob.post("/actors/strict/runs", content=body, headers={"Content-Type": "application/json"})
    record = await api.services.state.storages.record(run["defaultKeyValueStoreId"], "INPUT")
    assert record.blob is not None
    assert json.loads((await stored(bob, run))[1])["name"] == "x" * 100_000
    store = await api.services.state.storages.storage(StorageKind.KEY_VALUE_STORE, run["defaultKeyValueStoreId"])
    assert store.stats["storageBytes"] == record.size


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"name": "ab"}', {"name": "ab", "count": 3}, id="completed, never with a prefill"),
        pytest.param(b'{"name": "\xc3\xa9\xc3\xa9", "count": 5.0}', {"name": "éé", "count": 5.0}, id="5.0 is whole"),
        pytest.param(
            b'{"name": "ab", "more": [null]}', {"name": "ab", "more": [None], "count": 3}, id="more than asked"
        ),
    ],
)
async def test_with_a_schema_it_is_completed(bob: Any, body: bytes, expected: Any) -> None:
    """What is stored is the input with its defaults."""
    headers = {"Content-Type": "application/json; charset=utf-8"}
    content_type, content = await stored(bob, await bob.post("/actors/strict/runs", content=body, headers=headers))
    assert (content_type, json.loads(content)) == ("application/json; charset=utf-8", expected)


JSON = "application/json"


@pytest.mark.parametrize(
    ("content_type", "body", "message", "data"),
    [
        pytest.param(None, b"", "Input is not valid: Field input.name is required", {"field": "name"}, id="nothing"),
        pytest.param(
            JSON, b"null", "Input is not valid: Field input.name is required", {"field": "name"}, id="null counts as {}"
        ),
        pytest.param("text/plain", b"{}", 'Actor input must have content type "application/json".', None, id="type"),
        pytest.param(JSON, b"[]", 'The input JSON must be object, got "array" instead.', None, id="an array"),
        pytest.param(JSON, b'"x"', 'The input JSON must be object, got "string" instead.', None, id="a text"),
        pytest.param(JSON, b"1.5", 'The input JSON must be object, got "number" instead.', None, id="a number"),
        pytest.param(JSON, b"true", 'The input JSON must be object, got "boolean" instead.', None, id="true"),
        pytest.param(
            JSON,
            b'{"name": "a", "count": 0, "mode": "A"}',
            "Input is not valid: Field input.name must NOT have fewer than 2 characters, "
            'Field input.count must be >= 1, Field input.mode must match pattern "^[a-z]+$"',
            {"field": ["name", "count", "mode"]},
            id="all that is wrong",
        ),
    ],
)
async def test_wrong_input_starts_nothing(bob: Any, content_type: Any, body: bytes, message: str, data: Any) -> None:
    """400 with the fields' paths; the dry run says the same."""
    headers = {"Content-Type": content_type} if content_type else {}
    for path in ("/actors/strict/runs", "/actors/strict/validate-input", "/actors/strict/run-sync"):
        error = await bob.post(path, 400, content=body, headers=headers)
        assert error == {"type": "invalid-input", "message": message} | ({"data": data} if data else {})
    assert (await bob.get("/actor-runs"))["total"] == 0


@pytest.mark.parametrize("body", [b"{", b'{"a": NaN}', b'{"a": "\\ud800"}', b"\xff", b"[" * 100_000])
async def test_what_is_no_json_starts_nothing(bob: Any, body: bytes) -> None:
    """Told as such, with the parser's reason."""
    error = await bob.post("/actors/strict/runs", 400, content=body, headers={"Content-Type": JSON})
    assert error["type"] == "invalid-input"
    assert error["message"].startswith("Cannot parse input JSON body: ")
    assert (await bob.get("/actor-runs"))["total"] == 0


async def test_validate_input(bob: Any) -> None:
    """A dry run answers bare; without a schema all is valid; the build may be chosen."""
    answer = await bob.http.post("/v2/actors/strict/validate-input", json={"name": "ab"})
    assert (answer.status_code, answer.json()) == (200, {"valid": True})
    assert (await bob.http.post("/v2/actors/plain/validate-input", content=b"x")).json() == {"valid": True}
    assert (await bob.post("/actors/strict/validate-input?build=none", 400))["type"] == "unknown-build-tag"
    await bob.post("/actors/unknown/validate-input", 404)
    assert (await bob.get("/actor-runs"))["total"] == 0


async def test_others_may_validate_only_what_they_may_run(api: Any, bob: Any) -> None:
    """A private Actor does not exist for them."""
    await api.eve.post("/actors/bob~strict/validate-input", 404, json={"name": "ab"})
    await bob.put("/actors/strict", json={"isPublic": True})
    answer = await api.eve.http.post("/v2/actors/bob~strict/validate-input", json={"name": "ab"})
    assert answer.json() == {"valid": True}


@pytest.mark.timeout(60)
async def test_a_slow_pattern_does_not_hold_up_others(bob: Any) -> None:
    """The Actor's pattern and a caller's text that go badly together are given up; others are served meanwhile."""
    await built(bob, "slow", input={"type": "object", "properties": {"t": {"type": "string", "pattern": "^(a|a)*$"}}})
    others = 0
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(bob.post("/actors/slow/validate-input", 400, json={"t": "a" * 60 + "!"}))
        while not slow.done():
            await bob.get("/actor-runs")
            others += 1
    assert "too long" in slow.result()["message"]
    assert others > 5  # one that had been held up would have been the last


async def test_a_schema_that_is_none_starts_nothing(bob: Any) -> None:
    """The Actor's author must mend it; the caller is told."""
    await built(bob, "wrong", input={"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}})
    error = await bob.post("/actors/wrong/runs", 400, json={})
    assert error["type"] == "invalid-input-schema"
    assert error["message"].startswith("Input schema is not valid: schema.properties.a.pattern")
    assert (await bob.get("/actor-runs"))["total"] == 0


async def test_too_large_an_input(bob: Any, api: Any) -> None:
    """413, also where it only unpacks to so much; an encoding that nobody knows is 415."""
    limit = api.services.settings.max_api_body_bytes
    await bob.post("/actors/plain/runs", 413, content=b"x" * (limit + 1))
    await bob.post("/actors/plain/runs", 415, content=b"x", headers={"Content-Encoding": "zip"})
    assert (await bob.get("/actor-runs"))["total"] == 0


async def test_declared_datasets_are_made_with_the_run(api: Any, bob: Any) -> None:
    """One for each alias beside the default one; the run's view names them all, and they go with the run."""
    await built(bob, "many", storages={"datasets": {"default": {}, "products": {}, "reviews": {}}})
    run = await bob.post("/actors/many/runs")
    datasets = run["storageIds"]["datasets"]
    assert list(datasets) == ["default", "products", "reviews"]
    assert datasets["default"] == run["defaultDatasetId"]
    assert len(set(datasets.values())) == 3
    itself = await api.run_itself(run)
    for dataset_id in datasets.values():
        assert (await itself.get(f"/datasets/{dataset_id}"))["actRunId"] == run["id"]
    await api.finish(run)
    await bob.delete(f"/actor-runs/{run['id']}")
    await bob.get(f"/datasets/{datasets['products']}", 404)


async def test_secret_fields_are_stored_encrypted(api: Any, bob: Any) -> None:
    """Checked in plain, kept unreadable; the run alone knows the key, and the dry run makes none."""
    secret = {"type": "string", "editor": "textfield", "isSecret": True, "minLength": 5}
    await built(bob, "secretive", input={"type": "object", "properties": {"password": secret}})
    answer = await bob.http.post("/v2/actors/secretive/validate-input", json={"password": "hunter22"})
    assert answer.status_code == 200
    assert not [*api.services.settings.data.glob("blobs/input-keys/*")]
    assert (await bob.post("/actors/secretive/runs", 400, json={"password": "x"}))["type"] == "invalid-input"
    run = await bob.post("/actors/secretive/runs", json={"password": "hunter22"})
    _, content = await stored(bob, run)
    assert json.loads(content)["password"].startswith("ENCRYPTED_VALUE:")
    record = await api.services.state.records.run(run["id"])
    assert await private_key(api.services.state.blobs, api.services.box, record) is not None
    assert KEY_ID not in run["meta"]
