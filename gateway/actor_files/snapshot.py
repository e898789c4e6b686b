"""
Source snapshots: an Actor's files as one gzipped tar archive, named by its content; nothing is written to the folder.

Packing is deterministic: sorted names, no times, no owners, of the mode only whether a file is executable. The name is
the SHA-256 of the tar before it is compressed, so the same files have the same name whichever zlib is at work.
Unpacking trusts nothing: only plain files and folders below the destination, in bounded number and size.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import io
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from pathspec import GitIgnoreSpec

from gateway.core.errors import DefinitionError, InvalidRequest, RequestTooLarge

MAX_SNAPSHOT_BYTES = 200 * 1024 * 1024
MAX_SNAPSHOT_FILES = 50_000

# What tools leave in a project's folder: made anew where the Actor runs, never part of its source.
_LEFT_OUT_ANYWHERE = frozenset({".git", "node_modules", ".venv", "venv", "__pycache__"})
_LEFT_OUT_AT_TOP = frozenset({"storage", "apify_storage"})
_IGNORE_FILES = (".gitignore", ".actorignore")

_HEADER_ROOM_BYTES = 4096  # per file, for its tar headers and padding, with room for long names
_COPY_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The packed *files* (relative paths, sorted): *archive* is the gzipped tar, *sha256* the name of its content."""

    sha256: str
    archive: bytes
    files: tuple[str, ...]


def pack_folder(folder: Path, *, max_bytes: int = MAX_SNAPSHOT_BYTES) -> Snapshot:
    """
    The files below *folder*, less what tools leave there and what ``.gitignore`` and ``.actorignore`` name.

    A later pattern wins, so ``!name`` in ``.actorignore`` brings back what git ignores. Links inside of the folder are
    packed as what they point to. Raises DefinitionError for what can't be read or leaves the folder, and
    RequestTooLarge for more than *max_bytes* or ``MAX_SNAPSHOT_FILES`` files.
    """
    try:
        root = folder.resolve(strict=True)
        found = sorted(_walk(root, root, "", _ignored(root), (root,)))
    except OSError as error:
        raise DefinitionError(str(error.filename or folder), None, f"can't be read: {error.strerror}") from error
    packer = _Packer()
    total = 0
    for name, path in found:
        try:
            content = path.read_bytes()
            is_executable = bool(path.stat().st_mode & stat.S_IXUSR)
        except OSError as error:
            raise DefinitionError(name, None, f"can't be read: {error.strerror}") from error
        total += len(content)
        if total > max_bytes or len(found) > MAX_SNAPSHOT_FILES:
            raise RequestTooLarge(
                f"{folder} has more than {max_bytes // (1024 * 1024)} MiB or {MAX_SNAPSHOT_FILES} files: "
                "name what the Actor doesn't need in .actorignore, in the manner of .gitignore."
            )
        packer.add(name, content, is_executable=is_executable)
    return packer.snapshot()


def pack_source_files(source_files: Sequence[Mapping[str, Any]]) -> Snapshot:
    """
    The API's ``sourceFiles``: ``{name, format: TEXT | BASE64, content}``, and ``{name, folder: true}``.

    A file that begins with ``#!`` is executable, since the API has no mode. Raises InvalidRequest with the place.
    """
    files: dict[str, bytes] = {}
    for index, given in enumerate(source_files):
        place = f"sourceFiles[{index}]"
        if not isinstance(given, Mapping):
            raise InvalidRequest(f"{place} is an object with name, format and content.")
        name = given.get("name")
        if not isinstance(name, str) or (relative := _relative(name.rstrip("/"))) is None:
            raise InvalidRequest(f"{place}.name is a relative path with / between its parts and without '..'.")
        if given.get("folder") is True:
            continue
        content = _source_content(given, place)
        if relative in files:
            raise InvalidRequest(f"{place}.name is unique; {relative} stands there twice.")
        files[relative] = content
    packer = _Packer()
    for name in sorted(files):
        packer.add(name, files[name], is_executable=files[name].startswith(b"#!"))
    return packer.snapshot()


def pack_entries(entries: Iterable[tuple[str, bytes, bool]], *, max_bytes: int = MAX_SNAPSHOT_BYTES) -> Snapshot:
    """
    Files as (name, content, whether it is executable), sorted by names that are relative paths already, one at a time.

    Raises RequestTooLarge for more than *max_bytes* or ``MAX_SNAPSHOT_FILES`` files.
    """
    packer = _Packer()
    total = 0
    for count, (name, content, is_executable) in enumerate(entries, start=1):
        total += len(content)
        if total > max_bytes or count > MAX_SNAPSHOT_FILES:
            raise RequestTooLarge(
                f"The source has more than {max_bytes // (1024 * 1024)} MiB or {MAX_SNAPSHOT_FILES} files."
            )
        packer.add(name, content, is_executable=is_executable)
    return packer.snapshot()


def _source_content(given: Mapping[str, Any], place: str) -> bytes:
    content, encoding = given.get("content", ""), given.get("format", "TEXT")
    if not isinstance(content, str):
        raise InvalidRequest(f"{place}.content is a text.")
    if encoding == "TEXT":
        return content.encode("utf-8", "replace")
    if encoding != "BASE64":
        raise InvalidRequest(f"{place}.format is TEXT or BASE64.")
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise InvalidRequest(f"{place}.content is not Base64: {error}.") from error


class Archive(Mapping[str, bytes]):
    """The files of an open snapshot by relative path, each read when it is asked for."""

    def __init__(self, tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo]) -> None:
        self._tar = tar
        self._members = members

    def __getitem__(self, name: str) -> bytes:
        with _told_as_broken(), _content(self._tar, self._members[name]) as file:
            return file.read()

    @contextmanager
    def opened(self, name: str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
        """A file's entry and its content, to be read piece by piece."""
        with _told_as_broken(), _content(self._tar, self._members[name]) as file:
            yield self._members[name], file

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


@contextmanager
def open_archive(archive: Path | bytes | IO[bytes], *, max_bytes: int = MAX_SNAPSHOT_BYTES) -> Iterator[Archive]:
    """The files of *archive*, checked as ``unpack`` checks them. Raises InvalidRequest and RequestTooLarge."""
    with _open_tar(archive, max_bytes) as tar:
        yield Archive(tar, {name: member for name, member in _members(tar, max_bytes) if member.isreg()})


def unpack(archive: Path | bytes | IO[bytes], dest: Path, *, max_bytes: int = MAX_SNAPSHOT_BYTES) -> None:
    """
    Write the files of *archive* below *dest*, a folder that does not exist yet.

    Refuses, with InvalidRequest, absolute names, ``..``, links, devices and names given twice; with RequestTooLarge
    what unpacks to more than *max_bytes* or ``MAX_SNAPSHOT_FILES`` files. What was written until then stays.
    """
    dest.mkdir(parents=True)
    with _open_tar(archive, max_bytes) as tar:
        for name, member in _members(tar, max_bytes):
            path = dest / name
            try:
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                # "x": never through something that is there already. No link was ever made, so none is followed.
                with _content(tar, member) as source, path.open("xb") as target, _told_as_broken():
                    shutil.copyfileobj(source, target, _COPY_BYTES)
            except (FileExistsError, NotADirectoryError) as error:
                raise InvalidRequest(f"The source archive has more than one entry that wants to be {name}.") from error
            path.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)


def _relative(name: str) -> str | None:
    """*name* without needless dots, or None for one that is empty, absolute or leaves its folder."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        return None
    return str(path)


class _Packer:
    """Writes a tar, hashed and compressed as it grows; files come sorted, so that the hash is their content's."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._hash = hashlib.sha256()
        self._gzip = zlib.compressobj(6, zlib.DEFLATED, wbits=31)  # 31: with gzip's header, whose time stays 0
        self._chunks: list[bytes] = []
        self._written = 0
        sink = cast("IO[bytes]", self)  # write and tell are all that a tar asks for
        self._tar = tarfile.TarFile(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT)

    def write(self, data: bytes) -> int:
        """As a file object for the tar."""
        self._hash.update(data)
        self._chunks.append(self._gzip.compress(data))
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        """As a file object for the tar."""
        return self._written

    def add(self, name: str, content: bytes, *, is_executable: bool) -> None:
        # A TarInfo begins without owner and with time 0: nothing but these fields comes from the file.
        info = tarfile.TarInfo(name)
        info.size = len(content)
        info.mode = 0o755 if is_executable else 0o644
        self._tar.addfile(info, io.BytesIO(content))
        self._names.append(name)

    def snapshot(self) -> Snapshot:
        self._tar.close()
        archive = b"".join([*self._chunks, self._gzip.flush()])
        return Snapshot(sha256=self._hash.hexdigest(), archive=archive, files=tuple(self._names))


# Walking a folder


def _ignored(root: Path) -> GitIgnoreSpec:
    lines: list[str] = []
    for name in _IGNORE_FILES:
        path = root / name
        if path.is_file():
            lines += path.read_text("utf-8", "replace").splitlines()
    return GitIgnoreSpec.from_lines(lines)


def _walk(
    root: Path, folder: Path, prefix: str, ignored: GitIgnoreSpec, above: tuple[Path, ...]
) -> Iterator[tuple[str, Path]]:
    """Names and real paths of the files to pack; *above* are the real folders that lead here."""
    # With a "!" something below an ignored folder may be wanted again, so only without one is it passed over.
    may_come_back = any(pattern.include is False for pattern in ignored.patterns)
    for entry in sorted(folder.iterdir()):
        if entry.name in _LEFT_OUT_ANYWHERE or (not prefix and entry.name in _LEFT_OUT_AT_TOP):
            continue
        name = prefix + entry.name
        is_folder = entry.is_dir()
        if ignored.match_file(f"{name}/" if is_folder else name) and not (is_folder and may_come_back):
            continue
        path = _real(root, entry, name)
        if is_folder:
            if path in above:
                raise DefinitionError(name, None, "a link that leads back to a folder above it can't be packed")
            yield from _walk(root, path, f"{name}/", ignored, (*above, path))
        elif path.is_file():
            _relative_or_refuse(name)
            yield name, path
        else:
            raise DefinitionError(name, None, "a file or a folder is expected, not a socket, pipe or device")


def _relative_or_refuse(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DefinitionError(repr(name), None, "a name in UTF-8 is expected") from error
    if _relative(name) is None:
        raise DefinitionError(name, None, "a name without backslashes is expected")


def _real(root: Path, entry: Path, name: str) -> Path:
    if not entry.is_symlink():
        return entry
    try:
        path = entry.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise DefinitionError(name, None, "this link points to nothing") from error
    if not path.is_relative_to(root):
        raise DefinitionError(name, None, f"this link leaves the Actor's folder, to {path}; copy the file into it")
    return path


# Reading an archive


class _Bounded(io.RawIOBase):
    """A file that refuses to be read beyond *limit*, so that a small archive can't unpack to more than its bound."""

    def __init__(self, file: gzip.GzipFile, limit: int) -> None:
        self._file = file
        self._limit = limit

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            self._check(offset)
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        self._check(self._file.tell() + max(size, 0))
        return self._file.read(size)

    def _check(self, position: int) -> None:
        if position > self._limit:
            raise RequestTooLarge(f"The source archive unpacks to more than {self._limit // (1024 * 1024)} MiB.")


@contextmanager
def _open_tar(archive: Path | bytes | IO[bytes], max_bytes: int) -> Iterator[tarfile.TarFile]:
    with ExitStack() as stack:
        raw: IO[bytes]
        if isinstance(archive, bytes):
            raw = io.BytesIO(archive)
        elif isinstance(archive, Path):
            raw = stack.enter_context(archive.open("rb"))
        else:
            raw = archive
        plain = stack.enter_context(gzip.GzipFile(fileobj=raw, mode="rb"))
        bounded = stack.enter_context(_Bounded(plain, max_bytes + MAX_SNAPSHOT_FILES * _HEADER_ROOM_BYTES))
        with _told_as_broken():
            tar = stack.enter_context(tarfile.open(fileobj=bounded, mode="r:"))
        yield tar


@contextmanager
def _told_as_broken() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise InvalidRequest(f"The source archive is not a whole gzipped tar archive ({error}).") from error


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    assert file is not None  # only plain files are asked for
    return file


def _members(tar: tarfile.TarFile, max_bytes: int) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The entries of *tar* with their checked names, each before its content is touched."""
    total = count = 0
    while True:
        with _told_as_broken():
            member = tar.next()
        if member is None:
            return
        count += 1
        total += member.size
        if total > max_bytes or count > MAX_SNAPSHOT_FILES:
            raise RequestTooLarge(
                f"The source archive has more than {max_bytes // (1024 * 1024)} MiB or {MAX_SNAPSHOT_FILES} files."
            )
        if member.isdir() and member.name in ("", ".", "./"):
            continue
        name = _relative(member.name)
        if name is None:
            raise InvalidRequest(f"The source archive has the name {member.name!r}, which leaves its folder.")
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise InvalidRequest(f"The source archive has {name}, which is neither a plain file nor a folder.")
        yield name, member
