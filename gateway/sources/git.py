"""
Gets a git repository's files: one commit, without its history, straight from its objects.

No file is ever checked out, so that neither hooks nor filters nor attributes of a repository can do anything; git asks
for nothing, reads nobody's settings, and speaks only the protocol of the URL. The address that was checked is the one
that git connects to for HTTP (by ``http.curloptResolve``, git 2.37 and later) and SSH. For ``git://``, and for HTTP
with an older git, it resolves the name again by itself, which a name server of ill will could use.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from gateway.actor_files.snapshot import MAX_SNAPSHOT_BYTES, MAX_SNAPSHOT_FILES, Snapshot
from gateway.core.errors import RequestTooLarge, SourceError
from gateway.sources.archives import SourceFile, link_target, safe_name, snapshot_of_files
from gateway.sources.places import Place
from gateway.sources.reaching import address_of

_PACK_BLOCKS = 2 * MAX_SNAPSHOT_BYTES // 512  # of 512 bytes, for ulimit
_LIST_BYTES = 64 * 1024 * 1024
_TAIL_LINES = 10
_TAIL_BYTES = 64 * 1024
_SYMLINK, _SUBMODULE = "120000", "160000"


async def fetch_git(place: Place, folder: Path, say: Callable[[str], None], *, may_be_private: bool) -> Snapshot:
    """
    The files of *place*, a repository; works in *folder*, which exists and is empty. Raises SourceError.

    When cancelled, git is killed with all its children first.
    """
    address = await address_of(place.host, place.port, may_be_private=may_be_private)
    git = _Git(folder, _environment(place, address))
    await git.run("init", "--quiet", "--bare", ".")
    ref = place.ref or "HEAD"
    wanted = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", place.url, ref)
    try:
        await git.run(wanted[0], "--depth=1", *wanted[1:])
    except _GitFailed as error:
        if "dumb http" not in error.message:
            raise
        await git.run(*wanted)  # a plain file server knows no shallow clones
    commit = (await git.run("rev-parse", "FETCH_HEAD^{commit}")).decode().strip()
    say(f"Fetched {place.url} at {place.ref or 'its default branch'}: commit {commit}.")
    root = f"{commit}:{place.folder}"
    try:
        listing = await git.run("ls-tree", "-r", "-z", "--long", root)
    except _GitFailed as error:
        raise SourceError(f"{place.url} has no folder {place.folder} in {commit}.") from error
    return await asyncio.to_thread(_snapshot, listing, folder, say)


def _environment(place: Place, address: str) -> dict[str, str]:
    """For git: nobody's settings, no questions, the checked address, and a login where no process list shows it."""
    settings = {
        "protocol.allow": "never",
        f"protocol.{place.scheme}.allow": "always",
        "http.followRedirects": "false",
        "http.lowSpeedLimit": "1",
        "http.lowSpeedTime": "60",
        "core.hooksPath": os.devnull,
        "gc.auto": "0",
    }
    if place.host != address:
        shown = f"[{address}]" if ":" in address else address
        settings["http.curloptResolve"] = f"{place.host}:{place.port}:{shown}"
    if place.login is not None and place.scheme in ("http", "https"):
        settings["http.extraHeader"] = "Authorization: Basic " + base64.b64encode(place.login.encode()).decode()
    ssh = (
        *("ssh", "-o", "BatchMode=yes", "-o", f"HostName={address}", "-o", f"HostKeyAlias={place.host}"),
        *("-o", "StrictHostKeyChecking=accept-new", "-o", "ConnectTimeout=10"),
    )
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_SSH_COMMAND": shlex.join(ssh),
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK"):
        if name in os.environ:
            environment[name] = os.environ[name]
    for number, (key, value) in enumerate(settings.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return environment


class _GitFailed(SourceError):
    """git ended with an error; the message has the last lines of what it said."""


class _Git:
    """git in one bare repository."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment

    async def run(self, *words: str) -> bytes:
        """Its standard output. Raises SourceError."""
        # The limit on a file's size is one on the pack: what is fetched can't be bounded by git itself.
        script = f'ulimit -f {_PACK_BLOCKS}; exec git "$@"'
        try:
            process = await asyncio.create_subprocess_exec(
                *("sh", "-c", script, "git", *words),
                cwd=self._folder,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=_TAIL_BYTES,
            )
        except OSError as error:
            raise SourceError(f"git can't be started: {error}.") from error
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            output, errors = await asyncio.gather(_read(process.stdout, _LIST_BYTES), _tail(process.stderr))
            code = await process.wait()
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if code == 127:
            raise SourceError("Sources from git need the program git, which is not in Greenroom's PATH: install git.")
        if code != 0 or output is None:
            lines = errors.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
            told = "\n".join(lines) or f"exit code {code}"
            raise _GitFailed(f"git {words[0]} failed: {told}", data={"exitCode": code})
        return output


async def _read(stream: asyncio.StreamReader, limit: int) -> bytes | None:
    """All of it; None for more than *limit*."""
    chunks: list[bytes] = []
    length = 0
    while chunk := await stream.read(_TAIL_BYTES):
        length += len(chunk)
        if length <= limit:
            chunks.append(chunk)
    return b"".join(chunks) if length <= limit else None


async def _tail(stream: asyncio.StreamReader) -> bytes:
    tail = b""
    while chunk := await stream.read(_TAIL_BYTES):
        tail = (tail + chunk)[-_TAIL_BYTES:]
    return tail


# From objects to files


def _snapshot(listing: bytes, repository: Path, say: Callable[[str], None]) -> Snapshot:
    total = 0
    files: dict[str, SourceFile] = {}
    with subprocess.Popen(
        ["git", "cat-file", "--batch"], cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        objects = _Objects(process.stdin, process.stdout)
        for mode, object_id, size, name in _entries(listing):
            if mode == _SUBMODULE:
                say(f"Warning: {name} is a submodule, which is left out.")
                continue
            total += size
            if total > MAX_SNAPSHOT_BYTES or len(files) >= MAX_SNAPSHOT_FILES:
                raise RequestTooLarge(
                    f"The source has more than {MAX_SNAPSHOT_BYTES // (1024 * 1024)} MiB or {MAX_SNAPSHOT_FILES} files."
                )
            if mode == _SYMLINK:
                target = objects.read(object_id).decode("utf-8", "replace")
                files[name] = SourceFile(lambda: b"", link=link_target(name, target))
            else:
                files[name] = SourceFile(objects.reader(object_id), mode == "100755")
        try:
            return snapshot_of_files(files)
        finally:
            process.stdin.close()


def _entries(listing: bytes) -> Iterator[tuple[str, str, int, str]]:
    """Mode, object, size and name of each line of ``ls-tree``."""
    for line in filter(None, listing.split(b"\0")):
        head, _, name = line.partition(b"\t")
        mode, _kind, object_id, size = head.decode("ascii").split()
        try:
            yield mode, object_id, 0 if size == "-" else int(size), safe_name(name.decode())
        except UnicodeDecodeError as error:
            raise SourceError(f"The source has the name {name!r}; a name in UTF-8 is expected.") from error


class _Objects:
    """The contents of objects, asked for one after the other."""

    def __init__(self, asked: IO[bytes], told: IO[bytes]) -> None:
        self._asked, self._told = asked, told

    def reader(self, object_id: str) -> Callable[[], bytes]:
        return lambda: self.read(object_id)

    def read(self, object_id: str) -> bytes:
        self._asked.write(f"{object_id}\n".encode())
        self._asked.flush()
        head = self._told.readline().split()
        if len(head) != 3 or head[1] != b"blob":
            raise SourceError(f"The source's object {object_id} can't be read.")
        content = self._told.read(int(head[2]))
        self._told.read(1)
        return content
