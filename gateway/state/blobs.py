"""
Blobs by obstore: a folder of this machine, or a bucket, or any store whose own writes are atomic and durable.

obstore's local store replaces atomically but never calls fsync, so a value could be lost, or found empty, after a power
cut. In a folder each value is therefore written to a staging file first, synced, renamed over its key, and the folders
on its way are synced too, all before ``put`` returns.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError, GenericError
from obstore.store import LocalStore, ObjectStore

import gateway.state.store_threads  # noqa: F401  # it is there for the end of the process
from gateway.core.errors import InvalidRequest
from gateway.state.ports import StateUnavailable
from gateway.state.s3 import open_bucket

if TYPE_CHECKING:
    from obstore import GetOptions  # exists for type checkers only

_KEY_BYTES = 512
_SEGMENT_BYTES = 200  # file systems allow 255; the rest is for suffixes of temporary names
_KEY = re.compile(r"[A-Za-z0-9._/-]+")

_STAGING = ".staging"
_STAGING_KEPT_SECS = 24 * 3600.0  # longer than any upload takes; what is older was left by a process that was killed

_PART_BYTES = 5 * 1024 * 1024  # the least that S3 accepts as a part
_PARTS_AT_ONCE = 2
_READ_BYTES = 256 * 1024
_RESUMED_AT_MOST = 3  # without a byte in between
_KEYS_AT_ONCE = 500
_SETTLE_TRIES = 20  # each is undone only by a deletion in that very moment


def open_blobs(folder: Path) -> ObjectBlobs:
    """The blobs in *folder*, which is made if absent. Raises StateUnavailable when that is impossible."""
    with _translated(f"open {folder}"):
        is_new = not folder.exists()
        (folder / _STAGING).mkdir(parents=True, exist_ok=True)
        _sync_folder(folder)
        if is_new:
            _sync_folder(folder.parent)
        _sweep(folder / _STAGING, time.time() - _STAGING_KEPT_SECS)
        # Folders that are empty go with their last value: else each storage and run there ever was would leave one.
        return ObjectBlobs(LocalStore(folder, automatic_cleanup=True), folder=folder)


def open_blob_store(url: str) -> ObjectBlobs:
    """
    The blobs at *url*, ``s3://bucket[/prefix]?…`` as ``gateway.state.s3`` says; blocks until the bucket has answered.

    A put that fails in the middle leaves parts behind that nothing names: have the bucket drop incomplete uploads after
    a day. Raises ValueError for another kind of URL and StateUnavailable where the bucket can't be used.
    """
    return ObjectBlobs(open_bucket(url))


class ObjectBlobs:
    """
    The ``Blobs`` port over an object store; with *folder* over the local one, which then keeps the port's promises.

    A put holds at most a few parts of 5 MiB in memory. In a folder, a key can't lie below another blob's key
    (``a`` and ``a/b``): that is StateUnavailable.
    """

    def __init__(self, store: ObjectStore, *, folder: Path | None = None) -> None:
        self._store = store
        self._folder = folder

    async def put(self, key: str, chunks: AsyncIterator[bytes] | bytes) -> None:
        """Store or replace *key* atomically; errors of *chunks* pass through and leave the old value."""
        _check(key)
        if self._folder is None:
            await self._write(key, chunks)
            return
        staged = f"{_STAGING}/{secrets.token_hex(16)}"
        try:
            await self._write(staged, chunks)
            with _translated(f"write {key}"):
                await asyncio.to_thread(_settle, self._folder, staged, key)
        except BaseException:
            # Also when cancelled: a thread that is still at it then finds nothing to rename, or has just finished.
            with suppress(OSError):
                (self._folder / staged).unlink(missing_ok=True)
            raise

    async def _write(self, key: str, chunks: AsyncIterator[bytes] | bytes) -> None:
        if isinstance(chunks, bytes):
            if self._folder is not None or len(chunks) <= _PART_BYTES:
                with _translated(f"write {key}"):
                    await obstore.put_async(self._store, key, chunks, use_multipart=False)
                return
            chunks = _parts(chunks)  # each of which has its own time and its own tries
        # Not put_async(chunks): when that is cancelled, it leaves a task behind that waits in the caller's iterator.
        writer = obstore.open_writer_async(self._store, key, buffer_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)
        try:
            async for chunk in chunks:
                with _translated(f"write {key}"):
                    await writer.write(chunk)
            with _translated(f"write {key}"):
                await writer.close()
        finally:
            # A writer that goes unclosed removes its partial file; the traceback must not keep it alive.
            del writer

    async def get(self, key: str) -> bytes | None:
        """The whole of a blob that is known to be small."""
        _check(key)
        with _translated(f"read {key}"):
            try:
                found = await obstore.get_async(self._store, key)
            except FileNotFoundError:
                return None
            return bytes(await found.bytes_async())

    async def open(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes] | None:
        """Its bytes from *start* up to *end* (excluded), in chunks; none of them beyond its end, as with slices."""
        _check(key)
        if start < 0 or (end is not None and end < 0):
            raise InvalidRequest("A range of bytes begins and ends at 0 or later.")
        with _translated(f"read {key}"):
            try:
                if end is not None and start >= end:
                    return None if await self.size(key) is None else _nothing()
                if start == 0 and end is None:  # the only form that fits an empty blob too
                    found = await obstore.get_async(self._store, key)
                else:
                    asked: GetOptions = {"range": {"offset": start} if end is None else (start, end)}
                    found = await obstore.get_async(self._store, key, options=asked)
            except FileNotFoundError:
                return None
            except GenericError:
                # The store refuses ranges that begin at or beyond the end.
                size = await self.size(key)
                if size is not None and start < size:
                    raise
                return None if size is None else _nothing()
        return _chunks(self._store, found, key)

    async def size(self, key: str) -> int | None:
        """Bytes of *key*."""
        _check(key)
        with _translated(f"read {key}"):
            try:
                return (await obstore.head_async(self._store, key))["size"]
            except FileNotFoundError:
                return None

    async def delete(self, key: str) -> None:
        """Delete *key*; one that is not there is fine."""
        _check(key)
        with _translated(f"delete {key}"), suppress(FileNotFoundError):
            await obstore.delete_async(self._store, key)

    async def all_keys(self) -> AsyncIterator[str]:
        """All keys there are, in any order; those that are put or deleted meanwhile may be among them or not."""
        listing = obstore.list(self._store, chunk_size=_KEYS_AT_ONCE)
        while True:
            with _translated("list"):
                try:
                    found = await anext(listing)
                except StopAsyncIteration:
                    return
            for each in found:
                if not each["path"].startswith(f"{_STAGING}/"):
                    yield each["path"]


async def _chunks(store: ObjectStore, found: obstore.GetResult, key: str) -> AsyncIterator[bytes]:
    """
    What was found, whatever replaces it meanwhile: in a folder by the open file.

    A bucket's answer has a limited time, and whoever reads it may be slow, so it is resumed while it makes progress.
    """
    position, end = found.range
    stream, tries = found.stream(min_chunk_size=_READ_BYTES), 0
    while True:
        with _translated(f"read {key}"):
            try:
                chunk = bytes(await anext(stream))
            except StopAsyncIteration:
                return
            except BaseError:
                tag = found.meta["e_tag"]
                if isinstance(store, LocalStore) or tag is None or tries == _RESUMED_AT_MOST:
                    raise
                tries += 1
                rest: GetOptions = {"range": (position, end), "if_match": tag}
                stream = (await obstore.get_async(store, key, options=rest)).stream(min_chunk_size=_READ_BYTES)
                continue
        position, tries = position + len(chunk), 0
        yield chunk


async def _parts(value: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(value), _PART_BYTES):
        yield value[start : start + _PART_BYTES]


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def _check(key: str) -> None:
    segments = key.split("/")
    is_good = (
        len(key) <= _KEY_BYTES
        and _KEY.fullmatch(key)
        and not key.startswith(".")
        and all(0 < len(segment) <= _SEGMENT_BYTES and segment not in {".", ".."} for segment in segments)
    )
    if not is_good:
        raise InvalidRequest(
            f"A blob's key is a relative path of letters, digits, '.', '_' and '-', at most {_KEY_BYTES} characters "
            f"({_SEGMENT_BYTES} between slashes), without '..' and not beginning with a dot; not {key[:80]!r}."
        )


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Errors of the store as StateUnavailable, with the first line of what it said."""
    try:
        yield
    except (BaseError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise StateUnavailable(f"Blobs: can't {doing}: {reason}") from error


def _settle(folder: Path, staged: str, key: str) -> None:
    """Give a staged value its name, so that both survive a power cut. Cost: one fsync, and one for each folder."""
    source, target = folder / staged, folder / key
    with source.open("rb") as file:
        os.fsync(file.fileno())  # before the rename: else the name could outlive the bytes
    for tries_left in reversed(range(_SETTLE_TRIES)):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
            break
        except (
            FileNotFoundError,
            FileExistsError,
        ):  # a folder was empty, and whoever deleted its last value removed it
            if tries_left == 0 or not source.exists():
                raise
    for parent in target.parents:
        with suppress(FileNotFoundError):  # the value has been deleted already
            _sync_folder(parent)
        if parent == folder:
            break


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(staging: Path, before: float) -> None:
    for path in staging.iterdir():
        with suppress(FileNotFoundError):  # another process sweeps, too
            if path.stat().st_mtime < before:
                path.unlink()
