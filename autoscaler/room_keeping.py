"""Room between those who know of it: what is taken, by whom; who waits for some; what callers hear who wait in vain."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from autoscaler.policy.deciding import Decision
from autoscaler.policy.observing import Observation, RunSeen
from autoscaler.policy.room import Capacity, Claim, Grants, Resident, Shortage, grant, in_vain
from gateway.core.errors import StandbyNoRoom
from gateway.core.lifecycle import Readiness
from gateway.core.standby import Generation, PoolKey
from gateway.state.ports import PoolBlocked

_AWAY_SECS = 30.0
"""What was sent away counts as leaving for so long; what still has not gone then may take much longer."""

_PATIENCE_SECS = 10.0
_COME_AGAIN_SECS = 10.0
_NEVER_SECS = 60.0
_TOLD_PER_LOOK = 100


HINDRANCES = {
    Shortage.PACE: "others are being started first (setting: max_starts_per_sec)",
    Shortage.MACHINE: "the machine has no room for another run (settings: max_runs, max_memory_mbytes), and none that "
    "is idle can make room",
    Shortage.OWNER: "all runs that its owner may have are in use (settings: max_runs_per_user, "
    "max_memory_mbytes_per_user)",
    Shortage.NEVER: "a run of it takes more memory than there may be (settings: max_memory_mbytes, "
    "max_memory_mbytes_per_user)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A batch run, or (``is_run`` False) a build: they take room, and are nobody's to send away."""

    run_id: str
    owner: str
    memory_mbytes: int
    is_run: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was decided for a pool on what was seen of it, as if there were room."""

    pool: PoolKey
    generation: Generation
    seen: Observation
    decision: Decision

    def claim(self) -> Claim:
        """
        Those who wait come first: what all open requests need, and then the rest.

        Where runs retire, and none is being started that takes over from them, one is needed, too: traffic that never
        ends would keep them for ever. While another run of the pool drains, and after failed starts, none goes for it.
        """
        seen, start = self.seen, self.decision.start
        requests = seen.waiting + sum(run.in_flight for run in seen.runs)
        needed = math.ceil(requests / seen.limits.max_requests_per_run) - self.decision.present_runs
        asked = min(start, max(0, needed)) if seen.waiting else 0
        live = [run for run in seen.runs if run.state is not Readiness.DRAINING]
        is_succeeded = any(run.state is Readiness.STARTING for run in live if run.retires_because is None)
        lacks_successor = start > 0 and not is_succeeded and any(run.retires_because is not None for run in live)
        if lacks_successor:
            asked = max(1, asked)
        return Claim(
            pool=self.pool,
            memory_mbytes=self.generation.memory_mbytes,
            asked=asked,
            more=start - asked,
            takes_over=lacks_successor and seen.start_unasked and len(live) == len(seen.runs),
        )


@dataclass(slots=True, kw_only=True)
class RoomKeeping:
    """The room of one machine. *clock* is monotonic; ``is_short``: somebody waits for room."""

    capacity: Capacity
    longest_drain_secs: float
    clock: Callable[[], float]
    is_short: bool = False
    _away: dict[str, float] = field(default_factory=dict)
    _short_now: set[PoolKey] = field(default_factory=set)
    _in_vain: dict[PoolKey, Shortage] = field(default_factory=dict)
    _short_since: dict[PoolKey, float] = field(default_factory=dict)
    _told_at: dict[PoolKey, float] = field(default_factory=dict)
    _refused: set[PoolKey] = field(default_factory=set)
    _may_tell: int = _TOLD_PER_LOOK

    def begin_look(self) -> None:
        """Who was short of room at the last look has been so since; all others are not."""
        self._short_since = {pool: self._short_since[pool] for pool in self._short_now}
        self._told_at = {pool: at for pool, at in self._told_at.items() if pool in self._short_now}
        self._short_now = set()
        self.is_short = False
        self._in_vain = {}
        self._may_tell = _TOLD_PER_LOOK

    def has_plenty(self, wishes: Sequence[Wish], live_runs: int, pace: int) -> bool:
        """Whether all get what they want, told without a look at each run: as long as only their number is limited."""
        wanted = sum(wish.decision.start for wish in wishes)
        only_runs = Capacity(max_runs=self.capacity.max_runs)
        return self.capacity == only_runs and wanted <= min(pace, self.capacity.max_runs - live_runs)

    def grant(self, wishes: Sequence[Wish], residents: Sequence[Resident], pace: int) -> Grants:
        """Who starts how many; what has to leave is taken as leaving from now on."""
        claims = [wish.claim() for wish in wishes]
        grants = grant(self.capacity, residents, claims, pace=pace, others=self._in_vain)
        self._in_vain |= in_vain(grants.short, claims)
        now = self.clock()
        self._away |= {run_id: now for run_id, _ in grants.leave}
        self.is_short |= any(grants.starts.get(claim.pool, 0) < claim.asked for claim in claims)
        for pool in grants.short:
            self._short_now.add(pool)
            self._short_since.setdefault(pool, now)
        return grants

    def refused(self) -> list[PoolKey]:
        """Those that were told that their owner's runs are all in use, each once: one may not be any more."""
        pools = list(self._refused)
        self._refused.clear()
        return pools

    def residents(
        self,
        runs: Mapping[PoolKey, Sequence[tuple[RunSeen, int]]],
        others: Iterable[Other],
        min_runs: Mapping[PoolKey, int],
        service_secs: Callable[[PoolKey], float | None],
    ) -> list[Resident]:
        """All that takes room: of the pools their runs with their memory, and what else there is."""
        now = self.clock()
        self._away = {run_id: at for run_id, at in self._away.items() if now - at < _AWAY_SECS}
        found = [
            Resident(run_id=one.run_id, owner=one.owner, memory_mbytes=one.memory_mbytes, is_run=one.is_run)
            for one in others
        ]
        for pool, of_pool in runs.items():
            secs = service_secs(pool)
            is_quick = secs is not None and secs <= self.longest_drain_secs
            warm = _warm([run for run, _ in of_pool], min_runs.get(pool, 0))
            found += [self._resident(pool, run, memory_mbytes, is_quick, warm) for run, memory_mbytes in of_pool]
        return found

    def _resident(
        self, pool: PoolKey, run: RunSeen, memory_mbytes: int, is_quick: bool, warm: AbstractSet[str]
    ) -> Resident:
        is_away = run.run_id in self._away
        return Resident(
            run_id=run.run_id,
            owner=pool.user_id,
            memory_mbytes=memory_mbytes,
            pool=pool,
            idle_secs=run.idle_secs if run.is_up and not run.is_used and not is_away else None,
            is_lent=is_quick and run.is_up and run.in_flight > 0 and not run.viewers and not is_away,
            in_flight=run.in_flight,
            age_secs=run.age_secs,
            is_leaving=is_away or (run.state is Readiness.DRAINING and not run.is_used),
            is_warm=run.run_id in warm,
            is_retiring=run.retires_because is not None,
        )

    def refusal(self, pool: PoolKey, generation: Generation, short: Shortage | None) -> PoolBlocked | None:
        """What those hear who wait for a run of *pool* in vain, at once or late; None: nothing new."""
        if short is Shortage.NEVER:
            why = self.capacity.never(generation.memory_mbytes)
            return PoolBlocked(
                pool=pool,
                message=f"No run of this Actor can be started. {why}: give it less memory, or raise the limit.",
                error_type=StandbyNoRoom.error_type,
                retry_after_secs=_NEVER_SECS,
                generation=generation,
                facts={"memoryMbytes": generation.memory_mbytes},
            )
        now, since = self.clock(), self._short_since.get(pool)
        if short is None or since is None or now - self._told_at.get(pool, -math.inf) < _COME_AGAIN_SECS:
            return None
        if not self._may_tell:  # the others hear at the next look: gateways read only so many at once
            return None
        self._may_tell -= 1
        self._told_at[pool] = now
        if short is Shortage.OWNER and now - since >= _PATIENCE_SECS:
            self._refused.add(pool)
            return PoolBlocked(
                pool=pool,
                message=f"Whose run it would be may have no more than {_limits_of_user(self.capacity)}, and all of his "
                "runs are in use: try again later.",
                error_type=StandbyNoRoom.error_type,
                retry_after_secs=_COME_AGAIN_SECS,
                generation=generation,
                facts={"memoryMbytes": generation.memory_mbytes},
            )
        return PoolBlocked(
            pool=pool,
            message=f"What keeps one from being started: {HINDRANCES[short]}.",
            retry_after_secs=2 * _COME_AGAIN_SECS,
            is_late=True,
        )


def _warm(runs: Sequence[RunSeen], min_runs: int) -> AbstractSet[str]:
    """Those of a pool that ``minRuns`` keeps: all but the ones beyond it that have been idle longest."""
    up = sorted((run for run in runs if run.is_up), key=lambda run: (run.is_used, -run.idle_secs))
    return {run.run_id for run in up[max(0, len(up) - min_runs) :]}


def _limits_of_user(capacity: Capacity) -> str:
    parts = []
    if capacity.max_memory_mbytes_per_user is not None:
        parts.append(f"{capacity.max_memory_mbytes_per_user} MB of memory (setting: max_memory_mbytes_per_user)")
    if capacity.max_runs_per_user is not None:
        parts.append(f"{capacity.max_runs_per_user} runs (setting: max_runs_per_user)")
    return " and ".join(parts)
