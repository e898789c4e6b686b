"""
Pushes to datasets that clients repeat, for want of an answer: stored once; and equal ones, which are never lost.

A second adapter on the same database stands for another process: for the one after a crash, or for one beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest

from gateway.core.errors import RecordNotFound
from gateway.core.model import Storage, StorageKind
from gateway.state.database import open_database
from gateway.state.ports import StateUnavailable
from gateway.state.storages import SqlStorages

LATER = datetime(2026, 1, 2, 3, 4, 6, 678901, tzinfo=UTC)
DATASET = StorageKind.DATASET
MakeStorage: TypeAlias = Callable[..., Awaitable[Storage]]


async def push(
    storages: SqlStorages, dataset: Storage, *items: str, push_id: str, digest: str = "", now: datetime = LATER
) -> bool:
    digest = digest or f"of {push_id}"
    return await storages.push_items(dataset.id, items, clean_count=len(items), now=now, push_id=push_id, digest=digest)


async def items_of(storages: SqlStorages, dataset: Storage) -> list[str]:
    return list((await storages.items(dataset.id, offset=0, limit=None, desc=False)).items)


async def no_time(_: float) -> None:
    """In which nothing happens: as if the other process were dead."""


@asynccontextmanager
async def another_process(url: str, sleep: Callable[[float], Awaitable[None]] = no_time) -> AsyncIterator[SqlStorages]:
    async with open_database(url) as database:
        yield SqlStorages(database, sleep=sleep)


async def remembered(storages: SqlStorages) -> set[str]:
    """The ids of the pushes that the database remembers."""

    async def look(connection: Any) -> set[str]:
        return {row[0] for row in await connection.exec_driver_sql("SELECT id FROM dataset_pushes")}

    return await storages._database.read(look)


async def test_a_push_repeated_after_a_crash(storages: SqlStorages, make_storage: MakeStorage, records_url: str):
    """What was stored but not answered before the crash is stored once; its third coming is a new push."""
    dataset, other = await make_storage(DATASET), await make_storage(DATASET)
    assert await push(storages, dataset, '"a"', push_id="1", digest="same")
    async with another_process(records_url) as after:
        assert await push(after, dataset, '"b"', push_id="2", digest="another")
        assert await push(after, other, '"a"', push_id="3", digest="same")
        before = await storages.storage(DATASET, dataset.id)
        assert not await push(after, dataset, '"a"', push_id="4", digest="same", now=LATER + timedelta(seconds=5))
        assert await storages.storage(DATASET, dataset.id) == before
        assert await push(after, dataset, '"a"', push_id="5", digest="same")
    assert await items_of(storages, dataset) == ['"a"', '"b"', '"a"']
    assert await items_of(storages, other) == ['"a"']


async def test_two_repeated_pushes_of_the_same_body(storages: SqlStorages, make_storage: MakeStorage, records_url: str):
    """Two callers had pushed the same; both repeat it: each is recognised once."""
    dataset = await make_storage(DATASET)
    for push_id in ("1", "2"):
        assert await push(storages, dataset, '"a"', push_id=push_id, digest="same")
    async with another_process(records_url) as after:
        answers = [await push(after, dataset, '"a"', push_id=push_id, digest="same") for push_id in ("3", "4", "5")]
    assert answers == [False, False, True]
    assert await items_of(storages, dataset) == ['"a"'] * 3


async def test_within_a_process_nothing_is_taken_for_a_repetition(storages: SqlStorages, make_storage: MakeStorage):
    """Equal pushes are two pushes, answered or not."""
    dataset = await make_storage(DATASET)
    for push_id in ("1", "2", "3"):
        assert await push(storages, dataset, '"a"', push_id=push_id, digest="same")
    assert await items_of(storages, dataset) == ['"a"'] * 3


@pytest.mark.parametrize("by", ["the next push", "a flush"])
async def test_an_answered_push_is_forgotten(
    storages: SqlStorages, make_storage: MakeStorage, records_url: str, by: str
):
    """With the next write, of any dataset, or when flushed: an equal push after a restart is a new one."""
    dataset, other = await make_storage(DATASET), await make_storage(DATASET)
    await push(storages, dataset, '"a"', push_id="1", digest="same")
    storages.push_was_answered("1")
    assert await remembered(storages) == {"1"}
    if by == "a flush":
        await storages.flush_answered()
        assert await remembered(storages) == set()
    else:
        await push(storages, other, '"b"', push_id="2")
        assert await remembered(storages) == {"2"}
    async with another_process(records_url) as after:
        assert await push(after, dataset, '"a"', push_id="3", digest="same")


async def test_a_flush_forgets_all_that_was_answered(storages: SqlStorages, make_storage: MakeStorage):
    """However many; what has not been answered stays."""
    dataset = await make_storage(DATASET)
    await asyncio.gather(*(push(storages, dataset, "{}", push_id=f"{number}") for number in range(50)))
    for number in range(1, 50):
        storages.push_was_answered(f"{number}")
    for number in range(1000):
        storages.push_was_answered(f"of a dataset that was deleted {number}")
    await storages.flush_answered()
    assert await remembered(storages) == {"0"}


async def test_a_flush_of_nothing_does_not_write(storages: SqlStorages, make_storage: MakeStorage, records_url: str):
    """It does not even need the database; what the last push has forgotten is nothing any more."""
    dataset = await make_storage(DATASET)
    async with another_process(records_url) as others:
        await push(others, dataset, "{}", push_id="1")
        others.push_was_answered("1")
        await push(others, dataset, "{}", push_id="2")
    await others.flush_answered()
    others.push_was_answered("2")
    with pytest.raises(StateUnavailable, match="closed"):
        await others.flush_answered()


async def test_an_old_push_counts_no_more(storages: SqlStorages, make_storage: MakeStorage, records_url: str):
    """Ten minutes after it, no client repeats it any more; it is removed along the way."""
    dataset = await make_storage(DATASET)
    await push(storages, dataset, '"a"', push_id="1", digest="same")
    await push(storages, dataset, '"b"', push_id="2", digest="other")
    async with another_process(records_url) as after:
        soon, late = LATER + timedelta(minutes=9, seconds=59), LATER + timedelta(minutes=10)
        assert not await push(after, dataset, '"b"', push_id="3", digest="other", now=soon)
        assert await push(after, dataset, '"a"', push_id="4", digest="same", now=late)
        after.push_was_answered("4")
        await after.flush_answered()
        assert await remembered(after) == set()


# Processes side by side, e.g. behind a balancer, or the old worker of a reload


async def test_equal_pushes_of_two_processes(storages: SqlStorages, make_storage: MakeStorage, records_url: str):
    """A push waits until the other process, which lives, has forgotten what it has answered; then it is stored."""
    dataset = await make_storage(DATASET)
    waits_secs: list[float] = []

    async def answered_late(secs: float) -> None:
        waits_secs.append(secs)
        if len(waits_secs) == 2:
            storages.push_was_answered("1")
            await storages.flush_answered()

    assert await push(storages, dataset, '"a"', push_id="1", digest="same")
    async with another_process(records_url, answered_late) as other:
        assert await push(other, dataset, '"b"', push_id="2", digest="another")
        assert waits_secs == []
        assert await push(other, dataset, '"a"', push_id="3", digest="same")
        assert await remembered(other) == {"2", "3"}
    assert len(waits_secs) == 2
    assert await items_of(storages, dataset) == ['"a"', '"b"', '"a"']


async def test_of_equal_pushes_those_that_came_later_do_not_count(
    storages: SqlStorages, make_storage: MakeStorage, records_url: str
):
    """A caller repeats what was sent before: what another process stores in the time of the wait is no such thing."""
    dataset = await make_storage(DATASET)

    async def another_came(_: float) -> None:
        if await remembered(storages) == {"1"}:
            storages.push_was_answered("1")
            assert await push(storages, dataset, '"a"', push_id="2", digest="same")

    assert await push(storages, dataset, '"a"', push_id="1", digest="same")
    async with another_process(records_url, another_came) as other:
        assert await push(other, dataset, '"a"', push_id="3", digest="same")
    assert await items_of(storages, dataset) == ['"a"'] * 3


async def test_many_equal_pushes_by_turns(storages: SqlStorages, make_storage: MakeStorage, records_url: str):
    """As many are stored as were answered, whichever process they came to."""
    dataset = await make_storage(DATASET)

    async def flush(_: float) -> None:
        for process in processes:
            await process.flush_answered()

    async with another_process(records_url, flush) as one, another_process(records_url, flush) as other:
        processes = (one, other)
        for number in range(10):
            assert await push(processes[number % 2], dataset, "{}", push_id=f"{number}", digest="same")
            processes[number % 2].push_was_answered(f"{number}")
    assert await items_of(storages, dataset) == ["{}"] * 10


async def test_a_dataset_that_goes_away_while_a_push_waits(
    storages: SqlStorages, make_storage: MakeStorage, records_url: str
):
    """The push finds it gone, as any later one does."""
    dataset = await make_storage(DATASET)

    async def delete(_: float) -> None:
        await storages.delete_storage(DATASET, dataset.id)

    assert await push(storages, dataset, "{}", push_id="1", digest="same")
    async with another_process(records_url, delete) as other:
        with pytest.raises(RecordNotFound):
            await push(other, dataset, "{}", push_id="2", digest="same")
