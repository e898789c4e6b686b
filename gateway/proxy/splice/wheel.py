"""
Deadlines of many connections, at the cost of one store each: a member is looked at when its deadline may be over.

A timer of the event loop would have to be made and cancelled for each request. Here a request writes down its deadline
and nothing else; the wheel, which has seen an earlier one, comes by, finds the new one, and comes again then.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Protocol

TICK_SECS = 0.1
NEVER = math.inf


class Member(Protocol):
    """
    What has a ``deadline``, on the monotonic clock, or NEVER. ``visit_at``, when the wheel comes by next, is the
    wheel's own; it begins as NEVER.
    """

    deadline: float
    visit_at: float

    def expired(self, now: float) -> None:
        """The deadline is over. It was set to NEVER before; another may be set."""


class Wheel:
    """
    ``watch`` whoever has set a deadline before its ``visit_at``; expiry is late by ``TICK_SECS`` at most.

    There is one timer, and none while nobody is watched.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slots: dict[int, set[Member]] = {}
        self._turned = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def watch(self, member: Member) -> None:
        """Come by when its deadline is over, if not earlier."""
        if member.deadline >= member.visit_at:
            return
        self.forget(member)
        if self._timer is None:
            self._turned = _slot(self._clock())
            self._timer = asyncio.get_running_loop().call_later(TICK_SECS, self._turn)
        slot = max(_slot(member.deadline), self._turned) + 1
        member.visit_at = slot * TICK_SECS
        self._slots.setdefault(slot, set()).add(member)

    def forget(self, member: Member) -> None:
        """It has no deadline any more; also for one that never had any."""
        if member.visit_at == NEVER:
            return
        slot = round(member.visit_at / TICK_SECS)
        member.visit_at = NEVER
        members = self._slots.get(slot)
        if members is not None:
            members.discard(member)
            if not members:
                del self._slots[slot]

    def stop(self) -> None:
        """Watch nobody any more."""
        for members in list(self._slots.values()):
            for member in list(members):
                self.forget(member)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        self._timer = None
        now = self._clock()
        reached = _slot(now)
        due: list[Member] = []
        for slot in range(self._turned + 1, reached + 1):
            due += self._slots.pop(slot, ())
        self._turned = max(self._turned, reached)
        for member in due:
            member.visit_at = NEVER
        for member in due:
            if member.deadline <= now:
                member.deadline = NEVER
                member.expired(now)
            self.watch(member)
        if self._slots and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_SECS, self._turn)


def _slot(at: float) -> int:
    return int(at / TICK_SECS)
