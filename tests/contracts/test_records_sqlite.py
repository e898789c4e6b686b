"""What the store of records in SQLite promises besides."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from contracts.given_records import a_run, a_token, a_user, storages_of
from sqlalchemy import create_engine, inspect, make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.model import (
    StorageKind,
)
from gateway.state.migrations import upgrade
from gateway.state.ports import StateUnavailable
from gateway.state.records import SqlRecords, open_records
from gateway.state.rows import RUNS, STORAGES, TOKENS, USERS
from gateway.state.tables import metadata


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a database in SQLite."""
    return tmp_path / "folder" / "records.db"


@pytest.fixture
async def in_sqlite(path: Path) -> AsyncIterator[SqlRecords]:
    """Records in that file."""
    async with open_records(sqlite_url(path)) as records:
        yield records


def sqlite_url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


async def test_the_settings_of_sqlite(in_sqlite: SqlRecords, path: Path):
    """Each commit is synced (FULL is 2), references are checked, the log is a WAL; the file is its owner's alone."""

    async def look(connection: AsyncConnection) -> dict[str, Any]:
        names = ("synchronous", "foreign_keys", "journal_mode")
        return {name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar() for name in names}

    expected = {"synchronous": 2, "foreign_keys": 1, "journal_mode": "wal"}
    assert await in_sqlite._database.read(look) == expected
    assert await in_sqlite._database.write(look) == expected

    async def cache_kib(connection: AsyncConnection) -> int:
        return -int((await connection.exec_driver_sql("PRAGMA cache_size")).scalar() or 0)

    assert await in_sqlite._database.read(cache_kib) <= 256, "there are several readers, each with its own"
    assert [file.stat().st_mode & 0o777 for file in path.parent.iterdir()] == [0o600] * 3


async def test_readers_never_wait_for_a_writer(in_sqlite: SqlRecords, path: Path):
    """While another process holds the database for writing, reads are answered and writes wait for its end."""
    user, other = a_user(), a_user()
    await in_sqlite.add_user(user)
    with closing(sqlite3.connect(path, isolation_level=None)) as somebody:
        somebody.execute("BEGIN IMMEDIATE")
        async with asyncio.TaskGroup() as group:
            write = group.create_task(in_sqlite.add_user(other))
            for _ in range(10):
                assert await in_sqlite.user(user.id) == user
            assert not write.done()
            somebody.execute("COMMIT")
    assert await in_sqlite.user(other.id) == other


async def test_migrations_and_tables_agree(in_sqlite: SqlRecords, path: Path, tmp_path: Path):
    """A migrated database is the one that the tables describe, for Alembic and word by word."""
    migrated = create_engine(f"sqlite:///{path}")
    described = create_engine(f"sqlite:///{tmp_path}/described.db")
    metadata.create_all(described)
    try:
        with migrated.connect() as connection:
            options = {"compare_type": True, "compare_server_default": True}
            assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        assert _definitions(migrated) == _definitions(described)
    finally:
        migrated.dispose()
        described.dispose()


def _definitions(engine: Any) -> dict[str, list[str]]:
    """The SQL of each table and index, with the parts of a table in any order and without quotes, which a copy gets."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all()
    return {
        name: sorted(" ".join(part.split()) for part in _parts(sql.replace('"', "")))
        for name, sql in rows
        if name != "alembic_version"
    }


def _parts(sql: str) -> list[str]:
    """What stands before, between and behind the outermost brackets and the commas within them, but ``(``."""
    parts, depth = [""], 0
    for character in sql:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if (character, depth) in {("(", 1), (")", 0), (",", 1)}:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def test_head_is_the_newest_migration():
    """The constant that spares most starts the loading of Alembic names what Alembic would find."""
    config = Config()
    config.set_main_option("script_location", str(Path(upgrade.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == upgrade.HEAD


async def test_records_of_the_first_migration_stay(path: Path):
    """A run keeps its token, and its new fields say what was true then; names of storages are found in any case."""
    path.parent.mkdir()
    config = Config()
    config.set_main_option("script_location", str(Path(upgrade.__file__).parent))
    engine = create_engine(f"sqlite:///{path}")
    run = a_run("owner")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        # What a database of that time holds: the rows of today, without the columns that came later.
        for rows, record in (
            (USERS, a_user(id="owner")),
            (RUNS, run),
            (TOKENS, a_token("owner", run_id=run.id, token_hash="hash")),
            *((STORAGES, storage) for storage in storages_of(run)),
            (STORAGES, replace(storages_of(run)[0], id="named", name="State", stats={"writeCount": 1})),
        ):
            there = {column["name"] for column in inspect(connection).get_columns(rows.table.name)}
            row = {name: value for name, value in rows.values(record).items() if name in there}
            connection.execute(rows.insert, row)
    engine.dispose()

    async with open_records(sqlite_url(path)) as records:
        assert await records.run(run.id) == run
        assert await records.token_by_hash("hash") is not None
        for storage in storages_of(run):
            assert await records.storages.storage(storage.kind, storage.id) == storage
        named = await records.storages.storage_by_name("owner", StorageKind.KEY_VALUE_STORE, "state")
        assert named == replace(storages_of(run)[0], id="named", name="State", stats={"writeCount": 1})


async def test_a_newer_database_is_refused(path: Path):
    """An old Greenroom does not touch records that a newer one has migrated, and says so."""
    async with open_records(sqlite_url(path)):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StateUnavailable, match="9999"):
        async with open_records(sqlite_url(path)):
            pass


def _a_folder_in_its_place(path: Path) -> None:
    path.mkdir(parents=True)


def _a_file_in_its_folders_place(path: Path) -> None:
    path.parent.write_bytes(b"")


def _not_a_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all " * 1000)


@pytest.mark.parametrize("trouble", [_a_folder_in_its_place, _a_file_in_its_folders_place, _not_a_database])
async def test_an_unusable_database_is_told(path: Path, trouble: Callable[[Path], None]):
    """StateUnavailable, whatever the system or the driver raised; never their own errors."""
    trouble(path)
    with pytest.raises(StateUnavailable, match="Records"):
        async with open_records(sqlite_url(path)):
            pass


async def test_a_driver_error_is_told(in_sqlite: SqlRecords, path: Path):
    """A database that breaks at run time: StateUnavailable, without the values that were to be stored."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE users")
    user = a_user(username="very-secret")
    with pytest.raises(StateUnavailable, match="users") as caught:
        await in_sqlite.add_user(user)
    assert "very-secret" not in f"{caught.value} {caught.value.__cause__}"
    with pytest.raises(StateUnavailable):
        await in_sqlite.list_users()


@pytest.mark.parametrize(
    "url",
    ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", "sqlite:///records.db", "postgresql+asyncpg://host/name"],
)
async def test_only_what_is_kept_is_opened(url: str):
    """Records in memory would be lost, and other databases have no adapter yet."""
    make_url(url)
    with pytest.raises(ValueError, match="sqlite"):
        async with open_records(url):
            pass
