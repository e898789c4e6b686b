"""Freezing and resuming one run, step by step, against gateways that are slow and a launcher that may refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from standby_run import NOW, POOL, RUN

from autoscaler.run_freezing import RunFreezing
from gateway.core.demand import DemandReport, PoolDemand, RunUse
from gateway.core.errors import LaunchError
from gateway.core.lifecycle import Readiness, RunStatus
from gateway.core.model import AbortWish
from gateway.core.slot_leases import SlotClaim, SlotRequest
from gateway.core.standby import Generation, PoolKey
from gateway.state.ports import RunRoute
from gateway.state.signals_memory import MemorySignals


@dataclass
class Switch:
    """A launcher as far as this is concerned: notes what it is asked, and refuses what it is told to."""

    asked: list[str] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    busy: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    is_slow: bool = False

    async def freeze(self, run_id: str) -> None:
        await self._do("freeze")

    async def resume(self, run_id: str) -> None:
        await self._do("resume")

    async def _do(self, what: str) -> None:
        self.asked.append(what)
        if what in self.refuses:
            raise LaunchError(f"It can't {what}.")
        if self.is_slow and what == "freeze":
            self.busy.set()
            await self.let_go.wait()


@dataclass
class Stage:
    """A run that serves, its gateway, and what they say."""

    signals: MemorySignals = field(default_factory=MemorySignals)
    switch: Switch = field(default_factory=Switch)
    log: list[str] = field(default_factory=list)
    counts: list[str] = field(default_factory=list)
    readiness: list[Readiness] = field(default_factory=list)
    published: asyncio.Event = field(default_factory=asyncio.Event)
    version: int = 0
    run: RunFreezing = field(init=False)

    def __post_init__(self) -> None:
        tools = SimpleNamespace(
            state=SimpleNamespace(signals=self.signals),
            logs=SimpleNamespace(append=lambda _, line: self.log.append(line)),
            on_freeze=lambda: self.counts.append("freeze"),
            on_resume=lambda: self.counts.append("resume"),
        )
        self.run = RunFreezing(
            run=RUN,
            tools=cast(Any, tools),
            launcher=cast(Any, self.switch),
            pool=POOL,
            generation=Generation(build_id="build", memory_mbytes=128),
            readiness=Readiness.SERVING,
        )

    async def report(self, use: RunUse | None = None, *, waiting: int = 0, gateway: str = "g") -> None:
        """A gateway that has seen all routes so far tells what it has."""
        await self.signals.report_demand(
            DemandReport(
                gateway_id=gateway,
                routes_seen=self.version,
                pools={POOL: PoolDemand(waiting=waiting)},
                runs={"run": use or RunUse(in_flight=0, idle_secs=9.0)},
            ),
            ttl_secs=60,
        )

    async def until(self, *readiness: Readiness) -> None:
        """Until just these were published, in this order."""
        async with asyncio.timeout(10):
            while self.readiness != list(readiness):
                self.published.clear()
                await self.published.wait()

    async def settle(self) -> None:
        """Whatever can happen without anybody's doing has happened."""
        for _ in range(50):
            await asyncio.sleep(0)


@asynccontextmanager
async def staged(**facts: Any) -> AsyncIterator[Stage]:
    stage = Stage(**facts)

    async def listen() -> None:
        async with stage.signals.watch_routes() as changes:
            async for numbered in changes:
                if isinstance(numbered.change, RunRoute):
                    stage.readiness.append(numbered.change.readiness)
                stage.version = numbered.version
                stage.published.set()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(listen()), group.create_task(stage.run._watch_frost())]
        await stage.settle()
        await stage.report()
        yield stage
        for task in tasks:
            task.cancel()


FROZEN, SERVING = Readiness.FROZEN, Readiness.SERVING


async def test_it_stands_still_once_every_gateway_has_seen_that() -> None:
    """A gateway that has not may be sending a request right now."""
    async with staged() as stage:
        await stage.report(gateway="slow")
        stage.run.freeze("unused")
        await stage.until(FROZEN)
        await stage.report()
        await stage.settle()
        assert stage.switch.asked == []
        await stage.report(gateway="slow")
        await stage.settle()
        assert stage.switch.asked == ["freeze"]
        assert stage.counts == ["freeze"]
        stage.run.resume("somebody waits")
        await stage.until(FROZEN, SERVING)
        assert stage.switch.asked == ["freeze", "resume"]
        assert stage.counts == ["freeze", "resume"]


async def test_it_does_not_under_a_gateway_that_is_cut_off() -> None:
    """One that has slots of it and does not report may have a request in it, until it is known to be gone."""
    async with staged() as stage:
        claims = {"run": SlotClaim(limit=4, keeps=1)}
        await stage.signals.slots.settle(SlotRequest(borrower="cut off", number=1, is_full=True, claims=claims))
        stage.run.freeze("unused")
        await stage.until(FROZEN)
        await stage.report()
        await stage.settle()
        assert stage.switch.asked == []
        await stage.signals.slots.withdraw("cut off")
        await stage.report()
        await stage.settle()
        assert stage.switch.asked == ["freeze"]


@pytest.mark.parametrize(
    ("use", "waiting"),
    [
        pytest.param(RunUse(in_flight=1, idle_secs=0.0), 0, id="a request was on its way"),
        pytest.param(RunUse(in_flight=0, viewers=1, idle_secs=0.0), 0, id="a viewer came"),
        pytest.param(None, 1, id="somebody waits for a run of its pool"),
    ],
)
async def test_who_needs_it_meanwhile_takes_the_freeze_back(use: RunUse | None, waiting: int) -> None:
    """At once, without its processes having stood still for a moment; later it may be frozen all the same."""
    async with staged() as stage:
        stage.run.freeze("unused")
        await stage.until(FROZEN)
        await stage.report(use, waiting=waiting)
        await stage.until(FROZEN, SERVING)
        assert stage.switch.asked == []
        await stage.report()
        stage.run.freeze("unused")
        await stage.until(FROZEN, SERVING, FROZEN)
        await stage.report()
        await stage.settle()
        assert stage.switch.asked == ["freeze"]


async def test_a_resume_amid_the_freeze_wins() -> None:
    """Whatever the launcher is at: the last thing that is asked of it is to resume."""
    async with staged(switch=Switch(is_slow=True)) as stage:
        stage.run.freeze("unused")
        await stage.until(FROZEN)
        await stage.report()
        await stage.switch.busy.wait()
        stage.run.resume("somebody waits")
        await stage.settle()
        assert stage.readiness == [FROZEN], "it was said to serve while it was being frozen"
        stage.switch.let_go.set()
        await stage.until(FROZEN, SERVING)
        assert stage.switch.asked == ["freeze", "resume"]


async def test_a_launcher_that_cannot_is_asked_once() -> None:
    """The run's log says so in one line, and it serves on; what was perhaps done all the same is undone."""
    async with staged(switch=Switch(refuses={"freeze"})) as stage:
        stage.run.freeze("unused")
        await stage.until(FROZEN)
        await stage.report()
        await stage.until(FROZEN, SERVING)
        assert stage.switch.asked == ["freeze", "resume"]
        assert stage.log == ["ACTOR: Actor run is not frozen, nor will be: It can't freeze."]
        assert not stage.run.may_freeze
        stage.run.freeze("unused")
        await stage.settle()
        assert stage.readiness == [FROZEN, SERVING]
        assert stage.counts == []


async def test_a_resume_that_failed_is_tried_again() -> None:
    """It is not said to serve as long as it does not."""
    async with staged(switch=Switch(refuses={"resume"})) as stage:
        stage.run.freeze("unused")
        await stage.until(FROZEN)
        await stage.report()
        await stage.settle()
        stage.run.resume("somebody waits")
        await stage.settle()
        assert (stage.readiness, stage.switch.asked) == ([FROZEN], ["freeze", "resume"])
        stage.switch.refuses.clear()
        stage.run.resume("somebody waits")
        await stage.until(FROZEN, SERVING)


async def test_what_ends_it_amid_the_freeze_has_it_go_on() -> None:
    """Else SIGTERM would meet processes that can't hear it."""
    async with staged(switch=Switch(is_slow=True)) as stage:
        stage.run.freeze("unused")
        await stage.until(FROZEN)
        await stage.report()
        await stage.switch.busy.wait()
        stage.run.readiness = Readiness.DRAINING
        async with asyncio.TaskGroup() as group:
            going_on = group.create_task(stage.run._go_on())
            await stage.settle()
            assert not going_on.done()
            stage.switch.let_go.set()
        assert stage.switch.asked == ["freeze", "resume"]
        await stage.settle()
        assert stage.readiness == [FROZEN], "one that drains is not said to serve"


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param({"status": RunStatus.ABORTING}, id="it is being aborted"),
        pytest.param({"status": RunStatus.TIMING_OUT}, id="its time is over"),
        pytest.param({"status": RunStatus.READY}, id="its start is not on record yet"),
    ],
)
async def test_one_that_is_being_ended_is_not_frozen(ending: dict[str, Any]) -> None:
    """Neither from the start, nor where that came between the word and the deed."""
    async with staged() as stage:
        stage.run.freeze("unused")
        await stage.until(FROZEN)
        wish = AbortWish(gracefully=True, requested_at=NOW)
        stage.run.look(replace(RUN, **ending, abort_wish=wish, version=2))
        await stage.report()
        await stage.until(FROZEN, SERVING)
        assert stage.switch.asked == []
        stage.run.freeze("unused")
        await stage.settle()
        assert stage.readiness == [FROZEN, SERVING]


async def test_one_that_listens_to_the_systems_events_is_not_frozen() -> None:
    """Decided here once more: it may have connected a moment ago."""
    async with staged() as stage, stage.signals.watch_events("run"):
        stage.run.freeze("unused")
        await stage.settle()
        assert (stage.readiness, stage.switch.asked) == ([], [])
        assert stage.run.readiness is SERVING


async def test_a_refused_connection_has_it_go_on() -> None:
    """What refused may have been its standing still; if not, it refuses again and is probed."""
    async with staged() as stage:
        stage.run.freeze("unused")
        await stage.until(FROZEN)
        await stage.report()
        await stage.settle()
        stage.run.probe_again()
        await stage.until(FROZEN, SERVING)
        assert not stage.run._probe.is_set()
        stage.run.probe_again()
        assert stage.run._probe.is_set()


async def test_a_gateway_that_never_answers_leaves_it_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not withheld from everybody for the sake of one that hangs."""
    monkeypatch.setattr("autoscaler.run_freezing._PATIENCE_SECS", 0.05)
    async with staged() as stage:
        await stage.report(gateway="hangs")
        stage.run.freeze("unused")
        await stage.until(FROZEN)
        await stage.report()
        await stage.until(FROZEN, SERVING)
        assert stage.switch.asked == []


async def test_a_batch_run_is_never_frozen() -> None:
    """Nobody's request would have it go on."""
    async with staged() as stage:
        stage.run.pool = None
        stage.run.freeze("unused")
        await stage.settle()
        assert (stage.readiness, stage.run.may_freeze) == ([], False)


@pytest.mark.parametrize(("pool", "asked"), [(POOL, ["resume"]), (None, [])])
async def test_a_run_of_an_earlier_greenroom_goes_on(pool: PoolKey | None, asked: list[str]) -> None:
    """Nobody knows whether it stands still; a batch run never does."""
    stage = Stage()
    stage.run.pool = pool
    await stage.run._go_on_after_restart()
    assert stage.switch.asked == asked
    stage.switch.refuses.add("resume")
    await stage.run._go_on_after_restart()  # it has ended meanwhile: no error
