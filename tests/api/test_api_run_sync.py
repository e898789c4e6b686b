"""One call that starts a run, waits for it and answers with its result."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.api.app import api_app
from gateway.core.lifecycle import RunStatus
from gateway.state.ports import StateUnavailable


@pytest.fixture(autouse=True)
async def actor(bob: Any) -> Any:
    """An Actor with one build."""
    return await bob.built_actor()


class Worked:
    """The next run that is started, in place of its Actor."""

    def __init__(self, api: Any, status: RunStatus = RunStatus.SUCCEEDED) -> None:
        self.api, self.status = api, status
        self.run: Any = None

    async def work(self, changes: Any) -> None:
        started = await anext(changes)
        stored = await self.api.services.state.records.run(started.id)
        self.run = {"id": stored.id}
        itself = await self.api.run_itself(self.run)
        store, dataset = stored.default_key_value_store_id, stored.default_dataset_id
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        for key in ("OUTPUT", "other"):
            path = f"/v2/key-value-stores/{store}/records/{key}"
            await itself.http.put(path, content=f"said in {key}", headers=headers)
        await itself.http.post(f"/v2/datasets/{dataset}/items", json=[{"n": n, "m": 0} for n in range(5)])
        await self.api.finish(self.run, self.status)


async def asked(api: Any, method: str, path: str, status: RunStatus = RunStatus.SUCCEEDED, **options: Any) -> Any:
    """The answer to a call whose run works and ends with *status*, and that run."""
    worked = Worked(api, status)
    signals = api.services.state.signals
    async with asyncio.timeout(20), signals.watch_changes() as changes, asyncio.TaskGroup() as group:
        held = group.create_task(api.bob.http.request(method, f"/v2/actors/hello/{path}", **options))
        await worked.work(changes)
    return held.result(), worked.run


@pytest.mark.parametrize(("method", "status"), [("POST", 201), ("GET", 200)])
async def test_the_output(api: Any, method: str, status: int) -> None:
    """The record OUTPUT as the run has stored it; the input is the body of a POST."""
    answer, run = await asked(api, method, "run-sync?timeout=60")
    assert (answer.status_code, answer.text) == (status, "said in OUTPUT")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert (await api.bob.get(f"/actor-runs/{run['id']}"))["options"]["timeoutSecs"] == 60


async def test_another_output(api: Any) -> None:
    """Under the key that the call names; a record that was not written is not found."""
    answer, _ = await asked(api, "POST", "run-sync?outputRecordKey=other")
    assert answer.text == "said in other"
    answer, _ = await asked(api, "POST", "run-sync?outputRecordKey=none")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "record-not-found")


async def test_the_input_arrives(api: Any, bob: Any) -> None:
    """As at any start; a GET has none."""
    _, run = await asked(api, "POST", "run-sync", json={"a": 1})
    record = await bob.http.get(f"/v2/actor-runs/{run['id']}/key-value-store/records/INPUT")
    assert record.json() == {"a": 1}
    _, run = await asked(api, "GET", "run-sync")
    assert (await bob.http.get(f"/v2/actor-runs/{run['id']}/key-value-store/records/INPUT")).status_code == 404


@pytest.mark.parametrize(("method", "status"), [("POST", 201), ("GET", 200)])
async def test_the_items(api: Any, method: str, status: int) -> None:
    """The default dataset's, with all that the items endpoint understands."""
    answer, _ = await asked(api, method, "run-sync-get-dataset-items?offset=1&limit=2&fields=n")
    assert (answer.status_code, answer.json()) == (status, [{"n": 1}, {"n": 2}])
    assert answer.headers["x-apify-pagination-total"] == "5"


async def test_the_items_in_another_format(api: Any) -> None:
    """CSV, too."""
    answer, _ = await asked(api, "POST", "run-sync-get-dataset-items?format=csv&bom=0&limit=1")
    assert answer.text.split() == ["n,m", "0,0"]


@pytest.mark.parametrize("path", ["run-sync", "run-sync-get-dataset-items"])
@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.ABORTED, RunStatus.TIMED_OUT])
async def test_a_run_that_does_not_succeed(api: Any, path: str, status: RunStatus) -> None:
    """400, with which run it was and how it ended."""
    answer, run = await asked(api, "POST", path, status)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "run-failed")
    assert error["data"] == {"runId": run["id"], "status": str(status)}
    assert error["message"] == f"Actor run did not succeed (run ID: {run['id']}, status: {status})."


@pytest.mark.parametrize("path", ["run-sync", "run-sync-get-dataset-items"])
async def test_a_run_that_takes_longer(api: Any, bob: Any, path: str) -> None:
    """408 with its id when the time is up; the run goes on."""
    services = replace(api.services, settings=api.services.settings.model_copy(update={"run_sync_timeout_secs": 0.1}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api_app(services)), base_url="http://x") as http:
        answer = await http.post(f"/v2/actors/hello/{path}?token={bob.token}")
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (408, "run-timeout-exceeded")
    assert (await bob.get(f"/actor-runs/{error['data']['runId']}"))["status"] == "READY"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        pytest.param("run-sync?outputRecordKey=a/b", "invalid-record-key", id="key"),
        pytest.param("run-sync?memory=1000", "invalid-value", id="options"),
        pytest.param("run-sync-get-dataset-items?format=pdf", "invalid-request", id="format"),
        pytest.param("run-sync-get-dataset-items?offset=-1", "invalid-request", id="offset"),
    ],
)
async def test_what_is_wrong_is_told_before_anything_starts(bob: Any, path: str, kind: str) -> None:
    """No run whose result could not be shown."""
    assert (await bob.post(f"/actors/hello/{path}", 400))["type"] == kind
    assert (await bob.get("/actor-runs"))["total"] == 0


@pytest.mark.parametrize("path", ["run-sync", "run-sync-get-dataset-items"])
async def test_a_look_at_the_head_starts_nothing(bob: Any, path: str) -> None:
    """Whoever asks for no body wants no run."""
    assert (await bob.http.head(f"/v2/actors/hello/{path}")).status_code == 405
    assert (await bob.get("/actor-runs"))["total"] == 0


async def test_a_caller_who_goes_away(api: Any, bob: Any) -> None:
    """Nothing waits for him any more, and the run goes on."""
    gone = asyncio.Event()
    messages = [{"type": "http.request", "body": b"{}", "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if messages:
            return messages.pop(0)
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v2/actors/hello/run-sync",
        "raw_path": b"/v2/actors/hello/run-sync",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"authorization", f"Bearer {bob.token}".encode()), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("x", 80),
    }
    signals = api.services.state.signals
    async with asyncio.timeout(20), signals.watch_changes() as changes, asyncio.TaskGroup() as group:
        held = group.create_task(api.app(scope, receive, send))
        started = await anext(changes)
        assert not held.done()
        gone.set()
    assert sent[0]["status"] == 499
    assert (await bob.get(f"/actor-runs/{started.id}"))["status"] == "READY"
    assert len(signals._store.change_watchers) == 0


async def test_an_idempotent_start_is_waited_for_again(api: Any, bob: Any) -> None:
    """Who repeats the call with its key gets the first run's result."""
    headers = {"Idempotency-Key": "k"}
    first, _ = await asked(api, "POST", "run-sync", headers=headers)
    again = await bob.http.post("/v2/actors/hello/run-sync", headers=headers)
    assert (again.status_code, again.text) == (first.status_code, first.text)
    assert (await bob.get("/actor-runs"))["total"] == 1


class _GoneAfterwards:
    """Records whose connection is lost right after a run was stored."""

    def __init__(self, records: Any) -> None:
        self._records, self._is_gone = records, False

    def __getattr__(self, name: str) -> Any:
        if self._is_gone:
            raise StateUnavailable("gone")
        return getattr(self._records, name)

    async def add_run(self, *given: Any) -> None:
        await self._records.add_run(*given)
        self._is_gone = True


async def test_no_5xx_after_a_start(api: Any, bob: Any) -> None:
    """Clients repeat after a 5xx, which would start another run."""
    records: Any = _GoneAfterwards(api.services.state.records)
    services = replace(api.services, state=replace(api.services.state, records=records))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api_app(services)), base_url="http://x") as http:
        answer = await http.post(f"/v2/actors/hello/run-sync?token={bob.token}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (408, "run-timeout-exceeded")
    assert (await bob.get("/actor-runs"))["total"] == 1
