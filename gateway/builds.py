"""
Creates builds: from a folder's snapshot or an Actor version's source to a record that ``BuildMaker`` makes a build of.

Where runs are processes a build checks and keeps: the source as a snapshot in the blobs, the definition with its files
resolved, the version's environment variables. That takes milliseconds and is done at once; the environment that runs
need, launchers make on first need and add to the same log. Where runs are containers a build includes its image, and
where a source is fetched it takes its time: such builds stay READY until the worker's build jobs begin them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from gateway.actor_files.definition import Definition
from gateway.actor_files.snapshot import Snapshot, pack_source_files
from gateway.build_maker import ENV_VARS_IN_BUILD, BuildMaker, Fetch, examine
from gateway.core.errors import Conflict, InvalidRequest, NameNotUnique, RecordNotFound
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Actor, ActorVersion, Build, EnvVar, Origin, User
from gateway.live_logs import Logs
from gateway.secret_box import SecretBox
from gateway.sources.fetch import fetch_source, place_of
from gateway.state.ports import Changed, State
from gateway.state.telling import tell_stored

_ATTEMPTS = 50  # at a compare-and-set; each loss means that somebody else moved on
_MAX_LOG_CHARS = 10_485_760


class Builder:
    """
    Creates Actors and builds; safe to share. ``now`` is aware UTC, ``new_id`` gives fresh record ids.

    ``makes_images``: runs are containers, see the module.
    """

    def __init__(
        self,
        state: State,
        logs: Logs,
        box: SecretBox,
        *,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        makes_images: bool = False,
        fetch: Fetch = fetch_source,
        max_log_chars: int = _MAX_LOG_CHARS,
    ) -> None:
        self._records, self._signals = state.records, state.signals
        self._logs = logs
        self._now = now
        self._new_id = new_id
        self.makes_images = makes_images
        self.maker = BuildMaker(
            state, logs, box, now=now, fetch=fetch, needs_command=not makes_images, max_log_chars=max_log_chars
        )

    async def register(self, owner: User, snapshot: Snapshot, *, origin: Origin) -> tuple[Actor, Build]:
        """
        The Actor that *snapshot* describes, created or updated for *owner*, and a build of it.

        A build that the version's tag points to already, made of the same files and variables, is returned as it is;
        so is one that is under way. As with the platform's push: title and description that are set stay; the file's
        variables replace those of the version, while secret ones, which no file can hold, stay. Raises DefinitionError
        before anything is stored.
        """
        examined = await asyncio.to_thread(examine, snapshot.archive, None, needs_command=not self.makes_images)
        definition = examined.definition
        await self.maker.store(snapshot)
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
        build = await self.create(actor, version, tag=None, origin=origin, options={"useCache": True}, meta={})
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
        A new build of *version*, under *tag* (none: the version's). Ended when this returns where that takes no time,
        else READY: see the module.

        Raises InvalidRequest, and makes no build, where the version's source can't be read at all.
        """
        snapshot = await self._snapshot_of(version)
        given = dict(options)
        if version.apply_env_vars_to_build:
            given[ENV_VARS_IN_BUILD] = True
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
                options=given,
                meta=dict(meta),
            )
        )
        if snapshot is not None and not self.makes_images:
            return await self.maker.make(build)
        await tell_stored(self._signals, Changed(kind="build", id=build.id))
        return build

    async def recover(self) -> None:
        """
        End the builds that an earlier process left unfinished, as FAILED.

        Only for the moment at which no other process of this Greenroom makes builds.
        """
        for build in await self._records.active_builds():
            await self.maker.end(build, RunStatus.FAILED, "Greenroom stopped while this build was made: build again.")

    # Sources

    async def _snapshot_of(self, version: ActorVersion) -> str | None:
        """The sha256 of the version's source, which is in the blobs afterwards; None where it is to be fetched."""
        known = version.source.get("snapshot")
        if known is not None:
            return str(known)
        source_files = version.source.get("sourceFiles")
        if source_files is None:
            place_of(version)
            return None
        if not isinstance(source_files, list):
            raise InvalidRequest("sourceFiles is an array of objects with name, format and content.")
        snapshot = await asyncio.to_thread(pack_source_files, source_files)
        await self.maker.store(snapshot)
        return snapshot.sha256

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
                    await tell_stored(self._signals, Changed(kind="actor", id=actor.id))
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
                await tell_stored(self._signals, Changed(kind="actor", id=actor.id))
                return stored
        raise Conflict(f"Actor {definition.name} changes too fast.")

    async def _read_actor(self, actor_id: str) -> Actor:
        actor = await self._records.actor(actor_id)
        if actor is None:
            raise RecordNotFound("Actor")
        return actor

    async def _known_build(self, actor: Actor, version: ActorVersion) -> Build | None:
        """The tagged build, or one under way, if building *version* would only make the same again."""
        tagged = actor.tagged_builds.get(version.build_tag)
        build = await self._records.build(tagged.build_id) if tagged else None
        if build is not None and build.status is RunStatus.SUCCEEDED and _is_of(build, version):
            return build
        for build in await self._records.active_builds():
            if build.actor_id == actor.id and build.tag == version.build_tag and _is_of(build, version):
                return build
        return None


def _is_of(build: Build, version: ActorVersion) -> bool:
    return (
        build.version_number == version.version_number
        and build.snapshot == version.source["snapshot"]
        and build.env_vars == version.env_vars
        and bool(build.options.get(ENV_VARS_IN_BUILD)) == version.apply_env_vars_to_build
    )


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
