"""Request queues by the API, in the ways of both SDKs, as the real client reads the answers."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterable
from typing import Any

import brotli
import pytest
from apify_client import _models as models

from gateway.api import queue_requests
from gateway.core.storages import request_id

NOW = "2026-03-04T05:06:07.890Z"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def a(name: object, **fields: Any) -> dict[str, Any]:
    """A request as clients send it."""
    return {"uniqueKey": str(name), "url": f"https://a.com/{name}", **fields}


def rid(name: object) -> str:
    return request_id(str(name))


class Queue:
    """One queue, asked by a caller under one of its addresses."""

    def __init__(self, caller: Any, path: str) -> None:
        self.caller, self.path = caller, path

    async def ask(self, method: str, path: str, status: int, **options: Any) -> Any:
        return await self.caller.ask(method, f"{self.path}{path}", status, **options)

    async def view(self) -> Any:
        return await self.ask("GET", "", 200)

    async def add(self, request: Any, query: str = "", status: int = 201) -> Any:
        return await self.ask("POST", f"/requests?{query}", status, json=request)

    async def add_all(self, names: Iterable[object], query: str = "") -> None:
        """In batches, as clients do."""
        requests = [a(name) for name in names]
        for start in range(0, len(requests), 25):
            await self.ask("POST", f"/requests/batch?{query}", 201, json=requests[start : start + 25])

    async def put(self, request: Any, query: str = "", status: int = 200) -> Any:
        name = request["uniqueKey"]
        return await self.ask("PUT", f"/requests/{rid(name)}?{query}", status, json=request | {"id": rid(name)})

    async def handle(self, name: object, query: str = "") -> Any:
        return await self.put(a(name, handledAt=NOW), query)

    async def head(self, query: str = "") -> list[str]:
        """The unique keys at the head."""
        data = await self.ask("GET", f"/head?{query}", 200)
        return [item.unique_key for item in models.RequestQueueHeadResponse.model_validate({"data": data}).data.items]

    async def lock(self, client: str = "c1", limit: int = 25, secs: int = 60) -> list[str]:
        """The unique keys of what was locked now."""
        data = await self.ask("POST", f"/head/lock?lockSecs={secs}&limit={limit}&clientKey={client}", 201, headers=FORM)
        answer = models.LockedRequestQueueHeadResponse.model_validate({"data": data}).data
        return [item.unique_key for item in answer.items]

    async def prolong(self, name: object, query: str, status: int = 200) -> Any:
        return await self.ask("PUT", f"/requests/{rid(name)}/lock?{query}", status, headers=FORM)

    async def drop(self, name: object, query: str, status: int = 204) -> Any:
        return await self.ask("DELETE", f"/requests/{rid(name)}/lock?{query}", status)

    async def request(self, name: object, status: int = 200) -> Any:
        return await self.ask("GET", f"/requests/{rid(name)}", status)

    async def listed(self, query: str = "") -> models.ListOfRequests:
        data = await self.ask("GET", f"/requests?{query}", 200)
        return models.ListOfRequestsResponse.model_validate({"data": data}).data


@pytest.fixture
async def queue(bob: Any) -> Queue:
    """An empty one of bob's."""
    return Queue(bob, f"/request-queues/{(await bob.post('/request-queues'))['id']}")


# Adding


async def test_add(queue: Queue) -> None:
    """It is there under the id that clients compute; adding it again changes nothing and says in which state it is."""
    added = await queue.add(a("https://a.com/1", userData={"n": 1}), "forefront=0&clientKey=c1")
    models.AddRequestResponse.model_validate({"data": added})
    assert added == {
        "requestId": "XDlGv8mrAja1dGa",
        "uniqueKey": "https://a.com/1",
        "wasAlreadyPresent": False,
        "wasAlreadyHandled": False,
    }
    again = await queue.add(a("https://a.com/1", userData={"n": 2}))
    assert again == added | {"wasAlreadyPresent": True}
    assert (await queue.request("https://a.com/1"))["userData"] == {"n": 1}
    await queue.handle("https://a.com/1")
    assert await queue.add(a("https://a.com/1")) == added | {"wasAlreadyPresent": True, "wasAlreadyHandled": True}


async def test_add_a_batch(queue: Queue) -> None:
    """All of it at once; one that is named twice is there by then."""
    await queue.add(a(2))
    data = await queue.ask("POST", "/requests/batch?forefront=false&clientKey=c", 201, json=[a(1), a(2), a(3), a(1)])
    answer = models.BatchAddResponse.model_validate({"data": data}).data
    assert [(one.request_id, one.unique_key, one.was_already_present) for one in answer.processed_requests] == [
        (rid(1), "1", False),
        (rid(2), "2", True),
        (rid(3), "3", False),
        (rid(1), "1", True),
    ]
    assert answer.unprocessed_requests == []
    assert await queue.head() == ["2", "1", "3"]


@pytest.mark.parametrize(
    ("compress", "encoding"), [(brotli.compress, "br"), (gzip.compress, "gzip")], ids=["JavaScript", "Python"]
)
async def test_compressed(queue: Queue, compress: Any, encoding: str) -> None:
    """Clients compress what they send."""
    body = compress(json.dumps([a(n, payload="x" * 2000) for n in range(25)]).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    await queue.ask("POST", "/requests/batch", 201, content=body, headers=headers)
    assert (await queue.view())["totalRequestCount"] == 25
    assert (await queue.request(24))["payload"] == "x" * 2000


async def test_kept_whole(queue: Queue) -> None:
    """Fields that only a client knows come back as they were; what is the queue's own does not stick."""
    request = a(
        1,
        method="POST",
        headers={"Accept": "*/*"},
        payload={"type": "Buffer", "data": [1, 2]},
        userData={"label": "L", "__crawlee": {"state": 1}},
        noRetry=True,
        retryCount=3,
        loadedUrl=None,
        errorMessages=["Error: 'ü' \x00"],
        extra=[{"deep": None}],
    )
    await queue.add(request)
    seen = await queue.request(1)
    models.RequestResponse.model_validate({"data": seen})
    assert seen == request | {"id": rid(1)}
    await queue.lock()
    locked = await queue.request(1)
    assert locked == seen | {"lockExpiresAt": "2026-03-04T05:07:07.890Z"}
    await queue.put(locked)
    await queue.drop(1, "clientKey=c1")
    assert await queue.request(1) == seen


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/requests", {"url": "https://a.com"}, "uniqueKey"),
        ("POST", "/requests", a(1, id="AAAAAAAAAAAAAAA"), "id"),
        ("POST", "/requests", [a(1)], None),
        ("POST", "/requests/batch", a(1), None),
        ("POST", "/requests/batch", [], None),
        ("POST", "/requests/batch", [a(n) for n in range(26)], None),
        ("POST", "/requests/batch", [a(1), {"uniqueKey": "2"}], "[1].url"),
        ("DELETE", "/requests/batch", [{}], "[0].id"),
        ("PUT", f"/requests/{rid(1)}", a(1, handledAt="soon"), "handledAt"),
        ("PUT", f"/requests/{rid(1)}", a(2), "uniqueKey"),
        ("PUT", f"/requests/{rid(1)}", a(1, id=rid(2)), "id"),
        ("PUT", "/requests/none", a(1), "uniqueKey"),
    ],
)
async def test_bad_requests(queue: Queue, method: str, path: str, body: Any, field: str | None) -> None:
    """A malformed request is refused with its place, a batch that has one as a whole."""
    refused = await queue.ask(method, path, 400, json=body)
    assert refused["type"] == "invalid-request"
    assert refused.get("data") == (None if field is None else {"field": field})
    assert (await queue.view())["totalRequestCount"] == 0


@pytest.mark.parametrize("body", [b"", b"{", b'{"uniqueKey": "\\ud800", "url": "x"}', b"\xff", b"[1e999]"])
async def test_no_json(queue: Queue, body: bytes) -> None:
    """What is not JSON, or could not be given back, is refused everywhere."""
    for method, path in (("POST", "/requests"), ("POST", "/requests/batch"), ("PUT", f"/requests/{rid(1)}")):
        assert (await queue.ask(method, path, 400, content=body))["type"] == "invalid-request"


async def test_too_large(queue: Queue) -> None:
    """A body has a bound."""
    assert (await queue.add(a(1, payload="x" * 9_437_184), status=413))["type"] == "request-too-large"


# Order


@pytest.mark.parametrize("true", ["true", "1"])
async def test_forefront(queue: Queue, true: str) -> None:
    """What goes in front later stands before what went there earlier, also when it is put back."""
    for name in (1, 2, 3):
        await queue.add(a(name), "forefront=false")
    for in_front in ("P1", "P2"):
        await queue.add(a(in_front), f"forefront={true}")
    assert await queue.head() == ["P2", "P1", "1", "2", "3"]
    await queue.put(a(2), f"forefront={true}")
    await queue.add(a("P3"), f"forefront={true}")
    assert await queue.head() == ["P3", "2", "P2", "P1", "1", "3"]
    await queue.put(a("P3"), "forefront=0")
    assert await queue.head("limit=2") == ["2", "P2"]
    assert (await queue.head())[-1] == "P3"
    await queue.ask("POST", f"/requests/batch?forefront={true}", 201, json=[a("B1"), a("B2")])
    assert await queue.head("limit=3") == ["B2", "B1", "2"]


async def test_head_view(queue: Queue) -> None:
    """Its requests are shown in part, with what was left out filled in."""
    await queue.add(a(1, userData={"large": 1}), "clientKey=c1")
    await queue.add(a(2, method="POST", retryCount=3), "clientKey=c1")
    head = await queue.ask("GET", "/head?clientKey=c1", 200)
    assert head == {
        "limit": 1000,
        "queueModifiedAt": NOW,
        "hadMultipleClients": False,
        "items": [
            {"id": rid(1), "uniqueKey": "1", "url": "https://a.com/1", "method": "GET", "retryCount": 0},
            {"id": rid(2), "uniqueKey": "2", "url": "https://a.com/2", "method": "POST", "retryCount": 3},
        ],
    }


@pytest.mark.parametrize(
    ("path", "limit", "shown"),
    [
        ("GET /head?", "", 1000),
        ("GET /head?", "limit=0", 1000),
        ("GET /head?", "limit=7", 7),
        ("GET /head?", "limit=99999999999999999999", 1000),
        ("POST /head/lock?lockSecs=1&", "", 25),
        ("POST /head/lock?lockSecs=1&", "limit=26", 25),
        ("POST /head/lock?lockSecs=1&", "limit=3", 3),
        ("GET /requests?", "", 10_000),
        ("GET /requests?", "limit=10001", 10_000),
        ("GET /requests?", "limit=5", 5),
    ],
)
async def test_limits(queue: Queue, path: str, limit: str, shown: int) -> None:
    """More than there may be in one answer is the most that there may be; the answer says so."""
    method, _, rest = path.partition(" ")
    assert (await queue.ask(method, rest + limit, 201 if method == "POST" else 200))["limit"] == shown


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/head?limit=-1"),
        ("GET", "/head?limit=some"),
        ("GET", f"/head?clientKey={'x' * 101}"),
        ("POST", "/head/lock"),
        ("POST", "/head/lock?lockSecs=0"),
        ("POST", "/head/lock?lockSecs=86401"),
        ("POST", "/head/lock?lockSecs=1.5"),
        ("PUT", f"/requests/{rid(1)}/lock"),
        ("PUT", f"/requests/{rid(1)}/lock?lockSecs=60&forefront=perhaps"),
        ("DELETE", f"/requests/{rid(1)}/lock?forefront=2"),
        ("GET", "/requests?filter=handled"),
        ("GET", "/requests?limit=-5"),
        ("GET", "/requests?cursor=x"),
        ("GET", "/requests?exclusiveStartId=x"),
    ],
)
async def test_bad_questions(queue: Queue, method: str, path: str) -> None:
    """What is missing, out of its range or of another kind is refused."""
    await queue.add(a(1))
    assert (await queue.ask(method, path, 400))["type"] == "invalid-request"


# One request


async def test_put_inserts(queue: Queue) -> None:
    """Python's SDK says of a request that it never sent that it has handled it: that is fine."""
    put = await queue.handle(1, "clientKey=c1")
    models.UpdateRequestResponse.model_validate({"data": put})
    assert put == {
        "requestId": rid(1),
        "uniqueKey": "1",
        "wasAlreadyPresent": False,
        "wasAlreadyHandled": False,
    }
    assert await queue.head() == []
    view = await queue.view()
    assert (view["totalRequestCount"], view["handledRequestCount"], view["pendingRequestCount"]) == (1, 1, 0)


async def test_handling(queue: Queue) -> None:
    """Handled, it leaves the head; without ``handledAt`` it is pending again. The answer tells the state before."""
    await queue.add_all([1, 2])
    assert (await queue.handle(1))["wasAlreadyHandled"] is False
    assert await queue.head() == ["2"]
    assert (await queue.request(1))["handledAt"] == NOW
    assert (await queue.handle(1))["wasAlreadyHandled"] is True
    assert (await queue.put(a(1, retryCount=1)))["wasAlreadyHandled"] is True
    assert await queue.head() == ["2", "1"]
    assert (await queue.put(a(1, handledAt=None)))["wasAlreadyHandled"] is False
    assert (await queue.view())["handledRequestCount"] == 0


@pytest.mark.parametrize("request_id", [rid(1), "x", "..%2F..", "%00", "ü" * 15])
async def test_no_such_request(queue: Queue, request_id: str) -> None:
    """Looked for, it is not found; deleted, it is gone, which a client that repeats itself may say twice."""
    assert (await queue.ask("GET", f"/requests/{request_id}", 404))["type"] in {"record-not-found", "page-not-found"}
    if "%2F" not in request_id:
        await queue.ask("DELETE", f"/requests/{request_id}", 204)
        for method in ("PUT", "DELETE"):
            refused = await queue.ask(method, f"/requests/{request_id}/lock?lockSecs=9", 404)
            assert refused["type"] == "record-not-found"


async def test_delete(queue: Queue) -> None:
    """It is gone from everywhere, and can be added anew."""
    await queue.add_all([1, 2])
    await queue.handle(2)
    for name in (1, 2):
        await queue.ask("DELETE", f"/requests/{rid(name)}?clientKey=c1", 204)
        await queue.request(name, 404)
    view = await queue.view()
    assert (view["totalRequestCount"], view["handledRequestCount"], view["pendingRequestCount"]) == (0, 0, 0)
    assert (await queue.add(a(1)))["wasAlreadyPresent"] is False


async def test_delete_a_batch(queue: Queue) -> None:
    """By id or unique key; the answer counts all as done, as that of the repeated call does."""
    await queue.add_all(range(5))
    body = [{"id": rid(0)}, {"uniqueKey": "1"}, {"uniqueKey": "never there"}, {"id": "never there"}]
    for _ in range(2):
        data = await queue.ask("DELETE", "/requests/batch?clientKey=c1", 200, json=body)
        answer = models.BatchDeleteResponse.model_validate({"data": data}).data
        assert len(answer.processed_requests) == 4
        assert answer.unprocessed_requests == []
    assert await queue.head() == ["2", "3", "4"]


# Lists


async def test_list(queue: Queue) -> None:
    """Pages that don't overlap, in the order of adding whatever became of the requests; no cursor at the end."""
    await queue.add_all(range(25))
    await queue.add(a("front"), "forefront=1")
    await queue.handle(3)
    await queue.put(a(0))
    names, cursor, pages = [], "", 0
    while True:
        page = await queue.listed(f"limit=10&clientKey=c{cursor}")
        names += [request.unique_key for request in page.items]
        pages += 1
        if page.next_cursor is None:
            break
        cursor = f"&cursor={page.next_cursor}"
    assert names == [*map(str, range(25)), "front"]
    assert pages == 3
    last = await queue.ask("GET", f"/requests?limit=10{cursor}", 200)
    assert "nextCursor" not in last
    assert last["cursor"] == cursor.removeprefix("&cursor=")


async def test_a_page_that_is_just_full(queue: Queue) -> None:
    """No cursor leads to an empty page."""
    await queue.add_all(range(4))
    assert (await queue.listed("limit=4")).next_cursor is None
    assert (await queue.listed("limit=3")).next_cursor is not None


async def test_the_older_way_to_list(queue: Queue) -> None:
    """``exclusiveStartId`` goes on after that request."""
    await queue.add_all(range(4))
    page = await queue.listed(f"exclusiveStartId={rid(1)}&limit=1")
    assert [request.unique_key for request in page.items] == ["2"]
    assert page.exclusive_start_id == rid(1)


async def test_a_page_of_large_requests(queue: Queue, monkeypatch: Any) -> None:
    """It ends early instead of filling the memory; the cursor goes on, and no request is left out or told twice."""
    monkeypatch.setattr(queue_requests, "_MAX_PAGE_BYTES", 10_000)
    for name in range(40):
        await queue.add(a(name, payload="x" * 1000))
    names: list[str] = []
    cursor, pages = "", 0
    while True:
        page = await queue.listed(f"limit=100{cursor}")
        assert len(page.items) <= 10
        names += [request.unique_key for request in page.items]
        pages += 1
        if page.next_cursor is None:
            break
        cursor = f"&cursor={page.next_cursor}"
    assert names == [str(name) for name in range(40)]
    assert pages >= 4


async def test_a_list_while_others_delete(api: Any, queue: Queue, monkeypatch: Any) -> None:
    """A page that is read in parts goes on where it was, also when the request that it had come to is deleted."""
    await queue.add_all(range(60))
    storages = api.services.state.storages
    read, reads = storages.list_requests, 0

    async def read_and_delete(queue_id: str, **options: Any) -> Any:
        nonlocal reads
        found = await read(queue_id, **options)
        reads += 1
        if reads == 1:
            gone = [request.id for request in found[-2:]]
            await storages.delete_requests(queue_id, gone, client=None, now=api.clock.now())
        return found

    monkeypatch.setattr(
        type(storages), "list_requests", lambda _self, *args, **options: read_and_delete(*args, **options)
    )
    assert [request.unique_key for request in (await queue.listed()).items] == [str(number) for number in range(60)]
    assert reads > 1


async def test_a_cursor_whose_request_is_gone(queue: Queue) -> None:
    """Nobody knows any more where to go on: the client is told to begin anew."""
    await queue.add_all(range(4))
    cursor = (await queue.listed("limit=2")).next_cursor
    await queue.ask("DELETE", f"/requests/{rid(1)}", 204)
    assert "begin anew" in (await queue.ask("GET", f"/requests?cursor={cursor}", 400))["message"]


@pytest.mark.parametrize(
    ("states", "names"),
    [
        ("", ["1", "2", "3", "4"]),
        ("pending", ["1", "2", "3"]),
        ("locked", ["1", "2"]),
        ("locked,pending", ["1", "2", "3"]),
    ],
)
async def test_filters(queue: Queue, states: str, names: list[str]) -> None:
    """Of several states any will do."""
    await queue.add_all([1, 2, 3, 4])
    await queue.handle(4)
    await queue.lock(limit=2)
    assert [request.unique_key for request in (await queue.listed(f"filter={states}")).items] == names


# Locks


async def test_lock(queue: Queue) -> None:
    """What is locked is hidden from everybody's head until the lock ends; then it is at its place again."""
    await queue.add_all(range(15), "clientKey=c1")
    data = await queue.ask("POST", "/head/lock?lockSecs=60&limit=10&clientKey=c1", 201, headers=FORM)
    head = models.LockedRequestQueueHeadResponse.model_validate({"data": data}).data
    assert [item.unique_key for item in head.items] == [str(n) for n in range(10)]
    assert {item["lockExpiresAt"] for item in data["items"]} == {"2026-03-04T05:07:07.890Z"}
    assert (
        data
        | {
            "limit": 10,
            "lockSecs": 60,
            "queueHasLockedRequests": True,
            "hadMultipleClients": False,
            "clientKey": "c1",
            "queueModifiedAt": NOW,
        }
        == data
    )
    assert await queue.head("clientKey=c1") == ["10", "11", "12", "13", "14"]


async def test_a_lock_ends(api: Any, queue: Queue) -> None:
    """Of itself, and then another client may have it; the first one is told so."""
    await queue.add_all([1, 2])
    assert await queue.lock("c1", limit=1, secs=60) == ["1"]
    api.clock.pass_by(seconds=59)
    assert await queue.head() == ["2"]
    api.clock.pass_by(seconds=1)
    assert await queue.head() == ["1", "2"]
    assert "lockExpiresAt" not in await queue.request(1)
    assert await queue.lock("c2", limit=1) == ["1"]
    refused = await queue.prolong(1, "lockSecs=60&clientKey=c1", 403)
    assert refused["type"] == "request-not-locked"
    assert (await queue.drop(1, "clientKey=c1", 403))["type"] == "request-not-locked"
    await queue.prolong(1, "lockSecs=60&clientKey=c2")


async def test_whether_any_is_locked(api: Any, queue: Queue) -> None:
    """JavaScript's SDK ends a crawl when nothing is at the head and nothing is locked."""

    async def has_locked() -> bool:
        answer = await queue.ask("POST", "/head/lock?lockSecs=60&limit=25&clientKey=c2", 201, headers=FORM)
        assert answer["items"] == []
        return bool(answer["queueHasLockedRequests"])

    assert not await has_locked()
    await queue.add(a(1))
    await queue.lock("c1")
    assert await has_locked()
    await queue.handle(1, "clientKey=c1")
    assert not await has_locked()


async def test_prolong(api: Any, queue: Queue) -> None:
    """From now on, so long; where that is asked for, it comes back in front."""
    await queue.add_all([1, 2, 3])
    await queue.lock(limit=2)
    api.clock.pass_by(seconds=30)
    prolonged = await queue.prolong(2, "lockSecs=90&forefront=1&clientKey=c1")
    models.ProlongRequestLockResponse.model_validate({"data": prolonged})
    assert prolonged == {"lockExpiresAt": "2026-03-04T05:08:07.890Z"}
    assert (await queue.request(2))["lockExpiresAt"] == prolonged["lockExpiresAt"]
    api.clock.pass_by(seconds=30)
    assert await queue.head() == ["1", "3"]
    api.clock.pass_by(seconds=60)
    assert await queue.head() == ["2", "1", "3"]


async def test_drop(queue: Queue) -> None:
    """Free at once, at the old place or in front; its lock is seen no more."""
    await queue.add_all([1, 2, 3])
    await queue.lock()
    await queue.drop(2, "clientKey=c1")
    await queue.drop(3, "clientKey=c1&forefront=true")
    assert await queue.head() == ["3", "2"]
    assert "lockExpiresAt" not in await queue.request(2)
    await queue.drop(2, "clientKey=c1")  # as who repeats himself
    await queue.lock("other")
    assert (await queue.drop(2, "clientKey=c1", 403))["type"] == "request-not-locked"


async def test_a_reclaim_in_javascript(queue: Queue) -> None:
    """It puts the request back in front, which frees it, and then drops the lock that it no longer has."""
    await queue.add_all([1, 2])
    assert await queue.lock(limit=1) == ["1"]
    await queue.put(a(1, retryCount=1, errorMessages=["Error"]), "forefront=1&clientKey=c1")
    assert await queue.head() == ["1", "2"]
    await queue.drop(1, "forefront=1&clientKey=c1")
    assert await queue.head() == ["1", "2"]


@pytest.mark.parametrize("query", ["clientKey=c1", ""], ids=["with a key", "with none"])
async def test_unlock(queue: Queue, query: str) -> None:
    """All that this client holds, and nothing of another's; how many it was."""
    await queue.add_all(range(10))
    data = await queue.ask("POST", f"/head/lock?lockSecs=60&limit=4&{query}", 201)
    assert len(data["items"]) == 4
    await queue.lock("other", limit=3)
    unlocked = await queue.ask("POST", f"/requests/unlock?{query}", 200, headers=FORM)
    models.UnlockRequestsResponse.model_validate({"data": unlocked})
    assert unlocked == {"unlockedCount": 4}
    assert len(await queue.head()) == 7
    assert await queue.ask("POST", f"/requests/unlock?{query}", 200) == {"unlockedCount": 0}


async def test_locks_of_runs(api: Any, bob: Any) -> None:
    """Two runs that send the same key, and their owner with it, don't get at each other's locks."""
    await bob.built_actor()
    runs = [await api.run_itself(await bob.post("/actors/hello/runs")) for _ in range(2)]
    queue_id = (await runs[0].post("/request-queues?name=shared"))["id"]
    first, second, owner = (Queue(caller, f"/request-queues/{queue_id}") for caller in (*runs, bob))
    await first.add_all(range(6))
    assert await first.lock("key", limit=3) == ["0", "1", "2"]
    assert await second.lock("key", limit=2) == ["3", "4"]
    for stranger in (second, owner):
        assert (await stranger.prolong(0, "lockSecs=9&clientKey=key", 403))["type"] == "request-not-locked"
    assert await owner.ask("POST", "/requests/unlock?clientKey=key", 200) == {"unlockedCount": 0}
    assert await second.ask("POST", "/requests/unlock?clientKey=key", 200) == {"unlockedCount": 2}
    assert await first.ask("POST", "/requests/unlock?clientKey=key", 200) == {"unlockedCount": 3}


async def test_each_is_locked_once(queue: Queue) -> None:
    """Clients that lock at the same moment never get the same request."""
    await queue.add_all(range(60))
    async with asyncio.TaskGroup() as group:
        locks = [group.create_task(queue.lock(f"c{n}", limit=5)) for n in range(12)]
    locked = [name for lock in locks for name in lock.result()]
    assert sorted(locked, key=int) == [str(n) for n in range(60)]


# Clients and owners


@pytest.mark.parametrize(
    ("keys", "had"),
    [(["c1", "c1"], False), (["c1", "c2"], True), (["c1", ""], True)],
    ids=["one", "two", "one that doesn't say who it is"],
)
async def test_had_multiple_clients(queue: Queue, keys: list[str], had: bool) -> None:
    """Once a second client has come, it is never forgotten."""
    await queue.add(a(1), f"clientKey={keys[0]}")
    await queue.head(f"clientKey={keys[1]}")
    assert (await queue.ask("GET", "/head?clientKey=c1", 200))["hadMultipleClients"] is had
    assert (await queue.view())["hadMultipleClients"] is had


async def test_under_the_addresses_of_a_run(api: Any, bob: Any) -> None:
    """A run's default queue is the same queue there, for the run and its owner."""
    await bob.built_actor()
    started = await bob.post("/actors/hello/runs")
    run = await api.run_itself(started)
    paths = (
        f"/request-queues/{started['defaultRequestQueueId']}",
        f"/actor-runs/{started['id']}/request-queue",
        f"/actors/hello/runs/{started['id']}/request-queue",
        "/actors/hello/runs/last/request-queue",
    )
    for number, path in enumerate(paths):
        await Queue(run, path).add(a(number))
        await Queue(bob, path).add_all([f"b{number}"])
    expected = [f"{prefix}{number}" for number in range(len(paths)) for prefix in ("", "b")]
    for path in paths:
        assert await Queue(run, path).head() == expected
        assert [request.unique_key for request in (await Queue(bob, path).listed()).items] == expected


CALLS = [
    ("GET", "/head"),
    ("POST", "/head/lock?lockSecs=9"),
    ("GET", "/requests"),
    ("POST", "/requests"),
    ("POST", "/requests/batch"),
    ("DELETE", "/requests/batch"),
    ("POST", "/requests/unlock"),
    ("GET", f"/requests/{rid(1)}"),
    ("PUT", f"/requests/{rid(1)}"),
    ("DELETE", f"/requests/{rid(1)}"),
    ("PUT", f"/requests/{rid(1)}/lock?lockSecs=9"),
    ("DELETE", f"/requests/{rid(1)}/lock"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_whose_it_is(api: Any, bob: Any, queue: Queue, method: str, path: str) -> None:
    """To everybody else it is not there; other Actors' runs are told why they may not; a reader may not write."""
    await queue.add(a(1))
    stranger = Queue(api.eve, queue.path)
    assert (await stranger.ask(method, path, 404, json=[a(2)]))["type"] == "record-not-found"
    await bob.built_actor()
    run = Queue(await api.run_itself(await bob.post("/actors/hello/runs")), queue.path)
    assert (await run.ask(method, path, 403, json=[a(2)]))["type"] == "insufficient-permissions"
    reader = Queue(await api.caller(bob.user, frozenset({"storages:read"})), queue.path)
    if method != "GET":
        assert (await reader.ask(method, path, 403, json=[a(2)]))["type"] == "insufficient-permissions"
    else:
        await reader.ask(method, path, 200)
    assert [request.unique_key for request in (await queue.listed("filter=pending")).items] == ["1"]


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_of_another_kind(bob: Any, method: str, path: str) -> None:
    """A dataset is no queue."""
    dataset = Queue(bob, f"/request-queues/{(await bob.post('/datasets'))['id']}")
    assert (await dataset.ask(method, path, 404, json=[a(2)]))["type"] == "record-not-found"
