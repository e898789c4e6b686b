"""What is stored comes back as it was, and what no database holds is refused."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from contracts.given_records import a_token, a_user, an_actor, new_id
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import InvalidRequest
from gateway.core.model import (
    Actor,
    ActorTask,
    ActorVersion,
    Build,
    DecisionRecord,
    Page,
    Run,
    Storage,
    Token,
    User,
)
from gateway.core.names import ActorName
from gateway.state.records import SqlRecords
from gateway.state.rows import ACTORS, BUILDS, DECISIONS, NAMES, RUNS, STORAGES, TASKS, TOKENS, USERS, VERSIONS, Rows

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
