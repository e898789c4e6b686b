"""Writes and reads the archives of ``gateway.core.dump_format``, as streams: never more than one row or block of it."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from gateway.core.dump_format import (
    END_NAME,
    LONGEST_NOTE_BYTES,
    MANIFEST_NAME,
    BadDump,
    End,
    Manifest,
    blob_key,
    blob_name,
    dump_note,
    dump_row,
    load_end,
    load_manifest,
    load_row,
    part_name,
    part_table,
)

_BLOCK_BYTES = 256 * 1024
_PART_BYTES = 4 * 1024 * 1024


class DumpWriter:
    """An archive that is being written; ``end`` makes it whole."""

    def __init__(self, file: IO[bytes], manifest: Manifest) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by end
        self._digest = hashlib.sha256()
        self._rows: dict[str, int] = {}
        self.blobs = 0
        self._table, self._part, self._parts = "", bytearray(), 0
        self._add(MANIFEST_NAME, dump_note(manifest))

    async def add_blob(self, key: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Raises BadDump where *chunks* are not *size* bytes: somebody changes the blob meanwhile."""
        member = _member(blob_name(key), size)
        self._tar.addfile(member)
        self._digest.update(member.name.encode())
        left = size
        async for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                break
            self._put(chunk)
        if left:
            raise BadDump(f"The blob {key} changed while it was read: is a Greenroom running on it?")
        self._pad(size)
        self.blobs += 1

    def add_rows(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Some rows; those of a table follow each other."""
        if table != self._table:
            self._flush()
            self._table = table
        for row in rows:
            self._part += dump_row(row)
            if len(self._part) >= _PART_BYTES:
                self._flush()
        self._rows[table] = self._rows.get(table, 0) + len(rows)

    def end(self) -> End:
        """Write what makes it whole, and what that is."""
        self._flush()
        end = End(sha256=self._digest.hexdigest(), blobs=self.blobs, rows=self._rows)
        self._add(END_NAME, dump_note(end))
        self._tar.close()
        return end

    def _flush(self) -> None:
        if self._part:
            self._add(part_name(self._table, self._parts), bytes(self._part))
            self._part.clear()
            self._parts += 1

    def _add(self, name: str, content: bytes) -> None:
        self._digest.update(name.encode() + content)
        self._tar.addfile(_member(name, len(content)), io.BytesIO(content))
        _forget(self._tar)

    def _put(self, chunk: bytes) -> None:
        """A part of a member whose header is written."""
        assert self._tar.fileobj is not None
        self._digest.update(chunk)
        self._tar.fileobj.write(chunk)
        self._tar.offset += len(chunk)

    def _pad(self, size: int) -> None:
        assert self._tar.fileobj is not None
        padding = -size % tarfile.BLOCKSIZE
        self._tar.fileobj.write(bytes(padding))
        self._tar.offset += padding
        _forget(self._tar)


class DumpReader:
    """
    An archive that is being read, once: its blobs, then its rows, which end with a check of the whole.

    All raise BadDump where the file is none, or damaged. ``end`` is known once all was read.
    """

    def __init__(self, file: IO[bytes]) -> None:
        try:
            self._tar = tarfile.open(fileobj=file, mode="r|")  # noqa: SIM115 - it closes nothing
        except tarfile.TarError as error:
            raise BadDump("The file is no archive that 'greenroom db export' has written.") from error
        self._digest = hashlib.sha256()
        self._rows: dict[str, int] = {}
        self._blobs = 0
        self.end: End | None = None
        self._member = self._next()
        if self._member is None or self._member.name != MANIFEST_NAME:
            raise BadDump(
                f"The file is no archive that 'greenroom db export' has written: {MANIFEST_NAME} comes first."
            )
        self.manifest = load_manifest(self._note())

    def blobs(self) -> Iterator[tuple[str, int, Iterator[bytes]]]:
        """Each blob's key, its size and its bytes, which must be read before the next."""
        while self._member is not None and (key := blob_key(self._member.name)) is not None:
            member = self._member
            self._digest.update(member.name.encode())
            yield key, member.size, self._blocks(member)
            self._blobs += 1
            self._member = self._next()

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each row with its table. Raises BadDump at last where anything is missing or was changed."""
        while self._member is not None and (table := part_table(self._member.name)) is not None:
            name = self._member.name
            self._digest.update(name.encode())
            for line in self._lines(self._member):
                self._rows[table] = self._rows.get(table, 0) + 1
                yield table, load_row(line, name)
            self._member = self._next()
        if self._member is None:
            raise BadDump(f"The file is not whole: it ends without {END_NAME}.")
        if self._member.name != END_NAME:
            raise BadDump(f"The file holds {self._member.name!r} where that does not belong.")
        digest = self._digest.hexdigest()
        end = load_end(self._note())
        if end != End(sha256=digest, blobs=self._blobs, rows=self._rows):
            raise BadDump("The file was damaged or changed: it does not hold what its end tells.")
        self.end = end

    def _next(self) -> tarfile.TarInfo | None:
        with _read():
            member = self._tar.next()
        _forget(self._tar)
        if member is not None and not member.isreg():
            raise BadDump(f"The file holds {member.name!r}, which is no plain file.")
        return member

    def _note(self) -> bytes:
        assert self._member is not None
        if self._member.size > LONGEST_NOTE_BYTES:
            raise BadDump(f"{self._member.name} is too long to be one.")
        name = self._member.name
        content = b"".join(self._blocks(self._member, name.encode()))
        self._member = self._next()
        return content

    def _blocks(self, member: tarfile.TarInfo, begin: bytes = b"") -> Iterator[bytes]:
        self._digest.update(begin)
        with _read():
            file = self._tar.extractfile(member)
            assert file is not None
            left = member.size
            while left:
                block = file.read(min(left, _BLOCK_BYTES))
                if not block:
                    raise BadDump("The file is not whole: it ends in the middle.")
                left -= len(block)
                self._digest.update(block)
                yield block

    def _lines(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        rest = b""
        for block in self._blocks(member):
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
        if rest:
            raise BadDump(f"{member.name} ends in the middle of a line.")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A new file at *path*, for its owner alone, that is there once it is whole and synced, or never."""
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    partial = path.with_name(f"{path.name}.partial")
    with suppress(FileNotFoundError):
        partial.unlink()
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def _read() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError) as error:
        if isinstance(error, BadDump):
            raise
        raise BadDump(f"The file is damaged: {error}.") from error
    except OSError as error:
        raise BadDump(f"The file can't be read: {error.strerror or error}.") from error


def _forget(tar: tarfile.TarFile) -> None:
    """It would remember all members, which may be millions."""
    vars(tar)["members"].clear()


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member
