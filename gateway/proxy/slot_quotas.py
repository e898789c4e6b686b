"""
No I/O: what one gateway borrows of the slots that it shares with others, what it keeps and what it gives back.

The warm path asks nobody. A gateway borrows its fair part (the limit over the number of gateways) of each run that
has a place, and more as it is needed; what was of no use for a while goes back, and at once where others wait for it.
With a limit below twice the number of gateways nothing is borrowed ahead, since each slot is then missed elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gateway.core.slot_leases import (
    HOLD_SECS,
    Age,
    Heard,
    SlotAnswer,
    SlotClaim,
    SlotLease,
    SlotMessage,
    SlotRequest,
    SlotWord,
)
from gateway.core.standby import PoolKey
from gateway.proxy.route_table import LiveRun
from gateway.proxy.slot_shares import Borrowed, House
from gateway.proxy.slots import SlotDesk

LOOK_SECS = 1.0
"""How often a call is made that looks at some of the runs. It renews what is held, as each call does."""
RETRY_SECS = 0.3
"""After this a need that was not met is told again; in between, whoever gives back makes its own way here."""
UNUSED_SECS = 3.0
"""A run that was not used for so long gives back what is beyond this gateway's fair part."""
_POOLS_PER_LOOK = 200
_TELL_AGAIN_SECS = 600.0  # well before the store may forget what was not touched
_PAUSE_SECS = 0.5  # after a call that failed


@dataclass(slots=True)
class _Call:
    request: SlotRequest
    sent_at: float
    pools: set[PoolKey]


class QuotaBook:
    """
    The quotas of *desk*'s runs. One call is under way at a time: ``next_call``, then ``answered`` or ``failed``.

    *poke* is called where a need could not be met from what there is: the autoscaler should look. *now* is always that
    of the desk's ``quota_clock``.
    """

    def __init__(self, gateway_id: str, desk: SlotDesk, *, poke: Callable[[], None]) -> None:
        self._gateway_id = gateway_id
        self._desk = desk
        self._poke = poke
        self._runs: dict[str, Borrowed] = {}
        self._asked: set[PoolKey] = set()
        self._unmet: set[PoolKey] = set()
        self._retry_at = math.inf
        self._look_at = -math.inf
        self._to_look_at: list[PoolKey] = []
        self._paused_until = -math.inf
        self._call: _Call | None = None
        self._number = 0
        self._epoch = ""
        self._seen = 0
        self._known: frozenset[str] = frozenset()
        self._named: frozenset[str] = frozenset()
        self._epochs: set[str] = set()
        self._known_at = -math.inf
        self._complete_at = math.inf
        self._turn = 0
        self._is_retiring = False
        desk.routes.first_quota = 0

    def changed(self, key: PoolKey) -> None:
        """Something of this pool has changed: requests wait, a run has a place, a slot that others want is free."""
        self._asked.add(key)

    def retire(self) -> None:
        """This gateway stops: all that is not in use is given back, and nothing is asked for any more."""
        self._is_retiring = True
        self._desk.end_quotas()
        self._look_at = -math.inf

    def secs_to_next(self, now: float) -> float:
        """Until ``next_call`` has something to say, if nothing happens before."""
        due = min(self._look_at, self._retry_at if self._unmet else math.inf)
        if self._asked:
            due = now
        return max(0.0, max(due, self._paused_until) - now)

    def next_call(self, now: float) -> SlotRequest | None:
        """What to tell the ledger now; None where there is nothing, or a call is under way."""
        if self._call is not None or now < self._paused_until:
            return None
        if now >= self._desk.quotas_until:
            self._desk.end_quotas()
        is_full = not self._epoch
        is_look = is_full or now >= self._look_at
        if self._unmet and now >= self._retry_at:
            self._asked |= self._unmet
            self._unmet.clear()
        pools = set(self._asked)
        self._asked.clear()
        if is_full:
            pools.update(self._desk.routes.pools())
        elif is_look:
            pools.update(self._next_to_look_at())
        claims = dict(self._claims(pools, now, is_look=is_look, is_full=is_full))
        if not claims and not is_look:
            return None
        self._number += 1
        request = SlotRequest(
            borrower=self._gateway_id,
            number=self._number,
            epoch=self._epoch,
            seen=self._seen,
            is_full=is_full,
            complete_in_secs=max(0.0, self._complete_at - now) if now - self._known_at < HOLD_SECS else None,
            knows=tuple(sorted(self._known)) if is_full else (),
            claims=claims,
        )
        if is_look:
            self._look_at = now + LOOK_SECS  # no other call takes its place: a busy gateway would never look
        self._call = _Call(request, now, pools)
        return request

    def answered(self, request: SlotRequest, answer: SlotAnswer, now: float) -> None:
        """The answer to *request*; one to any other call than that which is under way is none."""
        call = self._call
        if call is None or call.request is not request:
            return
        if answer.heard is not Heard.DONE:
            self._fail(call)
            self._epoch = ""
            return
        self._call = None
        self._desk.quotas_until = call.sent_at + HOLD_SECS
        self._hear_who_is_there(request, answer, call.sent_at, now)
        for run_id, lease in answer.leases.items():
            self._take_in(run_id, request.claims[run_id], lease, now, is_open=answer.is_open)

    def _hear_who_is_there(self, request: SlotRequest, answer: SlotAnswer, sent_at: float, now: float) -> None:
        borrowers = frozenset(answer.borrowers)
        if answer.is_open or sent_at - self._known_at >= HOLD_SECS:
            self._known, self._complete_at = borrowers, now + answer.opens_in_secs
            self._epochs.clear()
        else:
            # Whoever this ledger names no more has left.
            gone = self._named - borrowers if answer.epoch == request.epoch else frozenset()
            self._known = (self._known - gone) | borrowers
            self._complete_at = min(self._complete_at, now + answer.opens_in_secs)
        self._named, self._known_at = borrowers, sent_at
        self._epochs.add(answer.epoch)
        if (answer.epoch, answer.joins) != (request.epoch, request.seen):
            self._look_at = -math.inf  # newcomers wait for it to be said that they are known
        self._epoch, self._seen = answer.epoch, answer.joins
        self._desk.routes.epoch = answer.epoch

    def _take_in(self, run_id: str, claim: SlotClaim, lease: SlotLease, now: float, *, is_open: bool) -> None:
        one = self._runs.get(run_id)
        if one is None:
            return
        one.told_at = now
        one.held, one.others, one.unmet = lease.slots, lease.others, max(0, claim.needs - lease.slots)
        if one.run.is_gone and lease.slots == 0:
            del self._runs[run_id]
            return
        if claim.likes > lease.slots:
            one.likes_again_at = now + LOOK_SECS
        granted = lease.slots - claim.keeps
        if granted > 0:
            self._desk.grant(one.run, granted)
        key = one.run.route.pool
        if lease.slots + lease.others > claim.limit:
            # More than there are: the limit was lowered, or somebody was away for longer than its slots lasted.
            self._shrink(one, self._house.part_of(claim.limit))
        elif lease.unmet:
            self._yield(one, lease.unmet)
        elif is_open and self._is_yielding(one):
            # Nobody wants those in use any more: they may stay, and this gateway may ask for others again.
            one.run.quota = min(one.run.taken, lease.slots)
            if key is not None:
                self._unmet.discard(key)
                self._asked.add(key)
        if key is not None and (claim.needs > lease.slots or (self._is_yielding(one) and self._waiting(key))):
            if not self._unmet:
                self._retry_at = now + RETRY_SECS
            self._unmet.add(key)
            self._poke()

    def failed(self, request: SlotRequest, now: float) -> None:
        """Nobody knows whether the ledger has heard *request*."""
        if self._call is not None and self._call.request is request:
            self._fail(self._call)
            self._paused_until = now + _PAUSE_SECS

    def _fail(self, call: _Call) -> None:
        self._call = None
        self._asked |= call.pools
        self._look_at = -math.inf
        for run_id in call.request.claims:
            one = self._runs.get(run_id)
            if one is not None:
                one.held = None

    def told(self, message: SlotMessage, now: float) -> None:
        """A message of the ledger."""
        if message.word is SlotWord.JOINED:
            self._look_at = -math.inf
            return
        one = self._runs.get(message.run_id)
        if one is None:
            return
        if message.word is SlotWord.WANTED:
            self._yield(one, message.count)
        elif self._may_believe(message, now) and one.held is not None:
            one.held += message.count
            one.unmet = max(0, one.unmet - message.count)
            self._desk.grant(one.run, message.count)
            if message.unmet:
                self._yield(one, message.unmet)
        elif one.run.route.pool is not None:
            # It crossed with a call, of which nobody knows whether it was heard before.
            one.held = None
            self._unmet.discard(one.run.route.pool)
            self._asked.add(one.run.route.pool)

    def _may_believe(self, message: SlotMessage, now: float) -> bool:
        """Whether nothing was said since that the ledger may not have heard, and what is held is held yet."""
        is_held = now < self._desk.quotas_until < math.inf
        return is_held and self._call is None and message.number == self._number

    # What is kept and what is given back

    @property
    def _house(self) -> House:
        return House(len(self._known))

    def _is_of_use(self, one: Borrowed) -> bool:
        return one.may_be_used and not self._is_retiring

    def _is_yielding(self, one: Borrowed) -> bool:
        """Whether slots in use are to go to others as their requests end, so that it is no use to ask for more."""
        return one.run.quota < one.run.taken and self._is_of_use(one)

    def _waiting(self, key: PoolKey) -> int:
        terms = self._desk.leasing(key)
        return terms[1] if terms is not None else 0

    def _yield(self, one: Borrowed, count: int) -> None:
        self._shrink(one, self._house.quota_after_yielding(one, count, self._desk.unused_secs(one.run)))

    def _shrink(self, one: Borrowed, quota: int) -> None:
        one.run.quota = min(one.run.quota, quota)
        if one.has_more and one.run.route.pool is not None:
            self._asked.add(one.run.route.pool)

    # What is told

    def _claims(
        self, pools: Iterable[PoolKey], now: float, *, is_look: bool, is_full: bool
    ) -> Iterator[tuple[str, SlotClaim]]:
        if is_look:
            yield from self._claims_of_gone(is_full=is_full)
        house = self._house
        for key in pools:
            waiting, runs = self._borrowed_of(key)
            self._turn += 1
            extra = house.spread(0 if self._is_retiring else waiting, runs, turn=self._turn)
            for one in runs:
                claim = self._claim(house, one, extra.get(one, 0), now, is_look=is_look)
                if is_full and not claim.keeps:
                    one.held = 0  # what a full call does not name is given back by it
                is_needless = one.unmet and not claim.needs
                is_old = claim.keeps and now - one.told_at > _TELL_AGAIN_SECS
                # One that yields hears in the answer whether anybody wants its slots yet.
                asks = claim.needs > claim.keeps or self._is_yielding(one)
                if (
                    one.has_more
                    or claim.likes > claim.keeps
                    or (asks and key not in self._unmet)
                    or (is_look and (is_needless or is_old))
                    or (is_full and claim.keeps)
                ):
                    yield one.run.route.run_id, claim

    def _next_to_look_at(self) -> list[PoolKey]:
        if not self._to_look_at:
            self._to_look_at = list(self._desk.routes.pools())
        pools = self._to_look_at[-_POOLS_PER_LOOK:]
        del self._to_look_at[-_POOLS_PER_LOOK:]
        return pools

    def _borrowed_of(self, key: PoolKey) -> tuple[int, list[Borrowed]]:
        """How many wait in a pool, and its runs; where nobody has asked for a slot, those that are in use still."""
        terms = self._desk.leasing(key)
        runs = self._desk.routes.runs_of(key)
        if terms is None:
            return 0, [self._borrowed(run) for run in runs if run.taken or run.route.run_id in self._runs]
        found = [self._borrowed(run) for run in runs]
        for one in found:
            one.limit = terms[0]
        return terms[1], found

    def _borrowed(self, run: LiveRun) -> Borrowed:
        one = self._runs.get(run.route.run_id)
        if one is None or one.run is not run:
            # Of one that was gone for a moment, the ledger may have more than is known here.
            one = self._runs[run.route.run_id] = Borrowed(run, held=0 if one is None else None)
        return one

    def _claims_of_gone(self, *, is_full: bool) -> Iterator[tuple[str, SlotClaim]]:
        for run_id, one in list(self._runs.items()):
            if not one.run.is_gone:
                continue
            if is_full and not one.run.taken:
                one.held = 0
            if one.has_more or (is_full and one.run.taken):
                yield run_id, SlotClaim(limit=one.limit, keeps=one.run.taken)
            elif not one.run.taken:
                del self._runs[run_id]

    def _claim(self, house: House, one: Borrowed, extra: int, now: float, *, is_look: bool) -> SlotClaim:
        run, limit = one.run, one.limit
        run.quota = min(run.quota, limit)
        part = 0 if house.is_scarce(limit) else house.part_of(limit)
        is_of_use = self._is_of_use(one)
        if is_look and run.quota > run.taken and self._desk.unused_secs(run) >= UNUSED_SECS:
            run.quota = max(run.taken, min(run.quota, part))
        if not is_of_use:
            run.quota = min(run.quota, run.taken)
        keeps = one.keeps
        needs = likes = 0
        if is_of_use:
            needs = min(limit, keeps + extra) if extra else 0
            if now >= one.likes_again_at:
                likes = part
                if part and (needs or run.taken >= keeps > 0):
                    likes = min(limit, max(needs, keeps) + max(1, part // 2))
        return SlotClaim(
            limit=limit,
            keeps=keeps,
            needs=needs,
            likes=likes,
            age=self._age(run),
        )

    def _age(self, run: LiveRun) -> Age:
        if run.born_in not in self._epochs:
            return Age.OLD
        return Age.NEWBORN if run.born_in == self._epoch else Age.YOUNG
