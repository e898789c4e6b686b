"""What was learned of a pool is found again in the last decision on record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from autoscaler.policy.deciding import inputs
from autoscaler.policy.foresight import Foresight, Plan
from autoscaler.policy.gaps import Gaps
from autoscaler.policy.habits import Habits
from autoscaler.policy.memory import Memory
from autoscaler.policy.observing import Limits, Observation
from autoscaler.policy.thresholds import GREENROOM
from autoscaler.recalling import recalled
from gateway.core.model import DecisionRecord
from gateway.core.standby import PoolKey
from gateway.state.ports import Records
from gateway.state.records import open_records

POOL = PoolKey("actor", "user")
LEARNED = Gaps().add(600.0).add(20.0)
HABITS = Habits((5.0, 900.5), 1.0)


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[Records]:
    async with open_records(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}") as opened:
        yield opened


async def decided(records: Records, number: int, stored: dict[str, Any], pool: PoolKey = POOL) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    one = DecisionRecord(
        id=f"decision{number}",
        pool_id=pool.id,
        actor_id="actor",
        at=at,
        wanted_runs=0,
        present_runs=0,
        reasons=("0 runs",),
        inputs=stored,
        decision={},
    )
    await records.add_decisions([one])


def stored(memory: Memory) -> dict[str, Any]:
    return inputs(GREENROOM, Observation(limits=Limits(), memory=memory), 1000.0)


async def test_the_latest_of_its_own_pool_counts(records: Records) -> None:
    """Gaps, habits and the budget; nothing that was of one moment, or of another process's clock."""
    foresight = Foresight(HABITS, Plan(1.0, 2.0, 3.0, begun=True), run_secs=100.0, vain_secs=7.0)
    memory = Memory(at=990.0, since=5.0, quiet_since=900.0, panic_at=980.0, gaps=LEARNED, foresight=foresight)
    await decided(records, 1, stored(Memory(at=1.0)))
    await decided(records, 2, stored(memory))
    await decided(records, 3, stored(Memory(at=5.0)), PoolKey("actor", "other"))
    found = await recalled(records, POOL)
    assert found == Memory(gaps=LEARNED, foresight=Foresight(HABITS, None, run_secs=100.0, vain_secs=7.0))


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param(None, id="nothing was decided"),
        pytest.param({}, id="stored without inputs"),
        pytest.param({"observation": {"runs": 5}}, id="not as it is now"),
        pytest.param({"observation": {"runs": [], "memory": {"at": 1.0}}}, id="half of a memory"),
        pytest.param({"observation": {"runs": [], "memory": [1]}}, id="no memory"),
    ],
)
async def test_without_a_past_it_begins_anew(records: Records, inputs: dict[str, Any] | None) -> None:
    """Nobody's wake fails of what an older version has stored."""
    if inputs is not None:
        await decided(records, 1, inputs)
    assert await recalled(records, POOL) == Memory()
