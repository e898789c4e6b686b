"""The settings of a command from flags, variables and file, with where each comes from; mistakes told in words."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from gateway.refusals import USAGE, Refused
from gateway.settings import Settings, config_file
from gateway.store_urls import has_password, masked

_SECRET = frozenset({"token"})
# Addresses that may hold passwords.
_URLS = frozenset({"signals_url", "records_url", "blobs_url"})

# Settings with a flag of their own; all others are given by --set KEY=VALUE.
FLAGS = {
    "host": "--host",
    "port": "--port",
    "domain": "--domain",
    "data": "--data",
    "launcher": "--launcher",
    "actors": "--actors",
    "user": "--user",
    "token_file": "--token-file",
    "trust_users": "--trust-users",
    "workers": "--workers",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """One setting as it holds: its value as text (secrets masked), and who says so."""

    name: str
    value: str
    origin: str


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"GREENROOM_{name.upper()}"


def flag(name: str) -> str:
    """How a setting is given on the command line."""
    return FLAGS.get(name, f"--set {name}=VALUE")


def load_settings(given: Mapping[str, Any]) -> Settings:
    """The effective settings, with *given* (from flags) above all. Raises Refused with one line for each mistake."""
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise Refused(*(_told(dict(mistake)) for mistake in error.errors()), exit_code=USAGE) from error
    except SettingsError as error:
        raise Refused(f"{error}.", exit_code=USAGE) from error
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise Refused(f"the settings file {config_file()} can't be read: {error}.", exit_code=USAGE) from error
    # The worker and the commands must mean the same folders wherever they stand.
    absolute: dict[str, Any] = {
        "data": settings.data.absolute(),
        "actors": tuple(folder.absolute() for folder in settings.actors),
        "tls_certificates": tuple(path.absolute() for path in settings.tls_certificates),
        "token_file": settings.token_file.absolute() if settings.token_file else None,
        "token": settings.token or None,
    }
    return settings.model_copy(update=absolute)


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """What ``--set KEY=VALUE`` gave. Raises Refused."""
    parsed = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        name = key.strip().lower().replace("-", "_")
        if not equals:
            raise Refused(f"--set {assignment}: KEY=VALUE is expected, e.g. --set tick_secs=1.", exit_code=USAGE)
        if name in _SECRET or (name in _URLS and has_password(value)):
            raise Refused(
                f"--set {name}: a secret in a command line can be read by every user of this machine; "
                f"give it as the variable {variable(name)}.",
                exit_code=USAGE,
            )
        if name not in Settings.model_fields:
            raise Refused(f"--set {key}: {_unknown(name)}", exit_code=USAGE)
        parsed[name] = value
    return parsed


def explain(settings: Settings, given: Mapping[str, Any]) -> list[Effective]:
    """Every setting with its value and its origin, in the order of their declaration."""
    variables = {name.upper() for name in os.environ}
    in_file = _file_keys()
    shown = []
    for name in Settings.model_fields:
        if name in given:
            origin = f"flag {flag(name)}"
        elif variable(name) in variables:
            origin = f"variable {variable(name)}"
        elif name in in_file:
            origin = f"file {config_file()}"
        else:
            origin = "default"
        shown.append(Effective(name=name, value=_shown(name, getattr(settings, name)), origin=origin))
    return shown


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if name in _SECRET:
        return "(given, not shown)"
    if name in _URLS:
        return masked(str(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value) or "none"
    if isinstance(value, dict):
        return json.dumps(value) if value else "none"
    return str(value)


def _file_keys() -> frozenset[str]:
    try:
        with config_file().open("rb") as file:
            return frozenset(tomllib.load(file))
    except OSError:
        return frozenset()


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "'greenroom config' lists all."
    return f"there is no such setting; {hint}"


def _told(mistake: dict[str, Any]) -> str:
    """One mistake of pydantic's as one line: which setting, what was given, what is expected."""
    name = str(mistake["loc"][0])
    if mistake["type"] == "extra_forbidden":
        return f"{name} in {config_file()}: {_unknown(name)}"
    expected = str(mistake["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    shown = "" if name in _SECRET | _URLS else f"{mistake['input']!r} is not accepted: "
    meaning = Settings.model_fields[name].description or ""
    return f"{flag(name)} ({variable(name)}): {shown}{expected}. {meaning}".rstrip()
