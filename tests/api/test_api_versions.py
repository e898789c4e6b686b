"""Versions and their variables: what is stored, what is never shown, what comes back unharmed."""

from __future__ import annotations

from typing import Any

import pytest

VERSION = {
    "versionNumber": "0.1",
    "sourceType": "SOURCE_FILES",
    "buildTag": "beta",
    "applyEnvVarsToBuild": True,
    "envVars": [{"name": "PLAIN", "value": "1"}, {"name": "SECRET", "value": "hunter2", "isSecret": True}],
    "sourceFiles": [
        {"name": "src", "folder": True},
        {"name": "src/main.py", "format": "TEXT", "content": "print(1)"},
        {"name": "logo.png", "format": "BASE64", "content": "iVBORw0="},
    ],
}


@pytest.fixture(autouse=True)
async def actor(bob: Any) -> Any:
    """An Actor with the version above."""
    return await bob.post("/actors", json={"name": "hello", "versions": [VERSION]})


async def test_a_version_comes_back_as_given(bob: Any) -> None:
    """Everything but secret values is returned."""
    shown = await bob.get("/actors/hello/versions/0.1")
    assert shown == VERSION | {
        "envVars": [{"name": "PLAIN", "isSecret": False, "value": "1"}, {"name": "SECRET", "isSecret": True}]
    }
    assert await bob.get("/actors/hello/versions") == {"total": 1, "items": [shown]}


async def test_secrets_are_sealed(api: Any, bob: Any) -> None:
    """A secret value is stored sealed, with the key that runs are started with."""
    actor = await bob.get("/actors/hello")
    version = await api.services.state.records.actor_version(actor["id"], "0.1")
    assert "hunter2" not in repr(version)
    assert api.services.box.open(version.env_vars[1].value) == "hunter2"


async def test_secrets_survive_being_written_back(api: Any, bob: Any) -> None:
    """What was read and is written back has no secret values, and must not destroy them."""
    shown = await bob.get("/actors/hello/versions/0.1")
    await bob.put("/actors/hello/versions/0.1", json={**shown, "buildTag": "other"})
    await bob.put("/actors/hello/versions/0.1/env-vars/SECRET", json={"name": "RENAMED"})
    actor = await bob.get("/actors/hello")
    version = await api.services.state.records.actor_version(actor["id"], "0.1")
    assert [variable.name for variable in version.env_vars] == ["PLAIN", "RENAMED"]
    assert api.services.box.open(version.env_vars[1].value) == "hunter2"


async def test_a_secret_can_not_be_uncovered(api: Any, bob: Any) -> None:
    """Declaring a secret to be none does not show its value: it is gone."""
    shown = await bob.put("/actors/hello/versions/0.1/env-vars/SECRET", json={"isSecret": False})
    assert shown == {"name": "SECRET", "isSecret": False, "value": ""}


async def test_versions_live(bob: Any) -> None:
    """Versions are created once, changed in part, and deleted."""
    new = {"versionNumber": "1.0", "sourceType": "GIT_REPO", "gitRepoUrl": "https://example.com/a.git"}
    await bob.post("/actors/hello/versions", json=new)
    assert (await bob.post("/actors/hello/versions", 409, json=new))["type"] == "name-not-unique"
    changed = await bob.put("/actors/hello/versions/1.0", json={"buildTag": "stable"})
    assert (changed["buildTag"], changed["gitRepoUrl"]) == ("stable", "https://example.com/a.git")
    moved = await bob.put(
        "/actors/hello/versions/1.0", json={"sourceType": "TARBALL", "tarballUrl": "https://example.com/a.tgz"}
    )
    assert "gitRepoUrl" not in moved
    await bob.put("/actors/hello/versions/2.0", 201, json={"sourceType": "SOURCE_FILES", "sourceFiles": []})
    await bob.delete("/actors/hello/versions/1.0")
    await bob.get("/actors/hello/versions/1.0", 404)
    await bob.delete("/actors/hello/versions/1.0", 404)
    assert [v["versionNumber"] for v in (await bob.get("/actors/hello/versions"))["items"]] == ["0.1", "2.0"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"versionNumber": "1"}, "versionNumber"),
        ({"versionNumber": "0.100"}, "versionNumber"),
        ({"versionNumber": "01.1"}, "versionNumber"),
        ({"versionNumber": "\u0661.1"}, "versionNumber"),
        ({"versionNumber": None}, "versionNumber"),
        ({"sourceType": "FLOPPY"}, "sourceType"),
        ({"sourceType": None}, "sourceType"),
        ({"buildTag": "no spaces"}, "buildTag"),
        ({"sourceFiles": {}}, "sourceFiles"),
        ({"sourceFiles": [{"name": "../x"}]}, "sourceFiles[0].name"),
        ({"sourceFiles": [{"name": "/etc/passwd"}]}, "sourceFiles[0].name"),
        ({"sourceFiles": [{"name": "a\\b"}]}, "sourceFiles[0].name"),
        ({"sourceFiles": [{"name": "x", "format": "ROT13"}]}, "sourceFiles[0].format"),
        ({"sourceFiles": [{"name": "x", "format": "BASE64", "content": "?"}]}, "sourceFiles[0].content"),
        ({"sourceFiles": [{"name": "x"}, {"name": "x"}]}, "sourceFiles[1].name"),
        ({"envVars": [{"name": "1X", "value": ""}]}, "envVars[0].name"),
        ({"envVars": [{"name": "X", "value": 5}]}, "envVars[0].value"),
        ({"envVars": [{"name": "X", "value": "\0"}]}, "envVars[0].value"),
        ({"envVars": [{"name": "X"}, {"name": "X"}]}, "envVars[1].name"),
    ],
)
async def test_mistakes(bob: Any, change: dict[str, Any], field: str) -> None:
    """Each mistake names its place, and nothing is stored."""
    refused = await bob.post("/actors/hello/versions", 400, json=VERSION | {"versionNumber": "3.0"} | change)
    assert refused["type"] == "invalid-request"
    assert refused["data"] == {"field": field}
    assert (await bob.get("/actors/hello/versions"))["total"] == 1


async def test_variables(bob: Any) -> None:
    """Variables one by one."""
    base = "/actors/hello/versions/0.1/env-vars"
    assert await bob.post(base, json={"name": "NEW", "value": "x"}) == {"name": "NEW", "isSecret": False, "value": "x"}
    assert (await bob.post(base, 409, json={"name": "NEW", "value": "y"}))["type"] == "name-not-unique"
    await bob.put(f"{base}/NEW", json={"name": "NEW", "value": "z"})
    await bob.put(f"{base}/NEW", 409, json={"name": "PLAIN"})
    assert (await bob.get(f"{base}/NEW"))["value"] == "z"
    assert await bob.get(f"{base}/SECRET") == {"name": "SECRET", "isSecret": True}
    await bob.delete(f"{base}/NEW")
    await bob.get(f"{base}/NEW", 404)
    assert [v["name"] for v in (await bob.get(base))["items"]] == ["PLAIN", "SECRET"]
