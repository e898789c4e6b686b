"""What the records in PostgreSQL promise besides: several processes write at once, and its server may go away."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from certificates import Authority
from postgres_server import PostgresServer, running
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import Conflict, NameNotUnique
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Actor, ActorVersion, Build, Origin, Storage, StorageKind, User
from gateway.core.storages import KeyValueRecord, QueuedRequest
from gateway.state import postgres as adapter
from gateway.state.ports import StateUnavailable
from gateway.state.records import SqlRecords, open_records
from gateway.state.tables import metadata

pytestmark = pytest.mark.slow

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
OWNER = User(id="owner", username="owner", is_admin=False, created_at=START)
ACTOR = Actor(id="actor", user_id="owner", name="actor", created_at=START, modified_at=START)


def a_build(number: int) -> Build:
    return Build(
        id=f"build{number}",
        actor_id="actor",
        user_id="owner",
        version_number="0.1",
        build_number="",
        status=RunStatus.READY,
        started_at=START,
        origin=Origin.CLI,
    )


def a_storage(kind: StorageKind) -> Storage:
    return Storage(
        id=f"a-{kind}", kind=kind, user_id="owner", created_at=START, modified_at=START, accessed_at=START
    )  # fmt: skip


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    """A database of this test alone."""
    name = postgres.create_database(template="migrated")
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
async def both(url: str) -> AsyncIterator[tuple[SqlRecords, SqlRecords]]:
    """Two processes' worth of the same records, with an owner and his Actor."""
    async with open_records(url) as one, open_records(url) as other:
        await one.add_user(OWNER)
        await one.add_actor(ACTOR)
        yield one, other


# Several writers at once


async def test_build_numbers_of_several_processes(both: tuple[SqlRecords, SqlRecords]):
    """Numbers have no gap and no double, from the very first of a version on."""
    builds = await asyncio.gather(*(both[i % 2].add_build(a_build(i)) for i in range(30)))
    assert sorted(int(build.build_number.rpartition(".")[2]) for build in builds) == list(range(1, 31))


async def test_a_version_is_put_by_several_at_once(both: tuple[SqlRecords, SqlRecords]):
    """Each of those who put a version that was not there has put it; the last one stays."""
    versions = [
        ActorVersion(actor_id="actor", version_number="0.1", source_type="SOURCE_FILES", source={"n": i})
        for i in range(20)
    ]
    await asyncio.gather(*(both[i % 2].put_version(version) for i, version in enumerate(versions)))
    assert await both[0].list_versions("actor") in [[version] for version in versions]


async def test_of_several_that_replace_one_succeeds(both: tuple[SqlRecords, SqlRecords]):
    """A compare-and-set: one stores its change, all others are told of the conflict."""
    changed = [replace(ACTOR, title=f"title {i}") for i in range(16)]
    calls = [both[i % 2].replace_actor(actor) for i, actor in enumerate(changed)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    stored = [answer for answer in answers if isinstance(answer, Actor)]
    assert len(stored) == 1
    assert sum(isinstance(answer, Conflict) for answer in answers) == 15
    assert await both[0].actor("actor") == stored[0]


async def test_of_several_that_take_a_name_one_gets_it(both: tuple[SqlRecords, SqlRecords]):
    """Also where their transactions overlap."""
    actors = [replace(ACTOR, id=f"actor{i}", name="Shop") for i in range(16)]
    answers = await asyncio.gather(
        *(both[i % 2].add_actor(actor) for i, actor in enumerate(actors)), return_exceptions=True
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["ActorNameNotUnique"] * 15 + ["NoneType"]


async def test_storages_of_several_processes(both: tuple[SqlRecords, SqlRecords]):
    """Items get places without gaps, records are counted, a request is locked once: whoever writes."""
    one, _ = both
    for kind in StorageKind:
        await one.storages.get_or_create(a_storage(kind))
    kinds = (StorageKind.DATASET, StorageKind.KEY_VALUE_STORE, StorageKind.REQUEST_QUEUE)
    dataset, store, queue = (f"a-{kind}" for kind in kinds)

    async def use(number: int) -> list[str]:
        storages = both[number % 2].storages
        await storages.push_items(
            dataset, [f'"{number}-{i}"' for i in range(3)], clean_count=3, now=START, push_id=f"p{number}",
            digest=f"d{number}",
        )  # fmt: skip
        await storages.put_record(
            KeyValueRecord(store_id=store, key=f"k{number % 4}", content_type="", size=1, modified_at=START, value=b"1")
        )
        request = QueuedRequest(id=f"r{number}", unique_key=f"r{number}", data={})
        asks: dict[str, Any] = {"client": "c", "now": START}
        await storages.add_requests(queue, [request], forefront=number % 3 == 0, **asks)
        head = await storages.lock_head(queue, limit=2, until=START + timedelta(hours=1), owner=f"o{number}", **asks)
        return [item.id for item in head.items]

    locked = await asyncio.gather(*(use(number) for number in range(24)))
    taken = [request_id for ids in locked for request_id in ids]
    assert len(taken) == len(set(taken))
    page = await one.storages.items(dataset, offset=0, limit=None, desc=False)
    assert sorted(page.items) == sorted(f'"{number}-{i}"' for number in range(24) for i in range(3))
    found = await one.storages.storage(StorageKind.KEY_VALUE_STORE, store)
    assert found is not None
    assert (found.stats["writeCount"], found.stats["storageBytes"]) == (24, 4)


async def test_a_deadlock_is_tried_again(both: tuple[SqlRecords, SqlRecords]):
    """Two transactions that wait for each other: one is undone by the server, and both are done in the end."""
    one, other = both
    await one.add_user(replace(OWNER, id="second", username="second"))
    has_first = [asyncio.Event(), asyncio.Event()]

    async def change(connection: AsyncConnection, mine: int, first: str, then: str) -> None:
        rename = text("UPDATE users SET username = username || 'x' WHERE id = :id")
        await connection.execute(rename, {"id": first})
        has_first[mine].set()
        await has_first[1 - mine].wait()
        await connection.execute(rename, {"id": then})

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(one._database.write(lambda it: change(it, 0, "owner", "second")))
        group.create_task(other._database.write(lambda it: change(it, 1, "second", "owner")))
    assert {user.username for user in await one.list_users()} == {"ownerxx", "secondxx"}


async def _cut(connection: AsyncConnection) -> None:
    """The connection breaks at this moment."""
    raw = (await connection.get_raw_connection()).driver_connection
    adapter._cut_off(raw)  # type: ignore[arg-type]


RENAME = text("UPDATE users SET username = username || 'x' WHERE id = 'owner'")


async def test_what_broke_before_the_commit_is_tried_again(both: tuple[SqlRecords, SqlRecords]):
    """Nothing of it was done: the caller hears of no trouble, and it is done once."""
    tries = 0

    async def change(connection: AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute(RENAME)
        if tries == 1:
            await _cut(connection)
        await connection.execute(text("SELECT 1"))

    await both[0]._database.write(change)
    assert tries == 2
    assert (await both[0].list_users())[0].username == "ownerx"


@pytest.mark.parametrize("way", ["read", "write"])
async def test_what_takes_too_long_is_not_tried_again(
    both: tuple[SqlRecords, SqlRecords], monkeypatch: pytest.MonkeyPatch, way: str
):
    """It would take as long again, several times; the next call finds a connection that works."""
    tries = 0

    async def sleep(connection: AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute(text("SELECT pg_sleep(9)"))

    with monkeypatch.context() as patch:
        patch.setattr(adapter, "_ANSWER_SECS", 0.3)
        with pytest.raises(StateUnavailable, match="no answer within 0"):
            await getattr(both[0]._database, way)(sleep)
    assert tries == 1
    assert await both[0].user("owner") == OWNER


async def test_what_broke_in_the_commit_is_not_tried_again(both: tuple[SqlRecords, SqlRecords]):
    """It may have been done: the caller is told, and nobody does it twice."""
    tries = 0

    async def change(connection: AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute(RENAME)
        await _cut(connection)

    with pytest.raises(StateUnavailable):
        await both[0]._database.write(change)
    assert tries == 1
    assert (await both[0].list_users())[0].username == "owner", "here it was not, as the connection was cut before"


async def test_what_breaks_again_and_again_is_told(both: tuple[SqlRecords, SqlRecords]):
    """After so many tries it is somebody else's turn."""
    tries = 0

    async def look(connection: AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        await _cut(connection)
        await connection.execute(text("SELECT 1"))

    with pytest.raises(StateUnavailable, match="Is PostgreSQL there"):
        await both[0]._database.read(look)
    assert tries == 5
    assert await both[0].user("owner") == OWNER


# The schema


async def test_migrations_and_tables_agree(postgres: PostgresServer, url: str):
    """A migrated database is the one that the tables describe, the order of its texts included."""
    name = postgres.create_database()
    described = create_engine(postgres.url(name).replace("://", "+psycopg://"))
    migrated = create_engine(url.replace("://", "+psycopg://"))
    columns = text(
        "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default "
        "FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version' "
        "ORDER BY 1, 2"
    )
    try:
        metadata.create_all(described)
        with migrated.connect() as one, described.connect() as other:
            assert compare_metadata(MigrationContext.configure(one, opts={"compare_type": True}), metadata) == []
            assert one.execute(columns).all() == other.execute(columns).all()
    finally:
        migrated.dispose()
        described.dispose()
        postgres.drop_database(name)


async def test_processes_that_find_no_schema_make_it_once(postgres: PostgresServer):
    """Any number of them may start at once on an empty database; all can use it."""
    name = postgres.create_database()

    async def use(number: int) -> None:
        async with open_records(postgres.url(name)) as records:
            await records.add_user(replace(OWNER, id=f"u{number}", username=f"u{number}"))

    await asyncio.gather(*(use(number) for number in range(4)))
    assert postgres.execute("SELECT count(*) FROM users", name) == [(4,)]
    assert postgres.execute("SELECT count(*) FROM alembic_version", name) == [(1,)]
    postgres.drop_database(name)


async def test_a_newer_schema_is_refused(postgres: PostgresServer, url: str):
    """As in SQLite."""
    postgres.execute("UPDATE alembic_version SET version_num = '9999'", url.rpartition("/")[2])
    with pytest.raises(StateUnavailable, match="9999"):
        async with open_records(url):
            pass


async def test_another_encoding_is_refused(postgres: PostgresServer):
    """A database that can't hold all texts is told at once, not by the first user with an umlaut."""
    postgres.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LOCALE_PROVIDER libc LOCALE 'C'")
    with pytest.raises(StateUnavailable, match="LATIN1"):
        async with open_records(postgres.url("latin")):
            pass


async def test_lists_are_in_the_order_of_bytes(both: tuple[SqlRecords, SqlRecords]):
    """Whatever language the database speaks: the pages of stamps go on where the last one ended."""
    for actor_id in ("B", "a", "C", "b"):
        await both[0].add_actor(replace(ACTOR, id=actor_id, name=f"name-{actor_id}-{ord(actor_id)}"))
    stamps = await both[0].actor_stamps("", 10)
    assert [actor_id for actor_id, _ in stamps] == ["B", "C", "a", "actor", "b"]


# When the server is not there


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that this test may stop."""
    with running() as server:
        yield server


@asynccontextmanager
async def in_own(server: PostgresServer) -> AsyncIterator[SqlRecords]:
    async with open_records(server.url(server.create_database())) as records:
        await records.add_user(OWNER)
        yield records


@pytest.mark.slow
async def test_a_restart_of_the_server(own_server: PostgresServer):
    """While it is away calls fail at once with a word on where to look; after it all work, old connections or not."""
    async with in_own(own_server) as records:
        await asyncio.gather(*(records.user("owner") for _ in range(8)))  # several connections
        own_server.stop()
        for call in (records.user("owner"), records.add_actor(ACTOR)):
            began = time.monotonic()
            with pytest.raises(StateUnavailable, match="Is PostgreSQL there") as caught:
                await call
            assert time.monotonic() - began < 5
            assert "secret-of-postgres" not in "".join(traceback.format_exception(caught.value))
        own_server.start()
        assert await asyncio.gather(*(records.user("owner") for _ in range(8))) == [OWNER] * 8
        await records.add_actor(ACTOR)


@pytest.mark.slow
async def test_a_restart_between_two_calls_is_not_noticed(own_server: PostgresServer):
    """Connections that broke meanwhile are replaced, and what they were to do is done."""
    async with in_own(own_server) as records:
        await asyncio.gather(*(records.user("owner") for _ in range(4)))
        own_server.stop()
        own_server.start()
        await records.add_actor(ACTOR)
        assert await records.actor("actor") == ACTOR
        assert await records.user("owner") == OWNER


@pytest.mark.slow
async def test_what_was_answered_survives_a_crash_of_the_server(own_server: PostgresServer):
    """With the server's own settings for that; nothing that was answered is lost, nothing is there twice."""
    own_server.stop()
    own_server.start(synchronous_commit="on")
    async with in_own(own_server) as records:
        answered: list[str] = []
        some = asyncio.Event()

        async def write() -> None:
            with contextlib.suppress(StateUnavailable):
                for number in range(10_000):
                    await records.add_user(replace(OWNER, id=f"u{number}", username=f"u{number}"))
                    answered.append(f"u{number}")
                    if number == 20:
                        some.set()

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write())
            await some.wait()
            await asyncio.to_thread(own_server.stop, signal.SIGQUIT)
        assert writing.done()
        own_server.start()
        there = [user.id for user in await records.list_users() if user.id != "owner"]
        assert set(answered) <= set(there)
        assert len(there) - len(answered) in (0, 1)


@pytest.mark.slow
async def test_a_server_that_answers_nothing(own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch):
    """Callers wait a bounded time, closing does too, and what goes on afterwards is served."""
    monkeypatch.setattr(adapter, "_ANSWER_SECS", 1.0)
    monkeypatch.setattr(adapter, "_CONNECT_SECS", 2)
    monkeypatch.setitem(adapter._SESSION, "connect_timeout", 2)
    async with AsyncExitStack() as stack:
        records = await stack.enter_async_context(in_own(own_server))
        calls = [records.user("owner"), records.add_actor(ACTOR), *(records.list_users() for _ in range(6))]
        with own_server.paused():
            began = time.monotonic()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - began < 25
        assert [type(answer) for answer in answers] == [StateUnavailable] * 8
        assert await records.user("owner") == OWNER
        await records.add_actor(ACTOR)
        with own_server.paused():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await records.user("owner")
            began = time.monotonic()
            await stack.aclose()
            assert time.monotonic() - began < 25


@pytest.mark.slow
async def test_tls(own_server: PostgresServer, tmp_path: Path):
    """The address says whose word counts for the server; one that others vouch for is not spoken to."""
    theirs, others = Authority(), Authority()
    for name, authority in (("theirs", theirs), ("others", others)):
        (tmp_path / f"{name}.pem").write_text(authority.pem)
    certificate, key = theirs.issue("localhost")
    files = {
        "ssl_cert_file": str(own_server.put("server.pem", certificate)),
        "ssl_key_file": str(own_server.put("server.key", key)),
    }
    name = own_server.create_database()
    own_server.stop()
    own_server.start(ssl="on", **files)
    address = own_server.url(name).replace("127.0.0.1", "localhost") + "?hostaddr=127.0.0.1&sslmode=verify-full"
    async with open_records(f"{address}&sslrootcert={tmp_path}/theirs.pem") as records:
        await records.add_user(OWNER)
        spoken = await records._database.read(
            lambda connection: connection.scalar(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
        )
        assert spoken is True

        async def broken(connection: AsyncConnection) -> None:
            await _cut(connection)
            await connection.execute(text("SELECT 1"))

        with pytest.raises(StateUnavailable):  # it can be cut off, too
            await records._database.read(broken)
        assert await records.user("owner") == OWNER
    with pytest.raises(StateUnavailable, match="SSL error"):
        async with open_records(f"{address}&sslrootcert={tmp_path}/others.pem"):
            pass


async def test_a_server_that_is_not_there(postgres: PostgresServer):
    """It is told at once, without the password."""
    url = postgres.url("postgres").replace(f":{postgres.port}/", ":1/")
    with pytest.raises(StateUnavailable, match=r"127\.0\.0\.1, port 1") as caught:
        async with open_records(url):
            pass
    assert "secret-of-postgres" not in "".join(traceback.format_exception(caught.value))


async def test_a_database_that_is_not_there(postgres: PostgresServer):
    """It is not made: who may make databases is for others to say."""
    with pytest.raises(StateUnavailable, match="absent"):
        async with open_records(postgres.url("absent")):
            pass


@pytest.mark.parametrize("url", ["postgresql://u:secret@h/x?no-such=word", "postgresql://u:very%zzsecret@h/x"])
async def test_an_address_that_is_none(url: str):
    """A mistake of the settings, told without the password that is in it."""
    with pytest.raises(StateUnavailable, match="none that PostgreSQL") as caught:
        async with open_records(url):
            pass
    assert "secret" not in str(caught.value)


async def test_errors_hold_no_values(both: tuple[SqlRecords, SqlRecords], postgres: PostgresServer, url: str):
    """A database that breaks at run time: StateUnavailable, without the values that were to be stored."""
    postgres.execute("ALTER TABLE users DROP COLUMN is_admin", url.rpartition("/")[2])
    user = replace(OWNER, id="x", username="very-secret")
    with pytest.raises(StateUnavailable, match="is_admin") as caught:
        await both[0].add_user(user)
    assert "very-secret" not in "".join(traceback.format_exception(caught.value))


async def test_a_taken_id_is_told_as_what_it_is(both: tuple[SqlRecords, SqlRecords]):
    """By the server's code of the error, not by words that a name may hold too."""
    with pytest.raises(NameNotUnique):
        await both[1].add_user(OWNER)
