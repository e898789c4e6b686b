"""On a tick or a poke: observe, decide, act. Each decision that changes something is kept with its reasons."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from autoscaler.decision_book import DecisionBook
from autoscaler.liveness import Liveness
from autoscaler.machine import capacity_of
from autoscaler.machine_cpu import MachineCpu
from autoscaler.policy.asked import ToldBefore, asked_since
from autoscaler.policy.deciding import Decision, decide, inputs
from autoscaler.policy.due import Due, sign_of
from autoscaler.policy.load_rule import NO_CPU
from autoscaler.policy.memory import Memory
from autoscaler.policy.observing import Observation, RunSeen
from autoscaler.policy.pace import Pace
from autoscaler.policy.quarantine import FREE, RunNews, Standing
from autoscaler.policy.room import Grants
from autoscaler.policy.seeing import generation_of, limits_of, runs_seen
from autoscaler.policy.thresholds import Policy, chosen
from autoscaler.recalling import recalled
from autoscaler.room_keeping import HINDRANCES, Other, RoomKeeping, Wish
from autoscaler.supervisor import Supervisor
from autoscaler.troubles import Troubles
from gateway.core.demand import DemandReport, RunUse, merge_pools, merge_runs
from gateway.core.lifecycle import Readiness
from gateway.core.model import DecisionRecord
from gateway.core.standby import Generation, PoolKey, StandbyConfig, StandbyTarget
from gateway.settings import Settings
from gateway.state.directory import Directory
from gateway.state.ports import PoolBlocked, PoolFreed, State, StateUnavailable
from gateway.state.steady import steadily

_log = logging.getLogger(__name__)

_MEMORY_SECS = 3600.0
_HABITS_SECS = 35 * 86_400.0
_FORGET_EVERY_SECS = 60.0
_TROUBLES_TICKS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """
    One pool in one look: what was seen of it *at* that moment, and decided; ``hindrance``: what keeps it from starts.
    """

    pool: PoolKey
    target: StandbyTarget | None
    generation: Generation | None
    seen: Observation
    at: float
    decision: Decision
    hindrance: str | None = None

    @property
    def has_no_run(self) -> bool:
        """Whether no request can hope for a run that is there."""
        return all(run.state is Readiness.DRAINING for run in self.seen.runs)

    @property
    def needs_records(self) -> bool:
        """Whether runs are to be started; or, while none is, the next one to be made ready for who keeps runs warm."""
        is_starting = any(run.state is Readiness.STARTING for run in self.seen.runs)
        return bool(self.decision.start or (self.seen.limits.min_runs and not is_starting))


@dataclass(slots=True, kw_only=True)
class Autoscaler:
    """
    The loop of the process that leads, for one term of its lead: what another leader knew is not known, and begins as
    in panic. *clock* is monotonic; ``on_decision`` is told of each change of mind.

    What the policy remembers of a pool is kept for an hour after its last run and request, and for five weeks where
    runs are started ahead.
    """

    settings: Settings
    state: State
    directory: Directory
    supervisor: Supervisor
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    on_decision: Callable[[], None]
    on_pause: Callable[[bool], None] = lambda _: None
    on_quarantined: Callable[[int], None] = lambda _: None
    builds: Callable[[], Sequence[Other]] = lambda: ()
    clock: Callable[[], float] = time.monotonic
    policy: Policy = field(init=False)
    _machine: MachineCpu = field(init=False)
    _has_cpu_left: bool = True
    _has_begun: bool = False
    _pace: Pace = field(init=False)
    _troubles: Troubles = field(init=False)
    _room: RoomKeeping = field(init=False)
    _liveness: Liveness = field(init=False)
    _freed: asyncio.Event = field(default_factory=asyncio.Event)
    _last: dict[PoolKey, tuple[int, int, bool, str | None]] = field(default_factory=dict)
    _remarks: dict[PoolKey, list[str]] = field(default_factory=dict)
    _memories: dict[PoolKey, Memory] = field(default_factory=dict)
    _told: dict[PoolKey, ToldBefore] = field(default_factory=dict)
    _due: Due = field(init=False)
    _forget_at: float = 0.0
    _book: DecisionBook = field(init=False)

    def __post_init__(self) -> None:
        self._book = DecisionBook(self.state.records)
        self.policy = chosen(self.settings.autoscaler_preset, self.settings.autoscaler_thresholds)
        self._machine = MachineCpu.where_runs_are(self.settings)
        self._due = Due(every_secs=self.settings.tick_secs)
        self._pace = Pace(starts_per_sec=self.settings.max_starts_per_sec)
        self._room = RoomKeeping(
            capacity=capacity_of(self.settings),
            longest_drain_secs=self.policy.longest_drain_secs,
            clock=self.clock,
        )
        self._liveness = Liveness(
            signals=self.state.signals,
            config=self._config_of,
            give_up=self.supervisor.give_up,
            clock=self.clock,
        )
        self._troubles = Troubles(
            signals=self.state.signals,
            logs=self.supervisor.tools.logs,
            ttl_secs=_TROUBLES_TICKS * self.settings.tick_secs,
            clock=self.clock,
            on_pause=self.on_pause,
            on_count=self.on_quarantined,
        )

    async def run(self) -> None:
        """For ever: look, then wait for a poke, the next idle limit or the next tick, whichever is first."""
        async with asyncio.TaskGroup() as group:
            group.create_task(steadily("the keeping of decisions", self._book.write))
            group.create_task(steadily("the autoscaler", self._look_for_ever))
            group.create_task(steadily("the retrying of pools", self._troubles.follow_retries))
            group.create_task(steadily("the report of troubles", self._troubles.report_changes))
            group.create_task(steadily("the giving out of room", self._poke_for_room))
            group.create_task(steadily("the watch over runs that serve", self._liveness.watch))

    async def _look_for_ever(self) -> None:
        if not self._has_begun:
            await self._troubles.begin_anew()
            self._has_begun = True
        look_again = 0.0
        while True:
            await self.state.signals.wait_for_poke(min(self.settings.tick_secs, max(0.001, look_again)))
            look_again = await self.look()

    def _keeps_warm(self, pool: PoolKey) -> bool:
        target = self.directory.target(pool.target_id.lower())
        return target is not None and generation_of(target) is not None and target.config.min_runs > 0

    def _config_of(self, pool: PoolKey) -> StandbyConfig | None:
        target = self.directory.target(pool.target_id.lower())
        return target.config if target is not None else None

    def room_is_free(self) -> None:
        """A run or a build has ended: who waits for room gets it at once."""
        self._freed.set()

    async def _poke_for_room(self) -> None:
        while True:
            await self._freed.wait()
            self._freed.clear()
            for pool in self._room.refused():
                await self.state.signals.free_pool(PoolFreed(pool=pool))
            if self._room.is_short:
                await self.state.signals.poke()

    def hear(self, news: RunNews) -> None:
        """What became of a pool's run: after failures the pool is left alone for a while."""
        self._troubles.hear(news)

    async def look(self) -> float:
        """
        One round over all pools; the seconds until the next run reaches its idle limit.

        Raises StateUnavailable, but not before all is done that can be done without the store.
        """
        reports = await self.state.signals.demand_reports()
        demand, uses, loads = merge_pools(reports), merge_runs(reports), await self.state.signals.loads()
        self._has_cpu_left = self._machine.has_cpu_left(self.clock(), self.policy.cpu_left_ratio)
        for run_id, use in uses.items():
            if use.has_refused:
                self.supervisor.probe_again(run_id)
        views = self.supervisor.views(await self.state.signals.connected_runs())
        warm = (target.pool_for(target.owner_id) for target in self.directory.warm_targets())
        pools = {*views, *(key for key, (_, waiting) in demand.items() if waiting), *warm, *self._awaited()}
        self._forget_others(pools)
        self.supervisor.keep_ahead(lambda pool: pool in pools and self._keeps_warm(pool))
        now = self.clock()
        self._room.begin_look()
        waited_for = [pool for pool, (_, waiting) in demand.items() if waiting]
        failures: list[StateUnavailable] = []
        # Who waits for a run gets it before anything is decided for the others, and before them where room is short.
        for some in (waited_for, pools.difference(waited_for)):
            cases, signs = [], {}
            for pool in some:
                target = self.directory.target(pool.target_id.lower())
                seen_runs = runs_seen(views.get(pool, ()), uses, generation_of(target), loads)
                signs[pool] = sign_of(seen_runs, target)
                if some is waited_for or self._due.is_due(pool, signs[pool], now):
                    with _kept_in(failures):
                        cases.append(await self._decide_pool(pool, target, reports, seen_runs))
            cases = await self._within_room(cases, uses)
            for case in cases:
                self._freeze_and_wind_down(case.decision)
            # Beside each other: for a store that hangs it is waited once, and not once for each pool.
            async with asyncio.TaskGroup() as group:
                for case in cases:
                    finish = self._finish(case, signs[case.pool], now, failures)
                    if case.needs_records:
                        group.create_task(finish)
                    else:
                        await finish
        await self._troubles.report()
        if failures:
            raise failures[0]
        return min(self.settings.tick_secs, self._due.secs_to_next(self.clock()))

    async def _within_room(self, cases: list[_Case], uses: Mapping[str, RunUse]) -> list[_Case]:
        """The cases with as many starts as pace and room allow to each; who has to make room for them is sent away."""
        wishes = [
            Wish(pool=case.pool, generation=case.generation, seen=case.seen, decision=case.decision)
            for case in cases
            if case.generation is not None and case.decision.start
        ]
        if not wishes or self._room.has_plenty(wishes, self.supervisor.live_runs, self._pace.allowance(self.clock())):
            return cases
        runs, min_runs = {}, {}
        for pool, views in self.supervisor.views().items():
            target = self.directory.target(pool.target_id.lower())
            seen = runs_seen(views, uses, generation_of(target))
            runs[pool] = [(run, view.generation.memory_mbytes) for run, view in zip(seen, views, strict=True)]
            min_runs[pool] = target.config.min_runs if target is not None else 0
        residents = self._room.residents(
            runs, [*self.supervisor.others(), *self.builds()], min_runs, self._service_secs
        )
        grants = self._room.grant(wishes, residents, self._pace.allowance(self.clock()))
        pool_of = {resident.run_id: resident.pool for resident in residents}
        for run_id, reason in grants.leave:
            _log.info("winding a run down to make room: %s", reason, extra={"run_id": run_id})
            self.supervisor.drain(run_id, reason)
            if (of_pool := pool_of[run_id]) is not None:
                self._remarks.setdefault(of_pool, []).append(f"wind down {run_id}: {reason}")
        return [await self._within_grant(case, grants) for case in cases]

    async def _within_grant(self, case: _Case, grants: Grants) -> _Case:
        granted = grants.starts.get(case.pool, 0)
        if granted >= case.decision.start or case.generation is None:
            return case
        short = grants.short.get(case.pool)
        if case.has_no_run:
            blocked = self._room.refusal(case.pool, case.generation, short)
            if blocked is not None:
                await self.state.signals.block_pool(blocked)
        seen = replace(case.seen, may_start=granted)
        decision = decide(self.policy, seen, case.at)
        return replace(case, seen=seen, decision=decision, hindrance=HINDRANCES[short] if short is not None else None)

    def _service_secs(self, pool: PoolKey) -> float | None:
        memory = self._memories.get(pool)
        return memory.service_secs if memory is not None else None

    async def _decide_pool(
        self,
        pool: PoolKey,
        target: StandbyTarget | None,
        reports: Sequence[DemandReport],
        runs: Sequence[RunSeen],
    ) -> _Case:
        now = self.clock()
        run_ids = [run.run_id for run in runs]
        asked, self._told[pool] = asked_since(self._told.get(pool), pool, run_ids, reports, now)
        starting = sum(1 for run in runs if run.state is Readiness.STARTING)
        may_start = self.settings.max_starting_runs_per_pool - starting
        generation = generation_of(target)
        standing = self._troubles.standing(pool, generation, starting=starting) if generation is not None else FREE
        if generation is not None and asked.waiting and all(run.state is Readiness.DRAINING for run in runs):
            await self._tell_quarantined(pool, generation, standing)
        if standing.may_start is not None:
            may_start = min(may_start, standing.may_start)
        seen = Observation(
            limits=limits_of(target.config if target else StandbyConfig()),
            runs=runs,
            waiting=asked.waiting,
            average_in_flight=asked.average_in_flight,
            average_waiting=asked.average_waiting,
            arrivals=asked.arrivals,
            finished=asked.finished,
            is_on=generation is not None,
            may_start=max(0, may_start),
            start_unasked=standing.start_unasked,
            has_cpu_left=self._has_cpu_left,
            clock_secs=self.now().timestamp() if self.policy.starts_ahead else None,
            memory=await self._memory_of(pool),
        )
        return _Case(
            pool=pool,
            target=target,
            generation=generation,
            seen=seen,
            at=now,
            decision=decide(self.policy, seen, now),
            hindrance="nothing is started for a while, after failures" if standing.quarantined is not None else None,
        )

    def _awaited(self) -> Sequence[PoolKey]:
        """Those that sleep, and may have a run started ahead of their next request."""
        if not self.policy.starts_ahead:
            return ()
        now = self.clock()
        due = (pool for pool, memory in self._memories.items() if memory.foresight.is_awaited(now))
        return [pool for pool in due if self.directory.target(pool.target_id.lower()) is not None]

    async def _memory_of(self, pool: PoolKey) -> Memory:
        known = self._memories.get(pool)
        if known is not None:
            return known
        return await recalled(self.state.records, pool) if self.policy.starts_ahead else Memory()

    async def _tell_quarantined(self, pool: PoolKey, generation: Generation, standing: Standing) -> None:
        if standing.quarantined is not None:
            known = await self.directory.actor(pool.target_id)
            name = f"{known[1].username}/{known[0].name}" if known is not None else pool.target_id
            await self._troubles.tell_waiting(pool, generation, standing, name)

    async def _finish(self, case: _Case, sign: Hashable, now: float, failures: list[StateUnavailable]) -> None:
        self._due.still_wants(case.pool)
        with _kept_in(failures):
            await self._start(case)
            if case.decision.is_fulfilled:
                self._due.decided(case.pool, sign, now, case.decision.look_again_in_secs)

    async def _start(self, case: _Case) -> None:
        """Start what is due and keep the decision; what else it wants, which needs no store, has been done."""
        decision = case.decision
        self._memories[case.pool] = decision.memory
        try:
            if case.needs_records and case.target is not None and case.generation is not None:
                await self._start_runs(case.pool, case.target, case.generation, decision)
        except StateUnavailable as error:
            if decision.resume or decision.freeze or decision.drain:
                self._keep_record(replace(case, hindrance=f"nothing could be started: {error}"))
            raise
        self._keep_record(case)

    async def _start_runs(
        self, pool: PoolKey, target: StandbyTarget, generation: Generation, decision: Decision
    ) -> None:
        build = await self.supervisor.build(generation.build_id)
        actor = await self.directory.actor(target.actor_id)
        if build is None or actor is None:
            if decision.start:
                gone = PoolBlocked(pool=pool, message="The Actor or its build was deleted.")
                await self.state.signals.block_pool(gone)
            return
        known = (*actor, build)
        if not decision.start:
            self.supervisor.make_ahead(target, pool, known, generation.memory_mbytes)
        for _ in range(decision.start):
            self._pace.started(self.clock())
            run_id = self.supervisor.start_standby(target, pool, known, generation.memory_mbytes)
            _log.info("starting a run: %s", "; ".join(decision.reasons), extra={"run_id": run_id})

    def _freeze_and_wind_down(self, decision: Decision) -> None:
        for run_id, reason in decision.resume:
            self.supervisor.resume(run_id, reason)
        for run_id, reason in decision.freeze:
            self.supervisor.freeze(run_id, reason)
        for run_id, reason in decision.drain:
            _log.info("winding a run down: %s", reason, extra={"run_id": run_id})
            self.supervisor.drain(run_id, reason)

    def _keep_record(self, case: _Case) -> None:
        """A change of mind or an act is kept; the same again is not."""
        pool, decision = case.pool, case.decision
        lacks_cpu = any(reason.startswith(NO_CPU) for reason in decision.reasons)
        mind = (decision.wanted_runs, decision.present_runs, lacks_cpu, case.hindrance)
        remarks = tuple(self._remarks.pop(pool, ()))
        if self._last.get(pool) == mind and not decision.acts and not remarks:
            return
        if case.hindrance is not None:
            remarks = (case.hindrance, *remarks)
        self._last[pool] = mind
        self.on_decision()
        self._book.note(
            DecisionRecord(
                id=self.new_id(),
                pool_id=pool.id,
                actor_id=pool.target_id,
                at=self.now(),
                wanted_runs=decision.wanted_runs,
                present_runs=decision.present_runs,
                reasons=decision.reasons + decision.said_of_runs() + remarks,
                inputs=inputs(self.policy, case.seen, case.at),
                decision=decision.to_json(),
            )
        )

    def _forget_others(self, pools: AbstractSet[PoolKey]) -> None:
        """Of pools without runs and requests, the last decision, and after a time all that was learned of them."""
        for pool in self._last.keys() - pools:
            del self._last[pool]
        self._due.keep(pools)
        now = self.clock()
        if now < self._forget_at:
            return
        self._forget_at = now + _FORGET_EVERY_SECS
        for pool in self._memories.keys() - pools:
            memory = self._memories[pool].asleep(now)
            if now - (memory.at or 0.0) > (_HABITS_SECS if self.policy.starts_ahead else _MEMORY_SECS):
                del self._memories[pool]
                self._told.pop(pool, None)
            else:
                self._memories[pool] = memory


@contextmanager
def _kept_in(failures: list[StateUnavailable]) -> Iterator[None]:
    """What one pool needs from a store that is not there must not keep the others waiting."""
    try:
        yield
    except StateUnavailable as error:
        failures.append(error)
