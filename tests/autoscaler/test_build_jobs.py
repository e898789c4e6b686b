"""Builds that were left, on real records: whoever leads next begins them anew, and nobody else ends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest

from autoscaler import build_jobs
from autoscaler.build_jobs import BuildJobs
from autoscaler.strangers import Strangers
from gateway.actor_files.snapshot import pack_source_files
from gateway.build_maker import Say
from gateway.builds import Builder
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build, Origin, User
from gateway.live_logs import Logs
from gateway.secret_box import SecretBox
from gateway.settings import Settings
from gateway.state.blobs import open_blobs
from gateway.state.ports import State, StateUnavailable
from gateway.state.records import open_records
from gateway.state.signals_memory import MemorySignals

OWNER = User(id="u" * 17, username="local", is_admin=True, created_at=datetime.now(UTC))
FILES = [
    {"name": ".actor/actor.json", "content": '{"actorSpecification": 1, "name": "actor", "version": "0.1"}'},
    {"name": "src/__main__.py", "content": "print()"},
]


@dataclass
class Bench:
    """A build that was begun, and those who may make it."""

    builder: Builder
    state: State
    logs: Logs
    settings: Settings
    build: Build

    def jobs(self, **options: Any) -> BuildJobs:
        return BuildJobs(
            maker=self.builder.maker,
            state=self.state,
            logs=self.logs,
            strangers=Strangers("process", self.settings, 8010),
            max_builds=2,
            timeout_secs=60,
            **{"prepare": None, **options},
        )

    async def present(self) -> Build:
        build = await self.state.records.build(self.build.id)
        assert build is not None
        return build

    async def until(self, status: RunStatus) -> None:
        async with asyncio.timeout(20):
            while (await self.present()).status is not status:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)

    async def log(self) -> str:
        return b"".join([chunk async for chunk in self.logs.read(self.build.id)]).decode()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """The build is RUNNING, and nobody makes it."""
    numbers = count(1)
    async with open_records(f"sqlite+aiosqlite:///{tmp_path}/records.db") as records:
        state = State(
            records=records, blobs=open_blobs(tmp_path / "blobs"), signals=MemorySignals(), storages=records.storages
        )
        await records.add_user(OWNER)
        logs = Logs(tmp_path, state.blobs)
        builder = Builder(
            state,
            logs,
            SecretBox(b"key"),
            now=lambda: datetime.now(UTC),
            new_id=lambda: f"{next(numbers):017d}",
            makes_images=True,
        )
        _, build = await builder.register(OWNER, pack_source_files(FILES), origin=Origin.API)
        begun = await records.replace_build(replace(build, status=RunStatus.RUNNING))
        yield Bench(builder, state, logs, Settings(data=tmp_path), begun)


async def test_a_build_that_was_left_is_begun_anew(bench: Bench) -> None:
    """By the process that leads next, once; its log says so."""
    async with bench.jobs(takes_over=True).running():
        await bench.until(RunStatus.SUCCEEDED)
    assert "it begins anew" in await bench.log()


async def test_where_nobody_else_makes_builds_none_is_taken_over(bench: Bench) -> None:
    """All in one process: what is RUNNING is being made."""
    async with bench.jobs().running():
        _, other = await bench.builder.register(
            OWNER, pack_source_files([FILES[0], {"name": "main.py", "content": "other"}]), origin=Origin.API
        )
        await replace(bench, build=other).until(RunStatus.SUCCEEDED)
    assert (await bench.present()).status is RunStatus.RUNNING


@pytest.mark.parametrize(
    ("is_ours", "hands_over", "expected"),
    [
        pytest.param(False, False, RunStatus.RUNNING, id="another one leads, and has it now"),
        pytest.param(False, True, RunStatus.RUNNING, id="another one leads, and the builds were to be handed over"),
        pytest.param(True, False, RunStatus.FAILED, id="Greenroom ends"),
        pytest.param(True, True, RunStatus.READY, id="this autoscaler ends"),
    ],
)
async def test_who_is_cut_off_ends_only_his_own(
    bench: Bench, is_ours: bool, hands_over: bool, expected: RunStatus
) -> None:
    """A build is broken off with the lead; its record is the next leader's."""
    begun = asyncio.Event()

    async def prepare(build: Build, say: Say) -> None:
        begun.set()
        await asyncio.Event().wait()

    has_lead = True
    jobs = bench.jobs(takes_over=True, prepare=prepare, is_ours=lambda: has_lead)

    async def act() -> None:
        async with jobs.running():
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        acting = group.create_task(act())
        await begun.wait()
        has_lead = is_ours
        if hands_over:
            jobs.hand_over()
        acting.cancel()
    assert (await bench.present()).status is expected


class Unwritable:
    """Records that take no end of a build until they are ``mended``."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.is_mended = False
        self.refused = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    async def finish_build(self, *ended: Any) -> Any:
        if not self.is_mended:
            self.refused.set()
            raise StateUnavailable("Records: the disk is full.")
        return await self._records.finish_build(*ended)


@pytest.mark.parametrize("makes_images", [True, False], ids=["made as a job", "made at once"])
async def test_a_build_whose_end_can_not_be_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, makes_images: bool
) -> None:
    """It does not stay RUNNING, where nobody would make it: once the records can be written it begins anew."""
    monkeypatch.setattr(build_jobs, "_LOOK_AGAIN_SECS", 0.01)
    records = Unwritable(bench.state.records)
    state = replace(bench.state, records=cast("Any", records))
    builder = Builder(
        state,
        bench.logs,
        SecretBox(b"key"),
        now=lambda: datetime.now(UTC),
        new_id=lambda: "b" * 17,
        makes_images=makes_images,
    )
    actor = await records.actor(bench.build.actor_id)
    version = await records.actor_version(actor.id, "0.1")
    given: Any = {"tag": None, "origin": Origin.API, "options": {}, "meta": {}}
    if makes_images:
        await builder.create(actor, version, **given)
    else:
        with pytest.raises(StateUnavailable):
            await builder.create(actor, version, **given)
    async with replace(bench, builder=builder).jobs().running():
        await records.refused.wait()
        records.is_mended = True
        made = replace(bench, build=replace(bench.build, id="b" * 17))
        await made.until(RunStatus.SUCCEEDED)
    assert "could not be recorded: it begins anew" in await made.log()
    assert (await bench.present()).status is RunStatus.RUNNING  # of another process
