"""The socket filter before a real Docker engine: the launcher works through it, others' things are out of reach."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from journeys.greenroom import eventually
from launcher_builds import ContainerBuilds, start_run

from autoscaler.launchers.docker.engine import Engine, EngineUnavailable
from autoscaler.launchers.docker.image_build import ImageBuild
from autoscaler.launchers.docker.images import Images
from autoscaler.launchers.docker.launcher import DockerLauncher
from gateway.core.errors import LaunchError
from gateway.installation import INSTALLATION_LABEL, Installation, installation_of
from gateway.state.blobs import open_blobs

pytestmark = pytest.mark.slow

OTHER = "ffffffff"

# The library leaves a socket that could not be connected to the collector; `gc.collect` in the test that causes it.
leaves_sockets = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed")


@dataclass
class Filter:
    """The filter as its own program."""

    listen: Path
    arguments: tuple[str, ...]
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it; returns once it listens."""
        words = ("--listen", str(self.listen), *self.arguments)
        with (self.listen.parent / "filter.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "autoscaler.launchers.docker.socket_filter", *words],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("Docker for Greenroom: ")

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    @property
    def url(self) -> str:
        return f"unix://{self.listen}"

    @property
    def log(self) -> str:
        return (self.listen.parent / "filter.log").read_text()

    def open_files(self) -> int:
        """How many descriptors it has: two more for each connection that goes through it."""
        assert self.process is not None
        return len([*Path(f"/proc/{self.process.pid}/fd").iterdir()])

    async def raw(self, request: bytes, *, half_close: bool = False) -> tuple[int, bytes]:
        """Status and body of the answer to exactly these bytes; (0, b"") where there is none."""
        reader, writer = await asyncio.open_unix_connection(str(self.listen))
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(request)
                await writer.drain()
                if half_close:
                    writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return (int(head.split()[1]) if head else 0), body

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any] | bytes]:
        """One call, JSON in its body; status and what is answered."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: docker\r\nContent-Length: {len(content)}\r\n\r\n"
        status, answer = await self.raw(head.encode() + content)
        try:
            return status, json.loads(answer)
        except ValueError:
            return status, answer


@pytest.fixture
def engine_path(docker_host: str) -> str:
    if not docker_host.startswith("unix://"):
        pytest.skip("the engine has no socket on this machine")
    return docker_host.removeprefix("unix://")


@pytest.fixture
def own(tmp_path: Path) -> Installation:
    return installation_of(tmp_path)


@pytest.fixture
def socket_filter(engine_path: str, tmp_path: Path, own: Installation) -> Iterator[Filter]:
    """A filter for the Greenroom of this test's folder; what that leaves in the engine is removed."""
    import docker_engine

    running = Filter(tmp_path / "docker.sock", ("--engine", engine_path, "--data", str(tmp_path)))
    running.start()
    yield running
    running.stop()
    docker_engine.remove_all(f"unix://{engine_path}", own.label)


@pytest.fixture
async def launcher(socket_filter: Filter, own: Installation, tmp_path: Path) -> AsyncIterator[DockerLauncher]:
    """The Docker launcher, which knows of no other engine than the filter."""
    engine = Engine(socket_filter.url)
    async with (
        Images(engine, own, open_blobs(tmp_path / "blobs")) as images,
        DockerLauncher(
            engine, own, images, log_path=lambda run_id: tmp_path / f"{run_id}.log", max_log_chars=1_000_000
        ) as launcher,
    ):
        yield launcher


@pytest.fixture
def builds(socket_filter: Filter, tmp_path: Path) -> Iterator[ContainerBuilds]:
    made = ContainerBuilds(tmp_path)
    yield made
    made.close()


@pytest.fixture
def direct(docker_host: str) -> Iterator[docker.APIClient]:
    """The engine without the filter."""
    client = docker.APIClient(docker_host, version="1.41")
    yield client
    client.close()


@pytest.fixture
def foreign(direct: docker.APIClient) -> Iterator[str]:
    """A container that runs and is another Greenroom's; its id."""
    config = direct.create_host_config(init=True)
    made = direct.create_container(
        "greenroom-tests:base", ["sleep", "300"], labels={INSTALLATION_LABEL: OTHER}, host_config=config
    )
    direct.start(made["Id"])
    yield str(made["Id"])
    direct.remove_container(made["Id"], force=True)


def _context(dockerfile: str) -> io.BytesIO:
    content = dockerfile.encode()
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    context.seek(0)
    return context


def _build(engine: Engine, own: Installation, dockerfile: str, lines: list[str], **changes: Any) -> ImageBuild:
    parameters = {
        "tag": f"{own.image_name}:b1",
        "rm": True,
        "forcerm": True,
        "network_mode": own.network,
        "labels": {INSTALLATION_LABEL: own.id},
        "container_limits": {"memory": 2**28, "memswap": 2**28},
        **changes,
    }
    return ImageBuild(engine, _context(dockerfile), parameters, lines.extend, timeout_secs=60)


async def test_a_run_through_the_filter(launcher, builds, tmp_path, socket_filter):
    """Start, log, freeze, resume, share, stop and forget, and not one call of the launcher's is refused."""
    run = await start_run(launcher, builds.script("print('hello'); wait_for_knock(); print('bye')"), tmp_path)
    await eventually(lambda: run.log() == ["hello", "listening"], what="the log, while it runs")
    await launcher.has_booted(run.id)
    await launcher.freeze(run.id)
    await launcher.resume(run.id)
    await run.knock()
    assert (await launcher.wait(run.id)).exit_code == 0
    assert run.log() == ["hello", "listening", "bye"]
    asked = await start_run(launcher, builds.script("wait_for_knock()"), tmp_path)
    assert {found.run_id for found in await launcher.list()} == {run.id, asked.id}
    await launcher.stop(asked.id, grace_secs=0)
    assert (await launcher.wait(asked.id)).exit_code == 137
    for run_id in (run.id, asked.id):
        await launcher.forget(run_id)

    async def gone() -> bool:
        return await launcher.list() == []

    await eventually(gone, what="the removal")
    assert "refused" not in socket_filter.log


@leaves_sockets
async def test_the_launcher_goes_on_after_a_restart_of_the_filter(launcher, builds, tmp_path, socket_filter):
    """Streams that broke with the filter are taken up again: no line is lost, the end is seen, nothing runs twice."""
    run = await start_run(launcher, builds.script("print('one'); wait_for_knock(); print('two')"), tmp_path)
    await eventually(lambda: run.log() == ["one", "listening"], what="the first lines")
    assert socket_filter.stop() == 0
    assert not socket_filter.listen.exists()
    with pytest.raises(LaunchError, match="does not answer"):
        await launcher.freeze(run.id)
    socket_filter.start()
    await run.knock()
    assert (await asyncio.wait_for(launcher.wait(run.id), 20)).exit_code == 0
    assert run.log() == ["one", "listening", "two"]
    gc.collect()


async def test_a_build_through_the_filter(launcher, own, socket_filter, direct):
    """An image is built, its output is heard while it is being built, and a failing step is told as by the engine."""
    engine = Engine(socket_filter.url)
    lines: list[str] = []
    dockerfile = "FROM greenroom-tests:base\nRUN echo first && sleep 2 && echo second\n"
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.to_thread(_build(engine, own, dockerfile, lines, nocache=True).run))
        await eventually(lambda: "first" in lines, within_secs=30, what="the first line")
        assert "second" not in lines
    assert "second" in lines
    assert (direct.inspect_image(f"{own.image_name}:b1")["Config"]["Labels"])[INSTALLATION_LABEL] == own.id
    with pytest.raises(LaunchError, match=r"RUN exit 3 failed"):
        await asyncio.to_thread(_build(engine, own, "FROM greenroom-tests:base\nRUN exit 3\n", lines).run)
    assert "refused" not in socket_filter.log


async def test_a_build_that_is_left_is_ended(launcher, own, socket_filter, direct):
    """Who leaves a build behind has it ended by the engine, through the filter too, and no container of it is left."""
    lines: list[str] = []
    engine = Engine(socket_filter.url)
    build = _build(engine, own, "FROM greenroom-tests:base\nRUN echo begun && sleep 77\n", lines, nocache=True)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(_ended(build))
        await eventually(lambda: "begun" in lines, within_secs=30, what="the build's first line")
        build.cancel()
        assert "was ended" in await running
    await eventually(lambda: not _steps_of("sleep 77", direct), within_secs=20, what="the end of the step's container")


def _steps_of(words: str, direct: docker.APIClient) -> list[str]:
    return [one["Id"] for one in direct.containers(all=True) if words in str(one["Command"])]


async def _ended(build: ImageBuild) -> str:
    try:
        await asyncio.to_thread(build.run)
    except LaunchError as error:
        return error.message
    return ""


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"network_mode": "host"}, id="on the machine's network"),
        pytest.param({"tag": "python:3.12-slim"}, id="under another's name"),
        pytest.param({"labels": {INSTALLATION_LABEL: OTHER}}, id="with another's label"),
    ],
)
async def test_builds_that_are_refused(socket_filter, own, changes):
    """The reason reaches whoever builds, although a large context was under way."""
    engine = Engine(socket_filter.url)
    with pytest.raises(LaunchError, match="socket filter"):
        await asyncio.to_thread(_build(engine, own, "FROM greenroom-tests:base\n#" + "x" * 2**20, [], **changes).run)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/containers/{}/json"),
        ("GET", "/containers/{}/logs?stdout=1"),
        ("GET", "/containers/{}/stats?stream=0"),
        ("POST", "/containers/{}/start"),
        ("POST", "/containers/{}/kill?signal=KILL"),
        ("POST", "/containers/{}/pause"),
        ("POST", "/containers/{}/unpause"),
        ("DELETE", "/containers/{}?force=1"),
        ("POST", "/containers/{}/exec"),
    ],
)
async def test_others_containers_are_out_of_reach(socket_filter, direct, foreign, method, path):
    """Neither seen nor touched, by no call."""
    status, told = await socket_filter.call(method, path.replace("{}", foreign))
    assert (status, "socket filter" in told["message"]) == (403, True)
    state = direct.inspect_container(foreign)["State"]
    assert (state["Running"], state["Paused"]) == (True, False)


async def test_others_containers_get_no_other_limits(socket_filter, direct, foreign):
    """Nor by a call with a body."""
    status, _ = await socket_filter.call("POST", f"/containers/{foreign}/update", {"CpuQuota": 5000})
    assert status == 403
    assert direct.inspect_container(foreign)["HostConfig"]["CpuQuota"] == 0


async def test_lists_and_events_tell_nothing_of_others(socket_filter, launcher, builds, tmp_path, direct, foreign):
    """Containers, images and networks of others are in no list, and what happens to them is no event."""
    events = await asyncio.open_unix_connection(str(socket_filter.listen))
    events[1].write(b"GET /v1.41/events HTTP/1.1\r\nHost: docker\r\n\r\n")
    assert b" 200 OK" in await asyncio.wait_for(events[0].readline(), 10)
    direct.kill(foreign, "SIGKILL")
    run = await start_run(launcher, builds.script(""), tmp_path)
    await launcher.wait(run.id)
    heard = await asyncio.wait_for(events[0].readuntil(b'"status":"die"'), 10)
    events[1].close()
    assert run.id.encode() in heard
    assert foreign.encode() not in heard
    for path in ("/containers/json?all=1", "/images/json", "/networks"):
        status, found = await socket_filter.call("GET", path)
        assert status == 200
        assert found, path
        assert all(INSTALLATION_LABEL in one["Labels"] and OTHER not in str(one["Labels"]) for one in found)


async def test_others_images_and_networks_are_out_of_reach(socket_filter, direct):
    """By name as by id."""
    image = direct.inspect_image("greenroom-tests:base")["Id"]
    network = direct.inspect_network("bridge")["Id"]
    for method, path in (
        ("GET", f"/images/{image}/json"),
        ("DELETE", f"/images/{image}"),
        ("GET", f"/networks/{network}"),
        ("DELETE", f"/networks/{network}"),
    ):
        assert (await socket_filter.call(method, path))[0] == 403, path
    assert direct.inspect_image("greenroom-tests:base")["Id"] == image


async def test_what_is_not_there_is_told_as_by_the_engine(socket_filter, own):
    """404 with the engine's words, so that the launcher takes it as that."""
    status, told = await socket_filter.call("GET", f"/containers/{'0' * 64}/json")
    assert (status, "No such container" in told["message"]) == (404, True)
    status, told = await socket_filter.call("GET", f"/images/{own.image_name}:none/json")
    assert (status, "No such image" in told["message"]) == (404, True)


async def test_a_privileged_container_is_refused_over_the_wire(socket_filter, own, direct):
    """Also where another description stands beside it in the same bytes; nothing is created."""
    path = f"/v1.41/containers/create?name=greenroom-{own.id}-evil"
    assert (await socket_filter.call("POST", path, {"HostConfig": {"Privileged": True}}))[0] == 403
    twice = b'{"HostConfig": {}, "HostConfig": {"Privileged": true}}'
    head = f"POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Length: {len(twice)}\r\n\r\n".encode()
    assert (await socket_filter.raw(head + twice))[0] == 400
    assert [one for one in direct.containers(all=True) if "evil" in str(one["Names"])] == []
    assert "Privileged" in socket_filter.log


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"nonsense\r\n\r\n", 400, id="no HTTP"),
        pytest.param(b"GET /_ping HTTP/1.1\r\nHost: d\r\n", 400, id="cut off in its head"),
        pytest.param(b"GET /_ping HTTP/1.1\r\nX: " + b"x" * 300_000 + b"\r\n\r\n", 400, id="an endless head"),
        pytest.param(
            b"POST /build HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            id="two lengths of a body",
        ),
        pytest.param(
            b"POST /networks/create HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            400,
            id="two different lengths",
        ),
        pytest.param(
            b"POST /networks/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
            400,
            id="a chunk without a size",
        ),
        pytest.param(
            b"POST /networks/create HTTP/1.1\r\nHost: d\r\nContent-Length: 50\r\n\r\n{}", 400, id="a body cut off"
        ),
        pytest.param(
            b"POST /networks/create HTTP/1.1\r\nHost: d\r\nContent-Length: 9999999999\r\n\r\n" + b"x" * 5_000_000,
            400,
            id="an endless body of JSON",
        ),
        pytest.param(b"GET /info HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{}", 400, id="a body too many"),
        pytest.param(b"GET /info HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", 400, id="who wants to be asked first"),
        pytest.param(b"GET /inf\xc3\xb6 HTTP/1.1\r\nHost: d\r\n\r\n", 400, id="letters that are in no URL"),
        pytest.param(
            b"GET /info HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", 403, id="another protocol, TCP"
        ),
        pytest.param(b"POST /session HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 403, id="HTTP/2"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="HTTP/2 at once"),
        pytest.param(b"CONNECT docker:80 HTTP/1.1\r\nHost: d\r\n\r\n", 403, id="a tunnel"),
        pytest.param(b"GET /containers/x/attach/ws HTTP/1.1\r\nHost: d\r\n\r\n", 403, id="a WebSocket"),
    ],
)
async def test_requests_that_are_refused(socket_filter, request_bytes, status):
    """Each with a status and a reason, and afterwards the filter serves as before."""
    told_status, body = await socket_filter.raw(request_bytes, half_close=True)
    assert told_status == status
    assert json.loads(body)["message"]
    assert (await socket_filter.raw(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"))[0] == 200


async def test_one_connection_is_one_request(socket_filter, foreign):
    """What stands behind a request is not taken for another: only the first one is answered, the rest goes nowhere."""
    first = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
    behind = f"DELETE /containers/{foreign}?force=1 HTTP/1.1\r\nHost: d\r\n\r\n".encode()
    status, body = await socket_filter.raw(first + behind)
    assert status in (200, 400)
    assert body.count(b"HTTP/1.1") == 0


async def test_nothing_of_a_requests_headers_reaches_the_engine(tmp_path, own):
    """The engine hears the filter's own words: another's Host, X-headers and versions of HTTP end here."""
    heard: list[bytes] = []

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK")
        writer.close()

    path = str(tmp_path / "engine.sock")
    async with await asyncio.start_unix_server(engine, path):
        running = Filter(tmp_path / "f.sock", ("--engine", path, "--installation", own.id))
        running.start()
        request = b"GET /_ping HTTP/1.0\r\nHost: evil\r\nX-Other: 1\r\nX-Registry-Auth: e30=\r\nCookie: a=b\r\n\r\n"
        assert await running.raw(request) == (200, b"OK")
        running.stop()
    assert heard == [b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"]


async def test_half_closed_clients_get_their_whole_answer(socket_filter, own):
    """Who sends no more still listens: the answer is as whole as without."""
    request = b"GET /v1.41/info HTTP/1.1\r\nHost: d\r\n\r\n"
    status, body = await socket_filter.raw(request, half_close=True)
    assert status == 200
    assert "ServerVersion" in json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])


async def test_a_stream_ends_with_its_client(socket_filter):
    """A client that has gone takes its connection to the engine along, also of a stream in which nothing happens."""
    before = socket_filter.open_files()
    clients = []
    for _ in range(20):
        reader, writer = await asyncio.open_unix_connection(str(socket_filter.listen))
        writer.write(b"GET /v1.41/events HTTP/1.1\r\nHost: docker\r\n\r\n")
        assert b" 200 OK" in await asyncio.wait_for(reader.readline(), 10)
        clients.append(writer)
    assert socket_filter.open_files() >= before + 40
    for writer in clients:
        writer.close()
    await eventually(lambda: socket_filter.open_files() <= before, what="the end of the connections")


async def test_a_slow_client_is_not_waited_for(socket_filter):
    """One that sends nothing or half a request holds up nobody else, and is let go after its time."""
    reader, writer = await asyncio.open_unix_connection(str(socket_filter.listen))
    writer.write(b"GET /_pi")
    assert (await socket_filter.raw(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"))[0] == 200
    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()


async def test_without_an_engine_there_is_no_answer(tmp_path, own):
    """As without the filter: the launcher takes that for an engine out of reach, and tries again."""
    running = Filter(tmp_path / "f.sock", ("--engine", str(tmp_path / "none.sock"), "--installation", own.id))
    running.start()
    engine = Engine(running.url)
    with pytest.raises(EngineUnavailable):
        await engine.ask(lambda client: client.info())
    with pytest.raises(EngineUnavailable):
        await engine.ask(lambda client: client.inspect_container("0" * 64))
    engine.close()
    running.stop()
    assert "none.sock does not answer" in running.log


async def test_the_installation_is_awaited_and_kept(tmp_path, engine_path):
    """Before Greenroom's first start there is no id, and nothing passes; once known it is not replaced by another."""
    data = tmp_path / "data"
    running = Filter(tmp_path / "f.sock", ("--engine", engine_path, "--data", str(data)))
    running.start()
    status, told = await running.call("GET", "/info")
    assert (status, "installation" in told["message"]) == (503, True)
    data.mkdir()
    own = installation_of(data)
    assert (await running.call("GET", f"/networks/{own.network}"))[0] == 404
    (data / "installation").write_text(OTHER)
    assert (await running.call("GET", f"/networks/greenroom-{OTHER}"))[0] == 403
    assert (await running.call("GET", f"/networks/{own.network}"))[0] == 404
    running.stop()


async def test_an_installation_that_can_not_be_read(tmp_path, engine_path):
    """A damaged file is told in the log, and nothing passes."""
    (tmp_path / "installation").write_text("nonsense")
    running = Filter(tmp_path / "f.sock", ("--engine", engine_path, "--data", str(tmp_path)))
    running.start()
    assert (await running.call("GET", "/info"))[0] == 503
    running.stop()
    assert "8 hexadecimal digits" in running.log


async def test_the_socket_is_for_its_group_only(socket_filter):
    """Nobody else on the machine may use it."""
    assert socket_filter.listen.stat().st_mode & 0o777 == 0o660


def _started(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "autoscaler.launchers.docker.socket_filter", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("prepare", "arguments", "code", "told"),
    [
        pytest.param(None, ("--listen", "{}", "--installation", "xyz"), 2, "8 hexadecimal digits", id="a bad id"),
        pytest.param(None, ("--listen", "{}"), 2, "--data", id="nobody's filter"),
        pytest.param(None, ("--installation", OTHER), 2, "--listen", id="nowhere to listen"),
        pytest.param(
            lambda path: path.write_text("mine"), ("--listen", "{}", "--installation", OTHER), 2, "no socket", id="file"
        ),
        pytest.param(None, ("--listen", "{}/x/y", "--installation", OTHER), 1, "can't be listened at", id="no folder"),
        pytest.param(None, ("--listen", "{}" + "x" * 200, "--installation", OTHER), 1, "can't be", id="a long path"),
    ],
)
def test_starts_that_are_refused(tmp_path: Path, prepare: Callable[[Path], Any] | None, arguments, code, told):
    """One clear line, and no file of somebody else's is replaced."""
    path = tmp_path / "f.sock"
    if prepare is not None:
        prepare(path)
    done = _started(*(word.replace("{}", str(path)) for word in arguments))
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert prepare is None or path.read_text() == "mine"


async def test_one_filter_at_a_socket(socket_filter, own):
    """A second one is refused while the first one lives; a socket that a killed one left behind is replaced."""
    again = _started("--listen", str(socket_filter.listen), "--installation", own.id)
    assert (again.returncode, "another program listens" in again.stderr) == (1, True)
    assert socket_filter.process is not None
    assert socket_filter.process.stdout is not None
    socket_filter.process.kill()
    socket_filter.process.wait(10)
    socket_filter.process.stdout.close()
    assert socket_filter.listen.exists()
    socket_filter.start()
    assert (await socket_filter.raw(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"))[0] == 200


async def test_systemd_is_told_when_it_listens(tmp_path, own):
    """Units that are started after it find the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        os.environ["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        try:
            running = Filter(tmp_path / "f.sock", ("--installation", own.id))
            running.start()
        finally:
            del os.environ["NOTIFY_SOCKET"]
        assert systemd.recv(100) == b"READY=1"
        running.stop()
