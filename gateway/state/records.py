"""The records by SQLAlchemy Core: durable when answered; every change of a versioned record is a compare-and-set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import (
    ColumnElement,
    Executable,
    Row,
    Select,
    Update,
    bindparam,
    delete,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import ActorNameNotUnique, Conflict, NameNotUnique, RecordNotFound
from gateway.core.lifecycle import TERMINAL, RunStatus
from gateway.core.model import (
    Actor,
    ActorTask,
    ActorVersion,
    Build,
    DecisionRecord,
    Origin,
    Page,
    Run,
    Storage,
    Token,
    User,
)
from gateway.core.names import ActorName
from gateway.core.storages import KeyValueRecord, holding
from gateway.state.database import Database, open_database
from gateway.state.decision_rows import forget_decisions
from gateway.state.paging import list_page
from gateway.state.ports import FIRST_PAGE, Listing
from gateway.state.rows import (
    ACTORS,
    BUILDS,
    DECISIONS,
    KEY_VALUE_RECORDS,
    NAMES,
    RUNS,
    STORAGES,
    TASKS,
    TOKENS,
    USERS,
    VERSIONS,
    Rows,
    name_key,
    username_key,
)
from gateway.state.storages import SqlStorages
from gateway.state.tables import build_counters

T = TypeVar("T")
V = TypeVar("V", Actor, Build, Run)
Found: TypeAlias = Select[*tuple[Any, ...]]

_ACTIVE = tuple(status for status in RunStatus if status not in TERMINAL)

_USER = USERS.by("id")
_USER_BY_NAME = USERS.by("username_key")
_TOKEN_BY_HASH = TOKENS.by("token_hash")
_ACTOR = ACTORS.by("id")
_ACTOR_BY_NAME = ACTORS.by("user_id", "name_key")
# Whoever looks at what an Actor has before he adds to it: the next one waits, where a database has several writers.
_LOCK_ACTOR = (
    select(ACTORS.table.c.id).where(ACTORS.table.c.id == bindparam("of_actor")).with_for_update(key_share=True)
)
_ACTORS_BY_ID = ACTORS.select.where(ACTORS.table.c.id.in_(bindparam("ids", expanding=True)))
_STAMPS = (
    select(ACTORS.table.c.id, ACTORS.table.c.version)
    .where(ACTORS.table.c.id > bindparam("after"))
    .order_by(ACTORS.table.c.id)
    .limit(bindparam("at_most"))
)
_REPLACE_ACTOR = ACTORS.replace("id", "version")
_NAME = NAMES.by("id")
_VERIFY_NAME = NAMES.replace("id")
_VERSION = VERSIONS.by("actor_id", "version_number")
_REPLACE_VERSION = VERSIONS.replace("actor_id", "version_number")
_BUILD = BUILDS.by("id")
_BUILD_BY_NUMBER = BUILDS.by("actor_id", "build_number")
_SUCCEEDED_BUILDS = select(BUILDS.table.c.actor_id, BUILDS.table.c.build_number, BUILDS.table.c.id).where(
    tuple_(BUILDS.table.c.actor_id, BUILDS.table.c.build_number).in_(bindparam("numbers", expanding=True)),
    BUILDS.table.c.status == RunStatus.SUCCEEDED,
)
_REPLACE_BUILD = BUILDS.replace("id", "version")
_ACTIVE_BUILDS = BUILDS.select.where(BUILDS.table.c.status.in_(_ACTIVE))
_TASK = TASKS.by("id")
_RUN = RUNS.by("id")
_RUN_BY_LABEL = RUNS.by("live_view_label")
_REPLACE_RUN = RUNS.replace("id", "version")
_ACTIVE_RUNS = RUNS.select.where(RUNS.table.c.status.in_(_ACTIVE))


@asynccontextmanager
async def open_records(url: str) -> AsyncIterator[SqlRecords]:
    """
    The records in the database at *url*, migrated.

    A file (``sqlite+aiosqlite:///path``) is made if absent; a database of PostgreSQL (``postgresql://…``) must be
    there. Any number of processes may have it open. Raises ValueError for another kind of URL and StateUnavailable
    when the database can't be used or was migrated by a newer Greenroom.
    """
    async with open_database(url) as database:
        yield SqlRecords(database)


class SqlRecords:
    """
    The ``Records`` port. Safe for any number of concurrent callers.

    Cost: a read is one statement; a write is one transaction with one sync of the disk and waits for those before it,
    in PostgreSQL only for those that change the same. What a cancelled caller had begun to write is done wholly or not
    at all.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.storages = SqlStorages(database)  # in the same database

    # Users and tokens

    async def add_user(self, user: User) -> None:
        taken = NameNotUnique(
            f"The username {user.username} is taken. Names that are the same in host names, such as jane.doe and "
            "jane-doe, count as one."
        )
        await self._add(USERS, user, taken)

    async def user(self, user_id: str) -> User | None:
        return await self._first(USERS, _USER, id=user_id)

    async def user_by_name(self, username: str) -> User | None:
        return await self._first(USERS, _USER_BY_NAME, username_key=username_key(username))

    async def list_users(self) -> Sequence[User]:
        return await self._all(USERS, USERS.select, "created_at", "id")

    async def add_token(self, token: Token) -> None:
        await self._add(TOKENS, token, NameNotUnique("This token is known already."))

    async def token_by_hash(self, token_hash: str) -> Token | None:
        return await self._first(TOKENS, _TOKEN_BY_HASH, token_hash=token_hash)

    async def list_tokens(self, user_id: str) -> Sequence[Token]:
        return await self._all(TOKENS, TOKENS.by("user_id"), "created_at", "id", user_id=user_id)

    async def delete_token(self, token_id: str) -> None:
        await self._delete(TOKENS, id=token_id)

    # Actors and their versions

    async def add_actor(self, actor: Actor) -> None:
        await self._add(ACTORS, actor, _actor_taken(actor))

    async def actor(self, actor_id: str) -> Actor | None:
        return await self._first(ACTORS, _ACTOR, id=actor_id)

    async def actor_by_name(self, user_id: str, name: str) -> Actor | None:
        return await self._first(ACTORS, _ACTOR_BY_NAME, user_id=user_id, name_key=name_key(name))

    async def list_actors(self, user_id: str | None, page: Page) -> Listing[Actor]:
        return await list_page(self._database, ACTORS, "created_at", page, user_id=user_id)

    async def actor_stamps(self, after: str, limit: int) -> Sequence[tuple[str, int]]:
        return [(row[0], row[1]) for row in await self._read(_STAMPS, {"after": after, "at_most": limit})]

    async def actors_by_id(self, actor_ids: Collection[str]) -> Sequence[Actor]:
        found = await self._read(_ACTORS_BY_ID, {"ids": list(actor_ids)})
        return [ACTORS.record(row) for row in found]

    async def replace_actor(self, actor: Actor) -> Actor:
        return await self._replace(ACTORS, _REPLACE_ACTOR, actor, _actor_taken(actor))

    async def delete_actor(self, actor_id: str) -> None:
        async def change(connection: AsyncConnection) -> None:
            await connection.execute(delete(DECISIONS.table).where(DECISIONS.table.c.actor_id == actor_id))
            # Names, versions, builds and tasks go by their foreign keys.
            await connection.execute(delete(ACTORS.table).where(ACTORS.table.c.id == actor_id))

        await self._database.write(change)

    async def add_name(self, name: ActorName) -> None:
        await self._add(NAMES, name, _name_taken(name.name))

    async def list_names(self, actor_id: str | None) -> Sequence[ActorName]:
        if actor_id is None:
            return await self._all(NAMES, NAMES.select, "created_at", "id")
        return await self._all(NAMES, NAMES.by("actor_id"), "created_at", "id", actor_id=actor_id)

    async def claims_of(self, name: str) -> Sequence[ActorName]:
        return await self._all(NAMES, NAMES.by("name"), "created_at", "id", name=name)

    async def verify_name(self, name_id: str, at: datetime) -> ActorName:
        async def change(connection: AsyncConnection) -> ActorName:
            if (await connection.execute(_VERIFY_NAME, {"old_id": name_id, "verified_at": at})).rowcount == 0:
                raise RecordNotFound("Name")
            return NAMES.record((await connection.execute(_NAME, {"id": name_id})).one())

        return await self._database.write(change, _name_taken("this name"))

    async def delete_name(self, name_id: str) -> None:
        await self._delete(NAMES, id=name_id)

    async def put_version(self, version: ActorVersion) -> None:
        row = VERSIONS.values(version)
        old = {"old_actor_id": version.actor_id, "old_version_number": version.version_number}

        async def change(connection: AsyncConnection) -> None:
            await connection.execute(_LOCK_ACTOR, {"of_actor": version.actor_id})
            if (await connection.execute(_REPLACE_VERSION, {**row, **old})).rowcount == 0:
                await connection.execute(VERSIONS.insert, row)

        await self._database.write(change)

    async def actor_version(self, actor_id: str, version_number: str) -> ActorVersion | None:
        return await self._first(VERSIONS, _VERSION, actor_id=actor_id, version_number=version_number)

    async def list_versions(self, actor_id: str) -> Sequence[ActorVersion]:
        """In the order of their numbers: 0.9, then 0.10."""
        versions = await self._all(VERSIONS, VERSIONS.by("actor_id"), actor_id=actor_id)
        return sorted(versions, key=lambda version: _numeric(version.version_number))

    async def delete_version(self, actor_id: str, version_number: str) -> None:
        await self._delete(VERSIONS, actor_id=actor_id, version_number=version_number)

    # Builds

    async def add_build(self, build: Build) -> Build:
        """A number that is given is kept, if it is free; the next one that is not comes after it."""
        counter = build_counters.c
        is_same = (counter.actor_id == build.actor_id) & (counter.version_number == build.version_number)
        taken = NameNotUnique(f"There is a build {build.build_number} of this Actor already.")

        async def change(connection: AsyncConnection) -> Build:
            await connection.execute(_LOCK_ACTOR, {"of_actor": build.actor_id})
            last = (await connection.execute(select(counter.last_number).where(is_same))).scalar()
            number = _number_within(build) or (last or 0) + 1
            if last is None:
                key = {"actor_id": build.actor_id, "version_number": build.version_number}
                await connection.execute(insert(build_counters), {**key, "last_number": number})
            elif number > last:
                await connection.execute(update(build_counters).where(is_same), {"last_number": number})
            stored = replace(build, build_number=build.build_number or f"{build.version_number}.{number}")
            await connection.execute(BUILDS.insert, BUILDS.values(stored))
            return stored

        return await self._database.write(change, taken)

    async def build(self, build_id: str) -> Build | None:
        return await self._first(BUILDS, _BUILD, id=build_id)

    async def build_by_number(self, actor_id: str, build_number: str) -> Build | None:
        return await self._first(BUILDS, _BUILD_BY_NUMBER, actor_id=actor_id, build_number=build_number)

    async def succeeded_builds(self, numbers: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], str]:
        found = await self._read(_SUCCEEDED_BUILDS, {"numbers": list(numbers)})
        return {(row[0], row[1]): row[2] for row in found}

    async def list_builds(self, user_id: str | None, actor_id: str | None, page: Page) -> Listing[Build]:
        return await list_page(self._database, BUILDS, "started_at", page, user_id=user_id, actor_id=actor_id)

    async def active_builds(self) -> Sequence[Build]:
        return await self._all(BUILDS, _ACTIVE_BUILDS, "started_at", "id")

    async def replace_build(self, build: Build) -> Build:
        return await self._replace(BUILDS, _REPLACE_BUILD, build)

    async def finish_build(self, build: Build, actor: Actor) -> Build:
        stored, change_build = _replacing(BUILDS, _REPLACE_BUILD, build)
        _, change_actor = _replacing(ACTORS, _REPLACE_ACTOR, actor)

        async def change(connection: AsyncConnection) -> None:
            await change_build(connection)
            await change_actor(connection)

        await self._database.write(change)
        return stored

    async def delete_build(self, build_id: str) -> None:
        await self._delete(BUILDS, id=build_id)

    # Tasks

    async def add_task(self, task: ActorTask) -> None:
        await self._add(TASKS, task, NameNotUnique(f"There is a task {task.name} already."))

    async def task(self, task_id: str) -> ActorTask | None:
        return await self._first(TASKS, _TASK, id=task_id)

    # Runs

    async def add_run(
        self, run: Run, token: Token, storages: Iterable[Storage], contents: Iterable[KeyValueRecord] = ()
    ) -> None:
        held = list(contents)
        rows = [STORAGES.values(holding(storage, held)) for storage in storages]
        held_rows = [KEY_VALUE_RECORDS.values(record) for record in held]
        taken = NameNotUnique("There is a run, token or storage with this id, label or secret already.")

        async def change(connection: AsyncConnection) -> None:
            await connection.execute(RUNS.insert, RUNS.values(run))
            await connection.execute(TOKENS.insert, TOKENS.values(token))
            if rows:
                await connection.execute(STORAGES.insert, rows)
            if held_rows:
                await connection.execute(KEY_VALUE_RECORDS.insert, held_rows)

        await self._database.write(change, taken)

    async def run(self, run_id: str) -> Run | None:
        return await self._first(RUNS, _RUN, id=run_id)

    async def run_by_live_view_label(self, label: str) -> Run | None:
        return await self._first(RUNS, _RUN_BY_LABEL, live_view_label=label)

    async def list_runs(
        self,
        *,
        user_id: str | None = None,
        actor_id: str | None = None,
        statuses: frozenset[RunStatus] = frozenset(),
        origin: Origin | None = None,
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        page: Page = FIRST_PAGE,
    ) -> Listing[Run]:
        """Those with one of *statuses* (empty: any) and this *origin*, started within the two times (included)."""
        columns = RUNS.table.c
        among: list[ColumnElement[bool]] = [columns.status.in_(sorted(statuses))] if statuses else []
        if started_after is not None:
            among.append(columns.started_at >= started_after)
        if started_before is not None:
            among.append(columns.started_at <= started_before)
        return await list_page(
            self._database, RUNS, "started_at", page, *among, user_id=user_id, actor_id=actor_id, origin=origin
        )

    async def active_runs(self) -> Sequence[Run]:
        return await self._all(RUNS, _ACTIVE_RUNS, "started_at", "id")

    async def replace_run(self, run: Run) -> Run:
        ends = delete(TOKENS.table).where(TOKENS.table.c.run_id == run.id) if run.status.is_terminal else None
        return await self._replace(RUNS, _REPLACE_RUN, run, also=ends)

    async def delete_run(self, run_id: str) -> None:
        """With its tokens; what its storages hold is for others to remove, and so are their records."""
        await self._delete(RUNS, id=run_id)

    # Decisions

    async def add_decisions(self, decisions: Sequence[DecisionRecord]) -> None:
        if decisions:
            await self._write(DECISIONS.insert, [DECISIONS.values(decision) for decision in decisions])

    async def list_decisions(self, pool_id: str, page: Page) -> Listing[DecisionRecord]:
        return await list_page(self._database, DECISIONS, "at", page, pool_id=pool_id)

    async def forget_decisions(self, before: datetime, keep_per_pool: int) -> int:
        return await forget_decisions(self._database, before, keep_per_pool)

    # What all of them are made of

    async def _add(self, rows: Rows[T], record: T, taken: NameNotUnique | None = None) -> None:
        await self._write(rows.insert, rows.values(record), taken)

    async def _delete(self, rows: Rows[Any], **keys: str) -> None:
        await self._write(delete(rows.table).where(*(rows.table.c[name] == key for name, key in keys.items())))

    async def _write(
        self,
        statement: Executable,
        values: dict[str, Any] | list[dict[str, Any]] | None = None,
        taken: NameNotUnique | None = None,
    ) -> None:
        async def change(connection: AsyncConnection) -> None:
            await connection.execute(statement, values)

        await self._database.write(change, taken)

    async def _replace(
        self,
        rows: Rows[V],
        statement: Update,
        record: V,
        taken: NameNotUnique | None = None,
        also: Executable | None = None,
    ) -> V:
        stored, replace_one = _replacing(rows, statement, record)

        async def change(connection: AsyncConnection) -> None:
            await replace_one(connection)
            if also is not None:
                await connection.execute(also)

        await self._database.write(change, taken)
        return stored

    async def _read(self, statement: Executable, keys: dict[str, Any] | None = None) -> Sequence[Row[*tuple[Any, ...]]]:
        async def look(connection: AsyncConnection) -> Sequence[Row[*tuple[Any, ...]]]:
            return (await connection.execute(statement, keys)).all()

        return await self._database.read(look)

    async def _first(self, rows: Rows[T], statement: Found, **keys: str) -> T | None:
        found = await self._read(statement, keys)
        return rows.record(found[0]) if found else None

    async def _all(self, rows: Rows[T], statement: Found, *order: str, **keys: str) -> Sequence[T]:
        found = await self._read(statement.order_by(*(rows.table.c[name] for name in order)), keys)
        return [rows.record(row) for row in found]


def _actor_taken(actor: Actor) -> NameNotUnique:
    return ActorNameNotUnique(f"There is an Actor {actor.name} of this user already.")


def _name_taken(name: str) -> NameNotUnique:
    return NameNotUnique(f"There is an Actor of the name {name} already.")


def _replacing(rows: Rows[V], statement: Update, record: V) -> tuple[V, Callable[[AsyncConnection], Awaitable[None]]]:
    """*record* at its next version, and what stores it: a compare-and-set within a transaction."""
    stored = replace(record, version=record.version + 1)
    values = {**rows.values(stored), "old_id": record.id, "old_version": record.version}
    kind = rows.table.name.removesuffix("s").capitalize()

    async def change(connection: AsyncConnection) -> None:
        if (await connection.execute(statement, values)).rowcount == 0:
            if (await connection.execute(rows.by("id"), {"id": record.id})).first() is None:
                raise RecordNotFound(kind)
            raise Conflict(f"{kind} {record.id} is not at version {record.version} any more.")

    return stored, change


def _number_within(build: Build) -> int | None:
    """The last part of the build's number, e.g. 7 of 0.1.7; None where it has no number of its version's."""
    version, _, last = build.build_number.rpartition(".")
    return int(last) if version == build.version_number and last.isdecimal() else None


def _numeric(version_number: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(part) if part.isdecimal() else -1, part) for part in version_number.split("."))
