"""What every store of records promises, and what the one in SQLite promises besides."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, inspect, make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import ActorNameNotUnique, Conflict, InvalidRequest, NameNotUnique, RecordNotFound
from gateway.core.ids import token_hash
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
    RunOptions,
    Storage,
    StorageKind,
    TaggedBuild,
    Token,
    User,
)
from gateway.core.names import ActorName
from gateway.state.migrations import upgrade
from gateway.state.ports import Records, StateUnavailable
from gateway.state.records import SqlRecords, open_records
from gateway.state.rows import ACTORS, BUILDS, DECISIONS, NAMES, RUNS, STORAGES, TASKS, TOKENS, USERS, VERSIONS, Rows
from gateway.state.tables import metadata

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
_numbers = count()


def new_id() -> str:
    """An id that no other record of this process has."""
    return f"{next(_numbers):017}"


def a_user(**changes: Any) -> User:
    user_id = new_id()
    return replace(User(id=user_id, username=f"user{user_id}", is_admin=False, created_at=START), **changes)


def an_actor(user_id: str, **changes: Any) -> Actor:
    actor_id = new_id()
    actor = Actor(id=actor_id, user_id=user_id, name=f"actor{actor_id}", created_at=START, modified_at=START)
    return replace(actor, **changes)


def a_build(actor: Actor, **changes: Any) -> Build:
    build = Build(
        id=new_id(),
        actor_id=actor.id,
        user_id=actor.user_id,
        version_number="0.1",
        build_number="",
        status=RunStatus.READY,
        started_at=START,
        origin=Origin.CLI,
    )
    return replace(build, **changes)


def a_run(user_id: str, **changes: Any) -> Run:
    run_id = new_id()
    run = Run(
        id=run_id,
        actor_id="some-actor",
        user_id=user_id,
        build_id="some-build",
        build_number="0.1.1",
        status=RunStatus.READY,
        started_at=START,
        origin=Origin.STANDBY,
        options=RunOptions(),
        live_view_label=f"label{run_id}",
        default_key_value_store_id=new_id(),
        default_dataset_id=new_id(),
        default_request_queue_id=new_id(),
    )
    return replace(run, **changes)


def a_token(user_id: str, **changes: Any) -> Token:
    token_id = new_id()
    token = Token(
        id=token_id,
        user_id=user_id,
        name="a token",
        token_hash=token_hash(token_id),
        scopes=frozenset({"*"}),
        created_at=START,
    )
    return replace(token, **changes)


def storages_of(run: Run) -> list[Storage]:
    """The three default storages of *run*."""
    ids = (run.default_key_value_store_id, run.default_dataset_id, run.default_request_queue_id)
    return [
        Storage(
            id=storage_id,
            kind=kind,
            user_id=run.user_id,
            created_at=START,
            modified_at=START,
            accessed_at=START,
            run_id=run.id,
        )
        for kind, storage_id in zip(StorageKind, ids, strict=True)
    ]


def a_decision(pool_id: str, **changes: Any) -> DecisionRecord:
    decision = DecisionRecord(
        id=new_id(), pool_id=pool_id, actor_id="some-actor", at=START, wanted_runs=1, present_runs=0, reasons=("asked",)
    )
    return replace(decision, **changes)


@pytest.fixture
async def user(records: SqlRecords) -> User:
    """Somebody who owns what a test makes."""
    user = a_user()
    await records.add_user(user)
    return user


@pytest.fixture
async def actor(records: SqlRecords, user: User) -> Actor:
    """An Actor of that user."""
    actor = an_actor(user.id)
    await records.add_actor(actor)
    return actor


async def add_run(records: Records, run: Run) -> Run:
    await records.add_run(run, a_token(run.user_id, run_id=run.id), storages_of(run))
    return run


# Round trips

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(1971, 1, 1), datetime(2999, 1, 1), timezones=ZONES)  # noqa: DTZ001 - zones are added
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
# Read-only mappings are what frozen records like to hold.
OBJECTS = st.dictionaries(TEXTS, PLAIN, max_size=3).flatmap(
    lambda plain: st.sampled_from([plain, types.MappingProxyType(plain)])
)


def any_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    simple = {str: TEXTS, int: st.integers(-(2**31), 2**31 - 1), bool: st.booleans(), float: NUMBERS, datetime: TIMES}
    if hint in simple:
        return simple[hint]
    if hint is type(None):
        return st.none()
    if is_dataclass(hint):
        hints = get_type_hints(hint)
        return st.builds(hint, **{part.name: any_of(hints[part.name]) for part in fields(hint)})
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return st.sampled_from(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return st.one_of([any_of(argument) for argument in arguments])
    if hint == Mapping[str, Any]:
        return OBJECTS
    if issubclass(origin, Mapping):
        return st.dictionaries(TEXTS, any_of(arguments[1]), max_size=3)
    made: dict[Any, Any] = {tuple: tuple, frozenset: frozenset}
    return st.lists(any_of(arguments[0]), max_size=3).map(made[origin])


def as_given(
    records: SqlRecords,
) -> dict[type[Any], tuple[Callable[[Any], Awaitable[Any]], Callable[[Any], Awaitable[Any]]]]:
    """How each kind of record is added and read back."""

    async def put_run(run: Run) -> None:
        await records.add_run(run, a_token("owner"), [])

    async def put_version(version: ActorVersion) -> None:
        await records.put_version(version)

    return {
        User: (records.add_user, lambda user: records.user(user.id)),
        Token: (records.add_token, lambda token: records.token_by_hash(token.token_hash)),
        Actor: (records.add_actor, lambda actor: records.actor(actor.id)),
        ActorVersion: (
            put_version,
            lambda version: records.actor_version(version.actor_id, version.version_number),
        ),
        ActorName: (records.add_name, lambda name: _only(records.claims_of(name.name))),
        Build: (records.add_build, lambda build: records.build(build.id)),
        ActorTask: (records.add_task, lambda task: records.task(task.id)),
        Run: (put_run, lambda run: records.run(run.id)),
        Storage: (
            records.storages.get_or_create,
            lambda storage: records.storages.storage(storage.kind, storage.id),
        ),
    }


async def _only(found: Awaitable[Sequence[Any]]) -> Any:
    (record,) = await found
    return record


@pytest.mark.parametrize("kind", [User, Token, Actor, ActorName, ActorVersion, Build, ActorTask, Run, Storage])
@given(data=st.data())
@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
async def test_a_record_comes_back_as_it_was(records: SqlRecords, kind: type[Any], data: st.DataObject):
    """Whatever its fields hold, a record that is read equals the one that was added; times come back in UTC."""
    await _once_for_all(records)
    given_record = data.draw(any_of(kind))
    # What must be unique or refer to something; the rest is anything.
    fixed: dict[str, Any] = {
        "id": new_id(),
        "user_id": "owner",
        "username": f"u{new_id()}",
        "name": new_id(),
        "token_hash": new_id(),
        "live_view_label": new_id(),
        "build_number": f"b{new_id()}",
    }
    if kind is not Run:
        fixed |= {"actor_id": "actor", "run_id": None}
    names = {part.name for part in fields(kind)}
    record = replace(given_record, **{name: value for name, value in fixed.items() if name in names})
    add, read = as_given(records)[kind]
    await add(record)
    found = await read(record)
    assert found == record
    for part in fields(kind):
        value = getattr(found, part.name)
        assert not isinstance(value, datetime) or value.tzinfo is UTC


async def _once_for_all(records: SqlRecords) -> None:
    """The owner and Actor that all examples refer to."""
    if await records.user("owner") is None:
        await records.add_user(a_user(id="owner"))
        await records.add_actor(an_actor("owner", id="actor"))


@given(decision=any_of(DecisionRecord))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_a_decision_comes_back_as_it_was(records: SqlRecords, decision: DecisionRecord):
    """The same for decisions, which are only listed."""
    decision = replace(decision, id=new_id(), pool_id=new_id())
    await records.add_decisions([decision])
    assert (await records.list_decisions(decision.pool_id, Page())).items == (decision,)


@pytest.mark.parametrize("rows", [USERS, TOKENS, ACTORS, NAMES, VERSIONS, BUILDS, TASKS, RUNS, STORAGES, DECISIONS])
def test_each_field_is_a_column(rows: Rows[Any]):
    """No field of a record is forgotten, and no column is without a field or a rule that makes it."""
    made = set(rows._keys)
    assert {column.name for column in rows.columns} | made == {column.name for column in rows.table.columns}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"description": "half a \ud83d"}, id="lone surrogate"),
        pytest.param({"name": "half-\udc80"}, id="lone surrogate in a name"),
        pytest.param({"version": 2**63}, id="a number beyond 64 bits"),
    ],
)
async def test_what_no_database_holds_is_refused(records: SqlRecords, user: User, changes: dict[str, Any]):
    """It is the request that is wrong, not the store; nothing is stored, and the next call works."""
    actor = an_actor(user.id)
    with pytest.raises(InvalidRequest):
        await records.add_actor(replace(actor, **changes))
    assert await records.actor(actor.id) is None
    await records.add_actor(actor)


async def test_the_character_0(records: SqlRecords, user: User):
    """In what is kept as JSON it comes back; in a text it comes back too, or is the request's mistake."""
    actor = an_actor(user.id, extra={"a\0": ["\0"]})
    await records.add_actor(actor)
    assert await records.actor(actor.id) == actor
    described = an_actor(user.id, description="a\0b")
    try:
        await records.add_actor(described)
    except InvalidRequest:
        assert await records.actor(described.id) is None
    else:
        assert await records.actor(described.id) == described


# Unique names and references


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("jane", "jane", id="same"),
        pytest.param("jane", "JANE", id="case"),
        pytest.param("jane.doe", "jane-doe", id="same in host names"),
        pytest.param("jane_doe", "Jane.Doe", id="same in host names, by case too"),
    ],
)
async def test_usernames_are_unique_in_host_names(records: SqlRecords, first: str, second: str):
    """The second of two names with one DNS-friendly form is refused, and either finds the first."""
    user = a_user(username=first)
    await records.add_user(user)
    with pytest.raises(NameNotUnique, match=second):
        await records.add_user(a_user(username=second))
    assert await records.user_by_name(first) == user
    assert await records.user_by_name(second) == user
    assert await records.list_users() == [user]


async def test_actor_names_are_unique_for_their_owner(records: SqlRecords, user: User):
    """Without regard to case; another user may have the same name."""
    other = a_user()
    await records.add_user(other)
    hello, others = an_actor(user.id, name="Hello"), an_actor(other.id, name="hello")
    await records.add_actor(hello)
    await records.add_actor(others)
    with pytest.raises(ActorNameNotUnique, match="hELLO"):
        await records.add_actor(an_actor(user.id, name="hELLO"))
    assert await records.actor_by_name(user.id, "HELLO") == hello
    assert await records.actor_by_name(other.id, "Hello") == others
    assert await records.actor_by_name(user.id, "other") is None

    renamed = an_actor(user.id)
    await records.add_actor(renamed)
    with pytest.raises(ActorNameNotUnique):
        await records.replace_actor(replace(renamed, name="HELLO"))
    assert await records.actor(renamed.id) == renamed
    assert (await records.replace_actor(replace(hello, name="HELLO"))).name == "HELLO"


async def test_other_names_are_unique(records: SqlRecords, user: User, actor: Actor):
    """Tasks by name without case, tokens by their hash."""
    task = ActorTask(id=new_id(), actor_id=actor.id, user_id=user.id, name="Daily", created_at=START, modified_at=START)
    await records.add_task(task)
    with pytest.raises(NameNotUnique, match="daily"):
        await records.add_task(replace(task, id=new_id(), name="daily"))

    token = a_token(user.id)
    await records.add_token(token)
    with pytest.raises(NameNotUnique):
        await records.add_token(replace(token, id=new_id()))


@pytest.mark.parametrize("kind", ["actor", "token", "build", "version", "task", "run"])
async def test_an_owner_must_exist(records: SqlRecords, kind: str):
    """A record that belongs to a user or an Actor who isn't there (any more) is refused as not found."""
    nobody = an_actor("nobody")
    task = ActorTask(id=new_id(), actor_id="x", user_id="nobody", name="task", created_at=START, modified_at=START)
    version = ActorVersion(actor_id="x", version_number="0.1", source_type="SOURCE_FILES", source={})
    verbs: dict[str, Callable[[], Awaitable[Any]]] = {
        "actor": lambda: records.add_actor(nobody),
        "token": lambda: records.add_token(a_token("nobody")),
        "build": lambda: records.add_build(a_build(nobody)),
        "version": lambda: records.put_version(version),
        "task": lambda: records.add_task(task),
        "run": lambda: add_run(records, a_run("nobody")),
    }
    with pytest.raises(RecordNotFound):
        await verbs[kind]()


# Compare-and-set


async def make(records: Records, kind: str, user: User, actor: Actor) -> tuple[Any, Any]:
    """A stored record of *kind* and the verb that replaces it."""
    if kind == "actor":
        return actor, records.replace_actor
    if kind == "build":
        return await records.add_build(a_build(actor)), records.replace_build
    return await add_run(records, a_run(user.id)), records.replace_run


@pytest.mark.parametrize("kind", ["actor", "build", "run"])
class TestCompareAndSet:
    """``replace_*``, the only way to change these records."""

    async def test_a_change_is_stored_under_the_next_version(
        self, records: SqlRecords, user: User, actor: Actor, kind: str
    ):
        """It returns what was stored."""
        record, change = await make(records, kind, user, actor)
        stored = await change(replace(record, **{_free_text(kind): "new"}))
        assert stored == replace(record, version=record.version + 1, **{_free_text(kind): "new"})
        assert await getattr(records, kind)(record.id) == stored

    async def test_of_two_at_once_one_wins(self, records: SqlRecords, user: User, actor: Actor, kind: str):
        """Of many who read the same version, exactly one changes it, and the others learn that they lost."""
        record, change = await make(records, kind, user, actor)
        attempts = [replace(record, **{_free_text(kind): f"from {i}"}) for i in range(8)]
        results = await asyncio.gather(*(change(attempt) for attempt in attempts), return_exceptions=True)
        won = [result for result in results if not isinstance(result, BaseException)]
        assert len(won) == 1
        assert sum(isinstance(result, Conflict) for result in results) == len(attempts) - 1
        assert await getattr(records, kind)(record.id) == won[0]

    async def test_an_old_version_loses(self, records: SqlRecords, user: User, actor: Actor, kind: str):
        """A late report can't undo what was stored meanwhile."""
        record, change = await make(records, kind, user, actor)
        stored = await change(record)
        with pytest.raises(Conflict, match=record.id):
            await change(replace(record, **{_free_text(kind): "late"}))
        assert await getattr(records, kind)(record.id) == stored

    async def test_what_is_gone_is_not_found(self, records: SqlRecords, user: User, actor: Actor, kind: str):
        """A deleted record can't be changed, and does not come back."""
        record, change = await make(records, kind, user, actor)
        await getattr(records, f"delete_{kind}")(record.id)
        with pytest.raises(RecordNotFound):
            await change(record)
        assert await getattr(records, kind)(record.id) is None


@pytest.mark.parametrize("stale", ["neither", "build", "actor"])
async def test_a_build_and_its_tag_are_finished_together(records: SqlRecords, actor: Actor, stale: str):
    """Both are stored or, where one of them has changed meanwhile, none of them."""
    build = await records.add_build(a_build(actor))
    if stale == "build":
        await records.replace_build(build)
    elif stale == "actor":
        await records.replace_actor(actor)
    before = await records.build(build.id), await records.actor(actor.id)
    pointed = TaggedBuild(build_id=build.id, build_number=build.build_number, finished_at=START)
    finished = replace(build, status=RunStatus.SUCCEEDED), replace(actor, tagged_builds={"latest": pointed})
    if stale != "neither":
        with pytest.raises(Conflict):
            await records.finish_build(*finished)
        assert (await records.build(build.id), await records.actor(actor.id)) == before
        return
    assert await records.finish_build(*finished) == replace(finished[0], version=build.version + 1)
    assert await records.build(build.id) == replace(finished[0], version=build.version + 1)
    assert await records.actor(actor.id) == replace(finished[1], version=actor.version + 1)


def _free_text(kind: str) -> str:
    return "title" if kind == "actor" else "status_message"


# Versions and builds


async def test_versions_are_put_and_listed(records: SqlRecords, actor: Actor):
    """A version is created, then overwritten; versions are listed by number, not by letters."""
    made = {
        number: ActorVersion(actor_id=actor.id, version_number=number, source_type="TARBALL", source={"n": number})
        for number in ("0.10", "1.0", "0.9")
    }
    for version in made.values():
        await records.put_version(version)
    changed = replace(made["0.10"], build_tag="beta", source={})
    await records.put_version(changed)
    assert await records.actor_version(actor.id, "0.10") == changed
    assert await records.list_versions(actor.id) == [made["0.9"], changed, made["1.0"]]
    await records.delete_version(actor.id, "0.9")
    assert await records.actor_version(actor.id, "0.9") is None
    assert await records.list_versions("another") == []


async def test_build_numbers_have_no_gap_and_no_double(records: SqlRecords, actor: Actor):
    """Twenty builds at once get 0.1.1 to 0.1.20, and each hears its own number."""
    builds = await asyncio.gather(*(records.add_build(a_build(actor)) for _ in range(20)))
    assert sorted(int(build.build_number.removeprefix("0.1.")) for build in builds) == list(range(1, 21))
    for build in builds:
        assert await records.build(build.id) == build


async def test_build_numbers_count_within_their_version(records: SqlRecords, user: User, actor: Actor):
    """Each version of each Actor counts for itself; a number is never given twice, also when its build is deleted."""
    other = an_actor(user.id)
    await records.add_actor(other)
    first = await records.add_build(a_build(actor))
    numbers = [
        (await records.add_build(a_build(actor, version_number="0.2"))).build_number,
        (await records.add_build(a_build(other))).build_number,
    ]
    await records.delete_build(first.id)
    numbers.append((await records.add_build(a_build(actor))).build_number)
    assert numbers == ["0.2.1", "0.1.1", "0.1.2"]


async def test_a_given_build_number_is_kept(records: SqlRecords, actor: Actor):
    """If it is free; the next number comes after it."""
    given_number = await records.add_build(a_build(actor, build_number="0.1.7"))
    assert given_number.build_number == "0.1.7"
    assert (await records.add_build(a_build(actor))).build_number == "0.1.8"
    with pytest.raises(NameNotUnique, match=r"0\.1\.7"):
        await records.add_build(a_build(actor, build_number="0.1.7"))
    assert (await records.add_build(a_build(actor))).build_number == "0.1.9"


# Runs


async def test_a_run_comes_with_its_token_and_storages(records: SqlRecords, user: User):
    """All are there after one call, and the run is found by the label of its live view."""
    run = a_run(user.id)
    token, storages = a_token(user.id, run_id=run.id), storages_of(run)
    await records.add_run(run, token, iter(storages))
    assert await records.run(run.id) == run
    assert await records.run_by_live_view_label(run.live_view_label) == run
    assert await records.run_by_live_view_label("another") is None
    assert await records.token_by_hash(token.token_hash) == token
    for storage in storages:
        assert await records.storages.storage(storage.kind, storage.id) == storage
    assert await records.storages.storage(StorageKind.DATASET, run.default_key_value_store_id) is None


@pytest.mark.parametrize("clash", ["label", "token", "storage"])
async def test_a_run_is_added_wholly_or_not_at_all(records: SqlRecords, user: User, clash: str):
    """Whichever of its records can't be stored, none of the others is left behind."""
    first = a_run(user.id)
    first_token = a_token(user.id, run_id=first.id)
    await records.add_run(first, first_token, storages_of(first))
    second = a_run(user.id, **({"live_view_label": first.live_view_label} if clash == "label" else {}))
    token = a_token(user.id, run_id=second.id, **({"token_hash": first_token.token_hash} if clash == "token" else {}))
    storages = storages_of(second)
    if clash == "storage":
        storages[2] = replace(storages[2], id=first.default_request_queue_id)
    with pytest.raises(NameNotUnique):
        await records.add_run(second, token, storages)
    assert await records.run(second.id) is None
    assert await records.list_tokens(user.id) == [first_token]
    for storage in storages_of(second):
        assert await records.storages.storage(storage.kind, storage.id) is None


async def test_active_runs_and_builds(records: SqlRecords, user: User, actor: Actor):
    """Exactly those that have not ended, oldest first."""
    runs, builds = [], []
    for i, status in enumerate(RunStatus):
        at = START - timedelta(seconds=i)
        runs.append(await add_run(records, a_run(user.id, status=status, started_at=at)))
        builds.append(await records.add_build(a_build(actor, status=status, started_at=at)))
    assert await records.active_runs() == [run for run in reversed(runs) if run.status not in TERMINAL]
    assert await records.active_builds() == [build for build in reversed(builds) if build.status not in TERMINAL]


# Tokens


async def test_tokens(records: SqlRecords, user: User):
    """They are found by hash, listed by owner in order, and deleted one by one."""
    other = a_user()
    await records.add_user(other)
    later = a_token(user.id, created_at=START + timedelta(seconds=1), expires_at=START + timedelta(days=1))
    first, others = a_token(user.id), a_token(other.id)
    for token in (later, first, others):
        await records.add_token(token)
    assert await records.list_tokens(user.id) == [first, later]
    await records.delete_token(first.id)
    await records.delete_token(first.id)
    assert await records.token_by_hash(first.token_hash) is None
    assert await records.list_tokens(user.id) == [later]
    assert await records.token_by_hash(others.token_hash) == others


@pytest.mark.parametrize("end", ["its end", "its deletion"])
async def test_a_runs_token_dies_with_it(records: SqlRecords, user: User, end: str):
    """A terminal status or its deletion takes its tokens in the same write, and nobody else's; a live status none."""
    own = a_token(user.id)
    await records.add_token(own)
    ended, other = await add_run(records, a_run(user.id)), await add_run(records, a_run(user.id))
    running = await records.replace_run(replace(ended, status=RunStatus.RUNNING))
    assert {token.run_id for token in await records.list_tokens(user.id)} == {None, ended.id, other.id}
    if end == "its end":
        await records.replace_run(replace(running, status=RunStatus.SUCCEEDED))
    else:
        await records.delete_run(ended.id)
    assert {token.run_id for token in await records.list_tokens(user.id)} == {None, other.id}


# Lists


@dataclass(frozen=True)
class Listed:
    """One kind of list: its records in the order of their times, and the call."""

    items: list[Any]
    call: Callable[[Page], Awaitable[Any]]


async def listed(records: Records, kind: str) -> Listed:
    """Seven records of *kind*, added out of order, two of them with the same time."""
    user = a_user()
    await records.add_user(user)
    times = [START + timedelta(seconds=second) for second in (0, 1, 2, 2, 3, 4, 5)]
    if kind == "actors":
        actors = [an_actor(user.id, created_at=at) for at in times]
        for actor in actors[::-1]:
            await records.add_actor(actor)
        return Listed(actors, lambda page: records.list_actors(user.id, page))
    if kind == "builds":
        actor = an_actor(user.id)
        await records.add_actor(actor)
        builds = [a_build(actor, started_at=at, build_number=f"0.1.{i}") for i, at in enumerate(times)]
        for build in builds[::-1]:
            await records.add_build(build)
        return Listed(builds, lambda page: records.list_builds(None, actor.id, page))
    if kind == "runs":
        runs = [a_run(user.id, started_at=at) for at in times]
        for run in runs[::-1]:
            await add_run(records, run)
        return Listed(runs, lambda page: records.list_runs(user_id=user.id, page=page))
    decisions = [a_decision(f"pool-of-{user.id}", at=at) for at in times]
    for decision in decisions[::-1]:
        await records.add_decisions([decision])
    return Listed(decisions, lambda page: records.list_decisions(f"pool-of-{user.id}", page))


@pytest.mark.parametrize("kind", ["actors", "builds", "runs", "decisions"])
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(Page(), id="all"),
        pytest.param(Page(desc=True), id="newest first"),
        pytest.param(Page(offset=2, limit=3), id="a part"),
        pytest.param(Page(offset=2, limit=3, desc=True), id="a part of newest first"),
        pytest.param(Page(offset=6, limit=3), id="the last one"),
        pytest.param(Page(offset=7), id="beyond the end"),
        pytest.param(Page(limit=0), id="none"),
    ],
)
async def test_pages(records: SqlRecords, kind: str, page: Page):
    """A page is a slice of all by time, then id, or of the reverse; the total counts all, whatever the page."""
    await listed(records, kind)  # somebody else's
    mine = await listed(records, kind)
    answer = await mine.call(page)
    ordered = mine.items[::-1] if page.desc else mine.items
    assert list(answer.items) == ordered[page.offset : page.offset + page.limit]
    assert answer.total == 7


async def test_filters(records: SqlRecords, user: User, actor: Actor):
    """None asks for all; each filter holds together with the others."""
    other = a_user()
    await records.add_user(other)
    others_actor = an_actor(other.id)
    await records.add_actor(others_actor)
    assert (await records.list_actors(None, Page())).total == 2
    assert (await records.list_actors(other.id, Page())).items == (others_actor,)

    mine = await records.add_build(a_build(actor))
    theirs = await records.add_build(a_build(others_actor))
    assert (await records.list_builds(None, None, Page())).items == (mine, theirs)
    assert (await records.list_builds(user.id, None, Page())).items == (mine,)
    assert (await records.list_builds(user.id, others_actor.id, Page())).items == ()
    assert await records.build_by_number(mine.actor_id, mine.build_number) == mine
    assert await records.build_by_number(mine.actor_id, "9.9.9") is None

    ready = await add_run(records, a_run(user.id, actor_id=actor.id))
    failed = await add_run(records, a_run(user.id, actor_id=actor.id, status=RunStatus.FAILED))
    aborted = await add_run(records, a_run(other.id, actor_id=actor.id, status=RunStatus.ABORTED))
    for asked, expected in (
        ({}, [ready, failed, aborted]),
        ({"actor_id": actor.id, "user_id": user.id}, [ready, failed]),
        ({"statuses": frozenset({RunStatus.FAILED, RunStatus.ABORTED})}, [failed, aborted]),
        ({"statuses": frozenset({RunStatus.FAILED}), "user_id": other.id}, []),
        ({"actor_id": "another"}, []),
    ):
        answer = await records.list_runs(**asked)
        assert (list(answer.items), answer.total) == (expected, len(expected)), asked


async def test_actors_by_their_stamps(records: SqlRecords, user: User):
    """All in the order of their ids, each with its version, in pages that begin after an id."""
    made = [an_actor(user.id) for _ in range(5)]
    for actor in reversed(made):
        await records.add_actor(actor)
    await records.replace_actor(made[2])
    expected = [(actor.id, 2 if actor is made[2] else 1) for actor in made]
    assert await records.actor_stamps("", 2) == expected[:2]
    assert await records.actor_stamps(made[1].id, 2) == expected[2:4]
    assert await records.actor_stamps(made[3].id, 2) == expected[4:]
    assert await records.actor_stamps(made[4].id, 2) == []


async def test_several_actors_at_once(records: SqlRecords, user: User):
    """Those that there are of the ones asked for; none for none."""
    made = [an_actor(user.id) for _ in range(3)]
    for actor in made:
        await records.add_actor(actor)
    found = await records.actors_by_id([made[0].id, made[2].id, "nobody", made[0].id])
    assert sorted(found, key=lambda actor: actor.id) == [made[0], made[2]]
    assert await records.actors_by_id([]) == []


async def test_builds_that_succeeded_by_their_numbers(records: SqlRecords, user: User, actor: Actor):
    """Each of the Actor that it was asked of, and none that failed or goes on."""
    other = an_actor(user.id)
    await records.add_actor(other)
    statuses = (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.RUNNING)
    first, failed, running = [await records.add_build(a_build(actor, status=status)) for status in statuses]
    foreign = await records.add_build(a_build(other, build_number="0.1.9", status=RunStatus.SUCCEEDED))
    asked = [(build.actor_id, build.build_number) for build in (first, failed, running, foreign)]
    found = await records.succeeded_builds([*asked, (actor.id, "0.1.9"), ("nobody", "0.1.1")])
    assert found == {asked[0]: first.id, asked[3]: foreign.id}
    assert await records.succeeded_builds([]) == {}


# Deletes


async def test_deleting_an_actor(records: SqlRecords, user: User, actor: Actor):
    """Its versions, builds, tasks and decisions go with it, those of others don't; its runs stay."""
    kept = an_actor(user.id)
    await records.add_actor(kept)
    made: dict[str, list[Any]] = {}
    for owner in (actor, kept):
        version = ActorVersion(actor_id=owner.id, version_number="0.1", source_type="SOURCE_FILES", source={})
        task = ActorTask(
            id=new_id(), actor_id=owner.id, user_id=user.id, name=new_id(), created_at=START, modified_at=START
        )
        await records.put_version(version)
        await records.add_task(task)
        await records.add_decisions([a_decision(f"pool.{owner.id}", actor_id=owner.id)])
        build = await records.add_build(a_build(owner))
        made[owner.id] = [version, task, build, await add_run(records, a_run(user.id, actor_id=owner.id))]

    await records.delete_actor(actor.id)
    await records.delete_actor(actor.id)

    for owner, remains in ((actor, False), (kept, True)):
        version, task, build, run = made[owner.id]
        assert (await records.actor(owner.id) == owner) == remains
        assert (await records.actor_version(owner.id, "0.1") == version) == remains
        assert (await records.task(task.id) == task) == remains
        assert (await records.build(build.id) == build) == remains
        assert bool((await records.list_decisions(f"pool.{owner.id}", Page())).items) == remains
        assert await records.run(run.id) == run
    # Its name is free again.
    await records.add_actor(an_actor(user.id, name=actor.name))


async def test_deleting_a_build_leaves_its_actor(records: SqlRecords, actor: Actor):
    """The tag that points to it is the caller's to move; deleting twice is fine."""
    build = await records.add_build(a_build(actor))
    tag = TaggedBuild(build_id=build.id, build_number=build.build_number, finished_at=START)
    tagged = await records.replace_actor(replace(actor, tagged_builds={"latest": tag}))
    await records.delete_build(build.id)
    await records.delete_build(build.id)
    assert await records.build(build.id) is None
    assert await records.actor(actor.id) == tagged


# Cancelled callers, other processes, crashes


async def test_a_cancelled_write_is_whole_or_not_at_all(records: SqlRecords, user: User, records_url: str):
    """Wherever a caller goes away, a run has its token and storages or is not there, and the next caller is served."""
    for steps in range(0, 60, 3):
        run = a_run(user.id)
        token = a_token(user.id, run_id=run.id)
        async with open_records(records_url) as others:  # whose closing waits for what has begun
            async with asyncio.TaskGroup() as group:
                write = group.create_task(others.add_run(run, token, storages_of(run)))
                for _ in range(steps):
                    await asyncio.sleep(0)
                write.cancel()
            await add_run(others, a_run(user.id))
        is_there = await records.run(run.id) is not None
        assert (await records.token_by_hash(token.token_hash) is not None) == is_there
        for storage in storages_of(run):
            assert (await records.storages.storage(storage.kind, storage.id) is not None) == is_there


async def test_cancelled_callers_keep_no_turn(records: SqlRecords, user: User):
    """Any number of readers and writers that go away leave room for those who come after."""
    async with asyncio.TaskGroup() as group:
        for i in range(40):
            calls = (records.user(user.id), records.add_user(a_user()))
            going = [group.create_task(call) for call in calls]
            for _ in range(i % 7):
                await asyncio.sleep(0)
            for call in going:
                call.cancel()
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*(records.user(user.id) for _ in range(20)))
    assert answers == [user] * 20


CHILD = """
import asyncio, sys
from datetime import UTC, datetime
from gateway.core.model import User
from gateway.state.records import open_records

async def main(url, prefix, number, wait):
    async with open_records(url) as records:
        for i in range(int(number)):
            name = f"{prefix}{i:03}"
            await records.add_user(User(id=name, username=name, is_admin=False, created_at=datetime.now(UTC)))
        print("ok", flush=True)
        if wait == "wait":
            await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def child(url: str, prefix: str, *, number: int, wait: bool = False) -> asyncio.subprocess.Process:
    """A process that adds *number* users to the records at *url* and says ok."""
    words = ("-c", CHILD, url, prefix, str(number), "wait" if wait else "end")
    return await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)


async def test_what_was_answered_survives_a_kill(records_url: str):
    """A process is killed as soon as it was told that its write is done: the record is there."""
    process = await child(records_url, "before-the-kill-", number=3, wait=True)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ok\n"
    process.kill()
    await process.wait()
    async with open_records(records_url) as records:
        assert [user.id for user in await records.list_users()] == [f"before-the-kill-{i:03}" for i in range(3)]


async def test_processes_start_and_write_at_the_same_time(records_url: str):
    """Of processes that find no database, one makes it and all use it; none of their writes fails or is lost."""
    processes = [await child(records_url, prefix, number=40) for prefix in ("a", "b", "c")]
    async with open_records(records_url) as records:
        for i in range(40):
            await records.add_user(a_user(id=f"d{i:03}"))
        said = [(await process.communicate())[0] for process in processes]
        assert (said, [process.returncode for process in processes]) == ([b"ok\n"] * 3, [0] * 3)
        ids = {user.id for user in await records.list_users()}
    assert ids == {f"{prefix}{i:03}" for prefix in "abcd" for i in range(40)}


async def test_records_open_again(records_url: str):
    """Opening a second time changes nothing, also while another has them open."""
    user = a_user()
    async with open_records(records_url) as records:
        await records.add_user(user)
        async with open_records(records_url) as second:
            assert await second.user(user.id) == user
            await second.add_user(a_user())
        assert len(await records.list_users()) == 2
    async with open_records(records_url) as records:
        assert await records.user(user.id) == user


async def test_errors_of_those_who_use_records_are_theirs(records_url: str):
    """What is raised while records are open leaves as it is, a cancellation included, and they are closed."""
    with pytest.raises(ZeroDivisionError):
        async with open_records(records_url):
            raise ZeroDivisionError
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), open_records(records_url) as records:
            await asyncio.Event().wait()
    with pytest.raises(StateUnavailable, match="closed"):
        await records.list_users()


async def test_closing_waits_for_what_is_under_way(records_url: str):
    """A write that its caller has given up is done before the records are closed."""
    user = a_user()
    async with open_records(records_url) as records:
        async with asyncio.TaskGroup() as group:
            write = group.create_task(records.add_user(user))
            await asyncio.sleep(0)  # it begins, as nobody else has the turn
            write.cancel()
        assert write.cancelled()
    async with open_records(records_url) as records:
        assert await records.user(user.id) == user


# SQLite


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a database in SQLite."""
    return tmp_path / "folder" / "records.db"


@pytest.fixture
async def in_sqlite(path: Path) -> AsyncIterator[SqlRecords]:
    """Records in that file."""
    async with open_records(sqlite_url(path)) as records:
        yield records


def sqlite_url(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


async def test_the_settings_of_sqlite(in_sqlite: SqlRecords, path: Path):
    """Each commit is synced (FULL is 2), references are checked, the log is a WAL; the file is its owner's alone."""

    async def look(connection: AsyncConnection) -> dict[str, Any]:
        names = ("synchronous", "foreign_keys", "journal_mode")
        return {name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar() for name in names}

    expected = {"synchronous": 2, "foreign_keys": 1, "journal_mode": "wal"}
    assert await in_sqlite._database.read(look) == expected
    assert await in_sqlite._database.write(look) == expected

    async def cache_kib(connection: AsyncConnection) -> int:
        return -int((await connection.exec_driver_sql("PRAGMA cache_size")).scalar() or 0)

    assert await in_sqlite._database.read(cache_kib) <= 256, "there are several readers, each with its own"
    assert [file.stat().st_mode & 0o777 for file in path.parent.iterdir()] == [0o600] * 3


async def test_readers_never_wait_for_a_writer(in_sqlite: SqlRecords, path: Path):
    """While another process holds the database for writing, reads are answered and writes wait for its end."""
    user, other = a_user(), a_user()
    await in_sqlite.add_user(user)
    with closing(sqlite3.connect(path, isolation_level=None)) as somebody:
        somebody.execute("BEGIN IMMEDIATE")
        async with asyncio.TaskGroup() as group:
            write = group.create_task(in_sqlite.add_user(other))
            for _ in range(10):
                assert await in_sqlite.user(user.id) == user
            assert not write.done()
            somebody.execute("COMMIT")
    assert await in_sqlite.user(other.id) == other


async def test_migrations_and_tables_agree(in_sqlite: SqlRecords, path: Path, tmp_path: Path):
    """A migrated database is the one that the tables describe, for Alembic and word by word."""
    migrated = create_engine(f"sqlite:///{path}")
    described = create_engine(f"sqlite:///{tmp_path}/described.db")
    metadata.create_all(described)
    try:
        with migrated.connect() as connection:
            options = {"compare_type": True, "compare_server_default": True}
            assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        assert _definitions(migrated) == _definitions(described)
    finally:
        migrated.dispose()
        described.dispose()


def _definitions(engine: Any) -> dict[str, list[str]]:
    """The SQL of each table and index, with the parts of a table in any order and without quotes, which a copy gets."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all()
    return {
        name: sorted(" ".join(part.split()) for part in _parts(sql.replace('"', "")))
        for name, sql in rows
        if name != "alembic_version"
    }


def _parts(sql: str) -> list[str]:
    """What stands before, between and behind the outermost brackets and the commas within them, but ``(``."""
    parts, depth = [""], 0
    for character in sql:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if (character, depth) in {("(", 1), (")", 0), (",", 1)}:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def test_head_is_the_newest_migration():
    """The constant that spares most starts the loading of Alembic names what Alembic would find."""
    config = Config()
    config.set_main_option("script_location", str(Path(upgrade.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == upgrade.HEAD


async def test_records_of_the_first_migration_stay(path: Path):
    """A run keeps its token, and its new fields say what was true then; names of storages are found in any case."""
    path.parent.mkdir()
    config = Config()
    config.set_main_option("script_location", str(Path(upgrade.__file__).parent))
    engine = create_engine(f"sqlite:///{path}")
    run = a_run("owner")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        # What a database of that time holds: the rows of today, without the columns that came later.
        for rows, record in (
            (USERS, a_user(id="owner")),
            (RUNS, run),
            (TOKENS, a_token("owner", run_id=run.id, token_hash="hash")),
            *((STORAGES, storage) for storage in storages_of(run)),
            (STORAGES, replace(storages_of(run)[0], id="named", name="State", stats={"writeCount": 1})),
        ):
            there = {column["name"] for column in inspect(connection).get_columns(rows.table.name)}
            row = {name: value for name, value in rows.values(record).items() if name in there}
            connection.execute(rows.insert, row)
    engine.dispose()

    async with open_records(sqlite_url(path)) as records:
        assert await records.run(run.id) == run
        assert await records.token_by_hash("hash") is not None
        for storage in storages_of(run):
            assert await records.storages.storage(storage.kind, storage.id) == storage
        named = await records.storages.storage_by_name("owner", StorageKind.KEY_VALUE_STORE, "state")
        assert named == replace(storages_of(run)[0], id="named", name="State", stats={"writeCount": 1})


async def test_a_newer_database_is_refused(path: Path):
    """An old Greenroom does not touch records that a newer one has migrated, and says so."""
    async with open_records(sqlite_url(path)):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StateUnavailable, match="9999"):
        async with open_records(sqlite_url(path)):
            pass


def _a_folder_in_its_place(path: Path) -> None:
    path.mkdir(parents=True)


def _a_file_in_its_folders_place(path: Path) -> None:
    path.parent.write_bytes(b"")


def _not_a_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all " * 1000)


@pytest.mark.parametrize("trouble", [_a_folder_in_its_place, _a_file_in_its_folders_place, _not_a_database])
async def test_an_unusable_database_is_told(path: Path, trouble: Callable[[Path], None]):
    """StateUnavailable, whatever the system or the driver raised; never their own errors."""
    trouble(path)
    with pytest.raises(StateUnavailable, match="Records"):
        async with open_records(sqlite_url(path)):
            pass


async def test_a_driver_error_is_told(in_sqlite: SqlRecords, path: Path):
    """A database that breaks at run time: StateUnavailable, without the values that were to be stored."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE users")
    user = a_user(username="very-secret")
    with pytest.raises(StateUnavailable, match="users") as caught:
        await in_sqlite.add_user(user)
    assert "very-secret" not in f"{caught.value} {caught.value.__cause__}"
    with pytest.raises(StateUnavailable):
        await in_sqlite.list_users()


@pytest.mark.parametrize(
    "url",
    ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", "sqlite:///records.db", "postgresql+asyncpg://host/name"],
)
async def test_only_what_is_kept_is_opened(url: str):
    """Records in memory would be lost, and other databases have no adapter yet."""
    make_url(url)
    with pytest.raises(ValueError, match="sqlite"):
        async with open_records(url):
            pass
