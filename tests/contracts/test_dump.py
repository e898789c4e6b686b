"""All rows go from one database to another and are the same there, in either direction; or nothing is there."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.core.dump_format import BadDump
from gateway.core.errors import InvalidRequest
from gateway.core.lifecycle import RunStatus
from gateway.core.model import (
    AbortWish,
    Actor,
    ActorTask,
    ActorVersion,
    Build,
    DecisionRecord,
    EnvVar,
    Origin,
    Page,
    Run,
    RunOptions,
    Storage,
    StorageKind,
    TaggedBuild,
    Token,
    User,
)
from gateway.core.names import ActorName, NameKind
from gateway.core.storages import KeyValueRecord, QueuedRequest
from gateway.state.database import Database, open_database
from gateway.state.dump import Row, export_rows, import_rows, is_empty
from gateway.state.records import SqlRecords, open_records
from gateway.state.tables import metadata

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NUMBERS: dict[str, Any] = {
    "float": 0.1,
    "whole": 1.0,
    "large": 2**70,
    "tiny": 5e-324,
    "none": None,
    "order": {"b": 1, "a": 2},
}


async def fill(records: SqlRecords) -> None:
    """Something in every table and, where it matters, every kind of value."""
    await records.add_user(User(id="u", username="Jané", is_admin=True, created_at=START))
    tags = {"latest": TaggedBuild(build_id="b", build_number="0.1.1", finished_at=START)}
    actor = Actor(
        id="a", user_id="u", name="Äctor", created_at=START, modified_at=START, tagged_builds=tags, extra=NUMBERS
    )
    await records.add_actor(actor)
    secret = EnvVar(name="KEY", value="sealed:v1:x", is_secret=True)
    await records.put_version(
        ActorVersion(
            actor_id="a", version_number="0.1", source_type="SOURCE_FILES", source={"x": [1]}, env_vars=(secret,)
        )
    )
    build = Build(
        id="b", actor_id="a", user_id="u", version_number="0.1", build_number="", status=RunStatus.SUCCEEDED,
        started_at=START, origin=Origin.CLI,
    )  # fmt: skip
    await records.add_build(build)
    await records.add_task(
        ActorTask(id="t", actor_id="a", user_id="u", name="Task", created_at=START, modified_at=START)
    )
    await records.add_name(
        ActorName(
            id="n", actor_id="a", user_id="u", kind=NameKind.ALIAS, name="shop", challenge="c", created_at=START,
            verified_at=START + timedelta(microseconds=1),
        )
    )  # fmt: skip
    run = Run(
        id="r", actor_id="a", user_id="u", build_id="b", build_number="0.1.1", status=RunStatus.RUNNING,
        started_at=START, origin=Origin.API, options=RunOptions(), live_view_label="label",
        default_key_value_store_id="kv", default_dataset_id="ds", default_request_queue_id="rq",
        abort_wish=AbortWish(gracefully=True, requested_at=START, reason="why"), stats=NUMBERS,
    )  # fmt: skip
    token = Token(
        id="tk",
        user_id="u",
        name="run",
        token_hash="hash",
        scopes=frozenset({"run", "b"}),
        created_at=START,
        run_id="r",
    )
    kinds = {"kv": StorageKind.KEY_VALUE_STORE, "ds": StorageKind.DATASET, "rq": StorageKind.REQUEST_QUEUE}
    storages = [
        Storage(id=id_, kind=kind, user_id="u", created_at=START, modified_at=START, accessed_at=START, run_id="r")
        for id_, kind in kinds.items()
    ]
    await records.add_run(run, token, storages)
    for key, value in (("text", b"hello"), ("bytes", bytes(range(256)) * 50), ("none", b""), ("ünïcode", b"\0")):
        await records.storages.put_record(
            KeyValueRecord(store_id="kv", key=key, content_type="x/y", size=len(value), modified_at=START, value=value)
        )
    await records.storages.put_record(
        KeyValueRecord(store_id="kv", key="large", content_type="", size=9, modified_at=START, blob="values/kv/large")
    )
    items = [f'{{"n":{number},"text":"\\u0000 é 😀"}}' for number in range(1200)]
    await records.storages.push_items("ds", items, clean_count=1200, now=START, push_id="p", digest="d")
    requests = [QueuedRequest(id=f"q{i}", unique_key=f"q{i}", data={"url": "x", **NUMBERS}) for i in range(5)]
    await records.storages.add_requests("rq", requests, forefront=True, client="c", now=START)
    await records.storages.lock_head("rq", limit=2, until=START, owner="o", client="d", now=START)
    await records.add_decisions(
        [
            DecisionRecord(
                id="d", pool_id="p", actor_id="a", at=START, wanted_runs=2, present_runs=1, reasons=("busy",),
                inputs=NUMBERS,
            )
        ]
    )  # fmt: skip


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    if request.param == "sqlite":
        async with open_database(f"sqlite+aiosqlite:///{tmp_path}/target.db") as database:
            yield database
        return
    server = request.getfixturevalue("postgres")
    name = server.create_database(template="migrated")
    async with open_database(server.url(name)) as database:
        yield database
    server.drop_database(name)


async def rows_of(database: Database) -> list[tuple[str, Row]]:
    """Everything in it."""
    rows: list[tuple[str, Row]] = []
    await export_rows(database, lambda table, some: rows.extend((table, row) for row in some))
    return rows


async def test_everything_is_the_same(records: SqlRecords, target: Database):
    """Every row of every table, with each value as it was: from either database to either."""
    await fill(records)
    rows = await rows_of(records._database)
    assert {table for table, _ in rows} == set(metadata.tables), "each table is tried"
    noted: dict[str, int] = {}
    mended = await import_rows(
        target, iter(rows), lambda table, number: noted.update({table: noted.get(table, 0) + number})
    )
    assert mended == 0
    assert noted == {table: sum(name == table for name, _ in rows) for table in metadata.tables}
    assert await rows_of(target) == rows
    moved = SqlRecords(target)
    for look in (
        lambda it: it.list_users(),
        lambda it: it.actor("a"),
        lambda it: it.list_versions("a"),
        lambda it: it.build("b"),
        lambda it: it.task("t"),
        lambda it: it.claims_of("shop"),
        lambda it: it.run("r"),
        lambda it: it.token_by_hash("hash"),
        lambda it: it.list_decisions("p", Page()),
        lambda it: it.storages.storage(StorageKind.REQUEST_QUEUE, "rq"),
        lambda it: it.storages.items("ds", offset=1000, limit=50, desc=True),
        lambda it: it.storages.list_keys("kv", after=None, prefix="", limit=10),
        lambda it: it.storages.record("kv", "bytes"),
        lambda it: it.storages.head("rq", limit=9, client="c", now=START + timedelta(days=1)),
    ):
        assert await look(moved) == await look(records)
    # And it goes on where it was.
    build = await records.build("b")
    assert build is not None
    assert (await moved.add_build(replace(build, id="b2", build_number=""))).build_number == "0.1.2"


def broken(rows: list[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
    yield from rows
    raise BadDump("the file ends")


async def test_a_broken_import_leaves_nothing(records: SqlRecords, target: Database):
    """Whatever was stored by then is undone, and another try works."""
    await fill(records)
    rows = await rows_of(records._database)
    with pytest.raises(BadDump, match="the file ends"):
        await import_rows(target, broken(rows), lambda _, __: None)
    assert await is_empty(target)
    await import_rows(target, iter(rows), lambda _, __: None)
    assert not await is_empty(target)


async def test_an_import_that_is_interrupted_leaves_nothing(records: SqlRecords, target: Database):
    """Whoever is cancelled in the middle has stored nothing, and others are served at once."""
    await fill(records)
    rows = await rows_of(records._database)

    def interrupt(table: str, _: int) -> None:
        if table == "runs":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    async with asyncio.TaskGroup() as group:
        importing = group.create_task(import_rows(target, iter(rows), interrupt))
    assert importing.cancelled()
    assert await is_empty(target)
    await import_rows(target, iter(rows), lambda _, __: None)
    assert await rows_of(target) == rows


async def test_only_an_empty_database_is_filled(target: Database):
    """What is there stays as it is."""
    await SqlRecords(target).add_user(User(id="u", username="u", is_admin=False, created_at=START))
    before = await rows_of(target)
    with pytest.raises(InvalidRequest, match="not empty"):
        await import_rows(target, iter(before), lambda _, __: None)
    assert await rows_of(target) == before


USER = {"id": "u", "username": "u", "username_key": "u", "is_admin": False, "created_at": 1}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        pytest.param([("robots", USER)], "robots", id="no such table"),
        pytest.param([("users", {**USER, "more": 1})], "other columns", id="one column more"),
        pytest.param([("users", {"id": "u"})], "other columns", id="columns missing"),
        pytest.param([("users", {**USER, "created_at": "1"})], "created_at", id="text for a number"),
        pytest.param([("users", {**USER, "is_admin": 1})], "is_admin", id="number for a truth"),
        pytest.param([("users", {**USER, "username": ["u"]})], "username", id="list for a text"),
        pytest.param([("storages", {}), ("users", USER)], "don't belong", id="tables out of order"),
    ],
)
async def test_rows_that_do_not_fit(target: Database, rows: list[tuple[str, Row]], words: str):
    """They are told, and nothing is stored."""
    with pytest.raises(BadDump, match=words):
        await import_rows(target, iter(rows), lambda _, __: None)
    assert await is_empty(target)


async def test_what_postgresql_can_not_hold_is_mended(tmp_path: Path, postgres: Any):
    """SQLite holds a character 0 in texts and NaN in JSON. They don't keep a Greenroom from moving, and are told."""
    path = tmp_path / "records.db"
    async with open_records(f"sqlite+aiosqlite:///{path}") as records:
        await records.add_user(User(id="u", username="u", is_admin=False, created_at=START))
        await records.add_actor(
            Actor(id="a", user_id="u", name="a", created_at=START, modified_at=START, description="a\0b")
        )
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("""UPDATE actors SET extra = '{"x": [NaN, 1, {"y": -Infinity}], "z": "\\u0000"}'""")
    name = postgres.create_database(template="migrated")
    async with open_database(f"sqlite+aiosqlite:///{path}") as source, open_database(postgres.url(name)) as target:
        assert await import_rows(target, iter(await rows_of(source)), lambda _, __: None) == 3
        moved = await SqlRecords(target).actor("a")
    postgres.drop_database(name)
    assert moved is not None
    assert (moved.description, moved.extra) == ("a\ufffdb", {"x": [None, 1, {"y": None}], "z": "\0"})
