"""No I/O: which command starts an Actor as a process, found in its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.actor_files import jsonc
from gateway.actor_files.dockerfile import container_command
from gateway.core.errors import DefinitionError

_PACKAGE_JSON = "package.json"
_PYTHON_MAIN = "__main__.py"


def start_command(
    definition: Mapping[str, Any], files: Mapping[str, bytes], *, dockerfile_name: str = "Dockerfile"
) -> tuple[str, ...]:
    """
    The argv that starts the Actor, in its folder.

    *definition* is a resolved one (``Definition.resolved``); *files* holds all files by relative path, of which at most
    ``package.json`` is read. In this order: ``scripts.run``, the Dockerfile's ENTRYPOINT and CMD, the start script of
    ``package.json``, a Python package with a ``__main__``. Raises DefinitionError.
    """
    run = (definition.get("scripts") or {}).get("run")
    if run:
        return ("sh", "-c", run)
    dockerfile = definition.get("dockerfile")
    if dockerfile is not None:
        command = container_command(dockerfile_name, dockerfile)
        if command is not None:
            return command
    if _has_start_script(files):
        return ("npm", "start")
    package = _python_command(files)
    if package is not None:
        return package
    raise DefinitionError(
        ".actor/actor.json",
        None,
        'nothing says how the Actor is started: a command in "scripts": {"run": "…"} here, a CMD in the Dockerfile, '
        "a start script in package.json, or a Python package with a __main__.py (src/__main__.py) is expected",
    )


def _has_start_script(files: Mapping[str, bytes]) -> bool:
    if _PACKAGE_JSON not in files:
        return False
    document = jsonc.parse(_PACKAGE_JSON, files[_PACKAGE_JSON])
    scripts = document.value.get("scripts") if isinstance(document.value, dict) else None
    return isinstance(scripts, dict) and bool(scripts.get("start"))


def _python_command(files: Mapping[str, bytes]) -> tuple[str, ...] | None:
    if f"src/{_PYTHON_MAIN}" in files:
        return ("python3", "-m", "src")
    if _PYTHON_MAIN in files:
        return ("python3", _PYTHON_MAIN)
    packages = sorted(
        name.split("/")[0] for name in files if name.count("/") == 1 and name.endswith(f"/{_PYTHON_MAIN}")
    )
    packages = [package for package in packages if package.isidentifier()]
    if len(packages) > 1:
        raise DefinitionError(
            ".actor/actor.json",
            None,
            f"several Python packages could be started ({', '.join(packages)}): "
            'a command in "scripts": {"run": "…"} is expected to say which',
        )
    return ("python3", "-m", packages[0]) if packages else None
