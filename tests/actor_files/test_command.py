"""Which command starts an Actor."""

from __future__ import annotations

import pytest

from gateway.actor_files.command import start_command
from gateway.core.errors import DefinitionError

NPM = {"package.json": b'{"scripts": {"start": "node main.js"}}'}


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        pytest.param('FROM x\nCMD ["python3", "-m", "src"]', ("python3", "-m", "src"), id="exec form"),
        pytest.param("FROM x\nCMD python3 main.py", ("sh", "-c", "python3 main.py"), id="shell form"),
        pytest.param('from x\ncmd ["a"]', ("a",), id="lower case"),
        pytest.param('FROM x\nCMD ["a"]\nCMD ["b"]', ("b",), id="the last CMD counts"),
        pytest.param('FROM x\nENTRYPOINT ["a"]\nCMD ["b"]', ("a", "b"), id="ENTRYPOINT and CMD join"),
        pytest.param('FROM x\nCMD ["b"]\nENTRYPOINT ["a"]', ("a", "b"), id="in either order"),
        pytest.param('FROM x\nENTRYPOINT ["a"]\nCMD b c', ("a", "sh", "-c", "b c"), id="exec ENTRYPOINT, shell CMD"),
        pytest.param('FROM x\nENTRYPOINT a b\nCMD ["c"]', ("sh", "-c", "a b"), id="shell ENTRYPOINT ignores CMD"),
        pytest.param('FROM x\nENTRYPOINT ["a"]\nENTRYPOINT []\nCMD ["b"]', ("b",), id="an empty ENTRYPOINT clears it"),
        pytest.param('FROM x AS a\nCMD ["a"]\nFROM y\nCMD ["b"]', ("b",), id="only the final stage"),
        pytest.param('FROM x AS a\nCMD ["a"]\nFROM y', None, id="not another stage's"),
        pytest.param('FROM x AS Base\nCMD ["a"]\nFROM base', ("a",), id="inherited from the stage it is built on"),
        pytest.param(
            'FROM x AS a\nCMD ["a"]\nFROM a\nENTRYPOINT ["b"]', ("b",), id="an ENTRYPOINT voids an inherited CMD"
        ),
        pytest.param('FROM --platform=linux/amd64 x AS a\nCMD ["a"]\nFROM a', ("a",), id="FROM with a flag"),
        pytest.param(
            'FROM x\nCMD ["python3", \\\n  # why\n\n  "main.py"]', ("python3", "main.py"), id="continued lines"
        ),
        pytest.param("FROM x\nCMD a \\\n  b", ("sh", "-c", "a   b"), id="continued shell form"),
        pytest.param("# escape=`\nFROM x\nCMD a `\nb", ("sh", "-c", "a b"), id="another escape character"),
        pytest.param('FROM x\n# CMD ["a"]\nONBUILD CMD ["b"]', None, id="comments and ONBUILD are none"),
        pytest.param('FROM x\nRUN <<EOF\nCMD ["a"]\nEOF\nCMD ["b"]', ("b",), id="a here-document is no instruction"),
        pytest.param('FROM x\nRUN cat <<<CMD\nCMD ["b"]', ("b",), id="a here-string is no here-document"),
        pytest.param('FROM x\nRUN cat << EOF\nCMD\t["b"]', ("b",), id="nor is a << with a space"),
        pytest.param('FROM x\nSHELL ["/bin/bash", "-c"]\nCMD a', ("sh", "-c", "a"), id="SHELL is ignored"),
        pytest.param('FROM x\nENTRYPOINT ["/usr/bin/tini", "-g", "--"]\nCMD ["a"]', ("a",), id="tini is left out"),
        pytest.param("FROM x\nCMD [ -f a ] && b", ("sh", "-c", "[ -f a ] && b"), id="shell form that begins with ["),
    ],
)
def test_the_command_of_a_dockerfile(dockerfile, expected):
    """The command is the one that Docker would start; none where only the base image knows it."""
    command = start_command({"dockerfile": dockerfile}, NPM)
    assert command == (expected or ("npm", "start"))


@pytest.mark.parametrize(
    ("dockerfile", "line", "problem"),
    [
        pytest.param("FROM x\n\nCMD ['a', 'b']", 3, "CMD: an array of texts in double quotes", id="single quotes"),
        pytest.param('FROM x\nENTRYPOINT ["a", 1]', 2, "ENTRYPOINT: an array of texts", id="a number"),
        pytest.param("FROM x\nCMD <<EOF\na\nEOF", 2, "CMD as a here-document", id="CMD as a here-document"),
        pytest.param("FROM x\nRUN <<EOF\na", 2, "a line EOF is expected", id="here-document without end"),
    ],
)
def test_mistakes_in_a_dockerfile(dockerfile, line, problem):
    """They are told with the Dockerfile's own name and line."""
    with pytest.raises(DefinitionError) as caught:
        start_command({"dockerfile": dockerfile}, {}, dockerfile_name=".actor/Dockerfile")
    assert (caught.value.file, caught.value.line) == (".actor/Dockerfile", line)
    assert problem in caught.value.problem


@pytest.mark.parametrize(
    ("definition", "files", "expected"),
    [
        pytest.param(
            {"scripts": {"run": "./go now"}, "dockerfile": 'CMD ["a"]'},
            NPM,
            ("sh", "-c", "./go now"),
            id="scripts.run before the Dockerfile",
        ),
        pytest.param({"dockerfile": 'FROM x\nCMD ["a"]'}, NPM, ("a",), id="the Dockerfile before package.json"),
        pytest.param({}, {**NPM, "src/__main__.py": b""}, ("npm", "start"), id="package.json before Python"),
        pytest.param(
            {}, {"package.json": b"{}", "src/__main__.py": b""}, ("python3", "-m", "src"), id="no start script"
        ),
        pytest.param({}, {"my_actor/__main__.py": b""}, ("python3", "-m", "my_actor"), id="the only package"),
        pytest.param({}, {"__main__.py": b"", "a/__main__.py": b""}, ("python3", "__main__.py"), id="at the top"),
        pytest.param({}, {"a/__main__.py": b"", "a/b/__main__.py": b""}, ("python3", "-m", "a"), id="not a deeper one"),
    ],
)
def test_the_order_of_looking(definition, files, expected):
    """``scripts.run``, Dockerfile, package.json, Python package: the first that says something."""
    assert start_command(definition, files) == expected


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        pytest.param({"main.py": b""}, "a Python package with a __main__.py", id="nothing to start"),
        pytest.param({"a/__main__.py": b"", "b/__main__.py": b""}, "(a, b)", id="several packages"),
        pytest.param({"package.json": b"{,"}, 'a key in "quotes"', id="broken package.json"),
    ],
)
def test_nothing_to_start_is_told(files, problem):
    """The error says what to add."""
    with pytest.raises(DefinitionError) as caught:
        start_command({}, files)
    assert problem in caught.value.problem
