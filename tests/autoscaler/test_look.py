"""One look over all pools: a store that is away holds up what needs it, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from standby_run import NOW

from autoscaler.loop import Autoscaler
from autoscaler.policy.seeing import RunView
from gateway.core.demand import DemandReport, PoolDemand
from gateway.core.lifecycle import Readiness
from gateway.core.standby import Generation, PoolKey, StandbyConfig, StandbyTarget
from gateway.settings import Settings
from gateway.state.ports import StateUnavailable
from gateway.state.signals_memory import MemorySignals

GENERATION = Generation(build_id="build", memory_mbytes=128)
SLEEPING, FROZEN, OTHER = (PoolKey(target_id=name, user_id="owner") for name in ("sleeping", "frozen", "other"))


def pool_target(name: str, min_runs: int = 0) -> StandbyTarget:
    """A standby host with a build."""
    return StandbyTarget(
        actor_id=name,
        owner_id="owner",
        owner_name="owner",
        is_public_actor=False,
        config=StandbyConfig(is_enabled=True, min_runs=min_runs, freeze_after_secs=5),
        generation=GENERATION,
    )


@dataclass
class Bench:
    """An autoscaler whose directory can't read the records; what it has done to runs. *asks_at_once*: so many wait."""

    asks_at_once: int = 1
    min_runs: int = 0
    resumed: list[str] = field(default_factory=list)
    frozen: dict[PoolKey, str] = field(default_factory=lambda: {FROZEN: "run"})
    signals: MemorySignals = field(default_factory=MemorySignals)
    live_runs: int = 1
    tools: Any = field(default_factory=lambda: SimpleNamespace(logs=None))
    kept_decisions: int = 0

    def __post_init__(self) -> None:
        self._asked = asyncio.Barrier(self.asks_at_once)
        here: Any = self
        self.autoscaler = Autoscaler(
            settings=Settings(),
            state=SimpleNamespace(records=None, signals=self.signals),  # type: ignore[arg-type]
            directory=here,
            supervisor=here,
            now=lambda: NOW,
            new_id=lambda: "decision",
            on_decision=self._keep_decision,
        )

    async def look(self, waited_for: Sequence[PoolKey]) -> None:
        """One request waits for each of these."""
        report = DemandReport(
            gateway_id="gateway", routes_seen=1, pools={pool: PoolDemand(waiting=1) for pool in waited_for}, runs={}
        )
        await self.signals.report_demand(report, ttl_secs=60)
        async with asyncio.timeout(10):
            await self.autoscaler.look()

    def _keep_decision(self) -> None:
        self.kept_decisions += 1

    # -- the directory

    def target(self, label: str) -> StandbyTarget:
        return pool_target(label, self.min_runs)

    def warm_targets(self) -> list[StandbyTarget]:
        return []

    async def actor(self, _actor_id: str) -> None:
        await self._asked.wait()
        raise StateUnavailable("PostgreSQL is gone")

    # -- the supervisor

    def views(self, _connected: object = None) -> dict[PoolKey, list[RunView]]:
        return {
            pool: [RunView(run_id=run_id, generation=GENERATION, readiness=Readiness.FROZEN, age_secs=99)]
            for pool, run_id in self.frozen.items()
        }

    def others(self) -> list[object]:
        return []

    async def build(self, _build_id: str) -> object:
        return object()

    def drain(self, _run_id: str, _why: str) -> None:
        raise AssertionError("nothing is wound down here")

    give_up = drain

    def keep_ahead(self, _is_wanted: object) -> None:
        """Nothing was made ready."""

    def resume(self, run_id: str, _why: str) -> None:
        self.resumed.append(run_id)


@pytest.mark.parametrize("waited_for", [(SLEEPING, FROZEN), (FROZEN, SLEEPING)])
async def test_others_are_acted_on(waited_for: tuple[PoolKey, ...]) -> None:
    """A run that only has to go on goes on, whether or not one that would have to be started is asked for before."""
    bench = Bench()
    with pytest.raises(StateUnavailable):
        await bench.look(waited_for)
    assert bench.resumed == ["run"]


async def test_what_needs_no_store_is_done_before_a_start() -> None:
    """Also within one pool, where it is kept on record."""
    bench = Bench(min_runs=2)
    with pytest.raises(StateUnavailable):
        await bench.look([FROZEN])
    assert bench.resumed == ["run"]
    assert bench.kept_decisions == 1


async def test_a_store_that_hangs_is_waited_for_once() -> None:
    """All that ask it ask at once: here it fails when all of them have."""
    bench = Bench(asks_at_once=2)
    with pytest.raises(StateUnavailable):
        await bench.look([SLEEPING, OTHER, FROZEN])
    assert bench.resumed == ["run"]
