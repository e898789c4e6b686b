"""``greenroom db export`` and ``import``: what they refuse, and that they change nothing then."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import pytest

from gateway.commands import db
from gateway.core.model import User
from gateway.data_dir import records_place
from gateway.refusals import Refused
from gateway.secret_box import SecretBox
from gateway.services import utc_now
from gateway.settings import Settings
from gateway.state.database import Database, open_database
from gateway.state.migrations.upgrade import HEAD
from gateway.state.records import open_records

OLD = "0001"


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GREENROOM_SECRET_KEY", raising=False)


def settings_of(data: Path) -> Settings:
    data.mkdir(exist_ok=True)
    return Settings(data=data)


def fill(settings: Settings) -> None:
    """Records that hold something."""

    async def add() -> None:
        async with open_records(records_place(settings)) as records:
            await records.add_user(User(id="u" * 17, username="jane", is_admin=True, created_at=utc_now()))

    asyncio.run(add())


def age(settings: Settings) -> None:
    """An older Greenroom's records, for all that can be seen without their tables."""

    async def stamp() -> None:
        async with open_database(records_place(settings), is_migrated=False) as database:
            await database.long_write(
                lambda connection: connection.run_sync(
                    lambda sync: [
                        sync.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"),
                        sync.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{OLD}')"),
                    ]
                )
            )

    asyncio.run(stamp())


def stands_at(settings: Settings) -> str | None:
    async def look() -> str | None:
        async with open_database(records_place(settings), is_migrated=False) as database:
            return await database.revision()

    return asyncio.run(look())


def export(settings: Settings, path: Path, *, with_key: bool = False) -> int:
    return db.run(settings, argparse.Namespace(words="db export", file=path, with_key=with_key))


def import_(settings: Settings, path: Path) -> int:
    return db.run(settings, argparse.Namespace(words="db import", file=path, other_key=False))


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """Of a Greenroom with one user, its key included."""
    settings = settings_of(tmp_path / "exported")
    SecretBox.from_data_dir(settings.data)
    fill(settings)
    assert export(settings, tmp_path / "dump.tar", with_key=True) == 0
    return tmp_path / "dump.tar"


def test_into_a_place_without_a_schema(tmp_path: Path, dump: Path) -> None:
    """It is as good as empty: an import makes the schema."""
    settings = settings_of(tmp_path / "new")
    assert import_(settings, dump) == 0
    assert stands_at(settings) == HEAD
    with pytest.raises(Refused, match="not empty"):
        import_(settings, dump)


def test_records_of_an_older_greenroom(tmp_path: Path, dump: Path) -> None:
    """Neither verb migrates them on the way: that is for whoever has stopped what serves from them."""
    settings = settings_of(tmp_path / "old")
    SecretBox.from_data_dir(settings.data)
    age(settings)
    with pytest.raises(Refused, match=f"stand at migration {OLD}.*db migrate"):
        export(settings, tmp_path / "out.tar")
    with pytest.raises(Refused, match=f"stand at migration {OLD}.*fresh"):
        import_(settings, dump)
    assert stands_at(settings) == OLD
    assert not (tmp_path / "out.tar").exists()


@pytest.mark.parametrize("at", [None, OLD])
def test_records_that_others_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dump: Path, at: str | None) -> None:
    """They are told of first, and find the schema as it was."""
    settings = settings_of(tmp_path / "used")
    if at is not None:
        age(settings)

    async def others(_: Database) -> list[str]:
        return ["greenroom host 1"]

    monkeypatch.setattr(Database, "others", others)
    with pytest.raises(Refused, match="other processes use the records"):
        export(settings, tmp_path / "out.tar")
    with pytest.raises(Refused, match="other processes use the records"):
        import_(settings, dump)
    assert stands_at(settings) == at
    assert not (settings.data / "secret.key").exists()


@pytest.mark.parametrize("with_key", [False, True])
def test_an_export_without_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_key: bool) -> None:
    """A new one is not made for it: it would open none of the secrets, and look as if it did."""
    settings = settings_of(tmp_path / "keyless")
    fill(settings)
    with pytest.raises(Refused, match="has no secret"):
        export(settings, tmp_path / "out.tar", with_key=with_key)
    assert not (settings.data / "secret.key").exists()
    assert not (tmp_path / "out.tar").exists()
    monkeypatch.setenv("GREENROOM_SECRET_KEY", "a key in a variable")
    assert export(settings, tmp_path / "out.tar") == 0
