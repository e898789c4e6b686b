"""
No I/O: the records that rooms exchange, all frozen; JSON and rows end at the border.

``version`` fields count the changes of a record: an update states the version that it read, and loses with
Conflict if another was faster. Times are aware UTC datetimes; sizes are MiB; durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from gateway.core.lifecycle import RunStatus

JsonObject = Mapping[str, Any]

DEFAULT_MEMORY_MBYTES = 1024
MEMORY_STEPS_MBYTES = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class Origin(StrEnum):
    """Who started a run or build; the platform's words."""

    DEVELOPMENT = "DEVELOPMENT"
    WEB = "WEB"
    API = "API"
    SCHEDULER = "SCHEDULER"
    TEST = "TEST"
    WEBHOOK = "WEBHOOK"
    ACTOR = "ACTOR"
    CLI = "CLI"
    CI = "CI"
    STANDBY = "STANDBY"
    MCP = "MCP"


class StorageKind(StrEnum):
    """The three kinds of storages."""

    KEY_VALUE_STORE = "key-value-store"
    DATASET = "dataset"
    REQUEST_QUEUE = "request-queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who owns Actors, runs and storages."""

    id: str
    username: str
    is_admin: bool
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """
    An API token as it is stored: never the secret, only its hash.

    ``scopes`` holds ``*`` for all that its user may do, or some of ``gateway.auth.SCOPES``. A token with ``run_id``
    belongs to that run alone and dies with it.
    """

    id: str
    user_id: str
    name: str
    token_hash: str
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvVar:
    """One environment variable of an Actor version; a secret's *value* is kept sealed (``gateway.secret_box``)."""

    name: str
    value: str
    is_secret: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedBuild:
    """What a build tag of an Actor points to."""

    build_id: str
    build_number: str
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDefaults:
    """Run options of an Actor or task that hold where the start call gives none; ``timeout_secs`` 0 is no limit."""

    build: str = "latest"
    timeout_secs: int = 3600
    memory_mbytes: int = DEFAULT_MEMORY_MBYTES
    restart_on_error: bool = False
    max_items: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """
    A program that can be run: its name, owner, settings and which builds its tags point to.

    ``standby_from_api`` and ``standby_from_file`` are the two partial ``actorStandby`` objects as given (None: never
    given); what the API set wins, key by key, over the file (``gateway.core.standby.merge``). ``extra`` keeps the
    fields of the API object that Greenroom stores and returns but does not act on (seoTitle, categories, …).
    """

    id: str
    user_id: str
    name: str
    created_at: datetime
    modified_at: datetime
    title: str | None = None
    description: str | None = None
    is_public: bool = False
    default_run_options: RunDefaults = RunDefaults()
    standby_from_api: JsonObject | None = None
    standby_from_file: JsonObject | None = None
    tagged_builds: Mapping[str, TaggedBuild] = field(default_factory=dict)
    extra: JsonObject = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorVersion:
    """
    One MAJOR.MINOR line of an Actor with its source.

    ``source`` holds ``sourceFiles``, ``gitRepoUrl``, ``tarballUrl`` or ``gitHubGistUrl`` as the API has them, or
    ``snapshot`` (the sha256 of a source snapshot in the blobs) where it was pushed as a folder.
    """

    actor_id: str
    version_number: str
    source_type: str
    source: JsonObject
    env_vars: tuple[EnvVar, ...] = ()
    apply_env_vars_to_build: bool = False
    build_tag: str = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """
    A snapshot of one version that runs can be started from. Its log is the blob ``log_key(id)``.

    ``snapshot`` is the sha256 of its source archive, the blob ``snapshot_key(snapshot)``. ``definition`` is the
    whole ``actor.json`` with the files that it names resolved. ``run_token`` and secrets never stand here.
    """

    id: str
    actor_id: str
    user_id: str
    version_number: str
    build_number: str
    status: RunStatus
    started_at: datetime
    origin: Origin
    tag: str | None = None
    finished_at: datetime | None = None
    status_message: str | None = None
    snapshot: str | None = None
    definition: JsonObject = field(default_factory=dict)
    env_vars: tuple[EnvVar, ...] = ()
    options: JsonObject = field(default_factory=dict)
    meta: JsonObject = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorTask:
    """A saved (Actor, input, options, standby settings); the API's task, never an ``asyncio.Task``."""

    id: str
    actor_id: str
    user_id: str
    name: str
    created_at: datetime
    modified_at: datetime
    title: str | None = None
    options: JsonObject = field(default_factory=dict)
    input: JsonObject | None = None
    standby_from_api: JsonObject | None = None
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What one run was started with; ``timeout_secs`` 0 is no limit."""

    build: str = "latest"
    timeout_secs: int = 0
    memory_mbytes: int = DEFAULT_MEMORY_MBYTES
    disk_mbytes: int = 2 * DEFAULT_MEMORY_MBYTES
    max_items: int | None = None
    max_total_charge_usd: float | None = None
    restart_on_error: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortWish:
    """That somebody asked for the end of a run, how and why; the supervisor fulfils it."""

    gracefully: bool
    requested_at: datetime
    reason: str | None = None


class RestartKind(StrEnum):
    """
    Why a run's program is to be started again under the same run id.

    A migration leaves it some time to end by itself; ``MIGRATION_NOW`` is one whose time is over, or of a run that has
    asked to be started at once. ``AFTER_ERROR``: it has failed, and its options ask for a restart then.
    """

    REBOOT = "reboot"
    MIGRATION = "migration"
    MIGRATION_NOW = "migration-now"
    AFTER_ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartWish:
    """That a run's program is to be stopped and started again; the supervisor fulfils it and takes it back."""

    kind: RestartKind
    requested_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    One execution of an Actor. Changed only by compare-and-set on ``version``, whoever asks.

    ``user_id`` is its owner: whose storages it fills and whose requests it may serve. ``pool_id`` is set for standby
    runs only. ``placement`` is what its launcher needs to find it again after a restart of Greenroom. ``input_key`` is
    the record of its input. ``storage_ids`` are those that its build declares beside the default ones: API name of the
    kind (``datasets``, …) → alias → id. ``parent_run_id`` is the run whose token started it.
    """

    id: str
    actor_id: str
    user_id: str
    build_id: str
    build_number: str
    status: RunStatus
    started_at: datetime
    origin: Origin
    options: RunOptions
    live_view_label: str
    default_key_value_store_id: str
    default_dataset_id: str
    default_request_queue_id: str
    task_id: str | None = None
    finished_at: datetime | None = None
    status_message: str | None = None
    is_status_message_terminal: bool = False
    exit_code: int | None = None
    meta: JsonObject = field(default_factory=dict)
    stats: JsonObject = field(default_factory=dict)
    pool_id: str | None = None
    is_container_server_ready: bool = False
    abort_wish: AbortWish | None = None
    restart_wish: RestartWish | None = None
    wound_down_because: str | None = None
    general_access: str = "FOLLOW_USER_SETTING"
    input_key: str = "INPUT"
    storage_ids: JsonObject = field(default_factory=dict)
    parent_run_id: str | None = None
    placement: JsonObject = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """
    The metadata of a key-value store, dataset or request queue; unnamed ones belong to their run.

    ``actor_id`` and ``run_id``: whose token made it. ``stats``: see ``gateway.state.storage_ports``.
    """

    id: str
    kind: StorageKind
    user_id: str
    created_at: datetime
    modified_at: datetime
    accessed_at: datetime
    name: str | None = None
    title: str | None = None
    actor_id: str | None = None
    run_id: str | None = None
    general_access: str = "FOLLOW_USER_SETTING"
    stats: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """
    One change of the autoscaler's mind about a pool: what it wanted, in words why, and on which inputs.

    ``decision`` is all of it, as the policy has made it; it is made again from ``inputs`` by the same policy.
    """

    id: str
    pool_id: str
    actor_id: str
    at: datetime
    wanted_runs: int
    present_runs: int
    reasons: tuple[str, ...]
    inputs: JsonObject = field(default_factory=dict)
    decision: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a run's web server listens, as the gateway reaches it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which part of a list is asked for."""

    offset: int = 0
    limit: int = 1000
    desc: bool = False


def log_key(job_id: str) -> str:
    """The blob that holds the log of a finished run or of a build."""
    return f"logs/{job_id}.log"


def snapshot_key(sha256: str) -> str:
    """The blob that holds a source snapshot (a gzipped tar archive)."""
    return f"sources/{sha256}.tar.gz"
