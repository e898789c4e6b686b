"""Room for all, end to end: who is idle makes way, owners share, limits are kept and told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from journeys.greenroom import Greenroom, error_of, eventually

ONE = {"desiredRequestsPerActorRun": 1, "maxRequestsPerActorRun": 1}
pytestmark = pytest.mark.slow


async def test_the_run_that_is_idle_longest_makes_room(tmp_path: Path) -> None:
    """With room for two, the third Actor's request is served at once in the place of the first's; the log says why."""
    async with Greenroom(tmp_path / "data", settings={"max_runs": 2}) as greenroom:
        actors = [await greenroom.probe(name) for name in ("one", "two", "three")]
        for name in ("one", "two", "three"):
            assert (await greenroom.call(name)).status_code == 200
        (first,) = await greenroom.runs_of(actors[0])
        ended = await greenroom.ended(first["id"])
        assert ended["status"] == "SUCCEEDED"
        assert "others need the room" in await greenroom.log_of(first["id"])
        await greenroom.serving(actors[1], 1)
        await greenroom.serving(actors[2], 1)


async def test_memory_is_kept_within_its_limit(tmp_path: Path) -> None:
    """2048 MB for runs of 1024 each: never three at once, though nobody is refused."""
    async with Greenroom(tmp_path / "data", settings={"max_memory_mbytes": 2048, "tick_secs": 0.2}) as greenroom:
        await asyncio.gather(*(greenroom.probe(f"actor{number}") for number in range(4)))
        answers = await asyncio.gather(*(greenroom.call(f"actor{number}") for number in range(4)))
        assert [answer.status_code for answer in answers] == [200] * 4
        runs = [await greenroom.run(run["id"]) for run in await greenroom.runs()]
        assert _most_at_once(runs) <= 2


async def test_a_run_in_use_is_never_cut_for_another(tmp_path: Path) -> None:
    """With room for one, a long request goes on undisturbed; who waits is served once it has ended."""
    async with Greenroom(tmp_path / "data", settings={"max_runs": 1}) as greenroom:
        await greenroom.probe("long")
        await greenroom.probe("other")
        gate = tmp_path / "gate"
        async with asyncio.TaskGroup() as group:
            long = group.create_task(greenroom.call("long", f"/until?file={gate}"))
            await eventually(gate.with_name("gate.begun").exists, what="the long request")
            other = group.create_task(greenroom.call("other"))
            await eventually(lambda: _held(greenroom), what="the waiting request")
            await asyncio.wait([other], timeout=1)
            assert not other.done()
            gate.touch()
            assert (await long).status_code == 200
            assert (await other).status_code == 200


async def test_what_can_never_fit_is_told_at_once(tmp_path: Path) -> None:
    """503 with the setting's name, in no time."""
    async with Greenroom(tmp_path / "data", settings={"max_memory_mbytes": 512}) as greenroom:
        await greenroom.probe("large", {"memoryMbytes": 1024})
        began = time.monotonic()
        refused = await greenroom.call("large")
        assert error_of(refused) == (503, "memory-limit-exceeded")
        assert time.monotonic() - began < 10
        assert "max_memory_mbytes" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) > 10
        assert await greenroom.runs() == []


async def test_an_owner_with_all_of_his_runs_in_use_hears_why(tmp_path: Path) -> None:
    """After some patience, with the limit's name; another owner is not concerned."""
    settings = {"max_runs_per_user": 1, "tick_secs": 0.5}
    async with Greenroom(tmp_path / "data", settings=settings, arguments=("--trust-users",)) as greenroom:
        token = await greenroom.user("alice")
        await greenroom.probe("busy")
        await greenroom.probe("other")
        await greenroom.probe("hers", token=token)
        gate = tmp_path / "gate"
        async with asyncio.TaskGroup() as group:
            busy = group.create_task(greenroom.call("busy", f"/until?file={gate}"))
            await eventually(gate.with_name("gate.begun").exists, what="the long request")
            assert (await greenroom.call("hers", token=token, user="alice")).status_code == 200
            refused = await greenroom.call("other")
            assert error_of(refused) == (503, "memory-limit-exceeded")
            assert "max_runs_per_user" in refused.json()["error"]["message"]
            gate.touch()
            assert (await busy).status_code == 200


OWNERS = tuple(f"owner{number}" for number in range(9))
# So many that the nine first requests, which need a start each, are much less than a hundredth.
ROUNDS = 160
STARVED_SECS = 10.0


@pytest.mark.timeout(400)
async def test_one_greedy_owner_starves_nobody(tmp_path: Path) -> None:
    """
    Ten owners, room for twelve runs. One keeps sixty requests in flight at one per run; the other nine call now and
    then. All are answered, and the p99 of their waits is at most twice what it is without the greedy one.
    """
    settings = {"max_runs": 12, "wind_down_grace_secs": 2}
    async with Greenroom(tmp_path / "data", settings=settings, arguments=("--trust-users",)) as greenroom:
        tokens = {name: await greenroom.user(name) for name in OWNERS}
        greedy = await greenroom.probe("greedy", ONE)
        for token in tokens.values():
            await greenroom.probe("modest", ONE, token=token)
        await _waits(greenroom, tokens, rounds=1)  # environments are made once, which is nobody's wait for room
        await _end_all(greenroom, tokens)
        alone = await _waits(greenroom, tokens)
        await _end_all(greenroom, tokens)
        is_over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(60):
                group.create_task(_want_more(greenroom, is_over))
            # What else the machine does only ever adds to the waits, so the least of three is closest to the truth; a
            # few milliseconds are soon doubled on a busy one, whoever owns what.
            limit_secs = 2 * max(_p99(alone), 0.1)
            least: list[float] = []
            for _ in range(3):
                await _end_all(greenroom, tokens)
                await greenroom.serving(greedy, 12, within_secs=60)  # it has taken all before the others come
                beside = await _waits(greenroom, tokens)
                assert max(beside) < STARVED_SECS
                least = min(least or beside, beside, key=_p99)
                if _p99(least) <= limit_secs:
                    break
            is_over.set()
    assert _p99(least) <= limit_secs, (sorted(alone)[-20:], sorted(least)[-20:])


async def _want_more(greenroom: Greenroom, is_over: asyncio.Event) -> None:
    while not is_over.is_set():
        answer = await greenroom.call("greedy", "/slow?ms=200")
        assert answer.status_code == 200, answer.text


async def _waits(greenroom: Greenroom, tokens: Mapping[str, str], *, rounds: int = ROUNDS) -> list[float]:
    """How long each request of the nine took beyond its 20 ms."""
    waits: list[float] = []

    async def call_now_and_then(name: str) -> None:
        for _ in range(rounds):
            began = time.monotonic()
            answer = await greenroom.call("modest", "/slow?ms=20", token=tokens[name], user=name)
            assert answer.status_code == 200, answer.text
            waits.append(time.monotonic() - began - 0.02)
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        for name in tokens:
            group.create_task(call_now_and_then(name))
    return waits


async def _end_all(greenroom: Greenroom, tokens: Mapping[str, str]) -> None:
    for token in tokens.values():
        for run in await greenroom.runs(token=token):
            if not run.get("finishedAt"):
                await greenroom.api("POST", f"/actor-runs/{run['id']}/abort", token=token)
                await greenroom.ended(run["id"], token=token)


def _p99(waits: Sequence[float]) -> float:
    return sorted(waits)[round(0.99 * (len(waits) - 1))]


async def test_a_start_by_the_api_is_refused_beyond_a_users_limits(tmp_path: Path) -> None:
    """402 with the platform's types, and nothing is stored; another user is not concerned."""
    settings = {"max_runs_per_user": 2, "max_memory_mbytes_per_user": 1024}
    async with Greenroom(tmp_path / "data", settings=settings, arguments=("--trust-users",)) as greenroom:
        actor = await greenroom.probe("batch")
        path = f"/actors/{actor['id']}/runs"
        large = await greenroom.api("POST", f"{path}?memory=2048")
        assert error_of(large) == (402, "actor-memory-limit-exceeded")
        assert large.json()["error"]["data"] == {"usedMbytes": 0, "wantedMbytes": 2048, "maxMbytes": 1024}
        for _ in range(2):
            assert (await greenroom.api("POST", f"{path}?memory=256")).status_code == 201
        assert error_of(await greenroom.api("POST", f"{path}?memory=256")) == (402, "concurrent-runs-limit-exceeded")
        assert len(await greenroom.runs()) == 2
        token = await greenroom.user("alice")
        hers = await greenroom.probe("hers", token=token)
        answer = await greenroom.api("POST", f"/actors/{hers['id']}/runs?memory=256", token=token)
        assert answer.status_code == 201
        for run in await greenroom.runs():
            await greenroom.api("POST", f"/actor-runs/{run['id']}/abort")
            await greenroom.ended(run["id"])
        assert (await greenroom.api("POST", f"{path}?memory=256")).status_code == 201


async def _held(greenroom: Greenroom) -> bool:
    return await greenroom.metric("greenroom_held_requests") == 1


def _most_at_once(runs: Sequence[dict[str, Any]]) -> int:
    moments = [(run["startedAt"], 1) for run in runs] + [
        (run["finishedAt"], -1) for run in runs if run.get("finishedAt")
    ]
    alive = most = 0
    for _, step in sorted(moments):
        alive += step
        most = max(most, alive)
    return most
