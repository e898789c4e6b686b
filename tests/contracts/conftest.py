"""The adapters that each contract suite runs against: a second one is one more word."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import postgres_server
import pytest
import s3_server
from contracts.given_records import a_user, an_actor
from sqlalchemy import create_engine

from gateway.core.model import Actor, Storage, StorageKind, User
from gateway.state.blobs import open_blob_store, open_blobs
from gateway.state.migrations.upgrade import upgrade
from gateway.state.ports import Blobs
from gateway.state.records import SqlRecords, open_records
from gateway.state.storages import SqlStorages

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
MakeStorage: TypeAlias = Callable[..., Awaitable[Storage]]
_numbers = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.PostgresServer]:
    """A server for all tests of this process, with a database ``migrated`` to copy."""
    with postgres_server.running() as server:
        server.execute("CREATE DATABASE migrated TEMPLATE template0")
        engine = create_engine(server.url("migrated").replace("://", "+psycopg://"))
        with engine.begin() as connection:
            upgrade(connection)
        engine.dispose()
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def records_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of this test alone; a file is not made yet."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/records.db"
        return
    server: postgres_server.PostgresServer = request.getfixturevalue("postgres")
    name = server.create_database(template="migrated")
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
async def records(records_url: str) -> AsyncIterator[SqlRecords]:
    """Empty records."""
    async with open_records(records_url) as records:
        yield records


@pytest.fixture
async def storages(records: SqlRecords) -> SqlStorages:
    """Of the user "owner", who has none yet."""
    await records.add_user(User(id="owner", username="owner", is_admin=False, created_at=START))
    return records.storages


@pytest.fixture
def make_storage(storages: SqlStorages) -> MakeStorage:
    """Makes an unnamed storage of "owner", or one with other fields, and answers it."""

    async def make(kind: StorageKind, **fields: Any) -> Storage:
        times = dict.fromkeys(("created_at", "modified_at", "accessed_at"), START)
        made = Storage(**{"id": f"{next(_numbers):017}", "kind": kind, "user_id": "owner", **times, **fields})
        return (await storages.get_or_create(made))[0]

    return make


@pytest.fixture(scope="session")
def s3() -> Iterator[s3_server.S3Server]:
    """A server for all tests of this process."""
    with s3_server.running() as server:
        yield server


@pytest.fixture
def s3_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that hold what a bucket asks for."""
    for name, key in s3_server.KEYS.items():
        monkeypatch.setenv(name, key)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """An empty store."""
    if request.param == "folder":
        return open_blobs(tmp_path / "blobs")
    request.getfixturevalue("s3_keys")
    server: s3_server.S3Server = request.getfixturevalue("s3")
    return open_blob_store(server.url(server.create_bucket(), "/some/prefix"))


@pytest.fixture
async def user(records: SqlRecords) -> User:
    """Somebody who owns what a test makes."""
    user = a_user()
    await records.add_user(user)
    return user


@pytest.fixture
async def actor(records: SqlRecords, user: User) -> Actor:
    """An Actor of that user."""
    actor = an_actor(user.id)
    await records.add_actor(actor)
    return actor
