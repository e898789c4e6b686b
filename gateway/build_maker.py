"""
Makes one build: claims its record, fetches and examines its source, has its image made where runs need one, ends it.

The order of an end is what others rely on: the last line of the log, the record
and with it the tag, the log kept; then whoever waits is told.
"""

from __future__ import annotations

import asyncio
import shlex
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import IO, Any

from gateway.actor_files.command import start_command
from gateway.actor_files.definition import Definition, parse_definition
from gateway.actor_files.snapshot import Snapshot, open_archive
from gateway.core.errors import Conflict, GreenroomError, InvalidRequest, RecordNotFound
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Actor, ActorVersion, Build, TaggedBuild, snapshot_key
from gateway.core.texts import storable
from gateway.live_logs import Logs
from gateway.secret_box import SecretBox
from gateway.state.ports import Changed, State
from gateway.state.telling import tell_stored

Say = Callable[[str], None]
Prepare = Callable[[Build, Say], Awaitable[None]]
Fetch = Callable[[ActorVersion, Say], Awaitable[Snapshot]]

_ATTEMPTS = 50  # at a compare-and-set; each loss means that somebody else moved on
_SPOOL_BYTES = 4 * 1024 * 1024
_STATUS_CHARS = 4000

# In a build's options: the version's variables are also arguments of the Dockerfile.
ENV_VARS_IN_BUILD = "applyEnvVarsToBuild"


@dataclass(frozen=True, slots=True)
class Examined:
    """What a source says; ``command`` is None where the image alone knows how the Actor is started."""

    definition: Definition
    command: tuple[str, ...] | None
    file_count: int


class BuildMaker:
    """
    Makes builds from their records; safe to share.

    ``needs_command``: runs are processes, so the files must say how the Actor is started. *fetch* gets the sources that
    are not in the blobs yet. A build's log takes at most *max_log_chars*. ``left``: the ids of builds that nobody makes
    any more and that may be RUNNING still, for want of a store; they are for ``put_back``.
    """

    def __init__(
        self,
        state: State,
        logs: Logs,
        box: SecretBox,
        *,
        now: Callable[[], datetime],
        fetch: Fetch,
        needs_command: bool,
        max_log_chars: int,
    ) -> None:
        self._records, self._blobs, self._signals = state.records, state.blobs, state.signals
        self._logs = logs
        self._box = box
        self._now = now
        self._fetch = fetch
        self._needs_command = needs_command
        self._max_log_chars = max_log_chars
        self.left: set[str] = set()

    async def make(
        self,
        build: Build,
        prepare: Prepare | None = None,
        *,
        timeout_secs: float | None = None,
        is_ours: Callable[[], bool] = lambda: True,
    ) -> Build:
        """
        The READY *build*, made: SUCCEEDED, and its tag points to it; or FAILED, TIMED-OUT (after *timeout_secs*) or
        what somebody else has made of it meanwhile, and no tag has moved.

        *prepare* makes what runs need of it, which may take minutes. When this is cancelled the build ends FAILED,
        unless it has ended already, or is not *ours* any more.
        """
        try:
            build = await self._records.replace_build(replace(build, status=RunStatus.RUNNING))
        except Conflict:  # somebody else has begun or ended it
            return await self.read(build.id)
        try:
            await self._tell("build", build.id)
            return await self._made(build, prepare, timeout_secs, is_ours)
        except BaseException:
            if is_ours():
                self.left.add(build.id)
            raise

    async def interrupted(self, build_id: str) -> None:
        """Whoever made or was to make it does so no more. One that waits is left to whoever comes next."""
        build = await self.read(build_id)
        if build.status is not RunStatus.READY:
            await self.end(build, RunStatus.FAILED, "The build was interrupted.")

    async def put_back(self, build_id: str, reason: str) -> None:
        """A build that was begun here is READY again, for somebody else to begin anew. One that has ended stays so."""
        build = await self.read(build_id)
        if build.status is RunStatus.RUNNING:
            await self.change(build, status=RunStatus.READY)
            with suppress(OSError):
                self._logs.append(build.id, reason)

    async def end(self, build: Build, status: RunStatus, message: str, **fields: Any) -> Build:
        """
        The last line, the final record, then the log to the blobs: who follows it sees the line before the end.

        A build that has ended already stays as it is, and the line is what its record says.
        """
        message = storable(message, _STATUS_CHARS)
        stored = await self.read(build.id)
        await self._logs.reopen(build.id)
        self._logs.append(build.id, (stored.status_message or message) if stored.status.is_terminal else message)
        fields |= {"status": status, "status_message": message, "finished_at": self._now()}
        if status is RunStatus.SUCCEEDED:
            ended = await self._tag(stored, fields)
        else:
            ended = await self.change(stored, **fields)
        await self._logs.keep(build.id)
        await self._tell("build", build.id)
        return ended

    async def change(self, build: Build, **fields: Any) -> Build:
        """*build* with other *fields*, stored; if somebody ended it meanwhile, what they made of it."""
        for _ in range(_ATTEMPTS):
            if build.status.is_terminal:
                return build
            with suppress(Conflict):
                return await self._records.replace_build(replace(build, **fields))
            build = await self.read(build.id)
        raise Conflict(f"Build {build.id} changes too fast.")

    async def read(self, build_id: str) -> Build:
        """Its record. Raises RecordNotFound."""
        build = await self._records.build(build_id)
        if build is None:
            raise RecordNotFound("Build")
        return build

    async def store(self, snapshot: Snapshot) -> None:
        """Keep a source."""
        key = snapshot_key(snapshot.sha256)
        if await self._blobs.size(key) is None:
            await self._blobs.put(key, snapshot.archive)

    # One build

    async def _made(
        self, build: Build, prepare: Prepare | None, timeout_secs: float | None, is_ours: Callable[[], bool]
    ) -> Build:
        """The RUNNING *build*, made and ended; see ``make``."""
        limit = asyncio.timeout(timeout_secs)
        try:
            async with limit:
                build = await self._make(build, prepare)
        except GreenroomError as error:
            return await self.end(build, RunStatus.FAILED, error.message)
        except TimeoutError:
            if not limit.expired():
                raise
            return await self.end(
                build,
                RunStatus.TIMED_OUT,
                f"The build was not made within {timeout_secs:g} s (setting: build_timeout_secs).",
            )
        except BaseException:
            # Cancelled, or a store is gone: the build shall not stay RUNNING.
            if is_ours():
                with suppress(Exception):
                    await self.interrupted(build.id)
            raise
        return await self._succeed(build)

    async def _make(self, build: Build, prepare: Prepare | None) -> Build:
        """*build* with its source and definition, after all that can fail."""
        actor = await self._read_actor(build.actor_id)
        say = _Bounded(lambda line: self._logs.append(build.id, line), self._max_log_chars)
        say(f"Build {build.build_number} of Actor {actor.name}.")
        self._check_secrets(build)
        if build.snapshot is None:
            build = await self._fetched(build, say)
        examined = await self._examined(build, actor, say)
        build = replace(build, definition=examined.definition.resolved)
        if prepare is not None:
            await prepare(build, say)
        return build

    async def _fetched(self, build: Build, say: Say) -> Build:
        version = await self._records.actor_version(build.actor_id, build.version_number)
        if version is None:
            raise InvalidRequest(f"Version {build.version_number} was deleted before its source was fetched.")
        snapshot = await self._fetch(version, say)
        await self.store(snapshot)
        return await self.change(build, snapshot=snapshot.sha256)

    async def _examined(self, build: Build, actor: Actor, say: Say) -> Examined:
        assert build.snapshot is not None
        async with self._archive(build.snapshot) as archive:
            examined = await asyncio.to_thread(examine, archive, actor.name, needs_command=self._needs_command)
        definition = examined.definition
        set_variables = {variable.name for variable in build.env_vars}
        say(f"Source: {examined.file_count} files, snapshot {build.snapshot}.")
        for warning in definition.warnings:
            say(f"Warning: {warning}")
        for name, secret in definition.secrets.items():
            if name not in set_variables:
                say(f"Warning: secret @{secret} is not set, so {name} is left out: set {name} by the API's env-vars.")
        if examined.command is not None:
            say(f"Command: {shlex.join(examined.command)}")
        return examined

    async def _succeed(self, build: Build) -> Build:
        message = f"Build {build.build_number} succeeded."
        try:
            return await self.end(build, RunStatus.SUCCEEDED, message, definition=build.definition)
        except InvalidRequest as error:  # the records don't take its definition
            return await self.end(build, RunStatus.FAILED, error.message)

    @asynccontextmanager
    async def _archive(self, sha256: str) -> AsyncIterator[IO[bytes]]:
        chunks = await self._blobs.open(snapshot_key(sha256))
        if chunks is None:
            raise InvalidRequest(f"The source snapshot {sha256} is not in the blobs any more: push the Actor again.")
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as file:
            async for chunk in chunks:
                file.write(chunk)
            file.seek(0)
            yield file

    def _check_secrets(self, build: Build) -> None:
        """Secrets stay sealed; one that this data folder can't open would else be found out only when a run starts."""
        for variable in build.env_vars:
            if variable.is_secret:
                try:
                    self._box.open(variable.value)
                except ValueError as error:
                    raise InvalidRequest(f"The secret variable {variable.name} can't be read: {error}.") from error

    async def _tag(self, build: Build, fields: Mapping[str, Any]) -> Build:
        """*build* with its last *fields*, and its tag pointing to it from the same moment on."""
        for _ in range(_ATTEMPTS):
            if build.status.is_terminal:
                return build
            ended = replace(build, **fields)
            assert ended.tag is not None
            pointed = TaggedBuild(build_id=ended.id, build_number=ended.build_number, finished_at=ended.finished_at)
            actor = await self._read_actor(build.actor_id)
            tags = {**actor.tagged_builds, ended.tag: pointed}
            with suppress(Conflict):
                ended = await self._records.finish_build(ended, replace(actor, tagged_builds=tags))
                await self._tell("actor", actor.id)
                return ended
            build = await self.read(build.id)
        raise Conflict(f"Actor {build.actor_id} changes too fast.")

    async def _read_actor(self, actor_id: str) -> Actor:
        actor = await self._records.actor(actor_id)
        if actor is None:
            raise RecordNotFound("Actor")
        return actor

    async def _tell(self, kind: str, record_id: str) -> None:
        await tell_stored(self._signals, Changed(kind=kind, id=record_id))


class _Bounded:
    """Lines into a log until it has *max_chars*; then one more that says so."""

    def __init__(self, append: Say, max_chars: int) -> None:
        self._append = append
        self._left = max_chars

    def __call__(self, line: str) -> None:
        if self._left <= 0:
            return
        self._left -= len(line) + 1
        self._append(line)
        if self._left <= 0:
            self._append("The log is full: the rest of this build's output is left out (setting: max_log_chars).")


def examine(archive: bytes | IO[bytes], default_name: str | None, *, needs_command: bool) -> Examined:
    """What the files of *archive* say; blocks. Raises DefinitionError."""
    with open_archive(archive) as files:
        definition = parse_definition(files, default_name=default_name)
        command = None
        if needs_command:
            name = definition.dockerfile_name or "Dockerfile"
            command = start_command(definition.resolved, files, dockerfile_name=name)
        return Examined(definition, command, len(files))
