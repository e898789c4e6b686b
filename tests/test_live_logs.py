"""Logs while a job lives and afterwards, on a real folder and real blobs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from obstore.store import LocalStore

from gateway.core.model import log_key
from gateway.live_logs import Logs, strip_ansi
from gateway.state.blobs import ObjectBlobs

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")


@pytest.fixture
def blobs(tmp_path: Path) -> ObjectBlobs:
    (tmp_path / "blobs").mkdir()
    return ObjectBlobs(LocalStore(tmp_path / "blobs"))


@pytest.fixture
def logs(tmp_path: Path, blobs: ObjectBlobs) -> Logs:
    return Logs(tmp_path / "data", blobs)


async def whole(logs: Logs, job_id: str = "job") -> str:
    return b"".join([chunk async for chunk in logs.read(job_id)]).decode()


def texts(log: str) -> list[str]:
    """The lines without their times; each must have one."""
    lines = log.splitlines()
    assert [line for line in lines if not STAMP.match(line)] == []
    return [STAMP.sub("", line, count=1) for line in lines]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("hello", ["hello"], id="a line"),
        pytest.param("one\ntwo\n", ["one", "two"], id="two lines"),
        pytest.param("", [""], id="an empty line"),
        pytest.param("a\n\nb", ["a", "", "b"], id="one between"),
        pytest.param("žluťoučký", ["žluťoučký"], id="beyond ASCII"),
        pytest.param("lone \ud800 surrogate", ["lone ? surrogate"], id="no text at all"),
    ],
)
async def test_appended_text_is_stamped_line_by_line(logs: Logs, text: str, expected: list[str]) -> None:
    """Each line begins with its time and ends with a line's end."""
    logs.append("job", "before")
    logs.append("job", text)
    log = await whole(logs)
    assert texts(log) == ["before", *expected]
    assert log.endswith("\n")


async def test_a_job_that_logged_nothing(logs: Logs) -> None:
    """Reads as empty, has no last lines, and is kept and deleted without ado."""
    assert await whole(logs) == ""
    assert await logs.tail("job", 5) == ()
    await logs.keep("job")
    await logs.delete("job")
    assert await whole(logs) == ""


async def test_after_its_end_a_log_lies_in_the_blobs(logs: Logs, blobs: ObjectBlobs) -> None:
    """The same bytes, and no file any more."""
    logs.append("job", "first\nlast")
    log = await whole(logs)
    await logs.keep("job")
    assert not logs.path("job").exists()
    assert await blobs.get(log_key("job")) == log.encode()
    assert await whole(logs) == log
    assert texts("\n".join(await logs.tail("job", 1))) == ["last"]
    await logs.keep("job")
    assert await whole(logs) == log


async def test_a_long_log_is_moved_whole(logs: Logs) -> None:
    """Longer than any one chunk."""
    logs.append("job", "\n".join(f"line {number}" for number in range(20_000)))
    log = await whole(logs)
    await logs.keep("job")
    assert await whole(logs) == log
    assert texts("\n".join(await logs.tail("job", 2))) == ["line 19998", "line 19999"]


async def test_what_is_added_while_a_log_is_moved_moves_too(tmp_path: Path, blobs: ObjectBlobs) -> None:
    """A line that comes when the last one was read already, but the blob is not stored yet, is in the blob."""

    class Slow:
        """The real blobs; after the first value something is appended before the put returns."""

        puts = 0

        async def put(self, key: str, chunks: AsyncIterator[bytes] | bytes) -> None:
            await blobs.put(key, chunks)
            self.puts += 1
            if self.puts == 1:
                logs.append("job", "late")

    slow = Slow()
    logs = Logs(tmp_path / "data", slow)  # type: ignore[arg-type]
    logs.append("job", "early")
    await logs.keep("job")
    assert not logs.path("job").exists()
    assert texts((await blobs.get(log_key("job")) or b"").decode()) == ["early", "late"]
    assert slow.puts == 2


async def test_the_last_lines_of_a_long_log_are_read_alone(logs: Logs) -> None:
    """Of a log in the blobs as of one in a file, the end is enough."""
    lines = [f"line {number} {'x' * 1000}" for number in range(1000)]
    logs.append("job", "\n".join(lines))
    for _ in range(2):
        assert texts("\n".join(await logs.tail("job", 3))) == lines[-3:]
        await logs.keep("job")


async def test_the_last_lines(logs: Logs) -> None:
    """As many as asked for or as there are, without colours."""
    logs.append("job", "one\n\x1b[31mtwo\x1b[0m\nthree")
    assert texts("\n".join(await logs.tail("job", 2))) == ["two", "three"]
    assert len(await logs.tail("job", 50)) == 3


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        pytest.param(b"plain", b"plain", id="nothing to strip"),
        pytest.param(b"\x1b[1;31mred\x1b[0m", b"red", id="colours"),
        pytest.param(b"\x1b[2K\x1b[1Gline\x1b[?25l", b"line", id="cursor moves"),
        pytest.param(b"[31m", b"[31m", id="brackets alone stay"),
    ],
)
def test_strip_ansi(chunk: bytes, expected: bytes) -> None:
    """Terminal sequences go, text stays."""
    assert strip_ansi(chunk) == expected


class Follower:
    """Somebody who follows a log from another task; ``seen`` wakes whoever waits for a word of it."""

    def __init__(self, logs: Logs) -> None:
        self.has_ended = False
        self.log = b""
        self._news = asyncio.Condition()
        self._logs = logs

    async def follow(self) -> None:
        async for chunk in self._logs.follow("job", lambda: self.has_ended):
            async with self._news:
                self.log += chunk
                self._news.notify_all()

    async def seen(self, word: bytes) -> None:
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: word in self.log)


async def test_following_a_job_from_before_its_first_line(logs: Logs) -> None:
    """What is there, what is added, and the last lines though the log was moved meanwhile; then it ends."""
    follower = Follower(logs)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        following = group.create_task(follower.follow())
        logs.append("job", "first")
        await follower.seen(b"first")
        logs.append("job", "second")
        await follower.seen(b"second")
        assert not following.done()
        logs.append("job", "last")
        await logs.keep("job")
        follower.has_ended = True
        await following
    assert texts(follower.log.decode()) == ["first", "second", "last"]
    assert follower.log.decode() == await whole(logs)


async def test_following_a_job_that_has_ended(logs: Logs) -> None:
    """The whole log at once, from the blobs; nothing for one that logged nothing."""
    follower = Follower(logs)
    follower.has_ended = True
    await follower.follow()
    assert follower.log == b""
    logs.append("job", "all of it")
    await logs.keep("job")
    await follower.follow()
    assert texts(follower.log.decode()) == ["all of it"]


async def test_an_ended_log_can_be_added_to(logs: Logs) -> None:
    """Brought back as a file, added to and moved again; a live one stays as it is."""
    logs.append("job", "first")
    await logs.reopen("job")
    await logs.keep("job")
    await logs.reopen("job")
    logs.append("job", "second")
    assert texts(await whole(logs)) == ["first", "second"]
    await logs.keep("job")
    assert texts(await whole(logs)) == ["first", "second"]
    assert list(logs.path("job").parent.iterdir()) == []


async def test_a_deleted_log_is_gone(logs: Logs) -> None:
    """File and blob; other jobs keep theirs."""
    logs.append("job", "old")
    await logs.keep("job")
    logs.append("job", "new")
    logs.append("other", "stays")
    await logs.delete("job")
    assert await whole(logs) == ""
    assert texts(await whole(logs, "other")) == ["stays"]
