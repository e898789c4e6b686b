"""On a tick or a poke: observe, decide, act. Each decision that changes something is kept with its reasons."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from autoscaler.policy.pace import Pace
from autoscaler.policy.scaling import Decision, Observation, RunView, decide
from autoscaler.supervisor import Supervisor
from gateway.core.demand import PoolDemand, RunUse, merge_pools, merge_runs
from gateway.core.lifecycle import Readiness
from gateway.core.model import DecisionRecord
from gateway.core.standby import PoolKey, StandbyConfig, StandbyTarget
from gateway.settings import Settings
from gateway.state.directory import Directory
from gateway.state.ports import PoolBlocked, State
from gateway.state.steady import steadily

_log = logging.getLogger(__name__)

_LEASE = "autoscaler"
_LEASE_SECS = 10.0
_UNWRITTEN_DECISIONS = 10_000
_BATCH_SECS = 0.5


@dataclass(slots=True, kw_only=True)
class Autoscaler:
    """The loop of the process that leads. *clock* is monotonic; ``on_decision`` is told of each change of mind."""

    settings: Settings
    state: State
    directory: Directory
    supervisor: Supervisor
    holder: str
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    on_decision: Callable[[], None]
    clock: Callable[[], float] = time.monotonic
    _pace: Pace = field(init=False)
    _last: dict[PoolKey, tuple[int, int]] = field(default_factory=dict)
    _ahead_at: dict[PoolKey, int] = field(default_factory=dict)
    _unwritten: asyncio.Queue[DecisionRecord] = field(default_factory=lambda: asyncio.Queue(_UNWRITTEN_DECISIONS))

    def __post_init__(self) -> None:
        self._pace = Pace(starts_per_sec=self.settings.max_starts_per_sec)

    async def run(self) -> None:
        """For ever: look, then wait for a poke, the next idle limit or the next tick, whichever is first."""
        async with asyncio.TaskGroup() as group:
            group.create_task(steadily("the keeping of decisions", self._write_decisions))
            group.create_task(steadily("the autoscaler", self._look_for_ever))

    async def _look_for_ever(self) -> None:
        look_again = 0.0
        while True:
            await self.state.signals.wait_for_poke(min(self.settings.tick_secs, max(0.001, look_again)))
            if await self.state.signals.lead(_LEASE, self.holder, ttl_secs=_LEASE_SECS) is None:
                look_again = self.settings.tick_secs
                continue
            look_again = await self.look()

    def start_went(self, pool: PoolKey, served: bool) -> None:
        """How a start of *pool* went; after failures, runs that nobody waits for are started more seldom."""
        self._pace.start_went(pool, served, self.clock())

    async def look(self) -> float:
        """One round over all pools; the seconds until the next run reaches its idle limit."""
        reports = await self.state.signals.demand_reports()
        demand, uses = merge_pools(reports), merge_runs(reports)
        for run_id, use in uses.items():
            if use.has_refused:
                self.supervisor.probe_again(run_id)
        views = self.supervisor.views()
        for pool in self._ahead_at.keys() - views.keys():
            del self._ahead_at[pool]
        pools = {*views, *(key for key, asked in demand.items() if asked.waiting), *self._always_warm()}
        for pool in self._last.keys() - pools:
            del self._last[pool]
        look_again = self.settings.tick_secs
        for pool in pools:
            seen_runs = [_with_use(view, uses.get(view.run_id)) for view in views.get(pool, [])]
            decision = await self._decide_pool(pool, demand.get(pool, PoolDemand()), seen_runs)
            if decision.look_again_in_secs is not None:
                look_again = min(look_again, decision.look_again_in_secs)
        return look_again

    async def _decide_pool(self, pool: PoolKey, asked: PoolDemand, runs: Sequence[RunView]) -> Decision:
        target = self.directory.target(pool.target_id.lower())
        now = self.clock()
        starting = sum(1 for run in runs if run.readiness is Readiness.STARTING)
        seen = Observation(
            config=target.config if target else StandbyConfig(),
            generation=target.generation if target and target.config.is_enabled else None,
            waiting=asked.waiting,
            runs=runs,
            ahead_at=self._ahead_at.get(pool),
            may_start=min(
                self._pace.allowance(now),
                self.settings.max_starting_runs_per_pool - starting,
                self.settings.max_runs - self.supervisor.live_runs,
            ),
            start_unasked=self._pace.may_start_unasked(pool, now),
        )
        seen = replace(seen, may_start=max(0, seen.may_start))
        decision = decide(seen)
        if decision.ahead_at is None:
            self._ahead_at.pop(pool, None)
        else:
            self._ahead_at[pool] = decision.ahead_at
        await self._act(pool, target, seen, decision)
        return decision

    async def _act(self, pool: PoolKey, target: StandbyTarget | None, seen: Observation, decision: Decision) -> None:
        if decision.start and target is not None and seen.generation is not None:
            build = await self.supervisor.build(seen.generation.build_id)
            actor = self.directory.actor(target.actor_id)
            if build is None or actor is None:
                await self.state.signals.block_pool(
                    PoolBlocked(pool=pool, message="The Actor or its build was deleted.")
                )
                return
            for _ in range(decision.start):
                self._pace.started(self.clock())
                run_id = self.supervisor.start_standby(target, pool, (*actor, build), seen.generation.memory_mbytes)
                _log.info("starting a run: %s", "; ".join(decision.reasons), extra={"run_id": run_id})
        for run_id, reason in decision.drain:
            _log.info("winding a run down: %s", reason, extra={"run_id": run_id})
            self.supervisor.drain(run_id, reason)
        await self._make_ahead(pool, target, seen, decision)
        self._keep_record(pool, seen, decision)

    async def _make_ahead(
        self, pool: PoolKey, target: StandbyTarget | None, seen: Observation, decision: Decision
    ) -> None:
        """While nothing is being started: whoever keeps runs warm has the next one made ready."""
        is_starting = decision.start or any(run.readiness is Readiness.STARTING for run in seen.runs)
        if target is None or seen.generation is None or not seen.config.min_runs or is_starting:
            return
        build = await self.supervisor.build(seen.generation.build_id)
        actor = self.directory.actor(target.actor_id)
        if build is not None and actor is not None:
            self.supervisor.make_ahead(target, pool, (*actor, build), seen.generation.memory_mbytes)

    async def _write_decisions(self) -> None:
        """Beside the loop and in batches: writing what was decided for one pool must not delay the wake of the next."""
        batch: list[DecisionRecord] = []
        try:
            while True:
                batch = [await self._unwritten.get()]
                await asyncio.sleep(_BATCH_SECS)
                batch += self._all_unwritten()
                await self.state.records.add_decisions(batch)
                batch = []
        finally:
            await self.state.records.add_decisions(batch + self._all_unwritten())

    def _all_unwritten(self) -> list[DecisionRecord]:
        return [self._unwritten.get_nowait() for _ in range(self._unwritten.qsize())]

    def _keep_record(self, pool: PoolKey, seen: Observation, decision: Decision) -> None:
        """A change of mind or an act is kept; the same again is not."""
        mind = (decision.wanted_runs, decision.present_runs)
        if self._last.get(pool) == mind and not decision.start and not decision.drain:
            return
        self._last[pool] = mind
        self.on_decision()
        drained = tuple(f"wind down {run_id}: {reason}" for run_id, reason in decision.drain)
        if self._unwritten.full():
            _log.warning("decisions come faster than they can be written: one is not kept")
            return
        self._unwritten.put_nowait(
            DecisionRecord(
                id=self.new_id(),
                pool_id=pool.id,
                actor_id=pool.target_id,
                at=self.now(),
                wanted_runs=decision.wanted_runs,
                present_runs=decision.present_runs,
                reasons=decision.reasons + drained,
                inputs={
                    "waiting": seen.waiting,
                    "inFlight": sum(run.in_flight for run in seen.runs),
                    "maxRequestsPerActorRun": seen.config.max_requests_per_run,
                    "desiredRequestsPerActorRun": seen.config.desired_requests_per_run,
                    "runs": [
                        {
                            "id": run.run_id,
                            "readiness": str(run.readiness),
                            "inFlight": run.in_flight,
                            "viewers": run.viewers,
                            "idleSecs": round(run.idle_secs, 3),
                        }
                        for run in seen.runs
                    ],
                },
            )
        )

    def _always_warm(self) -> list[PoolKey]:
        """Pools that keep runs although nobody asks: the owner's pool of each Actor with ``minRuns``."""
        return [
            target.pool_for(target.owner_id)
            for target in self.directory.targets()
            if target.config.is_enabled and target.config.min_runs and target.generation is not None
        ]


def _with_use(view: RunView, use: RunUse | None) -> RunView:
    if use is None:
        return view
    return replace(view, in_flight=use.in_flight, viewers=use.viewers, idle_secs=use.idle_secs)
