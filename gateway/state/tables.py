"""
The tables of the records: one column for each field of the dataclasses in ``gateway.core.model``, under its name.

The column types do the conversion of values (times, enums, nested dataclasses), so ``gateway.state.rows`` has only to
pair names. All is portable between SQLite and PostgreSQL. A change here needs a migration beside it; a test compares
the two.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

from gateway.core.lifecycle import RunStatus
from gateway.core.model import (
    AbortWish,
    EnvVar,
    Origin,
    RestartKind,
    RestartWish,
    RunDefaults,
    RunOptions,
    StorageKind,
    TaggedBuild,
)
from gateway.core.names import NameKind

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(at: datetime) -> int:
    """Whole microseconds since 1970 in UTC; exact, where a float would round."""
    if at.tzinfo is None:
        raise ValueError(f"a time without its zone can't be stored: {at!r}")
    return (at - _EPOCH) // _MICROSECOND


class UtcTime(TypeDecorator[datetime]):
    """Aware times as microseconds since 1970: they sort and compare in any database, and come back in UTC."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + value * _MICROSECOND


class Nested(TypeDecorator[Any]):
    """A value that is kept as JSON: *dump* makes plain data of it, *load* the value again. None is SQL's NULL."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def __init__(self, dump: Callable[[Any], Any], load: Callable[[Any], Any]) -> None:
        super().__init__()
        self.dump, self.load = dump, load

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else self.dump(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else self.load(value)


def dump_json(value: Any) -> str:
    """JSON for the columns; read-only mappings are written like dicts. Raises TypeError for what JSON can't say."""
    return json.dumps(value, default=_as_dict, separators=(",", ":"))


def _as_dict(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _same(value: Any) -> Any:
    return value


def _flat(value: Any) -> dict[str, Any]:
    """A dataclass without nested ones; its times as ISO 8601."""
    plain = {}
    for part in fields(value):
        content = getattr(value, part.name)
        plain[part.name] = content.astimezone(UTC).isoformat() if isinstance(content, datetime) else content
    return plain


def _known(kind: type[Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """What *kind* has fields for: a newer Greenroom, which runs beside this one during a reload, may know more."""
    names = {part.name for part in fields(kind)}
    return {name: value for name, value in stored.items() if name in names}


def _load_options(stored: Mapping[str, Any]) -> RunOptions:
    return RunOptions(**_known(RunOptions, stored))


def _load_defaults(stored: Mapping[str, Any]) -> RunDefaults:
    return RunDefaults(**_known(RunDefaults, stored))


def _load_wish(stored: Mapping[str, Any]) -> AbortWish:
    requested_at = datetime.fromisoformat(stored["requested_at"])
    return AbortWish(**{**_known(AbortWish, stored), "requested_at": requested_at})


def _load_restart(stored: Mapping[str, Any]) -> RestartWish:
    return RestartWish(kind=RestartKind(stored["kind"]), requested_at=datetime.fromisoformat(stored["requested_at"]))


def _dump_env_vars(env_vars: tuple[EnvVar, ...]) -> list[dict[str, Any]]:
    return [_flat(env_var) for env_var in env_vars]


def _load_env_vars(stored: list[dict[str, Any]]) -> tuple[EnvVar, ...]:
    return tuple(EnvVar(**_known(EnvVar, env_var)) for env_var in stored)


def _dump_tags(tags: Mapping[str, TaggedBuild]) -> dict[str, Any]:
    return {tag: _flat(tagged) for tag, tagged in tags.items()}


def _load_tags(stored: Mapping[str, Any]) -> dict[str, TaggedBuild]:
    return {tag: _load_tag(tagged) for tag, tagged in stored.items()}


def _load_tag(stored: Mapping[str, Any]) -> TaggedBuild:
    finished_at = stored["finished_at"]
    at = datetime.fromisoformat(finished_at) if finished_at else None
    return TaggedBuild(**{**_known(TaggedBuild, stored), "finished_at": at})


def _words(kind: type[StrEnum]) -> Enum:
    """The enum's values as text; checked here, not by the database, so that a new word needs no migration."""
    return Enum(
        kind,
        native_enum=False,
        create_constraint=False,
        length=32,
        values_callable=lambda words: [str(word) for word in words],
    )


_OBJECT = Nested(_same, _same)
# In the order of the bytes, which is SQLite's own.
_BYTEWISE = String().with_variant(String(collation="C"), "postgresql")
_ENV_VARS = Nested(_dump_env_vars, _load_env_vars)
_SCOPES = Nested(sorted, frozenset)
_REASONS = Nested(list, tuple)


def _id() -> Column[str]:
    return Column("id", _BYTEWISE, primary_key=True)


def _owner() -> Column[str]:
    return Column("user_id", String, ForeignKey("users.id"), nullable=False)


def _of_actor(*, primary_key: bool = False) -> Column[str]:
    """What goes when its Actor goes."""
    reference = ForeignKey("actors.id", ondelete="CASCADE")
    return Column("actor_id", String, reference, nullable=False, primary_key=primary_key)


def _in_storage(name: str, *, primary_key: bool = False) -> Column[str]:
    """What goes when its storage goes."""
    reference = ForeignKey("storages.id", ondelete="CASCADE")
    return Column(name, String, reference, nullable=False, primary_key=primary_key)


users = Table(
    "users",
    metadata,
    _id(),
    Column("username", String, nullable=False),
    Column("username_key", String, nullable=False),  # the DNS-friendly form
    Column("is_admin", Boolean, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    UniqueConstraint("username_key"),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    _owner(),
    Column("name", String, nullable=False),
    Column("token_hash", String, nullable=False),
    Column("scopes", _SCOPES, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("run_id", String, ForeignKey("runs.id", ondelete="CASCADE")),
    UniqueConstraint("token_hash"),
    Index(None, "user_id"),
    Index(None, "run_id"),
)

actors = Table(
    "actors",
    metadata,
    _id(),
    _owner(),
    Column("name", String, nullable=False),
    Column("name_key", String, nullable=False),  # in lower case
    Column("created_at", UtcTime, nullable=False),
    Column("modified_at", UtcTime, nullable=False),
    Column("title", String),
    Column("description", String),
    Column("is_public", Boolean, nullable=False),
    Column("default_run_options", Nested(_flat, _load_defaults), nullable=False),
    Column("standby_from_api", _OBJECT),
    Column("standby_from_file", _OBJECT),
    Column("tagged_builds", Nested(_dump_tags, _load_tags), nullable=False),
    Column("extra", _OBJECT, nullable=False),
    Column("version", Integer, nullable=False),
    UniqueConstraint("user_id", "name_key"),
)

actor_versions = Table(
    "actor_versions",
    metadata,
    _of_actor(primary_key=True),
    Column("version_number", String, primary_key=True),
    Column("source_type", String, nullable=False),
    Column("source", _OBJECT, nullable=False),
    Column("env_vars", _ENV_VARS, nullable=False),
    Column("apply_env_vars_to_build", Boolean, nullable=False),
    Column("build_tag", String, nullable=False),
)

actor_names = Table(
    "actor_names",
    metadata,
    _id(),
    _of_actor(),
    _owner(),
    Column("kind", _words(NameKind), nullable=False),
    Column("name", String, nullable=False),
    Column("challenge", String, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("verified_at", UtcTime),
    UniqueConstraint("actor_id", "name"),
    Index(None, "name"),
)
# Several may claim a name, but it means one Actor.
_is_verified = actor_names.c.verified_at.is_not(None)
Index(
    "uq_actor_names_verified",
    actor_names.c.name,
    unique=True,
    sqlite_where=_is_verified,
    postgresql_where=_is_verified,
)

# The last number that each version gave to a build: a deleted build's number is never given again.
build_counters = Table(
    "build_counters",
    metadata,
    _of_actor(primary_key=True),
    Column("version_number", String, primary_key=True),
    Column("last_number", Integer, nullable=False),
)

builds = Table(
    "builds",
    metadata,
    _id(),
    _of_actor(),
    _owner(),
    Column("version_number", String, nullable=False),
    Column("build_number", String, nullable=False),
    Column("status", _words(RunStatus), nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("origin", _words(Origin), nullable=False),
    Column("tag", String),
    Column("finished_at", UtcTime),
    Column("status_message", String),
    Column("snapshot", String),
    Column("definition", _OBJECT, nullable=False),
    Column("env_vars", _ENV_VARS, nullable=False),
    Column("options", _OBJECT, nullable=False),
    Column("meta", _OBJECT, nullable=False),
    Column("version", Integer, nullable=False),
    UniqueConstraint("actor_id", "build_number"),
    Index(None, "actor_id", "started_at"),
    Index(None, "user_id", "started_at"),
    Index(None, "status"),
)

actor_tasks = Table(
    "actor_tasks",
    metadata,
    _id(),
    _of_actor(),
    _owner(),
    Column("name", String, nullable=False),
    Column("name_key", String, nullable=False),  # in lower case
    Column("created_at", UtcTime, nullable=False),
    Column("modified_at", UtcTime, nullable=False),
    Column("title", String),
    Column("options", _OBJECT, nullable=False),
    Column("input", _OBJECT),
    Column("standby_from_api", _OBJECT),
    Column("version", Integer, nullable=False),
    UniqueConstraint("user_id", "name_key"),
    Index(None, "actor_id"),
)

# No foreign keys to Actor, build and task: a run stays, with its log and results, when what it was started from goes.
runs = Table(
    "runs",
    metadata,
    _id(),
    Column("actor_id", String, nullable=False),
    _owner(),
    Column("build_id", String, nullable=False),
    Column("build_number", String, nullable=False),
    Column("status", _words(RunStatus), nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("origin", _words(Origin), nullable=False),
    Column("options", Nested(_flat, _load_options), nullable=False),
    Column("live_view_label", String, nullable=False),
    Column("default_key_value_store_id", String, nullable=False),
    Column("default_dataset_id", String, nullable=False),
    Column("default_request_queue_id", String, nullable=False),
    Column("task_id", String),
    Column("finished_at", UtcTime),
    Column("status_message", String),
    Column("is_status_message_terminal", Boolean, nullable=False),
    Column("exit_code", Integer),
    Column("meta", _OBJECT, nullable=False),
    Column("stats", _OBJECT, nullable=False),
    Column("pool_id", String),
    Column("is_container_server_ready", Boolean, nullable=False),
    Column("abort_wish", Nested(_flat, _load_wish)),
    Column("restart_wish", Nested(_flat, _load_restart)),
    Column("wound_down_because", String),
    Column("general_access", String, nullable=False),
    Column("input_key", String, nullable=False, server_default="INPUT"),
    Column("storage_ids", _OBJECT, nullable=False, server_default="{}"),
    Column("parent_run_id", String),
    Column("placement", _OBJECT, nullable=False),
    Column("version", Integer, nullable=False),
    UniqueConstraint("live_view_label"),
    Index(None, "status"),
    Index(None, "actor_id", "started_at"),
    Index(None, "user_id", "started_at"),
)

# No foreign key to the run: whoever removes what a storage holds removes its record, not the end of a run.
storages = Table(
    "storages",
    metadata,
    _id(),
    Column("kind", _words(StorageKind), nullable=False),
    _owner(),
    Column("created_at", UtcTime, nullable=False),
    Column("modified_at", UtcTime, nullable=False),
    Column("accessed_at", UtcTime, nullable=False),
    Column("name", String),
    Column("name_key", String),  # in lower case
    Column("title", String),
    Column("actor_id", String),
    Column("run_id", String),
    Column("general_access", String, nullable=False, server_default="FOLLOW_USER_SETTING"),
    Column("stats", _OBJECT, nullable=False),
    UniqueConstraint("user_id", "kind", "name_key"),  # any number without a name
    Index(None, "run_id"),
)

key_value_records = Table(
    "key_value_records",
    metadata,
    _in_storage("store_id", primary_key=True),
    Column("key", _BYTEWISE, primary_key=True),
    Column("content_type", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("modified_at", UtcTime, nullable=False),
    Column("value", LargeBinary),
    Column("blob", String),
)

# Items are only ever appended, so positions have no gaps: a page is a range of them, however far in.
dataset_items = Table(
    "dataset_items",
    metadata,
    _in_storage("dataset_id", primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("item", Text, nullable=False),
)

# Pushes whose answer has not gone out, for all we know; see ``Storages.push_items``.
dataset_pushes = Table(
    "dataset_pushes",
    metadata,
    _id(),
    _in_storage("dataset_id"),
    Column("digest", String, nullable=False),
    Column("process", String, nullable=False),  # a random id of the one that stored it
    Column("at", UtcTime, nullable=False),
    Index(None, "dataset_id", "digest"),
)

queue_requests = Table(
    "queue_requests",
    metadata,
    _in_storage("queue_id", primary_key=True),
    Column("id", _BYTEWISE, primary_key=True),
    Column("unique_key", String, nullable=False),
    Column("data", _OBJECT, nullable=False),
    Column("handled_at", UtcTime),
    Column("lock_expires_at", UtcTime),
    Column("lock_owner", String),
    Column("order_no", BigInteger),  # the place among the pending ones; NULL: handled
    Column("added_no", BigInteger, nullable=False),  # the order in which they were first added
    Index(None, "queue_id", "added_no", unique=True),
)
# Partial indexes: they hold no more than what is looked for, so a head costs no handled requests.
for _name, _column in (("pending", queue_requests.c.order_no), ("locked", queue_requests.c.lock_expires_at)):
    _is_set = _column.is_not(None)
    Index(
        f"ix_queue_requests_{_name}", queue_requests.c.queue_id, _column, sqlite_where=_is_set, postgresql_where=_is_set
    )

# No foreign key: a decision may be noted in the moment in which its Actor is deleted, and that is no error.
decisions = Table(
    "decisions",
    metadata,
    _id(),
    Column("pool_id", String, nullable=False),
    Column("actor_id", String, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("wanted_runs", Integer, nullable=False),
    Column("present_runs", Integer, nullable=False),
    Column("reasons", _REASONS, nullable=False),
    Column("inputs", _OBJECT, nullable=False),
    Column("decision", _OBJECT, nullable=False, server_default="{}"),
    Index(None, "pool_id", "at"),
    Index(None, "actor_id"),
)
