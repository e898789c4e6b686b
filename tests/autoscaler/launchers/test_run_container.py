"""One run's container, with an engine that is slow, away, or refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
from launcher_builds import until

from autoscaler.launchers.base import Exited
from autoscaler.launchers.chores import Chores
from autoscaler.launchers.docker import run_container
from autoscaler.launchers.docker.engine import EngineError, EngineUnavailable
from autoscaler.launchers.docker.run_container import ENGINE_RESTARTED, RunContainer

HAS_ENDED = {"Running": False, "Paused": False, "Restarting": False, "ExitCode": 1}
SLOW = EngineUnavailable("The Docker engine does not answer: timed out.")
AWAY = EngineUnavailable("The Docker engine does not answer: connection refused.", was_sent=False)
NOT_RUNNING = EngineError("The container is not running.", 409)


@dataclass
class StubEngine:
    """Answers each kind of call with what is listed for it, the last answer for ever; it is its own client."""

    inspect: list[Exception | Mapping[str, Any]] = field(default_factory=lambda: [HAS_ENDED])
    kills: list[Exception | None] = field(default_factory=lambda: [None])
    updates: list[Exception | None] = field(default_factory=lambda: [None])
    quotas: list[int] = field(default_factory=list)

    async def ask(self, call: Callable[[Any], Any]) -> Any:
        await asyncio.sleep(0)
        return call(self)

    def streaming(self) -> NoReturn:
        raise AWAY

    def inspect_container(self, container_id: str) -> Mapping[str, Any]:
        return {"State": _next(self.inspect)}

    def kill(self, container_id: str, name: str) -> None:
        _next(self.kills)

    def update_container(self, container_id: str, *, cpu_quota: int, cpu_period: int) -> None:
        self.quotas.append(cpu_quota)
        _next(self.updates)


class AlwaysQuiet:
    """Nothing is being started."""

    async def turn(self) -> None:
        await asyncio.sleep(0)


def _next(answers: list[Any]) -> Any:
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    if isinstance(answer, Exception):
        raise answer
    return answer


@asynccontextmanager
async def container(engine: StubEngine, tmp_path: Path) -> AsyncIterator[RunContainer]:
    async with Chores() as chores, asyncio.timeout(20):
        yield RunContainer(
            run_id="run",
            container_id="c" * 64,
            placement={},
            log_path=tmp_path / "log",
            max_log_chars=1000,
            engine=cast(Any, engine),
            chores=chores,
            quiet=cast(Any, AlwaysQuiet()),
            cpus_after_boot=0.25,
            disk_mbytes=1,
        )


@pytest.fixture(autouse=True)
def _is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_container, "_RETRY_SECS", 0.0)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        pytest.param([SLOW, SLOW, HAS_ENDED], None, id="an engine that was slow"),
        pytest.param([AWAY, HAS_ENDED], ENGINE_RESTARTED, id="one that was down"),
    ],
)
async def test_the_news_of_an_end_is_not_lost(
    answers: list[Exception | Mapping[str, Any]], reason: str | None, tmp_path: Path
) -> None:
    """It comes once; with the engine's events still connected nobody would look again."""
    async with container(StubEngine(inspect=answers), tmp_path) as run:
        await run.look()
        assert run.exited == Exited(exit_code=1, reason=reason)


async def test_an_end_that_nobody_heard_of_is_found_by_who_kills(tmp_path: Path) -> None:
    """Or what was asked to end would be killed for ever."""
    async with container(StubEngine(kills=[NOT_RUNNING]), tmp_path) as run:
        run.stop(0)
        await run.ended.wait()
        assert run.exited == Exited(exit_code=1)


@pytest.mark.parametrize(
    ("answers", "tries"),
    [
        pytest.param([None], 1, id="at once"),
        pytest.param([SLOW, AWAY, None], 3, id="as soon as the engine answers"),
        pytest.param([NOT_RUNNING], 1, id="it has just ended"),
        pytest.param([EngineError("No such controller.", 500)], 1, id="the engine can't do it"),
    ],
)
async def test_the_cpu_of_a_boot_ends_with_it(answers: list[Exception | None], tries: int, tmp_path: Path) -> None:
    """An engine that is away just then must not leave a run more of the machine than it pays for."""
    engine = StubEngine(updates=answers)
    async with container(engine, tmp_path) as run:
        run.has_booted()
        await until(lambda: run.cpus_after_boot is None and len(engine.quotas) >= tries)
    assert engine.quotas == [25_000] * tries
