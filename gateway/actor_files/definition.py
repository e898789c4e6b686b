"""
No I/O: what the files in an Actor's folder say it is; a mistake is told with file, line and what is expected there.

``.actor/actor.json`` is read, or, where it is missing, the whitepaper's legacy files at the top level (``apify.json``,
``Dockerfile``, ``README.md``, ``INPUT_SCHEMA.json``). Source of fields and fall-backs: apify-platform.md §4.1, §4.2.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from gateway.actor_files import jsonc
from gateway.core.errors import DefinitionError, InvalidConfig
from gateway.core.ids import ACTOR_NAME_PATTERN
from gateway.core.standby import parse_standby

ACTOR_FILE = ".actor/actor.json"
LEGACY_FILE = "apify.json"

_MIN_MEMORY_MBYTES, _MAX_MEMORY_MBYTES = 128, 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """
    An Actor as its files describe it.

    ``resolved`` is the whole ``actor.json`` as given, unknown fields too, with the content of what it names in place of
    the path: texts under ``dockerfile``, ``readme`` and ``changelog``, objects under ``input``, ``output`` (also where
    the file calls them ``inputSchema``, ``outputSchema``), ``storages`` and ``webServerSchema``.
    ``environment_variables`` lack those whose value is a secret (``@name``): these stand in ``secrets``, by variable.
    ``standby_from_file`` is the partial ``actorStandby`` object, None where the file says nothing of Standby.
    """

    name: str
    version_number: str
    build_tag: str
    title: str | None
    description: str | None
    environment_variables: Mapping[str, str] | None
    secrets: Mapping[str, str]
    standby_from_file: dict[str, Any] | None
    resolved: dict[str, Any]
    dockerfile_name: str | None
    warnings: tuple[str, ...]


_Memory = Annotated[int, Field(ge=_MIN_MEMORY_MBYTES, le=_MAX_MEMORY_MBYTES)]
_Text = Annotated[str, StringConstraints(min_length=1)]
_PathOrObject = _Text | dict[str, Any]
_Name = Annotated[str, StringConstraints(pattern=rf"^(?:{ACTOR_NAME_PATTERN.pattern})$")]
_Version = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)(\.[0-9]{1,5})?$")]
_Alias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,100}$")]
_VariableName = Annotated[str, StringConstraints(pattern=r"^[^=\x00]+$")]
_VariableValue = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, alias_generator=to_camel, extra="allow")


class _Storages(_Strict):
    model_config = ConfigDict(extra="forbid")

    dataset: _PathOrObject | None = None
    datasets: Annotated[dict[_Alias, _PathOrObject], Field(min_length=1, max_length=10)] | None = None
    key_value_store: _PathOrObject | None = None


class _Scripts(_Strict):
    run: _Text | None = None


class _ActorFile(_Strict):
    actor_specification: Annotated[int, Field(ge=1, le=1)] | None = None
    name: _Name
    version: _Version
    title: str | None = None
    description: str | None = None
    build_tag: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")] | None = None
    meta: dict[str, Any] | None = None
    environment_variables: dict[_VariableName, _VariableValue] | None = None
    dockerfile: _Text | None = None
    docker_context_dir: _Text | None = None
    readme: _Text | None = None
    changelog: _Text | None = None
    input: _PathOrObject | None = None
    input_schema: _PathOrObject | None = None
    output: _PathOrObject | None = None
    output_schema: _PathOrObject | None = None
    storages: _Storages | None = None
    min_memory_mbytes: _Memory | None = None
    max_memory_mbytes: _Memory | None = None
    default_memory_mbytes: _Memory | Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = None
    uses_standby_mode: bool | None = None
    actor_standby: dict[str, Any] | None = None
    web_server_schema: _PathOrObject | None = None
    web_server_mcp_path: _Text | None = None
    scripts: _Scripts | None = None


_KNOWN = frozenset(to_camel(name) for name in _ActorFile.model_fields) | {"$schema"}

_MEMORY = f"a whole number of megabytes from {_MIN_MEMORY_MBYTES} to {_MAX_MEMORY_MBYTES}"
_FILE = "the path of a file, relative to {folder}"
_SCHEMA = f"{_FILE}, or a schema object"

# What is expected at each path; * stands for any key.
_EXPECTED: dict[tuple[str, ...], str] = {
    (): "an object with the Actor's properties",
    ("actorSpecification",): "the number 1",
    ("name",): "a DNS-friendly name of 3 to 63 letters, digits and dashes, with no dash at either end",
    ("version",): 'a text such as "0.1": MAJOR.MINOR, each from 0 to 99',
    ("title",): "a text",
    ("description",): "a text",
    ("buildTag",): "a text of letters, digits, dots, dashes and underscores, at most 63",
    ("meta",): "an object",
    ("environmentVariables",): "an object of texts by name",
    ("environmentVariables", "*"): 'a text (numbers and the like in "quotes") under a name without = and NUL',
    ("dockerfile",): _FILE,
    ("dockerContextDir",): "the path of a folder, relative to {folder}",
    ("readme",): _FILE,
    ("changelog",): _FILE,
    ("input",): _SCHEMA,
    ("inputSchema",): _SCHEMA,
    ("output",): _SCHEMA,
    ("outputSchema",): _SCHEMA,
    ("storages",): "an object with dataset or datasets, and keyValueStore",
    ("storages", "*"): "only dataset or datasets, and keyValueStore",
    ("storages", "dataset"): _SCHEMA,
    ("storages", "keyValueStore"): _SCHEMA,
    ("storages", "datasets"): "an object of 1 to 10 schemas by alias, default among them",
    ("storages", "datasets", "*"): f"{_SCHEMA}, under an alias of letters, digits and _ that begins with a letter",
    ("minMemoryMbytes",): _MEMORY,
    ("maxMemoryMbytes",): _MEMORY,
    ("defaultMemoryMbytes",): f"{_MEMORY}, or an expression of at most 1000 characters",
    ("usesStandbyMode",): "true or false",
    ("actorStandby",): "an object of Standby settings",
    ("webServerSchema",): f"{_FILE}, or an OpenAPI 3 object",
    ("webServerMcpPath",): 'a URL path such as "/mcp"',
    ("scripts",): "an object of commands by name",
    ("scripts", "*"): "a command as a text",
}


def parse_definition(files: Mapping[str, bytes], *, default_name: str | None = None) -> Definition:
    """
    The Actor that *files* (content by path relative to the Actor's folder) describe.

    With *default_name*, a folder without either file is the Actor of that name and version 0.0, as it is where the API
    knows the Actor already and gets nothing but sources. Raises DefinitionError.
    """
    actor_file = find_file(files, ACTOR_FILE)
    if actor_file is not None:
        return _Reading(files, jsonc.parse(actor_file, files[actor_file]), is_legacy=False).definition()
    legacy_file = find_file(files, LEGACY_FILE)
    if legacy_file is not None:
        document = jsonc.parse(legacy_file, files[legacy_file])
    elif default_name is not None:
        document = jsonc.Document(LEGACY_FILE, {"name": default_name}, {(): 1})
    else:
        raise DefinitionError(
            ACTOR_FILE,
            None,
            f"this file is expected to describe the Actor, or the older {LEGACY_FILE}; neither is there",
        )
    return _Reading(files, document, is_legacy=True).definition()


def find_file(files: Iterable[str], path: str) -> str | None:
    """The name among *files* that *path* means: exactly, else with letter case ignored."""
    names = files if isinstance(files, Mapping | set | frozenset) else list(files)
    if path in names:
        return path
    return min((name for name in names if name.lower() == path.lower()), default=None)


class _Reading:
    """One reading of one definition file; collects warnings on its way."""

    def __init__(self, files: Mapping[str, bytes], document: jsonc.Document, *, is_legacy: bool) -> None:
        self._files = files
        self._names = frozenset(files)
        self._document = document
        self._is_legacy = is_legacy
        self._folder = posixpath.dirname(document.file)
        self._renamed: dict[str, str] = {}
        self._warnings: list[str] = []

    def definition(self) -> Definition:
        raw = self._document.value
        if not isinstance(raw, dict):
            raise self._mistake((), "")
        if self._is_legacy:
            raw = self._from_legacy(raw)
        given = {key: value for key, value in raw.items() if value is not None}
        parsed = self._checked(given)
        self._check_together(parsed)
        self._warn_of_unknown(given)
        plain, secrets = self._variables(parsed.environment_variables)
        dockerfile_name = self._dockerfile(parsed.dockerfile)
        return Definition(
            name=parsed.name,
            version_number=".".join(parsed.version.split(".")[:2]),
            build_tag=parsed.build_tag or "latest",
            title=parsed.title,
            description=parsed.description,
            environment_variables=plain,
            secrets=secrets,
            standby_from_file=self._standby(parsed),
            resolved=self._resolved(given, parsed, dockerfile_name),
            dockerfile_name=dockerfile_name,
            warnings=tuple(self._warnings),
        )

    # Telling

    def _at(self, path: jsonc.Path) -> int | None:
        if path and path[0] in self._renamed:
            path = (self._renamed[str(path[0])], *path[1:])
        return self._document.line_of(path)

    def _error(self, path: jsonc.Path, problem: str) -> DefinitionError:
        return DefinitionError(self._document.file, self._at(path), problem)

    def _mistake(self, path: jsonc.Path, found: str) -> DefinitionError:
        """*path* holds *found*, which is not what is expected there."""
        keys = tuple(str(step) for step in path)
        while keys not in _EXPECTED and (not keys or (*keys[:-1], "*") not in _EXPECTED):
            keys = keys[:-1]
        expected = _EXPECTED.get(keys) or _EXPECTED[(*keys[:-1], "*")]
        expected = expected.format(folder=f"{self._folder}/" if self._folder else "the Actor's folder")
        subject = ".".join(str(step) for step in path)
        return self._error(path, f"{subject}: {expected} is expected{found}" if subject else f"{expected} is expected")

    def _warn_of_unknown(self, given: Mapping[str, Any]) -> None:
        for key in given:
            if key in _KNOWN:
                continue
            if key == "standby":
                advice = "; Standby settings stand in actorStandby, and usesStandbyMode switches it on"
            else:
                close = difflib.get_close_matches(key, _KNOWN, n=1, cutoff=0.85)
                advice = f"; is {close[0]} meant?" if close else ""
            self._warn((key,), f"{key} is kept, but nothing reads it{advice}")

    def _warn(self, path: jsonc.Path, text: str) -> None:
        self._warnings.append(f"{self._document.file}:{self._at(path)}: {text}")

    # Checking

    def _from_legacy(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """``env`` became ``environmentVariables``, ``template`` is dropped, and names had fewer restrictions."""
        given = {key: value for key, value in raw.items() if key not in ("env", "template")}
        if "env" in raw and "environmentVariables" not in raw:
            given["environmentVariables"] = raw["env"]
            self._renamed["environmentVariables"] = "env"
        name = given.get("name")
        if isinstance(name, str) and not ACTOR_NAME_PATTERN.fullmatch(name):
            friendly = re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-")
            if ACTOR_NAME_PATTERN.fullmatch(friendly):
                self._warn(("name",), f"{name} is no DNS-friendly name, so the Actor is called {friendly}")
                given["name"] = friendly
        if given.get("version") is None:
            given["version"] = "0.0"
        return given

    def _checked(self, given: Mapping[str, Any]) -> _ActorFile:
        try:
            parsed = _ActorFile.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            raise self._from_pydantic(given, first["type"], first["loc"]) from error
        if parsed.actor_specification is None and not self._is_legacy:
            raise self._mistake(("actorSpecification",), ", but it is missing")
        return parsed

    def _from_pydantic(self, given: Any, kind: str, location: jsonc.Path) -> DefinitionError:
        """Pydantic's location also names the branches of a union; only the steps that exist in the file count."""
        path: jsonc.Path = ()
        value = given
        for step in location:
            if isinstance(value, dict) and step in value:
                value = value[step]
                path = (*path, step)
            elif kind == "missing":
                return self._mistake((*path, step), ", but it is missing")
            else:
                break
        return self._mistake(path, f", not {_shown(value)}")

    def _check_together(self, parsed: _ActorFile) -> None:
        least, most = parsed.min_memory_mbytes, parsed.max_memory_mbytes
        if least is not None and most is not None and least > most:
            raise self._error(("minMemoryMbytes",), f"minMemoryMbytes: at most maxMemoryMbytes ({most}) is expected")
        storages = parsed.storages
        if storages is None or storages.datasets is None:
            return
        if storages.dataset is not None:
            raise self._error(("storages", "datasets"), "storages: either dataset or datasets is expected, not both")
        if "default" not in storages.datasets:
            raise self._mistake(("storages", "datasets"), ", but default is missing")

    def _standby(self, parsed: _ActorFile) -> dict[str, Any] | None:
        """The file's partial ``actorStandby``; ``usesStandbyMode`` says ``isEnabled`` where the object doesn't."""
        standby = dict(parsed.actor_standby) if parsed.actor_standby is not None else None
        if standby is not None:
            try:
                parse_standby(standby)
            except InvalidConfig as error:
                field = error.data.get("field", "actorStandby").split(".")
                raise self._error(tuple(field), error.message) from error
        if parsed.uses_standby_mode is not None:
            if (standby or {}).get("isEnabled", parsed.uses_standby_mode) != parsed.uses_standby_mode:
                self._warn(("actorStandby", "isEnabled"), "actorStandby.isEnabled wins over usesStandbyMode")
            standby = {"isEnabled": parsed.uses_standby_mode, **(standby or {})}
        elif standby is not None and "isEnabled" not in standby:
            self._warn(("actorStandby",), "actorStandby alone doesn't switch Standby on; usesStandbyMode: true does")
        return standby

    def _variables(self, given: Mapping[str, str] | None) -> tuple[dict[str, str] | None, dict[str, str]]:
        if given is None:
            return None, {}
        plain = {name: value for name, value in given.items() if not value.startswith("@")}
        return plain, {name: value[1:] for name, value in given.items() if value.startswith("@")}

    # Resolving

    def _resolved(self, given: Mapping[str, Any], parsed: _ActorFile, dockerfile_name: str | None) -> dict[str, Any]:
        resolved = dict(given)
        resolved["version"] = parsed.version
        if dockerfile_name is not None:
            resolved["dockerfile"] = _text(self._files[dockerfile_name])
        self._resolve_text(resolved, "readme", parsed.readme, ("ACTOR.md", "README.md"))
        self._resolve_text(resolved, "changelog", parsed.changelog, ("CHANGELOG.md",))
        self._resolve_schema(resolved, "input", "inputSchema", fallback="INPUT_SCHEMA.json")
        self._resolve_schema(resolved, "output", "outputSchema", fallback=None)
        if parsed.web_server_schema is not None:
            resolved["webServerSchema"] = self._openapi(given["webServerSchema"])
        if parsed.storages is not None:
            resolved["storages"] = self._storages(given["storages"])
        return resolved

    def _fallback(self, *names: str) -> str | None:
        """The first of *names* that is in ``.actor/``, else at the top level; legacy Actors have only the latter."""
        folders = ("",) if self._is_legacy else (".actor", "")
        paths = (posixpath.join(folder, name) for folder in folders for name in names)
        return next((found for path in paths if (found := find_file(self._names, path)) is not None), None)

    def _inside(self, path: str) -> str | None:
        """*path*, given relative to the definition file, as seen from the Actor's folder; None where it leaves it."""
        joined = posixpath.normpath(posixpath.join(self._folder, path))
        return None if joined.startswith(("../", "/")) or joined == ".." else joined

    def _named(self, field: jsonc.Path, path: str) -> str:
        inside = self._inside(path)
        subject = ".".join(str(step) for step in field)
        if inside is None:
            raise self._error(field, f"{subject}: a file in the Actor's folder is expected; {path} lies outside of it")
        found = find_file(self._names, inside)
        if found is None:
            raise self._error(field, f"{subject}: the file {inside} is expected, but it is missing")
        return found

    def _dockerfile(self, path: str | None) -> str | None:
        """Source: apify-platform.md §4.1; one that matches nothing falls through, one that leaves the root doesn't."""
        if path is not None:
            inside = self._inside(path)
            if inside is None:
                raise self._error(("dockerfile",), f"dockerfile: {path} points outside the Actor root directory")
            found = find_file(self._names, inside)
            if found is not None:
                return found
            self._warn(("dockerfile",), f"dockerfile: there is no {inside}, so the usual places are looked at")
        return self._fallback("Dockerfile")

    def _resolve_text(self, resolved: dict[str, Any], field: str, path: str | None, fallbacks: tuple[str, ...]) -> None:
        # The whitepaper's own example keeps a changelog outside of the Actor's folder, where a snapshot can't have it.
        if path is not None and field == "changelog" and self._inside(path) is None:
            self._warn((field,), f"{field}: {path} lies outside of the Actor's folder and is left out")
            return
        found = self._named((field,), path) if path is not None else self._fallback(*fallbacks)
        if found is not None:
            resolved[field] = _text(self._files[found])

    def _resolve_schema(self, resolved: dict[str, Any], field: str, alias: str, fallback: str | None) -> None:
        """The schema goes under *field*, whichever of the two names the file uses."""
        if field in resolved and alias in resolved:
            self._warn((alias,), f"{field} wins over {alias}, which means the same")
        named_by = field if field in resolved else alias
        given = resolved.get(named_by)
        resolved.pop(alias, None)
        if given is not None:
            resolved[field] = self._schema((named_by,), given)
            return
        found = self._fallback(fallback) if fallback is not None else None
        if found is not None:
            resolved[field] = self._schema_file(found).value

    def _schema(self, field: jsonc.Path, given: Any) -> Any:
        return self._schema_file(self._named(field, given)).value if isinstance(given, str) else given

    def _schema_file(self, name: str) -> jsonc.Document:
        document = jsonc.parse(name, self._files[name])
        if not isinstance(document.value, dict):
            raise DefinitionError(name, document.line_of(()), "a schema object is expected")
        return document

    def _storages(self, given: Mapping[str, Any]) -> dict[str, Any]:
        resolved = {key: value for key, value in given.items() if value is not None}
        for key in ("dataset", "keyValueStore"):
            if key in resolved:
                resolved[key] = self._schema(("storages", key), resolved[key])
        if "datasets" in resolved:
            resolved["datasets"] = {
                alias: self._schema(("storages", "datasets", alias), schema)
                for alias, schema in resolved["datasets"].items()
            }
        return resolved

    def _openapi(self, given: Any) -> Any:
        field: jsonc.Path = ("webServerSchema",)
        error: Callable[[str], DefinitionError]
        if isinstance(given, str):
            document = self._schema_file(self._named(field, given))
            value = document.value

            def error(problem: str) -> DefinitionError:
                return DefinitionError(document.file, document.line_of(("openapi",)), problem)
        else:
            value = given

            def error(problem: str) -> DefinitionError:
                return self._error((*field, "openapi"), problem)

        version = value.get("openapi")
        if not isinstance(version, str) or not version.startswith("3."):
            raise error('an OpenAPI 3 object is expected, with "openapi": "3.…"')
        return value


def _text(content: bytes) -> str:
    return content.decode("utf-8-sig", "replace")


def _shown(value: Any) -> str:
    """A short picture of *value* for an error text."""
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value[:60]}…"' if len(value) > 60 else f'"{value}"'
    return str(value)
