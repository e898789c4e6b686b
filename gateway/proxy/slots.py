"""
No I/O: who gets which slot. One desk per gateway, no awaiting inside: what it decides is true when it returns.

A request takes a slot at once, or a ticket. When a run begins serving or a slot is given back, exactly as many waiters
are let through as there is room for, each with its slot already taken, so that nobody slips between.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from gateway.core.demand import DemandReport, PoolDemand
from gateway.core.errors import (
    GreenroomError,
    StandbyRunFailed,
    StandbyRunFinished,
    StandbyRunNotReady,
    WaitedTooLong,
    WaitingRoomFull,
)
from gateway.core.lifecycle import Readiness
from gateway.core.standby import Generation, PoolKey
from gateway.proxy.balancer import in_turn, pick_run
from gateway.proxy.blocked_pools import BlockedPools, refusal_of
from gateway.proxy.route_table import LiveRun, RouteTable
from gateway.proxy.slot_pool import SlotPool
from gateway.proxy.waiting_room import Ticket
from gateway.state.ports import PoolBlocked, PoolFreed, RouteChange, RouteEnded, RoutesReset, RunRoute


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What a request needs: a slot in *pool*, in a run of *generation*; an owner may see the log of a failed run."""

    pool: PoolKey
    generation: Generation
    desired: int
    limit: int
    idle_timeout_secs: float
    caller: str
    is_owner: bool
    freeze_after_secs: float = math.inf


@dataclass(slots=True, eq=False)
class Held(Ticket):
    """A waiting request; *settle* is called once, with its run (slot taken) or with the error to answer."""

    settle: Callable[[LiveRun | GreenroomError], None] = lambda _: None
    want: Want | None = None


_DRAINING = Readiness.DRAINING  # an enumeration is slow to answer, and each request asks


class SlotDesk:
    """
    Slots, tickets and the demand report of one gateway.

    *clock* is monotonic seconds, *chance* uniform in [0, 1). *poke* is called (cheaply, often) when the autoscaler
    should look at once: somebody waits, every run is above its desired load, a run refuses, a draining run is empty.

    Where several gateways share the runs, a ``SlotBroker`` sets ``on_change``, which is called (cheaply, often) with a
    pool of which it should look whether there are slots to be asked for or given back, and the quota of each run. At
    ``quotas_until`` of ``quota_clock``, which is monotonic too, they are over.
    """

    def __init__(
        self,
        gateway_id: str,
        *,
        room_size: int,
        clock: Callable[[], float],
        chance: Callable[[], float],
        poke: Callable[[], None],
    ) -> None:
        self.routes = RouteTable()
        self._gateway_id = gateway_id
        self._room_size = room_size
        self._clock = clock
        self._chance = chance
        self._poke = poke
        self._pools: dict[PoolKey, SlotPool] = {}
        self.is_cut_off: Callable[[], bool] = lambda: False  # whether nobody hears whom it waits for
        self._blocked = BlockedPools(clock)
        self.on_change: Callable[[PoolKey], None] | None = None
        self.quotas_until = math.inf
        self.quota_clock = clock

    def take(self, want: Want, *, avoid: frozenset[str] = frozenset(), now: float | None = None) -> LiveRun | None:
        """
        A slot in the best run, taken; None where there is none now. *avoid* names runs that just refused.

        *now* is what the clock says, from who has just looked.
        """
        pool = self._pools.get(want.pool)
        if pool is None or pool.want is not want:
            pool = self._pool(want)
        if pool.room.waiting:
            return None
        lone = pool.lone
        if lone is not None and pool.seen_changes == self.routes.changes and not avoid:
            # The usual case, at one stroke: what follows after it comes to the same.
            taken = lone.taken
            if now is None:
                now = self._clock()
            is_lent = self.quotas_until == math.inf or not self._are_quotas_over()
            if taken < pool.limit and taken < lone.quota and is_lent:
                lone.taken = taken + 1
                pool.flown_secs -= now
                pool.arrivals += 1
                if taken >= pool.desired:
                    self._poke()
                return lone
        run = self._take_free(want.pool, pool, avoid)
        if run is not None:
            pool.arrivals += 1
        return run

    def is_asleep(self, want: Want) -> bool:
        """Whether no run of the pool serves or is about to, so that only a wake could help."""
        runs = self.routes.runs_of(want.pool)
        is_asleep = not any(run.route.readiness in (Readiness.STARTING, Readiness.SERVING) for run in runs)
        if is_asleep:
            self._tidy(want.pool)
        return is_asleep

    def hold(self, held: Held) -> None:
        """
        Wait for a slot. Raises WaitingRoomFull, and where no run is there or begun: why none is started now.

        Where there is room all the same (the limit was raised while others waited, a run that this request avoided
        serves again), *settle* is called before this returns; in a full room, that of those who wait.
        """
        assert held.want is not None
        self._refuse_blocked(held.want)
        pool = self._pool(held.want)
        pool.waits_until(self._clock())
        pool.arrivals += 1
        try:
            pool.room.join(held)
        except WaitingRoomFull:
            pool.refused += 1
            raise
        finally:
            self._let_through(held.want.pool)
            if self.on_change is not None:
                self.on_change(held.want.pool)
            if not self._lacks_only_quota(held.want.pool, pool.limit):
                self._poke()

    def _lacks_only_quota(self, key: PoolKey, limit: int) -> bool:
        return any(run.is_serving and run.quota <= run.taken < limit for run in self.routes.runs_of(key))

    def _refuse_blocked(self, want: Want) -> None:
        refusal = self._blocked.refusal(want.pool, want.generation, is_owner=want.is_owner)
        if refusal is not None and all(
            run.route.readiness is Readiness.DRAINING for run in self.routes.runs_of(want.pool)
        ):
            self._tidy(want.pool)
            raise refusal

    def leave(self, held: Held) -> None:
        """The waiter is gone (its caller left, or its time is over)."""
        assert held.want is not None
        pool = self._pools.get(held.want.pool)
        if pool is not None:
            pool.waits_until(self._clock())
            pool.room.leave(held)
            self._tidy(held.want.pool)

    def give_back(self, run: LiveRun, *, used_at: float | None = None, now: float | None = None) -> None:
        """
        One slot of *run* is free again; the next waiter gets it at once.

        *used_at* is when the run was last used by who had it; None: right now. *now* is what the clock says, from who
        has just looked.
        """
        run.taken -= 1
        if now is None:
            now = self._clock()
        route = run.route
        key = route.pool
        if used_at is None:
            run.used_at = now
        else:
            run.used_at = max(run.used_at, used_at)
            self._tell_when_idle(run, now)
        if key is not None:
            pool = self._pools.get(key)
            if pool is not None and not run.is_gone:
                pool.flown_secs += now
                pool.finished += 1
            if run.is_gone or (pool is not None and pool.room.waiting):
                self._let_through(key)
                self._tidy(key)
                self.routes.left(run)
            if run.taken >= run.quota and self.on_change is not None:
                self.on_change(key)
        if route.readiness is _DRAINING:
            self._tell_when_drained(run)

    def view(self, run: LiveRun) -> None:
        """A request by the live-view host begins: no slot, but use, for which a frozen run goes on."""
        run.viewers += 1
        if run.is_frozen:
            self._poke()

    def end_view(self, run: LiveRun) -> None:
        """It has ended."""
        run.viewers -= 1
        run.used_at = self._clock()
        self._tell_when_drained(run)

    def refused(self, run: LiveRun) -> None:
        """*run* refused a connection: nothing new goes to it until it was probed again."""
        self.routes.refused(run)
        self._poke()

    def apply(self, change: RouteChange, version: int) -> list[LiveRun]:
        """Take in a route change and let through whom it helps or tell whom it concerns; the runs that are gone."""
        now = self._clock()
        gone = self.routes.apply(change, version, now)
        for run in gone:
            # Its requests fail by themselves, sooner or later; they are no load any more.
            pool = self._pools.get(run.route.pool) if run.route.pool is not None else None
            if pool is not None:
                pool.flown_secs += run.taken * now
                pool.finished += run.taken
        self._count_revived(now)
        match change:
            case RouteEnded():
                for run in gone:
                    if run.route.pool is not None:
                        self._fail_uncovered(run.route.pool, run, change)
                        self._tidy(run.route.pool)
            case PoolBlocked():
                self._blocked.block(change)
                if not change.is_late:
                    self._fail_all(change)
            case PoolFreed():
                self._blocked.free(change.pool)
            case RunRoute():
                if change.pool is not None:
                    self._let_through(change.pool)
                    if self.on_change is not None:
                        self.on_change(change.pool)
                self._have_streams_wake(change)
                if change.readiness in (Readiness.DRAINING, Readiness.FROZEN):
                    self._poke()
            case RoutesReset():
                self._blocked.forget_all()
                for key in list(self._pools):
                    self._let_through(key)
                    self._tidy(key)
                    if self.on_change is not None:
                        self.on_change(key)
                self._poke()
        return gone

    def _count_revived(self, now: float) -> None:
        while self.routes.revived:
            run = self.routes.revived.pop()
            pool = self._pools.get(run.route.pool) if run.route.pool is not None else None
            if pool is not None:
                pool.flown_secs -= run.taken * now
                pool.finished -= run.taken

    def leasing(self, key: PoolKey) -> tuple[int, int] | None:
        """The limit of each run of a pool and how many wait for a slot; None where nobody has asked for one yet."""
        pool = self._pools.get(key)
        return (pool.limit, len(pool.room)) if pool is not None else None

    def grant(self, run: LiveRun, count: int) -> None:
        """So many slots of *run* more may be used here."""
        run.quota += count
        if run.route.pool is not None:
            self._let_through(run.route.pool)

    def unused_secs(self, run: LiveRun) -> float:
        """How long ago a request in *run* ended last."""
        return self._clock() - run.used_at

    def _are_quotas_over(self) -> bool:
        """Asked by each request, not by a timer alone: a process that was stopped must not go on with them."""
        return self.quotas_until != math.inf and self.quota_clock() >= self.quotas_until

    def end_quotas(self) -> None:
        """What was borrowed is over: nothing new, what is in flight goes on."""
        self.quotas_until = math.inf
        for run in self.routes.all_runs():
            run.quota = 0

    def error_for_late(self, want: Want, waited_secs: float) -> GreenroomError:
        """What a request is told whose time to get a run is over."""
        facts = {"waitedSecs": round(waited_secs, 1), "setting": "pick_timeout_secs"}
        pool = self._pools.get(want.pool)
        if pool is not None:
            pool.refused += 1
        starting = self.routes.starting(want.pool)
        if starting and not self.routes.has_placed(want.pool):
            return StandbyRunNotReady(
                f"The Actor's first run is still being prepared after {waited_secs:.0f} s: its packages are being "
                "installed, and its build's log shows how far. Try again in a moment.",
                data={**facts, "startingRuns": starting},
            )
        if starting:
            return StandbyRunNotReady(
                f"The Actor's run was started but its web server did not answer within {waited_secs:.0f} s. It has to "
                "listen on the port in ACTOR_WEB_SERVER_PORT. Its log tells more.",
                data={**facts, "startingRuns": starting},
            )
        remedy = self._blocked.late_words(want.pool) or "Try again later, or raise maxRuns or maxRequestsPerActorRun."
        if self.is_cut_off():
            remedy = "This gateway is cut off from the others and from the autoscaler at the moment. Try again soon."
        return WaitedTooLong(
            f"No run of this Actor had room within {waited_secs:.0f} s (setting: pick_timeout_secs). {remedy}",
            data=facts,
        )

    def report(self) -> DemandReport:
        """All demand of this gateway now."""
        now = self._clock()
        pools: dict[PoolKey, PoolDemand] = {}
        for key in {*self.routes.pools(), *self._pools}:
            state = self._pools.get(key)
            in_flight = sum(run.taken for run in self.routes.runs_of(key))
            pools[key] = state.demand(in_flight, now) if state else PoolDemand(in_flight=in_flight)
        return DemandReport(
            gateway_id=self._gateway_id,
            routes_seen=self.routes.version,
            at_secs=now,
            pools=pools,
            runs={run.route.run_id: run.use(now, is_wanted=self._is_wanted(run)) for run in self.routes.all_runs()},
        )

    def _is_wanted(self, run: LiveRun) -> bool:
        pool = self._pools.get(run.route.pool) if run.route.pool is not None else None
        return pool is not None and len(pool.room) > 0

    def secs_to_idle_limit(self) -> float:
        """Until the next run was unused for long enough to be frozen or wound down: the autoscaler hears of it then."""
        now = self._clock()
        waits = (
            run.idle_at(limit_secs) - now
            for key, pool in self._pools.items()
            for run in self.routes.runs_of(key)
            for limit_secs in (pool.idle_timeout_secs, pool.freeze_after_secs)
        )
        return min((wait for wait in waits if wait > 0), default=math.inf)

    @property
    def held(self) -> int:
        """How many requests wait, over all pools."""
        return sum(len(pool.room) for pool in self._pools.values())

    @property
    def in_flight(self) -> int:
        """How many requests and sockets are open, over all runs."""
        return sum(run.taken + run.viewers for run in self.routes.all_runs())

    def refuse_all(self, error: GreenroomError) -> None:
        """Greenroom stops: everybody who waits is told."""
        for key, pool in list(self._pools.items()):
            self._refuse(pool, len(pool.room), lambda _: error)
            self._tidy(key)

    def _pool(self, want: Want) -> SlotPool:
        pool = self._pools.get(want.pool)
        if pool is None:
            now = self._clock()
            pool = self._pools[want.pool] = SlotPool(self._room_size, now)
            pool.flown_secs -= now * sum(run.taken for run in self.routes.runs_of(want.pool))
        if want.generation is not pool.generation:
            pool.seen_changes = -1
        pool.want = want
        pool.limit, pool.desired, pool.generation = want.limit, want.desired, want.generation
        pool.idle_timeout_secs, pool.freeze_after_secs = want.idle_timeout_secs, want.freeze_after_secs
        return pool

    def _take_free(self, key: PoolKey, pool: SlotPool, avoid: frozenset[str] = frozenset()) -> LiveRun | None:
        if pool.seen_changes != self.routes.changes:
            assert pool.generation is not None
            current, former = self.routes.serving(key, pool.generation)
            pool.serving = (*((False, runs) for runs in in_turn(current)), *((True, runs) for runs in in_turn(former)))
            pool.lone = current[0] if len(current) == 1 and not former else None
            pool.seen_changes = self.routes.changes
        if self._are_quotas_over():
            self.end_quotas()
        now = self._clock()
        for is_former, runs in pool.serving:
            able = [run for run in runs if run.route.run_id not in avoid] if avoid else runs
            index = pick_run(able, desired=pool.desired, limit=pool.limit, chance=self._chance())
            if index is None:
                continue
            run = able[index]
            run.taken += 1
            pool.flown_secs -= now
            if is_former or (run.taken > pool.desired and all(other.taken > pool.desired for other in able)):
                self._poke()
            return run
        return None

    def _let_through(self, key: PoolKey) -> None:
        pool = self._pools.get(key)
        if pool is None or pool.is_letting_through:
            return
        # A waiter who is gone already gives the slot back from within settle: this loop then finds it free again,
        # instead of one more level of recursion for each of them.
        pool.is_letting_through = True
        pool.waits_until(self._clock())
        try:
            while len(pool.room) and (run := self._take_free(key, pool)) is not None:
                ticket = pool.room.next_ticket()
                assert isinstance(ticket, Held)
                ticket.settle(run)
        finally:
            pool.is_letting_through = False

    def _fail_uncovered(self, key: PoolKey, run: LiveRun, ended: RouteEnded) -> None:
        """
        A run ended. If it never served: tell as many of the longest waiting as it would have served, but only those
        for whom no other starting run has room, e.g. 25 wait for 3 starting runs of 10 and one fails: 5 are told.
        """
        pool = self._pools.get(key)
        if pool is None:
            return
        if ended.error_type is not None:
            covered = self.routes.starting(key) * pool.limit
            uncovered = min(pool.limit, len(pool.room) - covered)
            self._refuse(pool, max(0, uncovered), lambda is_owner: _error_of(ended, is_owner=is_owner))
        if len(pool.room):
            self._poke()

    def _fail_all(self, blocked: PoolBlocked) -> None:
        pool = self._pools.get(blocked.pool)
        if pool is None:
            return
        self._refuse(
            pool,
            len(pool.room),
            lambda is_owner: refusal_of(blocked, blocked.retry_after_secs, is_owner=is_owner),
        )
        self._tidy(blocked.pool)

    def _refuse(self, pool: SlotPool, count: int, error_for: Callable[[bool], GreenroomError]) -> None:
        """Tell those who have waited longest why; an owner may know more than others."""
        pool.waits_until(self._clock())
        for ticket in pool.room.oldest(count):
            assert isinstance(ticket, Held)
            pool.refused += 1
            ticket.settle(error_for(ticket.want is not None and ticket.want.is_owner))

    def _have_streams_wake(self, route: RunRoute) -> None:
        """Its silent sockets did not keep it from being frozen, but what is said on them has it go on."""
        run = self.routes.run(route.run_id)
        for stream in run.streams if run is not None else ():
            stream.wake = self._poke if route.readiness is Readiness.FROZEN else None

    def _tell_when_drained(self, run: LiveRun) -> None:
        if run.route.readiness is Readiness.DRAINING and not run.taken and not run.viewers:
            self._poke()

    def _tell_when_idle(self, run: LiveRun, now: float) -> None:
        """What was open in it has held it over its idle timeout, but was no use."""
        pool = self._pools.get(run.route.pool) if run.route.pool is not None else None
        if pool is not None and run.idle_at(pool.idle_timeout_secs) <= now:
            self._poke()

    def _tidy(self, key: PoolKey) -> None:
        pool = self._pools.get(key)
        if pool is not None and not len(pool.room) and not self.routes.runs_of(key):
            del self._pools[key]


def _error_of(ended: RouteEnded, *, is_owner: bool) -> GreenroomError:
    facts: dict[str, object] = {"runId": ended.run_id}
    if ended.exit_code is not None:
        facts["exitCode"] = ended.exit_code
    if is_owner and ended.log_tail:
        facts["logTail"] = list(ended.log_tail)
    kinds: dict[str, type[GreenroomError]] = {
        StandbyRunFinished.error_type: StandbyRunFinished,
        StandbyRunNotReady.error_type: StandbyRunNotReady,
    }
    return kinds.get(ended.error_type or "", StandbyRunFailed)(ended.message, data=facts)
