"""Who hears of pools in quarantine, and what ends one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from autoscaler.policy.quarantine import FREE, RunNews
from autoscaler.troubles import Troubles
from gateway.core.standby import Generation, PoolKey
from gateway.core.trouble import RETRY
from gateway.live_logs import Logs
from gateway.state.blobs import open_blobs
from gateway.state.ports import Changed, PoolBlocked, PoolFreed, RouteChange
from gateway.state.signals_memory import MemorySignals

POOL, OTHER = PoolKey(target_id="a", user_id="u"), PoolKey(target_id="b", user_id="u")
GENERATION = Generation(build_id="build", memory_mbytes=128)


@dataclass
class Bench:
    """Troubles with a clock that moves when told, and all that gateways hear."""

    data: Path
    now: float = 1000.0
    pauses: list[bool] = field(default_factory=list)
    signals: MemorySignals = field(init=False)
    logs: Logs = field(init=False)
    troubles: Troubles = field(init=False)

    def __post_init__(self) -> None:
        self.signals = MemorySignals(clock=lambda: self.now)
        self.logs = Logs(self.data, open_blobs(self.data / "blobs"))
        self.troubles = Troubles(
            signals=self.signals, logs=self.logs, ttl_secs=20, clock=lambda: self.now, on_pause=self.pauses.append
        )

    def fails(self, pool: PoolKey = POOL, times: int = 3) -> None:
        for number in range(times):
            self.troubles.hear(self.news(pool, f"run{number}", has_ended=True, failed_because="Exit code 3."))

    def news(
        self, pool: PoolKey, run_id: str, *, has_ended: bool = False, failed_because: str | None = None
    ) -> RunNews:
        return RunNews(
            run_id=run_id,
            pool=pool,
            generation=GENERATION,
            began=self.now,
            has_ended=has_ended,
            failed_because=failed_because,
        )

    @asynccontextmanager
    async def heard(self) -> AsyncIterator[list[RouteChange]]:
        """What gateways hear while the block runs."""
        told: list[RouteChange] = []
        async with self.signals.watch_routes() as changes:
            await anext(changes)
            yield told
            last = PoolFreed(pool=PoolKey(target_id="end", user_id=""))
            await self.signals.free_pool(last)
            async for numbered in changes:
                if numbered.change == last:
                    return
                told.append(numbered.change)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_who_waits_hears_why_with_the_log_for_the_owner(bench: Bench) -> None:
    """For as long as the pause lasts, and for the generation that failed."""
    bench.logs.append("run2", "said at last")
    bench.fails()
    bench.now += 4
    async with bench.heard() as told:
        standing = bench.troubles.standing(POOL, GENERATION)
        await bench.troubles.tell_waiting(POOL, GENERATION, standing, "jane/hello")
        await bench.troubles.tell_waiting(OTHER, GENERATION, bench.troubles.standing(OTHER, GENERATION), "jane/other")
    (blocked,) = told
    assert isinstance(blocked, PoolBlocked)
    assert (blocked.pool, blocked.generation, blocked.retry_after_secs) == (POOL, GENERATION, 6)
    assert (blocked.error_type, blocked.facts) == ("standby-quarantined", {"runId": "run2", "failedStarts": 3})
    assert "Exit code 3." in blocked.message
    assert "another 6 s" in blocked.message
    assert "greenroom retry jane/hello" in blocked.message
    assert blocked.log_tail[0].endswith("said at last")


async def test_everybody_may_ask_which_pools_are_in_quarantine(bench: Bench) -> None:
    """Until they are not; a pause that is over leaves one attempt, which is told as such."""
    bench.fails()
    bench.fails(OTHER, times=2)
    await bench.troubles.report()
    (trouble,) = await bench.signals.troubles()
    assert (trouble.pool, trouble.failed_starts, trouble.crashes, trouble.retry_after_secs) == (POOL, 3, 0, 10)
    bench.now += 10
    await bench.troubles.report()
    (trouble,) = await bench.signals.troubles()
    assert trouble.retry_after_secs == 0
    assert "The next request has it tried again." in trouble.message
    bench.troubles.hear(bench.news(POOL, "good"))
    await bench.troubles.report()
    assert list(await bench.signals.troubles()) == []
    assert bench.pauses == [False]


async def test_gateways_hear_when_a_pause_ends_before_its_time(bench: Bench) -> None:
    """By a run that had been started before and serves after all."""
    bench.fails()
    async with bench.heard() as told:
        bench.troubles.hear(bench.news(POOL, "good"))
        await bench.troubles.report()
        await bench.troubles.report()
    assert told == [PoolFreed(pool=POOL)]


async def test_a_new_lead_begins_with_nothing(bench: Bench) -> None:
    """What an earlier one knew, also in another process, may be wrong by now; three starts more tell soon enough."""
    before = Troubles(signals=bench.signals, logs=bench.troubles.logs, ttl_secs=60, clock=bench.troubles.clock)
    for number in range(3):
        before.hear(bench.news(OTHER, f"run{number}", has_ended=True, failed_because="Exit code 3."))
    await before.report()
    bench.fails()
    async with bench.heard() as told:
        await bench.troubles.begin_anew()
        await bench.troubles.report()
    assert sorted(change.pool.id for change in told if isinstance(change, PoolFreed)) == ["a.u", "b.u"]
    assert bench.troubles.standing(POOL, GENERATION) == FREE
    assert list(await bench.signals.troubles()) == []


async def test_a_retry_frees_the_pools_of_one_actor(bench: Bench) -> None:
    """And tells so at once, without waiting for the next look."""
    bench.fails()
    bench.fails(OTHER)
    async with bench.signals.watch_routes() as changes, asyncio.TaskGroup() as group:
        await anext(changes)
        following = [
            group.create_task(work()) for work in (bench.troubles.follow_retries, bench.troubles.report_changes)
        ]
        await asyncio.sleep(0)
        await bench.signals.changed(Changed(kind="actor", id="b"))
        await bench.signals.changed(Changed(kind=RETRY, id="a"))
        async with asyncio.timeout(10):
            freed = (await anext(changes)).change
        assert freed == PoolFreed(pool=POOL)
        assert [trouble.pool for trouble in await bench.signals.troubles()] == [OTHER]
        for task in following:
            task.cancel()
