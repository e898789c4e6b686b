"""What the Docker launcher promises beyond the port, with a real engine."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import docker_engine
import pytest
from launcher_builds import ContainerBuilds, StartedRun, open_launcher, spec_of, start_in_a_first_life, start_run, until

from autoscaler.launchers.base import Exited
from autoscaler.launchers.docker.engine import Engine, EngineUnavailable
from autoscaler.launchers.docker.launcher import DockerLauncher
from autoscaler.launchers.docker.network import ensure_network
from autoscaler.launchers.docker.run_container import REMOVED
from gateway.core.errors import LaunchError
from gateway.installation import Installation, installation_of

SLEEPS = "import time; print('up'); time.sleep(60)"


@pytest.fixture
def client(docker_host: str) -> Iterator[Any]:
    """The engine as its administrator sees it."""
    connected = Engine(docker_host).connect()
    yield connected
    connected.close()


async def test_environment_is_exact(launcher, builds, tmp_path, monkeypatch):
    """The Actor sees its contract, its image's own variables and what the engine gives any container."""
    monkeypatch.setenv("GREENROOM_TOKEN", "of Greenroom")
    build = builds.script("import json, os; print(json.dumps(dict(os.environ)))")
    run = await start_run(
        launcher, build, tmp_path, env={"ACTOR_RUN_ID": "abc", "ODD": "a=b\n \u017elu\u0165", "E": ""}
    )
    await launcher.wait(run.id)
    env = json.loads("".join(run.log()))
    image = {"PATH", "PIP_BREAK_SYSTEM_PACKAGES", "PIP_CERT", "NODE_EXTRA_CA_CERTS"}
    assert set(env) - {"LC_CTYPE"} - image == {"ACTOR_RUN_ID", "ODD", "E", "HOSTNAME", "HOME"}
    assert (env["ODD"], env["E"]) == ("a=b\n \u017elu\u0165", "")


async def test_limits_are_the_kernels(launcher, builds, tmp_path):
    """Inside of the container: no core files, bounded files and processes, its capabilities, no new privileges."""
    build = builds.script("""
        import json, resource
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        print(json.dumps({
            "capabilities": status["CapEff"].strip(),
            "no_new_privileges": status["NoNewPrivs"].strip(),
            "seccomp": status["Seccomp"].strip(),
            "core": resource.getrlimit(resource.RLIMIT_CORE),
            "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        }))
    """)
    run = await start_run(launcher, build, tmp_path)
    await launcher.wait(run.id)
    seen = json.loads("".join(run.log()))
    names = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "NET_BIND_SERVICE")
    numbers = dict(zip(names, (0, 1, 3, 4, 5, 6, 7, 10), strict=True))
    assert int(seen["capabilities"], 16) == sum(1 << number for number in numbers.values())
    assert (seen["no_new_privileges"], seen["seccomp"]) == ("1", "2")
    assert (seen["core"], seen["files"]) == ([0, 0], [16384, 16384])


async def test_the_share_of_a_booted_run_is_enforced(launcher, builds, tmp_path, client):
    """Up to a core until it has booted, then memory ÷ 4096 cores."""
    run = await start_run(launcher, builds.script(SLEEPS), tmp_path, memory_mbytes=256)

    def quota() -> int:
        return int(client.inspect_container(run.placement["container"])["HostConfig"]["CpuQuota"])

    assert quota() == 100_000
    await launcher.has_booted(run.id)
    await until(lambda: quota() == 6250)
    assert launcher.cpu_share(256) == 0.0625


@pytest.mark.parametrize(
    "program",
    [pytest.param("no-such-command", id="not in PATH"), pytest.param("/etc/passwd", id="not executable")],
)
async def test_command_that_cannot_be_executed(launcher, builds, tmp_path, program):
    """With init before it a wrong command is an end with a code of its own, and the log names it."""
    run = await start_run(launcher, builds.command(program), tmp_path)
    end = await launcher.wait(run.id)
    assert end.exit_code in (126, 127)
    assert program in "".join(run.log())


async def test_image_that_is_missing(launcher, builds, tmp_path, client):
    """An image that somebody removed is made again by the next start, which tells what keeps it from that."""
    build = builds.script(SLEEPS)
    await launcher.prepare(build, lambda line: None)
    assert launcher.is_prepared(build)
    client.remove_image(f"{installation_of(tmp_path).image_name}:{build.id}", force=True)
    with pytest.raises(LaunchError, match=r"no source|not in the blobs|no Dockerfile|snapshot"):
        await start_run(launcher, build, tmp_path)
    assert not launcher.is_prepared(build)
    assert await launcher.list() == []


@pytest.mark.parametrize(
    ("how", "reason"), [pytest.param("kill", None, id="killed"), pytest.param("remove", REMOVED, id="removed")]
)
async def test_ended_by_somebody_else(launcher, builds, tmp_path, client, how, reason):
    """A container that is killed or removed from outside has ended, and what no code tells is told in words."""
    run = await start_run(launcher, builds.script(SLEEPS), tmp_path)
    await until(lambda: run.log() == ["up"])
    container = run.placement["container"]
    if how == "kill":
        client.kill(container)
    else:
        client.remove_container(container, force=True)
    async with asyncio.timeout(10):
        end = await launcher.wait(run.id)
    assert end.exit_code == 137
    assert end.reason in (reason, None)
    assert not end.out_of_memory
    await launcher.forget(run.id)
    assert await launcher.list() == []


async def test_another_greenroom_on_the_same_engine(launcher, builds, tmp_path, tmp_path_factory, client):
    """Each sees and touches only what carries its own label, and their networks don't meet."""
    other_folder = tmp_path_factory.mktemp("other")
    other_builds = ContainerBuilds(other_folder)
    try:
        run = await start_run(launcher, builds.script(SLEEPS), tmp_path)
        async with open_launcher("docker", other_folder, other_builds) as other:
            assert isinstance(other, DockerLauncher)
            assert await other.list() == []
            assert not await other.adopt(run.id, run.placement)
            theirs = await start_run(other, other_builds.script(SLEEPS), other_folder, run_id=run.id)
            assert [found.placement for found in await other.list()] == [theirs.placement]
            assert [found.placement for found in await launcher.list()] == [run.placement]
            assert other.network.subnet != launcher.network.subnet
            await other.stop(theirs.id, grace_secs=0)
            await other.wait(theirs.id)
            await other.forget(theirs.id)
        assert client.inspect_container(run.placement["container"])["State"]["Running"]
    finally:
        other_builds.close()
        docker_engine.remove_all(Engine().url, installation_of(other_folder).label)


async def test_another_container_is_not_adopted(launcher, builds, tmp_path):
    """Neither that of another run, nor one that is not there."""
    run = await start_in_a_first_life("docker", tmp_path, SLEEPS)
    assert [found.run_id for found in await launcher.list()] == [run.id]
    other = await start_run(launcher, builds.script(SLEEPS), tmp_path)
    assert not await launcher.adopt("SomebodyElse", {"container": run.placement["container"]})
    assert not await launcher.adopt(run.id, {"container": other.placement["container"]})
    assert not await launcher.adopt(run.id, {"container": "0" * 64})
    assert await launcher.adopt(run.id, run.placement)


async def test_what_was_created_but_never_started_is_removed(launcher, builds, tmp_path, client):
    """A Greenroom killed between the engine's two calls leaves such a container; that start has not happened."""
    installation = installation_of(tmp_path)
    labels = {"greenroom.installation": installation.id, "greenroom.run": "NeverStarted"}
    container = client.create_container("greenroom-tests:base", ["true"], labels=labels)["Id"]
    assert await launcher.list() == []
    assert not await launcher.adopt("NeverStarted", {})
    await until(lambda: not client.containers(all=True, filters={"id": container}))


async def test_a_run_made_ahead(launcher, builds, tmp_path, client):
    """Its container is there, not started, and in no list; start takes it, and forget removes one that nobody took."""
    build = builds.script(SLEEPS)
    spec = await spec_of(launcher, build, tmp_path)
    unused = await spec_of(launcher, build, tmp_path)
    await launcher.make_ahead(spec)
    await launcher.make_ahead(unused)
    label = {"label": f"greenroom.run={spec.run_id}", "status": "created"}
    (container,) = client.containers(all=True, filters=label)
    assert await launcher.list() == []
    placement = await launcher.start(spec)
    assert placement["container"] == container["Id"]
    run = StartedRun(id=spec.run_id, log_path=spec.log_path, placement=placement)
    await until(lambda: run.log() == ["up"])
    await launcher.forget(unused.run_id)
    await until(lambda: not client.containers(all=True, filters={"label": f"greenroom.run={unused.run_id}"}))


async def test_a_run_made_ahead_whose_container_was_pruned(launcher, builds, tmp_path, client):
    """``docker container prune`` removes what was never started; the run is started all the same, by another one."""
    spec = await spec_of(launcher, builds.script(SLEEPS), tmp_path)
    await launcher.make_ahead(spec)
    (container,) = client.containers(all=True, filters={"label": f"greenroom.run={spec.run_id}"})
    client.remove_container(container["Id"])
    placement = await launcher.start(spec)
    assert placement["container"] != container["Id"]
    run = StartedRun(id=spec.run_id, log_path=spec.log_path, placement=placement)
    await until(lambda: run.log() == ["up"])


async def test_a_cancelled_start_leaves_nothing(launcher, builds, tmp_path, client):
    """Whenever the caller of start gives up, no container stays behind that nobody knows of."""
    build = builds.script(SLEEPS)
    known = 0
    for number in range(6):
        try:
            async with asyncio.timeout(number * 0.04):
                await start_run(launcher, build, tmp_path)
                known += 1
        except TimeoutError:
            pass
    filters = {"label": [installation_of(tmp_path).label, "greenroom.run"]}
    await until(lambda: len(client.containers(all=True, filters=filters)) == known)


async def test_a_read_only_container(builds, tmp_path, docker_host):
    """Where that is set it can write to /tmp, and to nothing else."""
    from autoscaler.launchers.docker.images import Images
    from gateway.state.blobs import open_blobs

    engine, installation = Engine(docker_host), installation_of(tmp_path)
    images = Images(engine, installation, open_blobs(tmp_path / "blobs"))
    async with DockerLauncher(
        engine, installation, images, log_path=lambda run_id: tmp_path / run_id, max_log_chars=1000, read_only=True
    ) as launcher:
        build = builds.script("""
            open("/tmp/written", "w").write("x")
            try:
                open("/written", "w")
            except OSError as error:
                print(error.strerror)
        """)
        run = await start_run(launcher, build, tmp_path)
        assert await launcher.wait(run.id) == Exited(exit_code=0)
        assert run.log() == ["Read-only file system"]


async def test_no_engine_is_told(tmp_path):
    """With where it was looked for and what to do."""
    engine = Engine(f"unix://{tmp_path}/nothing.sock")
    with pytest.raises(EngineUnavailable, match=r"nothing\.sock does not answer: .*DOCKER_HOST"):
        await engine.ask(lambda client: client.ping())
    engine.close()


async def test_a_network_that_is_not_ours(docker_host, client):
    """A network of our name that somebody else made, or that lets containers meet, is refused, not used."""
    installation = Installation(os.urandom(4).hex())
    engine = Engine(docker_host)
    made = client.create_network(installation.network, driver="bridge")["Id"]
    try:
        with pytest.raises(LaunchError, match="docker network rm"):
            await ensure_network(engine, installation, None)
    finally:
        client.remove_network(made)
        engine.close()


@pytest.mark.parametrize(
    ("least", "spoken"),
    [
        pytest.param("1.12", "1.41", id="an engine that speaks ours"),
        pytest.param("1.44", "1.44", id="a newer one, which has given ours up"),
    ],
)
async def test_the_version_of_the_api(tmp_path, least, spoken):
    """The oldest one that both know: newer engines refuse calls of versions that they have given up."""
    paths: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        paths.append(head.split()[1].decode())
        body = json.dumps({"ApiVersion": "1.51", "MinAPIVersion": least}).encode()
        kind = b"Content-Type: application/json\r\nConnection: close\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n" + kind + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    # Stands in for an engine of another age: there is one engine here.
    server = await asyncio.start_unix_server(answer, tmp_path / "docker.sock")
    engine = Engine(f"unix://{tmp_path}/docker.sock")
    assert await engine.ask(lambda client: client.info())
    engine.close()
    server.close()
    assert paths == ["/version", f"/v{spoken}/info"]
