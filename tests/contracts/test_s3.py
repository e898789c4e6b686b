"""What blobs in a bucket promise besides: whatever the server does, waits are bounded and reasons are told."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Iterator

import pytest
from s3_server import S3Server, running

from gateway.state import s3 as adapter
from gateway.state.blobs import open_blob_store
from gateway.state.ports import StateUnavailable

PART = 5 * 1024 * 1024
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("s3_keys")]


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server that this test may stop, with less patience than usual."""
    monkeypatch.setattr(adapter, "_REQUEST_SECS", 2.0)
    monkeypatch.setattr(adapter, "_TRYING_SECS", 2.0)
    with running() as server:
        yield server


async def some(size: int) -> AsyncIterator[bytes]:
    yield b"x" * size


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["gone", "paused"])
async def test_a_server_in_trouble(own_server: S3Server, trouble: str):
    """Every call fails in bounded time, with what it was to do and without a key; once the server is back, all work."""
    blobs = open_blob_store(own_server.url(own_server.create_bucket()))
    await blobs.put("a", b"value")

    async def calls() -> None:
        for call in (
            lambda: blobs.get("a"),
            lambda: blobs.size("a"),
            lambda: blobs.open("a"),
            lambda: blobs.put("b", b"x"),
            lambda: blobs.put("c", some(2 * PART)),
            lambda: blobs.delete("other"),
        ):
            began = time.monotonic()
            with pytest.raises(StateUnavailable, match="Blobs: can't") as caught:
                await call()
            assert time.monotonic() - began < 15
            assert "secret-of-s3" not in "".join(traceback.format_exception(caught.value))

    if trouble == "paused":
        with own_server.paused():
            await calls()
        assert await blobs.get("a") == b"value"
    else:
        own_server.stop()
        await calls()
        own_server.start()
        own_server.create_bucket()
    another = open_blob_store(own_server.url(own_server.create_bucket()))
    await another.put("b", b"x")
    assert await another.get("b") == b"x"


@pytest.mark.slow
async def test_a_reader_may_take_its_time(own_server: S3Server):
    """A slow client of a large value gets all of it, though the store's answer is cut off meanwhile."""
    blobs = open_blob_store(own_server.url(own_server.create_bucket()))
    value = bytes(range(256)) * (8 * PART // 256)
    await blobs.put("large", value)
    chunks = await blobs.open("large")
    assert chunks is not None
    read = [await anext(chunks)]
    await asyncio.sleep(3)  # longer than a request may take; the time itself is what is tested
    read += [chunk async for chunk in chunks]
    assert b"".join(read) == value


def test_a_bucket_that_is_not_there(s3: S3Server):
    """It is told at the opening: each of its values would seem absent."""
    with pytest.raises(StateUnavailable, match="bucket no-such-bucket can't be used"):
        open_blob_store(s3.url("no-such-bucket"))


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    """It is told, in bounded time."""
    monkeypatch.setattr(adapter, "_TRYING_SECS", 1.0)
    with pytest.raises(StateUnavailable, match="bucket some-bucket can't be used"):
        open_blob_store("s3://some-bucket?endpoint=http://127.0.0.1:1")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_missing_keys(monkeypatch: pytest.MonkeyPatch, name: str):
    """Nobody is asked for them, such as a machine's own metadata service: they are named."""
    monkeypatch.setenv(name, "")
    with pytest.raises(StateUnavailable, match=name):
        open_blob_store("s3://some-bucket?endpoint=http://127.0.0.1:1")


@pytest.mark.parametrize("url", ["http://bucket", "s3://", "s3:bucket", "folder"])
def test_an_address_that_is_none(url: str):
    """A mistake of the settings."""
    with pytest.raises(ValueError, match="s3://BUCKET"):
        open_blob_store(url)


async def test_prefixes_are_apart(s3: S3Server):
    """Two Greenrooms may share a bucket."""
    bucket = s3.create_bucket()
    one, other = (open_blob_store(s3.url(bucket, prefix)) for prefix in ("/one", "/two/deep"))
    await one.put("a", b"1")
    await other.put("a", b"2")
    assert (await one.get("a"), await other.get("a")) == (b"1", b"2")
    assert [key async for key in one.all_keys()] == ["a"]
