"""Who leads, and that nobody acts who may not: terms that are won, renewed, lost, left and won again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from autoscaler.leading import Leading, Term
from gateway.core.errors import LaunchError
from gateway.state.ports import LEADER, StateUnavailable
from gateway.state.signals_memory import MemorySignals

# By a clock that moves when it is told; renewals come every quarter of it, by the real one.
LEASE_SECS = 0.2


class Flaky(MemorySignals):
    """Signals that can't be reached while ``are_gone``, and by one who is kept out."""

    are_gone = False
    keeps_out = ""
    asked = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.asked_by: Counter[str] = Counter()

    async def lead(self, name: str, holder: str, *, ttl_secs: float) -> int | None:
        self.asked += 1
        self.asked_by[holder] += 1
        if self.are_gone or self.keeps_out == holder:
            raise StateUnavailable("Signals: away.")
        return await super().lead(name, holder, ttl_secs=ttl_secs)


@dataclass
class House:
    """Signals with a clock of their own, and what those who compete have done."""

    now: float = 100.0
    acts: list[str] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    fails_with: Exception | None = None
    signals: Flaky = field(init=False)

    def __post_init__(self) -> None:
        self.signals = Flaky(clock=lambda: self.now)

    def one(self, holder: str, **options: Any) -> Leading:
        @asynccontextmanager
        async def act(term: Term) -> AsyncIterator[None]:
            if self.fails_with is not None:
                raise self.fails_with
            self.terms.append(term)
            self.acts.append(f"{holder} acts")
            try:
                yield
            except asyncio.CancelledError:
                self.acts.append(f"{holder} is cut off")
                raise
            self.acts.append(f"{holder} lets go")

        return Leading(
            signals=self.signals,
            holder=holder,
            act=act,
            lease_secs=LEASE_SECS,
            clock=lambda: self.now,
            trouble_secs=0.01,
            **options,
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.005)

    async def renewed(self) -> None:
        """Those who act have asked once more."""
        asked = self.signals.asked
        await self.until(lambda: self.signals.asked > asked)


@asynccontextmanager
async def competing(*those: Leading) -> AsyncIterator[None]:
    """They do while it is entered, and stop in the end."""
    async with asyncio.TaskGroup() as group:
        for one in those:
            group.create_task(one.run())
        try:
            yield
        finally:
            for one in those:
                one.stop()


@pytest.fixture
def house() -> House:
    return House()


async def test_one_acts_and_the_next_when_it_stops(house: House) -> None:
    """Stopped, it lets go in peace and resigns, so nobody waits for the end of its lease."""
    a, b = house.one("a"), house.one("b")
    async with competing(a):
        await a.settled.wait()
        async with competing(b):
            await b.settled.wait()
            assert (a.leads, b.leads, house.acts) == (True, False, ["a acts"])
            a.stop()
            await house.until(lambda: b.leads)
            assert house.acts == ["a acts", "a lets go", "b acts"]
            assert house.terms[1].token > house.terms[0].token


async def test_a_lead_that_is_renewed_goes_on(house: House) -> None:
    """Its lease counts from the last renewal, and the term stays the same."""
    a = house.one("a")
    async with competing(a):
        await a.settled.wait()
        for _ in range(5):
            house.now += LEASE_SECS / 2
            await house.renewed()
            await house.until(lambda: a.leads and a.term is not None and a.term.until == house.now + LEASE_SECS)
        assert house.acts == ["a acts"]


async def test_who_was_overtaken_is_cut_off(house: House) -> None:
    """A process that stood still learns of it by its renewal; until then it may not act, and then it waits its turn."""
    a = house.one("a")
    async with competing(a):
        await a.settled.wait()
        house.now += LEASE_SECS + 0.01
        assert not a.leads
        assert await house.signals.lead(LEADER, "another", ttl_secs=1000) is not None
        await house.until(lambda: house.acts == ["a acts", "a is cut off"])
        assert a.term is None
        await house.renewed()
        assert house.acts == ["a acts", "a is cut off"]
        await house.signals.resign(LEADER, "another")
        await house.until(lambda: a.leads)


async def test_signals_that_are_gone_for_less_than_a_lease(house: House) -> None:
    """Nothing happens."""
    a = house.one("a")
    async with competing(a):
        await a.settled.wait()
        house.signals.are_gone = True
        house.now += LEASE_SECS / 2
        await house.renewed()
        await house.renewed()
        assert a.leads
        house.signals.are_gone = False
        await house.until(lambda: a.term is not None and a.term.until > house.now + LEASE_SECS / 2)
        assert house.acts == ["a acts"]


async def test_signals_that_are_gone_for_longer(house: House) -> None:
    """Nobody acts who can't know that nobody else does; when they are back, a new term begins."""
    a = house.one("a")
    async with competing(a):
        await a.settled.wait()
        house.signals.are_gone = True
        house.now += LEASE_SECS + 0.01
        await house.until(lambda: house.acts == ["a acts", "a is cut off"])
        await house.until(lambda: a.trouble is not None and "nobody can be asked" in a.trouble)
        house.signals.are_gone = False
        await house.until(lambda: a.leads)
        assert a.trouble is None
        assert house.terms[1].token > house.terms[0].token


async def test_signals_that_forget_who_leads(house: House) -> None:
    """Somebody may hold the lead all the same: who has waited leaves it to him for as long as that can be so."""
    a, b = house.one("a"), house.one("b")
    async with competing(a, b):
        await house.until(lambda: a.settled.is_set() and b.settled.is_set())
        first, second = (a, b) if a.leads else (b, a)
        await house.signals.withdraw("memory", "leader")
        house.signals.keeps_out = first.holder
        await house.signals.resign(LEADER, first.holder)
        asked = house.signals.asked_by[second.holder]
        await house.until(lambda: house.signals.asked_by[second.holder] > asked)
        for _ in range(20):
            await asyncio.sleep(0)
            assert not second.leads
        house.now += LEASE_SECS + 0.01
        await house.until(lambda: second.leads)
        assert not first.leads
        await house.until(lambda: f"{first.holder} is cut off" in house.acts)


async def test_a_lead_that_was_forgotten_begins_anew(house: House) -> None:
    """The signals lost their memory, or its lease had ended: another token is another term, with nothing of the old."""
    a = house.one("a")
    async with competing(a):
        await a.settled.wait()
        await house.signals.resign(LEADER, "a")
        await house.until(lambda: len(house.terms) == 2)
        assert house.acts == ["a acts", "a is cut off", "a acts"]
        assert not house.terms[0].holds
        assert a.leads


async def test_the_lease_of_one_who_is_dead_is_not_waited_for(house: House) -> None:
    """Where there is proof, its clock need not move."""
    await house.signals.lead(LEADER, "killed", ttl_secs=1000)
    await house.signals.announce("memory", "leader", {}, ttl_secs=1000)
    proofs: list[list[str]] = [[], ["somebody else"], ["killed"]]
    a = house.one("a", find_dead=lambda: proofs.pop(0) if proofs else [])
    async with competing(a):
        await house.until(lambda: a.leads)
        assert proofs == []


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        pytest.param(LaunchError("No engine."), "No engine.", id="the launcher"),
        pytest.param(ExceptionGroup("", [StateUnavailable("Records: away.")]), "Records: away.", id="a store"),
    ],
)
async def test_who_cannot_act_lets_others_lead(house: House, problem: Exception, told: str) -> None:
    """What a person can mend is told, and tried again."""
    house.fails_with = problem
    a = house.one("a")
    async with competing(a):
        await house.until(lambda: a.trouble == told)
        asked = house.signals.asked
        await house.until(lambda: house.signals.asked > asked + 1)
        assert a.trouble == told  # for as long as nobody acts
        house.fails_with = None
        await house.until(lambda: a.leads)
        assert a.trouble is None


@pytest.mark.parametrize(
    ("problem", "options"),
    [
        pytest.param(LaunchError("No engine."), {"fails_with_act": True}, id="asked to"),
        pytest.param(KeyError("x"), {}, id="a bug"),
    ],
)
async def test_who_cannot_act_ends(house: House, problem: Exception, options: dict[str, Any]) -> None:
    """With the error itself, and the lead is free."""
    house.fails_with = problem
    with pytest.raises(type(problem)):
        await house.one("a", **options).run()
    assert await house.signals.lead(LEADER, "b", ttl_secs=1) is not None


async def test_stopped_before_its_turn(house: House) -> None:
    """It has nothing to let go of."""
    await house.signals.lead(LEADER, "another", ttl_secs=1000)
    a = house.one("a")
    async with competing(a):
        await a.settled.wait()
    assert house.acts == []


async def test_cancelled_while_it_acts(house: House) -> None:
    """As when the process is told to stop at once."""
    a = house.one("a")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(a.run())
        await a.settled.wait()
        running.cancel()
    assert house.acts == ["a acts", "a is cut off"]


# --- a term -----------------------------------------------------------------------------------------------------------


async def waits(work: Awaitable[None]) -> bool:
    """Whether *work* has not returned after some turns of the loop."""
    async with asyncio.TaskGroup() as group:

        async def do() -> None:
            await work

        task = group.create_task(do())
        for _ in range(5):
            await asyncio.sleep(0)
        has_ended = task.done()
        task.cancel()
    return not has_ended


async def test_what_needs_a_term_waits_for_its_renewal() -> None:
    """Who stood still beyond his lease does nothing before it is renewed, and nothing at all when it is over."""
    now = 0.0
    term = Term(1, 10.0, lambda: now)
    assert not await waits(term.confirm())
    now = 10.0
    assert not term.holds
    async with asyncio.TaskGroup() as group:
        confirming = group.create_task(term.confirm())
        await asyncio.sleep(0)
        assert not confirming.done()
        term.renew(20.0)
        await asyncio.wait_for(confirming, 1)
    assert term.holds
    term.end()
    assert not term.holds
    assert await waits(term.confirm())
