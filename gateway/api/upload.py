"""Turns an uploaded source archive into a snapshot, trusting nothing in it."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from gateway.actor_files.snapshot import MAX_SNAPSHOT_BYTES, MAX_SNAPSHOT_FILES, Snapshot, open_archive
from gateway.core.errors import RequestTooLarge

MAX_UPLOAD_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
# A tar has some kilobytes beside each file's content.
_MAX_TAR_BYTES = MAX_SNAPSHOT_BYTES + MAX_SNAPSHOT_FILES * 4096


def snapshot_of_archive(path: Path) -> Snapshot:
    """
    The snapshot that the gzipped tar at *path* is, under the SHA-256 of the tar in it; blocks, so call it in a thread.

    Raises InvalidRequest for what is no such archive or leaves its folder, RequestTooLarge for too much in it.
    """
    with open_archive(path) as archive:
        files = tuple(sorted(archive))
    hashed = hashlib.sha256()
    total = 0
    with gzip.open(path, "rb") as tar:
        while chunk := tar.read(_CHUNK_BYTES):
            total += len(chunk)
            if total > _MAX_TAR_BYTES:
                raise RequestTooLarge("The source archive unpacks to more than an Actor may have.")
            hashed.update(chunk)
    return Snapshot(sha256=hashed.hexdigest(), archive=path.read_bytes(), files=files)
