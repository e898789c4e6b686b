"""The context that the engine builds an image from: the right files, the right Dockerfile, the right arguments."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.launchers.docker.default_dockerfile import REQUIREMENTS
from autoscaler.launchers.docker.dockerignore import DockerIgnore
from autoscaler.launchers.docker.image_context import ImageContext, build_arguments, image_context
from gateway.actor_files.snapshot import pack_entries
from gateway.core.errors import DefinitionError

DOCKERFILE = "FROM base\nCOPY . ./\n"


def context(files: Mapping[str, str], **fields: Any) -> ImageContext:
    """The context of an Actor with these files and these fields in its actor.json."""
    definition = {"actorSpecification": 1, "name": "hello", "version": "0.1", **fields}
    given = {".actor/actor.json": json.dumps(definition), **files}
    packed = pack_entries((name, given[name].encode(), name.endswith(".sh")) for name in sorted(given))
    return image_context(io.BytesIO(packed.archive), node_image="the-node", python_image="the-python")


def contents(made: ImageContext) -> dict[str, str]:
    """What is in the tar, by name."""
    with made.file, tarfile.open(fileobj=made.file) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


@pytest.mark.parametrize(
    ("patterns", "left_out", "kept"),
    [
        pytest.param("", [], ["a", "a/b"], id="nothing"),
        pytest.param("a", ["a", "a/b", "a/b/c"], ["b", "b/a"], id="a folder with all below it, at the top only"),
        pytest.param("/a/", ["a", "a/b"], ["b/a"], id="slashes at the ends say nothing"),
        pytest.param("./a/../b", ["b", "b/c"], ["a"], id="a path is cleaned"),
        pytest.param("*.md", ["README.md"], ["docs/README.md", "README.mdx"], id="a star within one part"),
        pytest.param("*/*.md", ["docs/a.md"], ["a.md", "x/y/a.md"], id="a star for one folder"),
        pytest.param("**/*.md", ["a.md", "x/a.md", "x/y/a.md"], ["a.txt"], id="any depth, also none"),
        pytest.param("a/**", ["a/b", "a/b/c"], ["b"], id="all below"),
        pytest.param("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["z", "az"], id="any depth in the middle"),
        pytest.param("**", ["a", "a/b"], [], id="everything"),
        pytest.param("temp?", ["temp1", "temp1/x"], ["temp", "temp12"], id="one character"),
        pytest.param("[ab].c", ["a.c", "b.c"], ["c.c", "[ab].c"], id="a set of characters"),
        pytest.param("[^ab].c", ["c.c"], ["a.c"], id="all but a set"),
        pytest.param("\\*.c", ["*.c"], ["a.c"], id="an escaped star"),
        pytest.param("a.c", ["a.c"], ["abc"], id="a dot is a dot"),
        pytest.param("*\n!a", ["b"], ["a", "a/b"], id="all but one"),
        pytest.param("a\n!a/b\na/b/c", ["a/x", "a/b/c"], ["a/b", "a/b/d"], id="the last one that matches decides"),
        pytest.param("!a\na", ["a"], [], id="what is brought back first is not"),
        pytest.param("# a\n  b  \n\n", ["b"], ["a", "# a"], id="comments, blanks and empty lines"),
        pytest.param("\ufeffa", ["a"], [], id="a byte order mark"),
        pytest.param("! a\n", [], ["a", "! a"], id="a blank after the mark"),
        pytest.param("a[", ["a["], ["a"], id="a bracket that is not closed"),
    ],
)
def test_dockerignore(patterns: str, left_out: list[str], kept: list[str]) -> None:
    """As the builder's reference has it."""
    ignore = DockerIgnore(patterns)
    assert [name for name in left_out if not ignore.leaves_out(name)] == []
    assert [name for name in kept if ignore.leaves_out(name)] == []


names = st.lists(st.text("ab.*[]!\\-", min_size=1, max_size=4), min_size=1, max_size=3).map("/".join)


@given(st.lists(st.text("ab*?[]!/\\.#-^ ", max_size=8), max_size=8), names)
def test_dockerignore_reads_anything(lines: list[str], name: str) -> None:
    """No pattern is an error, and a last line of !** brings everything back."""
    DockerIgnore("\n".join(lines)).leaves_out(name)
    assert not DockerIgnore("\n".join([*lines, "!**"])).leaves_out(name)


def test_a_dockerfile_in_the_context_lies_where_it_lies() -> None:
    """It goes along even where it is ignored, as does the file that says so; modes are kept."""
    made = context({"Dockerfile": DOCKERFILE, ".dockerignore": "*\n!run.sh", "run.sh": "#!/bin/sh", "x": "x"})
    assert (made.dockerfile, made.text, made.is_default, made.actor_path) == ("Dockerfile", DOCKERFILE, False, ".")
    with tarfile.open(fileobj=made.file) as tar:
        assert tar.getmember("run.sh").mode == 0o755
    made.file.seek(0)
    assert sorted(contents(made)) == [".dockerignore", "Dockerfile", "run.sh"]


def test_a_dockerfile_outside_of_the_context_stays_out_of_the_image() -> None:
    """It has a name of Greenroom's, which the context's .dockerignore keeps from COPY."""
    files = {".actor/Dockerfile": DOCKERFILE, "src/main.py": "1", "src/.dockerignore": "*.md", "src/a.md": "", "x": ""}
    made = context(files, dockerContextDir="../src")
    assert made.actor_path == ".."
    found = contents(made)
    assert sorted(found) == [".dockerignore", ".greenroom.Dockerfile", "main.py"]
    assert found[made.dockerfile] == DOCKERFILE
    assert found[".dockerignore"].splitlines() == ["*.md", ".dockerignore", ".greenroom.Dockerfile"]


def test_the_named_dockerfile_wins() -> None:
    """``dockerfile`` is relative to ``.actor/``; one that is not there falls through to the usual places."""
    files = {"Dockerfile": "FROM top\n", ".actor/Dockerfile": "FROM actor\n", "docker/Own": "FROM own\n"}
    for named, used in (("../docker/Own", "docker/Own"), ("../docker/None", ".actor/Dockerfile")):
        made = context(files, dockerfile=named)
        made.file.close()
        assert made.dockerfile == used


@pytest.mark.parametrize(
    ("files", "lines", "command"),
    [
        pytest.param(
            {"package.json": '{"scripts": {"start": "node ."}, "dependencies": {"a": "1"}}', "package-lock.json": "{}"},
            ["FROM the-node", 'COPY ["package.json", "package-lock.json", "./"]', "RUN npm ci", "COPY . ./"],
            ["npm", "start"],
            id="node with a lock",
        ),
        pytest.param(
            {"package.json": '{"scripts": {"start": "node ."}, "dependencies": {"a": "file:a"}}'},
            ["FROM the-node", "COPY . ./", "RUN npm install"],
            ["npm", "start"],
            id="node with packages of its own",
        ),
        pytest.param(
            {"requirements.txt": "apify\n", "src/__main__.py": ""},
            ["FROM the-python", "COPY requirements.txt ./", "-r requirements.txt", "COPY . ./"],
            ["python3", "-m", "src"],
            id="python with requirements",
        ),
        pytest.param(
            {"requirements.txt": "-r more.txt\n", "more.txt": "apify\n", "src/__main__.py": ""},
            ["FROM the-python", "COPY . ./", "-r requirements.txt"],
            ["python3", "-m", "src"],
            id="requirements that include others",
        ),
        pytest.param(
            {"pyproject.toml": '[project]\ndependencies = ["apify"]\n', "src/__main__.py": ""},
            ["FROM the-python", f"COPY {REQUIREMENTS} ./", f"-r {REQUIREMENTS}", "COPY . ./"],
            ["python3", "-m", "src"],
            id="a Python project",
        ),
        pytest.param(
            {"hello/__main__.py": ""}, ["FROM the-python", "COPY . ./"], ["python3", "-m", "hello"], id="a package"
        ),
    ],
)
def test_the_default_dockerfile(files: Mapping[str, str], lines: list[str], command: list[str]) -> None:
    """What is installed comes before the rest of the source, so that a change there is quick to build."""
    made = context(files)
    assert made.is_default
    at = 0
    for line in lines:
        at = made.text.index(line, at)
    assert made.text.endswith(f"CMD {json.dumps(command)}\n")
    found = contents(made)
    assert found[made.dockerfile] == made.text
    assert set(files) <= set(found)
    if REQUIREMENTS in made.text:
        assert found[REQUIREMENTS] == "apify\n"


@pytest.mark.parametrize(
    ("files", "fields", "message"),
    [
        pytest.param({"notes.txt": ""}, {}, "there is none", id="nothing recognised"),
        pytest.param({"lib.py": ""}, {}, "how the Actor is started", id="nothing to start"),
        pytest.param({"Dockerfile": DOCKERFILE}, {"dockerContextDir": "../no"}, "the folder no is", id="no folder"),
        pytest.param({"Dockerfile": DOCKERFILE}, {"dockerContextDir": "../../x"}, "lies outside", id="outside"),
        pytest.param({"Dockerfile": DOCKERFILE}, {"dockerContextDir": "/etc"}, "lies outside", id="absolute"),
        pytest.param({"Dockerfile": DOCKERFILE, "a": ""}, {"dockerContextDir": "../a"}, "is missing", id="a file"),
    ],
)
def test_mistakes(files: Mapping[str, str], fields: Mapping[str, Any], message: str) -> None:
    """Each is told with its file and what is expected."""
    with pytest.raises(DefinitionError) as caught:
        context(files, **fields)
    assert message in caught.value.message


def test_arguments_are_those_that_the_dockerfile_speaks_of() -> None:
    """The engine warns of others; a name that is only a part of another is another."""
    made = context({"Dockerfile": "FROM base\nARG TOKEN=1\nARG ACTOR_PATH_IN_DOCKER_CONTEXT\n"})
    made.file.close()
    assert build_arguments(made, {"TOKEN": "x", "TOK": "y", "OTHER": "z"}) == {
        "TOKEN": "x",
        "ACTOR_PATH_IN_DOCKER_CONTEXT": ".",
    }
