"""
What Greenroom adds to Docker: ``python -m loadtests.containers [--quick] [--json FILE]``.

``start_overhead_p95_ms``    request sent → first byte of a sleeping Actor, less the engine's own create and start calls
                             of that very wake (the server logs them) and less what the Actor takes from the end of the
                             start call until it listens (stamped by the Actor)
``burst20_overhead_ratio``   twenty containers wanted at once: until all serve, against the same twenty made and started
                             by the docker library alone; rounds of both in turn, medians
``resume_p50_ms``, ``_p95``  a frozen container resumed by the launcher and asked: its answer, beyond a warm one
``supervisor_cpu_100_runs``  CPU time of all of Greenroom's processes with 100 running containers, per second
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from autoscaler.launchers.base import LaunchSpec
from autoscaler.launchers.docker.containers import ContainerRules, container_body
from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.docker.images import Images
from autoscaler.launchers.docker.launcher import DockerLauncher
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Address, Build, Origin
from gateway.installation import installation_of
from gateway.services import utc_now
from gateway.state.blobs import open_blobs
from loadtests.figures import Report, arguments, finish, percentile
from loadtests.server import TOKEN, Server, running

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

ACTOR = Path(__file__).parent / "actors" / "stamps"
BURST = 20
MANY = 100
IDLE_SECS = 1.0
BURST_IDLE_SECS = 8.0
MEMORY_MBYTES = 256
DOCKERFILE = 'FROM python:3.12-slim\nWORKDIR /usr/src/app\nCOPY . ./\nCMD ["python3", "-u", "main.py"]\n'


def make_actors(folder: Path, names: list[str], *, standby: bool = True, idle_secs: float = IDLE_SECS) -> list[Path]:
    """Copies of the stamping Actor, each with a Dockerfile."""
    for name in names:
        copy = folder / name
        shutil.copytree(ACTOR, copy)
        path = copy / ".actor" / "actor.json"
        definition = json.loads(path.read_text())
        definition |= {"name": name, "defaultMemoryMbytes": MEMORY_MBYTES, "usesStandbyMode": standby}
        definition["actorStandby"]["idleTimeoutSecs"] = idle_secs
        del definition["scripts"]
        path.write_text(json.dumps(definition))
        dockerfile = DOCKERFILE if standby else 'FROM python:3.12-slim\nCMD ["sleep", "1000"]\n'
        (copy / "Dockerfile").write_text(dockerfile)
    return [folder / name for name in names]


def ask(address: tuple[str, int], host: str) -> tuple[bytes, float, float]:
    """The body of ``GET /``, and when it was sent and when its first byte came (monotonic seconds)."""
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n".encode()
    with socket.create_connection(address, timeout=120) as connection:
        sent = time.monotonic()
        connection.sendall(request)
        answer = connection.recv(65536)
        first_byte = time.monotonic()
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"{host} answered {answer.decode(errors='replace')}")
    return body, sent, first_byte


def call(server: Server, actor: str) -> tuple[bytes, float, float]:
    """The same, of an Actor by its standby host."""
    return ask(("127.0.0.1", server.port), f"local--{actor}.localhost:{server.port}")


def api(server: Server, method: str, path: str) -> Any:
    """One API call's data."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/v2{path}", method=method, headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["data"]


def until_built(server: Server, names: list[str], limit_secs: float = 300) -> None:
    """Wait for the images."""
    deadline = time.monotonic() + limit_secs
    for name in names:
        while not api(server, "GET", f"/actors/local~{name}").get("taggedBuilds"):
            if time.monotonic() > deadline:
                raise SystemExit(f"{name} was not built:\n{server.log.read_text()[-3000:]}")
            time.sleep(0.1)


# --- One wake -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """What the server logs of one container's start."""

    engine_secs: float
    at: float


def starts_of(server: Server) -> Iterator[Started]:
    """All starts so far, in order."""
    for line in server.log.read_text().splitlines():
        if '"started a container"' in line:
            told = json.loads(line)
            yield Started((told["create_ms"] + told["start_ms"]) / 1000, told["monotonic_secs"])


def start_overheads(server: Server, names: list[str], wanted: int) -> tuple[list[float], list[float]]:
    """Milliseconds of *wanted* wakes: Greenroom's own, and the engine's."""
    own: list[float] = []
    engine: list[float] = []
    slept_since = dict.fromkeys(names, 0.0)
    while len(own) < wanted:
        for name in names:
            time.sleep(max(0.0, slept_since[name] + IDLE_SECS + 1.5 - time.monotonic()))
            before = len(list(starts_of(server)))
            body, sent, first_byte = call(server, name)
            slept_since[name] = time.monotonic()
            started = list(starts_of(server))[before:]
            if len(started) != 1:
                continue  # it was warm, or somebody started one ahead
            listening = int(body.split()[1]) / 1e9
            boot = max(0.0, listening - started[0].at)
            own.append((first_byte - sent - started[0].engine_secs - boot) * 1000)
            engine.append(started[0].engine_secs * 1000)
    return own, engine


# --- A burst --------------------------------------------------------------------------------------------------------


def burst(server: Server, names: list[str]) -> float:
    """Seconds until all of *names*, called at once, have answered."""
    with ThreadPoolExecutor(len(names)) as pool:
        began = time.monotonic()
        list(pool.map(lambda name: call(server, name), names))
        return time.monotonic() - began


def plain_burst(data: Path, image: str, count: int) -> float:
    """The same with the docker library alone: the same image, limits, rights and network."""
    installation = installation_of(data)
    subnet = Engine().connect().inspect_network(installation.network)["IPAM"]["Config"][0]["Subnet"]
    prefix = subnet.rsplit(".", 1)[0]
    rules = ContainerRules(installation=installation, cores=psutil.cpu_count() or 1)
    clients = [Engine().connect() for _ in range(count)]
    made: list[str] = []

    def one(number: int) -> None:
        address = Address(host=f"{prefix}.{200 + number}", port=4321)
        spec = spec_for(address, "plain", image_build(), {"ACTOR_WEB_SERVER_PORT": "4321"})
        body = container_body(spec, image, rules, disk_mbytes=0)
        body["Labels"] = {"greenroom.installation": installation.id}
        container = clients[number].create_container_from_config(body)["Id"]
        made.append(container)
        clients[number].start(container)
        while True:
            with contextlib.suppress(OSError):
                ask((address.host, address.port), "plain")
                return
            time.sleep(0.005)

    with ThreadPoolExecutor(count) as pool:
        began = time.monotonic()
        list(pool.map(one, range(count)))
        took = time.monotonic() - began
        list(pool.map(lambda pair: pair[0].remove_container(pair[1], force=True), zip(clients, made, strict=True)))
    for client in clients:
        client.close()
    return took


def image_build() -> Build:
    """A build's record, for what needs one."""
    return Build(
        id="load",
        actor_id="load",
        user_id="load",
        version_number="0.0",
        build_number="0.0.1",
        status=RunStatus.SUCCEEDED,
        started_at=utc_now(),
        origin=Origin.CLI,
    )


def spec_for(address: Address, run_id: str, build: Build, env: dict[str, str]) -> LaunchSpec:
    """What starts a container at *address*."""
    from autoscaler.launchers.base import Placement

    return LaunchSpec(
        run_id=run_id,
        build=build,
        env=env,
        placement=Placement(address=address, port=address.port),
        memory_mbytes=MEMORY_MBYTES,
        log_path=Path(tempfile.gettempdir()) / f"{run_id}.log",
        max_log_chars=100_000,
    )


def settle(server: Server) -> None:
    """Until no run is left."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        runs = api(server, "GET", "/actor-runs?limit=1000&desc=1&status=RUNNING")["items"]
        if not runs:
            return
        time.sleep(0.2)


# --- Frozen and resumed ---------------------------------------------------------------------------------------------


async def resumes(folder: Path, image: str, count: int) -> list[float]:
    """Milliseconds from a frozen container to its answer, beyond a warm one, *count* times."""
    engine, installation = Engine(), installation_of(folder)
    client = engine.connect()
    repository, _, tag = image.rpartition(":")
    build = image_build()
    client.tag(f"{repository}:{tag}", installation.image_name, build.id)
    images = Images(engine, installation, open_blobs(folder / "blobs"))
    beyond: list[float] = []
    try:
        async with DockerLauncher(
            engine, installation, images, log_path=lambda run_id: folder / run_id, max_log_chars=100_000
        ) as launcher:
            placement = await launcher.place("resumed", None)
            spec = spec_for(placement.address, "resumed", build, {"ACTOR_WEB_SERVER_PORT": str(placement.port)})
            await launcher.start(spec)
            address = (placement.address.host, placement.address.port)
            while True:
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(ask, address, "resumed")
                    break
                await asyncio.sleep(0.01)
            await launcher.has_booted("resumed")
            warm = []
            for _ in range(count):
                began = time.monotonic()
                await asyncio.to_thread(ask, address, "resumed")
                warm.append(time.monotonic() - began)
            for _ in range(count):
                await launcher.freeze("resumed")
                began = time.monotonic()
                await launcher.resume("resumed")
                await asyncio.to_thread(ask, address, "resumed")
                beyond.append((time.monotonic() - began - percentile(warm, 0.5)) * 1000)
            await launcher.stop("resumed", grace_secs=0)
            await launcher.wait("resumed")
            await launcher.forget("resumed")
    finally:
        import docker_engine

        docker_engine.remove_all(Engine().url, installation.label)
        client.close()
    return beyond


# --- Many that only run ---------------------------------------------------------------------------------------------


def cpu_with_many(server: Server, secs: float) -> float:
    """The share of a core that Greenroom's processes use while MANY containers run."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: api(server, "POST", "/actors/local~sleeper/runs?memory=128"), range(MANY)))
    deadline = time.monotonic() + 120
    while len(api(server, "GET", "/actor-runs?limit=1000&status=RUNNING")["items"]) < MANY:
        if time.monotonic() > deadline:
            raise SystemExit(f"{MANY} containers did not run:\n{server.log.read_text()[-3000:]}")
        time.sleep(0.5)
    time.sleep(3)  # whatever their starts have left to do
    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    before = sum(sum(process.cpu_times()[:2]) for process in processes)
    began = time.monotonic()
    time.sleep(secs)
    after = sum(sum(process.cpu_times()[:2]) for process in processes)
    return (after - before) / (time.monotonic() - began)


def main() -> None:
    """Measure and report."""
    given = arguments(__doc__ or "")
    import docker_engine

    host = docker_engine.up()
    import os

    os.environ["DOCKER_HOST"] = host
    report = Report()
    wakes, rounds, resumed, seconds = (24, 3, 50, 10) if given.quick else (120, 7, 200, 30)
    with tempfile.TemporaryDirectory(prefix="greenroom-containers-", ignore_cleanup_errors=True) as folder:
        single = [f"single-{number}" for number in range(6)]
        crowd = [f"crowd-{number:02}" for number in range(BURST)]
        folders = [
            *make_actors(Path(folder), single),
            # Long enough that none is ended while the last ones of a burst are being started.
            *make_actors(Path(folder), crowd, idle_secs=BURST_IDLE_SECS),
            *make_actors(Path(folder), ["sleeper"], standby=False),
        ]
        settings = {"launcher": "docker", "log_format": "json", "max_runs": 500, "shutdown_timeout_secs": 20}
        data = None
        try:
            with running(folders, settings) as server:
                data = server.data
                installation = installation_of(data)
                until_built(server, [*single, *crowd, "sleeper"])
                print("images are built", flush=True)
                call(server, single[0])
                own, engine = start_overheads(server, single, wakes)
                print(f"{len(own)} wakes", flush=True)
                settle(server)
                tag = api(server, "GET", "/actors/local~single-0")["taggedBuilds"]["latest"]["buildId"]
                image = f"{installation.image_name}:{tag}"
                ours, plain = [], []
                for number in range(rounds):
                    plain.append(plain_burst(data, image, BURST))
                    ours.append(burst(server, crowd))
                    settle(server)
                    print(f"burst {number + 1} of {rounds}: {ours[-1]:.2f} s, plain {plain[-1]:.2f} s", flush=True)
                beyond = asyncio.run(resumes(Path(folder), image, resumed))
                print(f"{len(beyond)} resumes", flush=True)
                share = cpu_with_many(server, seconds)
                print(f"{MANY} containers", flush=True)
        finally:
            if data is not None and data.exists():
                docker_engine.remove_all(host, installation_of(data).label)
    report.add("start_overhead_p95_ms", percentile(own, 0.95), "ms", 25)
    report.add("start_overhead_p50_ms", percentile(own, 0.5), "ms")
    report.add("engine_create_and_start_p50_ms", percentile(engine, 0.5), "ms")
    report.add("burst20_overhead_ratio", percentile(ours, 0.5) / percentile(plain, 0.5), "", 1.10)
    report.add("burst20_plain_p50_s", percentile(plain, 0.5), "s")
    report.add("resume_p50_ms", percentile(beyond, 0.5), "ms", 40)
    report.add("resume_p95_ms", percentile(beyond, 0.95), "ms", 80)
    report.add("supervisor_cpu_100_runs", share, "cores", 0.10)
    report.raw = {"own_ms": own, "engine_ms": engine, "burst_s": ours, "plain_s": plain, "resume_ms": beyond}
    finish(report, given)


if __name__ == "__main__":
    main()
