"""The Compose file, started: image, filter, rules and Greenroom in containers, and Actors called through them."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from journeys.greenroom import TOKEN, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # an image is made, at the first time

DEPLOY = Path(__file__).parents[2] / "deploy"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
# Kept from one time to the next, as are its layers.
IMAGE = "greenroom-tests-deploy:latest"


@dataclass(frozen=True)
class Project:
    """One project of Compose, with a name, a port and so an installation of its own."""

    name: str
    port: int
    environment: dict[str, str]

    def compose(self, *words: str, must: bool = True) -> str:
        """``docker-compose WORDS``; what it prints."""
        done = subprocess.run(
            ["docker-compose", "-p", self.name, "-f", str(DEPLOY / "compose.yaml"), *words],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=self.environment,
        )
        assert done.returncode == 0 or not must, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def inside(self, service: str, script: str) -> str:
        """What a shell in a service's container says to *script*; standard error too."""
        return self.compose("exec", "-T", service, "sh", "-c", f"({script}) 2>&1 || true").strip()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def project(docker_host: str) -> Iterator[Project]:
    """Nothing of it is left: containers, volumes, rules, and what Greenroom made in the engine."""
    import docker_engine

    if shutil.which("docker-compose") is None or not docker_host.startswith("unix://"):
        pytest.skip("docker-compose is not installed, or the engine has no socket here")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    made = Project(
        name=f"greenroom-tests-{secrets.token_hex(4)}",
        port=port,
        environment={
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "DOCKER_HOST": docker_host,
            "DOCKER_SOCKET": docker_host.removeprefix("unix://"),
            "GREENROOM_IMAGE": IMAGE,
            "GREENROOM_BASE": "greenroom-tests:base",
            "GREENROOM_DOMAIN": "localhost",
            "GREENROOM_PORT": str(port),
            "GREENROOM_PUBLIC_SCHEME": "http",
            "GREENROOM_PUBLIC_PORT": str(port),
            "GREENROOM_TOKEN": TOKEN,
        },
    )
    try:
        yield made
    finally:
        rules = ("run", "--rm", "--no-deps", "network-rules", "greenroom", "network-rules", "--remove")
        known = made.compose("run", "--rm", "--no-deps", "greenroom", "cat", "/data/installation", must=False).strip()
        made.compose(*rules, must=False)
        made.compose("down", "-v", must=False)
        if known:
            docker_engine.remove_all(docker_host, f"greenroom.installation={known}")


@pytest.fixture
async def client(project: Project) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody on the machine, at its own address."""
    async with httpx.AsyncClient(base_url=project.url, trust_env=False, timeout=60) as client:
        yield client


async def _ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health/ready")).status_code == 200
    except httpx.TransportError:
        return False


def _push(project: Project, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "push", str(folder), "--url", project.url],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "GREENROOM_TOKEN": TOKEN},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_compose(project: Project, client: httpx.AsyncClient) -> None:
    """From nothing to an Actor that answers: without a right on the engine, and again after a restart."""
    project.compose("build", "greenroom")
    project.compose("up", "-d", "--no-build", "greenroom")
    await eventually(lambda: _ready(client), within_secs=60, what="Greenroom in its container")
    assert "succeeded" in _push(project, DEPLOY / "examples" / "hello")
    host = {"Host": f"local--hello.localhost:{project.port}"}
    assert "Hello from run" in (await client.get("/", headers=host | BEARER)).text

    _nobody_has_rights(project)
    run = (await client.get("/v2/actor-runs", headers=BEARER)).json()["data"]["items"][0]

    async def is_measured() -> bool:
        stats = (await client.get(f"/v2/actor-runs/{run['id']}", headers=BEARER)).json()["data"]["stats"]
        return bool(stats["memCurrentBytes"] > 0)

    await eventually(is_measured, what="what the run uses")

    project.compose("restart", "greenroom")
    await eventually(lambda: _ready(client), within_secs=60, what="Greenroom after its restart")
    assert "Hello from run" in (await client.get("/", headers=host | BEARER)).text
    project.compose("restart", "docker-filter")
    runs = (await client.get("/v2/actor-runs?status=RUNNING", headers=BEARER)).json()["data"]["items"]
    for one in runs:
        await client.post(f"/v2/actor-runs/{one['id']}/abort", headers=BEARER)

    async def is_over() -> bool:
        left = (await client.get("/v2/actor-runs?status=RUNNING", headers=BEARER)).json()["data"]["items"]
        return left == []

    await eventually(is_over, within_secs=30, what="the runs' end, after a restart of the filter")
    assert "Hello from run" in (await client.get("/", headers=host | BEARER)).text
    logs = project.compose("logs", "--no-color")
    assert [line.partition("this pass: ")[2] for line in logs.splitlines() if " refused: " in line] == [
        "GET /volumes is no call that Greenroom makes."
    ]
    assert TOKEN not in logs


def _nobody_has_rights(project: Project) -> None:
    """Inside of Greenroom's container: no engine, no rights, nothing to build with, nothing that can be changed."""
    assert project.inside("greenroom", "id -u; id -g").split() == ["10001", "10001"]
    assert "No such file" in project.inside("greenroom", "ls /var/run/docker.sock")
    assert "Read-only" in project.inside("greenroom", "touch /opt/greenroom/x")
    assert project.inside("greenroom", "grep CapEff /proc/self/status").split()[1].strip("0") == ""
    assert project.inside("greenroom", "/opt/greenroom/bin/python -c 'import pip'").endswith("No module named 'pip'")
    assert project.inside("greenroom", "ls /opt/greenroom/bin/pip* /source").count("cannot access") == 2
    # The filter refuses what Greenroom does not need, whoever asks from inside.
    asked = "import docker, os; docker.APIClient(os.environ['DOCKER_HOST'], version='1.41').volumes()"
    assert "403" in project.inside("greenroom", f'python -c "{asked}"')
    assert "are in force" in project.inside("greenroom", "greenroom network-rules --check")


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace of one's own takes root")
async def test_serve_needs_no_other_flag(docker_host: str, tmp_path: Path) -> None:
    """With an engine at its usual place, ``greenroom serve --launcher docker`` finds it and serves."""
    import docker_engine

    from gateway.installation import installation_of

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    # In a mount namespace of its own the usual socket is the engine's of the tests.
    script = f"mount -t tmpfs none /run && ln -s {docker_host.removeprefix('unix://')} /run/docker.sock && exec "
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "GREENROOM_", "XDG_"))
    }
    environment |= {"XDG_DATA_HOME": str(tmp_path), "GREENROOM_PORT": str(port), "GREENROOM_CONFIG": os.devnull}
    process = _unshared(script + f"{sys.executable} -m gateway.cli serve --launcher docker", environment, tmp_path)
    data = tmp_path / "greenroom"
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            await eventually(lambda: _ready(client), within_secs=40, what=f"serve, see {tmp_path}/log")
        network = installation_of(data).network
        assert _has_network(docker_host, network)
    finally:
        process.terminate()
        process.wait(30)
        if (data / "installation").exists():
            docker_engine.remove_all(docker_host, installation_of(data).label)


def _has_network(docker_host: str, name: str) -> bool:
    words = ["docker", "-H", docker_host, "network", "inspect", name]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def _unshared(script: str, environment: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", script],
            env=environment,
            stdout=log,
            stderr=log,
        )
