"""Requests that meet a limit of idleness: none fails, whether they come just before, just after, or in between."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import Greenroom, actor_folder

AROUND_SECS = 0.05


@dataclass(frozen=True)
class Aim:
    """Requests come so many seconds after the answer to the one before, ± 50 ms, to Actors with these settings."""

    secs: float
    standby: dict[str, Any]


IDLE_LIMIT = Aim(1.0, {"idleTimeoutSecs": 1.0})
# Long enough that a second without any use of the processor lies behind it.
FREEZE_LIMIT = Aim(2.0, {"idleTimeoutSecs": 60, "freezeAfterSecs": 2.0})
FROZEN_AT_ITS_END = Aim(4.0, {"idleTimeoutSecs": 4.0, "freezeAfterSecs": 1.0})


async def _aimed(greenroom: Greenroom, actor: str, aim: Aim, chance: random.Random, rounds: int) -> list[str]:
    """Requests of one Actor; what went wrong."""
    problems = []
    for number in range(rounds):
        # What can't be repeated meets a connection that was kept, too.
        answer = await greenroom.call(actor, "/sum", method="POST" if number % 2 else "GET")
        if answer.status_code != 200:
            problems.append(f"{answer.status_code} {answer.text}")
        # The aim is the point of the test, not a wait for something to happen.
        await asyncio.sleep(aim.secs + chance.uniform(-AROUND_SECS, AROUND_SECS))
    return problems


@pytest.mark.parametrize(
    "aim",
    [
        pytest.param(IDLE_LIMIT, id="idle limit"),
        pytest.param(FREEZE_LIMIT, id="freeze limit", marks=pytest.mark.slow),
        pytest.param(FROZEN_AT_ITS_END, id="wind-down of a frozen run", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("actors", "rounds"),
    [
        pytest.param(5, 6, id="5 Actors, 6 rounds"),
        pytest.param(50, 20, id="50 Actors, 20 rounds", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
async def test_requests_aimed_at_a_limit_never_fail(tmp_path: Path, aim: Aim, actors: int, rounds: int) -> None:
    """Stop, or freeze, against request: the run either serves it or is not chosen for it; 0 failures."""
    names = [f"probe-{number:02}" for number in range(actors)]
    for name in names:
        actor_folder(tmp_path / "actors", name, aim.standby)
    settings = {"pick_timeout_secs": 60, "readiness_timeout_secs": 60, "log_level": "warning"}
    async with Greenroom(tmp_path / "data", (tmp_path / "actors",), settings) as greenroom:
        chance = random.Random(7)
        outcomes = await asyncio.gather(*(_aimed(greenroom, name, aim, chance, rounds) for name in names))
        assert [problem for problems in outcomes for problem in problems] == []
        if "freezeAfterSecs" in aim.standby:
            freezes = await greenroom.metric("greenroom_run_freezes_total")
            assert freezes >= actors, "few were ever frozen, so little was tested"
        if aim.standby["idleTimeoutSecs"] <= aim.secs:
            runs = await greenroom.wait_until_no_run_lives(within_secs=30)
            assert {run["status"] for run in runs} == {"SUCCEEDED"}, json.dumps(runs[:3])
            assert len(runs) > actors, "no run was ever stopped, so nothing was tested"
