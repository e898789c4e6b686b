"""Background work goes on after trouble with the stores, and only after that kind of trouble."""

from __future__ import annotations

import asyncio

import pytest

from gateway.state import steady
from gateway.state.ports import StateUnavailable
from gateway.state.steady import steadily


async def test_work_begins_anew_when_a_store_was_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two failures of a store, then it runs to its end."""
    monkeypatch.setattr(steady, "_PAUSE_SECS", 0)
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise StateUnavailable("the disk is full")

    await steadily("a test", work)
    assert begun == 3


async def test_its_end_is_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that is cancelled, and whose last act fails for want of a store, is not begun anew."""
    monkeypatch.setattr(steady, "_PAUSE_SECS", 0)
    begun = asyncio.Event()

    async def work() -> None:
        assert not begun.is_set()
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise StateUnavailable("the disk is full")

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        working = group.create_task(steadily("a test", work))
        await begun.wait()
        working.cancel()
    assert working.cancelled()


async def test_any_other_error_is_not_hidden() -> None:
    """A bug ends the work and is seen."""

    async def work() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await steadily("a test", work)


async def test_a_trouble_that_goes_on_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And again after a minute, or when the work was well meanwhile."""
    monkeypatch.setattr(steady, "_PAUSE_SECS", 0)
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 4:
            monkeypatch.setattr(steady, "_SAY_AGAIN_SECS", -1)
        if begun == 5:
            monkeypatch.setattr(steady, "_SAY_AGAIN_SECS", 60)
        if begun == 6:
            monkeypatch.setattr(steady, "_SAME_TROUBLE_SECS", -1)
        if begun < 7:
            raise StateUnavailable(f"trouble {begun}")

    await steadily("a test", work)
    assert caplog.messages == [f"a test pauses: trouble {number}" for number in (1, 4, 6)]
