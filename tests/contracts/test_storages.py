"""What every adapter of the storages promises: storages as such, key-value stores, datasets. Queues have their file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest, NameNotUnique, RecordNotFound
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Origin, Page, Run, RunOptions, Storage, StorageKind, Token, User
from gateway.core.storages import KeyValueRecord, QueuedRequest, StorageChanges, shown_stats
from gateway.state import storages as adapter
from gateway.state.ports import StateUnavailable
from gateway.state.records import SqlRecords, open_records
from gateway.state.storages import SqlStorages

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LATER = START + timedelta(seconds=1)
STORE, DATASET, QUEUE = StorageKind.KEY_VALUE_STORE, StorageKind.DATASET, StorageKind.REQUEST_QUEUE
MakeStorage: TypeAlias = Callable[..., Awaitable[Storage]]

ONE_BODY = settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)


async def stats_of(storages: SqlStorages, storage: Storage) -> dict[str, Any]:
    found = await storages.storage(storage.kind, storage.id)
    assert found is not None
    return shown_stats(found.stats)


def a_record(store: Storage, key: str = "OUTPUT", **changes: Any) -> KeyValueRecord:
    value = changes.pop("value", b"{}")
    record = KeyValueRecord(
        store_id=store.id, key=key, content_type="application/json", size=len(value), modified_at=LATER, value=value
    )
    return replace(record, **changes)


async def push(
    storages: SqlStorages, dataset: Storage | str, *items: str, push_id: str, digest: str = "", now: datetime = LATER
) -> bool:
    dataset_id = dataset if isinstance(dataset, str) else dataset.id
    digest = digest or f"of {push_id}"
    return await storages.push_items(dataset_id, items, clean_count=len(items), now=now, push_id=push_id, digest=digest)


async def items_of(storages: SqlStorages, dataset: Storage) -> list[str]:
    return list((await storages.items(dataset.id, offset=0, limit=None, desc=False)).items)


# Storages as such


async def test_a_named_storage_is_made_once(storages: SqlStorages, make_storage: MakeStorage):
    """A second caller gets the first one's, in whatever case the name is written; other kinds have other names."""
    made = await make_storage(DATASET, name="Results")
    for name in ("Results", "results", "RESULTS"):
        again = replace(made, id="0123456789abcdefg", name=name)
        assert await storages.get_or_create(again) == (made, False)
        assert await storages.storage_by_name("owner", DATASET, name) == made
    assert await storages.storage(DATASET, "0123456789abcdefg") is None
    assert (await make_storage(STORE, name="results")).kind == STORE
    assert await storages.storage_by_name("owner", QUEUE, "results") is None
    assert await storages.storage_by_name("another", DATASET, "results") is None
    assert await storages.storage(STORE, made.id) is None


async def test_another_user_has_names_of_their_own(
    records: SqlRecords, storages: SqlStorages, make_storage: MakeStorage
):
    """The same name is another storage for another user."""
    await records.add_user(User(id="other", username="other", is_admin=False, created_at=START))
    mine, theirs = await make_storage(STORE, name="state"), await make_storage(STORE, name="state", user_id="other")
    assert mine.id != theirs.id
    assert await storages.storage_by_name("other", STORE, "state") == theirs


async def test_unnamed_storages_are_always_made(storages: SqlStorages, make_storage: MakeStorage):
    """Any number of them; an id that exists is refused."""
    first, second = await make_storage(QUEUE), await make_storage(QUEUE)
    assert first.id != second.id
    with pytest.raises(NameNotUnique):
        await storages.get_or_create(first)


async def test_callers_at_the_same_moment_get_one_storage(storages: SqlStorages, records_url: str):
    """Of any number of callers, in two processes, exactly one makes the storage and all get it."""
    async with open_records(records_url) as others:
        storage = Storage(
            id="", kind=STORE, user_id="owner", created_at=START, modified_at=START, accessed_at=START, name="shared"
        )
        calls = [
            adapter.get_or_create(replace(storage, id=f"{number}"))
            for number, adapter in enumerate([storages, others.storages] * 10)
        ]
        answers = await asyncio.gather(*calls)
    assert len({found.id for found, _ in answers}) == 1
    assert sum(was_made for _, was_made in answers) == 1
    assert (await storages.list_storages("owner", STORE, unnamed=True, page=Page())).total == 1


async def test_listing_storages(storages: SqlStorages, make_storage: MakeStorage):
    """In order of creation; those without a name only on demand; none of other kinds and users."""
    made = [
        await make_storage(DATASET, name=name, created_at=START + timedelta(seconds=at))
        for at, name in enumerate(("b", None, "a", "c"))
    ]
    await make_storage(STORE, name="d")

    async def ids(*, unnamed: bool, user_id: str = "owner", **page: Any) -> tuple[list[str], int]:
        answer = await storages.list_storages(user_id, DATASET, unnamed=unnamed, page=Page(**page))
        return [storage.id for storage in answer.items], answer.total

    all_ids = [storage.id for storage in made]
    named = [all_ids[0], all_ids[2], all_ids[3]]
    assert await ids(unnamed=True) == (all_ids, 4)
    assert await ids(unnamed=False) == (named, 3)
    assert await ids(unnamed=False, desc=True, limit=2) == ([named[2], named[1]], 3)
    assert await ids(unnamed=False, offset=1, limit=1) == ([named[1]], 3)
    assert await ids(unnamed=True, user_id="another") == ([], 0)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"name": "fresh"}, id="a name for one without"),
        pytest.param({"name": None, "title": "Results of May"}, id="no name, a title"),
        pytest.param({"general_access": "RESTRICTED"}, id="who may read it"),
        pytest.param({}, id="nothing but the time"),
    ],
)
async def test_changing_a_storage(storages: SqlStorages, make_storage: MakeStorage, fields: dict[str, Any]):
    """The fields that are given change, all others stay, and what is answered is what is stored."""
    storage = await make_storage(STORE)
    changed = await storages.change_storage(STORE, storage.id, StorageChanges(fields=fields), LATER)
    assert changed == replace(storage, **fields, modified_at=LATER, accessed_at=LATER)
    assert await storages.storage(STORE, storage.id) == changed
    if name := fields.get("name"):
        assert await storages.storage_by_name("owner", STORE, name.upper()) == changed


async def test_renaming_a_storage(storages: SqlStorages, make_storage: MakeStorage):
    """Not to a name that is taken, in any case; its own name in another case is free, and so is one given up."""
    first, second = await make_storage(STORE, name="first"), await make_storage(STORE, name="second")
    with pytest.raises(NameNotUnique, match="FIRST"):
        await storages.change_storage(STORE, second.id, StorageChanges(fields={"name": "FIRST"}), LATER)
    assert await storages.storage(STORE, second.id) == second
    await storages.change_storage(STORE, first.id, StorageChanges(fields={"name": "First"}), LATER)
    await storages.change_storage(STORE, first.id, StorageChanges(fields={"name": None}), LATER)
    assert (
        await storages.change_storage(STORE, second.id, StorageChanges(fields={"name": "FIRST"}), LATER)
    ).name == "FIRST"


async def test_only_some_fields_change(storages: SqlStorages, make_storage: MakeStorage):
    """A caller who would give a storage away has made a mistake."""
    storage = await make_storage(STORE)
    with pytest.raises(ValueError, match="user_id"):
        await storages.change_storage(STORE, storage.id, StorageChanges(fields={"user_id": "another"}), LATER)
    assert await storages.storage(STORE, storage.id) == storage


async def test_deleting_a_storage(storages: SqlStorages, make_storage: MakeStorage):
    """It goes with all it holds, its blobs are told, its name is free; a second time is RecordNotFound."""
    store, kept = await make_storage(STORE, name="state"), await make_storage(STORE)
    for key, blob in (("a", "blobs/a"), ("b", None), ("c", "blobs/c")):
        await storages.put_record(a_record(store, key, blob=blob))
    await storages.put_record(a_record(kept, blob="blobs/kept"))
    assert sorted(await storages.delete_storage(STORE, store.id)) == ["blobs/a", "blobs/c"]
    assert await storages.storage(STORE, store.id) is None
    with pytest.raises(RecordNotFound):
        await storages.delete_storage(STORE, store.id)
    assert await storages.record(kept.id, "OUTPUT") == a_record(kept, blob="blobs/kept")

    # Made anew under its old id, it is empty: nothing was left behind.
    await make_storage(STORE, id=store.id, name="state")
    assert (await storages.list_keys(store.id, after=None, prefix="", limit=10)).items == ()


@pytest.mark.parametrize("kind", [DATASET, QUEUE])
async def test_contents_go_with_their_storage(storages: SqlStorages, make_storage: MakeStorage, kind: StorageKind):
    """Items and requests of a deleted storage are not found in a new one of the same id."""
    storage = await make_storage(kind)
    request = QueuedRequest(id="r", unique_key="r", data={})
    if kind is DATASET:
        await push(storages, storage, "{}", push_id="p")
    else:
        await storages.add_requests(storage.id, [request], forefront=False, client="c", now=LATER)
    assert await storages.delete_storage(kind, storage.id) == []
    await make_storage(kind, id=storage.id)
    if kind is DATASET:
        assert await push(storages, storage, "{}", push_id="p")
        assert await items_of(storages, storage) == ["{}"]
    else:
        assert await storages.request(storage.id, "r", now=LATER) is None


async def test_a_deletion_that_is_cut_off(
    storages: SqlStorages, make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch
):
    """
    What holds much is deleted in several writes. Between them it is in order, and the next deletion does the rest.
    """
    monkeypatch.setattr(adapter, "_DELETED_AT_ONCE", 3)
    dataset, store, queue = await make_storage(DATASET), await make_storage(STORE), await make_storage(QUEUE)
    await push(storages, dataset, *(f"{number}" for number in range(8)), push_id="p")
    for number in range(8):
        await storages.put_record(a_record(store, f"{number}", blob=f"blobs/{number}" if number % 4 == 0 else None))
    requests = [QueuedRequest(id=f"{number}", unique_key=f"{number}", data={}) for number in range(8)]
    await storages.add_requests(queue.id, requests, forefront=False, client=None, now=LATER)
    write, writes = storages._database.write, count()

    async def cut_off(*args: Any) -> Any:
        if next(writes) == 1:
            raise StateUnavailable("gone")
        return await write(*args)

    for storage in (dataset, store, queue):
        writes = count()
        with monkeypatch.context() as patch:
            patch.setattr(storages._database, "write", cut_off)
            with pytest.raises(StateUnavailable):
                await storages.delete_storage(storage.kind, storage.id)
    assert await items_of(storages, dataset) == [f"{number}" for number in range(5)]
    await push(storages, dataset, "next", push_id="q")
    assert (await items_of(storages, dataset))[4:] == ["4", "next"]
    assert len((await storages.list_keys(store.id, after=None, prefix="", limit=10)).items) == 5
    head = await storages.head(queue.id, limit=10, client=None, now=LATER)
    assert len(head.items) == 5
    assert await storages.delete_storage(DATASET, dataset.id) == []
    assert sorted(await storages.delete_storage(STORE, store.id)) == ["blobs/0", "blobs/4"]
    assert await storages.delete_storage(QUEUE, queue.id) == []
    for storage in (dataset, store, queue):
        assert await storages.storage(storage.kind, storage.id) is None


def _calls(storages: SqlStorages, storage_id: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Every method that names a storage."""
    request = QueuedRequest(id="r", unique_key="r", data={})
    record = KeyValueRecord(store_id=storage_id, key="k", content_type="", size=0, modified_at=LATER, value=b"")
    asks: dict[str, Any] = {"client": "c", "now": LATER}
    lock: dict[str, Any] = {"owner": "o", "forefront": False, "now": LATER}
    filters: dict[str, Any] = {"after": None, "limit": 1, "is_pending": False, "is_locked": False}
    return {
        "change_storage": lambda: storages.change_storage(STORE, storage_id, StorageChanges(), LATER),
        "delete_storage": lambda: storages.delete_storage(STORE, storage_id),
        "put_record": lambda: storages.put_record(record),
        "record": lambda: storages.record(storage_id, "k"),
        "delete_record": lambda: storages.delete_record(storage_id, "k", LATER),
        "list_keys": lambda: storages.list_keys(storage_id, after=None, prefix="", limit=1),
        "push_items": lambda: push(storages, storage_id, "{}", push_id="p"),
        "items": lambda: storages.items(storage_id, offset=0, limit=None, desc=False),
        "add_requests": lambda: storages.add_requests(storage_id, [request], forefront=False, **asks),
        "request": lambda: storages.request(storage_id, "r", now=LATER),
        "put_request": lambda: storages.put_request(storage_id, request, forefront=False, **asks),
        "delete_requests": lambda: storages.delete_requests(storage_id, ["r"], **asks),
        "list_requests": lambda: storages.list_requests(storage_id, **filters, now=LATER),
        "head": lambda: storages.head(storage_id, limit=1, **asks),
        "lock_head": lambda: storages.lock_head(storage_id, limit=1, until=LATER, owner="o", **asks),
        "prolong_lock": lambda: storages.prolong_lock(storage_id, "r", until=LATER, **lock),
        "drop_lock": lambda: storages.drop_lock(storage_id, "r", **lock),
        "unlock_all": lambda: storages.unlock_all(storage_id, owner="o", now=LATER),
    }


OF_STORES = {"change_storage", "delete_storage", "put_record", "record", "delete_record", "list_keys"}
OF_DATASETS = {"push_items", "items"}


async def test_a_storage_that_is_not_there_is_told(storages: SqlStorages, make_storage: MakeStorage):
    """RecordNotFound from each method that names it, also where a storage of another kind has this id."""
    others = {
        True: await make_storage(DATASET, id="a-dataset"),
        False: await make_storage(STORE, id="a-store"),
    }
    for name in _calls(storages, ""):
        for storage_id in ("nowhere", others[name not in OF_DATASETS].id):
            with pytest.raises(RecordNotFound):
                await _calls(storages, storage_id)[name]()
    assert _calls(storages, "").keys() > OF_STORES | OF_DATASETS
    for storage in others.values():
        assert await storages.storage(storage.kind, storage.id) == storage


# Key-value stores


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="inline"),
        pytest.param({"value": b""}, id="empty"),
        pytest.param({"value": bytes(range(256))}, id="any bytes"),
        pytest.param({"value": None, "size": 2**33, "blob": "storages/x"} | {"value": b""}, id="a large blob"),
        pytest.param({"content_type": 'text/plain; charset="utf-8"; x=y'}, id="parameters of the type"),
        pytest.param({"key": "!-_.'()09azAZ" + "x" * 243}, id="the longest key"),
    ],
)
async def test_a_record_comes_back_as_it_was(storages: SqlStorages, make_storage: MakeStorage, changes: dict[str, Any]):
    """Its bytes or the name of its blob, its size and its type, to the letter."""
    store = await make_storage(STORE)
    record = a_record(store, **changes)
    assert await storages.put_record(record) is None
    assert await storages.record(store.id, record.key) == record
    assert await storages.record(store.id, record.key.swapcase()) is None


@pytest.mark.parametrize(
    ("old", "new", "left"),
    [
        pytest.param("blobs/1", "blobs/2", "blobs/1", id="another blob"),
        pytest.param("blobs/1", None, "blobs/1", id="small now"),
        pytest.param(None, "blobs/1", None, id="large now"),
        pytest.param("blobs/1", "blobs/1", None, id="the same blob is still named"),
        pytest.param(None, None, None, id="never large"),
    ],
)
async def test_the_blob_that_nothing_names(
    storages: SqlStorages, make_storage: MakeStorage, old: str | None, new: str | None, left: str | None
):
    """Whoever replaces or deletes a record is told which blob to delete, and only after the row says otherwise."""
    store = await make_storage(STORE)
    await storages.put_record(a_record(store, "other", blob="blobs/other"))
    await storages.put_record(a_record(store, blob=old))
    assert await storages.put_record(a_record(store, blob=new)) == left
    assert await storages.delete_record(store.id, "OUTPUT", LATER) == new
    assert await storages.delete_record(store.id, "OUTPUT", LATER) is None
    assert await storages.record(store.id, "OUTPUT") is None


async def test_a_store_counts_what_it_holds(storages: SqlStorages, make_storage: MakeStorage):
    """Writes, deletes and bytes; reads and deletes of nothing change neither them nor the times."""
    store = await make_storage(STORE)
    await storages.put_record(a_record(store, "a", value=b"12345"))
    await storages.put_record(a_record(store, "b", value=b"123"))
    await storages.put_record(a_record(store, "a", value=b"1"))
    assert await stats_of(storages, store) == {"writeCount": 3, "storageBytes": 4}
    at = LATER + timedelta(seconds=1)
    await storages.delete_record(store.id, "b", at)
    expected = {"writeCount": 3, "deleteCount": 1, "storageBytes": 1}
    after = replace(store, stats=expected, modified_at=at, accessed_at=at)
    assert await storages.storage(STORE, store.id) == after

    await storages.delete_record(store.id, "b", at + timedelta(seconds=1))
    await storages.record(store.id, "a")
    await storages.list_keys(store.id, after=None, prefix="", limit=10)
    assert await storages.storage(STORE, store.id) == after


KEYS = st.text(alphabet="abAB-_.!'()09", min_size=1, max_size=4)


@given(
    keys=st.sets(KEYS, max_size=12),
    prefix=st.text(alphabet="abAé\U0010ffff", max_size=2),
    after=st.none() | KEYS,
    limit=st.integers(1, 5),
)
@ONE_BODY
async def test_listing_keys(
    storages: SqlStorages, make_storage: MakeStorage, keys: set[str], prefix: str, after: str | None, limit: int
):
    """In the order of their bytes, from page to page, each key that is asked for exactly once; without values."""
    store = await make_storage(STORE)
    for key in keys:
        await storages.put_record(a_record(store, key))
    expected = sorted(key for key in keys if key.startswith(prefix) and (after is None or key > after))
    found: list[str] = []
    page = await storages.list_keys(store.id, after=after, prefix=prefix, limit=limit)
    while True:
        assert page.is_truncated == (len(found) + limit < len(expected))
        assert all(item == replace(a_record(store, item.key), value=None) for item in page.items)
        found += [item.key for item in page.items]
        if not page.is_truncated:
            break
        page = await storages.list_keys(store.id, after=found[-1], prefix=prefix, limit=limit)
    assert found == expected


async def test_a_prefix_that_no_key_has(storages: SqlStorages, make_storage: MakeStorage):
    """Half a character in a prefix is the caller's mistake, not the store's."""
    store = await make_storage(STORE)
    with pytest.raises(InvalidRequest):
        await storages.list_keys(store.id, after=None, prefix="\ud83d", limit=1)


async def test_a_run_comes_with_what_its_store_holds(records: SqlRecords, storages: SqlStorages):
    """Its input is there when it is, in the same write, and its store counts it; a clash leaves neither."""
    times = dict.fromkeys(("created_at", "modified_at", "accessed_at"), START)
    store = Storage(id="store", kind=STORE, user_id="owner", **times)
    dataset = Storage(id="dataset", kind=DATASET, user_id="owner", **times)
    run = Run(
        id="run",
        actor_id="actor",
        user_id="owner",
        build_id="build",
        build_number="0.1.1",
        status=RunStatus.READY,
        started_at=START,
        origin=Origin.API,
        options=RunOptions(),
        live_view_label="label",
        default_key_value_store_id=store.id,
        default_dataset_id=dataset.id,
        default_request_queue_id="queue",
    )
    token = Token(id="t", user_id="owner", name="run", token_hash="h", scopes=frozenset(), created_at=START)
    given_input = a_record(store, "INPUT", value=b'{"a": 1}')
    await records.add_run(run, token, [store, dataset], iter([given_input]))
    assert await storages.record("store", "INPUT") == given_input
    assert await stats_of(storages, store) == {"writeCount": 1, "storageBytes": 8}
    assert await stats_of(storages, dataset) == {}

    second = replace(run, id="second", live_view_label="second")
    other = replace(store, id="other")
    clash = [replace(given_input, store_id="other"), replace(given_input, store_id="other")]
    with pytest.raises(NameNotUnique):
        await records.add_run(second, replace(token, id="t2", token_hash="h2"), [other], clash)
    assert await records.run("second") is None
    assert await storages.storage(STORE, "other") is None


# Datasets


@given(
    pushes=st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=5),
    offset=st.integers(0, 14),
    limit=st.none() | st.integers(1, 14),
    desc=st.booleans(),
)
@ONE_BODY
async def test_a_page_of_items(
    storages: SqlStorages,
    make_storage: MakeStorage,
    pushes: list[list[int]],
    offset: int,
    limit: int | None,
    desc: bool,
):
    """It is what slicing the list of all that was pushed gives, reversed first where it is descending."""
    dataset = await make_storage(DATASET)
    for number, numbers in enumerate(pushes):
        texts = [json.dumps({"n": value}) for value in numbers]
        assert await push(storages, dataset, *texts, push_id=f"{dataset.id}/{number}")
    everything = [json.dumps({"n": value}) for numbers in pushes for value in numbers]
    page = await storages.items(dataset.id, offset=offset, limit=limit, desc=desc)
    ordered = everything[::-1] if desc else everything
    assert list(page.items) == ordered[offset:][:limit]
    assert page.total == len(everything)


async def test_a_dataset_counts_its_items(storages: SqlStorages, make_storage: MakeStorage):
    """All, those that are not empty, and the bytes of their text; reads change nothing."""
    dataset = await make_storage(DATASET)
    await storages.push_items(dataset.id, ['{"a":"é"}', "{}"], clean_count=1, now=LATER, push_id="p", digest="d")
    stats = {"itemCount": 2, "cleanItemCount": 1, "storageBytes": 12, "writeCount": 2}
    expected = replace(dataset, stats=stats, modified_at=LATER, accessed_at=LATER)
    assert await storages.storage(DATASET, dataset.id) == expected
    await items_of(storages, dataset)
    assert await storages.storage(DATASET, dataset.id) == expected


async def test_pushes_at_the_same_time(storages: SqlStorages, make_storage: MakeStorage, records_url: str):
    """From any number of callers in two processes, each push lies together, and none is lost or doubled."""
    dataset = await make_storage(DATASET)
    async with open_records(records_url) as others:
        await asyncio.gather(
            *(
                push(adapter, dataset, *(f'"{number} {part}"' for part in range(3)), push_id=f"{number}")
                for number, adapter in enumerate([storages, others.storages] * 10)
            )
        )
    items = await items_of(storages, dataset)
    assert sorted(items) == sorted(f'"{number} {part}"' for number in range(20) for part in range(3))
    for start in range(0, 60, 3):
        number = items[start].strip('"').split()[0]
        assert items[start : start + 3] == [f'"{number} {part}"' for part in range(3)]


async def test_many_items_in_one_push(storages: SqlStorages, make_storage: MakeStorage):
    """As many as a client may send are one write, in their order."""
    dataset = await make_storage(DATASET)
    items = [f'{{"n":{number}}}' for number in range(10_000)]
    await push(storages, dataset, *items, push_id="p")
    assert await items_of(storages, dataset) == items


async def test_half_a_character_stores_nothing(storages: SqlStorages, make_storage: MakeStorage):
    """A push is whole or not at all, and it is the request that is wrong."""
    dataset = await make_storage(DATASET)
    with pytest.raises(InvalidRequest):
        await push(storages, dataset, '"good"', '"\ud83d"', push_id="p")
    assert await items_of(storages, dataset) == []
    assert await stats_of(storages, dataset) == {}
    assert await push(storages, dataset, '"good"', push_id="p")
