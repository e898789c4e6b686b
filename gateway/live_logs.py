"""
Logs of runs and builds: a file in the data folder while the job lives, a blob afterwards.

Each line begins with its time, ISO 8601 with milliseconds and ``Z``, and a space; whoever writes the file (the shim,
the supervisor) appends whole lines. A reader prefers the file: it is there exactly as long as something is added. That
of a live job lies with the autoscaler that leads, which may have another data folder than a gateway (``remote_logs``).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from gateway.core.model import log_key
from gateway.core.times import iso
from gateway.remote_logs import LogsElsewhere, follow_elsewhere
from gateway.state.ports import Blobs

_CHUNK_BYTES = 64 * 1024
_TAIL_BYTES = 200 * 1024  # more than the lines that anybody asks for
_FOLLOW_SECS = 0.1
_ANSI = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")


def strip_ansi(chunk: bytes) -> bytes:
    """*chunk* without terminal colours and cursor moves."""
    return _ANSI.sub(b"", chunk)


class Logs:
    """
    Reads, follows and appends to the logs below one data folder. A live one that is not there is read from *elsewhere*.
    """

    def __init__(self, data: Path, blobs: Blobs, elsewhere: LogsElsewhere | None = None) -> None:
        self._folder = data / "live" / "logs"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._blobs = blobs
        self._elsewhere = elsewhere

    def path(self, job_id: str) -> Path:
        """The file of a live job's log."""
        return self._folder / f"{job_id}.log"

    def live(self) -> list[str]:
        """The jobs whose log is a file."""
        return sorted(path.stem for path in self._folder.glob("*.log"))

    def append(self, job_id: str, text: str) -> None:
        """Add *text*, line by line, each with the present time; a small write, done at once."""
        stamp = iso(datetime.now(UTC))
        lines = "".join(f"{stamp} {line}\n" for line in text.splitlines() or [""])
        with self.path(job_id).open("ab", buffering=0) as file:
            file.write(lines.encode("utf-8", "replace"))

    async def read(self, job_id: str) -> AsyncIterator[bytes]:
        """
        What there is now; nothing for a job that has logged nothing. Raises StateUnavailable where that can't be told.
        """
        try:
            file = self.path(job_id).open("rb")
        except FileNotFoundError:
            if self._elsewhere is not None:
                present = follow_elsewhere(self._elsewhere, self._blobs, job_id, lambda: True, is_patient=False)
                async for chunk in present:
                    yield chunk
                return
            async for chunk in await self._blobs.open(log_key(job_id)) or _nothing():
                yield chunk
            return
        with file:
            async for chunk in _rest_of(file):
                yield chunk

    async def follow(self, job_id: str, has_ended: Callable[[], bool]) -> AsyncIterator[bytes]:
        """
        What there is and what is added, until *has_ended* is true and all was read.

        The open file stays readable after the job's end moved it to the blobs, so the last lines are never lost.
        """
        if self._elsewhere is not None and not self.path(job_id).exists():
            async for chunk in follow_elsewhere(self._elsewhere, self._blobs, job_id, has_ended, is_patient=True):
                yield chunk
            return
        while not self.path(job_id).exists():
            if has_ended():
                async for chunk in self.read(job_id):
                    yield chunk
                return
            await asyncio.sleep(_FOLLOW_SECS)
        with self.path(job_id).open("rb") as file:
            while True:
                ended = has_ended()
                async for chunk in _rest_of(file):
                    yield chunk
                if ended:
                    return
                await asyncio.sleep(_FOLLOW_SECS)

    async def tail(self, job_id: str, lines: int) -> tuple[str, ...]:
        """The last *lines* (at least 1) lines, for error messages."""
        try:
            with self.path(job_id).open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - _TAIL_BYTES))
                text = file.read()
        except FileNotFoundError:
            key = log_key(job_id)
            start = max(0, (await self._blobs.size(key) or 0) - _TAIL_BYTES)
            text = b"".join([chunk async for chunk in await self._blobs.open(key, start=start) or _nothing()])
        return tuple(strip_ansi(text).decode("utf-8", "replace").splitlines()[-lines:])

    async def keep(self, job_id: str) -> None:
        """The job has ended: move its log to the blobs, with what is added while that goes on."""
        path = self.path(job_id)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return
        with file:
            await self._blobs.put(log_key(job_id), _rest_of(file))
            # Nothing is awaited between the last look and the removal, so nothing is appended between them either.
            while file.read(1):
                file.seek(0)
                await self._blobs.put(log_key(job_id), _rest_of(file))
            path.unlink(missing_ok=True)

    async def reopen(self, job_id: str) -> None:
        """Bring an ended job's log back as a file, to add to it (a build whose environment is made later)."""
        path = self.path(job_id)
        if path.exists():
            return
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            async for chunk in await self._blobs.open(log_key(job_id)) or _nothing():
                file.write(chunk)
        partial.rename(path)

    async def delete(self, job_id: str) -> None:
        """Forget a log altogether."""
        self.path(job_id).unlink(missing_ok=True)
        await self._blobs.delete(log_key(job_id))


async def _rest_of(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
