"""The adapters that each contract suite runs against: a second one is one more word."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from gateway.state.blobs import ObjectBlobs, open_blobs
from gateway.state.ports import Blobs
from gateway.state.records import SqlRecords, open_records


@pytest.fixture(params=["sqlite"])
def records_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of this test alone, not made yet."""
    return {"sqlite": f"sqlite+aiosqlite:///{tmp_path}/records.db"}[request.param]


@pytest.fixture
async def records(records_url: str) -> AsyncIterator[SqlRecords]:
    """Empty records."""
    async with open_records(records_url) as records:
        yield records


@pytest.fixture(params=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """An empty store; "memory" stands for those that are atomic and durable by themselves."""
    if request.param == "folder":
        return open_blobs(tmp_path / "blobs")
    return ObjectBlobs(MemoryStore())
