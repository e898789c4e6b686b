"""
No I/O: what an Actor's files ask for before it can start as a process, and under which key the result is cached.

Two sources with the same key can share one environment: the key covers the requirement files, those that they include,
the interpreter, and the whole source where a requirement reaches into it.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.actor_files import jsonc
from gateway.core.errors import DefinitionError

_INCLUDE = re.compile(r"(?:-r|-c|--requirement|--constraint)(?:\s+|=)\s*(\S+)|-[rc](\S+)")
_PYTHON = re.compile(r"(?:pip|python)[0-9.]*")
_INTERPRETER = re.compile(r"(?:python|pip)[0-9.]*|node|npm|npx")
_NODE = frozenset({"node", "npm", "npx"})

_DEPENDENCIES = ("dependencies", "optionalDependencies", "peerDependencies")
_INSTALL_SCRIPTS = ("preinstall", "install", "postinstall", "prepare")
_LOCKS = ("npm-shrinkwrap.json", "package-lock.json")  # in the order in which npm prefers them


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonRecipe:
    """
    A virtual environment. ``requirements_file``: to install from, relative to the source. ``requirements``: the same
    as a text, where they stand in ``pyproject.toml``. With neither of them it stays bare, without pip.
    """

    key: str
    requirements_file: str | None = None
    requirements: str | None = None

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing to install."""
        return self.requirements_file is None and self.requirements is None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecipe:
    """
    A ``node_modules``, made beside copies of *files*; None of them where nothing has to be installed.

    ``needs_source``: packages or install scripts lie in the source, so all of it is copied instead.
    """

    key: str
    files: tuple[str, ...]
    has_lock: bool
    needs_install: bool
    needs_source: bool


def python_recipe(
    files: Mapping[str, bytes], argv: tuple[str, ...], *, snapshot: str, interpreter: str
) -> PythonRecipe | None:
    """
    What the Actor needs of Python; None where nothing looks like Python.

    *interpreter* is all that tells one from another. Raises DefinitionError for a broken ``pyproject.toml``.
    """
    if "requirements.txt" in files:
        covered = _with_included(files, "requirements.txt")
        lines = [line for text in covered.values() for line in _lines(text)]
        if lines:
            scope = snapshot if any(_is_local(line) for line in lines) else ""
            key = _key("pip", interpreter, scope, *(part for item in sorted(covered.items()) for part in item))
            return PythonRecipe(key=key, requirements_file="requirements.txt")
    elif "pyproject.toml" in files:
        dependencies = _project_dependencies(files["pyproject.toml"])
        if dependencies:
            text = "".join(f"{line}\n" for line in dependencies)
            scope = snapshot if any(_is_local(line) for line in dependencies) else ""
            return PythonRecipe(key=_key("pip", interpreter, scope, text), requirements=text)
    if not _PYTHON.fullmatch(argv[0].rsplit("/", 1)[-1]) and not any(name.endswith(".py") for name in files):
        return None
    return PythonRecipe(key=_key("bare", interpreter))


def node_recipe(files: Mapping[str, bytes], *, snapshot: str, node: str) -> NodeRecipe | None:
    """What the Actor needs of npm, with *node* (its version); None without ``package.json``. Raises DefinitionError."""
    if "package.json" not in files:
        return None
    package = jsonc.parse("package.json", files["package.json"]).value
    if not isinstance(package, dict):
        raise DefinitionError("package.json", 1, "an object is expected")
    versions = [version for kind in _DEPENDENCIES for version in _object(package, kind).values()]
    has_scripts = any(script in _object(package, "scripts") for script in _INSTALL_SCRIPTS)
    needs_source = has_scripts or "workspaces" in package or any(_is_local_package(version) for version in versions)
    lock = next((name for name in _LOCKS if name in files), None)
    names = tuple(name for name in ("package.json", lock, ".npmrc") if name is not None and name in files)
    contents = [part for name in names for part in (name, files[name].decode("utf-8", "replace"))]
    return NodeRecipe(
        key=_key("npm", node, snapshot if needs_source else "", *contents),
        files=names,
        has_lock=lock is not None,
        needs_install=bool(versions) or has_scripts or "workspaces" in package,
        needs_source=needs_source,
    )


def needs_node(argv: tuple[str, ...]) -> bool:
    """Whether the command itself is Node's."""
    return argv[0].rsplit("/", 1)[-1] in _NODE


def resolve(argv: tuple[str, ...], executables: Mapping[str, Path]) -> tuple[str, ...]:
    """
    *argv* with its program from *executables* (by name), where it is there.

    An interpreter's path in some image, such as ``/usr/local/bin/python3``, counts as its name.
    """
    program = argv[0]
    name = program.rsplit("/", 1)[-1]
    if program.startswith("/") and _INTERPRETER.fullmatch(name):
        program = name
    found = executables.get(program)
    return (str(found) if found is not None else program, *argv[1:])


def _key(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _object(package: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = package.get(name)
    return value if isinstance(value, dict) else {}


def _is_local_package(version: Any) -> bool:
    return isinstance(version, str) and version.startswith(("file:", "link:", ".", "/", "~/"))


def _lines(text: str) -> Iterable[str]:
    """The lines of a requirements file that say something, continued ones joined."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        bare = re.sub(r"(^|\s)#.*", "", line).strip()
        if bare:
            yield bare


def _with_included(files: Mapping[str, bytes], name: str) -> dict[str, str]:
    """The requirements file *name* and all that it includes, as far as they are in the source."""
    found: dict[str, str] = {}
    wanted = [name]
    while wanted:
        path = wanted.pop()
        if path in found or path not in files:
            continue
        found[path] = files[path].decode("utf-8", "replace")
        for line in _lines(found[path]):
            if match := _INCLUDE.match(line):
                included = match.group(1) or match.group(2)
                wanted.append(posixpath.normpath(posixpath.join(posixpath.dirname(path), included)))
    return found


def _is_local(line: str) -> bool:
    """Whether a requirement may lie in the source: better once too often than an environment with old code."""
    if _INCLUDE.match(line):
        return False
    if line.startswith(("-e", "--editable", "-f", "--find-links", ".")):
        return True
    return "file:" in line or ("/" in line and "://" not in line)


def _project_dependencies(content: bytes) -> list[str]:
    try:
        project = tomllib.loads(content.decode()).get("project")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DefinitionError("pyproject.toml", None, f"TOML is expected ({error})") from error
    dependencies = project.get("dependencies") if isinstance(project, dict) else None
    if dependencies is None:
        return []
    if not isinstance(dependencies, list) or not all(isinstance(line, str) for line in dependencies):
        raise DefinitionError("pyproject.toml", None, "project.dependencies: an array of texts is expected")
    return dependencies
