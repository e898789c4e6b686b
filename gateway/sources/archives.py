"""
Tar and zip archives from elsewhere become snapshots. They are trusted in nothing.

Links inside of the archive become what they point to; names and links that leave it, devices and the like are refused;
number and size are bounded while it is read, whatever it says of itself. An archive whose files all lie in one folder,
as forges pack a repository, is taken for that folder. ``.actorignore`` at its top is honoured.
"""

from __future__ import annotations

import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from gateway.actor_files.snapshot import MAX_SNAPSHOT_BYTES, MAX_SNAPSHOT_FILES, Snapshot, pack_entries
from gateway.core.errors import RequestTooLarge, SourceError

_MAX_LINKS = 1000
_LEFT_OUT = frozenset({".git", "node_modules", ".venv", "venv", "__pycache__"})
_MAX_UNPACKED_BYTES = MAX_SNAPSHOT_BYTES + MAX_SNAPSHOT_FILES * 4096


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source; with *link*, the other name in the source (file or folder) that it stands for."""

    read: Callable[[], bytes]
    is_executable: bool = False
    link: str | None = None


def snapshot_of_archive_file(path: Path) -> Snapshot:
    """The source in the archive *path*; blocks, so call it in a thread. Raises SourceError and RequestTooLarge."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as zipped:
                return snapshot_of_files(_without_common_folder(_zip_files(zipped)))
        with tarfile.open(path, mode="r:*") as tar:
            return snapshot_of_files(_without_common_folder(_tar_files(tar)))
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,  # a compression that zipfile does not know
        RuntimeError,  # a zip archive with a password
        OSError,
    ) as error:
        raise SourceError(
            f"What the URL of the source gives is no whole tar, tar.gz or zip archive ({error})."
        ) from error


def snapshot_of_files(files: Mapping[str, SourceFile]) -> Snapshot:
    """The snapshot of *files*, by name: links followed, what ``.actorignore`` names left out."""
    ignore = files.get(".actorignore")
    lines = ignore.read().decode("utf-8", "replace").splitlines() if ignore and ignore.link is None else []
    spec = GitIgnoreSpec.from_lines(lines)
    flat = _flattened(files)

    def entries() -> Iterator[tuple[str, bytes, bool]]:
        for name in sorted(flat):
            if not spec.match_file(name) and not _LEFT_OUT.intersection(name.split("/")):
                yield name, flat[name].read(), flat[name].is_executable

    return pack_entries(entries())


def safe_name(name: str) -> str:
    """*name* as a relative path. Raises SourceError where it leaves its folder."""
    clean = posixpath.normpath(name)
    if not name or name.startswith("/") or clean == ".." or clean.startswith("../") or "\0" in name or "\\" in name:
        raise SourceError(f"The source has the name {name!r}, which leaves its folder.")
    return clean


def link_target(name: str, target: str) -> str:
    """The name that the link *name* points to with *target*. Raises SourceError where that is outside."""
    clean = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if target.startswith("/") or clean == ".." or clean.startswith("../"):
        raise SourceError(f"The source has the link {name} to {target!r}, which leaves its folder.")
    return clean


def _flattened(files: Mapping[str, SourceFile]) -> dict[str, SourceFile]:
    """*files* without links: each stands for what it points to, a file or all files of a folder."""
    plain = {name: file for name, file in files.items() if file.link is None}
    links = {name: file.link for name, file in files.items() if file.link is not None}
    if len(links) > _MAX_LINKS:
        raise RequestTooLarge(f"The source has more than {_MAX_LINKS} links.")
    while links:
        # One whose target has links of its own waits for these; so do those that lead in a circle, for ever.
        ready = {
            name: target
            for name, target in links.items()
            if target not in links and not any(_is_below(other, target) for other in links)
        }
        if not ready:
            name, target = min(links.items())
            raise SourceError(f"The source has the link {name} to {target}, which leads back to itself.")
        for name, target in ready.items():
            del links[name]
            found = {name + other[len(target) :]: file for other, file in plain.items() if _is_at(other, target)}
            if not found:
                raise SourceError(f"The source has the link {name} to {target}, where there is nothing.")
            plain |= found
            if len(plain) > MAX_SNAPSHOT_FILES:
                raise RequestTooLarge(f"The source has more than {MAX_SNAPSHOT_FILES} files.")
    _check_folders(plain)
    return plain


def _is_at(name: str, place: str) -> bool:
    return name == place or _is_below(name, place)


def _is_below(name: str, folder: str) -> bool:
    return folder == "." or name.startswith(f"{folder}/")


def _check_folders(files: Mapping[str, SourceFile]) -> None:
    for name in files:
        parent = posixpath.dirname(name)
        while parent:
            if parent in files:
                raise SourceError(f"The source has {parent} twice: as a file and as the folder of {name}.")
            parent = posixpath.dirname(parent)


# Tar


def _tar_files(tar: tarfile.TarFile) -> dict[str, SourceFile]:
    files: dict[str, SourceFile] = {}
    total = 0
    while (member := tar.next()) is not None:
        total = _bounded(total + max(member.size, 0), len(files))
        if member.isdir():
            continue
        name = _new_name(files, member.name)
        if member.issym():
            files[name] = SourceFile(_nothing, link=link_target(name, member.linkname))
        elif member.islnk():
            files[name] = SourceFile(_nothing, link=safe_name(member.linkname))
        elif member.isreg() and not member.issparse():
            files[name] = SourceFile(_reader_of(tar, member), bool(member.mode & stat.S_IXUSR))
        else:
            raise SourceError(f"The source has {name}, which is neither a plain file nor a folder nor a link.")
        # A compressed archive may unpack to far more than its files, in what lies between them.
        _bounded(tar.offset, 0)
    return files


def _reader_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        file = tar.extractfile(member)
        assert file is not None
        return file.read()

    return read


# Zip


def _zip_files(zipped: zipfile.ZipFile) -> dict[str, SourceFile]:
    files: dict[str, SourceFile] = {}
    total = 0
    for info in zipped.infolist():
        total = _bounded(total + info.file_size, len(files))
        if info.is_dir():
            continue
        name = _new_name(files, info.filename)
        mode = info.external_attr >> 16
        if stat.S_ISLNK(mode):
            target = _read_zipped(zipped, info)().decode("utf-8", "replace")
            files[name] = SourceFile(_nothing, link=link_target(name, target))
        elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
            files[name] = SourceFile(_read_zipped(zipped, info), bool(mode & stat.S_IXUSR))
        else:
            raise SourceError(f"The source has {name}, which is neither a plain file nor a folder nor a link.")
    return files


def _read_zipped(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        with zipped.open(info) as file:
            content = file.read(info.file_size + 1)  # whatever the archive says, no more than it says
        if len(content) > info.file_size:
            raise SourceError(f"The source has {info.filename}, which is longer than the archive says.")
        return content

    return read


# Both


def _nothing() -> bytes:
    return b""


def _new_name(files: Mapping[str, SourceFile], given: str) -> str:
    name = safe_name(given)
    if name in files:
        raise SourceError(f"The source has {name} twice.")
    return name


def _bounded(total: int, count: int) -> int:
    if total > _MAX_UNPACKED_BYTES or count >= MAX_SNAPSHOT_FILES:
        raise RequestTooLarge(
            f"The source has more than {MAX_SNAPSHOT_BYTES // (1024 * 1024)} MiB or {MAX_SNAPSHOT_FILES} files."
        )
    return total


def _without_common_folder(files: dict[str, SourceFile]) -> dict[str, SourceFile]:
    """Without the one folder in which all lies, unless that one is what an Actor has at its top."""
    tops = {name.split("/", 1)[0] for name in files}
    top = next(iter(tops), "")
    if len(tops) != 1 or top in files or top == ".actor":
        return files
    cut = len(top) + 1
    if any(file.link is not None and not _is_below(file.link, top) for file in files.values()):
        return files
    return {
        name[cut:]: SourceFile(file.read, file.is_executable, file.link and file.link[cut:])
        for name, file in files.items()
    }
