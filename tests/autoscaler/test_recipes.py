"""What an Actor's files ask for, and which environments may be shared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoscaler.launchers.recipes import needs_node, node_recipe, python_recipe, resolve
from gateway.core.errors import DefinitionError

PYTHON = ("python3", "-m", "src")


def python(files, argv=PYTHON, snapshot="s1", interpreter="3.11"):
    return python_recipe(files, argv, snapshot=snapshot, interpreter=interpreter)


def node(package, snapshot="s1", version="v20", **files):
    content = package if isinstance(package, bytes) else json.dumps(package).encode()
    return node_recipe({"package.json": content, **files}, snapshot=snapshot, node=version)


@pytest.mark.parametrize(
    ("files", "argv", "file", "text"),
    [
        pytest.param({"requirements.txt": b"six\n"}, PYTHON, "requirements.txt", None, id="requirements.txt"),
        pytest.param({"requirements.txt": b"# none\n\n"}, PYTHON, None, None, id="only comments: bare"),
        pytest.param(
            {"pyproject.toml": b'[project]\ndependencies = ["six", "x>1"]'}, PYTHON, None, "six\nx>1\n", id="pyproject"
        ),
        pytest.param(
            {"pyproject.toml": b'[project]\ndependencies = ["x"]', "requirements.txt": b"six"},
            PYTHON,
            "requirements.txt",
            None,
            id="requirements.txt comes first",
        ),
        pytest.param({"pyproject.toml": b"[tool.x]"}, PYTHON, None, None, id="pyproject without dependencies: bare"),
        pytest.param({}, PYTHON, None, None, id="nothing: bare"),
        pytest.param({"tools/x.py": b""}, ("sh", "-c", "x"), None, None, id="some Python file: bare"),
    ],
)
def test_what_is_installed(files, argv, file, text):
    """requirements.txt, else the project's dependencies, else an environment with nothing in it."""
    recipe = python(files, argv)
    assert recipe is not None
    assert (recipe.requirements_file, recipe.requirements) == (file, text)
    assert recipe.is_bare == (file is None and text is None)


def test_what_is_no_python():
    """No Python file and another command: no environment."""
    assert python({"main.js": b""}, ("node", "main.js")) is None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"[project", id="no TOML"),
        pytest.param(b'[project]\ndependencies = "six"', id="no array"),
    ],
)
def test_a_broken_pyproject(content):
    """It is told, not passed over."""
    with pytest.raises(DefinitionError, match=r"pyproject\.toml"):
        python({"pyproject.toml": content})


def requirements(text: str, **files: str):
    return {"requirements.txt": text.encode(), **{name: content.encode() for name, content in files.items()}}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(
            {"files": requirements("six")}, {"files": requirements("six"), "snapshot": "s2"}, True, id="shared"
        ),
        pytest.param({"files": requirements("six")}, {"files": requirements("seven")}, False, id="other requirement"),
        pytest.param(
            {"files": requirements("six")}, {"files": requirements("six"), "interpreter": "4"}, False, id="Python"
        ),
        pytest.param({"files": {}}, {"files": {"x.py": b""}, "snapshot": "s2"}, True, id="all bare ones are one"),
        pytest.param(
            {"files": requirements("-r more.txt", **{"more.txt": "six"})},
            {"files": requirements("-r more.txt", **{"more.txt": "seven"})},
            False,
            id="an included file",
        ),
        pytest.param(
            {"files": requirements("-rmore/a.txt", **{"more/a.txt": "-c b.txt", "more/b.txt": "six<1"})},
            {"files": requirements("-rmore/a.txt", **{"more/a.txt": "-c b.txt", "more/b.txt": "six<2"})},
            False,
            id="an included file's included file",
        ),
        pytest.param(
            {"files": requirements("-r requirements.txt")},
            {"files": requirements("-r requirements.txt")},
            True,
            id="loop",
        ),
        *(
            pytest.param({"files": requirements(line)}, {"files": requirements(line), "snapshot": "s2"}, False, id=line)
            for line in (".", "-e .", "./libs/x", "libs/x.whl", "x @ file:libs/x", ".[extra]", "--find-links wheels")
        ),
        pytest.param(
            {"files": requirements("x @ https://a/b.whl")},
            {"files": requirements("x @ https://a/b.whl"), "snapshot": "s2"},
            True,
            id="a URL is not in the source",
        ),
    ],
)
def test_which_python_environments_are_shared(one, other, same):
    """By requirements and interpreter, and with the source where a requirement lies in it."""
    first, second = python(**one), python(**other)
    assert first is not None
    assert second is not None
    assert (first.key == second.key) is same


@pytest.mark.parametrize(
    ("package", "files", "needs_install", "needs_source", "copied"),
    [
        pytest.param({"name": "x"}, {}, False, False, ("package.json",), id="no dependencies"),
        pytest.param({"devDependencies": {"x": "1"}}, {}, False, False, ("package.json",), id="only for development"),
        pytest.param({"dependencies": {"x": "^1"}}, {}, True, False, ("package.json",), id="a dependency"),
        pytest.param(
            {"dependencies": {"x": "^1"}},
            {"package-lock.json": b"{}", ".npmrc": b"", "yarn.lock": b""},
            True,
            False,
            ("package.json", "package-lock.json", ".npmrc"),
            id="lock and settings go along",
        ),
        pytest.param(
            {"dependencies": {"x": "file:./x"}}, {}, True, True, ("package.json",), id="a package in the source"
        ),
        pytest.param({"scripts": {"postinstall": "x"}}, {}, True, True, ("package.json",), id="an install script"),
        pytest.param({"workspaces": ["a"]}, {}, True, True, ("package.json",), id="workspaces"),
    ],
)
def test_what_npm_gets(package, files, needs_install, needs_source, copied):
    """Nothing is installed where nothing is asked for; the source goes along only where it is needed."""
    recipe = node(package, **files)
    assert recipe is not None
    assert (recipe.needs_install, recipe.needs_source, recipe.files) == (needs_install, needs_source, copied)
    assert recipe.has_lock == ("package-lock.json" in copied)


def test_no_package_json():
    """No npm."""
    assert node_recipe({"main.py": b""}, snapshot="s", node="v20") is None


@pytest.mark.parametrize("content", [b"[]", b"{,"])
def test_a_broken_package_json(content):
    """It is told, with the file's name."""
    with pytest.raises(DefinitionError, match=r"package\.json:1"):
        node(content)


def test_which_node_modules_are_shared():
    """By package.json, lock and version of Node.js; with the source where it is needed."""
    plain, local = {"dependencies": {"x": "1"}}, {"dependencies": {"x": "file:x"}}
    key = node(plain).key
    assert node(plain, snapshot="s2").key == key
    assert node(plain, version="v22").key != key
    assert node(plain, **{"package-lock.json": b"{}"}).key != key
    assert node(local).key != node(local, snapshot="s2").key


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        pytest.param(("python3", "-m", "src"), ("/env/bin/python3", "-m", "src"), id="by name"),
        pytest.param(("/usr/local/bin/python3", "x.py"), ("/env/bin/python3", "x.py"), id="an image's interpreter"),
        pytest.param(("sh", "-c", "python3 x"), ("sh", "-c", "python3 x"), id="the shell looks in PATH itself"),
        pytest.param(("./python3",), ("./python3",), id="the Actor's own file"),
        pytest.param(("/opt/python3/tool",), ("/opt/python3/tool",), id="another absolute path"),
        pytest.param(("/usr/bin/node", "x.js"), ("node", "x.js"), id="an image's Node.js"),
    ],
)
def test_the_program_is_taken_from_the_environment(argv, expected):
    """An interpreter is the environment's, whatever path it has in an image."""
    assert resolve(argv, {"python3": Path("/env/bin/python3")}) == expected


def test_commands_of_node():
    """npm and node need Node.js, whatever their path."""
    assert needs_node(("npm", "start"))
    assert needs_node(("/usr/local/bin/node", "x"))
    assert not needs_node(("sh", "-c", "npm start"))
