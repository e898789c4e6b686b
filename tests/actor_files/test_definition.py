"""What an Actor's files say it is, and how their mistakes are told."""

from __future__ import annotations

import json

import pytest

from gateway.actor_files.definition import parse_definition
from gateway.core.errors import DefinitionError

MINIMAL = {"actorSpecification": 1, "name": "hello", "version": "0.1"}


def files_with(actor_json=None, **others):
    """An Actor's files: actor.json with *actor_json* over the minimum, one key a line, and others by name."""
    content = json.dumps({**MINIMAL, **(actor_json or {})}, indent=1).encode()
    return {".actor/actor.json": content, **others}


def line_of(files, text):
    return next(number for number, line in enumerate(files[".actor/actor.json"].split(b"\n"), 1) if text in line)


def test_the_least_that_is_an_actor():
    """Three fields are enough; everything else has its default."""
    definition = parse_definition(files_with())
    assert (definition.name, definition.version_number, definition.build_tag) == ("hello", "0.1", "latest")
    assert definition.title is None
    assert definition.environment_variables is None
    assert definition.standby_from_file is None
    assert definition.resolved == MINIMAL
    assert definition.warnings == ()


def test_every_field_is_read_and_kept():
    """All fields of the specification, and unknown ones, are in ``resolved``, with files in place of their paths."""
    given = {
        "$schema": "https://example.com/schema",
        "version": "1.2.3",
        "title": "Hello",
        "description": "Says hello",
        "buildTag": "beta",
        "meta": {"templateId": "x"},
        "environmentVariables": {"A": "1", "PASSWORD": "@secret"},
        "dockerfile": "../deploy/Dockerfile",
        "dockerContextDir": "..",
        "readme": "./about.md",
        "changelog": "../CHANGES.md",
        "inputSchema": "./input.json",
        "outputSchema": {"title": "Out"},
        "storages": {"datasets": {"default": "./dataset.json", "other": {"x": 1}}, "keyValueStore": "../store.json"},
        "minMemoryMbytes": 256,
        "maxMemoryMbytes": 4096,
        "defaultMemoryMbytes": "{{actorRun.input.x}} * 256",
        "usesStandbyMode": True,
        "actorStandby": {"public": True, "idleTimeoutSecs": 5},
        "webServerSchema": "./openapi.json",
        "webServerMcpPath": "/mcp?version=2",
        "scripts": {"run": "npm start", "test": "npm test"},
        "somethingNew": [1],
    }
    files = files_with(
        given,
        **{
            "deploy/Dockerfile": b"FROM x",
            ".actor/about.md": b"# About",
            "CHANGES.md": b"new",
            ".actor/input.json": b'{"title": "In",} // lenient',
            ".actor/dataset.json": b'{"fields": {}}',
            "store.json": b'{"collections": {}}',
            ".actor/openapi.json": b'{"openapi": "3.1.0"}',
        },
    )
    definition = parse_definition(files)
    resolved = {
        **MINIMAL,
        **given,
        "dockerfile": "FROM x",
        "readme": "# About",
        "changelog": "new",
        "input": {"title": "In"},
        "output": {"title": "Out"},
        "storages": {"datasets": {"default": {"fields": {}}, "other": {"x": 1}}, "keyValueStore": {"collections": {}}},
        "webServerSchema": {"openapi": "3.1.0"},
    }
    del resolved["inputSchema"], resolved["outputSchema"]
    assert definition.resolved == resolved
    assert (definition.version_number, definition.build_tag) == ("1.2", "beta")
    assert (definition.title, definition.description) == ("Hello", "Says hello")
    assert definition.environment_variables == {"A": "1"}
    assert definition.secrets == {"PASSWORD": "secret"}
    assert definition.standby_from_file == {"isEnabled": True, "public": True, "idleTimeoutSecs": 5}
    assert definition.dockerfile_name == "deploy/Dockerfile"
    assert definition.warnings == (
        f".actor/actor.json:{line_of(files, b'somethingNew')}: somethingNew is kept, but nothing reads it",
    )


@pytest.mark.parametrize(
    ("present", "field", "expected"),
    [
        pytest.param([".actor/Dockerfile", "Dockerfile"], "dockerfile", ".actor/Dockerfile", id="Dockerfile in .actor"),
        pytest.param(["Dockerfile"], "dockerfile", "Dockerfile", id="Dockerfile at the top"),
        pytest.param([".actor/ACTOR.md", ".actor/README.md"], "readme", ".actor/ACTOR.md", id="ACTOR.md"),
        pytest.param([".actor/README.md", "README.md"], "readme", ".actor/README.md", id="README.md in .actor"),
        pytest.param(["readme.MD"], "readme", "readme.MD", id="letter case is ignored"),
        pytest.param(["readme.md", "README.md"], "readme", "README.md", id="exact case comes first"),
        pytest.param(["CHANGELOG.md"], "changelog", "CHANGELOG.md", id="changelog"),
    ],
)
def test_where_things_are_looked_for(present, field, expected):
    """A field that is absent has its usual places, the first hit wins."""
    definition = parse_definition(files_with(**{name: name.encode() for name in present}))
    assert definition.resolved[field] == expected


def test_the_input_schema_has_a_usual_place():
    """``INPUT_SCHEMA.json`` is read where the file names none."""
    files = files_with(**{"INPUT_SCHEMA.json": b'{"title": "old"}'})
    assert parse_definition(files).resolved["input"] == {"title": "old"}


def test_a_dockerfile_that_matches_nothing_falls_through():
    """As on the platform, the usual places are looked at next; a warning says so."""
    definition = parse_definition(files_with({"dockerfile": "./nope"}, Dockerfile=b"FROM y"))
    assert definition.resolved["dockerfile"] == "FROM y"
    assert "there is no .actor/nope" in definition.warnings[0]


def test_a_changelog_outside_of_the_folder_is_left_out():
    """The whitepaper's example has one, in a monorepo: no reason to refuse the Actor."""
    definition = parse_definition(files_with({"changelog": "../../../shared/CHANGELOG.md"}))
    assert "lies outside" in definition.warnings[0]


@pytest.mark.parametrize(
    ("given", "field", "expected"),
    [
        pytest.param({"actorSpecification": 2}, b"actorSpecification", "actorSpecification: the number 1", id="spec 2"),
        pytest.param({"actorSpecification": True}, b"actorSpec", "the number 1 is expected, not true", id="spec true"),
        pytest.param({"name": "my_actor"}, b"name", "name: a DNS-friendly name", id="underscore in name"),
        pytest.param({"name": "ab"}, b"name", "3 to 63", id="short name"),
        pytest.param({"name": "hello\n"}, b"name", "name: a DNS-friendly name", id="line end in name"),
        pytest.param({"version": 0.1}, b"version", 'version: a text such as "0.1"', id="version as number"),
        pytest.param({"version": "0.100"}, b"version", "each from 0 to 99", id="version above 99"),
        pytest.param({"version": "1"}, b"version", "MAJOR.MINOR", id="version of one part"),
        pytest.param({"title": 5}, b"title", "title: a text is expected, not 5", id="title"),
        pytest.param({"buildTag": "a b"}, b"buildTag", "buildTag: a text of letters", id="build tag"),
        pytest.param({"meta": []}, b"meta", "meta: an object is expected, not an array", id="meta"),
        pytest.param({"environmentVariables": {"A": 1}}, b'"A"', "environmentVariables.A: a text", id="variable"),
        pytest.param({"environmentVariables": {"A=B": ""}}, b"A=B", "without =", id="variable's name"),
        pytest.param({"dockerfile": 1}, b"dockerfile", "the path of a file, relative to .actor/", id="dockerfile type"),
        pytest.param(
            {"dockerfile": "../../D"}, b"dockerfile", "points outside the Actor root", id="dockerfile escapes"
        ),
        pytest.param({"readme": "./x.md"}, b"readme", "the file .actor/x.md is expected", id="readme missing"),
        pytest.param({"readme": "../../x.md"}, b"readme", "lies outside", id="readme outside"),
        pytest.param({"input": "./x.json"}, b"input", "the file .actor/x.json is expected", id="input missing"),
        pytest.param({"inputSchema": 7}, b"inputSchema", "or a schema object", id="input type"),
        pytest.param({"storages": {"dataset": 1}}, b"dataset", "storages.dataset: the path", id="dataset type"),
        pytest.param({"storages": {"queue": {}}}, b"queue", "storages.queue: only dataset", id="unknown storage"),
        pytest.param({"storages": {"datasets": {}}}, b"datasets", "1 to 10 schemas", id="no dataset"),
        pytest.param({"storages": {"datasets": {"a": {}}}}, b"datasets", "default is missing", id="no default dataset"),
        pytest.param({"storages": {"datasets": {"default": {}, "1": {}}}}, b'"1"', "begins with a letter", id="alias"),
        pytest.param(
            {"storages": {"dataset": {}, "datasets": {"default": {}}}}, b"datasets", "not both", id="both datasets"
        ),
        pytest.param({"minMemoryMbytes": 64}, b"minMemory", "from 128 to 32768", id="too little memory"),
        pytest.param({"minMemoryMbytes": 512, "maxMemoryMbytes": 256}, b"minMemory", "at most max", id="min above max"),
        pytest.param({"defaultMemoryMbytes": "x" * 1001}, b"default", "expression of at most", id="long expression"),
        pytest.param({"usesStandbyMode": "yes"}, b"usesStandby", "true or false", id="standby as text"),
        pytest.param({"actorStandby": {"x": 1}}, b'"x"', "actorStandby.x is not a setting", id="unknown setting"),
        pytest.param({"actorStandby": {"minRuns": "1"}}, b"minRuns", "a whole number", id="setting's type"),
        pytest.param({"webServerSchema": {"openapi": "2.0"}}, b"openapi", "OpenAPI 3", id="old OpenAPI"),
        pytest.param({"webServerSchema": "./o.yaml"}, b"webServerSchema", "is missing", id="OpenAPI file missing"),
        pytest.param({"scripts": {"run": ""}}, b"run", "scripts.run: a command as a text", id="empty command"),
        pytest.param({"scripts": "npm start"}, b"scripts", "an object of commands", id="scripts as text"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_is_expected(given, field, expected):
    """File, line and what should stand there, for every field."""
    files = files_with(given)
    with pytest.raises(DefinitionError) as caught:
        parse_definition(files)
    assert (caught.value.file, caught.value.line) == (".actor/actor.json", line_of(files, field))
    assert expected in caught.value.problem


@pytest.mark.parametrize("missing", ["actorSpecification", "name", "version"])
def test_required_fields(missing):
    """One that is missing is told with the line on which the object begins."""
    content = {key: value for key, value in MINIMAL.items() if key != missing}
    with pytest.raises(DefinitionError, match=rf"actor\.json:1: {missing}: .* is expected, but it is missing"):
        parse_definition({".actor/actor.json": json.dumps(content).encode()})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(".actor/input.json", b'{\n"a" 1}', ".actor/input.json:2: a colon", id="broken input schema"),
        pytest.param(".actor/input.json", b"\n[]", ".actor/input.json:2: a schema object", id="input is an array"),
    ],
)
def test_mistakes_in_named_files(name, content, message):
    """They are told in the file where they are."""
    with pytest.raises(DefinitionError) as caught:
        parse_definition(files_with({"input": "./input.json"}, **{name: content}))
    assert caught.value.message.startswith(message)


def test_a_definition_that_is_no_object():
    """An array is no Actor."""
    with pytest.raises(DefinitionError, match="an object with the Actor's properties is expected"):
        parse_definition({".actor/actor.json": b"[]"})


def test_neither_file():
    """The error names both files that could be there."""
    with pytest.raises(DefinitionError, match=r"actor\.json: .*apify\.json; neither is there"):
        parse_definition({"main.py": b""})


def test_where_the_api_knows_the_name_no_file_is_needed():
    """Sources alone are an Actor where its name is known already."""
    definition = parse_definition({"Dockerfile": b"FROM x"}, default_name="known")
    assert (definition.name, definition.resolved["dockerfile"]) == ("known", "FROM x")


@pytest.mark.parametrize(
    ("given", "expected", "warning"),
    [
        pytest.param({"usesStandbyMode": False}, {"isEnabled": False}, None, id="off"),
        pytest.param({"actorStandby": {"isEnabled": True}}, {"isEnabled": True}, None, id="on by the object alone"),
        pytest.param({"actorStandby": {"minRuns": 1}}, {"minRuns": 1}, "doesn't switch Standby on", id="not on"),
        pytest.param(
            {"usesStandbyMode": True, "actorStandby": {"isEnabled": False}},
            {"isEnabled": False},
            "wins over usesStandbyMode",
            id="contradiction",
        ),
        pytest.param({"standby": {"x": 1}}, None, "stand in actorStandby", id="a common wrong recipe"),
        pytest.param({"usesStandByMode": True}, None, "is usesStandbyMode meant?", id="a slip"),
    ],
)
def test_standby_from_the_file(given, expected, warning):
    """``usesStandbyMode`` is ``isEnabled``; what was probably meant otherwise is warned of."""
    definition = parse_definition(files_with(given))
    assert definition.standby_from_file == expected
    assert [warning in text for text in definition.warnings] == ([True] if warning else [])


def test_legacy_files():
    """Without actor.json, the four files at the top level; ``env`` is renamed, ``template`` dropped."""
    definition = parse_definition(
        {
            "apify.json": b'{"name": "old", "version": "0.2", "buildTag": "beta", "env": {"A": "1"}, "template": "t"}',
            "Dockerfile": b"FROM x",
            "README.md": b"# Old",
            "INPUT_SCHEMA.json": b'{"title": "in"}',
            ".actor/README.md": b"not looked at",
        }
    )
    assert (definition.name, definition.version_number, definition.build_tag) == ("old", "0.2", "beta")
    assert definition.environment_variables == {"A": "1"}
    assert definition.resolved == {
        "name": "old",
        "version": "0.2",
        "buildTag": "beta",
        "environmentVariables": {"A": "1"},
        "dockerfile": "FROM x",
        "readme": "# Old",
        "input": {"title": "in"},
    }


def test_legacy_names_had_fewer_restrictions():
    """A name that DNS can't carry is made friendly, with a warning; a mistake in ``env`` is told on its own line."""
    definition = parse_definition({"apify.json": b'{"name": "my_old.actor"}'})
    assert (definition.name, definition.version_number) == ("my-old-actor", "0.0")
    assert "is called my-old-actor" in definition.warnings[0]
    with pytest.raises(DefinitionError, match=r"apify\.json:3: environmentVariables\.A"):
        parse_definition({"apify.json": b'{"name": "old",\n"env": {\n"A": 1}}'})


def test_actor_json_is_found_with_letter_case_ignored():
    """Exact case is preferred, and it comes before the legacy file."""
    content = json.dumps(MINIMAL).encode()
    other = content.replace(b"hello", b"other")
    assert parse_definition({".actor/Actor.JSON": content, "apify.json": b"{}"}).name == "hello"
    assert parse_definition({".actor/Actor.JSON": other, ".actor/actor.json": content}).name == "hello"
