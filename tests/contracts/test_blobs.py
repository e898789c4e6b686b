"""What every store of blobs promises, and what the folder promises besides."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest
from gateway.core.model import log_key, snapshot_key
from gateway.state.blobs import ObjectBlobs, open_blobs
from gateway.state.ports import Blobs, StateUnavailable

KEY = "logs/some.log"
PART = 5 * 1024 * 1024


async def chunks_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def content(blobs: Blobs, key: str = KEY, **span: int) -> bytes | None:
    """What ``open`` streams, as a whole."""
    chunks = await blobs.open(key, **span)
    return None if chunks is None else b"".join([chunk async for chunk in chunks])


def files(folder: Path) -> list[str]:
    """All files below *folder*, also those that no key names."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what the store does on its own threads."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - the file system sends no event
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"hello\x00\xff", id="a few bytes"),
        pytest.param(b"0123456789abcdef" * (PART // 16 * 2) + b"end", id="several parts"),
    ],
)
async def test_a_value_comes_back_whole(blobs: Blobs, value: bytes):
    """Given as bytes or as chunks of any size, it is read back by all three ways of reading."""
    await blobs.put("a/bytes", value)
    await blobs.put("a/chunks", chunks_of(value[:7], b"", value[7:100], value[100:]))
    for key in ("a/bytes", "a/chunks"):
        assert await blobs.get(key) == value
        assert await blobs.size(key) == len(value)
        assert await content(blobs, key) == value


async def test_a_missing_blob_is_none(blobs: Blobs):
    """Nothing there is no error, at any way of reading, and a delete of it is fine."""
    assert await blobs.get(KEY) is None
    assert await blobs.size(KEY) is None
    assert await blobs.open(KEY) is None
    assert await blobs.open(KEY, start=3) is None
    assert await blobs.open(KEY, start=3, end=3) is None
    await blobs.delete(KEY)


async def test_delete(blobs: Blobs):
    """A deleted blob is gone, its neighbours stay."""
    await blobs.put(KEY, b"old")
    await blobs.put(KEY + "2", b"other")
    await blobs.delete(KEY)
    assert await blobs.get(KEY) is None
    assert await blobs.get(KEY + "2") == b"other"


@given(start=st.integers(0, 12), end=st.none() | st.integers(0, 12), value=st.binary(max_size=10))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_ranges_are_slices(blobs: Blobs, start: int, end: int | None, value: bytes):
    """``open`` gives ``value[start:end]``, also where that is empty or reaches beyond the end."""
    await blobs.put(KEY, value)
    chunks = await blobs.open(KEY, start=start, end=end)
    assert chunks is not None
    assert b"".join([chunk async for chunk in chunks]) == value[start:end]


@pytest.mark.parametrize("span", [{"start": -1}, {"end": -1}])
async def test_a_negative_range_is_refused(blobs: Blobs, span: dict[str, int]):
    """Ranges count from the beginning only."""
    await blobs.put(KEY, b"value")
    with pytest.raises(InvalidRequest):
        await blobs.open(KEY, **span)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("", id="empty"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("../secret.key", id="out of the store"),
        pytest.param("a/../../b", id="out in the middle"),
        pytest.param("a/./b", id="dot"),
        pytest.param("a//b", id="empty segment"),
        pytest.param("a/", id="ends with a slash"),
        pytest.param("a\\b", id="backslash"),
        pytest.param("a b", id="space"),
        pytest.param("a\n", id="line end"),
        pytest.param("ä", id="beyond ASCII"),
        pytest.param("a%2e", id="percent"),
        pytest.param(".staging/x", id="where values are staged"),
        pytest.param("a" * 201, id="long segment"),
        pytest.param("/".join(["ab"] * 180), id="long key"),
    ],
)
async def test_bad_keys_are_refused(blobs: Blobs, key: str):
    """No verb touches anything for a key that could leave the store or that some store can't hold."""
    for verb in (blobs.put(key, b"x"), blobs.get(key), blobs.open(key), blobs.size(key), blobs.delete(key)):
        with pytest.raises(InvalidRequest):
            await verb


@pytest.mark.parametrize("key", [log_key("RunId"), snapshot_key("0" * 64), "a", "A/b.c/_-./..d", "a" * 200])
async def test_good_keys(blobs: Blobs, key: str):
    """What Greenroom names its blobs is good, and so is all else of the alphabet."""
    await blobs.put(key, b"x")
    assert await blobs.get(key) == b"x"


async def test_all_keys(blobs: ObjectBlobs):
    """Each of them once, at any depth, and nothing else: not what is being written, and not what was deleted."""
    keys = {f"many/{number}" for number in range(30)} | {"logs/a.log", "top"}
    for key in (*keys, "gone"):
        await blobs.put(key, b"x")
    await blobs.delete("gone")
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * PART
        waiting.set()
        await go_on.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(blobs.put("late", slow()))
        await waiting.wait()
        assert sorted([key async for key in blobs.all_keys()]) == sorted(keys)
        go_on.set()
    assert {key async for key in blobs.all_keys()} == {*keys, "late"}


async def test_a_reader_sees_old_or_new(blobs: Blobs):
    """While a value is replaced, a reader gets one of the two, whole; one that has begun keeps what it found."""
    old, new = b"o" * (2 * PART), b"n" * (3 * PART)
    await blobs.put(KEY, old)
    begun = await blobs.open(KEY)
    assert begun is not None
    written = asyncio.Event()
    seen = set()

    async def write() -> None:
        for _ in range(3):
            await blobs.put(KEY, chunks_of(new[:PART], new[PART:]))
            await blobs.put(KEY, old)
        written.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        while not written.is_set():
            seen.add(await content(blobs))
    assert seen <= {old, new}
    assert b"".join([chunk async for chunk in begun]) == old


async def test_of_many_writers_one_wins(blobs: Blobs):
    """Writers of one key at the same time don't mix their values."""
    values = [bytes([65 + i]) * 100_000 for i in range(8)]
    async with asyncio.TaskGroup() as group:
        for value in values:
            group.create_task(blobs.put(KEY, chunks_of(value[:50_000], value[50_000:])))
    assert await blobs.get(KEY) in values


@pytest.mark.parametrize("error", [RuntimeError("boom"), OSError("the source of the value failed")])
@pytest.mark.parametrize("sent", [10, 3 * PART], ids=["before a part was written", "after parts were written"])
async def test_a_put_that_fails_changes_nothing(blobs: Blobs, tmp_path: Path, error: Exception, sent: int):
    """An error of the chunks reaches the caller as it is; the old value stays and no partial one."""

    async def failing() -> AsyncIterator[bytes]:
        yield b"x" * sent
        raise error

    await blobs.put(KEY, b"old")
    before = files(tmp_path)
    with pytest.raises(type(error)) as caught:
        await blobs.put(KEY, failing())
    assert caught.value is error
    assert await blobs.get(KEY) == b"old"
    await until(lambda: files(tmp_path) == before)


async def test_a_cancelled_put_changes_nothing(blobs: Blobs, tmp_path: Path):
    """A caller who goes away in the middle leaves the old value, no partial one, and no task in his iterator."""
    waiting, closed = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield b"x" * 3 * PART
            waiting.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    await blobs.put(KEY, b"old")
    before = files(tmp_path)
    async with asyncio.TaskGroup() as group:
        put = group.create_task(blobs.put(KEY, endless()))
        await waiting.wait()
        put.cancel()
    assert closed.is_set()
    assert await blobs.get(KEY) == b"old"
    await until(lambda: files(tmp_path) == before)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_abandoned_reader_is_fine(blobs: Blobs):
    """Who stops reading in the middle harms nobody."""
    await blobs.put(KEY, b"x" * PART)
    chunks = await blobs.open(KEY)
    assert chunks is not None
    assert await anext(chunks)
    await chunks.aclose()  # type: ignore[attr-defined]
    await blobs.put(KEY, b"new")
    assert await blobs.get(KEY) == b"new"


async def test_a_put_is_synced_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The bytes are synced before the name changes, then each folder on the way: a power cut loses neither."""
    blobs = open_blobs(tmp_path / "blobs")
    synced: list[str] = []
    sync = os.fsync

    def spy(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").resolve() if sys.platform == "linux" else Path()
        named = (tmp_path / "blobs" / KEY).exists()
        synced.append(f"{path.relative_to(tmp_path).parts[:2]} {'named' if named else 'unnamed'}")
        sync(descriptor)

    if sys.platform != "linux":
        pytest.skip("reads /proc to learn what was synced")
    monkeypatch.setattr(os, "fsync", spy)
    await blobs.put(KEY, chunks_of(b"a", b"b"))
    assert synced == ["('blobs', '.staging') unnamed", "('blobs', 'logs') named", "('blobs',) named"]


WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.state.blobs import ObjectBlobs, open_blobs

async def main():
    blobs = open_blobs(Path(sys.argv[1]))
    async def chunks():
        yield b"first "
        yield b"second"
    await blobs.put("a/b/c", chunks())
    print("ok", flush=True)
    async def endless():
        yield b"x" * 20_000_000
        print("writing", flush=True)
        await asyncio.Event().wait()
    await blobs.put("a/b/c", endless())

asyncio.run(main())
"""


async def test_folders_go_with_their_last_value(tmp_path: Path):
    """What is deleted leaves nothing behind, and what lies beside it stays."""
    blobs = open_blobs(tmp_path / "blobs")
    for key in ("values/a/1", "values/a/2", "values/b/1"):
        await blobs.put(key, b"x")
    await blobs.delete("values/b/1")
    await blobs.delete("values/a/1")
    assert [folder.name for folder in (tmp_path / "blobs/values").iterdir()] == ["a"]
    await blobs.delete("values/a/2")
    assert [folder.name for folder in (tmp_path / "blobs").iterdir()] == [".staging"]
    await blobs.put("values/a/1", b"y")
    assert await blobs.get("values/a/1") == b"y"


async def test_a_folder_that_goes_while_a_value_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another caller has deleted its last value in that moment: the put makes it once more."""
    blobs, mkdir, removed = open_blobs(tmp_path / "blobs"), Path.mkdir, list[Path]()

    def make(folder: Path, *args: Any, **options: Any) -> None:
        mkdir(folder, *args, **options)
        if folder.name == "a" and len(removed) < 3:
            folder.rmdir()
            removed.append(folder)

    monkeypatch.setattr(Path, "mkdir", make)
    await blobs.put("values/a/1", b"x")
    assert len(removed) == 3
    assert await blobs.get("values/a/1") == b"x"


async def test_values_come_and_go_side_by_side(tmp_path: Path):
    """Of many in one folder each put succeeds, whatever is deleted meanwhile."""
    blobs = open_blobs(tmp_path / "blobs")

    async def come_and_go(number: int) -> None:
        for _ in range(20):
            await blobs.put(f"values/a/{number}", b"x")
            await blobs.delete(f"values/a/{number}")
        await blobs.put(f"values/a/{number}", b"last")

    await asyncio.gather(*map(come_and_go, range(4)))
    assert [await blobs.get(f"values/a/{number}") for number in range(4)] == [b"last"] * 4


async def test_kill_in_the_middle_of_a_put(tmp_path: Path):
    """A process killed while it replaces a value leaves the one that it had put before."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ok\n"
    assert await process.stdout.readline() == b"writing\n"
    process.kill()
    await process.wait()
    assert await open_blobs(tmp_path).get("a/b/c") == b"first second"


async def test_what_killed_processes_left_is_swept(tmp_path: Path):
    """Old staged values go when the folder is opened; young ones may belong to a process that is at work."""
    open_blobs(tmp_path)
    old, young = tmp_path / ".staging" / "old#1", tmp_path / ".staging" / "young#1"
    old.write_bytes(b"x")
    young.write_bytes(b"x")
    os.utime(old, (0, 0))
    open_blobs(tmp_path)
    assert files(tmp_path) == [".staging/young#1"]


async def test_an_unusable_folder_is_told(tmp_path: Path):
    """No folder, or one lost at run time: StateUnavailable, which names the blob or folder."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateUnavailable, match="file"):
        open_blobs(tmp_path / "file" / "blobs")
    blobs = open_blobs(tmp_path / "blobs")
    await blobs.put("a", b"x")
    with pytest.raises(StateUnavailable, match="a/b"):
        await blobs.put("a/b", b"below another blob")
    assert files(tmp_path / "blobs") == ["a"]


LEAVER = """
import asyncio, sys
from pathlib import Path
from gateway.state.blobs import open_blobs

async def main():
    blobs = open_blobs(Path(sys.argv[1]))
    return [key async for key in blobs.all_keys()]

asyncio.run(main())
sys.exit(7)
"""


@pytest.mark.slow
async def test_a_process_ends_as_it_wanted_to(tmp_path: Path):
    """Also right after a call, while threads of the store are still at it: with its own exit code, not by a signal."""
    codes = []
    for _ in range(8):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", LEAVER, str(tmp_path))
        codes.append(await process.wait())
    assert codes == [7] * 8
