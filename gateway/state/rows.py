"""No record is turned into a row or back anywhere but here; the types of the columns convert the single values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, Table, Update, bindparam, insert, select, update

from gateway.core.ids import dns_friendly
from gateway.core.model import (
    Actor,
    ActorTask,
    ActorVersion,
    Build,
    DecisionRecord,
    Run,
    Storage,
    Token,
    User,
)
from gateway.core.names import ActorName
from gateway.core.storages import KeyValueRecord
from gateway.state import tables

T = TypeVar("T")


class Rows(Generic[T]):
    """
    How records of one *kind* lie in their *table*: a column for each field, and *keys*, columns made of the record.

    Statements are made once and take their values as parameters, so that SQLAlchemy compiles each of them once.
    """

    def __init__(self, kind: Callable[..., T], table: Table, **keys: Callable[[T], Any]) -> None:
        self.table = table
        self._kind = kind
        self._keys = keys
        self._names = tuple(part.name for part in fields(kind))  # type: ignore[arg-type]
        self.columns = tuple(table.c[name] for name in self._names)
        self.select = select(*self.columns)
        self.insert = insert(table)

    def by(self, *names: str) -> Select[*tuple[Any, ...]]:
        """The records whose columns *names* have the values of the parameters of these names."""
        return self.select.where(*(self.table.c[name] == bindparam(name) for name in names))

    def replace(self, *names: str) -> Update:
        """The change of a record whose columns *names* have the values of the parameters ``old_<name>``."""
        return update(self.table).where(*(self.table.c[name] == bindparam(f"old_{name}") for name in names))

    def values(self, record: T) -> dict[str, Any]:
        """The row of *record*."""
        row = {name: getattr(record, name) for name in self._names}
        for name, key in self._keys.items():
            row[name] = key(record)
        return row

    def record(self, row: Sequence[Any]) -> T:
        """The record of a row of ``columns``."""
        return self._kind(**dict(zip(self._names, row, strict=True)))


def username_key(username: str) -> str:
    """What must be unique of a username."""
    return dns_friendly(username)


def name_key(name: str) -> str:
    """What must be unique, for its owner, of an Actor's, task's or storage's name."""
    return name.lower()


USERS = Rows(User, tables.users, username_key=lambda user: username_key(user.username))
TOKENS = Rows(Token, tables.tokens)
ACTORS = Rows(Actor, tables.actors, name_key=lambda actor: name_key(actor.name))
NAMES = Rows(ActorName, tables.actor_names)
VERSIONS = Rows(ActorVersion, tables.actor_versions)
BUILDS = Rows(Build, tables.builds)
TASKS = Rows(ActorTask, tables.actor_tasks, name_key=lambda task: name_key(task.name))
RUNS = Rows(Run, tables.runs)
STORAGES = Rows(Storage, tables.storages, name_key=lambda storage: storage.name and name_key(storage.name))
KEY_VALUE_RECORDS = Rows(KeyValueRecord, tables.key_value_records)
DECISIONS = Rows(DecisionRecord, tables.decisions)
