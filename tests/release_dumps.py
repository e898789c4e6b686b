"""
A small database as a release leaves it, and what its API answers about it: ``tests/dumps/<version>/``.

``python tests/release_dumps.py <version>``, run when a version is released, writes them; ``journeys/test_upgrades.py``
holds every later version to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

from journeys.greenroom import Greenroom, actor_folder

DUMPS = Path(__file__).parent / "dumps"
PROGRAM = """
import json, os, urllib.request

def call(method, path, body):
    request = urllib.request.Request(os.environ["APIFY_API_BASE_URL"] + "/v2" + path, method=method,
        data=json.dumps(body).encode(),
        headers={"Authorization": "Bearer " + os.environ["APIFY_TOKEN"], "Content-Type": "application/json"})
    urllib.request.urlopen(request).read()

call("PUT", f"/key-value-stores/{os.environ['ACTOR_DEFAULT_KEY_VALUE_STORE_ID']}/records/OUTPUT", {"a": "\\u00fc"})
call("POST", f"/datasets/{os.environ['ACTOR_DEFAULT_DATASET_ID']}/items", [{"n": n} for n in range(3)])
for key in ("first", "second"):
    call("POST", f"/request-queues/{os.environ['ACTOR_DEFAULT_REQUEST_QUEUE_ID']}/requests",
         {"url": "http://a.test/" + key, "uniqueKey": key})
call("PUT", f"/actor-runs/{os.environ['ACTOR_RUN_ID']}", {"statusMessage": "done", "isStatusMessageTerminal": True})
"""
# Of what the answers say, this is of the server that answers and not of its data.
_PORT = re.compile(r"localhost:\d+")
_SIGNATURE = re.compile(r"signature=[\w=-]+")
_NOT_OF_THE_DATA = ("urlSigningSecretKey", "proxy")


async def _fill(greenroom: Greenroom) -> None:
    """A bit of everything that this version knows."""
    folder = actor_folder(greenroom.data.parent / "new", "batch", {"isEnabled": False}, main=PROGRAM)
    actor = await greenroom.push(folder)
    await greenroom.data_of(
        "POST", f"/actors/{actor['id']}/versions/0.1/env-vars", json={"name": "KEY", "value": "v", "isSecret": True}
    )
    for code in (201, 201):
        started = await greenroom.api("POST", "/acts/batch/runs", json={"some": "input"})
        assert started.status_code == code
        await greenroom.ended(started.json()["data"]["id"])
    await greenroom.probe("web", {"isEnabled": True, "idleTimeoutSecs": 1})
    assert (await greenroom.call("web")).status_code == 200
    await greenroom.wait_until_no_run_lives()
    for kind in ("datasets", "key-value-stores", "request-queues"):
        await greenroom.data_of("POST", f"/{kind}?name=Named-{kind}")


async def _paths(greenroom: Greenroom) -> list[str]:
    """All that can be looked at."""
    paths = ["/users/me", "/actors", "/actor-runs", "/actor-builds"]
    for actor in (await greenroom.data_of("GET", "/actors"))["items"]:
        paths += [f"/actors/{actor['id']}", f"/actors/{actor['id']}/versions", f"/actors/{actor['id']}/builds"]
    for build in (await greenroom.data_of("GET", "/actor-builds"))["items"]:
        paths.append(f"/actor-builds/{build['id']}")
    for run in (await greenroom.data_of("GET", "/actor-runs"))["items"]:
        paths.append(f"/actor-runs/{run['id']}")
        store = run["defaultKeyValueStoreId"]
        paths += [f"/key-value-stores/{store}/keys"]
        for key in (await greenroom.data_of("GET", f"/key-value-stores/{store}/keys"))["items"]:
            paths.append(f"/key-value-stores/{store}/records/{key['key']}")
        paths += [f"/datasets/{run['defaultDatasetId']}/items", f"/datasets/{run['defaultDatasetId']}"]
        queue = f"/request-queues/{run['defaultRequestQueueId']}"
        paths += [queue, f"{queue}/requests", f"{queue}/head?clientKey=of-the-test"]
    for kind in ("datasets", "key-value-stores", "request-queues"):
        paths += [f"/{kind}?unnamed=1", f"/{kind}/~named-{kind}"]
    return paths


async def answers_of(greenroom: Greenroom, paths: list[str]) -> dict[str, Any]:
    return {path: _without((await greenroom.api("GET", path)).json()) for path in paths}


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without(part) for name, part in value.items() if name not in _NOT_OF_THE_DATA}
    if isinstance(value, list):
        return [_without(part) for part in value]
    if isinstance(value, str):
        return _SIGNATURE.sub("signature=…", _PORT.sub("localhost", value))
    return value


async def write(version: str) -> None:
    """Run this version for a moment and keep what it leaves."""
    target = DUMPS / version
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        async with Greenroom(data) as greenroom:
            await _fill(greenroom)
            answers = await answers_of(greenroom, await _paths(greenroom))
        with contextlib.closing(sqlite3.connect(data / "records.sqlite3")) as records:
            (target / "records.sql").write_text("\n".join(records.iterdump()) + "\n")
    (target / "answers.json").write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1]))
