"""Runs through the API; a few lines stand in for the supervisor, which alone starts and ends them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.api import waiting
from gateway.api.app import api_app
from gateway.core.lifecycle import RunStatus
from gateway.core.load import Load
from gateway.core.model import AbortWish, StorageKind
from gateway.core.storages import KeyValueRecord
from gateway.state.changes import change_run
from gateway.state.ports import Changed, StateUnavailable


@pytest.fixture(autouse=True)
async def actor(bob: Any) -> Any:
    """An Actor with one build."""
    return await bob.built_actor(defaultRunOptions={"timeoutSecs": 60, "memoryMbytes": 512})


async def test_start(api: Any, bob: Any) -> None:
    """A start is stored with its storages and signalled; the supervisor does the rest."""
    state = api.services.state
    async with state.signals.watch_changes() as changes:
        run = await bob.post("/actors/hello/runs", headers={"User-Agent": "ApifyClient/1"})
        assert await anext(changes) == Changed(kind="run", id=run["id"])
    assert run["status"] == "READY"
    assert run["options"] | {"timeoutSecs": 60, "memoryMbytes": 512, "diskMbytes": 1024} == run["options"]
    assert run["meta"] == {"origin": "API", "userAgent": "ApifyClient/1", "clientIp": "127.0.0.1"}
    assert run["buildNumber"] == "0.1.1"
    assert run["containerUrl"].endswith(".runs.localhost:8010")
    assert await state.storages.storage(StorageKind.KEY_VALUE_STORE, run["defaultKeyValueStoreId"])
    assert await bob.get(f"/actor-runs/{run['id']}") == run
    assert await bob.get(f"/actors/hello/runs/{run['id']}") == run


@pytest.mark.parametrize(
    ("query", "status", "kind"),
    [
        ("memory=1000", 400, "invalid-value"),
        ("memory=lots", 400, "invalid-request"),
        ("timeout=-1", 400, "invalid-request"),
        ("maxItems=-1", 400, "invalid-request"),
        ("maxTotalChargeUsd=nan", 400, "invalid-request"),
        ("restartOnError=perhaps", 400, "invalid-request"),
        ("waitForFinish=-1", 400, "invalid-request"),
        ("build=nightly", 400, "unknown-build-tag"),
        ("build=0.1.99", 400, "unknown-build-tag"),
        ("webhooks=W3siZXZlbnRUeXBlcyI6W119XQ%3D%3D", 501, "not-implemented"),
        ("webhooks=nonsense", 400, "invalid-request"),
        ("webhooks=e30%3D", 400, "invalid-request"),
        ("forcePermissionLevel=FULL_PERMISSIONS", 501, "not-implemented"),
        ("forcePermissionLevel=SOME", 400, "invalid-request"),
    ],
)
async def test_bad_starts(bob: Any, query: str, status: int, kind: str) -> None:
    """A start that can't be done is refused, and no run is made."""
    assert (await bob.post(f"/actors/hello/runs?{query}", status))["type"] == kind
    assert (await bob.get("/actor-runs"))["total"] == 0


async def test_no_build_yet(bob: Any) -> None:
    """An Actor that was never built can't run."""
    await bob.post("/actors", json={"name": "empty"})
    assert (await bob.post("/actors/empty/runs", 404))["type"] == "build-not-found"


async def test_builds_by_tag_and_number(bob: Any) -> None:
    """A run uses the build that its start names; a number is found also when no tag points to it."""
    await bob.post("/actors/hello/builds?version=0.1&waitForFinish=60")
    await bob.post("/actors/hello/builds?version=0.1&tag=beta&waitForFinish=60")
    for wanted, number in {"": "0.1.2", "latest": "0.1.2", "beta": "0.1.3", "0.1.1": "0.1.1", "0.1.3": "0.1.3"}.items():
        run = await bob.post(f"/actors/hello/runs?build={wanted}")
        assert run["buildNumber"] == number


async def test_a_runs_own_start(api: Any, bob: Any) -> None:
    """A run that starts an Actor is its origin and its parent."""
    first = await bob.post("/actors/hello/runs")
    run = await api.run_itself(first)
    second = await run.post("/actors/bob~hello/runs")
    assert second["meta"]["origin"] == "ACTOR"
    assert (await api.services.state.records.run(second["id"])).parent_run_id == first["id"]
    assert (await run.get(f"/actor-runs/{second['id']}"))["id"] == second["id"]


async def test_options_that_change_nothing(bob: Any) -> None:
    """No webhooks, and the permissions that every run has."""
    run = await bob.post("/actors/hello/runs?webhooks=W10%3D&forcePermissionLevel=LIMITED_PERMISSIONS")
    assert run["status"] == "READY"


async def test_idempotency(api: Any, bob: Any) -> None:
    """The same key means the same run for a day, for this user alone; afterwards it is free again."""
    headers = {"Idempotency-Key": "order 66"}
    first = await bob.post("/actors/hello/runs", headers=headers)
    api.clock.pass_by(hours=23, minutes=59)
    again = await bob.post("/actors/hello/runs", 200, headers=headers)
    assert again["id"] == first["id"]
    other = await bob.post("/actors/hello/runs", headers={"Idempotency-Key": "order 67"})
    assert other["id"] != first["id"]
    api.clock.pass_by(minutes=2)
    assert (await bob.post("/actors/hello/runs", headers=headers))["id"] != first["id"]
    await api.eve.built_actor("hers")
    assert (await api.eve.post("/actors/hers/runs", headers=headers))["id"] != first["id"]


async def test_idempotency_under_a_race(bob: Any) -> None:
    """Ten starts with one key at the same moment start one run, and all answers name it."""
    headers = {"Idempotency-Key": "k"}
    async with asyncio.TaskGroup() as group:
        starts = [
            group.create_task(bob.http.post("/v2/actors/hello/runs", headers=headers, json={"n": n})) for n in range(10)
        ]
    answers = [start.result() for start in starts]
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert len({answer.json()["data"]["id"] for answer in answers}) == 1
    assert (await bob.get("/actor-runs"))["total"] == 1


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_bad_idempotency_keys(bob: Any, key: str) -> None:
    """A key that is none is refused."""
    refused = await bob.post("/actors/hello/runs", 400, headers={"Idempotency-Key": key})
    assert refused["type"] == "invalid-idempotency-key"


async def test_a_key_of_another_actor(bob: Any) -> None:
    """A key that has started another Actor does not start this one, and does not answer with the other's run."""
    await bob.built_actor("other")
    await bob.post("/actors/hello/runs", headers={"Idempotency-Key": "k"})
    refused = await bob.post("/actors/other/runs", 400, headers={"Idempotency-Key": "k"})
    assert refused["type"] == "invalid-idempotency-key"


@pytest.mark.parametrize("path", ["/actor-runs/{}", "/actors/hello/runs/{}", "/actors/hello/runs/last"])
async def test_wait_for_finish(api: Any, bob: Any, until: Any, path: str) -> None:
    """Who waits is held until the run has ended, and then has the final run; changes before that don't free him."""
    run = await bob.post("/actors/hello/runs")
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        held = group.create_task(bob.get(f"{path.format(run['id'])}?waitForFinish=999999"))
        await until(lambda: api.services.state.signals._store.change_watchers)
        await api.supervise(run, status=RunStatus.RUNNING)
        await asyncio.sleep(0.05)
        assert not held.done()
        await api.finish(run)
    assert held.result()["status"] == "SUCCEEDED"


async def test_wait_at_the_start(api: Any, bob: Any) -> None:
    """A start can be waited for as well."""
    signals = api.services.state.signals
    async with asyncio.timeout(20), asyncio.TaskGroup() as group, signals.watch_changes() as changes:
        held = group.create_task(bob.post("/actors/hello/runs?waitForFinish=60"))
        started = await anext(changes)
        await api.finish({"id": started.id}, RunStatus.FAILED)
    assert held.result()["status"] == "FAILED"


async def test_a_lost_signal_is_made_up_for(api: Any, bob: Any, until: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals may be lost: the end of a run is then found by looking again."""
    monkeypatch.setattr(waiting, "LOOK_AGAIN_SECS", 0.05)
    run = await bob.post("/actors/hello/runs")
    records = api.services.state.records
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        held = group.create_task(bob.get(f"/actor-runs/{run['id']}?waitForFinish=60"))
        await until(lambda: api.services.state.signals._store.change_watchers)
        await change_run(records, run["id"], lambda present: replace(present, status=RunStatus.ABORTED))
    assert held.result()["status"] == "ABORTED"


class _GoneAfterwards:
    """Records whose connection is lost right after a run was stored."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self._is_gone = False

    def __getattr__(self, name: str) -> Any:
        if self._is_gone:
            raise StateUnavailable("gone")
        return getattr(self._records, name)

    async def add_run(self, *given: Any) -> None:
        await self._records.add_run(*given)
        self._is_gone = True


async def test_no_5xx_after_a_start(api: Any, bob: Any) -> None:
    """Clients repeat after a 5xx: once a run is stored, its start is answered well whatever fails afterwards."""
    records: Any = _GoneAfterwards(api.services.state.records)
    services = replace(api.services, state=replace(api.services.state, records=records))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api_app(services)), base_url="http://x") as http:
        answer = await http.post(f"/v2/actors/hello/runs?waitForFinish=5&token={bob.token}")
    assert answer.status_code == 201
    assert (await bob.get(f"/actor-runs/{answer.json()['data']['id']}"))["status"] == "READY"


async def test_a_wait_ends_in_time(bob: Any) -> None:
    """A run that goes on is answered as it is when the time is up."""
    async with asyncio.timeout(20):
        run = await bob.post("/actors/hello/runs?waitForFinish=1")
    assert run["status"] == "READY"


async def test_lists(api: Any, bob: Any) -> None:
    """One's own runs, by Actor and by status, in pages."""
    runs = []
    for _ in range(3):
        runs.append(await bob.post("/actors/hello/runs"))
        api.clock.pass_by(seconds=1)
    await bob.built_actor("other")
    await bob.post("/actors/other/runs")
    await api.finish(runs[0])
    await api.finish(runs[1], RunStatus.FAILED)
    assert (await bob.get("/actor-runs"))["total"] == 4
    assert (await bob.get("/actors/hello/runs"))["total"] == 3
    ended = await bob.get("/actors/hello/runs?status=SUCCEEDED,FAILED&desc=1")
    assert [item["id"] for item in ended["items"]] == [runs[1]["id"], runs[0]["id"]]
    assert (await bob.get("/actors/hello/runs/last"))["id"] == runs[2]["id"]
    assert (await bob.get("/actors/hello/runs/last?status=SUCCEEDED"))["id"] == runs[0]["id"]
    await bob.get("/actors/hello/runs/last?status=ABORTED", 404)
    assert (await bob.get("/actor-runs?status=GONE", 400))["data"]["field"] == "status"
    later = await bob.get(f"/actor-runs?startedAfter={runs[1]['startedAt']}")
    assert [item["id"] for item in later["items"]][:2] == [runs[1]["id"], runs[2]["id"]]
    sooner = await bob.get(f"/actor-runs?startedBefore={runs[1]['startedAt']}")
    assert [item["id"] for item in sooner["items"]] == [runs[0]["id"], runs[1]["id"]]
    assert (await bob.get("/actor-runs?startedAfter=yesterday", 400))["data"]["field"] == "startedAfter"


async def test_a_run_is_found_under_its_own_actor_alone(bob: Any) -> None:
    """The path names Actor and run; both must fit."""
    await bob.built_actor("other")
    run = await bob.post("/actors/hello/runs")
    await bob.get(f"/actors/other/runs/{run['id']}", 404)


async def test_abort(api: Any, bob: Any) -> None:
    """An abort is stored as a wish and signalled; a hard one follows a graceful one; an ended run stays as it is."""
    run = await bob.post("/actors/hello/runs")
    signals, records = api.services.state.signals, api.services.state.records
    async with signals.watch_changes() as changes:
        asked = await bob.post(f"/actor-runs/{run['id']}/abort?gracefully=true", 200)
        assert asked["status"] == "ABORTING"
        assert await anext(changes) == Changed(kind="run", id=run["id"])
    first = await records.run(run["id"])
    assert first.abort_wish == AbortWish(gracefully=True, requested_at=api.clock.now())
    await bob.post(f"/actor-runs/{run['id']}/abort?gracefully=1", 200)
    assert (await records.run(run["id"])).version == first.version
    await bob.post(f"/actors/hello/runs/{run['id']}/abort", 200)
    assert (await records.run(run["id"])).abort_wish.gracefully is False
    await api.finish(run, RunStatus.ABORTED)
    assert (await bob.post(f"/actor-runs/{run['id']}/abort", 200))["status"] == "ABORTED"


async def test_status_messages(api: Any, bob: Any) -> None:
    """A run sets its message and has the last word."""
    run = await bob.post("/actors/hello/runs")
    itself = await api.run_itself(run)
    path = f"/actor-runs/{run['id']}"
    assert (await itself.put(path, json={"statusMessage": "halfway", "runId": "ignored"}))["statusMessage"] == "halfway"
    last = await itself.put(path, json={"statusMessage": "done", "isStatusMessageTerminal": True, "level": "INFO"})
    assert (last["statusMessage"], last["isStatusMessageTerminal"]) == ("done", True)
    assert (await bob.put(path, json={"statusMessage": "later"}))["statusMessage"] == "done"


async def test_delete(api: Any, bob: Any) -> None:
    """Only a finished run can be deleted; its log and what its storages hold go with it, small or large."""
    run = await bob.post("/actors/hello/runs", json={"a": "x" * 20_000})
    store_id = run["defaultKeyValueStoreId"]
    record = await api.services.state.storages.record(store_id, "INPUT")
    assert (await bob.delete(f"/actor-runs/{run['id']}", 400))["type"] == "cannot-remove-running-run"
    api.services.logs.append(run["id"], "hello")
    await api.finish(run)
    await bob.delete(f"/actor-runs/{run['id']}")
    await bob.get(f"/actor-runs/{run['id']}", 404)
    await bob.get(f"/logs/{run['id']}", 404)
    await bob.get(f"/key-value-stores/{store_id}", 404)
    await bob.get(f"/datasets/{run['defaultDatasetId']}", 404)
    await bob.get(f"/request-queues/{run['defaultRequestQueueId']}", 404)
    assert record.blob is not None
    assert await api.services.state.blobs.size(record.blob) is None
    await bob.delete(f"/actor-runs/{run['id']}", 404)


async def test_a_value_that_can_not_be_deleted(
    api: Any, bob: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The run goes all the same, and with it all other values; the log tells of the one that is left."""
    state = api.services.state
    run = await bob.post("/actors/hello/runs")
    for name in ("a", "b", "c"):
        await state.blobs.put(f"values/{name}", b"x" * 20_000)
        record = KeyValueRecord(
            store_id=run["defaultKeyValueStoreId"], key=name, content_type="text/plain", size=20_000,
            modified_at=api.clock.now(), blob=f"values/{name}",
        )  # fmt: skip
        await state.storages.put_record(record)
    delete, refused = type(state.blobs).delete, list[str]()

    async def refuse_first(blobs: Any, key: str) -> None:
        if not refused:
            refused.append(key)
            raise StateUnavailable("the disk is full")
        await delete(blobs, key)

    monkeypatch.setattr(type(state.blobs), "delete", refuse_first)
    await api.finish(run)
    await bob.delete(f"/actor-runs/{run['id']}")
    await bob.get(f"/actor-runs/{run['id']}", 404)
    left = [name for name in ("a", "b", "c") if await state.blobs.size(f"values/{name}") is not None]
    assert [f"values/{name}" for name in left] == refused
    assert refused[0] in caplog.text


async def test_what_got_a_name_outlives_its_run(api: Any, bob: Any) -> None:
    """Named storages are kept until somebody deletes them."""
    run = await bob.post("/actors/hello/runs")
    await bob.put(f"/datasets/{run['defaultDatasetId']}", json={"name": "kept"})
    await api.finish(run)
    await bob.delete(f"/actor-runs/{run['id']}")
    assert (await bob.get("/datasets/kept"))["id"] == run["defaultDatasetId"]


async def test_a_living_run_shows_its_load(api: Any, bob: Any) -> None:
    """While a run lives, its ``stats`` tell its present load and how long it has lasted."""
    actor = await bob.built_actor("lives")
    run = await bob.post(f"/actors/{actor['id']}/runs?memory=1024")
    await api.supervise(run, status=RunStatus.RUNNING)
    load = Load(
        cpu_current=50,
        cpu_avg=40,
        cpu_max=60,
        memory_current=30,
        memory_avg=20,
        memory_max=40,
        is_cpu_overloaded=False,
    )
    await api.services.state.signals.report_load({run["id"]: load}, ttl_secs=60)
    api.clock.pass_by(seconds=90)
    stats = (await bob.get(f"/actor-runs/{run['id']}"))["stats"]
    assert (stats["cpuCurrentUsage"], stats["memCurrentBytes"], stats["memMaxBytes"]) == (50, 30, 40)
    assert (stats["runTimeSecs"], stats["durationMillis"], stats["computeUnits"]) == (90, 90_000, 0.025)
