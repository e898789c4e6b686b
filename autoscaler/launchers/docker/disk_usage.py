"""
How much a container has written, from the folders of its layer and its volumes. Needs the rights of root.

Whoever runs in the container changes these folders at the same time, and may mean harm: no link is followed, not in
the middle of a path either, and no path grows with their depth.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence

_BLOCK_BYTES = 512
_LEAST_BYTES = 1024  # an empty file takes its place too, and there is only so much of that
DEEPEST = 100
_MOST_OPEN_FILES = 20_000


class TooDeep(Exception):
    """More folders in one another than any program needs, and than can be measured."""


def tree_bytes(folder: str, enough: int) -> int:
    """
    What lies in *folder* and below; no more than is needed to know that it is more than *enough*.

    Raises TooDeep, and OSError where *folder* itself can't be read.
    """
    total = 0
    linked: set[int] = set()
    levels = [_Level(folder, None)]
    try:
        while levels:
            entry = levels[-1].next()
            if entry is None:
                levels.pop().close()
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:  # it has just been removed
                continue
            if stat.S_ISDIR(found.st_mode):
                if len(levels) > DEEPEST:
                    raise TooDeep
                with contextlib.suppress(OSError):
                    levels.append(_Level(entry.name, levels[-1].fd))
            elif stat.S_ISCHR(found.st_mode) or found.st_ino in linked:
                continue  # the first stands for a file of the image that was removed
            elif found.st_nlink > 1:
                linked.add(found.st_ino)
            total += _bytes(found)
            if total > enough:
                break
    finally:
        for level in levels:
            level.close()
    return total


def deleted_bytes(pids: Sequence[int], folders: Iterable[str]) -> int:
    """
    What is in files that *pids* (all of one container) still have open, although no folder has them any more.

    Those count that lie where the container's own root or one of *folders* lies; others are in memory.
    """
    devices = set(_devices([*folders, *(f"/proc/{pid}/root" for pid in pids[:1])]))
    seen: set[tuple[int, int]] = set()
    total = asked = 0
    for pid in pids:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                asked += 1
                if asked > _MOST_OPEN_FILES:
                    return total
                try:
                    found = os.stat(entry.path)  # noqa: PTH116 - of whatever is open there, not of a path
                except OSError:
                    continue
                key = (found.st_dev, found.st_ino)
                if stat.S_ISREG(found.st_mode) and not found.st_nlink and found.st_dev in devices and key not in seen:
                    seen.add(key)
                    total += _bytes(found)
    return total


def disk_used_bytes(folder: str) -> int | None:
    """How full the whole disk is on which *folder* lies; None where that can't be told."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return (found.f_blocks - found.f_bfree) * found.f_frsize


class _Level:
    """A folder, opened as what it is at this moment, by its *name* in the one that *parent* is open for."""

    __slots__ = ("_entries", "fd")

    def __init__(self, name: str, parent: int | None) -> None:
        self.fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self._entries = os.scandir(self.fd)
        except OSError:
            os.close(self.fd)
            raise

    def next(self) -> os.DirEntry[str] | None:
        """One entry after the other; None at the end, or where the folder has just been removed."""
        try:
            return next(self._entries, None)
        except OSError:
            return None

    def close(self) -> None:
        """Of both that are open."""
        self._entries.close()
        os.close(self.fd)


def _bytes(found: os.stat_result) -> int:
    return max(_LEAST_BYTES, found.st_blocks * _BLOCK_BYTES)


def _devices(paths: Iterable[str]) -> Iterator[int]:
    for path in paths:
        with contextlib.suppress(OSError):
            yield os.stat(path).st_dev  # noqa: PTH116
