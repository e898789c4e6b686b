"""What health pages tell of the stores."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import pytest

from gateway.health import StoreHealth
from gateway.state.ports import State, StateUnavailable


@dataclass
class Stores:
    """Records and signals that are there or not; ``looks`` counts how often the records are asked."""

    trouble: str | None = None
    has_records: bool | None = True
    looks: int = 0
    now: float = 100.0

    async def user(self, user_id: str) -> None:
        self.looks += 1
        if self.has_records is None:
            await asyncio.Event().wait()
        if not self.has_records:
            raise StateUnavailable("Records: away.")

    def health(self) -> StoreHealth:
        stores: Any = self
        state = State(records=stores, blobs=cast(Any, None), signals=stores, storages=cast(Any, None))
        return StoreHealth(state, lambda: self.now)


@pytest.mark.parametrize(
    ("stores", "told"),
    [
        pytest.param(Stores(), {}, id="all is well"),
        pytest.param(Stores(trouble="Redis: away."), {"signals": "unavailable"}, id="no signals"),
        pytest.param(Stores(has_records=False), {"records": "unavailable"}, id="no records"),
        pytest.param(
            Stores(trouble="x", has_records=False), {"signals": "unavailable", "records": "unavailable"}, id="neither"
        ),
    ],
)
async def test_what_is_away_is_told(stores: Stores, told: dict[str, str]) -> None:
    """By its name, and nothing of where it is."""
    assert await stores.health().look() == told


async def test_records_are_not_asked_by_everybody() -> None:
    """Once a second, however many look; what has changed is told then."""
    stores = Stores()
    health = stores.health()
    for _ in range(5):
        await health.look()
    assert stores.looks == 1
    stores.has_records = False
    assert await health.look() == {}
    stores.now += 1
    assert await health.look() == {"records": "unavailable"}
    assert stores.looks == 2


async def test_records_that_hang_are_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for them for long."""
    monkeypatch.setattr("gateway.health._ANSWER_SECS", 0.01)
    assert await Stores(has_records=None).health().look() == {"records": "unavailable"}
