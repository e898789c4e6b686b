"""Builds of versions whose source is fetched, through the API of a real server whose Actors are processes."""

from __future__ import annotations

import asyncio
import contextlib
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest
from journeys.greenroom import ACTORS, Greenroom, error_of
from source_server import SourceServer, commit, git, repository, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[SourceServer]:
    """A web server with the probe Actor as an archive and as a repository."""
    root = tmp_path / "sources"
    root.mkdir()
    with tarfile.open(root / "probe.tar.gz", "w:gz") as tar:
        tar.add(ACTORS / "probe", "probe-1.0")
    repository(root, "probe", {f"actors/probe/{name}": text for name, text in probe().items()})
    with serving(root) as served:
        yield served


def probe() -> dict[str, str]:
    folder = ACTORS / "probe"
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


async def create(server: Greenroom, name: str, **source: Any) -> dict[str, Any]:
    version = {"versionNumber": "0.1", "buildTag": "latest", **source}
    standby = {"isEnabled": True, "public": True}
    body = {"name": name, "versions": [version], "actorStandby": standby}
    return dict(await server.data_of("POST", "/actors", json=body))


async def build(server: Greenroom, actor: Mapping[str, Any]) -> dict[str, Any]:
    """A build of it, once it has ended."""
    path = f"/actors/{actor['id']}/builds?version=0.1&waitForFinish=60"
    return dict(await server.data_of("POST", path))


async def test_archives_and_repositories(tmp_path: Path, sources: SourceServer) -> None:
    """Each build has what is there at that time, and its Actor serves."""
    async with Greenroom(tmp_path / "data", (), {"allow_private_sources": True}) as server:
        tarball = await create(server, "tarball", sourceType="TARBALL", tarballUrl=sources.url("probe.tar.gz"))
        url = sources.url("git/probe.git") + "#main:actors/probe"
        cloned = await create(server, "cloned", sourceType="GIT_REPO", gitRepoUrl=url)
        for actor in (tarball, cloned):
            built = await build(server, actor)
            assert built["status"] == "SUCCEEDED", built["statusMessage"]
            assert "Fetching http" in await server.log_of(built["id"])
            assert (await server.call(actor["name"])).status_code == 200
        before = await server.data_of("GET", f"/actors/{cloned['id']}/builds/default")
        work = sources.root / "probe"
        made = commit(work, {"actors/probe/.actor/README.md": "New words."})
        git(work, "push", "--quiet", "origin", "main")
        built = await build(server, cloned)
        assert (before.get("readme"), built["readme"]) != (built["readme"], before.get("readme"))
        assert built["readme"] == "New words."
        assert made in await server.log_of(built["id"])


async def test_private_addresses(tmp_path: Path, sources: SourceServer) -> None:
    """Without the setting builds of them fail with its name, and nobody has connected; so does what isn't there."""
    async with Greenroom(tmp_path / "data") as server:
        actor = await create(server, "tarball", sourceType="TARBALL", tarballUrl=sources.url("probe.tar.gz"))
        built = await build(server, actor)
        assert built["status"] == "FAILED"
        assert "allow_private_sources" in built["statusMessage"]
        assert error_of(await server.call("tarball")) == (404, "record-not-found")
        actor = await create(server, "wrong", sourceType="GIT_REPO", gitRepoUrl="file:///etc")
        answer = await server.api("POST", f"/actors/{actor['id']}/builds?version=0.1")
        assert error_of(answer) == (400, "source-not-fetched")
    assert sources.requests == []


async def test_a_build_that_fetches_can_be_aborted(tmp_path: Path, sources: SourceServer) -> None:
    """Its end is the abort's, and git is gone."""
    async with Silent() as silent, Greenroom(tmp_path / "data", (), {"allow_private_sources": True}) as server:
        url = f"http://127.0.0.1:{silent.port}/a.git"
        actor = await create(server, "endless", sourceType="GIT_REPO", gitRepoUrl=url)
        started = await server.data_of("POST", f"/actors/{actor['id']}/builds?version=0.1")
        await silent.has_caller.wait()
        aborted = await server.data_of("POST", f"/actor-builds/{started['id']}/abort")
        assert aborted["status"] == "ABORTED"
        await silent.has_left.wait()
        built = await server.data_of("GET", f"/actor-builds/{started['id']}?waitForFinish=10")
        assert built["status"] == "ABORTED"


class Silent:
    """A server that answers nothing, and tells who came and left."""

    async def __aenter__(self) -> Self:
        self.has_caller, self.has_left = asyncio.Event(), asyncio.Event()
        self._server = await asyncio.start_server(self._listen, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.has_caller.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(1000):
                pass
        self.has_left.set()
        writer.close()
