"""
No I/O: the Dockerfile of an Actor that has none: for Node.js where there is a package.json, else for Python.

The platform has the first alone (apify-platform.md §4.1); Python is Greenroom's own addition.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoscaler.launchers.recipes import node_recipe, python_recipe
from gateway.actor_files.command import start_command
from gateway.core.errors import DefinitionError

REQUIREMENTS = ".greenroom-requirements.txt"

_FOLDER = "/usr/src/app"


@dataclass(frozen=True, slots=True)
class DefaultDockerfile:
    """The Dockerfile's *text*, and the files by name that its context has beside the source."""

    text: str
    extra_files: Mapping[str, str]


def default_dockerfile(
    definition: Mapping[str, Any], files: Mapping[str, bytes], *, node_image: str, python_image: str
) -> DefaultDockerfile:
    """
    A Dockerfile for *files*, the Actor's own, of which only package and requirement files are read.

    *definition* is a resolved one. Raises DefinitionError where nothing is recognised, or not how it is started.
    """
    is_node = "package.json" in files
    if (
        not is_node
        and not any(name in files for name in ("requirements.txt", "pyproject.toml"))
        and not _has_python(files)
    ):
        raise DefinitionError(
            "Dockerfile",
            None,
            'an Actor\'s image is made by a Dockerfile (.actor/Dockerfile, Dockerfile, or the one that "dockerfile" in '
            ".actor/actor.json names), and there is none; without one, a package.json (Node.js) or a requirements.txt, "
            "pyproject.toml or Python package (Python) is expected",
        )
    argv = start_command(definition, files)
    return _for_node(files, argv, node_image) if is_node else _for_python(files, argv, python_image)


def _has_python(files: Mapping[str, bytes]) -> bool:
    return any(name.endswith(".py") for name in files)


def _for_node(files: Mapping[str, bytes], argv: tuple[str, ...], image: str) -> DefaultDockerfile:
    recipe = node_recipe(files, snapshot="", node="")
    assert recipe is not None
    copied = [
        *(name for name in files if name == "package.json"),
        *(name for name in recipe.files if name != "package.json"),
    ]
    install = f"npm {'ci' if recipe.has_lock else 'install'} --omit=dev --no-audit --no-fund --no-update-notifier"
    lines = [f"FROM {image}", f"WORKDIR {_FOLDER}"]
    if recipe.needs_source:
        lines += ["COPY . ./", f"RUN {install}"]
    else:
        lines += [f"COPY {json.dumps([*copied, './'])}"]
        lines += [f"RUN {install}"] if recipe.needs_install else []
        lines += ["COPY . ./"]
    return _finished(lines, argv, {})


def _for_python(files: Mapping[str, bytes], argv: tuple[str, ...], image: str) -> DefaultDockerfile:
    recipe = python_recipe(files, argv, snapshot="", interpreter="")
    lines = [f"FROM {image}", f"WORKDIR {_FOLDER}", "ENV PYTHONUNBUFFERED=1"]
    extra: dict[str, str] = {}
    pip = "python3 -m pip install --no-cache-dir --disable-pip-version-check"
    if recipe is None or recipe.is_bare:
        lines += ["COPY . ./"]
    elif recipe.requirements is not None:
        extra[REQUIREMENTS] = recipe.requirements
        lines += [f"COPY {REQUIREMENTS} ./", f"RUN {pip} -r {REQUIREMENTS}", "COPY . ./"]
    else:
        # It may include other files, or name packages that lie in the source.
        alone = not any(line.lstrip().startswith((b"-", b".", b"/")) for line in files["requirements.txt"].splitlines())
        lines += ["COPY requirements.txt ./"] if alone else ["COPY . ./"]
        lines += [f"RUN {pip} -r requirements.txt"]
        lines += ["COPY . ./"] if alone else []
    return _finished(lines, argv, extra)


def _finished(lines: list[str], argv: tuple[str, ...], extra: Mapping[str, str]) -> DefaultDockerfile:
    return DefaultDockerfile("\n".join([*lines, f"CMD {json.dumps(list(argv))}", ""]), extra)
