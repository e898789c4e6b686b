"""What is held against a pool when one of its runs is over, and what is not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from standby_run import NOW, POOL
from standby_run import RUN as RUNNING

from autoscaler.keeper import Keeper
from autoscaler.launchers.base import Exited, FoundRun
from autoscaler.policy.quarantine import RunNews
from gateway.core.errors import LaunchError, MachineTrouble
from gateway.core.lifecycle import Readiness, RunStatus
from gateway.core.model import Run
from gateway.core.standby import Generation, PoolKey
from gateway.settings import Settings
from gateway.state.signals_memory import MemorySignals

RUN = replace(RUNNING, status=RunStatus.READY)


async def stored(run: Run) -> Run:
    return replace(run, version=run.version + 1)


async def nothing(*_: object) -> tuple[str, ...]:
    return ()


def kept(told: list[RunNews], *, status: RunStatus = RunStatus.READY, pool: PoolKey | None = POOL) -> Keeper:
    """The keeper of a run that is on record; what the autoscaler hears of it is *told*."""
    tools = SimpleNamespace(
        state=SimpleNamespace(signals=MemorySignals(), records=SimpleNamespace(replace_run=stored)),
        logs=SimpleNamespace(append=lambda *_: None, tail=nothing, keep=nothing),
        now=lambda: NOW,
        settings=Settings(),
        on_start=lambda *_: None,
        on_end=lambda _: None,
        on_news=told.append,
    )
    return Keeper(
        run=replace(RUN, status=status),
        tools=cast(Any, tools),
        launcher=cast(Any, SimpleNamespace(forget=nothing)),
        is_stored=True,
        pool=pool,
        generation=Generation(build_id="build", memory_mbytes=128) if pool else None,
    )


@pytest.mark.parametrize(
    ("error", "status", "is_wound_down", "counts"),
    [
        pytest.param(LaunchError("No such program."), RunStatus.READY, False, True, id="its own fault"),
        pytest.param(MachineTrouble("The engine is down."), RunStatus.READY, False, False, id="the machine's"),
        pytest.param(LaunchError("It was stopped."), RunStatus.ABORTING, False, False, id="aborted"),
        pytest.param(LaunchError("It was stopped."), RunStatus.READY, True, False, id="not needed any more"),
    ],
)
async def test_a_start_that_fails_counts_if_it_is_the_actors_fault(
    error: LaunchError, status: RunStatus, is_wound_down: bool, counts: bool
) -> None:
    """It is told once, as an end; the reason is there only where it counts."""
    told: list[RunNews] = []
    keeper = kept(told, status=status)
    if is_wound_down:
        keeper.wind_down("others suffice")
    await keeper._end_unstarted(error)
    (news,) = told
    assert (news.run_id, news.pool, news.has_ended, news.served_secs) == ("run", POOL, True, None)
    assert news.began == keeper.began
    assert news.failed_because == (f"The Actor could not be started: {error.message}" if counts else None)


async def test_batch_runs_are_of_no_pool() -> None:
    """However they fail."""
    told: list[RunNews] = []
    await kept(told, pool=None)._end_unstarted(LaunchError("No such program."))
    assert told == []


@pytest.mark.parametrize(
    ("has_served", "status", "is_wound_down", "counts"),
    [
        pytest.param(False, RunStatus.FAILED, False, True, id="failed before it served"),
        pytest.param(False, RunStatus.SUCCEEDED, False, True, id="ended well, but never served"),
        pytest.param(True, RunStatus.FAILED, False, True, id="crashed"),
        pytest.param(True, RunStatus.SUCCEEDED, False, False, id="ended well"),
        pytest.param(True, RunStatus.ABORTED, False, False, id="aborted"),
        pytest.param(False, RunStatus.ABORTED, False, False, id="aborted before it served"),
        pytest.param(True, RunStatus.FAILED, True, False, id="died while it was wound down"),
    ],
)
def test_an_end_counts_if_nobody_wanted_it(
    has_served: bool, status: RunStatus, is_wound_down: bool, counts: bool
) -> None:
    """With the run, its status and its exit code in the reason."""
    keeper = kept([], status=status)
    keeper._has_served = has_served
    if is_wound_down:
        keeper.wind_down("idle for 300 s")
    why = keeper._failure(3, " It was too large.")
    assert (why is not None) == counts
    if why is not None:
        when = "after it had begun to serve" if has_served else "before its web server answered"
        assert why == f"Run run ended {when} ({status}, exit code 3). It was too large."


def adopted(told: list[RunNews], run: Run, *, exit_code: int | None) -> Keeper:
    """The keeper of a run that another Greenroom has started; *exit_code*: None while it lives."""

    stopped = asyncio.Event()

    async def wait(_run_id: str) -> Exited:
        if exit_code is None:
            await stopped.wait()
        return Exited(exit_code=exit_code or 0)

    async def stop(_run_id: str, **_grace: float) -> None:
        stopped.set()

    keeper = kept(told)
    # Nobody listens there: a probe would fail.
    placement = {"host": "127.0.0.1", "port": 1}
    keeper.run = replace(run, placement=placement)
    keeper.adopted = FoundRun(run_id=run.id, is_alive=exit_code is None, placement=placement)
    keeper.launcher = cast(
        Any,
        SimpleNamespace(
            wait=wait, stop=stop, forget=nothing, resume=nothing, has_booted=nothing, first_probe_secs=0.01
        ),
    )
    return keeper


@pytest.mark.parametrize("exit_code", [0, 3])
async def test_one_that_ended_while_nobody_kept_it_had_served(exit_code: int) -> None:
    """By its record; a machine that is started anew must not have its pools taken for ones that never serve."""
    told: list[RunNews] = []
    run = replace(RUNNING, is_container_server_ready=True, started_at=NOW - timedelta(seconds=90))
    async with asyncio.timeout(10):
        await adopted(told, run, exit_code=exit_code).live()
    (news,) = told
    assert news.has_ended
    assert news.served_secs is not None
    assert news.served_secs >= 90
    assert (news.failed_because is not None) == (exit_code == 3)


@pytest.mark.parametrize(
    ("facts", "readiness"),
    [
        pytest.param({"is_container_server_ready": True}, Readiness.SERVING, id="served"),
        pytest.param({}, Readiness.STARTING, id="not yet"),
        pytest.param(
            {"is_container_server_ready": True, "status": RunStatus.ABORTING}, Readiness.STARTING, id="being aborted"
        ),
        pytest.param(
            {"is_container_server_ready": True, "wound_down_because": "idle"}, Readiness.STARTING, id="being stopped"
        ),
    ],
)
async def test_one_that_served_serves_on(facts: dict[str, Any], readiness: Readiness) -> None:
    """It is not probed before a gateway is refused: it may be busy with one long request."""
    keeper = adopted([], replace(RUNNING, **facts), exit_code=None)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        await keeper._begin()
        assert keeper.readiness is readiness
        if readiness is Readiness.SERVING:
            watching = group.create_task(keeper._watch_readiness())
            for is_told, expected in ((False, Readiness.SERVING), (True, Readiness.STARTING)):
                if is_told:
                    keeper.probe_again()
                for _ in range(20):
                    await asyncio.sleep(0)
                assert keeper.readiness is expected
            watching.cancel()


async def test_one_that_hangs_failed_when_it_was_given_up() -> None:
    """It is told once, then: how long it drains afterwards is no service of it."""
    told: list[RunNews] = []
    run = replace(RUNNING, is_container_server_ready=True, started_at=NOW - timedelta(seconds=30))
    keeper = adopted(told, run, exit_code=None)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(keeper.live())
        await keeper.has_published.wait()
        keeper.give_up("it was not alive")
        (given_up,) = told
    assert told == [given_up]
    assert given_up.has_ended
    assert given_up.failed_because == "Run run was replaced: it was not alive."
    assert given_up.served_secs is not None
    assert 30 <= given_up.served_secs < 60


async def test_one_that_is_wound_down_anyway_is_not_given_up() -> None:
    """What nobody needs any more may end as it likes."""
    told: list[RunNews] = []
    keeper = adopted(told, replace(RUNNING, is_container_server_ready=True), exit_code=None)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(keeper.live())
        await keeper.has_published.wait()
        keeper.wind_down("idle for 300 s")
        keeper.give_up("it was not alive")
    (news,) = told
    assert news.failed_because is None
