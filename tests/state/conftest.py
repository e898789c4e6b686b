"""Real records with one Actor, and a directory that has read them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from state.known_actors import BOB, HELLO

from gateway.state.directory import Directory
from gateway.state.ports import Records
from gateway.state.records import open_records


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Records]:
    async with open_records(f"sqlite+aiosqlite:///{tmp_path}/records.sqlite3") as opened:
        await opened.add_user(BOB)
        await opened.add_actor(HELLO)
        yield opened


@pytest.fixture
async def directory(records: Records) -> Directory:
    made = Directory(records)
    await made.load()
    return made
