"""
Which of several autoscalers acts: the one that holds a lease in the signals, renewed every second.

Each lead is a *term*. Its holder acts until it stops or has lost the lead: somebody else has it, the signals forgot it,
or it could not be renewed for as long as it lasts. Then it lets go of everything at once and writes nothing any more;
the runs live on, whoever leads next adopts them, and what was missed meanwhile stands in the records. So never two act
on one run, at the price that without signals nobody does.

Signals that have lost their memory give the lead to whoever asks first, although another one may hold it and not know
yet. So a leader leaves a mark in them; who has waited and finds none gives the lead back until the lease that he saw
last must have ended.

A process that stood still for longer than its lease may not know yet that it has lost the lead: what it would do to
runs waits until the lease has been renewed (``Term.confirm``), and what it would write to the signals they refuse, by
the term's fencing token.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from gateway.boot_clock import boot_time
from gateway.reasons import reasons_in_words
from gateway.state.ports import LEADER, Signals, StateUnavailable
from gateway.state.steady import steadily

_log = logging.getLogger(__name__)

LEASE_SECS = 4.0
RENEW_SECS = 1.0

_ASK_SECS = 0.25  # so often those who wait ask for the lead, and one whose renewal failed asks again
_TROUBLE_SECS = 2.0
_LONGEST_ANSWER_SECS = 10.0
_RESIGN_SECS = 1.0
_MARK = "memory"
_MARK_SECS = 3600.0
_MARK_EVERY_SECS = 60.0


class Term:
    """One lead, with its fencing *token*. It holds *until* that time of *clock*, unless it is renewed or over."""

    def __init__(self, token: int, until: float, clock: Callable[[], float]) -> None:
        self.token = token
        self.until = until
        self._clock = clock
        self._is_over = False
        self._renewed = asyncio.Event()

    @property
    def holds(self) -> bool:
        """Whether nobody else can lead at this moment."""
        return not self._is_over and self._clock() < self.until

    async def confirm(self) -> None:
        """Returns while the term holds. When it doesn't, waits for its renewal, and for ever where that never comes."""
        while not self.holds:
            await self._renewed.wait()

    def renew(self, until: float) -> None:
        """It holds for longer."""
        self.until = until
        self._renewed.set()
        self._renewed = asyncio.Event()

    def end(self) -> None:
        """It holds no more."""
        self._is_over = True


@dataclass(slots=True, kw_only=True)
class Leading:
    """
    Competes for the lead as *holder*, and acts while it has it: *act* is entered with each term and left when that
    ends, by cancelling it where the lead is lost. *lease_secs*: infinite where nobody else can ever lead.

    Where *act* can't be entered for a reason that a person can mend (no engine, say), the lead is given up and sought
    again a little later; with *fails_with_act*, ``run`` raises it where it was the first time. ``find_dead`` tells each
    time of holders that are proven to have ended, whose lease need not be waited for. *clock* is monotonic.
    """

    signals: Signals
    holder: str
    act: Callable[[Term], AbstractAsyncContextManager[None]]
    fails_with_act: bool = False
    lease_secs: float = LEASE_SECS
    on_change: Callable[[], None] = lambda: None
    find_dead: Callable[[], Sequence[str]] = lambda: ()
    clock: Callable[[], float] = boot_time
    term: Term | None = None
    trouble: str | None = None
    trouble_secs: float = _TROUBLE_SECS
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    _stops: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def _renew_secs(self) -> float:
        return min(RENEW_SECS, self.lease_secs / 4)

    @property
    def _ask_secs(self) -> float:
        return min(_ASK_SECS, self.lease_secs / 16)

    @property
    def leads(self) -> bool:
        """Whether this process acts now."""
        return self.term is not None and self.term.holds

    def stop(self) -> None:
        """Let go in peace, and resign; ``run`` returns then."""
        self._stops.set()

    async def run(self) -> None:
        """Until ``stop``. ``settled`` is set once it acts, or knows that somebody else does."""
        term: Term | None = None
        while not self._stops.is_set():
            term = term or await self._win()
            if term is not None:
                term = await self._hold(term)

    async def _win(self) -> Term | None:
        """The lead, as soon as it can be had; None when told to stop before."""
        held_until = -math.inf  # by somebody else, for all that is known
        while not self._stops.is_set():
            asked_at = self.clock()
            try:
                token = await self.signals.lead(LEADER, self.holder, ttl_secs=self.lease_secs)
            except StateUnavailable as error:
                self._complain(f"nobody can be asked for the lead: {error}")
            else:
                if token is None:
                    held_until = self.clock() + self.lease_secs
                    self.trouble = None
                    self.settled.set()
                    if await self._resign_for_the_dead():
                        continue
                elif asked_at >= held_until or await self._is_remembered():
                    return Term(token, asked_at + self.lease_secs, self.clock)
                else:
                    self._complain("the signals have forgotten who leads: whoever does may go on")
                    await self._resign()
                    await self._pause_until(held_until)
            await self._pause(self._ask_secs)
        return None

    async def _resign_for_the_dead(self) -> bool:
        """Whether there were any, who may have held the lead."""
        dead = self.find_dead()
        for holder in dead:
            _log.info("the autoscaler %s has ended without saying so", holder)
            await self._resign(holder)
        return bool(dead)

    async def _is_remembered(self) -> bool:
        try:
            return bool(await self.signals.announced(_MARK))
        except StateUnavailable:
            return False

    async def _hold(self, term: Term) -> Term | None:
        """Act for as long as *term* lasts; the next one, where the lead was lost and won again in one."""
        _log.info("leading (term %d)", term.token)
        problem: Exception | None = None

        async def act() -> None:
            nonlocal problem
            try:
                async with self.act(term):
                    self.term, self.trouble = term, None
                    self.settled.set()
                    self.on_change()
                    await self._stops.wait()
            except Exception as error:  # kept aside: a TaskGroup would wrap it
                problem = error

        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(self._renew(term))
            marking = group.create_task(steadily("the mark of who leads", self._mark_for_ever))
            acting = group.create_task(act())
            await asyncio.wait([renewing, acting], return_when=asyncio.FIRST_COMPLETED)
            has_lost = renewing.done()
            renewed = renewing.result() if has_lost else None
            if has_lost:
                term.end()
                _log.warning("the lead is lost: letting go of all runs, which live on (term %d)", term.token)
            acting.cancel()
            await asyncio.wait([acting])
            renewing.cancel()
            marking.cancel()
        term.end()
        self.term = None
        self.on_change()
        if not has_lost:
            await self._resign()
        if problem is not None:
            await self._bear(problem)
        return renewed

    async def _renew(self, term: Term) -> Term | None:
        """Returns when the lead is lost: the new term where it was won again in the same moment."""
        wait_secs = self._renew_secs
        while True:
            await asyncio.sleep(max(0.0, min(wait_secs, term.until - self.clock())))
            asked_at = self.clock()
            try:
                # One answer more is waited for by a process that stood still until its lease was over.
                async with asyncio.timeout(max(RENEW_SECS, min(term.until - asked_at, _LONGEST_ANSWER_SECS))):
                    token = await self.signals.lead(LEADER, self.holder, ttl_secs=self.lease_secs)
            except (StateUnavailable, TimeoutError) as error:
                wait_secs = self._ask_secs
                if self.clock() >= term.until:
                    self._complain(f"the lead could not be renewed in time: {error or 'no answer'}")
                    return None
                continue
            if token != term.token:
                return None if token is None else Term(token, asked_at + self.lease_secs, self.clock)
            term.renew(asked_at + self.lease_secs)
            wait_secs = self._renew_secs

    async def _mark_for_ever(self) -> None:
        while True:
            await self.signals.announce(_MARK, "leader", {}, ttl_secs=_MARK_SECS)
            await asyncio.sleep(_MARK_EVERY_SECS)

    async def _resign(self, holder: str | None = None) -> None:
        """So that the next one need not wait for the lease's end; it comes without that, too."""
        with contextlib.suppress(StateUnavailable, TimeoutError):
            async with asyncio.timeout(_RESIGN_SECS):
                await self.signals.resign(LEADER, holder or self.holder)

    async def _bear(self, problem: Exception) -> None:
        reasons = reasons_in_words(problem)
        if reasons is None or (self.fails_with_act and not self.settled.is_set()):
            raise problem
        self._complain("; ".join(reasons))
        await self._pause(self.trouble_secs)

    def _complain(self, trouble: str) -> None:
        if trouble != self.trouble:
            _log.warning("%s", trouble)
            self.trouble = trouble

    async def _pause_until(self, at: float) -> None:
        while self.clock() < at and not self._stops.is_set():
            await self._pause(self._ask_secs)

    async def _pause(self, secs: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(secs):
                await self._stops.wait()
