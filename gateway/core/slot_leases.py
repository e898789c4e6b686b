"""
No I/O: who holds how many slots of which run, over all gateways: the ledger that grants them.

A gateway (a *borrower*) tells what it keeps and what it needs, and hears what it has; it never takes more. Whatever
it tells later wins over what it told before, so a lost answer, and a call that was carried out too late, cost slots for
a moment but never a limit: the ledger's figure for a borrower is never below what the borrower itself goes by.

- A borrower that is silent for LEASE_SECS has lost all. It goes by its slots for HOLD_SECS after the last call that was
  answered, counted from when it was sent; the rest is for clocks of different rates and for requests under way.
- A ledger that is new or may have lost its last writes (its server was started anew, or another one took over) is
  *closed*: it grants nothing but slots of runs that are as new as itself, until LEASE_SECS have passed or all borrowers
  have told what they hold. All: those that it knows, and those that they know. For that to be everybody, somebody must
  have spoken who was there before, and a newcomer gets nothing before all older ones know of it.

The script in ``gateway/state/redis/slots_script.py`` does the same within Redis; a test holds one against the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

LEASE_SECS = 90.0
HOLD_SECS = 75.0
NEED_SECS = 2.0
"""How long a need that could not be met keeps its place before those that came after it."""


class Age(IntEnum):
    """Which ledgers may have lent slots of a run: it had no place yet, and so nobody to serve, …"""

    OLD = 0
    """… before anybody can say."""
    YOUNG = 1
    """… when the borrower knew another ledger, and has known all since."""
    NEWBORN = 2
    """… when it knew this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotClaim:
    """
    What a borrower says of one run: its *limit*, and how many slots it *keeps* of those that it had.

    ``needs`` is how many it could use now (somebody waits), ``likes`` how many it takes if nobody else needs them; both
    count those that it keeps.
    """

    limit: int
    keeps: int = 0
    needs: int = 0
    likes: int = 0
    age: Age = Age.OLD


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRequest:
    """
    One call of a borrower. ``number`` grows with each; ``epoch`` and ``seen`` are those of the last answer.

    ``is_full``: the claims are all there is to say, what else it held is given back. ``knows`` are all borrowers that
    it has heard of. After ``complete_in_secs`` nobody else can hold anything that was lent before the last answer: a
    ledger that was open then has named them all (0), one that was closed would be open. None: that was too long ago.
    """

    borrower: str
    number: int
    epoch: str = ""
    seen: int = 0
    is_full: bool = False
    complete_in_secs: float | None = None
    knows: tuple[str, ...] = ()
    claims: Mapping[str, SlotClaim] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLease:
    """Of one run: the ``slots`` that the borrower has now, what ``others`` have, and what they need beyond that."""

    slots: int
    others: int = 0
    unmet: int = 0


class Heard(StrEnum):
    """What became of a call."""

    DONE = "done"
    STALE = "stale"
    """A later one of this borrower came before it: nothing was done."""
    UNKNOWN = "unknown"
    """The ledger does not know this borrower (any more): nothing was done, and all is to be told anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotAnswer:
    """
    ``joins`` counts the borrowers that ever came; ``borrowers`` are those whose slots count or may count. A closed
    ledger is open after ``opens_in_secs`` at the latest.
    """

    heard: Heard
    epoch: str = ""
    joins: int = 0
    opens_in_secs: float = 0.0
    borrowers: tuple[str, ...] = ()
    leases: Mapping[str, SlotLease] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether slots of any run are lent."""
        return self.heard is Heard.DONE and self.opens_in_secs == 0.0


class SlotWord(StrEnum):
    """What a message is about."""

    JOINED = "joined"
    """Somebody new is there; say that you know it, by a call."""
    WANTED = "wanted"
    """Others need so many slots of a run."""
    GRANTED = "granted"
    """
    So many slots of a run were granted since the call with this number: an answer that came without a call. So many
    are needed by others yet.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotMessage:
    """One message to one borrower; lost ones cost time and nothing else."""

    word: SlotWord
    run_id: str = ""
    count: int = 0
    number: int = 0
    unmet: int = 0


@dataclass(slots=True)
class _Borrower:
    serial: int
    seen: int
    until: float
    number: int = 0
    epoch: str = ""


@dataclass(slots=True)
class _Need:
    order: int
    count: int
    until: float


@dataclass(slots=True)
class _Run:
    held: dict[str, int] = field(default_factory=dict)
    needs: dict[str, _Need] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settled:
    """The answer to a call, and the messages to others that follow from it."""

    answer: SlotAnswer
    messages: tuple[tuple[str, SlotMessage], ...] = ()


class SlotLedger:
    """
    The state and its rules. *now* is the ledger's own clock, in seconds.

    *server* names the instance that keeps it: another name means that the last writes may be lost. *age_secs* is how
    long that instance has been there: what nobody has told it in LEASE_SECS is no longer so.
    """

    def __init__(self) -> None:
        self._server: str | None = None
        self._epoch = ""
        self._opens_at = 0.0
        self._complete_at = math.inf
        self._awaited: set[str] = set()
        self._joins = 0
        self._orders = 0
        self._borrowers: dict[str, _Borrower] = {}
        self._runs: dict[str, _Run] = {}
        self._began: dict[str, str] = {}
        self._withdrawn: set[str] = set()

    def began(self, run_id: str, *, server: str) -> None:
        """This run is new and has no place yet: nobody can hold a slot of it by an older ledger."""
        self._began[run_id] = server

    def settle(self, request: SlotRequest, *, now: float, server: str, age_secs: float) -> Settled:
        """Take in what a borrower tells, and grant what it may have."""
        if self._server != server:
            self._begin_epoch(now, server, age_secs)
        self._expire(now)
        me = self._borrowers.get(request.borrower)
        if me is not None and request.number <= me.number:
            return Settled(SlotAnswer(heard=Heard.STALE))
        is_known = me is not None and me.epoch == self._epoch == request.epoch
        if not is_known and not request.is_full:
            return Settled(SlotAnswer(heard=Heard.UNKNOWN))
        messages: list[tuple[str, SlotMessage]] = []
        if me is None:
            self._joins += 1
            # Those before it are named in the answer to this very call.
            me = _Borrower(serial=self._joins, seen=self._joins, until=0.0)
            messages += [(other, SlotMessage(word=SlotWord.JOINED)) for other in sorted(self._borrowers)]
            self._borrowers[request.borrower] = me
        if request.is_full:
            self._forget_slots(request.borrower)
            if request.complete_in_secs is not None:
                self._complete_at = min(self._complete_at, now + request.complete_in_secs)
            self._awaited |= set(request.knows) - self._withdrawn
        if request.epoch == self._epoch:
            me.seen = max(me.seen, request.seen)
        me.number, me.until, me.epoch = request.number, now + LEASE_SECS, self._epoch
        self._look_whether_open(now)
        leases = {}
        for run_id, claim in request.claims.items():
            leases[run_id] = self._settle_run(run_id, claim, request.borrower, now, messages)
        return Settled(
            SlotAnswer(
                heard=Heard.DONE,
                epoch=self._epoch,
                joins=self._joins,
                opens_in_secs=max(0.0, self._opens_at - now),
                borrowers=tuple(sorted({*self._borrowers, *self._awaited})),
                leases=leases,
            ),
            tuple(messages),
        )

    def withdraw(self, borrower: str) -> None:
        """It is gone for good: its process has ended, so nothing of it is in flight."""
        self._forget(borrower)
        self._awaited.discard(borrower)
        self._withdrawn.add(borrower)  # whoever has not heard of that may name it yet

    def holders(self, run_id: str, *, now: float, server: str, age_secs: float) -> frozenset[str] | None:
        """Who may have something in flight in this run; None where that can't be told before the ledger opens."""
        alive = {name for name, one in self._borrowers.items() if one.until > now}
        if self._server != server:
            is_open = not alive and age_secs >= LEASE_SECS
        else:
            is_open = self._is_open or now >= self._opens_at
        if not is_open and self._began.get(run_id) != server:
            return None
        run = self._runs.get(run_id)
        return frozenset(alive.intersection(run.held) if run is not None else ())

    @property
    def _is_open(self) -> bool:
        return self._opens_at == 0.0

    def _begin_epoch(self, now: float, server: str, age_secs: float) -> None:
        # A copy lacks a moment, in which somebody may have come; but whoever was there before has known it.
        self._complete_at = now if self._borrowers and self._is_open else math.inf
        self._server = server
        self._epoch = f"{server}/{now * 1000:.0f}"
        self._awaited = set(self._borrowers)
        for one in self._borrowers.values():
            one.until = now + LEASE_SECS  # its clock may be another one
        wait_secs = LEASE_SECS if self._borrowers else max(0.0, LEASE_SECS - age_secs)
        self._opens_at = now + wait_secs

    def _look_whether_open(self, now: float) -> None:
        self._awaited = {
            name for name in self._awaited if name not in self._borrowers or self._borrowers[name].epoch != self._epoch
        }
        if not self._is_open and (now >= self._opens_at or (now >= self._complete_at and not self._awaited)):
            self._opens_at = 0.0
        if self._is_open:
            self._awaited.clear()

    def _expire(self, now: float) -> None:
        for name in [name for name, one in self._borrowers.items() if one.until <= now]:
            self._forget(name)

    def _forget(self, borrower: str) -> None:
        self._borrowers.pop(borrower, None)
        self._forget_slots(borrower)

    def _forget_slots(self, borrower: str) -> None:
        for run in self._runs.values():
            run.held.pop(borrower, None)
            run.needs.pop(borrower, None)
        self._runs = {run_id: run for run_id, run in self._runs.items() if run.held or run.needs}

    def _may_borrow(self, name: str) -> bool:
        me = self._borrowers[name]
        return all(other.seen >= me.serial for other in self._borrowers.values() if other.serial < me.serial)

    def _settle_run(
        self, run_id: str, claim: SlotClaim, name: str, now: float, messages: list[tuple[str, SlotMessage]]
    ) -> SlotLease:
        run = self._runs.setdefault(run_id, _Run())
        run.needs = {other: need for other, need in run.needs.items() if need.until > now}
        age = Age.NEWBORN if self._began.get(run_id) == self._server else claim.age
        is_granting = self._is_open or age is Age.NEWBORN or (age is Age.YOUNG and not self._awaited)
        held = claim.keeps
        others = sum(count for other, count in run.held.items() if other != name)
        free = max(0, claim.limit - held - others) if is_granting else 0
        needs = sorted(
            (need.order, other) for other, need in run.needs.items() if other != name and self._may_borrow(other)
        )
        unmet = {other: max(0, run.needs[other].count - run.held.get(other, 0)) for _, other in needs}
        mine = run.needs.pop(name, None)
        may_borrow = self._may_borrow(name)
        if claim.needs > held:
            if mine is None:
                self._orders += 1
                mine = _Need(self._orders, 0, 0.0)
            mine.count, mine.until = claim.needs, now + NEED_SECS
            earlier = sum(unmet[other] for order, other in needs if order < mine.order)
            granted = max(0, min(claim.needs - held, free - earlier)) if may_borrow else 0
            held, free = held + granted, free - granted
            if claim.needs > held:
                run.needs[name] = mine
        pushed: dict[str, int] = {}
        for _, other in needs:
            granted = min(unmet[other], free)
            if granted > 0:
                run.held[other] = run.held.get(other, 0) + granted
                unmet[other] -= granted
                free, others = free - granted, others + granted
                pushed[other] = granted
            if unmet[other] == 0:
                del run.needs[other]
        messages += [
            (
                other,
                SlotMessage(
                    word=SlotWord.GRANTED,
                    run_id=run_id,
                    count=granted,
                    number=self._borrowers[other].number,
                    unmet=sum(unmet.values()) - unmet[other],
                ),
            )
            for other, granted in pushed.items()
        ]
        if claim.likes > held and may_borrow:
            granted = min(claim.likes - held, free)
            held, free = held + granted, free - granted
        if claim.needs > held:
            wanted = SlotMessage(word=SlotWord.WANTED, run_id=run_id, count=claim.needs - held)
            messages += [(other, wanted) for other in sorted(run.held) if other != name]
        run.held[name] = held
        if held == 0:
            del run.held[name]
        if not run.held and not run.needs:
            del self._runs[run_id]
        return SlotLease(slots=held, others=others, unmet=sum(unmet.values()))
