"""Data of each released version are served by this one as they were served then."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import Greenroom
from release_dumps import DUMPS, answers_of


@pytest.mark.parametrize("version", sorted(folder.name for folder in DUMPS.iterdir()))
async def test_what_a_release_left_is_served_as_then(tmp_path: Path, version: str) -> None:
    """Opened by this version, which may have migrated it, the old database answers what it answered."""
    data = tmp_path / "data"
    data.mkdir()
    with contextlib.closing(sqlite3.connect(data / "records.sqlite3")) as records:
        records.executescript((DUMPS / version / "records.sql").read_text())
    expected = json.loads((DUMPS / version / "answers.json").read_text())
    async with Greenroom(data) as greenroom:
        found = await answers_of(greenroom, list(expected))
        for path, answer in expected.items():
            assert _lacks(answer, found[path]) == [], path
        # And it is still a working place.
        await greenroom.probe("newer", {"isEnabled": True})
        assert (await greenroom.call("newer")).status_code == 200


def _lacks(old: Any, new: Any, where: str = "") -> list[str]:
    """What was there and is not, or is another; a newer version may say more."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [lack for name, part in old.items() for lack in _lacks(part, new.get(name), f"{where}.{name}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [lack for n, part in enumerate(old) for lack in _lacks(part, new[n], f"{where}[{n}]")]
    return [] if old == new else [f"{where}: {old!r} is now {new!r}"]
