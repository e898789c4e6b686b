"""Background work goes on after trouble with the stores, and only after that kind of trouble."""

from __future__ import annotations

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


async def test_any_other_error_is_not_hidden() -> None:
    """A bug ends the work and is seen."""

    async def work() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        await steadily("a test", work)
