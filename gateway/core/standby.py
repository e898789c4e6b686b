"""
No I/O: what an ``actorStandby`` object means, and which pool serves whom.

A partial object is merged over the stored one, over the defaults; then the merged result is validated, and an invalid
one changes nothing. Source: apify-platform.md §1.4, §1.5; Greenroom's own keys are in design §8.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from gateway.core.errors import InvalidConfig
from gateway.core.model import MEMORY_STEPS_MBYTES, Actor, Build


class Tenancy(StrEnum):
    """Whose run serves a request: the caller's own, or the developer's, shared by all callers."""

    SINGLE_TENANT = "SINGLE_TENANT"
    MULTI_TENANT = "MULTI_TENANT"


@dataclass(frozen=True, slots=True, kw_only=True)
class StandbyConfig:
    """
    The effective standby settings of an Actor.

    ``desired_requests_per_run``: above it in every run, one more run is started ahead of demand.
    ``max_requests_per_run``: never more requests than that in one run at once.
    ``idle_timeout_secs``: a run without any use for so long is wound down.
    ``min_runs`` stay warm; ``max_runs`` None: only the machine's limits hold.
    ``public``: no token is asked for, and all callers share the owner's runs.
    ``forward_credentials``: the caller's token reaches the Actor (single tenancy only).
    ``first_byte_timeout_secs``, ``pick_timeout_secs`` None: the server's settings hold.
    ``stream_idle_timeout_secs`` None: a stream may be silent for as long as it likes.
    ``stream_silence_timeout_secs``: a socket or stream on which nothing but pings (in an event stream: comment lines)
    has passed for so long is no use any more, and closed when its run goes idle; None: for as long as it is open.
    ``idle_ignored_user_agents`` (what a ``User-Agent`` begins with) and ``idle_ignored_paths`` (whole paths, without
    query): such requests, a health checker's, are served by a run that is there, but they are no use and wake nobody.
    ``freeze_after_secs``: a run without use for so long is frozen, if that is less than its idle timeout, it uses next
    to no CPU, and nothing of it listens to the system's events; ``freeze_with_open_sockets``: also while sockets are
    open in it that are silent for ``stream_silence_timeout_secs``.
    ``liveness_path``: asked of each run that serves, every ``liveness_every_secs``; one that three times in a row
    answers 500 or more, or not within 5 s, is replaced. None: no run is asked.
    ``should_pass_actor_input``: a run finds an input, the defaults of its build's schema.
    ``disable_standby_fields_override`` is checked and kept; nothing acts on it yet.
    """

    is_enabled: bool = False
    desired_requests_per_run: int = 3
    max_requests_per_run: int = 4
    idle_timeout_secs: float = 300
    build: str = "latest"
    memory_mbytes: int = 1024
    should_pass_actor_input: bool = False
    disable_standby_fields_override: bool = False
    tenancy: Tenancy = Tenancy.SINGLE_TENANT
    public: bool = False
    owner_only: bool = False
    min_runs: int = 0
    max_runs: int | None = None
    freeze_after_secs: float | None = None
    forward_credentials: bool = False
    pick_timeout_secs: float | None = None
    first_byte_timeout_secs: float | None = None
    stream_idle_timeout_secs: float | None = None
    stream_silence_timeout_secs: float | None = None
    idle_ignored_user_agents: tuple[str, ...] = ()
    idle_ignored_paths: tuple[str, ...] = ()
    freeze_with_open_sockets: bool = False
    liveness_path: str | None = None
    liveness_every_secs: float = 10

    @property
    def is_shared(self) -> bool:
        """Whether all callers share the owner's runs."""
        return self.public or self.tenancy is Tenancy.MULTI_TENANT


MAX_IGNORED = 10
MAX_IGNORED_CHARS = 200

# API key → (field, kind). Kinds: bool, int, secs (a number that may be fractional), text, texts.
_FIELDS: dict[str, tuple[str, str]] = {
    "isEnabled": ("is_enabled", "bool"),
    "desiredRequestsPerActorRun": ("desired_requests_per_run", "int"),
    "maxRequestsPerActorRun": ("max_requests_per_run", "int"),
    "idleTimeoutSecs": ("idle_timeout_secs", "secs"),
    "build": ("build", "text"),
    "memoryMbytes": ("memory_mbytes", "int"),
    "shouldPassActorInput": ("should_pass_actor_input", "bool"),
    "disableStandbyFieldsOverride": ("disable_standby_fields_override", "bool"),
    "tenancy": ("tenancy", "text"),
    "public": ("public", "bool"),
    "ownerOnly": ("owner_only", "bool"),
    "minRuns": ("min_runs", "int"),
    "maxRuns": ("max_runs", "int?"),
    "freezeAfterSecs": ("freeze_after_secs", "secs?"),
    "forwardCredentials": ("forward_credentials", "bool"),
    "pickTimeoutSecs": ("pick_timeout_secs", "secs?"),
    "firstByteTimeoutSecs": ("first_byte_timeout_secs", "secs?"),
    "streamIdleTimeoutSecs": ("stream_idle_timeout_secs", "secs?"),
    "streamSilenceTimeoutSecs": ("stream_silence_timeout_secs", "secs?"),
    "idleIgnoredUserAgents": ("idle_ignored_user_agents", "texts"),
    "idleIgnoredPaths": ("idle_ignored_paths", "texts"),
    "freezeWithOpenSockets": ("freeze_with_open_sockets", "bool"),
    "livenessPath": ("liveness_path", "text?"),
    "livenessEverySecs": ("liveness_every_secs", "secs"),
}

_PRINTABLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_PATH = re.compile(r"/[!\"$->@-~]*")  # without ? and #
_TARGET = re.compile(r"/[!\"$-~]*")  # without #

# The platform drops these two silently for everybody but its own staff.
_IGNORED = frozenset({"isConsoleAuthEnabled", "isTokenlessEnabled"})

_EXPECTED = {
    "bool": "true or false",
    "int": "a whole number",
    "secs": "a number of seconds",
    "text": "a text",
    "texts": f"a list of at most {MAX_IGNORED} texts of at most {MAX_IGNORED_CHARS} characters",
}


def _checked(key: str, kind: str, value: Any) -> Any:
    optional = kind.endswith("?")
    base = kind.rstrip("?")
    if optional and value is None:
        return None
    fits = {
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "secs": isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value),
        "text": isinstance(value, str) and value != "",
        "texts": isinstance(value, list) and len(value) <= MAX_IGNORED and all(_is_short(text) for text in value),
    }[base]
    if not fits:
        raise InvalidConfig(
            f"actorStandby.{key} is {_EXPECTED[base]}{' or null' if optional else ''}, not {value!r:.200}.",
            data={"field": f"actorStandby.{key}"},
        )
    return tuple(value) if base == "texts" else value


def _is_short(text: Any) -> bool:
    return isinstance(text, str) and 0 < len(text) <= MAX_IGNORED_CHARS


def _is_finite(number: float) -> bool:
    """Also no integer that is too large to be compared with a clock."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def merge(stored: Mapping[str, Any] | None, given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The partial *given* over the *stored* one; None where neither was ever given."""
    if stored is None and given is None:
        return None
    return {**(stored or {}), **{key: value for key, value in (given or {}).items() if key not in _IGNORED}}


def parse_standby(merged: Mapping[str, Any] | None) -> StandbyConfig:
    """
    The settings that a merged ``actorStandby`` object means, over the defaults.

    Raises InvalidConfig, whose message names the key and what is expected; unknown keys are refused.
    """
    values: dict[str, Any] = {}
    for key, value in (merged or {}).items():
        if key in _IGNORED:
            continue
        if key not in _FIELDS:
            known = ", ".join(sorted(_FIELDS))
            raise InvalidConfig(
                f"actorStandby.{key} is not a setting. Known ones: {known}.", data={"field": f"actorStandby.{key}"}
            )
        name, kind = _FIELDS[key]
        values[name] = _checked(key, kind, value)
    if "tenancy" in values:
        try:
            values["tenancy"] = Tenancy(values["tenancy"])
        except ValueError:
            raise InvalidConfig(
                "actorStandby.tenancy is SINGLE_TENANT or MULTI_TENANT.", data={"field": "actorStandby.tenancy"}
            ) from None
    config = StandbyConfig(**values)
    _validate(config)
    return config


def _validate(config: StandbyConfig) -> None:
    def demand(holds: bool, key: str, message: str) -> None:
        if not holds:
            raise InvalidConfig(f"actorStandby.{key}: {message}", data={"field": f"actorStandby.{key}"})

    demand(config.desired_requests_per_run >= 1, "desiredRequestsPerActorRun", "At least 1.")
    demand(
        config.max_requests_per_run >= config.desired_requests_per_run,
        "maxRequestsPerActorRun",
        "Max requests must be greater than or equal to desired requests.",
    )
    demand(config.idle_timeout_secs >= 1, "idleTimeoutSecs", "At least 1.")
    demand(
        config.memory_mbytes in MEMORY_STEPS_MBYTES,
        "memoryMbytes",
        f"A power of two from {MEMORY_STEPS_MBYTES[0]} to {MEMORY_STEPS_MBYTES[-1]}.",
    )
    demand(config.min_runs >= 0, "minRuns", "At least 0.")
    demand(config.max_runs is None or config.max_runs >= max(1, config.min_runs), "maxRuns", "At least 1 and minRuns.")
    for key, secs in (
        ("freezeAfterSecs", config.freeze_after_secs),
        ("pickTimeoutSecs", config.pick_timeout_secs),
        ("firstByteTimeoutSecs", config.first_byte_timeout_secs),
        ("streamIdleTimeoutSecs", config.stream_idle_timeout_secs),
        ("streamSilenceTimeoutSecs", config.stream_silence_timeout_secs),
    ):
        demand(secs is None or secs > 0, key, "More than 0.")
    demand(
        all(map(_PRINTABLE.fullmatch, config.idle_ignored_user_agents)),
        "idleIgnoredUserAgents",
        "Beginnings of User-Agent headers, such as kube-probe/, in printable ASCII without a space at either end.",
    )
    demand(
        all(map(_PATH.fullmatch, config.idle_ignored_paths)),
        "idleIgnoredPaths",
        "Whole paths such as /health, as they are asked for: from the first slash, without query.",
    )
    demand(
        config.liveness_path is None
        or (len(config.liveness_path) <= MAX_IGNORED_CHARS and _TARGET.fullmatch(config.liveness_path) is not None),
        "livenessPath",
        f"A path such as /health, with or without a query, of at most {MAX_IGNORED_CHARS} characters.",
    )
    demand(1 <= config.liveness_every_secs <= 3600, "livenessEverySecs", "From 1 to 3600.")
    demand(
        not (config.forward_credentials and config.is_shared),
        "forwardCredentials",
        "Only in single tenancy and without public: a stranger's token must not reach a shared run.",
    )


def effective(actor: Actor) -> dict[str, Any] | None:
    """The partial ``actorStandby`` in force: what the API set wins, key by key, over the file. None: never set."""
    return merge(actor.standby_from_file, actor.standby_from_api)


def as_api_object(merged: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The whole ``actorStandby`` object as the API shows it: defaults filled in; None where it was never set."""
    if merged is None:
        return None
    config = parse_standby(merged)
    shown: dict[str, Any] = {}
    for key, (name, _) in _FIELDS.items():
        value = getattr(config, name)
        shown[key] = str(value) if isinstance(value, StrEnum) else list(value) if isinstance(value, tuple) else value
    return shown


class PoolKey(NamedTuple):
    """
    Whose requests to what share runs: (Actor or task, whose runs, token scope).

    Build and memory are the pool's *generation* and not part of its name: when the standby tag moves, the runs of the
    new generation serve first and those of the old one drain, within one pool and hence without a gap.
    """

    target_id: str
    user_id: str
    scope: str = ""

    @property
    def id(self) -> str:
        """The pool's name in records, signals and logs."""
        parts = (self.target_id, self.user_id, self.scope) if self.scope else (self.target_id, self.user_id)
        return ".".join(parts)

    @classmethod
    def parse(cls, pool_id: str) -> PoolKey:
        """The key that *pool_id* names."""
        target_id, user_id, *rest = pool_id.split(".", 2)
        return cls(target_id=target_id, user_id=user_id, scope=rest[0] if rest else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What the runs of a pool are made from; a run of another generation than the target's is retired."""

    build_id: str
    memory_mbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StandbyTarget:
    """All that the gateway and the autoscaler need to know of one standby host, resolved from records."""

    actor_id: str
    owner_id: str
    owner_name: str
    is_public_actor: bool
    config: StandbyConfig
    generation: Generation | None

    def pool_for(self, user_id: str | None, scope: str = "") -> PoolKey:
        """The pool that serves *user_id* (None: nobody in particular, at a public host)."""
        if self.config.is_shared or user_id is None:
            return PoolKey(target_id=self.actor_id, user_id=self.owner_id)
        return PoolKey(target_id=self.actor_id, user_id=user_id, scope=scope)

    def may_run(self, user_id: str) -> bool:
        """Whether *user_id* may call this target at all; to others it does not exist."""
        return user_id == self.owner_id or (self.is_public_actor and not self.config.owner_only)


def standby_target(actor: Actor, owner_name: str, numbered: Build | None = None) -> StandbyTarget:
    """
    The standby host of *actor*; ``generation`` is None while its tag points to no build.

    *numbered* is the finished build whose number the settings name in place of a tag, if they do.
    """
    config = parse_standby(effective(actor))
    tagged = actor.tagged_builds.get(config.build)
    build_id = tagged.build_id if tagged else numbered.id if numbered else None
    generation = Generation(build_id=build_id, memory_mbytes=config.memory_mbytes) if build_id else None
    return StandbyTarget(
        actor_id=actor.id,
        owner_id=actor.user_id,
        owner_name=owner_name,
        is_public_actor=actor.is_public,
        config=config,
        generation=generation,
    )
