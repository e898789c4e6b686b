"""A whole Greenroom moves from its data folder to PostgreSQL and S3, and back: to a client nothing has changed."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import postgres_server
import pytest
import s3_server
from apify_client import ApifyClientAsync
from journeys.greenroom import TOKEN, Greenroom, actor_folder

pytestmark = pytest.mark.slow

# Keeps what it was given, by plain HTTP, and tells what its secret is.
PROGRAM = """
import json, os, urllib.request

def call(method, path, body):
    request = urllib.request.Request(os.environ["APIFY_API_BASE_URL"] + "/v2" + path, method=method,
        data=json.dumps(body).encode(),
        headers={"Authorization": "Bearer " + os.environ["APIFY_TOKEN"], "Content-Type": "application/json"})
    return urllib.request.urlopen(request)

for n in range(3):
    call("POST", "/datasets/" + os.environ["ACTOR_DEFAULT_DATASET_ID"] + "/items", {"n": n})
store = "/key-value-stores/" + os.environ["ACTOR_DEFAULT_KEY_VALUE_STORE_ID"]
leaked = [name for name, value in os.environ.items() if "secret-of" in value]
call("PUT", store + "/records/OUTPUT", {"secret": os.environ.get("SECRET_WORD"), "leaked": leaked})
print("done", flush=True)
"""
LARGE = bytes(range(256)) * 12_000  # about 3 MB


@pytest.fixture(scope="module")
def postgres() -> Iterator[postgres_server.PostgresServer]:
    """A server for the tests of this file."""
    with postgres_server.running() as server:
        yield server


@pytest.fixture(scope="module")
def s3() -> Iterator[s3_server.S3Server]:
    """Likewise."""
    with s3_server.running() as server:
        yield server


@pytest.fixture
def stores(postgres: postgres_server.PostgresServer, s3: s3_server.S3Server) -> dict[str, str]:
    """The variables that name an empty database and an empty bucket."""
    return {
        "GREENROOM_RECORDS_URL": postgres.url(postgres.create_database()),
        "GREENROOM_BLOBS_URL": s3.url(s3.create_bucket(), "/greenroom"),
        **s3_server.KEYS,
    }


async def db(data: Path, *words: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """``greenroom db WORDS`` on *data*: its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", "db", *words, "--data", str(data)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"GREENROOM_CONFIG": os.devnull, **(environment or {})},
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def fill(greenroom: Greenroom, work: Path) -> str:
    """Actors, builds, runs, two users and storages of all kinds; the second user's token."""
    second = await greenroom.user("jane")
    actor = await greenroom.push(actor_folder(work, "works", {"isEnabled": False}, main=PROGRAM))
    await greenroom.probe("standby")
    version = f"/actors/{actor['id']}/versions/{actor['versions'][0]['versionNumber']}"
    secret = {"name": "SECRET_WORD", "value": "swordfish", "isSecret": True}
    await greenroom.data_of("POST", f"{version}/env-vars", json=secret)
    again = f"/actors/{actor['id']}/builds?version={actor['versions'][0]['versionNumber']}&tag=latest&waitForFinish=60"
    assert (await greenroom.data_of("POST", again))["status"] == "SUCCEEDED"
    for token in (TOKEN, second):
        client = ApifyClientAsync(token, api_url=f"http://127.0.0.1:{greenroom.port}", max_retries=0)
        dataset = client.dataset((await client.datasets().get_or_create(name="results")).id)
        await dataset.push_items([{"n": n, "float": 0.1, "text": "ü😀", "none": None} for n in range(300)])
        store = client.key_value_store((await client.key_value_stores().get_or_create(name="state")).id)
        await store.set_record("small", {"a": [1, 2.5, "x"]})
        await store.set_record("large", LARGE, content_type="application/octet-stream")
        queue_id = (await client.request_queues().get_or_create(name="todo")).id
        queue: Any = client.request_queue(queue_id, client_key="c1")
        for number in range(5):
            url = f"https://a.com/{number}"
            await queue.add_request({"unique_key": url, "url": url}, forefront=number == 3)
        await queue.list_and_lock_head(lock_duration=timedelta(hours=1), limit=2)
    client = ApifyClientAsync(TOKEN, api_url=f"http://127.0.0.1:{greenroom.port}", max_retries=0)
    run = await client.actor(actor["id"]).call()
    assert run is not None
    assert run.status == "SUCCEEDED"
    output = await client.key_value_store(run.default_key_value_store_id).get_record("OUTPUT")
    assert output is not None
    assert output["value"] == {"secret": "swordfish", "leaked": []}
    assert (await greenroom.call("standby")).status_code == 200
    return second


async def seen(greenroom: Greenroom, token: str) -> dict[str, Any]:
    """All that a client of this user can see, without the times of being looked at."""
    client = ApifyClientAsync(token, api_url=f"http://127.0.0.1:{greenroom.port}", max_retries=0)
    found: dict[str, Any] = {"me": await client.user().get()}
    for actor in (await client.actors().list(my=True)).items:
        one = client.actor(actor.id)
        found[f"actor {actor.id}"] = await one.get()
        found[f"versions of {actor.id}"] = (await one.versions().list()).items
    for build in (await client.builds().list()).items:
        found[f"build {build.id}"] = await client.build(build.id).get()
        found[f"log of {build.id}"] = await client.log(build.id).get()
    for run in (await client.runs().list()).items:
        found[f"run {run.id}"] = await client.run(run.id).get()
        found[f"log of {run.id}"] = await client.log(run.id).get()
    for dataset in (await client.datasets().list(unnamed=True)).items:
        found[f"dataset {dataset.id}"] = await client.dataset(dataset.id).get()
        found[f"items of {dataset.id}"] = (await client.dataset(dataset.id).list_items()).items
    for store in (await client.key_value_stores().list(unnamed=True)).items:
        found[f"store {store.id}"] = await client.key_value_store(store.id).get()
        for key in (await client.key_value_store(store.id).list_keys()).items:
            found[f"record {key.key} of {store.id}"] = await client.key_value_store(store.id).get_record(key.key)
    for queue in (await client.request_queues().list(unnamed=True)).items:
        found[f"queue {queue.id}"] = await client.request_queue(queue.id).get()
        found[f"requests of {queue.id}"] = (await client.request_queue(queue.id).list_requests(limit=100)).items
        found[f"head of {queue.id}"] = (await client.request_queue(queue.id, client_key="c1").list_head()).items
    return {name: plain(value) for name, value in found.items()}


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(item) for item in value]
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items() if name not in ("accessed_at", "accessedAt")}
    return value


@pytest.mark.timeout(300)  # three servers, one after the other, and five commands
async def test_to_postgresql_and_s3_and_back(tmp_path: Path, stores: dict[str, str]) -> None:
    """
    An export, an import and another server: two users see all they had, secrets are opened, and Actors run on.

    The same once more on the way back, by the key in the file.
    """
    (tmp_path / "work").mkdir()
    first, second, third = (tmp_path / name / "data" for name in ("first", "second", "third"))
    for folder in (first, second, third):
        folder.parent.mkdir()
    dump, dump_back = tmp_path / "there.tar", tmp_path / "back.tar"

    async with Greenroom(first) as greenroom:
        janes = await fill(greenroom, tmp_path / "work")
        code, said = await db(first, "export", str(dump))
        assert code == 1
        assert "already" in said
        assert not dump.exists()
        port = greenroom.port
        await end_all_runs(greenroom)
        before = [await seen(greenroom, token) for token in (TOKEN, janes)]
    assert {name.split()[0] for name in before[0]} == {
        *("me", "actor", "versions", "build", "log", "run", "dataset", "items", "store", "record", "queue"),
        *("requests", "head"),
    }

    code, said = await db(first, "export", str(dump))
    assert code == 0, said
    assert "users 2," in said
    assert b"swordfish" not in dump.read_bytes()

    # Without the key nothing is imported, and nothing stays.
    code, said = await db(second, "import", str(dump), environment=stores)
    assert code == 1
    assert "secret.key" in said
    (second / "secret.key").write_bytes(b"another key of so many bytes: 32")
    code, said = await db(second, "import", str(dump), environment=stores)
    assert code == 1
    assert "another key" in said
    shutil.copy(first / "secret.key", second / "secret.key")
    code, said = await db(second, "import", str(dump), environment=stores)
    assert code == 0, said
    assert "secret-of-postgres" not in said
    code, said = await db(second, "import", str(dump), environment=stores)
    assert code == 1
    assert "not empty" in said

    async with Greenroom(second, port=port, environment=stores) as greenroom:
        assert [await seen(greenroom, token) for token in (TOKEN, janes)] == before
        await works_on(greenroom)
        await end_all_runs(greenroom)
        code, said = await db(second, "export", str(dump_back), "--with-key", environment=stores)
        assert (code, "already" in said) == (1, True), said
        # Nor by the way of another folder on the same database.
        code, said = await db(tmp_path / "elsewhere", "export", str(dump_back), environment=stores)
        assert (code, "other processes use the records (greenroom " in said) == (1, True), said
        between = [await seen(greenroom, token) for token in (TOKEN, janes)]
    assert not (second / "records.sqlite3").exists()
    assert not (second / "blobs").exists()

    code, said = await db(second, "export", str(dump_back), "--with-key", environment=stores)
    assert code == 0, said
    code, said = await db(third, "import", str(dump_back))
    assert code == 0, said
    assert (third / "secret.key").stat().st_mode & 0o777 == 0o600
    async with Greenroom(third, port=port) as greenroom:
        assert [await seen(greenroom, token) for token in (TOKEN, janes)] == between
        await works_on(greenroom)


async def end_all_runs(greenroom: Greenroom) -> None:
    for run in await greenroom.runs():
        if not run.get("finishedAt"):
            await greenroom.data_of("POST", f"/actor-runs/{run['id']}/abort")
            await greenroom.ended(run["id"])


async def works_on(greenroom: Greenroom) -> None:
    """A build that was moved runs, with its secret; the dataset and the queue go on where they were."""
    client = ApifyClientAsync(TOKEN, api_url=f"http://127.0.0.1:{greenroom.port}", max_retries=0)
    assert (await greenroom.call("standby")).status_code == 200
    run = await client.actor("local/works").call()
    assert run is not None
    assert run.status == "SUCCEEDED"
    output = await client.key_value_store(run.default_key_value_store_id).get_record("OUTPUT")
    assert output is not None
    assert output["value"] == {"secret": "swordfish", "leaked": []}
    assert (await client.dataset(run.default_dataset_id).list_items()).items == [{"n": n} for n in range(3)]
    queue: Any = client.request_queue((await client.request_queues().get_or_create(name="todo")).id, client_key="c2")
    locked = (await queue.list_and_lock_head(lock_duration=timedelta(seconds=1), limit=9)).items
    assert len(locked) == 3, "two are locked by another client, and still are"


async def test_an_import_that_fails_leaves_nothing(tmp_path: Path, stores: dict[str, str]) -> None:
    """A file that was cut off is refused after much of it was read, and the place is as empty as before."""
    data = tmp_path / "data"
    (tmp_path / "work").mkdir()
    async with Greenroom(data) as greenroom:
        await greenroom.push(actor_folder(tmp_path / "work", "works", {"isEnabled": False}, main=PROGRAM))
    dump, half = tmp_path / "whole.tar", tmp_path / "half.tar"
    code, said = await db(data, "export", str(dump), "--with-key")
    assert code == 0, said
    content = dump.read_bytes()
    half.write_bytes(content[: content.index(b"end.json")])
    for name, place in (("folder", {}), ("servers", stores)):
        other = tmp_path / name
        code, said = await db(other, "import", str(half), environment=place)
        assert (code, "not whole" in said) == (1, True), said
        assert not (other / "secret.key").exists()
        code, said = await db(other, "import", str(dump), environment=place)
        assert code == 0, said


async def test_another_key_on_purpose(tmp_path: Path) -> None:
    """Whoever has lost the key gets all the rest; a key from a variable is not for the file."""
    async with Greenroom(tmp_path / "data"):
        pass
    dump = tmp_path / "dump.tar"
    variable = {"GREENROOM_SECRET_KEY": "a key in a variable"}
    code, said = await db(tmp_path / "data", "export", str(dump), "--with-key", environment=variable)
    assert (code, "GREENROOM_SECRET_KEY" in said, dump.exists()) == (2, True, False)
    code, said = await db(tmp_path / "data", "export", str(dump))
    assert code == 0, said
    code, said = await db(tmp_path / "other", "import", str(dump), environment=variable)
    assert (code, "another key" in said) == (1, True)
    code, said = await db(tmp_path / "other", "import", str(dump), "--other-key", environment=variable)
    assert code == 0, said
    code, said = await db(tmp_path / "data", "export", str(dump))
    assert (code, "there already" in said) == (2, True), "what is there is never written over"


async def test_migrate_tells_what_it_did(tmp_path: Path, postgres: postgres_server.PostgresServer) -> None:
    """Once it makes the schema, then nothing is left to do; a server that is not there is told without its password."""
    place = {"GREENROOM_RECORDS_URL": postgres.url(postgres.create_database())}
    assert await db(tmp_path, "migrate", environment=place) == (
        0,
        "greenroom: the records were made, at migration 0004.\n",
    )
    code, said = await db(tmp_path, "migrate", environment=place)
    assert (code, "nothing was to be done" in said) == (0, True)
    place = {"GREENROOM_RECORDS_URL": "postgresql://u:password-of-u@127.0.0.1:1/x"}
    code, said = await db(tmp_path, "migrate", environment=place)
    assert (code, "port 1" in said, "password-of-u" in said) == (1, True, False)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(("export", "text"), "nothing to export", id="nothing there yet"),
        pytest.param(("import", "text"), "no archive", id="not an archive"),
        pytest.param(("import", "absent"), "No such file", id="no file"),
        pytest.param(("import", "."), "directory", id="a folder"),
        pytest.param(("import",), "FILE", id="no name"),
    ],
)
async def test_mistakes_are_told(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    """In a line that says what is wrong, never in a traceback."""
    (tmp_path / "text").write_text("no archive")
    code, said = await db(tmp_path / "data", words[0], *(str(tmp_path / name) for name in words[1:]))
    assert code in (1, 2)
    assert told in said
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1
