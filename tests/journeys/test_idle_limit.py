"""Requests that meet the idle limit: none fails, whether they come just before, just after, or in between."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest
from journeys.greenroom import Greenroom, actor_folder

IDLE_SECS = 1.0


async def _aim(greenroom: Greenroom, actor: str, chance: random.Random, rounds: int) -> list[str]:
    """Requests of one Actor, each aimed at its run's idle limit ± 50 ms after the one before; what went wrong."""
    problems = []
    for _ in range(rounds):
        answer = await greenroom.call(actor)
        if answer.status_code != 200:
            problems.append(f"{answer.status_code} {answer.text}")
        # The aim is the point of the test, not a wait for something to happen.
        await asyncio.sleep(IDLE_SECS + chance.uniform(-0.05, 0.05))
    return problems


@pytest.mark.parametrize(
    ("actors", "rounds"),
    [
        pytest.param(5, 10, id="5 Actors, 10 rounds"),
        pytest.param(50, 20, id="50 Actors, 20 rounds", marks=[pytest.mark.slow, pytest.mark.timeout(400)]),
    ],
)
async def test_requests_aimed_at_the_idle_limit_never_fail(tmp_path: Path, actors: int, rounds: int) -> None:
    """Stop against request: the run either serves it or is not chosen for it; 0 failures."""
    names = [f"probe-{number:02}" for number in range(actors)]
    for name in names:
        actor_folder(tmp_path / "actors", name, {"idleTimeoutSecs": IDLE_SECS})
    settings = {"pick_timeout_secs": 60, "readiness_timeout_secs": 60, "log_level": "warning"}
    async with Greenroom(tmp_path / "data", (tmp_path / "actors",), settings) as greenroom:
        chance = random.Random(7)
        outcomes = await asyncio.gather(*(_aim(greenroom, name, chance, rounds) for name in names))
        assert [problem for problems in outcomes for problem in problems] == []
        runs = await greenroom.wait_until_no_run_lives(within_secs=30)
        assert {run["status"] for run in runs} == {"SUCCEEDED"}, json.dumps(runs[:3])
        assert len(runs) > actors, "no run was ever stopped, so nothing was tested"
