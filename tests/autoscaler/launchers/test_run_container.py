"""One run's container, with an engine that is slow, away, or refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest

from autoscaler.launchers.base import Exited
from autoscaler.launchers.chores import Chores
from autoscaler.launchers.docker import run_container
from autoscaler.launchers.docker.engine import EngineError, EngineUnavailable
from autoscaler.launchers.docker.quiet import Quiet
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

    async def ask(self, call: Callable[[Any], Any]) -> Any:
        await asyncio.sleep(0)
        return call(self)

    def streaming(self) -> NoReturn:
        raise AWAY

    def inspect_container(self, container_id: str) -> Mapping[str, Any]:
        return {"State": _next(self.inspect)}

    def kill(self, container_id: str, name: str) -> None:
        _next(self.kills)


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
            quiet=Quiet(),
            disk_mbytes=1,
        )


@pytest.fixture(autouse=True)
def _is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_container, "_RETRY_SECS", 0.01)


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
