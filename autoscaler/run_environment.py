"""
No I/O: the environment of a run, as the whitepaper's table and the SDKs want it.

Every variable is set under its condition or not at all, never empty; older aliases carry the same value, since the
JavaScript SDK prefers them. Source: apify-wire.md §1; whitepaper, "Environment variables".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from gateway.core.model import Actor, Build, EnvVar, Run
from gateway.core.times import iso
from gateway.input_secrets import PrivateKey
from gateway.new_run import storage_ids

# name → the older names that SDKs still read
_ALIASES: dict[str, tuple[str, ...]] = {
    "ACTOR_ID": ("APIFY_ACTOR_ID", "APIFY_ACT_ID"),
    "ACTOR_RUN_ID": ("APIFY_ACTOR_RUN_ID", "APIFY_ACT_RUN_ID"),
    "ACTOR_BUILD_ID": ("APIFY_ACTOR_BUILD_ID",),
    "ACTOR_BUILD_NUMBER": ("APIFY_ACTOR_BUILD_NUMBER",),
    "ACTOR_TASK_ID": ("APIFY_ACTOR_TASK_ID",),
    "ACTOR_DEFAULT_KEY_VALUE_STORE_ID": ("APIFY_DEFAULT_KEY_VALUE_STORE_ID",),
    "ACTOR_DEFAULT_DATASET_ID": ("APIFY_DEFAULT_DATASET_ID",),
    "ACTOR_DEFAULT_REQUEST_QUEUE_ID": ("APIFY_DEFAULT_REQUEST_QUEUE_ID",),
    "ACTOR_INPUT_KEY": ("APIFY_INPUT_KEY",),
    "ACTOR_EVENTS_WEBSOCKET_URL": ("APIFY_ACTOR_EVENTS_WS_URL",),
    "ACTOR_MEMORY_MBYTES": ("APIFY_MEMORY_MBYTES",),
    "ACTOR_STARTED_AT": ("APIFY_STARTED_AT",),
    "ACTOR_TIMEOUT_AT": ("APIFY_TIMEOUT_AT",),
    "ACTOR_WEB_SERVER_PORT": ("APIFY_CONTAINER_PORT", "ACTOR_STANDBY_PORT"),
    "ACTOR_WEB_SERVER_URL": ("APIFY_CONTAINER_URL",),
}

PORT_VARIABLES = ("ACTOR_WEB_SERVER_PORT", "ACTOR_STANDBY_PORT", "APIFY_CONTAINER_PORT")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """
    What the environment is made from, besides the records; URLs as ``gateway.urls`` makes them. ``input_key`` opens the
    secret fields of the input.
    """

    owner_name: str
    token: str
    api_url: str
    public_api_url: str
    events_url: str
    live_view_url: str
    standby_url: str | None
    web_server_port: int
    dedicated_cpus: float
    input_key: PrivateKey | None = None


def wanted_port(env_vars: Mapping[str, str]) -> int | None:
    """The port that an Actor version insists on by its own variable; None: any will do."""
    for name in PORT_VARIABLES:
        text = env_vars.get(name, "")
        if text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536:
            return int(text)
    return None


def run_environment(
    run: Run, actor: Actor, build: Build, context: RunContext, env_vars: Mapping[str, str]
) -> dict[str, str]:
    """The whole environment contract of *run*. *env_vars* are the version's own (opened); they never win over ours."""
    tags = [tag for tag, tagged in actor.tagged_builds.items() if tagged.build_id == build.id]
    options = run.options
    values: dict[str, str | None] = {
        "APIFY_IS_AT_HOME": "1",
        "APIFY_TOKEN": context.token,
        "APIFY_API_BASE_URL": context.api_url,
        "APIFY_API_PUBLIC_BASE_URL": context.public_api_url,
        "APIFY_META_ORIGIN": str(run.origin),
        "APIFY_USER_ID": run.user_id,
        "APIFY_DEDICATED_CPUS": _number(context.dedicated_cpus),
        "ACTOR_ID": actor.id,
        "ACTOR_FULL_NAME": f"{context.owner_name}/{actor.name}",
        "ACTOR_RUN_ID": run.id,
        "ACTOR_TASK_ID": run.task_id,
        "ACTOR_BUILD_ID": build.id,
        "ACTOR_BUILD_NUMBER": build.build_number,
        "ACTOR_BUILD_TAGS": ",".join(sorted(tags)) or None,
        "ACTOR_DEFAULT_KEY_VALUE_STORE_ID": run.default_key_value_store_id,
        "ACTOR_DEFAULT_DATASET_ID": run.default_dataset_id,
        "ACTOR_DEFAULT_REQUEST_QUEUE_ID": run.default_request_queue_id,
        "ACTOR_INPUT_KEY": run.input_key,
        "APIFY_INPUT_SECRETS_PRIVATE_KEY_FILE": context.input_key.pem_base64 if context.input_key else None,
        "APIFY_INPUT_SECRETS_PRIVATE_KEY_PASSPHRASE": context.input_key.passphrase if context.input_key else None,
        # Only where there is more than the default ones, which have variables of their own.
        "ACTOR_STORAGES_JSON": json.dumps(storage_ids(run)) if run.storage_ids else None,
        "ACTOR_EVENTS_WEBSOCKET_URL": context.events_url,
        "ACTOR_MEMORY_MBYTES": str(options.memory_mbytes),
        "ACTOR_STARTED_AT": iso(run.started_at),
        "ACTOR_TIMEOUT_AT": (
            iso(run.started_at + timedelta(seconds=options.timeout_secs)) if options.timeout_secs else None
        ),
        "ACTOR_WEB_SERVER_PORT": str(context.web_server_port),
        "ACTOR_WEB_SERVER_URL": context.live_view_url,
        "ACTOR_STANDBY_URL": context.standby_url,
        "ACTOR_PERMISSION_LEVEL": "LIMITED_PERMISSIONS",
        "ACTOR_RESTART_ON_ERROR": "1" if options.restart_on_error else None,
        "ACTOR_MAX_PAID_DATASET_ITEMS": str(options.max_items) if options.max_items is not None else None,
        "ACTOR_MAX_TOTAL_CHARGE_USD": (
            _number(options.max_total_charge_usd) if options.max_total_charge_usd is not None else None
        ),
    }
    environment = dict(env_vars)
    for name, value in values.items():
        for known in (name, *_ALIASES.get(name, ())):
            environment.pop(known, None)
            if value is not None:
                environment[known] = value
    return environment


def opened(env_vars: Iterable[EnvVar], open_secret: Callable[[str], str]) -> dict[str, str]:
    """Name → value of a version's variables; *open_secret* unseals the values of secret ones."""
    return {var.name: open_secret(var.value) if var.is_secret else var.value for var in env_vars}


def _number(value: float) -> str:
    """*value* exactly, as a plain decimal: no exponent, and no ``.0`` at the end."""
    return f"{Decimal(repr(float(value))):f}".removesuffix(".0")
