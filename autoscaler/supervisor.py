"""
A run's whole life: start, probe, watch, drain, wind down, abort, time out, adopt. Alone calls launchers.

Each live run has one keeper, a coroutine that begins with the run and ends with its record. Whatever must happen to a
run (a wish in its record, a decision of the autoscaler) is told to its keeper; every change of the record is a
compare-and-set through ``gateway.state.changes``, so a late report can't bring the dead back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from autoscaler.ahead import Ahead
from autoscaler.keeper import Keeper
from autoscaler.keeper_tools import KeeperTools
from autoscaler.launchers.base import ClearsMachines, FoundRun, Launcher
from autoscaler.launchers.led import LedLauncher
from autoscaler.policy.seeing import RunView
from autoscaler.pulse import Pulse
from autoscaler.room_keeping import Other
from gateway.core import run_changes
from gateway.core.errors import LaunchError, RecordNotFound, StandbyRunFailed
from gateway.core.lifecycle import RunStatus
from gateway.core.model import AbortWish, Actor, Build, Origin, Run, RunOptions, User
from gateway.core.standby import Generation, PoolKey, StandbyTarget
from gateway.new_run import RANDOM_BYTES, bare_run
from gateway.run_input import standby_input
from gateway.state.changes import change_run
from gateway.state.ports import Changed, RouteEnded, StateUnavailable
from gateway.state.steady import steadily

_log = logging.getLogger(__name__)

_BUILDS_REMEMBERED = 1000
_KILLED_IN_BETWEEN = "Greenroom was killed while this run was being started, and the run ended with that."


@dataclass(slots=True)
class Supervisor:
    """
    All live runs of this Greenroom. ``running`` owns every keeper and must be entered before anything is started.

    *tools* are what keepers work with; *clock* is monotonic; ``on_gone`` is told when nothing is left of a run.
    ``confirm``, where others may lead instead, returns while this process leads, and until then nothing is done to a
    run; then wishes are also looked for every ``look_again_secs``, since who wrote one may have died before he told.
    """

    tools: KeeperTools
    launcher: Launcher
    clock: Callable[[], float] = time.monotonic
    on_gone: Callable[[], None] = lambda: None
    confirm: Callable[[], Awaitable[None]] | None = None
    look_again_secs: float | None = None
    _hands: Launcher = field(init=False)
    _keepers: dict[str, Keeper] = field(default_factory=dict)
    _lives: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _builds: dict[str, Build] = field(default_factory=dict)
    _group: asyncio.TaskGroup | None = None
    _is_stopping: bool = False
    _ahead: Ahead = field(init=False)

    def __post_init__(self) -> None:
        self._hands = LedLauncher(self.launcher, self.confirm) if self.confirm is not None else self.launcher
        self._ahead = Ahead(tools=self.tools, launcher=self.launcher, clock=self.clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Adopts what lives, then watches for wishes; leaving it lets go of all runs (they live on)."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._take_over()
            watchers = [group.create_task(steadily("the supervisor", self._follow_wishes))]
            if self.look_again_secs is not None:
                again = partial(self._look_again_for_ever, self.look_again_secs)
                watchers.append(group.create_task(steadily("the look for wishes", again)))
            pulse = Pulse(
                runs=lambda: list(self._keepers.values()),
                measure=self.launcher.usage,
                signals=self.tools.state.signals,
                now=self.tools.now,
                clock=self.clock,
            )
            watchers.append(group.create_task(steadily("the measurement of load", pulse.beat_for_ever)))
            watchers.append(group.create_task(steadily("the clearing of machines", self._follow_leaving)))
            try:
                yield
            finally:
                for watcher in watchers:
                    watcher.cancel()
                for keeper in self._keepers.values():
                    keeper.let_go()
                for run_id, life in self._lives.items():
                    # What is only being prepared leaves nothing behind; the next worker begins it anew.
                    if not self._keepers[run_id].has_process:
                        life.cancel()

    async def routes_are_told(self, limit_secs: float) -> None:
        """Returns when the gateways can know of each run that was adopted, or after *limit_secs*."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_secs), asyncio.TaskGroup() as group:
                for keeper in self._keepers.values():
                    group.create_task(keeper.is_told())

    def start_standby(
        self, target: StandbyTarget, pool: PoolKey, known: tuple[Actor, User, Build], memory_mbytes: int
    ) -> str:
        """Begin one more run of *pool* from the *known* records; it counts from this moment. Its id."""
        build = known[2]
        run = self._standby_run(target, pool, build, memory_mbytes)
        generation = Generation(build_id=build.id, memory_mbytes=memory_mbytes)
        ahead = self._ahead.take(pool, generation)
        if ahead is not None:
            run = replace(ahead, options=run.options, meta=run.meta, started_at=run.started_at)
        self._keep(
            Keeper(
                run=run,
                tools=self.tools,
                launcher=self._hands,
                pool=pool,
                generation=generation,
                known=known,
                contents=standby_input(run, build) if target.config.should_pass_actor_input else (),
            )
        )
        return run.id

    def make_ahead(
        self, target: StandbyTarget, pool: PoolKey, known: tuple[Actor, User, Build], memory_mbytes: int
    ) -> None:
        """Have the next run of *pool* made ready, so that it only has to be started; where the launcher can do that."""
        generation = Generation(build_id=known[2].id, memory_mbytes=memory_mbytes)
        if not self._is_stopping and self._ahead.claim(pool, generation):
            assert self._group is not None, "the supervisor is not running"
            run = self._standby_run(target, pool, known[2], memory_mbytes)
            self._group.create_task(self._ahead.make(pool, run, generation, known))

    def keep_ahead(self, is_wanted: Callable[[PoolKey], bool]) -> None:
        """Of what was made ready, remove what is of a pool that *is_wanted* is not true of."""
        for pool in self._ahead.unwanted(is_wanted):
            assert self._group is not None, "the supervisor is not running"
            self._group.create_task(self._ahead.drop(pool))

    def _standby_run(self, target: StandbyTarget, pool: PoolKey, build: Build, memory_mbytes: int) -> Run:
        return bare_run(
            build=build,
            user_id=pool.user_id,
            origin=Origin.STANDBY,
            options=RunOptions(
                build=target.config.build, timeout_secs=0, memory_mbytes=memory_mbytes, disk_mbytes=2 * memory_mbytes
            ),
            now=self.tools.now(),
            random_bytes=os.urandom(RANDOM_BYTES),
            pool=pool,
            meta={"tenancy": str(target.config.tenancy)},
        )

    async def build(self, build_id: str) -> Build | None:
        """A finished build, remembered: it never changes."""
        build = self._builds.get(build_id)
        if build is None:
            build = await self.tools.state.records.build(build_id)
            if build is None or not build.status.is_terminal:
                return build
            if len(self._builds) >= _BUILDS_REMEMBERED:
                self._builds.clear()
            self._builds[build_id] = build
        return build

    def views(self, connected: AbstractSet[str] = frozenset()) -> dict[PoolKey, list[RunView]]:
        """The live runs of each pool, without their use (the gateways know that); *connected* have an events socket."""
        now = self.clock()
        pools: dict[PoolKey, list[RunView]] = {}
        for keeper in self._keepers.values():
            if keeper.pool is not None and keeper.generation is not None:
                pools.setdefault(keeper.pool, []).append(
                    RunView(
                        run_id=keeper.run.id,
                        generation=keeper.generation,
                        readiness=keeper.readiness,
                        age_secs=now - keeper.began,
                        leaves_because=keeper.leaves_because,
                        may_freeze=keeper.may_freeze and keeper.run.id not in connected,
                        cpu_ratio=keeper.cpu_ratio,
                    )
                )
        return pools

    @property
    def live_runs(self) -> int:
        """How many runs live, of all kinds."""
        return len(self._keepers)

    def others(self) -> list[Other]:
        """The live runs that are of no pool."""
        return [
            Other(run_id=run.id, owner=run.user_id, memory_mbytes=run.options.memory_mbytes)
            for run in (keeper.run for keeper in self._keepers.values() if keeper.pool is None)
        ]

    def drain(self, run_id: str, reason: str) -> None:
        """Retire a standby run: nothing new, finish what it has, then wind it down."""
        keeper = self._keepers.get(run_id)
        if keeper is not None:
            keeper.wind_down(reason)

    def give_up(self, run_id: str, reason: str) -> None:
        """Retire a standby run that is not alive any more, which is a failure of its own."""
        keeper = self._keepers.get(run_id)
        if keeper is not None:
            keeper.give_up(reason)

    def freeze(self, run_id: str, reason: str) -> None:
        """Have an unused standby run stand still, unless somebody needs it by then."""
        keeper = self._keepers.get(run_id)
        if keeper is not None:
            keeper.freeze(reason)

    def resume(self, run_id: str, reason: str) -> None:
        """Have a frozen run go on."""
        keeper = self._keepers.get(run_id)
        if keeper is not None:
            keeper.resume(reason)

    def probe_again(self, run_id: str) -> None:
        """A gateway was refused by this run although it was serving."""
        keeper = self._keepers.get(run_id)
        if keeper is not None:
            keeper.probe_again()

    async def stop_all(self, reason: str, timeout_secs: float) -> None:
        """Greenroom stops: wind down standby runs, abort the others gracefully, and kill what is left at the end."""
        self._is_stopping = True
        await self._ahead.drop_all()
        for keeper in list(self._keepers.values()):
            if keeper.pool is not None:
                keeper.wind_down(reason)
            else:
                await self._wish_end(keeper.run.id, reason, gracefully=True)
        if await self._wait_until_empty(timeout_secs):
            return
        _log.warning("%d runs did not end within %.0f s and are killed", len(self._keepers), timeout_secs)
        for keeper in list(self._keepers.values()):
            with contextlib.suppress(LaunchError):  # it has no process yet, or no more
                await self._hands.stop(keeper.run.id, grace_secs=0)
        await self._wait_until_empty(10)

    async def _wait_until_empty(self, timeout_secs: float) -> bool:
        ends = [keeper.ended.wait() for keeper in self._keepers.values()]
        try:
            async with asyncio.timeout(timeout_secs):
                await asyncio.gather(*ends)
        except TimeoutError:
            return False
        return True

    async def _wish_end(self, run_id: str, reason: str, *, gracefully: bool) -> None:
        wish = AbortWish(gracefully=gracefully, requested_at=self.tools.now(), reason=reason)
        try:
            run = await change_run(self.tools.state.records, run_id, lambda run: run_changes.aborting(run, wish))
        except (RecordNotFound, StateUnavailable) as error:
            _log.warning("a run is not asked to end: %s", error, extra={"run_id": run_id})
        else:
            self._tell(run_id, run)

    def _keep(self, keeper: Keeper) -> None:
        assert self._group is not None, "the supervisor is not running"
        self._keepers[keeper.run.id] = keeper
        self._lives[keeper.run.id] = self._group.create_task(self._live(keeper))

    async def _live(self, keeper: Keeper) -> None:
        try:
            await keeper.live()
        except Exception:
            # One run's trouble must not end the others: told, and given a truthful end as far as that can be written.
            _log.exception("the keeper of a run failed", extra={"run_id": keeper.run.id})
            await self._give_up(keeper)
        finally:
            self._keepers.pop(keeper.run.id, None)
            self._lives.pop(keeper.run.id, None)
            keeper.ended.set()
            self.on_gone()

    async def _give_up(self, keeper: Keeper) -> None:
        why = "Greenroom had an internal error; its log tells more."
        with contextlib.suppress(LaunchError):
            await self._hands.stop(keeper.run.id, grace_secs=0)
            await self._hands.wait(keeper.run.id)
        try:
            await self.tools.state.signals.end_route(
                RouteEnded(
                    run_id=keeper.run.id,
                    live_view_label=keeper.run.live_view_label,
                    error_type=StandbyRunFailed.error_type,
                    message=why,
                )
            )
            await self._end_lost(keeper.run, why)
        except Exception:
            _log.exception("the end of a run was not recorded; the next start will", extra={"run_id": keeper.run.id})

    async def _follow_wishes(self) -> None:
        """Reads runs that were created or changed by the API: start READY ones, fulfil aborts."""
        async with self.tools.state.signals.watch_changes() as changes:
            for run in await self.tools.state.records.active_runs():
                await self._look_at(run)
            async for change in changes:
                if change.kind == "run":
                    await self._look_for(change.id)

    async def _look_again_for_ever(self, every_secs: float) -> None:
        while True:
            await asyncio.sleep(every_secs)
            for run in await self.tools.state.records.active_runs():
                if run.id in self._keepers:
                    self._tell(run.id, run)
                else:
                    await self._look_for(run.id)  # its keeper may have ended since the list was read

    async def _look_for(self, run_id: str) -> None:
        run = await self.tools.state.records.run(run_id)
        if run is not None:
            await self._look_at(run)

    async def _follow_leaving(self) -> None:
        """Runs that must leave a machine are told so; that a pool's run is replaced, is for the autoscaler."""
        if not isinstance(self.launcher, ClearsMachines):
            return
        async for leaving in self.launcher.leaving():
            keeper = self._keepers.get(leaving.run_id)
            if keeper is None:  # it has just ended
                continue
            _log.info("a run must leave its machine: %s", leaving.reason, extra={"run_id": leaving.run_id})
            keeper.leave(leaving.reason)

    async def _look_at(self, run: Run) -> None:
        if run.id in self._keepers:
            self._tell(run.id, run)
        elif run.pool_id is not None or run.status.is_terminal:
            return
        elif run.status is not RunStatus.READY:
            await self._end_lost(run, "Actor run was aborted before it was started.")
        elif not self._is_stopping:  # else the next start of Greenroom starts it
            self._keep(Keeper(run=run, tools=self.tools, launcher=self._hands, is_stored=True))

    def _tell(self, run_id: str, run: Run | None = None) -> None:
        keeper = self._keepers.get(run_id)
        if keeper is not None:
            keeper.look(run)

    async def _take_over(self) -> None:
        """After a start: adopt what lives by run id, give the others a truthful end, remove what nobody owns."""
        found = {item.run_id: item for item in await self._hands.list()}
        for run in await self.tools.state.records.active_runs():
            item = found.pop(run.id, None)
            if item is not None and await self._hands.adopt(run.id, item.placement):
                self._adopt(run, item)
            elif run.status is RunStatus.RUNNING and run.restart_wish is not None:
                self._adopt(run, None)  # killed amid its restart
            elif run.status is RunStatus.READY and run.pool_id is None:
                pass  # was promised to an API caller: _follow_wishes starts it
            elif run.status is RunStatus.READY or (run.status is RunStatus.ABORTING and not run.placement):
                await self._end_lost(run, _KILLED_IN_BETWEEN)
            else:
                await self._end_lost(run, "The run was lost while Greenroom was down: neither process nor exit code.")
        for item in found.values():
            await self._remove(item)
        try:
            await self._tidy_logs()
        except StateUnavailable as error:
            _log.warning("logs of ended runs stay where they are: %s", error)

    async def _tidy_logs(self) -> None:
        """Greenroom may have been killed after the end of a run and before its log was kept, or before its record."""
        records, logs = self.tools.state.records, self.tools.logs
        for job_id in logs.live():
            job = await records.run(job_id) or await records.build(job_id)
            if job is None:
                await logs.delete(job_id)
            elif job.status.is_terminal and job_id not in self._keepers:
                await logs.keep(job_id)

    def _adopt(self, run: Run, item: FoundRun | None) -> None:
        pool = PoolKey.parse(run.pool_id) if run.pool_id else None
        generation = Generation(build_id=run.build_id, memory_mbytes=run.options.memory_mbytes) if pool else None
        state = "was being restarted" if item is None else "lives" if item.is_alive else "ended meanwhile"
        _log.info("adopted a run that %s", state, extra={"run_id": run.id})
        keeper = Keeper(
            run=run,
            tools=self.tools,
            launcher=self._hands,
            pool=pool,
            generation=generation,
            is_stored=True,
            adopted=item,
        )
        self._keep(keeper)

    async def _remove(self, item: FoundRun) -> None:
        """Something runs (or has run) that no active record knows."""
        if item.is_alive and await self._hands.adopt(item.run_id, item.placement):
            _log.warning("stopping a process that belongs to no active run", extra={"run_id": item.run_id})
            await self._hands.stop(item.run_id, grace_secs=0)
            await self._hands.wait(item.run_id)
        await self._hands.forget(item.run_id)
        await self.tools.logs.keep(item.run_id)

    async def _end_lost(self, run: Run, why: str) -> None:
        await change_run(
            self.tools.state.records,
            run.id,
            lambda current: run_changes.failed_to_start(current, self.tools.now(), why),
        )
        await self.tools.logs.keep(run.id)
        await self.tools.state.signals.end_route(RouteEnded(run_id=run.id, live_view_label=run.live_view_label))
        await self.tools.state.signals.changed(Changed(kind="run", id=run.id))
