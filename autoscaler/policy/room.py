"""
No I/O: who may start runs when there is not enough room or pace for all, and which runs make room for them.

Room is runs and memory, of the machine and of each owner; pace is how many may be started now. Who holds the least is
served first (max-min over owners, by the larger of his shares of runs and of memory), so the hundredth run of a greedy
owner comes after the first of anybody else. Where somebody waits and nothing is free, a run makes room, in this order:

1. the one that has been idle longest, if that is for a while, or its owner holds more than who waits would;
2. one in use, of the owner who holds most and would still hold no less than who waits: it takes nothing new, finishes
   what it has, and its owner's next one comes in turn. Only where its requests are known to be short;
3. the one that has been idle longest, of an owner who holds no less than who waits would;
4. one that is kept warm (``minRuns``).

Runs of an old build, or that must leave their machine, stay until others have taken over. Where the first of those
finds no room even so, and nobody else waits for any, one of the old runs makes room: it finishes what it has, meanwhile
the pool's others serve, or callers wait as they do for a start.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.core.standby import PoolKey

LONG_IDLE_SECS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """The limits of the machine, and of each owner; None: there is none."""

    max_runs: int
    max_memory_mbytes: int | None = None
    max_runs_per_user: int | None = None
    max_memory_mbytes_per_user: int | None = None

    def never(self, memory_mbytes: int) -> str | None:
        """Why not even one run of so much memory can ever be started, with the setting's name."""
        for limit, name in (
            (self.max_memory_mbytes, "max_memory_mbytes"),
            (self.max_memory_mbytes_per_user, "max_memory_mbytes_per_user"),
        ):
            if limit is not None and memory_mbytes > limit:
                return f"A run of it takes {memory_mbytes} MB of memory, and {limit} MB are the limit (setting: {name})"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """
    What takes room: a run of any kind, or a build (which is no run).

    ``idle_secs``: for how long a standby run has had nothing to do; None: it must not go for that. ``is_lent``: it is
    in use, but its requests are short, so it may be asked to finish. ``is_leaving``: its room is about to be free.
    ``is_warm``: ``minRuns`` keeps it. ``is_retiring``: others of its pool are to take over from it.
    """

    run_id: str
    owner: str
    memory_mbytes: int
    pool: PoolKey | None = None
    is_run: bool = True
    idle_secs: float | None = None
    is_lent: bool = False
    in_flight: int = 0
    age_secs: float = 0.0
    is_leaving: bool = False
    is_warm: bool = False
    is_retiring: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """
    What a pool would start: *asked* runs that somebody waits for, or that take over from others, and *more* that nobody
    needs yet. *takes_over*: the first one may come in the place of one that retires.
    """

    pool: PoolKey
    memory_mbytes: int
    asked: int = 0
    more: int = 0
    takes_over: bool = False

    @property
    def owner(self) -> str:
        """Whose runs they would be."""
        return self.pool.user_id


class Shortage(StrEnum):
    """What keeps a pool from its start."""

    PACE = "pace"
    MACHINE = "machine"
    OWNER = "owner"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """How many each pool starts now; which runs go, each with the reason; what those lack who get less than asked."""

    starts: Mapping[PoolKey, int] = field(default_factory=dict)
    leave: tuple[tuple[str, str], ...] = ()
    short: Mapping[PoolKey, Shortage] = field(default_factory=dict)


def grant(
    capacity: Capacity,
    residents: Sequence[Resident],
    claims: Iterable[Claim],
    *,
    pace: int,
    others: Mapping[PoolKey, Shortage] | None = None,
) -> Grants:
    """
    Equal arguments give equal grants; of equal owners and claims those that are named first go first.

    *others*: pools that wait in vain, and are not among the claims.
    """
    table = _Table(capacity, residents, pace)
    claims = list(claims)
    for claim in claims:
        if claim.asked and capacity.never(claim.memory_mbytes) is not None:
            table.short[claim.pool] = Shortage.NEVER
    possible = [claim for claim in claims if capacity.never(claim.memory_mbytes) is None]
    for claim in _in_turn(table, [claim for claim in possible if claim.asked], lambda claim: claim.asked):
        if not table.seat(claim, may_make_room=True):
            table.given_up.add(claim.pool)
    waiting = {**(others or {}), **in_vain(table.short, claims)}
    for claim in possible:
        if claim.takes_over and claim.pool not in table.seated and not _has_rival(claim, waiting):
            table.seat_in_place(claim)
    for claim in _in_turn(table, [claim for claim in possible if claim.more], lambda claim: claim.more):
        if claim.pool in table.given_up or not table.seat(claim, may_make_room=False):
            table.given_up.add(claim.pool)
    return Grants(starts=table.starts, leave=tuple(table.leave), short=table.short)


def in_vain(short: Mapping[PoolKey, Shortage], claims: Iterable[Claim]) -> dict[PoolKey, Shortage]:
    """Those of the *short* who have nothing to give for what they want."""
    may_yield = {claim.pool for claim in claims if claim.takes_over}
    return {pool: why for pool, why in short.items() if pool not in may_yield}


def _has_rival(claim: Claim, waiting: Mapping[PoolKey, Shortage]) -> bool:
    """Whether the room that a run leaves to its successor could be another one's before it is there."""
    return any(
        why in (Shortage.PACE, Shortage.MACHINE) or (why is Shortage.OWNER and pool.user_id == claim.owner)
        for pool, why in waiting.items()
    )


def _in_turn(table: _Table, claims: Sequence[Claim], count: Callable[[Claim], int]) -> Iterator[Claim]:
    """
    Each claim as often as it counts, always one of the owner who holds the least; his claims by turns.

    A claim that is given up in between does not come again.
    """
    of_owner: dict[str, deque[tuple[Claim, int]]] = {}
    for claim in claims:
        of_owner.setdefault(claim.owner, deque()).append((claim, count(claim)))
    heap = [(table.share(owner), order, owner) for order, owner in enumerate(of_owner)]
    heapq.heapify(heap)
    while heap:
        _, order, owner = heapq.heappop(heap)
        queue = of_owner[owner]
        claim, left = queue.popleft()
        if claim.pool not in table.given_up:
            yield claim
            if left > 1 and claim.pool not in table.given_up:
                queue.append((claim, left - 1))
        if queue:
            heapq.heappush(heap, (table.share(owner), order, owner))


@dataclass(slots=True)
class _Held:
    """Room in use, that of it which is about to be free, and what is promised of the latter."""

    runs: int = 0
    mbytes: int = 0
    leaving_runs: int = 0
    leaving_mbytes: int = 0
    promised_runs: int = 0
    promised_mbytes: int = 0

    def fits_now(self, mbytes: int, max_runs: int | None, max_mbytes: int | None) -> bool:
        return _is_within(self.runs + 1, max_runs) and _is_within(self.mbytes + mbytes, max_mbytes)

    def fits_later(self, mbytes: int, max_runs: int | None, max_mbytes: int | None) -> bool:
        runs = self.runs - self.leaving_runs + self.promised_runs + 1
        return _is_within(runs, max_runs) and _is_within(
            self.mbytes - self.leaving_mbytes + self.promised_mbytes + mbytes, max_mbytes
        )


class _Table:
    """The room while it is being given out."""

    def __init__(self, capacity: Capacity, residents: Sequence[Resident], pace: int) -> None:
        self.starts: dict[PoolKey, int] = {}
        self.leave: list[tuple[str, str]] = []
        self.short: dict[PoolKey, Shortage] = {}
        self.given_up: set[PoolKey] = set()
        self.seated: set[PoolKey] = set()
        self._yielding = {resident.pool for resident in residents if resident.is_leaving}
        self._capacity = capacity
        self._pace = pace
        self._all = _Held()
        self._of: dict[str, _Held] = {}
        self._chosen: set[str] = set()
        self._hopeless_from: float | None = None
        for resident in residents:
            for held in (self._all, self._held_by(resident.owner)):
                held.runs += resident.is_run
                held.mbytes += resident.memory_mbytes
            if resident.is_leaving:
                self._mark_leaving(resident, 1)
        staying = [resident for resident in residents if not resident.is_leaving]
        self._idle = sorted(
            (resident for resident in staying if resident.idle_secs is not None),
            key=lambda resident: -(resident.idle_secs or 0.0),
        )
        self._lent = sorted(
            (resident for resident in staying if resident.is_lent),
            key=lambda resident: (resident.is_warm, resident.in_flight, resident.age_secs),
        )
        self._retiring = [run for run in (*self._idle, *self._lent) if run.is_retiring]

    def share(self, owner: str, *, more_runs: int = 0, more_mbytes: int = 0) -> float:
        """The larger of *owner*'s shares of the machine's runs and memory, without what is leaving."""
        held = self._held_by(owner)
        share = (held.runs - held.leaving_runs + held.promised_runs + more_runs) / self._capacity.max_runs
        if self._capacity.max_memory_mbytes is None:
            return share
        mbytes = held.mbytes - held.leaving_mbytes + held.promised_mbytes + more_mbytes
        return max(share, mbytes / self._capacity.max_memory_mbytes)

    def seat(self, claim: Claim, *, may_make_room: bool) -> bool:
        """One run for *claim*: started, or promised the room that is about to be free; False where neither can be."""
        if self._pace <= 0:
            if may_make_room:
                self.short[claim.pool] = Shortage.PACE
            return False
        own = self._held_by(claim.owner)
        if self._lack(claim) is None and self._fits(claim, _Held.fits_now):
            self.starts[claim.pool] = self.starts.get(claim.pool, 0) + 1
            for held in (self._all, own):
                held.runs += 1
                held.mbytes += claim.memory_mbytes
        elif may_make_room and self._make_room(claim, self._who_leaves):
            self._promise(claim)
        else:
            if may_make_room:
                self.short[claim.pool] = self._lack(claim) or Shortage.MACHINE
            return False
        self.seated.add(claim.pool)
        self._pace -= 1
        return True

    def seat_in_place(self, claim: Claim) -> None:
        """One run for *claim* in the place of its pool's own that retire, unless some of the pool's are leaving."""
        if self._pace > 0 and claim.pool not in self._yielding and self._make_room(claim, self._who_retires):
            self._promise(claim)
            self.short.pop(claim.pool, None)
            self._pace -= 1

    def _promise(self, claim: Claim) -> None:
        for held in (self._all, self._held_by(claim.owner)):
            held.promised_runs += 1
            held.promised_mbytes += claim.memory_mbytes

    def _held_by(self, owner: str) -> _Held:
        return self._of.setdefault(owner, _Held())

    def _mark_leaving(self, resident: Resident, sign: int) -> None:
        for held in (self._all, self._held_by(resident.owner)):
            held.leaving_runs += sign * resident.is_run
            held.leaving_mbytes += sign * resident.memory_mbytes

    def _fits(self, claim: Claim, fits: Callable[[_Held, int, int | None, int | None], bool]) -> bool:
        capacity, own = self._capacity, self._held_by(claim.owner)
        mbytes = claim.memory_mbytes
        return fits(self._all, mbytes, capacity.max_runs, capacity.max_memory_mbytes) and fits(
            own, mbytes, capacity.max_runs_per_user, capacity.max_memory_mbytes_per_user
        )

    def _lack(self, claim: Claim) -> Shortage | None:
        """What is short once all that is leaving has gone, and all that is promised has come."""
        capacity, mbytes = self._capacity, claim.memory_mbytes
        own = self._held_by(claim.owner)
        if not own.fits_later(mbytes, capacity.max_runs_per_user, capacity.max_memory_mbytes_per_user):
            return Shortage.OWNER
        if not self._all.fits_later(mbytes, capacity.max_runs, capacity.max_memory_mbytes):
            return Shortage.MACHINE
        return None

    def _make_room(self, claim: Claim, who: Callable[[Claim, Shortage], tuple[Resident, str] | None]) -> bool:
        """Have as many leave as it takes, each that *who* names; none where that would not be enough."""
        chosen: list[tuple[Resident, str]] = []
        while (lack := self._lack(claim)) is not None:
            found = who(claim, lack)
            if found is None:
                for resident, _ in chosen:
                    self._mark_leaving(resident, -1)
                    self._chosen.discard(resident.run_id)
                return False
            chosen.append(found)
            self._mark_leaving(found[0], 1)
            self._chosen.add(found[0].run_id)
        self.leave += [(resident.run_id, why) for resident, why in chosen]
        self._yielding |= {resident.pool for resident, _ in chosen}
        return True

    def _who_leaves(self, claim: Claim, lack: Shortage) -> tuple[Resident, str] | None:
        if lack is Shortage.OWNER:
            own = [run for run in self._candidates(self._idle, claim) if run.owner == claim.owner]
            run = min(own, key=lambda run: run.is_warm, default=None)
            return (
                (run, f"{_idle(run)}, and its owner may have no more beside another one that is needed")
                if run
                else None
            )
        would_hold = self.share(claim.owner, more_runs=1, more_mbytes=claim.memory_mbytes)
        if self._hopeless_from is not None and would_hold >= self._hopeless_from:
            return None
        for may_go, among, why in (
            (self._is_idle_for_long_or_beyond, self._idle, "{idle}, and others need the room"),
            (self._is_beyond, self._lent, "its owner holds the most, and others wait for room"),
            (self._is_no_less, self._idle, "{idle}, and others need the room"),
            (self._is_warm_and_no_less, self._idle, "{idle}, and others need the room more"),
        ):
            run = next((run for run in self._candidates(among, claim) if may_go(run, claim, would_hold)), None)
            if run is not None:
                return run, why.format(idle=_idle(run))
        if not any(run.owner == claim.owner for run in self._idle):
            self._hopeless_from = would_hold
        return None

    def _who_retires(self, claim: Claim, _: Shortage) -> tuple[Resident, str] | None:
        own = (run for run in self._retiring if run.pool == claim.pool and run.run_id not in self._chosen)
        run = next(own, None)
        return (run, "another run is to take over, and there is no room for both") if run is not None else None

    def _candidates(self, among: Sequence[Resident], claim: Claim) -> Iterator[Resident]:
        return (run for run in among if run.run_id not in self._chosen and run.pool != claim.pool)

    def _is_idle_for_long_or_beyond(self, run: Resident, claim: Claim, would_hold: float) -> bool:
        is_long = (run.idle_secs or 0.0) >= LONG_IDLE_SECS
        return not run.is_warm and (is_long or run.owner == claim.owner or self._is_beyond(run, claim, would_hold))

    def _is_beyond(self, run: Resident, claim: Claim, would_hold: float) -> bool:
        """Whether its owner would hold no less than who waits even without it."""
        less = self.share(run.owner, more_runs=-1, more_mbytes=-run.memory_mbytes)
        return run.owner != claim.owner and less >= would_hold

    def _is_no_less(self, run: Resident, claim: Claim, would_hold: float) -> bool:
        return not run.is_warm and self.share(run.owner) >= would_hold

    def _is_warm_and_no_less(self, run: Resident, claim: Claim, would_hold: float) -> bool:
        return run.owner == claim.owner or self.share(run.owner) >= would_hold


def _is_within(number: int, limit: int | None) -> bool:
    return limit is None or number <= limit


def _idle(run: Resident) -> str:
    return f"idle for {run.idle_secs or 0.0:.1f} s"
