"""A new build takes over from the old one while requests go on, without a gap; one that does not work does not."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest
import pytest_asyncio
from journeys.greenroom import ACTORS, Greenroom, actor_folder, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEW_MAIN = (ACTORS / "probe" / "main.py").read_text().replace("hello from", "hello anew from")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def greenroom(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Greenroom]:
    """One server for all of these tests."""
    async with Greenroom(tmp_path_factory.mktemp("new-build") / "data", settings={"tick_secs": 0.5}) as server:
        yield server


class Callers:
    """Callers that ask an Actor again and again, all at once; every one of their answers has to be 200."""

    def __init__(self, greenroom: Greenroom, actor: str, count: int) -> None:
        self.last: dict[int, str] = {}
        self.answered = 0
        self._greenroom = greenroom
        self._actor = actor
        self._count = count
        self._group = asyncio.TaskGroup()
        self._are_done = False

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        for number in range(self._count):
            self._group.create_task(self._ask(number))
        return self

    async def __aexit__(self, *error: object) -> None:
        self._are_done = True
        await self._group.__aexit__(None, None, None)

    async def _ask(self, number: int) -> None:
        while not self._are_done:
            answer = await self._greenroom.call(self._actor)
            assert answer.status_code == 200, answer.text
            self.last[number] = answer.text
            self.answered += 1

    async def all_get(self, greeting: str) -> None:
        """Until the last answer of each caller began so."""

        def look() -> bool:
            return len(self.last) == self._count and all(text.startswith(greeting) for text in self.last.values())

        await eventually(look, within_secs=30, what=f"'{greeting}' for all")

    async def twenty_more(self) -> None:
        """Until twenty more requests have been answered."""
        enough = self.answered + 20
        await eventually(lambda: self.answered >= enough, what="twenty more answers")


async def test_a_pushed_build_takes_over_under_load_without_a_single_failure(greenroom: Greenroom) -> None:
    """Every answer is 200; in the end all come from the new build; the old one's runs end SUCCEEDED."""
    standby = {"desiredRequestsPerActorRun": 2, "maxRequestsPerActorRun": 3}
    actor = await greenroom.probe("renewed", standby)
    parent = Path(tempfile.mkdtemp(dir=greenroom.data.parent))
    folder = actor_folder(parent, "renewed", standby, main=NEW_MAIN)
    async with Callers(greenroom, "renewed", 5) as callers:
        await callers.all_get("hello from")
        out = await greenroom.command("push", str(folder))
        assert f"http://{greenroom.host('renewed')}" in out
        # Not before: where the machine is slow, the number of runs may still have been rising.
        old = {run["id"] for run in await greenroom.runs_of(actor) if run["buildNumber"] == "0.1.1"}
        assert old
        await callers.all_get("hello anew from")
        for run_id in old:
            assert (await greenroom.ended(run_id))["status"] == "SUCCEEDED"
            assert "another run has taken over: a newer build" in await greenroom.log_of(run_id)
        await callers.twenty_more()
        await callers.all_get("hello anew from")
    builds = {run["id"]: run["buildNumber"] for run in await greenroom.runs_of(actor)}
    assert {number for run_id, number in builds.items() if run_id not in old} == {"0.1.2"}


@pytest.mark.slow
async def test_a_long_answer_of_the_old_build_is_finished(greenroom: Greenroom) -> None:
    """Its run takes nothing new, and ends once the answer has been given."""
    actor, gate = await greenroom.probe("finishing"), greenroom.data.parent / "finishing.gate"
    old = (await greenroom.call("finishing", "/count")).json()["runId"]
    async with asyncio.TaskGroup() as group:
        long = group.create_task(greenroom.call("finishing", f"/until?file={gate}"))
        await eventually(gate.with_name("finishing.gate.begun").exists, what="the long request")
        await greenroom.probe("finishing", main=NEW_MAIN)

        async def renewed() -> bool:
            return (await greenroom.call("finishing")).text.startswith("hello anew")

        await eventually(renewed, what="the new build")
        assert (await greenroom.run(old))["status"] == "RUNNING"
        gate.touch()
    assert long.result().json()["runId"] == old
    assert (await greenroom.ended(old))["status"] == "SUCCEEDED"
    assert len(await greenroom.serving(actor, 1)) == 1


async def test_an_open_socket_of_the_old_build_goes_on_until_it_is_closed(greenroom: Greenroom) -> None:
    """New requests are served by the new build meanwhile."""
    await greenroom.probe("socket")
    async with greenroom.websocket("socket") as socket:
        old = (await greenroom.call("socket", "/count")).json()["runId"]
        await greenroom.probe("socket", main=NEW_MAIN)

        async def renewed() -> bool:
            return (await greenroom.call("socket")).text.startswith("hello anew")

        await eventually(renewed, what="the new build")
        await socket.send("still the old one")
        assert await socket.recv() == "still the old one"
    assert (await greenroom.ended(old))["status"] == "SUCCEEDED"


async def test_a_broken_new_build_leaves_the_old_one_serving(greenroom: Greenroom) -> None:
    """Its runs fail, every request is answered by the old build, and a mended one takes over."""
    standby = {"desiredRequestsPerActorRun": 5, "maxRequestsPerActorRun": 5}
    actor = await greenroom.probe("broken", standby)
    async with Callers(greenroom, "broken", 3) as callers:
        await callers.all_get("hello from")
        (old,) = [run["id"] for run in await greenroom.runs_of(actor)]
        await greenroom.probe("broken", standby, environmentVariables={"PROBE_START": "exit:9"})

        async def failed() -> bool:
            return any(run["status"] == "FAILED" for run in await greenroom.runs_of(actor))

        await eventually(failed, within_secs=20, what="a failed run of the broken build")
        await callers.twenty_more()
        await callers.all_get(f"hello from {old}")
        assert (await greenroom.run(old))["status"] == "RUNNING"
        # No variables: an Actor's file without them leaves those of the version as they are.
        await greenroom.probe("broken", standby, main=NEW_MAIN, environmentVariables={"PROBE_START": ""})
        await callers.all_get("hello anew from")
    assert (await greenroom.ended(old))["status"] == "SUCCEEDED"
