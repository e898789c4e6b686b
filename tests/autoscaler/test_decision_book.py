"""What was decided is on record once, whenever the loop ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from autoscaler import decision_book
from autoscaler.decision_book import DecisionBook
from gateway.core.model import DecisionRecord, Page
from gateway.state.ports import StateUnavailable
from gateway.state.records import SqlRecords, open_records
from gateway.state.steady import steadily

POOL = "pool"


def decided(number: int) -> DecisionRecord:
    return DecisionRecord(
        id=f"{number:017}",
        pool_id=POOL,
        actor_id="actor",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        wanted_runs=1,
        present_runs=0,
        reasons=("asked",),
    )


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[SqlRecords]:
    """Empty ones."""
    async with open_records(f"sqlite+aiosqlite:///{tmp_path}/records.db") as records:
        yield records


async def written(records: SqlRecords) -> list[str]:
    """Those that are on record."""
    return sorted(decision.id for decision in (await records.list_decisions(POOL, Page())).items)


async def test_it_is_written_without_being_asked(records: SqlRecords) -> None:
    """Soon; what is decided meanwhile goes along."""
    book = DecisionBook(records)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        writing = group.create_task(book.write())
        book.note(decided(1))
        book.note(decided(2))
        while len(await written(records)) < 2:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)
        writing.cancel()


async def test_the_end_may_come_at_any_moment(records: SqlRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Before, while or after it is written: it is there, once, and the end is no failure.

    What the records have begun they bring to its end, also where nobody waits for it any more.
    """
    monkeypatch.setattr(decision_book, "_BATCH_SECS", 0)
    for turns in range(1, 30):
        book, first, second = DecisionBook(records), decided(2 * turns), decided(2 * turns + 1)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            writing = group.create_task(book.write())
            book.note(first)
            for _ in range(turns):
                await asyncio.sleep(0)
            book.note(second)
            writing.cancel()
            await asyncio.wait([writing])
        with contextlib.suppress(asyncio.CancelledError):
            writing.result()
        assert {first.id, second.id} <= set(await written(records)), turns


async def test_there_is_a_bound(records: SqlRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that stands still does not fill the memory; the first ones are kept."""
    monkeypatch.setattr(decision_book, "_MOST_UNWRITTEN", 3)
    book = DecisionBook(records)
    for number in range(5):
        book.note(decided(number))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        writing = group.create_task(book.write())
        await asyncio.sleep(0)
        writing.cancel()
    assert await written(records) == [decided(number).id for number in range(3)]


class Gone:
    """Records that can't be written; ``asked`` is set by whoever tries to. *answers*: whether they say so."""

    def __init__(self, *, answers: bool = True) -> None:
        self.asked = asyncio.Event()
        self._answers = answers

    async def add_decisions(self, decisions: Sequence[DecisionRecord]) -> None:
        """As theirs, who do nothing for none."""
        if not decisions:
            return
        self.asked.set()
        if not self._answers:
            await asyncio.Event().wait()
        raise StateUnavailable("the disk is full")


@pytest.mark.parametrize("answers", [True, False])
async def test_it_ends_without_the_records(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled with something unwritten: nothing of the autoscaler's may go on because the disk is full, or hangs."""
    monkeypatch.setattr(decision_book, "_BATCH_SECS", 3600)
    monkeypatch.setattr(decision_book, "_LAST_WRITE_SECS", 0.01)
    records: Any = Gone(answers=answers)
    book = DecisionBook(records)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        writing = group.create_task(steadily("a test", book.write))
        book.note(decided(1))
        for _ in range(3):
            await asyncio.sleep(0)
        writing.cancel()
    assert writing.cancelled()
    assert records.asked.is_set()


async def test_what_could_not_be_written_is_written_later(records: SqlRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, also where it was on record in spite of the failure."""
    monkeypatch.setattr(decision_book, "_BATCH_SECS", 0)
    for number, is_on_record in ((1, False), (2, True)):
        gone = Gone()
        book = DecisionBook(records)
        monkeypatch.setattr(book, "_records", gone)
        book.note(decided(number))
        with pytest.raises(StateUnavailable):
            await book.write()
        if is_on_record:
            await records.add_decisions([decided(number)])
        monkeypatch.setattr(book, "_records", records)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            writing = group.create_task(book.write())
            book.note(decided(number + 10))
            while decided(number + 10).id not in await written(records):  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)
            writing.cancel()
        assert decided(number).id in await written(records)
