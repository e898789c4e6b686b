"""The forgetting of decisions, over every adapter of the records."""

from __future__ import annotations

from datetime import timedelta
from itertools import count

import pytest
from contracts.conftest import START
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.model import DecisionRecord, Page
from gateway.decision_retention import DecisionRetention
from gateway.state.records import SqlRecords

_numbers = count()
DAY = timedelta(days=1)


def made(pool_id: str, age: timedelta = timedelta()) -> DecisionRecord:
    """One that was made so long before START."""
    return DecisionRecord(
        id=f"{next(_numbers):017}",
        pool_id=pool_id,
        actor_id="actor",
        at=START - age,
        wanted_runs=1,
        present_runs=0,
        reasons=("asked",),
    )


async def kept(records: SqlRecords, pool_id: str) -> list[DecisionRecord]:
    return list((await records.list_decisions(pool_id, Page())).items)


async def test_old_decisions_are_forgotten_of_every_pool(records: SqlRecords) -> None:
    """What is as old as the limit stays, what is older goes; forgotten twice is forgotten."""
    young, limit, old = (made("pool", age) for age in (timedelta(), 7 * DAY, 7 * DAY + timedelta(milliseconds=1)))
    other = made("other", 8 * DAY)
    await records.add_decisions([young, limit, old, other])
    retention = DecisionRetention(records=records, keep=7 * DAY, keep_per_pool=1000, now=lambda: START)
    assert await retention.forget() == 2
    assert await kept(records, "pool") == [limit, young]
    assert await kept(records, "other") == []
    assert await retention.forget() == 0


@pytest.mark.slow
async def test_more_than_one_write_takes_are_forgotten(records: SqlRecords) -> None:
    """Five thousand at once, of which one is to stay."""
    newest = made("pool")
    await records.add_decisions([newest, *(made("pool", DAY) for _ in range(5000))])
    assert await records.forget_decisions(START - 2 * DAY, 1) == 5000
    assert await kept(records, "pool") == [newest]


@given(
    ages=st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 12)), max_size=40),
    keep_days=st.integers(0, 12),
    keep_per_pool=st.integers(1, 12),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_what_is_kept_is_the_newest_of_each_pool(
    records: SqlRecords, ages: list[tuple[str, int]], keep_days: int, keep_per_pool: int
) -> None:
    """Of each pool the newest ones, as many as may be kept, and none before the limit; also where times are equal."""
    await records.forget_decisions(START + DAY, 1)
    decisions = [made(pool_id, days * DAY) for pool_id, days in ages]
    await records.add_decisions(decisions)
    forgotten = await records.forget_decisions(START - keep_days * DAY, keep_per_pool)
    expected = {
        pool_id: sorted(
            (one for one in decisions if one.pool_id == pool_id and one.at >= START - keep_days * DAY),
            key=lambda one: (one.at, one.id),
        )[-keep_per_pool:]
        for pool_id in ("a", "b", "c")
    }
    assert {pool_id: await kept(records, pool_id) for pool_id in expected} == expected
    assert forgotten == len(decisions) - sum(map(len, expected.values()))
