"""Fetches the source of a version that the API describes by a URL, anew for each build."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from gateway.actor_files.snapshot import Snapshot
from gateway.core.errors import InvalidRequest, SourceError
from gateway.core.model import ActorVersion
from gateway.sources.archives import snapshot_of_archive_file
from gateway.sources.git import fetch_git
from gateway.sources.places import Place, archive_place, git_place

FETCH_TIMEOUT_SECS = 600.0

# The field of a version that holds the URL, by its source type.
_FIELDS = {"GIT_REPO": "gitRepoUrl", "TARBALL": "tarballUrl", "GITHUB_GIST": "gitHubGistUrl"}


def place_of(version: ActorVersion) -> Place:
    """Where the source of *version* is to be fetched from. Raises InvalidRequest where it doesn't say, or wrongly."""
    field = _FIELDS.get(version.source_type, "sourceFiles")
    url = version.source.get(field)
    if not isinstance(url, str):
        raise InvalidRequest(f"Version {version.version_number} has no {field} to build from.")
    return archive_place(url) if version.source_type == "TARBALL" else git_place(field, url)


async def fetch_source(
    version: ActorVersion,
    say: Callable[[str], None],
    *,
    may_be_private: bool = False,
    timeout_secs: float = FETCH_TIMEOUT_SECS,
) -> Snapshot:
    """
    The source of *version* as it is now. Raises SourceError, and RequestTooLarge for more than a source may have.

    *may_be_private*: also from this machine and from private networks.
    """
    place = place_of(version)
    limit = asyncio.timeout(timeout_secs)
    try:
        async with limit:
            with tempfile.TemporaryDirectory(prefix="greenroom-source-") as folder:
                say(f"Fetching {place.url}.")
                if version.source_type == "TARBALL":
                    # With an HTTP client, which most workers never need.
                    from gateway.sources.download import download

                    path = Path(folder) / "source"
                    await download(place, path, may_be_private=may_be_private)
                    return await asyncio.to_thread(snapshot_of_archive_file, path)
                return await fetch_git(place, Path(folder), say, may_be_private=may_be_private)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise SourceError(f"The source was not fetched within {timeout_secs:g} s.") from error
