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

from gateway.core.lifecycle import Readiness
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
from gateway.proxy.slots import SlotDesk

LOOK_SECS = 1.0
"""How often a call is made at least: it renews what is held, and looks through all runs."""
RETRY_SECS = 0.3
"""After this a need that was not met is told again; in between, whoever gives back makes its own way here."""
UNUSED_SECS = 3.0
"""A run that was not used for so long gives back what is beyond this gateway's fair part."""
_JUST_USED_SECS = 2.0
_FULL_EVERY_SECS = 600.0  # well before the store may forget what was not touched
_PAUSE_SECS = 0.5  # after a call that failed


@dataclass(slots=True, eq=False)
class _Borrowed:
    """
    One run. ``held`` is what the ledger has for this gateway, at most: None where that is not known. ``others``: what
    it has for all others. ``unmet``: how many more it was told that this gateway needs, and may grant at any moment.
    """

    run: LiveRun
    held: int | None = 0
    others: int = 0
    unmet: int = 0
    limit: int = 1
    likes_again_at: float = 0.0

    @property
    def keeps(self) -> int:
        """What can't be given back, or is not meant to be."""
        return max(self.run.quota, self.run.taken)

    @property
    def has_more(self) -> bool:
        """Whether there is something to give back."""
        return self.held is None or self.keeps < self.held

    @property
    def may_be_used(self) -> bool:
        """Whether it takes requests, or will soon."""
        route = self.run.route
        is_placed = route.address is not None and route.readiness in (Readiness.STARTING, Readiness.SERVING)
        return is_placed and not self.run.has_refused and not self.run.is_gone


@dataclass(slots=True)
class _Call:
    request: SlotRequest
    sent_at: float
    pools: set[PoolKey]


class QuotaBook:
    """
    The quotas of *desk*'s runs. One call is under way at a time: ``next_call``, then ``answered`` or ``failed``.

    *poke* is called where a need could not be met from what there is: the autoscaler should look.
    """

    def __init__(self, gateway_id: str, desk: SlotDesk, *, poke: Callable[[], None]) -> None:
        self._gateway_id = gateway_id
        self._desk = desk
        self._poke = poke
        self._runs: dict[str, _Borrowed] = {}
        self._asked: set[PoolKey] = set()
        self._unmet: set[PoolKey] = set()
        self._retry_at = math.inf
        self._look_at = -math.inf
        self._full_at = -math.inf
        self._paused_until = -math.inf
        self._call: _Call | None = None
        self._number = 0
        self._epoch = ""
        self._seen = 0
        self._known: frozenset[str] = frozenset()
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
        is_full = not self._epoch or now >= self._full_at
        is_look = is_full or now >= self._look_at
        if self._unmet and now >= self._retry_at:
            self._asked |= self._unmet
            self._unmet.clear()
        pools = set(self._desk.routes.pools()) | self._asked if is_look else set(self._asked)
        self._asked.clear()
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
        self._look_at = now + LOOK_SECS
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
        if request.is_full:
            self._full_at = call.sent_at + _FULL_EVERY_SECS
        for run_id, lease in answer.leases.items():
            self._take_in(run_id, request.claims[run_id], lease, now)

    def _hear_who_is_there(self, request: SlotRequest, answer: SlotAnswer, sent_at: float, now: float) -> None:
        borrowers = frozenset(answer.borrowers)
        if answer.is_open or sent_at - self._known_at >= HOLD_SECS:
            self._known, self._complete_at = borrowers, now + answer.opens_in_secs
            self._epochs.clear()
        else:
            self._known |= borrowers
            self._complete_at = min(self._complete_at, now + answer.opens_in_secs)
        self._known_at = sent_at
        self._epochs.add(answer.epoch)
        if (answer.epoch, answer.joins) != (request.epoch, request.seen):
            self._look_at = -math.inf  # newcomers wait for it to be said that they are known
        self._epoch, self._seen = answer.epoch, answer.joins
        self._desk.routes.epoch = answer.epoch

    def _take_in(self, run_id: str, claim: SlotClaim, lease: SlotLease, now: float) -> None:
        one = self._runs.get(run_id)
        if one is None:
            return
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
            self._shrink(one, self._part(claim.limit))
        elif lease.unmet:
            self._yield(one, lease.unmet, now)
        if claim.needs > lease.slots and key is not None:
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
            self._yield(one, message.count, now)
        elif self._call is None and message.number == self._number and one.held is not None:
            one.held += message.count
            one.unmet = max(0, one.unmet - message.count)
            self._desk.grant(one.run, message.count)
            if message.unmet:
                self._yield(one, message.unmet, now)
        elif one.run.route.pool is not None:
            # It crossed with a call, of which nobody knows whether it was heard before.
            one.held = None
            self._unmet.discard(one.run.route.pool)
            self._asked.add(one.run.route.pool)

    # What is kept and what is given back

    def _part(self, limit: int) -> int:
        """This gateway's fair part of a run's slots."""
        return limit // max(1, len(self._known))

    def _is_scarce(self, limit: int) -> bool:
        return limit < 2 * len(self._known) and len(self._known) > 1

    def _yield(self, one: _Borrowed, count: int, now: float) -> None:
        """Others need *count* slots: idle ones go, then those in use beyond the fair part, as their requests end."""
        run = one.run
        is_used = run.taken > 0 or now - run.used_at < _JUST_USED_SECS
        last = 1 if is_used and not self._is_scarce(one.limit) else 0
        idle = min(count, max(0, run.quota - max(run.taken, last)))
        quota = run.quota - idle
        if count > idle:
            quota = max(quota - (count - idle), min(quota, self._part(one.limit)))
        self._shrink(one, quota)

    def _shrink(self, one: _Borrowed, quota: int) -> None:
        one.run.quota = min(one.run.quota, quota)
        if one.has_more and one.run.route.pool is not None:
            self._asked.add(one.run.route.pool)

    # What is told

    def _claims(
        self, pools: Iterable[PoolKey], now: float, *, is_look: bool, is_full: bool
    ) -> Iterator[tuple[str, SlotClaim]]:
        if is_look:
            yield from self._claims_of_gone(is_full=is_full)
        for key in pools:
            terms = self._desk.leasing(key)
            if terms is None:  # nobody has asked for a slot of it here
                continue
            limit, waiting = terms
            runs = [self._borrowed(run, limit) for run in self._desk.routes.runs_of(key)]
            extra = self._spread(0 if self._is_retiring else waiting, limit, runs)
            for one in runs:
                claim = self._claim(one, extra.get(one, 0), now, is_look=is_look)
                does_need = claim.needs > claim.keeps and key not in self._unmet
                is_needless = is_look and one.unmet and not claim.needs
                if is_full or one.has_more or is_needless or does_need or claim.likes > claim.keeps:
                    yield one.run.route.run_id, claim

    def _borrowed(self, run: LiveRun, limit: int) -> _Borrowed:
        one = self._runs.get(run.route.run_id)
        if one is None or one.run is not run:
            # Of one that was gone for a moment, the ledger may have more than is known here.
            one = self._runs[run.route.run_id] = _Borrowed(run, held=0 if one is None else None)
        one.limit = limit
        return one

    def _claims_of_gone(self, *, is_full: bool) -> Iterator[tuple[str, SlotClaim]]:
        for run_id, one in list(self._runs.items()):
            if not one.run.is_gone:
                continue
            if one.has_more or is_full:
                yield run_id, SlotClaim(limit=one.limit, keeps=one.run.taken)
            elif not one.run.taken:
                del self._runs[run_id]

    def _claim(self, one: _Borrowed, extra: int, now: float, *, is_look: bool) -> SlotClaim:
        run, limit = one.run, one.limit
        run.quota = min(run.quota, limit)
        part = 0 if self._is_scarce(limit) else self._part(limit)
        is_of_use = one.may_be_used and not self._is_retiring
        if is_look and run.quota > run.taken and now - run.used_at >= UNUSED_SECS:
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

    def _spread(self, waiting: int, limit: int, runs: list[_Borrowed]) -> dict[_Borrowed, int]:
        """How many more to ask of each run for those that wait: what seems free first, then of others, in turn."""
        extra: dict[_Borrowed, int] = {}
        usable = [one for one in runs if one.may_be_used]
        waiting -= sum(max(0, one.run.quota - one.run.taken) for one in usable)
        # One whose slots are to go to others asks for none before they have gone.
        able = [one for one in usable if one.run.taken <= one.run.quota < limit]
        for one in sorted(able, key=lambda one: one.others):
            count = min(waiting, limit - one.keeps - one.others)
            if count > 0:
                extra[one] = count
                waiting -= count
        self._turn += 1
        for index in range(len(able) if waiting > 0 else 0):
            one = able[(index + self._turn) % len(able)]
            count = min(waiting, limit - one.keeps - extra.get(one, 0), max(1, self._part(limit)))
            if count > 0:
                extra[one] = extra.get(one, 0) + count
                waiting -= count
        return extra
