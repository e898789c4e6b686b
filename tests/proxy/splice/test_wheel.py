"""Deadlines without timers: each is kept, late by a tick at most, and whoever has gone leaves nothing behind."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from gateway.proxy.splice.wheel import NEVER, TICK_SECS, Wheel


@dataclass(eq=False)
class Member:
    """Notes when it expired; may set a new deadline then."""

    deadline: float = NEVER
    visit_at: float = NEVER
    again: float = NEVER
    expired_at: list[float] = field(default_factory=list)

    def expired(self, now: float) -> None:
        self.expired_at.append(now)
        self.deadline, self.again = self.again, NEVER


class Clock:
    """A clock that moves when told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Turned:
    """A wheel whose turns are made by hand."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wheel = Wheel(self.clock)

    def turn_to(self, now: float) -> None:
        """Let *now* come, turn by turn."""
        while self.clock.now < now:
            self.clock.now = min(now, self.clock.now + TICK_SECS)
            self.wheel._turn()


@pytest.fixture
async def turned():
    turned = Turned()
    yield turned
    turned.wheel.stop()


@pytest.mark.parametrize("secs", [0.0, 0.05, 0.1, 0.99, 1.0, 30.0])
async def test_a_deadline_is_kept(turned: Turned, secs: float) -> None:
    """Not before it is over, and at most two ticks after it, once."""
    member = Member(deadline=1000.0 + secs)
    turned.wheel.watch(member)
    turned.turn_to(1000.0 + secs - 0.001)
    assert member.expired_at == []
    turned.turn_to(1000.0 + secs + 2 * TICK_SECS + 1)
    assert len(member.expired_at) == 1
    assert 1000.0 + secs <= member.expired_at[0] <= 1000.0 + secs + 2 * TICK_SECS + 0.001


async def test_a_later_deadline_costs_nothing_but_a_store(turned: Turned) -> None:
    """It is found when the wheel comes by for the earlier one."""
    member = Member(deadline=1001.0)
    turned.wheel.watch(member)
    member.deadline = 1005.0
    turned.turn_to(1004.9)
    assert member.expired_at == []
    turned.turn_to(1006.0)
    assert len(member.expired_at) == 1


async def test_an_earlier_deadline_is_watched_anew(turned: Turned) -> None:
    """And the visit at the later time is gone."""
    member = Member(deadline=1050.0)
    turned.wheel.watch(member)
    member.deadline = 1001.0
    turned.wheel.watch(member)
    assert len(turned.wheel) == 1
    turned.turn_to(1002.0)
    assert len(member.expired_at) == 1
    assert len(turned.wheel) == 0


async def test_who_expires_may_set_another_deadline(turned: Turned) -> None:
    """Which is kept, too."""
    member = Member(deadline=1001.0, again=1002.0)
    turned.wheel.watch(member)
    turned.turn_to(1004.0)
    assert len(member.expired_at) == 2


async def test_who_has_gone_leaves_nothing_behind(turned: Turned) -> None:
    """Ten thousand that come and go: the wheel is empty, though none of their deadlines is over."""
    for _ in range(10_000):
        member = Member(deadline=1075.0)
        turned.wheel.watch(member)
        turned.wheel.forget(member)
    assert len(turned.wheel) == 0


async def test_a_wheel_that_stood_still_catches_up(turned: Turned) -> None:
    """After a pause of the whole process, what is overdue expires at once, in one turn."""
    members = [Member(deadline=1000.0 + secs) for secs in range(1, 60)]
    for member in members:
        turned.wheel.watch(member)
    turned.clock.now = 1100.0
    turned.wheel._turn()
    assert all(len(member.expired_at) == 1 for member in members)


async def test_who_expires_may_end_another(turned: Turned) -> None:
    """Of two that are due in the same turn and end each other, one expires."""
    members: list[Member] = []
    ended: list[Member] = []

    class Ending(Member):
        def expired(self, now: float) -> None:
            ended.append(self)
            for other in members:
                if other is not self:
                    other.deadline = NEVER
                    turned.wheel.forget(other)

    members += [Ending(deadline=1001.0), Ending(deadline=1001.0)]
    for member in members:
        turned.wheel.watch(member)
    turned.turn_to(1003.0)
    assert len(ended) == 1
    assert len(turned.wheel) == 0


async def test_it_turns_by_itself() -> None:
    """On the real clock, and its timer ends when nobody is watched."""
    wheel = Wheel()
    expired = asyncio.Event()

    class Told(Member):
        def expired(self, now: float) -> None:
            expired.set()

    wheel.watch(Told(deadline=0.0))
    async with asyncio.timeout(5):
        await expired.wait()
    assert len(wheel) == 0
    assert wheel._timer is None
