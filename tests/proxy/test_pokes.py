"""The autoscaler is poked for each request that begins to wait, whatever the moment."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import uvloop
from proxy.suite.stage import Stand, open_stand

from gateway.core.demand import DemandReport
from gateway.proxy.callers import Caller
from gateway.proxy.slots import Held

EVERY_SECS = 0.2


def begins_to_wait(stand: Stand) -> Held:
    """A request for an Actor without a run."""
    decisions = stand.gateway.decisions
    want = decisions.want(decisions.target("bob--open-spare"), Caller(principal=None, own=frozenset()))
    assert want is not None
    assert decisions.take(want) is None
    held = Held(caller=want.caller, want=want)
    decisions.desk.hold(held)
    return held


class Moment:
    """Stands between a gateway and its signals, and has *happen* called when the time of the next report comes."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.told: list[bool] = []
        self.has_told = asyncio.Event()
        self.held: list[Held] = []
        self._report = stand.signals.report_demand

    async def report_demand(self, report: DemandReport, *, ttl_secs: float, is_poke: bool = False) -> Any:
        """Passed on; the first one sees to it that a request begins to wait when the gateway's waiting is over."""
        if not self.told:
            loop = asyncio.get_running_loop()
            loop.call_later(EVERY_SECS * 1.25, lambda: self.held.append(begins_to_wait(self.stand)))
            # Then both times are over when the loop comes to look at them, and it takes them one after the other.
            loop.call_later(0, lambda: time.sleep(EVERY_SECS * 2))
        self.told.append(is_poke)
        if len(self.told) == 2:
            self.has_told.set()
        return await self._report(report, ttl_secs=ttl_secs, is_poke=is_poke)


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_poke_of_the_moment_in_which_a_report_is_due(tmp_path: Path, make_loop: Any) -> None:
    """It is not lost: the report that goes out then is a poke."""

    async def play() -> None:
        async with open_stand(tmp_path, demand_report_secs=EVERY_SECS) as stand:
            moment = Moment(stand)
            stand.signals.report_demand = moment.report_demand  # type: ignore[method-assign]
            async with asyncio.timeout(10):
                await moment.has_told.wait()
            for held in moment.held:
                stand.gateway.desk.leave(held)
            assert moment.told[1]

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(play())
