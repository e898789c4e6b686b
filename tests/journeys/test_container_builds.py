"""Builds of images in a real engine: made, followed, aborted, limited, recognised, cleaned; and how they fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import docker
import pytest
from journeys.greenroom import TOKEN, Greenroom, error_of, eventually

from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.docker.images import Images
from gateway.actor_files.snapshot import pack_folder
from gateway.data_dir import records_url
from gateway.installation import BUILD_LABEL, installation_of
from gateway.state.blobs import open_blobs
from gateway.state.records import open_records

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


def once() -> str:
    """A word that makes a step one which no earlier build has left in the engine's cache."""
    return secrets.token_hex(8)


def images_of(client: docker.APIClient, data: Path) -> set[str]:
    """The ids of the builds whose images are there."""
    found = client.images(filters={"label": installation_of(data).label})
    return {image["Labels"][BUILD_LABEL] for image in found}


def containers_with(client: docker.APIClient, word: str) -> list[str]:
    """The containers, of whomever, whose command has *word* in it."""
    return [one["Id"] for one in client.containers(all=True, trunc=False) if word in one["Command"]]


async def push(server: Greenroom, folder: Path) -> dict[str, Any]:
    """The build that pushing *folder* gives, as it is then."""
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
    slow = (
        BASE
        + f"RUN echo first step {once()} && sleep 3\n"
        + 'WORKDIR /app\nCOPY . ./\nCMD ["python3", "-u", "main.py"]\n'
    )
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


async def test_a_run_starts_while_an_image_is_built(
    docker_data: Path, tmp_path: Path, client: docker.APIClient
) -> None:
    """The containers of builds and of runs are on one network, and never in each other's way."""
    quick = actor(tmp_path, "quick")
    slow = actor(tmp_path, "slow", {"Dockerfile": BASE + "RUN sleep 60.25\n"})
    async with greenroom(docker_data, quick) as server:
        await server.wait_until_built()
        builds = [await push(server, slow)]
        await eventually(lambda: containers_with(client, "sleep 60.25"), within_secs=30, what="the step's container")
        for _ in range(3):  # addresses are given out in turn
            run = await server.data_of("POST", "/actors/local~quick/runs")
            await eventually(lambda run_id=run["id"]: is_running(server, run_id), within_secs=20, what="the run")
        for build in builds:
            await server.data_of("POST", f"/actor-builds/{build['id']}/abort")


async def is_running(server: Greenroom, run_id: str) -> bool:
    run = await server.run(run_id)
    assert run["status"] in ("READY", "RUNNING"), run["statusMessage"]
    return run["status"] == "RUNNING" and run["isContainerServerReady"]


async def test_an_abort_ends_the_build_in_the_engine(
    docker_data: Path, tmp_path: Path, client: docker.APIClient
) -> None:
    """An aborted build ends ABORTED at once, its container is gone, no image and no tag is there, its log is kept."""
    folder = actor(tmp_path, "endless", {"Dockerfile": BASE + "RUN echo under way && sleep 61.5\n"})
    async with greenroom(docker_data) as server:
        build = await push(server, folder)
        assert build["status"] in ("READY", "RUNNING")
        await eventually(lambda: containers_with(client, "sleep 61.5"), within_secs=30, what="the step's container")
        aborted = await server.data_of("POST", f"/actor-builds/{build['id']}/abort")
        assert aborted["status"] == "ABORTED"
        await eventually(lambda: not containers_with(client, "sleep 61.5"), what="the end of the container")
        log = docker_data / "live" / "logs" / f"{build['id']}.log"
        await eventually(lambda: not log.exists(), what="the log in the blobs")
        text = await server.log_of(build["id"])
        assert "under way" in text
        assert text.rstrip().endswith("The build was aborted.")
        assert (await server.data_of("GET", f"/actor-builds/{build['id']}"))["status"] == "ABORTED"
        assert (await server.data_of("GET", f"/actors/{build['actId']}"))["taggedBuilds"] in (None, {})
    assert images_of(client, docker_data) == set()


async def test_builds_beyond_the_limit_wait(docker_data: Path, tmp_path: Path, client: docker.APIClient) -> None:
    """With max_builds=1 others wait as READY, say so, may be aborted, and begin when the first has gone."""
    first = actor(tmp_path, "first", {"Dockerfile": BASE + "RUN sleep 62.5\n"})
    second = actor(tmp_path, "second")
    third = actor(tmp_path, "third")
    async with greenroom(docker_data, max_builds=1) as server:
        one = await push(server, first)
        await eventually(lambda: containers_with(client, "sleep 62.5"), within_secs=30, what="the step's container")
        two, three = await push(server, second), await push(server, third)

        async def says(build: Mapping[str, Any], word: str) -> bool:
            return word in await server.log_of(build["id"])

        for build in (two, three):
            await eventually(lambda build=build: says(build, "max_builds"), what="the word of the wait")
            assert (await server.data_of("GET", f"/actor-builds/{build['id']}"))["status"] == "READY"
        await server.data_of("POST", f"/actor-builds/{two['id']}/abort")
        await eventually(lambda: says(two, "The build was aborted."), what="the end of the one that waited")
        await server.data_of("POST", f"/actor-builds/{one['id']}/abort")
        assert (await ended(server, three))["status"] == "SUCCEEDED"
        assert (await server.data_of("GET", f"/actor-builds/{two['id']}"))["status"] == "ABORTED"
    assert images_of(client, docker_data) == {three["id"]}


@pytest.mark.parametrize(
    ("files", "fields", "message"),
    [
        pytest.param(
            {"Dockerfile": BASE + "RUN true\nRUN echo one; echo the reason >&2; exit 7\nRUN true\n"},
            {},
            ["Step 3/", "RUN echo one", "returned a non-zero code: 7", "\none", "\nthe reason"],
            id="step 3 fails",
        ),
        pytest.param(
            {"Dockerfile": "FROM localhost:1/no-such:1\n"},
            {},
            ["there is no such image localhost:1/no-such:1", "Pull it"],
            id="unknown base image",
        ),
        pytest.param(
            {"Dockerfile": BASE + "NONSENSE x\n"}, {}, ["could not be built", "NONSENSE"], id="unknown instruction"
        ),
        pytest.param({"Dockerfile": BASE + "COPY missing ./\n"}, {}, ["Step 2/", "missing"], id="nothing to copy"),
        pytest.param(
            {}, {"dockerContextDir": "nowhere"}, ["dockerContextDir", ".actor/nowhere"], id="no context folder"
        ),
        pytest.param({}, {"dockerContextDir": "../.."}, ["dockerContextDir", "lies outside"], id="context outside"),
        pytest.param(
            {"Dockerfile": "", "main.py": "", "notes.txt": "x"},
            {},
            ["Dockerfile", "there is none"],
            id="nothing to go by",
        ),
    ],
)
async def test_a_build_that_fails_says_why(
    docker_data: Path,
    tmp_path: Path,
    client: docker.APIClient,
    files: Mapping[str, str],
    fields: Mapping[str, Any],
    message: list[str],
) -> None:
    """FAILED; status message and log name the step and its last lines, or what is missing; no image, no tag."""
    async with greenroom(docker_data) as server:
        build = await ended(server, await push(server, actor(tmp_path, "broken", files, **fields)))
        assert build["status"] == "FAILED"
        for words in message:
            assert words in build["statusMessage"]
        log = await server.log_of(build["id"])
        assert message[0] in log
        assert (await server.data_of("GET", f"/actors/{build['actId']}"))["taggedBuilds"] in (None, {})
        assert error_of(await server.call("broken")) == (404, "record-not-found")
    assert images_of(client, docker_data) == set()
    assert client.containers(all=True, filters={"label": installation_of(docker_data).label}) == []


async def test_a_dockerfile_outside_of_the_root_is_refused(docker_data: Path, tmp_path: Path) -> None:
    """A mistake that can be seen without building is told before anything is made."""
    folder = actor(tmp_path, "outside", dockerfile="../../Dockerfile")
    async with greenroom(docker_data) as server:
        headers = {"Content-Type": "application/gzip"}
        answer = await server.api("POST", "/greenroom/push", content=pack_folder(folder).archive, headers=headers)
        assert error_of(answer) == (400, "invalid-actor-definition")
        assert "points outside the Actor root directory" in answer.text
        assert (await server.data_of("GET", "/actor-builds"))["total"] == 0


async def test_an_unchanged_folder_is_recognised(docker_data: Path, tmp_path: Path) -> None:
    """A push by hand shows the log live and ends with the address; the same folder again takes under a second."""
    folder = actor(tmp_path, "same")
    async with greenroom(docker_data) as server:
        out = await server.command("push", str(folder))
        assert "Successfully tagged" in out
        assert out.endswith(f"local/same 0.1.1\nhttp://local--same.localhost:{server.port}\n")
        began = time.monotonic()
        build = await push(server, folder)
        assert time.monotonic() - began < 1
        assert (build["status"], build["buildNumber"]) == ("SUCCEEDED", "0.1.1")
        (folder / "main.py").write_text(SERVER + "# changed\n")
        out = await server.command("push", str(folder))
        assert "local/same 0.1.2" in out
        (folder / "Dockerfile").write_text(BASE + "RUN exit 3\n")
        await server.command("push", str(folder), expect=1)
        assert (await server.call("same", "/main.py")).text.endswith("# changed\n")


async def test_a_build_under_way_is_joined(docker_data: Path, tmp_path: Path, client: docker.APIClient) -> None:
    """Pushing the same folder again while it is built gives the same build; waitForFinish waits for its end."""
    folder = actor(
        tmp_path, "twice", {"Dockerfile": BASE + f"RUN sleep 2 && echo {once()}\n" + DOCKERFILE.removeprefix(BASE)}
    )
    async with greenroom(docker_data) as server:
        first, second = await push(server, folder), await push(server, folder)
        assert first["id"] == second["id"]
        build = await server.data_of("POST", "/actors/local~twice/builds?version=0.1&waitForFinish=60&useCache=1")
        assert (build["status"], build["buildNumber"]) == ("SUCCEEDED", "0.1.2")
        assert (await ended(server, first))["status"] == "SUCCEEDED"
    assert images_of(client, docker_data) == {first["id"], build["id"]}


async def test_a_server_killed_amid_a_build(docker_data: Path, tmp_path: Path, client: docker.APIClient) -> None:
    """The build has FAILED at the next start, with its log so far, and nothing of it is left in the engine."""
    folder = actor(tmp_path, "cut", {"Dockerfile": BASE + "RUN echo under way && sleep 63.5\n"})
    server = greenroom(docker_data)
    async with server:
        build = await push(server, folder)
        await eventually(lambda: containers_with(client, "sleep 63.5"), within_secs=30, what="the step's container")
        await server.kill()
    await eventually(lambda: not containers_with(client, "sleep 63.5"), what="the end of the container")
    async with greenroom(docker_data) as server:
        after = await server.data_of("GET", f"/actor-builds/{build['id']}")
        assert (after["status"], after["statusMessage"]) == (
            "FAILED",
            "Greenroom stopped while this build was made: build again.",
        )
        assert "under way" in await server.log_of(build["id"])
    assert images_of(client, docker_data) == set()


async def test_a_reload_amid_a_build(docker_data: Path, tmp_path: Path, client: docker.APIClient) -> None:
    """The next worker begins it anew, under the same record, and it succeeds."""
    mark = once()
    wait = f"RUN sleep 4 && echo {mark}\n"
    folder = actor(tmp_path, "moved", {"Dockerfile": BASE + wait + DOCKERFILE.removeprefix(BASE)})
    async with greenroom(docker_data) as server:
        build = await push(server, folder)
        await eventually(lambda: containers_with(client, mark), within_secs=30, what="the step's container")
        await server.command("reload")
        after = await ended(server, build)
        assert (after["status"], after["buildNumber"]) == ("SUCCEEDED", "0.1.1")
        assert "the build begins anew" in await server.log_of(build["id"])
        assert (await server.call("moved", "/Dockerfile")).text == (folder / "Dockerfile").read_text()


async def test_a_build_that_takes_too_long(docker_data: Path, tmp_path: Path, client: docker.APIClient) -> None:
    """It ends TIMED-OUT with the setting's name, and its container is gone."""
    folder = actor(tmp_path, "long", {"Dockerfile": BASE + "RUN sleep 65.5\n"})
    async with greenroom(docker_data, build_timeout_secs=3) as server:
        build = await ended(server, await push(server, folder))
        assert build["status"] == "TIMED-OUT"
        assert "build_timeout_secs" in build["statusMessage"]
        await eventually(lambda: not containers_with(client, "sleep 65.5"), what="the end of the container")
    assert images_of(client, docker_data) == set()


async def test_variables_of_a_version_as_build_arguments(
    docker_data: Path, tmp_path: Path, client: docker.APIClient
) -> None:
    """
    With applyEnvVarsToBuild they are arguments of the Dockerfile, secret or not; else they are not. What is secret is
    in no log.
    """
    dockerfile = BASE + (
        "ARG PLAIN=none\nARG HIDDEN=none\nARG ACTOR_PATH_IN_DOCKER_CONTEXT\nWORKDIR /app\n"
        'RUN echo "plain=$PLAIN hidden=$HIDDEN path=$ACTOR_PATH_IN_DOCKER_CONTEXT" | tee said\n'
        'COPY . ./\nCMD ["python3", "-u", "main.py"]\n'
    )
    folder = actor(tmp_path, "args", {"Dockerfile": dockerfile})
    async with greenroom(docker_data) as server:
        await ended(server, await push(server, folder))
        assert (await server.call("args", "/said")).text == "plain=none hidden=none path=.\n"
        variables = [
            {"name": "PLAIN", "value": "yes"},
            {"name": "HIDDEN", "value": "the-secret-word", "isSecret": True},
        ]
        await server.data_of(
            "PUT", "/actors/local~args/versions/0.1", json={"applyEnvVarsToBuild": True, "envVars": variables}
        )
        build = await server.data_of("POST", "/actors/local~args/builds?version=0.1&waitForFinish=60")
        assert build["status"] == "SUCCEEDED", build["statusMessage"]
        log = await server.log_of(build["id"])
        assert "plain=yes hidden=***** path=." in log
        assert "the-secret-word" not in log + server.log

        async def says() -> bool:
            return (await server.call("args", "/said")).text == "plain=yes hidden=the-secret-word path=.\n"

        await eventually(says, within_secs=20, what="the new build's answer")


async def test_a_context_that_is_not_the_root(docker_data: Path, tmp_path: Path) -> None:
    """
    The context is the folder of dockerContextDir, less what its .dockerignore names; the Dockerfile may lie outside,
    and is not part of the image then.
    """
    dockerfile = BASE + (
        "ARG ACTOR_PATH_IN_DOCKER_CONTEXT\nWORKDIR /app\nCOPY . ./\n"
        'RUN ls -A > said; echo "$ACTOR_PATH_IN_DOCKER_CONTEXT" >> said\n'
        'CMD ["python3", "-u", "main.py"]\n'
    )
    files = {
        "Dockerfile": "",
        ".actor/Dockerfile": dockerfile,
        "main.py": "",
        "inner/main.py": SERVER,
        "inner/.dockerignore": "*.txt\n!kept.txt\n# a comment\n",
        "inner/left.txt": "x",
        "inner/kept.txt": "x",
        "outer.py": "x",
    }
    folder = actor(tmp_path, "inner", files, dockerContextDir="../inner")
    async with greenroom(docker_data) as server:
        build = await ended(server, await push(server, folder))
        assert build["status"] == "SUCCEEDED", build["statusMessage"]
        assert (await server.call("inner", "/said")).text.split() == ["kept.txt", "main.py", "said", ".."]


async def test_no_dockerfile_and_a_python_actor(docker_data: Path, tmp_path: Path) -> None:
    """The built-in one for Python is used, is shown in the log, and serves; its base image is a setting."""
    files = {"Dockerfile": "", "main.py": "", "src/__main__.py": SERVER, "requirements.txt": "# none\n"}
    async with greenroom(docker_data, docker_python_image="greenroom-tests:base") as server:
        build = await ended(server, await push(server, actor(tmp_path, "plain", files)))
        assert build["status"] == "SUCCEEDED", build["statusMessage"]
        log = await server.log_of(build["id"])
        assert "There is no Dockerfile, so this one is used:" in log
        assert (await server.call("plain", "/src/__main__.py")).text == SERVER


async def test_an_image_that_was_removed_is_built_again(
    docker_data: Path, tmp_path: Path, client: docker.APIClient
) -> None:
    """
    Images without a tag go at the next check (with image_keep_days=0 at once), those with one stay; a run of such a
    build makes the image anew from its snapshot, and an image that somebody removed is made anew, too.
    """
    folder = actor(tmp_path, "kept")
    async with greenroom(docker_data, image_keep_days=0) as server:
        first = await ended(server, await push(server, folder))
        (folder / "main.py").write_text(SERVER + "# second\n")
        second = await ended(server, await push(server, folder))
        assert images_of(client, docker_data) == {first["id"], second["id"]}
    async with greenroom(docker_data, image_keep_days=0) as server:
        await eventually(lambda: images_of(client, docker_data) == {second["id"]}, what="the removal")
        run = await server.data_of("POST", f"/actors/local~kept/runs?build={first['buildNumber']}")
        await eventually(lambda: is_running(server, run["id"]), within_secs=60, what="the run of the old build")
        assert images_of(client, docker_data) == {first["id"], second["id"]}
        client.remove_image(f"{installation_of(docker_data).image_name}:{second['id']}")
        assert (await server.call("kept", "/main.py")).text.endswith("# second\n")


async def test_an_engine_that_goes_away_amid_a_build(
    docker_data: Path, docker_host: str, tmp_path: Path, client: docker.APIClient
) -> None:
    """The build fails with words about the engine, at once, and the server goes on."""
    folder = actor(tmp_path, "gone", {"Dockerfile": BASE + "RUN sleep 66.5\n"})
    async with Wire(tmp_path / "docker.sock", docker_host) as wire:
        async with greenroom(docker_data, docker_host=wire.host) as server:
            build = await push(server, folder)
            await eventually(lambda: containers_with(client, "sleep 66.5"), within_secs=30, what="the step's container")
            wire.cut()
            after = await ended(server, build)
            assert after["status"] == "FAILED"
            assert "engine" in after["statusMessage"]
            assert (await server.client.get("/health/live")).status_code == 200
            wire.mend()
        await eventually(lambda: not containers_with(client, "sleep 66.5"), what="the end of the container")


async def test_a_push_that_is_left(docker_data: Path, tmp_path: Path, client: docker.APIClient) -> None:
    """Ctrl-C says that the build goes on and how to end it, and that is true."""
    folder = actor(tmp_path, "left", {"Dockerfile": BASE + "RUN echo under way && sleep 67.5\n"})
    async with greenroom(docker_data) as server:
        pushing = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.cli", "push", str(folder)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"GREENROOM_DATA": str(docker_data), "GREENROOM_TOKEN": TOKEN},
        )
        assert pushing.stdout is not None
        async with asyncio.timeout(60):
            while b"Running in" not in await pushing.stdout.readline():  # what comes is shown at once
                pass
        pushing.send_signal(signal.SIGINT)
        _, errors = await pushing.communicate()
        assert pushing.returncode == 130
        (found,) = re.findall(r"the build 0\.1\.1 goes on: .* 'greenroom abort (\w+)' ends it", errors.decode())
        assert containers_with(client, "sleep 67.5")
        assert await server.command("abort", found) == f"{found} ABORTED\n"
        await eventually(lambda: not containers_with(client, "sleep 67.5"), what="the end of the container")


async def test_serving_a_folder_that_does_not_build(docker_data: Path, tmp_path: Path) -> None:
    """The terminal says which Actor, which step and why; the others serve."""
    broken = actor(tmp_path, "broken", {"Dockerfile": BASE + "RUN exit 9\n"})
    async with greenroom(docker_data, broken, actor(tmp_path, "whole")) as server:
        await eventually(lambda: "local/broken: build 0.1.1 FAILED: Step 2/" in server.log, within_secs=60)
        await eventually(lambda: "local/whole: http://" in server.log, within_secs=60)
        assert (await server.call("whole")).status_code == 200


async def test_what_is_there_is_known_from_the_beginning(docker_data: Path, tmp_path: Path) -> None:
    """After a restart a wake asks the engine nothing for an image that is there; it does for one that isn't."""
    async with greenroom(docker_data) as server:
        build_id = (await ended(server, await push(server, actor(tmp_path, "known"))))["id"]
    engine = Engine()
    async with (
        open_records(records_url(docker_data)) as records,
        Images(engine, installation_of(docker_data), open_blobs(docker_data / "blobs")) as images,
    ):
        build = await records.build(build_id)
        assert build is not None
        assert images.is_there(build)
        assert not images.is_there(replace(build, id="another"))
        assert [image.build_id for image in await images.list_images()] == [build_id]
    engine.close()


class Wire:
    """A socket between a Greenroom and the engine that can be cut; an async context manager."""

    def __init__(self, path: Path, engine: str) -> None:
        self.host = f"unix://{path}"
        self._path = path
        self._engine = engine.removeprefix("unix://")
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._carry, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """End what is connected, and refuse what comes."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """Connect again."""
        self._is_cut = False

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_unix_connection(self._engine)
        self._writers |= {writer, far_writer}

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
                if sink.can_write_eof():
                    sink.write_eof()

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, far_writer))
                group.create_task(pump(far_reader, writer))
        finally:
            for one in (writer, far_writer):
                self._writers.discard(one)
                one.close()
