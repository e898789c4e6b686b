"""
Storages and queues by the official Python client, both its sync and its async half, against a real server.

The promises are those of the client's and SDK's own integration tests. Source: apify-wire.md §11.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from apify_client import ApifyClient, ApifyClientAsync
from apify_client.errors import ApifyApiError
from journeys.greenroom import TOKEN, Greenroom, eventually

pytestmark = pytest.mark.slow

MINUTE = timedelta(minutes=1)
KINDS = [("dataset", "datasets"), ("key_value_store", "key_value_stores"), ("request_queue", "request_queues")]


@pytest.fixture
async def greenroom(tmp_path: Path) -> AsyncIterator[Greenroom]:
    async with Greenroom(tmp_path / "data") as running:
        yield running


@pytest.fixture
def client(greenroom: Greenroom) -> ApifyClientAsync:
    """The async client, told not to repeat itself, so that nothing is hidden."""
    return ApifyClientAsync(TOKEN, api_url=f"http://127.0.0.1:{greenroom.port}", max_retries=0)


def a(name: object, **fields: Any) -> Any:
    return {"unique_key": str(name), "url": f"https://a.com/{name}", **fields}


def keys_of(answer: Any) -> list[str]:
    return [request.unique_key for request in answer.items]


async def test_storages(client: ApifyClientAsync) -> None:
    """All kinds: made once, listed, renamed, deleted; what is deleted is none."""
    for of_one, of_all in KINDS:
        collection = getattr(client, of_all)()
        made = await collection.get_or_create(name="my-store")
        again = await collection.get_or_create(name="my-store")
        assert again.id == made.id
        unnamed = await collection.get_or_create()
        assert [item.name for item in (await collection.list()).items] == ["my-store"]
        assert [item.id for item in (await collection.list(unnamed=True)).items] == [made.id, unnamed.id]
        one = getattr(client, of_one)(made.id)
        assert (await one.update(name="other", general_access="RESTRICTED")).name == "other"
        with pytest.raises(ApifyApiError) as refused:
            await getattr(client, of_one)(unnamed.id).update(name="OTHER")
        assert (refused.value.status_code, refused.value.type) == (409, "name-not-unique")
        assert (await getattr(client, of_one)("local/other").get()).id == made.id
        await one.delete()
        assert await one.get() is None
        await one.delete()


async def test_sync_client(greenroom: Greenroom) -> None:
    """The sync half says the same in other words."""

    def crawl() -> list[str]:
        client = ApifyClient(TOKEN, api_url=f"http://127.0.0.1:{greenroom.port}", max_retries=0)
        queue: Any = client.request_queue(client.request_queues().get_or_create(name="sync").id, client_key="c1")
        # More than one batch, and large enough to be compressed.
        added = queue.batch_add_requests([a(number, user_data={"text": "ü" * 500}) for number in range(30)])
        assert len(added.processed_requests) == 30
        done = []
        while items := queue.list_and_lock_head(lock_duration=MINUTE, limit=7).items:
            for item in items:
                request = queue.get_request(item.id)
                assert request is not None
                assert request.user_data is not None
                assert request.user_data.model_extra == {"text": "ü" * 500}
                assert queue.update_request({**request.model_dump(), "handled_at": "2026-01-02T03:04:05.678Z"})
                done.append(request.unique_key)
        assert queue.list_and_lock_head(lock_duration=MINUTE).queue_has_locked_requests is False
        return done

    assert await asyncio.to_thread(crawl) == [str(number) for number in range(30)]


@pytest.fixture
async def queue(client: ApifyClientAsync) -> Any:
    """A queue with 15 requests."""
    made = await client.request_queues().get_or_create()
    queue = client.request_queue(made.id, client_key="c1")
    added = await queue.batch_add_requests([a(number) for number in range(15)], max_parallel=2)
    assert len(added.processed_requests) == 15
    assert added.unprocessed_requests == []
    return queue


async def test_locks(queue: Any) -> None:
    """Locked, prolonged, dropped at the place or in front, and all the rest at once, counted exactly."""
    head = await queue.list_and_lock_head(lock_duration=MINUTE, limit=10)
    assert len(head.items) == 10
    assert head.client_key == "c1"
    for item in head.items:
        locked = await queue.get_request(item.id)
        assert locked.model_extra["lockExpiresAt"]
    await queue.delete_request_lock(head.items[1].id)
    await queue.delete_request_lock(head.items[2].id, forefront=True)
    for item in head.items[1:3]:
        free = await queue.get_request(item.id)
        assert "lockExpiresAt" not in free.model_extra
    prolonged = await queue.prolong_request_lock(head.items[3].id, lock_duration=2 * MINUTE)
    assert prolonged.lock_expires_at > head.items[3].lock_expires_at
    assert keys_of(await queue.list_head(limit=2)) == [head.items[2].unique_key, head.items[1].unique_key]
    assert (await queue.unlock_requests()).unlocked_count == 8
    assert len((await queue.list_head(limit=100)).items) == 15


async def test_who_holds_a_lock(client: ApifyClientAsync, queue: Any) -> None:
    """Another client can neither prolong nor drop it."""
    item = (await queue.list_and_lock_head(lock_duration=MINUTE, limit=1)).items[0]
    other = client.request_queue((await client.request_queues().list(unnamed=True)).items[0].id, client_key="c2")
    for attempt in (
        other.prolong_request_lock(item.id, lock_duration=MINUTE),
        other.delete_request_lock(item.id),
    ):
        with pytest.raises(ApifyApiError) as refused:
            await attempt
        assert (refused.value.status_code, refused.value.type) == (403, "request-not-locked")
    await queue.prolong_request_lock(item.id, lock_duration=MINUTE)


async def test_a_lock_ends_by_itself(queue: Any) -> None:
    """After its time, on the server's own clock."""
    item = (await queue.list_and_lock_head(lock_duration=timedelta(seconds=1), limit=1)).items[0]
    assert item.unique_key not in keys_of(await queue.list_head())

    async def is_back() -> bool:
        return item.unique_key in keys_of(await queue.list_head())

    await eventually(is_back, what="the end of the lock")


async def test_lists(queue: Any) -> None:
    """Disjoint pages by cursor, all of them by the iterator; of the handled ones none among the pending."""
    first = await queue.list_requests(limit=10)
    second = await queue.list_requests(limit=10, cursor=first.next_cursor)
    assert keys_of(first) + keys_of(second) == [str(number) for number in range(15)]
    assert second.next_cursor is None
    for request in first.items[:5]:
        await queue.update_request({**request.model_dump(), "handled_at": "2026-01-02T03:04:05.678Z"})
    assert keys_of(await queue.list_requests(filter=["pending"])) == [str(number) for number in range(5, 15)]
    await queue.list_and_lock_head(lock_duration=MINUTE, limit=3)
    assert keys_of(await queue.list_requests(filter=["locked"])) == ["5", "6", "7"]
    iterated = [request.unique_key async for request in queue.iterate_requests(chunk_size=4)]
    assert iterated == [str(number) for number in range(15)]


async def test_deletes(queue: Any) -> None:
    """One by one and in batches."""
    ids = [request.id for request in (await queue.list_requests()).items]
    await queue.delete_request(ids[0])
    assert await queue.get_request(ids[0]) is None
    deleted = await queue.batch_delete_requests([{"id": ids[1]}, {"unique_key": "2"}])
    assert len(deleted.processed_requests) == 2
    assert keys_of(await queue.list_head()) == [str(number) for number in range(3, 15)]


async def test_forefront(queue: Any) -> None:
    """What was put in front last is taken first, also what is put back."""
    await queue.add_request(a("P1"), forefront=True)
    await queue.add_request(a("P2"), forefront=True)
    request = await queue.get_request((await queue.list_head()).items[3].id)
    await queue.update_request(request, forefront=True)
    await queue.add_request(a("P3"), forefront=True)
    assert keys_of(await queue.list_head(limit=5)) == ["P3", "1", "P2", "P1", "0"]


async def test_answers_survive_a_kill(greenroom: Greenroom, client: ApifyClientAsync) -> None:
    """What was answered before a ``kill -9`` is there after it: requests, their order, handled ones and locks."""
    made = await client.request_queues().get_or_create(name="durable")
    queue: Any = client.request_queue(made.id, client_key="c1")
    await queue.batch_add_requests([a(number) for number in range(5)])
    await queue.add_request(a("front"), forefront=True)
    locked = (await queue.list_and_lock_head(lock_duration=10 * MINUTE, limit=2)).items
    await queue.update_request(a("front", id=locked[0].id, handled_at="2026-01-02T03:04:05.678Z"))
    await greenroom.kill()
    await greenroom.client.aclose()
    greenroom.start()
    await greenroom.wait_until_ready()
    again = ApifyClientAsync(TOKEN, api_url=f"http://127.0.0.1:{greenroom.port}", max_retries=0)
    queue = again.request_queue("local/durable", client_key="c1")
    assert keys_of(await queue.list_head()) == ["1", "2", "3", "4"]
    assert keys_of(await queue.list_requests(filter=["locked"])) == ["0"]
    view = await queue.get()
    assert (view.total_request_count, view.handled_request_count, view.pending_request_count) == (6, 1, 5)
    assert view.had_multiple_clients is False
    assert (await queue.unlock_requests()).unlocked_count == 1
