"""What people do with runs every day, by the official Python client, against a real server and a plain Actor."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from apify_client import ApifyClientAsync
from apify_client.errors import ApifyApiError
from journeys.greenroom import TOKEN, Greenroom, actor_folder, eventually

pytestmark = pytest.mark.slow

# Does what its input says, by plain HTTP.
PROGRAM = """
import json, os, sys, time, urllib.error, urllib.request

def call(method, path, body=None):
    request = urllib.request.Request(os.environ["APIFY_API_BASE_URL"] + "/v2" + path, method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Bearer " + os.environ["APIFY_TOKEN"], "Content-Type": "application/json"})
    return urllib.request.urlopen(request)

store = "/key-value-stores/" + os.environ["ACTOR_DEFAULT_KEY_VALUE_STORE_ID"]
try:
    given = json.load(call("GET", store + "/records/" + os.environ["ACTOR_INPUT_KEY"]))
except urllib.error.HTTPError as error:
    assert error.code == 404, error
    given = {}
print("given:", json.dumps(given), flush=True)
for n in range(given.get("items", 0)):
    call("POST", "/datasets/" + os.environ["ACTOR_DEFAULT_DATASET_ID"] + "/items", {"n": n})
if "output" in given:
    call("PUT", store + "/records/OUTPUT", given["output"])
time.sleep(given.get("secs", 0))
print("done", flush=True)
sys.exit(given.get("code", 0))
"""
SCHEMA = {
    "title": "Work",
    "type": "object",
    "schemaVersion": 1,
    "properties": {
        "items": {"title": "Items", "type": "integer", "description": "How many", "minimum": 0, "default": 2},
        "code": {"title": "Code", "type": "integer", "description": "Exit code"},
        "secs": {"title": "Seconds", "type": "number", "description": "To wait"},
        "output": {"title": "Output", "type": "object", "description": "Any", "editor": "json"},
    },
}
SOON = timedelta(seconds=30)


@pytest.fixture
async def greenroom(tmp_path: Path) -> AsyncIterator[Greenroom]:
    actors = tmp_path / "actors"
    actor_folder(actors, "works", {"isEnabled": False}, main=PROGRAM, input=SCHEMA)
    actor_folder(actors, "schemaless", {"isEnabled": False}, main=PROGRAM)
    async with Greenroom(tmp_path / "data", (actors,), {"run_sync_timeout_secs": 2}) as running:
        yield running


@pytest.fixture
def client(greenroom: Greenroom) -> ApifyClientAsync:
    """The async client, told not to repeat itself, so that nothing is hidden."""
    return ApifyClientAsync(TOKEN, api_url=f"http://127.0.0.1:{greenroom.port}", max_retries=0)


@pytest.mark.slow
async def test_call_and_read_back(client: ApifyClientAsync, caplog: Any) -> None:
    """``call`` waits to the end and prints the run's log; items, output, input and keys are read back."""
    caplog.set_level(logging.INFO)
    actor = client.actor("local/works")
    run = await actor.call(
        run_input={"output": {"a": "ü"}, "secs": 1},
        memory_mbytes=256,
        wait_duration=SOON,
        logger=logging.getLogger("of the run"),
    )
    assert run is not None
    assert (run.status, run.exit_code, run.options.memory_mbytes) == ("SUCCEEDED", 0, 256)
    assert any('given: {"output": {"a": "' in line for line in caplog.messages), "the log is redirected"
    items = await client.dataset(run.default_dataset_id).list_items()
    assert items.items == [{"n": 0}, {"n": 1}], "the schema's default holds"
    store = client.key_value_store(run.default_key_value_store_id)
    output, given = await store.get_record("OUTPUT"), await store.get_record("INPUT")
    assert output is not None
    assert given is not None
    assert output["value"] == {"a": "ü"}
    assert given["value"] == {"output": {"a": "ü"}, "secs": 1, "items": 2}
    assert [key.key for key in (await store.list_keys()).items] == ["INPUT", "OUTPUT"]


async def test_last_run(client: ApifyClientAsync) -> None:
    """``last_run`` and what hangs below it; by status and origin."""
    actor = client.actor("local/works")
    good = await actor.call(run_input={"items": 1}, wait_duration=SOON, logger=None)
    bad = await actor.call(run_input={"items": 3, "code": 4}, wait_duration=SOON, logger=None)
    assert good is not None
    assert bad is not None
    assert (bad.status, bad.exit_code) == ("FAILED", 4)
    assert (await actor.last_run().get()).id == bad.id
    assert (await actor.last_run(status="SUCCEEDED").get()).id == good.id
    assert (await actor.last_run(origin="API").get()).id == bad.id
    assert await actor.last_run(origin="STANDBY").get() is None
    assert len((await actor.last_run().dataset().list_items()).items) == 3
    assert len((await actor.last_run(status="SUCCEEDED").dataset().list_items()).items) == 1
    assert (await actor.last_run().key_value_store().get_record("INPUT"))["value"]["code"] == 4
    assert "done" in await actor.last_run().log().get()
    assert (await client.runs().list(limit=1, desc=True)).items[0].id == bad.id


async def test_wait_is_held_and_clamped(client: ApifyClientAsync, greenroom: Greenroom) -> None:
    """``waitForFinish`` holds the call until the run's end, also when it asks for a million seconds."""
    run = await client.actor("local/works").start(run_input={"secs": 1.5})
    began = time.monotonic()
    answered = await greenroom.data_of("GET", f"/actor-runs/{run.id}?waitForFinish=999999")
    held_secs = time.monotonic() - began
    assert answered["status"] == "SUCCEEDED"
    assert 0.5 < held_secs < 10


async def test_abort(client: ApifyClientAsync) -> None:
    """At once, and gracefully; a run that has ended is returned as it is."""
    for gracefully in (False, True):
        run = await client.actor("local/works").start(run_input={"secs": 100})
        aborted = await client.run(run.id).abort(gracefully=gracefully)
        assert aborted.status == "ABORTING"
        ended = await client.run(run.id).wait_for_finish(wait_duration=SOON)
        assert ended.status == "ABORTED"
        assert (await client.run(run.id).abort()).status == "ABORTED"


@pytest.mark.slow
async def test_logs_are_followed(client: ApifyClientAsync) -> None:
    """A followed log comes line by line while the run lives, and ends with it."""
    run = await client.actor("local/works").start(run_input={"secs": 2})
    came: list[tuple[float, str]] = []
    async with client.run(run.id).log().stream(raw=True) as stream:
        async for chunk in stream.aiter_bytes():
            came.append((time.monotonic(), chunk.decode()))
    text = "".join(part for _, part in came)
    assert text.index("given:") < text.index("done")
    first = next(at for at, part in came if "given:" in part)
    last = next(at for at, part in came if "done" in part)
    assert last - first > 1, "it was sent while the run lived"
    assert (await client.log("AAAAAAAAAAAAAAAAA").get()) is None


@pytest.mark.parametrize(
    ("body", "content_type", "message", "field"),
    [
        ('{"items": "many"}', "application/json", "Input is not valid: Field input.items must be integer", "items"),
        ('{"items": -1}', "application/json", "Input is not valid: Field input.items must be >= 0", "items"),
        ("[1]", "application/json", 'The input JSON must be object, got "array" instead.', None),
        ("{", "application/json", "Cannot parse input JSON body", None),
        ("items=1", "text/plain", 'Actor input must have content type "application/json".', None),
    ],
)
async def test_wrong_input(
    client: ApifyClientAsync, greenroom: Greenroom, body: str, content_type: str, message: str, field: str | None
) -> None:
    """400 ``invalid-input`` with the field, and nothing is started; the dry run says the same."""
    for path in ("runs", "run-sync", "run-sync-get-dataset-items", "validate-input"):
        answer = await greenroom.api(
            "POST", f"/actors/works/{path}", content=body, headers={"Content-Type": content_type}
        )
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (400, "invalid-input")
        assert error["message"].startswith(message), error
        if field is not None:
            assert field in str(error["data"]), error
    assert await greenroom.runs() == []
    assert await client.actor("local/works").validate_input({"items": 5}) is True


@pytest.mark.slow
async def test_run_sync(greenroom: Greenroom) -> None:
    """One call is start, wait and result: the output record, or the items; a failure and a slow one are told."""

    async def sync(path: str, given: Any) -> Any:
        return await greenroom.api("POST", f"/acts/works/{path}", json=given)

    answer = await sync("run-sync", {"output": {"x": 1}})
    assert (answer.status_code, answer.json()) == (201, {"x": 1}), answer.text
    assert answer.headers["content-type"].startswith("application/json")
    answer = await sync("run-sync-get-dataset-items?limit=2&desc=1", {"items": 3})
    assert (answer.status_code, answer.json()) == (201, [{"n": 2}, {"n": 1}]), answer.text
    assert answer.headers["x-apify-pagination-total"] == "3"
    answer = await sync("run-sync", {"code": 7})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "run-failed")
    answer = await sync("run-sync", {"secs": 60})
    assert (answer.status_code, answer.json()["error"]["type"]) == (408, "run-timeout-exceeded")
    lasting = [run for run in await greenroom.runs() if run["status"] == "RUNNING"]
    assert len(lasting) == 1, "whoever waited too long has not ended the run"
    assert lasting[0]["id"] in answer.text
    answer = await greenroom.api("GET", "/acts/works/run-sync-get-dataset-items?format=csv")
    assert (answer.status_code, answer.text.lstrip("\ufeff").split()) == (200, ["n", "0", "1"])


async def test_without_a_schema_a_body_is_kept_byte_for_byte(client: ApifyClientAsync, greenroom: Greenroom) -> None:
    """No schema: any body with its content type is the input; none is no record."""
    body = b'{"items":1,   "odd": "\xc3\xbc"}'
    answer = await greenroom.api(
        "POST", "/acts/schemaless/runs", content=body, headers={"Content-Type": "application/json; charset=utf-8"}
    )
    run = await greenroom.ended(answer.json()["data"]["id"])
    record = await greenroom.api("GET", f"/actor-runs/{run['id']}/key-value-store/records/INPUT")
    assert record.content == body
    assert record.headers["content-type"] == "application/json; charset=utf-8"
    bare = await greenroom.ended((await greenroom.data_of("POST", "/acts/schemaless/runs"))["id"])
    assert await client.key_value_store(bare["defaultKeyValueStoreId"]).get_record("INPUT") is None


async def test_what_is_not_there(client: ApifyClientAsync) -> None:
    """What does not exist is None for the client, whatever it is."""
    nothing = "AAAAAAAAAAAAAAAAA"
    assert await client.actor("local/nobody").get() is None
    assert await client.run(nothing).get() is None
    assert await client.build(nothing).get() is None
    assert await client.dataset(nothing).get() is None
    assert await client.run(nothing).wait_for_finish(wait_duration=timedelta(seconds=1)) is None
    with pytest.raises(ApifyApiError):
        await client.actor("local/nobody").start()


async def test_delete(client: ApifyClientAsync, greenroom: Greenroom) -> None:
    """A finished run goes with its storages; a running one can't."""
    run = await client.actor("local/works").start(run_input={"secs": 30})
    with pytest.raises(ApifyApiError) as refused:
        await client.run(run.id).delete()
    assert refused.value.type == "cannot-remove-running-run"
    await client.run(run.id).abort()

    async def has_ended() -> bool:
        return (await client.run(run.id).get()).status == "ABORTED"

    await eventually(has_ended)
    await client.run(run.id).delete()
    assert await client.run(run.id).get() is None
    for kind, storage_id in (
        ("datasets", run.default_dataset_id),
        ("key-value-stores", run.default_key_value_store_id),
        ("request-queues", run.default_request_queue_id),
    ):
        assert (await greenroom.api("GET", f"/{kind}/{storage_id}")).status_code == 404
