"""No I/O: what the body of a create or update makes of a version and of its environment variables."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gateway.api.fields import Fields, refuse
from gateway.api.views import SOURCE_KEYS
from gateway.core.model import ActorVersion, EnvVar

SOURCE_TYPES = ("SOURCE_FILES", "GIT_REPO", "TARBALL", "GITHUB_GIST")
_SOURCE_KEY = dict(zip(SOURCE_TYPES, SOURCE_KEYS, strict=True))
_NUMBER = re.compile(r"(?:0|[1-9]\d?)\.(?:0|[1-9]\d?)", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62})")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_MAX_VALUE_CHARS = 50_000

Seal = Callable[[str], str]


def checked_number(number: str, field: str = "versionNumber") -> str:
    """``MAJOR.MINOR``, each from 0 to 99. Raises InvalidRequest."""
    if not _NUMBER.fullmatch(number):
        raise refuse(field, "MAJOR.MINOR with parts from 0 to 99, for example 0.1")
    return number


def checked_tag(tag: str, field: str) -> str:
    """A tag that builds may carry. Raises InvalidRequest."""
    if not _TAG.fullmatch(tag):
        raise refuse(field, "1 to 63 letters, digits, dots, hyphens and underscores")
    return tag


def _checked_source_files(fields: Fields) -> list[dict[str, Any]]:
    files: list[dict[str, Any]] = []
    seen: set[str] = set()
    for entry in fields.objects("sourceFiles"):
        name = entry.needed_text("name", max_chars=1000)
        parts = name.removesuffix("/").split("/")
        if name.startswith("/") or "\0" in name or "\\" in name or any(part in ("", ".", "..") for part in parts):
            raise refuse(entry.name_of("name"), "a relative path with slashes that stays within the Actor's folder")
        if name in seen:
            raise refuse(entry.name_of("name"), "unique in sourceFiles")
        seen.add(name)
        if entry.flag("folder"):
            files.append({"name": name, "folder": True})
            continue
        encoding = entry.text("format", "TEXT")
        if encoding not in ("TEXT", "BASE64"):
            raise refuse(entry.name_of("format"), "TEXT or BASE64")
        content = entry.text("content", max_chars=20_000_000)
        if encoding == "BASE64":
            try:
                b64decode(content, validate=True)
            except (binascii.Error, ValueError):
                raise refuse(entry.name_of("content"), "Base64 text, as its format says") from None
        files.append({"name": name, "format": encoding, "content": content})
    return files


def _changed_source(stored: ActorVersion, source_type: str, fields: Fields) -> dict[str, Any]:
    key = _SOURCE_KEY[source_type]
    if key not in fields:
        return dict(stored.source) if source_type == stored.source_type else {}
    if key == "sourceFiles":
        return {key: _checked_source_files(fields)}
    return {key: fields.needed_text(key, max_chars=5000)}


def changed_env_var(stored: EnvVar | None, fields: Fields, seal: Seal) -> EnvVar:
    """
    A variable as *fields* want it. The value of a secret one is sealed; since it is never shown, one that comes back
    without a value keeps the *stored* one.
    """
    name = fields.needed_text("name")
    if not _VARIABLE_NAME.fullmatch(name):
        raise refuse(fields.name_of("name"), "letters, digits and underscores, not beginning with a digit")
    is_secret = fields.flag("isSecret", stored.is_secret if stored is not None else False)
    if fields.values.get("value") is None and stored is not None and stored.is_secret == is_secret:
        return EnvVar(name=name, value=stored.value, is_secret=is_secret)
    value = fields.text("value", max_chars=_MAX_VALUE_CHARS)
    if "\0" in value:
        raise refuse(fields.name_of("value"), "without NUL characters")
    return EnvVar(name=name, value=seal(value) if is_secret else value, is_secret=is_secret)


def changed_env_vars(stored: tuple[EnvVar, ...], fields: Fields, seal: Seal) -> tuple[EnvVar, ...]:
    """The ``envVars`` list of *fields* in place of the *stored* ones."""
    by_name = {variable.name: variable for variable in stored}
    changed: dict[str, EnvVar] = {}
    for entry in fields.objects("envVars"):
        variable = changed_env_var(by_name.get(entry.text("name")), entry, seal)
        if variable.name in changed:
            raise refuse(entry.name_of("name"), "unique in envVars")
        changed[variable.name] = variable
    return tuple(changed.values())


def new_version(actor_id: str, fields: Fields, seal: Seal) -> ActorVersion:
    """The version that *fields* describe; ``versionNumber`` and ``sourceType`` must be there."""
    number = checked_number(fields.needed_text("versionNumber"), fields.name_of("versionNumber"))
    fields.needed_text("sourceType")
    blank = ActorVersion(actor_id=actor_id, version_number=number, source_type="", source={})
    return changed_version(blank, fields, seal)


def changed_version(version: ActorVersion, fields: Fields, seal: Seal) -> ActorVersion:
    """*version* as *fields* want it; what they leave out stays, its number always does."""
    source_type = fields.text("sourceType") or version.source_type
    if source_type not in SOURCE_TYPES:
        raise refuse(fields.name_of("sourceType"), f"one of {', '.join(SOURCE_TYPES)}")
    tag = fields.text("buildTag") or version.build_tag
    return replace(
        version,
        source_type=source_type,
        source=_changed_source(version, source_type, fields),
        env_vars=changed_env_vars(version.env_vars, fields, seal) if "envVars" in fields else version.env_vars,
        apply_env_vars_to_build=fields.flag("applyEnvVarsToBuild", version.apply_env_vars_to_build),
        build_tag=checked_tag(tag, fields.name_of("buildTag")),
    )
