"""
Makes builds: from a folder's snapshot or an Actor version's source to a record that runs can be started from.

A build here checks and keeps: the source as a snapshot in the blobs, the definition with its files resolved, the
version's environment variables. What takes long, the environment or image that runs need, launchers make on first need
and add to the same log.
"""

from __future__ import annotations

import asyncio
import shlex
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import IO, Any

from gateway.actor_files.command import start_command
from gateway.actor_files.definition import Definition, parse_definition
from gateway.actor_files.snapshot import Snapshot, open_archive, pack_source_files
from gateway.core.errors import Conflict, GreenroomError, InvalidRequest, NameNotUnique, RecordNotFound
from gateway.core.lifecycle import RunStatus
from gateway.core.model import (
    Actor,
    ActorVersion,
    Build,
    EnvVar,
    Origin,
    TaggedBuild,
    User,
    snapshot_key,
)
from gateway.live_logs import Logs
from gateway.secret_box import SecretBox
from gateway.state.ports import Changed, State

_ATTEMPTS = 50  # at a compare-and-set; each loss means that somebody else moved on
_SPOOL_BYTES = 4 * 1024 * 1024

# The other source types of the API, and how their files get here until Greenroom fetches them itself.
_LATER = {
    "GIT_REPO": "clone the repository",
    "TARBALL": "unpack the archive",
    "GITHUB_GIST": "clone the gist",
}


@dataclass(frozen=True, slots=True)
class _Examined:
    definition: Definition
    command: tuple[str, ...]
    file_count: int


class Builder:
    """Creates Actors and builds; safe to share. ``now`` is aware UTC, ``new_id`` gives fresh record ids."""

    def __init__(
        self, state: State, logs: Logs, box: SecretBox, *, now: Callable[[], datetime], new_id: Callable[[], str]
    ) -> None:
        self._records, self._blobs, self._signals = state.records, state.blobs, state.signals
        self._logs = logs
        self._box = box
        self._now = now
        self._new_id = new_id

    async def register(self, owner: User, snapshot: Snapshot, *, origin: Origin) -> tuple[Actor, Build]:
        """
        The Actor that *snapshot* describes, created or updated for *owner*, and a build of it.

        A build that the version's tag points to already, made of the same files and variables, is returned as it is.
        As with the platform's push: title and description that are set stay; the file's variables replace those of the
        version, while secret ones, which no file can hold, stay. Raises DefinitionError before anything is stored.
        """
        examined = await asyncio.to_thread(_examine, snapshot.archive, None)
        definition = examined.definition
        await self._store(snapshot)
        actor = await self._put_actor(owner, definition)
        before = await self._records.actor_version(actor.id, definition.version_number)
        version = ActorVersion(
            actor_id=actor.id,
            version_number=definition.version_number,
            source_type="SOURCE_FILES",
            source={"snapshot": snapshot.sha256},
            env_vars=_variables(definition, before.env_vars if before else ()),
            apply_env_vars_to_build=before.apply_env_vars_to_build if before else False,
            build_tag=definition.build_tag,
        )
        if version != before:
            await self._records.put_version(version)
        known = await self._known_build(actor, version)
        if known is not None:
            return actor, known
        build = await self.create(actor, version, tag=None, origin=origin, options={}, meta={})
        return await self._read_actor(actor.id), build

    async def create(
        self,
        actor: Actor,
        version: ActorVersion,
        *,
        tag: str | None,
        origin: Origin,
        options: Mapping[str, Any],
        meta: Mapping[str, Any],
    ) -> Build:
        """
        A new build of *version*, ended when this returns: SUCCEEDED, and *tag* (none: the version's) points to it, or
        FAILED with the mistake as its status message, and no tag has moved.

        Raises InvalidRequest, and makes no build, where the version's source can't be read at all.
        """
        snapshot = await self._snapshot_of(version)
        build = await self._records.add_build(
            Build(
                id=self._new_id(),
                actor_id=actor.id,
                user_id=actor.user_id,
                version_number=version.version_number,
                build_number="",
                status=RunStatus.READY,
                started_at=self._now(),
                origin=origin,
                tag=tag or version.build_tag,
                snapshot=snapshot,
                env_vars=version.env_vars,
                options=dict(options),
                meta=dict(meta),
            )
        )
        try:
            build = await self._change(build, status=RunStatus.RUNNING)
            return await self._make(actor, build, snapshot)
        except GreenroomError as error:
            return await self._end(build, RunStatus.FAILED, error.message)
        except BaseException:
            # Cancelled, or a store is gone: the build shall not stay RUNNING. Should this fail too, recover sees to it.
            with suppress(Exception):
                await self._end(build, RunStatus.FAILED, "The build was interrupted.")
            raise

    async def recover(self) -> None:
        """
        End the builds that an earlier process left unfinished, as FAILED.

        Only for the moment at which no other process of this Greenroom makes builds.
        """
        for build in await self._records.active_builds():
            await self._end(build, RunStatus.FAILED, "Greenroom stopped while this build was made: build again.")

    # Sources

    async def _store(self, snapshot: Snapshot) -> None:
        key = snapshot_key(snapshot.sha256)
        if await self._blobs.size(key) is None:
            await self._blobs.put(key, snapshot.archive)

    async def _snapshot_of(self, version: ActorVersion) -> str:
        """The sha256 of the version's source, which is in the blobs afterwards."""
        known = version.source.get("snapshot")
        if known is not None:
            return str(known)
        source_files = version.source.get("sourceFiles")
        if source_files is None:
            advice = _LATER.get(version.source_type)
            if advice is None:
                raise InvalidRequest(f"Version {version.version_number} has no sourceFiles to build from.")
            raise InvalidRequest(
                f"Builds from {version.source_type} come later: for now {advice} and push the folder "
                "with 'greenroom push DIR', or send its files as sourceFiles (sourceType SOURCE_FILES).",
                data={"sourceType": version.source_type},
            )
        if not isinstance(source_files, list):
            raise InvalidRequest("sourceFiles is an array of objects with name, format and content.")
        snapshot = await asyncio.to_thread(pack_source_files, source_files)
        await self._store(snapshot)
        return snapshot.sha256

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

    # Actors

    async def _put_actor(self, owner: User, definition: Definition) -> Actor:
        """The owner's Actor of that name: created, or brought up to what the file says."""
        for _ in range(_ATTEMPTS):
            actor = await self._records.actor_by_name(owner.id, definition.name)
            now = self._now()
            with suppress(NameNotUnique, Conflict):  # somebody was faster: look again
                if actor is None:
                    actor = Actor(
                        id=self._new_id(),
                        user_id=owner.id,
                        name=definition.name,
                        created_at=now,
                        modified_at=now,
                        title=definition.title,
                        description=definition.description,
                        standby_from_file=definition.standby_from_file,
                    )
                    await self._records.add_actor(actor)
                    await self._signals.changed(Changed(kind="actor", id=actor.id))
                    return actor
                updated = replace(
                    actor,
                    title=actor.title or definition.title,
                    description=actor.description or definition.description,
                    standby_from_file=definition.standby_from_file,
                )
                if updated == actor:
                    return actor
                stored = await self._records.replace_actor(replace(updated, modified_at=now))
                await self._signals.changed(Changed(kind="actor", id=actor.id))
                return stored
        raise Conflict(f"Actor {definition.name} changes too fast.")

    async def _read_actor(self, actor_id: str) -> Actor:
        actor = await self._records.actor(actor_id)
        if actor is None:
            raise RecordNotFound("Actor")
        return actor

    async def _known_build(self, actor: Actor, version: ActorVersion) -> Build | None:
        """The tagged build, if building *version* would only make the same again."""
        tagged = actor.tagged_builds.get(version.build_tag)
        build = await self._records.build(tagged.build_id) if tagged else None
        if (
            build is not None
            and build.status is RunStatus.SUCCEEDED
            and build.version_number == version.version_number
            and build.snapshot == version.source["snapshot"]
            and build.env_vars == version.env_vars
        ):
            return build
        return None

    # One build

    async def _make(self, actor: Actor, build: Build, snapshot: str) -> Build:
        self._logs.append(build.id, f"Build {build.build_number} of Actor {actor.name}.")
        self._check_secrets(build)
        async with self._archive(snapshot) as archive:
            examined = await asyncio.to_thread(_examine, archive, actor.name)
        definition = examined.definition
        set_variables = {variable.name for variable in build.env_vars}
        self._logs.append(build.id, f"Source: {examined.file_count} files, snapshot {snapshot}.")
        for warning in definition.warnings:
            self._logs.append(build.id, f"Warning: {warning}")
        for name, secret in definition.secrets.items():
            if name not in set_variables:
                self._logs.append(
                    build.id,
                    f"Warning: secret @{secret} is not set, so {name} is left out: set {name} by the API's env-vars.",
                )
        self._logs.append(build.id, f"Command: {shlex.join(examined.command)}")
        build = await self._end(
            build, RunStatus.SUCCEEDED, f"Build {build.build_number} succeeded.", definition=definition.resolved
        )
        if build.status is RunStatus.SUCCEEDED:
            await self._tag(build)
        return build

    def _check_secrets(self, build: Build) -> None:
        """Secrets stay sealed; one that this data folder can't open would else be found out only when a run starts."""
        for variable in build.env_vars:
            if variable.is_secret:
                try:
                    self._box.open(variable.value)
                except ValueError as error:
                    raise InvalidRequest(f"The secret variable {variable.name} can't be read: {error}.") from error

    async def _tag(self, build: Build) -> None:
        assert build.tag is not None
        pointed = TaggedBuild(build_id=build.id, build_number=build.build_number, finished_at=build.finished_at)
        for _ in range(_ATTEMPTS):
            actor = await self._read_actor(build.actor_id)
            with suppress(Conflict):
                await self._records.replace_actor(
                    replace(actor, tagged_builds={**actor.tagged_builds, build.tag: pointed})
                )
                await self._signals.changed(Changed(kind="actor", id=actor.id))
                return
        raise Conflict(f"Actor {build.actor_id} changes too fast.")

    async def _end(self, build: Build, status: RunStatus, message: str, **fields: Any) -> Build:
        """
        The last line, the final record, then the log to the blobs: who follows it sees the line before the end.
        """
        await self._logs.reopen(build.id)
        self._logs.append(build.id, message)
        ended = await self._change(build, status=status, status_message=message, finished_at=self._now(), **fields)
        await self._logs.keep(build.id)
        return ended

    async def _change(self, build: Build, **fields: Any) -> Build:
        """*build* with other *fields*, stored; if somebody ended it meanwhile, what they made of it."""
        for _ in range(_ATTEMPTS):
            with suppress(Conflict):
                return await self._records.replace_build(replace(build, **fields))
            stored = await self._records.build(build.id)
            if stored is None:
                raise RecordNotFound("Build")
            if stored.status.is_terminal:
                return stored
            build = stored
        raise Conflict(f"Build {build.id} changes too fast.")


def _examine(archive: bytes | IO[bytes], default_name: str | None) -> _Examined:
    with open_archive(archive) as files:
        definition = parse_definition(files, default_name=default_name)
        command = start_command(definition.resolved, files, dockerfile_name=definition.dockerfile_name or "Dockerfile")
        return _Examined(definition, command, len(files))


def _variables(definition: Definition, before: tuple[EnvVar, ...]) -> tuple[EnvVar, ...]:
    """
    The version's variables: the file's, and the secret ones that the API set. A file without any changes none.

    E.g. A=1 in the file, and before it A=0, B=2 and the secret C: A=1 and C.
    """
    if definition.environment_variables is None:
        return before
    plain = definition.environment_variables
    kept = tuple(variable for variable in before if variable.is_secret and variable.name not in plain)
    return (*(EnvVar(name=name, value=value) for name, value in plain.items()), *kept)
