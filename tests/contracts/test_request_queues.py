"""What every adapter of the storages promises of request queues."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest, RecordNotFound, RequestNotLocked
from gateway.core.model import Storage, StorageKind
from gateway.core.storages import QueuedRequest, QueueHead, shown_stats
from gateway.state.records import open_records
from gateway.state.storages import SqlStorages

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
QUEUE = StorageKind.REQUEST_QUEUE
MakeStorage: TypeAlias = Callable[..., Awaitable[Storage]]


def at(secs: float) -> datetime:
    return START + timedelta(seconds=secs)


def a_request(name: str, *, handled_at: datetime | None = None, **data: Any) -> QueuedRequest:
    url = f"https://example.com/{name}"
    return QueuedRequest(
        id=name, unique_key=url, data={"uniqueKey": url, "url": url, "method": "GET", **data}, handled_at=handled_at
    )


@dataclass
class Queue:
    """One queue and one client, with as few words as the tests need."""

    storages: SqlStorages
    id: str
    client: str | None = "client"

    async def add(self, *names: str, forefront: bool = False, now: datetime = START) -> list[tuple[bool, bool]]:
        """For each whether it was present and whether it was handled."""
        requests = [a_request(name) for name in names]
        answers = await self.storages.add_requests(self.id, requests, forefront=forefront, client=self.client, now=now)
        assert [answer.request_id for answer in answers] == list(names)
        return [(answer.was_already_present, answer.was_already_handled) for answer in answers]

    async def put(self, request: QueuedRequest, *, forefront: bool = False, now: datetime = START) -> tuple[bool, bool]:
        answer = await self.storages.put_request(self.id, request, forefront=forefront, client=self.client, now=now)
        assert (answer.request_id, answer.unique_key) == (request.id, request.unique_key)
        return answer.was_already_present, answer.was_already_handled

    async def head(self, *, limit: int = 100, now: datetime = START) -> list[str]:
        return names(await self.storages.head(self.id, limit=limit, client=self.client, now=now))

    async def lock(self, *, limit: int = 100, owner: str = "me", secs: float = 60, now: datetime = START) -> list[str]:
        head = await self.storages.lock_head(
            self.id, limit=limit, until=now + timedelta(seconds=secs), owner=owner, client=self.client, now=now
        )
        return names(head)

    async def list(self, *, now: datetime = START, limit: int = 100, **wanted: Any) -> list[str]:
        filters = {"after": None, "is_pending": False, "is_locked": False, **wanted}
        return [request.id for request in await self.storages.list_requests(self.id, limit=limit, now=now, **filters)]

    async def stats(self) -> dict[str, Any]:
        """How many requests there are."""
        return {name: value for name, value in (await self.all_stats()).items() if name.endswith("RequestCount")}

    async def all_stats(self) -> dict[str, Any]:
        storage = await self.storages.storage(QUEUE, self.id)
        assert storage is not None
        return shown_stats(storage.stats)

    async def modified_at(self) -> datetime:
        storage = await self.storages.storage(QUEUE, self.id)
        assert storage is not None
        return storage.modified_at


def names(head: QueueHead) -> list[str]:
    return [request.id for request in head.items]


@pytest.fixture
async def queue(storages: SqlStorages, make_storage: MakeStorage) -> Queue:
    """An empty queue."""
    return Queue(storages, (await make_storage(QUEUE)).id)


# Adding, replacing, deleting


async def test_a_request_comes_back_as_it_was(queue: Queue):
    """Each field that the client gave, whatever it is called."""
    request = a_request("a", userData={"é": [1, None, {"b": "\ud83d"}]}, payload="x" * 10_000, noRetry=False, label="L")
    await queue.storages.add_requests(queue.id, [request], forefront=False, client="client", now=START)
    found = await queue.storages.request(queue.id, "a", now=START)
    assert found == request
    assert list(found.data) == list(request.data)
    assert (await queue.storages.head(queue.id, limit=1, client="client", now=START)).items == (request,)
    assert await queue.storages.request(queue.id, "A", now=START) is None


async def test_a_request_is_added_once(queue: Queue):
    """A second one of its id changes nothing, and the answer tells what the first one is now."""
    assert await queue.add("a", "b") == [(False, False)] * 2
    await queue.put(a_request("b", handled_at=START))
    changed = a_request("a", label="another")
    assert (await queue.storages.add_requests(queue.id, [changed], forefront=True, client="client", now=START))[
        0
    ].was_already_present
    assert await queue.storages.request(queue.id, "a", now=START) == a_request("a")
    assert await queue.add("c", "b", "c", "a") == [(False, False), (True, True), (True, False), (True, False)]
    assert await queue.head() == ["a", "c"]
    assert await queue.list() == ["a", "b", "c"]


async def test_a_request_may_come_handled(queue: Queue):
    """It is stored as handled and never handed out."""
    handled = a_request("a", handled_at=START)
    await queue.storages.add_requests(queue.id, [handled], forefront=False, client="client", now=START)
    assert await queue.head() == []
    assert await queue.add("a") == [(True, True)]
    assert await queue.stats() == {"totalRequestCount": 1, "handledRequestCount": 1, "pendingRequestCount": 0}


async def test_many_requests_in_one_call(queue: Queue):
    """More than one statement may name; again, with one that is new, only that is added."""
    many = [f"r{number:04}" for number in range(1203)]
    assert set(await queue.add(*many)) == {(False, False)}
    assert await queue.add(*many, "new") == [(True, False)] * len(many) + [(False, False)]
    assert await queue.head(limit=2000) == [*many, "new"]
    gone = await queue.storages.delete_requests(queue.id, [*many, *many, "no"], client="client", now=START)
    assert [request.id for request in gone] == many
    assert await queue.head() == ["new"]
    assert await queue.stats() == {"totalRequestCount": 1, "handledRequestCount": 0, "pendingRequestCount": 1}


async def test_the_official_order_of_forefront_requests(queue: Queue):
    """1, 2, 3, then P1 and P2 in front, one after the other: P2, P1, 1, 2, 3. Source: apify-wire.md §7.4."""
    await queue.add("1", "2", "3")
    await queue.add("P1", forefront=True)
    await queue.add("P2", forefront=True)
    assert [(await queue.lock(limit=1))[0] for _ in range(5)] == ["P2", "P1", "1", "2", "3"]


async def test_a_batch_in_front(queue: Queue):
    """Later ones stand before earlier ones, as if they had come one by one."""
    await queue.add("1")
    await queue.add("P1", "P2", forefront=True)
    assert await queue.head() == ["P2", "P1", "1"]


async def test_a_new_request_in_front_of_a_reclaimed_one(queue: Queue):
    """Reclaimed in front, it is overtaken by one that is added in front afterwards."""
    await queue.add("1", "2")
    assert await queue.lock(limit=1) == ["1"]
    await queue.storages.drop_lock(queue.id, "1", owner="me", forefront=True, now=START)
    await queue.add("P", forefront=True)
    assert await queue.head() == ["P", "1", "2"]


@pytest.mark.parametrize(
    ("handled", "forefront", "head"),
    [
        pytest.param(True, False, ["b", "c"], id="handled: out of the head"),
        pytest.param(True, True, ["b", "c"], id="handled, in front or not"),
        pytest.param(False, False, ["b", "c", "a"], id="reclaimed: to the end"),
        pytest.param(False, True, ["a", "b", "c"], id="reclaimed in front"),
    ],
)
async def test_putting_a_request(queue: Queue, handled: bool, forefront: bool, head: list[str]):
    """The whole of it is replaced; it stands where it is put, and keeps its place in the list."""
    await queue.add("a", "b", "c")
    changed = replace(a_request("a", retryCount=3, handled_at=START if handled else None), unique_key="other")
    assert await queue.put(changed, forefront=forefront) == (True, False)
    assert await queue.storages.request(queue.id, "a", now=START) == changed
    assert await queue.head() == head
    assert await queue.list() == ["a", "b", "c"]
    assert await queue.put(a_request("a")) == (True, handled)
    assert await queue.head() == ["b", "c", "a"]


async def test_putting_an_unknown_request_inserts_it(queue: Queue):
    """A client that has handled a request that was never sent says so with one call."""
    assert await queue.put(a_request("a", handled_at=START)) == (False, False)
    assert await queue.put(a_request("b")) == (False, False)
    assert await queue.put(a_request("c"), forefront=True) == (False, False)
    assert await queue.head() == ["c", "b"]
    assert await queue.list() == ["a", "b", "c"]
    assert await queue.stats() == {"totalRequestCount": 3, "handledRequestCount": 1, "pendingRequestCount": 2}


async def test_a_put_and_its_lock(queue: Queue):
    """It is dropped: the Python SDK gives a request back by nothing else. To drop it once more is fine."""
    await queue.add("a")
    await queue.lock()
    await queue.put(a_request("a"))
    assert await queue.lock() == ["a"]
    await queue.put(a_request("a", handled_at=START))
    await queue.storages.drop_lock(queue.id, "a", owner="me", forefront=True, now=START)
    assert await queue.head() == []
    with pytest.raises(RequestNotLocked):
        await queue.storages.prolong_lock(queue.id, "a", until=at(9), owner="me", forefront=False, now=START)
    await queue.put(a_request("a"))
    assert await queue.storages.request(queue.id, "a", now=START) == a_request("a")
    assert await queue.head() == ["a"]


async def test_deleting_requests(queue: Queue):
    """Those that were there are answered, with their locks; a deleted one can be added anew, at the end."""
    await queue.add("a", "b", "c")
    await queue.put(a_request("b", handled_at=START))
    assert await queue.lock(limit=1) == ["a"]
    gone = await queue.storages.delete_requests(queue.id, ["b", "x", "a"], client="client", now=START)
    locked = replace(a_request("a"), lock_expires_at=at(60), lock_owner="me")
    assert gone == [a_request("b", handled_at=START), locked]
    assert await queue.stats() == {"totalRequestCount": 1, "handledRequestCount": 0, "pendingRequestCount": 1}
    assert await queue.storages.delete_requests(queue.id, ["a"], client="client", now=START) == []
    assert await queue.add("a") == [(False, False)]
    assert await queue.list() == ["c", "a"]


# Lists


async def test_pages_of_a_list(queue: Queue):
    """Disjoint, in the order of adding, whatever happened to the requests since."""
    every = [f"r{number}" for number in range(10)]
    await queue.add(*every)
    await queue.add("front", forefront=True)
    await queue.put(a_request("r3", handled_at=START))
    first = await queue.list(limit=4)
    second = await queue.list(limit=4, after=first[-1])
    third = await queue.list(limit=4, after=second[-1])
    assert first + second + third == [*every, "front"]
    assert await queue.list(after="front") == []


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param({}, ["a", "b", "c", "d"], id="all"),
        pytest.param({"is_pending": True}, ["a", "b", "d"], id="pending ones, locked or not"),
        pytest.param({"is_locked": True}, ["a", "b"], id="locked ones"),
        pytest.param({"is_locked": True, "is_pending": True}, ["a", "b"], id="both"),
        pytest.param({"is_locked": True, "now": at(60)}, [], id="locks that have expired"),
        pytest.param({"is_pending": True, "after": "a"}, ["b", "d"], id="after one of them"),
    ],
)
async def test_filters_of_a_list(queue: Queue, wanted: dict[str, Any], expected: list[str]):
    """Only such requests, with the locks that still hold."""
    await queue.add("a", "b", "c", "d")
    await queue.put(a_request("c", handled_at=START))
    await queue.lock(limit=2)
    assert await queue.list(**wanted) == expected


async def test_a_list_after_what_is_gone(queue: Queue):
    """Told as such, instead of a page that leaves some out or repeats some."""
    await queue.add("a", "b")
    await queue.storages.delete_requests(queue.id, ["a"], client="client", now=START)
    with pytest.raises(InvalidRequest, match="begin anew"):
        await queue.list(after="a")


# Locks


async def test_lock_10_of_15(queue: Queue):
    """They are hidden from heads and from others' locks until their lock expires; then they are at their place."""
    every = [f"r{number:02}" for number in range(15)]
    await queue.add(*every)
    head = await queue.storages.lock_head(queue.id, limit=10, until=at(60), owner="me", client="client", now=START)
    assert names(head) == every[:10]
    assert {(request.lock_expires_at, request.lock_owner) for request in head.items} == {(at(60), "me")}
    assert head.has_locked_requests
    assert await queue.head(now=at(59.999)) == every[10:]
    assert await queue.lock(owner="other", now=at(1), secs=100) == every[10:]
    assert await queue.lock(owner="other", now=at(59.999)) == []
    found = await queue.storages.request(queue.id, "r00", now=at(59.999))
    assert found == replace(a_request("r00"), lock_expires_at=at(60), lock_owner="me")
    assert await queue.storages.request(queue.id, "r00", now=at(60)) == a_request("r00")
    assert await queue.head(now=at(60)) == every[:10]
    assert await queue.lock(owner="other", limit=2, now=at(60)) == every[:2]


@pytest.mark.parametrize("forefront", [False, True])
async def test_prolonging_a_lock(queue: Queue, forefront: bool):
    """It holds until the new time; with forefront the request is in front afterwards."""
    await queue.add("a", "b")
    await queue.lock()
    await queue.storages.prolong_lock(queue.id, "b", until=at(100), owner="me", forefront=forefront, now=at(59))
    assert await queue.head(now=at(99)) == ["a"]
    assert await queue.head(now=at(100)) == (["b", "a"] if forefront else ["a", "b"])


@pytest.mark.parametrize("forefront", [False, True])
async def test_dropping_a_lock(queue: Queue, forefront: bool):
    """The request is free at once, and shows no lock."""
    await queue.add("a", "b", "c")
    await queue.lock(limit=2)
    await queue.storages.drop_lock(queue.id, "b", owner="me", forefront=forefront, now=START)
    assert await queue.storages.request(queue.id, "b", now=START) == a_request("b")
    assert await queue.head() == ["b", "c"]
    await queue.storages.drop_lock(queue.id, "a", owner="me", forefront=False, now=START)
    assert await queue.head() == (["b", "a", "c"] if forefront else ["a", "b", "c"])


@pytest.mark.parametrize(
    ("request_id", "owner", "now", "error"),
    [
        pytest.param("a", "other", START, RequestNotLocked, id="somebody else's"),
        pytest.param("a", "me", at(60), RequestNotLocked, id="expired"),
        pytest.param("b", "me", START, RequestNotLocked, id="never locked"),
        pytest.param("c", "me", START, RequestNotLocked, id="handled"),
        pytest.param("x", "me", START, RecordNotFound, id="no such request"),
    ],
)
async def test_only_who_holds_a_lock_changes_it(
    queue: Queue, request_id: str, owner: str, now: datetime, error: type[Exception]
):
    """All others are told, and nothing changes."""
    await queue.add("a", "b", "c")
    await queue.lock(limit=1)
    await queue.put(a_request("c", handled_at=START))
    before = await queue.storages.storage(QUEUE, queue.id)
    mine: dict[str, Any] = {"owner": owner, "forefront": True, "now": now}
    with pytest.raises(error):
        await queue.storages.prolong_lock(queue.id, request_id, until=at(1000), **mine)
    if owner == "other" or error is RecordNotFound:
        with pytest.raises(error):
            await queue.storages.drop_lock(queue.id, request_id, **mine)
    assert await queue.storages.storage(QUEUE, queue.id) == before
    assert await queue.head() == ["b"]
    assert await queue.head(now=at(60)) == ["a", "b"]


async def test_unlocking_all(queue: Queue):
    """Exactly those whose lock the owner holds and that has not expired."""
    await queue.add("a", "b", "c", "d", "e")
    await queue.lock(limit=1, secs=10)
    await queue.lock(limit=2)
    await queue.lock(limit=1, owner="other")
    assert await queue.storages.unlock_all(queue.id, owner="me", now=at(10)) == 2
    assert await queue.storages.unlock_all(queue.id, owner="me", now=at(10)) == 0
    assert await queue.head(now=at(10)) == ["a", "b", "c", "e"]


async def test_whether_anything_is_locked(queue: Queue):
    """Told with each head: clients end only when nothing waits and nothing is locked."""
    await queue.add("a")

    async def is_locked(secs: float) -> list[bool]:
        asked: dict[str, Any] = {"limit": 5, "client": "client", "now": at(secs)}
        head = await queue.storages.head(queue.id, **asked)
        locked_head = await queue.storages.lock_head(queue.id, until=at(60), owner="other", **asked)
        return [head.has_locked_requests, locked_head.has_locked_requests]

    await queue.lock(secs=10)
    assert await is_locked(9) == [True, True]
    await queue.put(a_request("a", handled_at=START))
    assert await is_locked(9) == [False, False]


async def test_20_callers_never_get_one_request_twice(queue: Queue, records_url: str):
    """At the same moment, in two processes: each request is handed out once, and none is left behind."""
    every = [f"r{number:03}" for number in range(100)]
    await queue.add(*every)
    async with open_records(records_url) as others:
        second = Queue(others.storages, queue.id)
        answers = await asyncio.gather(
            *((queue, second)[number % 2].lock(limit=7, owner=f"owner {number}") for number in range(20))
        )
    given_out = [name for answer in answers for name in answer]
    assert sorted(given_out) == every
    assert max(len(answer) for answer in answers) == 7


async def test_concurrent_adding_counts_right(queue: Queue, records_url: str):
    """Many callers add the same requests and some of their own: each is there once, and the counters say so."""
    async with open_records(records_url) as others:
        second = Queue(others.storages, queue.id)
        answers = await asyncio.gather(
            *(
                (queue, second)[number % 2].add("same", f"own {number}", forefront=number % 3 == 0)
                for number in range(20)
            )
        )
    assert sum(not answer[0][0] for answer in answers) == 1
    assert await queue.stats() == {"totalRequestCount": 21, "handledRequestCount": 0, "pendingRequestCount": 21}
    assert sorted(await queue.head()) == sorted(["same", *(f"own {number}" for number in range(20))])
    assert len(await queue.list()) == 21


# What the queue knows of its clients and of its changes


@pytest.mark.parametrize(
    ("clients", "expected"),
    [
        pytest.param(["a", "a", "a"], [False, False, False], id="one client"),
        pytest.param(["a", "b", "a"], [False, True, True], id="a second one, for ever"),
        pytest.param(["a", None, "a"], [False, True, True], id="one without a key"),
        pytest.param([None], [True], id="nobody knows how many"),
    ],
)
@pytest.mark.parametrize("call", ["head", "lock_head", "add", "put", "delete"])
async def test_multiple_clients(queue: Queue, call: str, clients: list[str | None], expected: list[bool]):
    """Whatever they call, also where the call changes nothing, the head and the queue itself tell of them."""

    async def do(client: str | None) -> None:
        asked: dict[str, Any] = {"client": client, "now": START}
        if call == "head":
            await queue.storages.head(queue.id, limit=1, **asked)
        elif call == "lock_head":
            await queue.storages.lock_head(queue.id, limit=1, until=at(1), owner="me", **asked)
        elif call == "add":
            await queue.storages.add_requests(queue.id, [a_request("a")], forefront=False, **asked)
        elif call == "put":
            await queue.storages.put_request(queue.id, a_request("a"), forefront=False, **asked)
        else:
            await queue.storages.delete_requests(queue.id, ["a"], **asked)

    said = []
    for client in clients:
        await do(client)
        said.append((await queue.all_stats()).get("hadMultipleClients", False))
    assert said == expected
    head = await queue.storages.head(queue.id, limit=1, client="a", now=START)
    assert head.had_multiple_clients == expected[-1]
    assert not any(name.startswith("_") for name in await queue.all_stats())


async def test_writes_are_counted(queue: Queue):
    """As the SDK's own tests count them: what is stored, locked and changed; what was there already is no write."""
    await queue.add("a", "b", "a")
    await queue.add("a")
    assert (await queue.all_stats())["writeCount"] == 2
    await queue.lock(limit=1)
    await queue.put(a_request("a", handled_at=START))
    await queue.storages.delete_requests(queue.id, ["b", "x"], client="client", now=START)
    stats = await queue.all_stats()
    assert (stats["writeCount"], stats["deleteCount"]) == (4, 1)


async def test_the_head_tells_of_a_second_client_at_once(queue: Queue):
    """The one who makes it two is told so by the same call."""
    await queue.add("a")
    for call in (
        queue.storages.head(queue.id, limit=1, client="second", now=START),
        queue.storages.lock_head(queue.id, limit=1, until=at(1), owner="me", client="second", now=START),
    ):
        assert (await call).had_multiple_clients


async def test_a_queue_tells_when_it_was_changed(queue: Queue):
    """Each write that changes something moves the time, no read and no write of nothing does."""
    changes: list[Callable[[datetime], Awaitable[Any]]] = [
        lambda now: queue.add("a", "b", now=now),
        lambda now: queue.lock(limit=1, now=now),
        lambda now: queue.storages.prolong_lock(queue.id, "a", until=at(99), owner="me", forefront=False, now=now),
        lambda now: queue.storages.drop_lock(queue.id, "a", owner="me", forefront=False, now=now),
        lambda now: queue.lock(limit=1, now=now),
        lambda now: queue.storages.unlock_all(queue.id, owner="me", now=now),
        lambda now: queue.put(a_request("a", handled_at=START), now=now),
        lambda now: queue.storages.delete_requests(queue.id, ["a"], client="client", now=now),
    ]
    for secs, change in enumerate(changes, 1):
        await change(at(secs))
        assert await queue.modified_at() == at(secs)
    last = at(len(changes))
    await queue.lock(now=last)
    nothing: list[Callable[[datetime], Awaitable[Any]]] = [
        lambda now: queue.add("b", now=now),
        lambda now: queue.lock(now=now),
        lambda now: queue.head(now=now),
        lambda now: queue.list(now=now),
        lambda now: queue.storages.unlock_all(queue.id, owner="other", now=now),
        lambda now: queue.storages.delete_requests(queue.id, ["x"], client="another", now=now),
    ]
    for call in nothing:
        await call(at(20))
        assert await queue.modified_at() == last
    assert (await queue.storages.head(queue.id, limit=1, client="client", now=at(20))).modified_at == last


async def test_polling_takes_nobodys_turn(queue: Queue):
    """Heads, and locks of a head without a free request, are answered while another call writes."""
    await queue.head()
    begun, end = asyncio.Event(), asyncio.Event()

    async def write(_: object) -> None:
        begun.set()
        await end.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(queue.storages._database.write(write))
        await begun.wait()
        try:
            async with asyncio.timeout(5):
                assert await queue.head() == []
                assert await queue.lock() == []
        finally:
            end.set()


# A model

NAMES = st.sampled_from("abcdef")
OWNERS = st.sampled_from(["me", "you"])
STEPS = st.one_of(
    st.tuples(st.just("add"), st.lists(NAMES, max_size=4), st.booleans()),
    st.tuples(st.just("put"), NAMES, st.booleans(), st.booleans()),
    st.tuples(st.just("delete"), st.lists(NAMES, max_size=2)),
    st.tuples(st.just("lock"), OWNERS, st.integers(1, 3), st.integers(1, 9)),
    st.tuples(st.just("prolong"), NAMES, OWNERS, st.integers(1, 9), st.booleans()),
    st.tuples(st.just("drop"), NAMES, OWNERS, st.booleans()),
    st.tuples(st.just("unlock"), OWNERS),
    st.tuples(st.just("wait"), st.integers(1, 9)),
)


@dataclass
class Model:
    """A queue as lists: what an adapter must be indistinguishable from."""

    added: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    locks: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    now: datetime = START

    def free(self) -> list[str]:
        return [name for name in self.pending if name not in self.locks]

    def place(self, name: str, *, forefront: bool) -> None:
        if name in self.pending:
            self.pending.remove(name)
        self.pending.insert(0 if forefront else len(self.pending), name)

    def add(self, asked: Iterable[str], forefront: bool) -> list[tuple[bool, bool]]:
        answers = []
        for name in asked:
            answers.append((name in self.added, name in self.added and name not in self.pending))
            if name not in self.added:
                self.added.append(name)
                self.place(name, forefront=forefront)
        return answers

    def put(self, name: str, forefront: bool, handled: bool) -> tuple[bool, bool]:
        answer = (name in self.added, name in self.added and name not in self.pending)
        if name not in self.added:
            self.added.append(name)
        self.locks.pop(name, None)
        if handled:
            self.pending = [other for other in self.pending if other != name]
        else:
            self.place(name, forefront=forefront)
        return answer

    def delete(self, asked: Iterable[str]) -> list[str]:
        gone = [name for name in dict.fromkeys(asked) if name in self.added]
        for name in gone:
            self.added.remove(name)
            self.locks.pop(name, None)
        self.pending = [name for name in self.pending if name not in gone]
        return gone

    def lock(self, owner: str, limit: int, secs: int) -> list[str]:
        taken = self.free()[:limit]
        self.locks |= dict.fromkeys(taken, (owner, self.now + timedelta(seconds=secs)))
        return taken

    def change_lock(self, name: str, owner: str, secs: int | None, forefront: bool) -> type[Exception] | None:
        if name not in self.added:
            return RecordNotFound
        holder = self.locks.get(name, (None, START))[0]
        if holder != owner and not (holder is None and secs is None):
            return RequestNotLocked
        if secs is None:
            self.locks.pop(name, None)
        else:
            self.locks[name] = (owner, self.now + timedelta(seconds=secs))
        if forefront and name in self.pending:
            self.place(name, forefront=True)
        return None

    def unlock(self, owner: str) -> int:
        mine = [name for name, (holder, _) in self.locks.items() if holder == owner]
        for name in mine:
            del self.locks[name]
        return len(mine)

    def wait(self, secs: int) -> None:
        self.now += timedelta(seconds=secs)
        self.locks = {name: lock for name, lock in self.locks.items() if lock[1] > self.now}


async def _raised(call: Awaitable[None]) -> type[Exception] | None:
    try:
        await call
    except (RecordNotFound, RequestNotLocked) as error:
        return type(error)
    return None


async def _do(queue: Queue, model: Model, step: tuple[Any, ...]) -> None:
    """The same step by both, with the same answer."""
    storages, now = queue.storages, model.now
    match step:
        case "add", asked, forefront:
            assert await queue.add(*asked, forefront=forefront, now=now) == model.add(asked, forefront)
        case "put", name, forefront, handled:
            request = a_request(name, handled_at=now if handled else None)
            assert await queue.put(request, forefront=forefront, now=now) == model.put(name, forefront, handled)
        case "delete", asked:
            gone = await storages.delete_requests(queue.id, asked, client=queue.client, now=now)
            assert [request.id for request in gone] == model.delete(asked)
        case "lock", owner, limit, secs:
            taken = await queue.lock(owner=owner, limit=limit, secs=secs, now=now)
            assert taken == model.lock(owner, limit, secs)
        case "prolong", name, owner, secs, forefront:
            until = now + timedelta(seconds=secs)
            call = storages.prolong_lock(queue.id, name, until=until, owner=owner, forefront=forefront, now=now)
            assert await _raised(call) == model.change_lock(name, owner, secs, forefront)
        case "drop", name, owner, forefront:
            call = storages.drop_lock(queue.id, name, owner=owner, forefront=forefront, now=now)
            assert await _raised(call) == model.change_lock(name, owner, None, forefront)
        case "unlock", owner:
            assert await storages.unlock_all(queue.id, owner=owner, now=now) == model.unlock(owner)
        case _, secs:
            model.wait(secs)


@given(steps=st.lists(STEPS, max_size=25))
@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
async def test_a_queue_is_what_its_model_is(
    storages: SqlStorages, make_storage: MakeStorage, steps: list[tuple[Any, ...]]
):
    """After any steps: the same answers, head, lists, locks and counters as plain lists would give."""
    queue, model = Queue(storages, (await make_storage(QUEUE)).id), Model()
    for step in steps:
        await _do(queue, model, step)
        head = await storages.head(queue.id, limit=100, client=queue.client, now=model.now)
        assert names(head) == model.free()
        assert head.has_locked_requests == bool(model.locks)
        assert await queue.list(now=model.now) == model.added
        assert await queue.list(now=model.now, is_pending=True) == [n for n in model.added if n in model.pending]
        assert await queue.list(now=model.now, is_locked=True) == [n for n in model.added if n in model.locks]
        total, pending = len(model.added), len(model.pending)
        stats = await queue.stats()
        counts = [stats.get(f"{name}RequestCount", 0) for name in ("total", "handled", "pending")]
        assert counts == [total, total - pending, pending]
