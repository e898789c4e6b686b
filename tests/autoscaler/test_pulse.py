"""The beat: one measurement, told to whoever is concerned, and no trouble for anybody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from autoscaler.pulse import Pulse
from gateway.core.lifecycle import RunStatus
from gateway.core.load import Load, LoadHistory, Usage
from gateway.core.model import Origin, Run, RunOptions
from gateway.state.signals_memory import MemorySignals

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)


@dataclass
class LiveRun:
    """A run that remembers its load, as a keeper does."""

    run: Run
    history: LoadHistory = field(default_factory=lambda: LoadHistory(at=0.0))

    def measured(self, usage: Usage, at: float) -> Load | None:
        self.history = self.history.after(usage, at, cpu_share=1, cores=2)
        return self.history.load


def live_run(run_id: str, memory_mbytes: int = 512) -> LiveRun:
    return LiveRun(
        Run(
            id=run_id,
            actor_id="a",
            user_id="u",
            build_id="b",
            build_number="0.1.1",
            status=RunStatus.RUNNING,
            started_at=AT,
            origin=Origin.API,
            options=RunOptions(memory_mbytes=memory_mbytes),
            live_view_label="label",
            default_key_value_store_id="k",
            default_dataset_id="d",
            default_request_queue_id="q",
        )
    )


@dataclass
class Machine:
    """What there is to measure, at a time that a test sets."""

    runs: list[LiveRun]
    usages: dict[str, Usage] = field(default_factory=dict)
    clock: float = 0.0
    looks: int = 0
    trouble: Exception | None = None

    async def measure(self) -> Mapping[str, Usage]:
        self.looks += 1
        if self.trouble is not None:
            raise self.trouble
        return self.usages

    def pulse(self, signals: MemorySignals) -> Pulse:
        return Pulse(
            runs=lambda: self.runs, measure=self.measure, signals=signals, now=lambda: AT, clock=lambda: self.clock
        )

    def uses(self, run_id: str, cpu_secs: float) -> None:
        self.usages[run_id] = Usage(life="1", cpu_secs=cpu_secs, memory_bytes=7_000_000, processes=3)


async def test_a_beat_tells_the_run_and_the_signals_the_same() -> None:
    """A connected run gets systemInfo, then cpuInfo; one that nobody listens to is measured all the same."""
    machine = Machine([live_run("heard"), live_run("deaf"), live_run("unknown to the launcher")])
    machine.uses("heard", 1.2)
    machine.uses("deaf", 0.5)
    machine.clock = 1.0
    signals = MemorySignals()
    async with signals.watch_events("heard") as heard, signals.watch_events("unknown to the launcher") as nothing:
        await machine.pulse(signals).beat()
        event = await anext(heard)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(nothing), 0.01)
    info, cpu = map(json.loads, event.frames)
    assert (info["name"], cpu["name"]) == ("systemInfo", "cpuInfo")
    assert info["data"]["cpuCurrentUsage"] == 120
    assert info["data"]["memMaxBytes"] == 512 * 1024 * 1024
    assert info["data"]["isCpuOverloaded"] is cpu["data"]["isCpuOverloaded"] is True
    loads = await signals.loads()
    assert {run_id: load.cpu_current for run_id, load in loads.items()} == {"heard": 120, "deaf": 50}


async def test_without_runs_nothing_is_measured() -> None:
    """An idle Greenroom doesn't read the process table."""
    machine = Machine([])
    await machine.pulse(MemorySignals()).beat()
    assert machine.looks == 0


@pytest.mark.parametrize("trouble", [OSError("no /proc"), ValueError("not a number")], ids=["unreadable", "nonsense"])
async def test_a_look_that_fails_is_only_a_beat_without_figures(
    trouble: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told in the log, and the next beat measures again."""
    machine = Machine([live_run("r")], trouble=trouble)
    machine.uses("r", 1.0)
    signals = MemorySignals()
    pulse = machine.pulse(signals)
    await pulse.beat()
    assert await signals.loads() == {}
    assert str(trouble) in caplog.text
    machine.trouble, machine.clock = None, 2.0
    await pulse.beat()
    assert (await signals.loads())["r"].cpu_current == 50
