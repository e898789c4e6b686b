"""Builds of images in a real engine: made, followed, aborted, limited, recognised, cleaned; and how they fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest
from journeys.greenroom import Greenroom, error_of, eventually

from gateway.installation import BUILD_LABEL, installation_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

BASE = "FROM greenroom-tests:base\n"
SERVER = """
import http.server, os, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = pathlib.Path(self.path[1:] or "main.py")
        found = path.exists()
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(path.read_bytes() if found else b"")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Handler).serve_forever()
"""
DOCKERFILE = BASE + 'WORKDIR /app\nCOPY . ./\nCMD ["python3", "-u", "main.py"]\n'


def actor(parent: Path, name: str, files: Mapping[str, str] | None = None, **fields: Any) -> Path:
    """A folder with an Actor that serves its own files; *files* beside or instead of its own ("" leaves one out)."""
    folder = parent / name
    definition = {"actorSpecification": 1, "name": name, "version": "0.1", "usesStandbyMode": True, **fields}
    given = {".actor/actor.json": json.dumps(definition), "main.py": SERVER, "Dockerfile": DOCKERFILE, **(files or {})}
    for path, content in given.items():
        if content:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
    return folder


@pytest.fixture
def client(docker_host: str) -> Iterator[docker.APIClient]:
    """The engine itself."""
    client = docker.APIClient(base_url=docker_host, version="1.41")
    yield client
    client.close()


def greenroom(data: Path, *folders: Path, **settings: Any) -> Greenroom:
    return Greenroom(data, folders, {"launcher": "docker", **settings}, waits_for_builds=False)


def images_of(client: docker.APIClient, data: Path) -> set[str]:
    """The ids of the builds whose images are there."""
    found = client.images(filters={"label": installation_of(data).label})
    return {image["Labels"][BUILD_LABEL] for image in found}


def containers_with(client: docker.APIClient, word: str) -> list[str]:
    """The containers, of whomever, whose command has *word* in it."""
    return [one["Id"] for one in client.containers(all=True, trunc=False) if word in one["Command"]]


async def push(server: Greenroom, folder: Path) -> dict[str, Any]:
    """The build that pushing *folder* gives, as it is then."""
    from gateway.actor_files.snapshot import pack_folder

    archive = await asyncio.to_thread(pack_folder, folder)
    headers = {"Content-Type": "application/gzip"}
    pushed = await server.data_of("POST", "/greenroom/push", content=archive.archive, headers=headers)
    return dict(pushed["build"])


async def ended(server: Greenroom, build: Mapping[str, Any]) -> dict[str, Any]:
    """The build once it has ended."""
    build = dict(build)
    while not build.get("finishedAt"):
        build = await server.data_of("GET", f"/actor-builds/{build['id']}?waitForFinish=60")
    return build


async def test_serving_a_folder(docker_data: Path, tmp_path: Path, client: docker.APIClient) -> None:
    """
    A server is ready before its Actors' images are; until then their callers are told to come back, and the terminal
    shows how far the build is. Then the Actor's line is printed and it serves.
    """
    gate = tmp_path / "gate"
    slow = BASE + 'WORKDIR /app\nRUN echo "first step" && sleep 3\nCOPY . ./\nCMD ["python3", "-u", "main.py"]\n'
    folder = actor(tmp_path, "slow", {"Dockerfile": slow})
    async with greenroom(docker_data, folder) as server:
        assert "local/slow: build 0.1.1 is being made" in server.log
        answer = await server.call("slow")
        assert error_of(answer) == (503, "build-under-way")
        assert int(answer.headers["Retry-After"]) > 0
        await eventually(lambda: "first step" in server.log, within_secs=30, what="the step's output")
        await server.wait_until_built()
        await eventually(lambda: f"local/slow: http://local--slow.localhost:{server.port}/" in server.log)
        answer = await server.call("slow")
        assert (answer.status_code, answer.text) == (200, SERVER)
    assert not gate.exists()
