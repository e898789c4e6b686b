"""
Docker Swarm with real engines: three nodes on this machine, one registry, and a Greenroom that speaks to the manager.

The Swarm of the tests hears of its nodes every second, so that one which is gone counts as lost after some three; with
Swarm's own default of five seconds it is some fifteen.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from journeys.greenroom import eventually
from journeys.swarm import Load, batch_runs, container_actor, open_launcher, open_with_base, runs_on, serving
from launcher_builds import ContainerBuilds, start_run
from swarm_cluster import Cluster

from autoscaler.launchers.base import Exited
from autoscaler.launchers.swarm.launcher import SwarmLauncher
from gateway.core.errors import LaunchError
from gateway.core.load import Usage
from gateway.installation import installation_of
from gateway.live_logs import Logs
from gateway.state.blobs import open_blobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SLEEPER = "import time\nprint('up')\ntime.sleep(3600)\n"

# Says what it hears from the system, and goes on as if nothing were.
LISTENER = """
import json, os, socket, struct, time

address, _, target = os.environ["ACTOR_EVENTS_WEBSOCKET_URL"].removeprefix("ws://").partition("/")
host, _, port = address.partition(":")
connection = socket.create_connection((os.environ["APIFY_API_BASE_URL"].split("/")[2].split(":")[0], int(port)))
head = [f"GET /{target} HTTP/1.1", f"Host: {address}", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", "", ""]
connection.sendall("\\r\\n".join(head).encode())
stream = connection.makefile("rb")
while stream.readline().strip():
    pass
print("connected")
while head := stream.read(2):
    size = head[1] & 127
    if size == 126:
        size = struct.unpack("!H", stream.read(2))[0]
    text = stream.read(size)
    if head[0] & 15 == 1 and json.loads(text)["name"] != "systemInfo" and json.loads(text)["name"] != "cpuInfo":
        print("heard", json.loads(text)["name"])
time.sleep(3600)
"""


@pytest.fixture(scope="module")
def cluster(docker_host: str) -> Iterator[Cluster]:
    """Three nodes; the first one manages, and has the base image of the tests."""
    yield from open_with_base(3)


@pytest.fixture
def builds(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ContainerBuilds:
    """Scripts as images in the manager's engine."""
    monkeypatch.setenv("DOCKER_HOST", cluster.manager.host)
    (tmp_path / "data").mkdir()
    return ContainerBuilds(tmp_path / "data")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("", Exited(exit_code=0), id="exit code 0"),
        pytest.param("raise SystemExit(7)", Exited(exit_code=7), id="its own"),
        pytest.param(
            "all_of_it = [bytearray(50_000_000) for _ in range(9)]",
            Exited(exit_code=137, out_of_memory=True),
            id="out of memory is told apart",
        ),
    ],
)
async def test_the_end_of_a_run(
    cluster: Cluster, builds: ContainerBuilds, tmp_path: Path, source: str, expected: Exited
) -> None:
    """As it was, on whichever node."""
    async with open_launcher(cluster, tmp_path, swarm_constraints=(f"node.id!={cluster.manager.id}",)) as launcher:
        run = await start_run(launcher, builds.script(source), tmp_path)
        assert await launcher.wait(run.id) == expected
        await launcher.forget(run.id)
        assert await launcher.list() == []


async def test_all_that_a_run_says_is_in_its_log(cluster: Cluster, builds: ContainerBuilds, tmp_path: Path) -> None:
    """In its order, nothing twice, the last words without a line end too; also over a restart of Greenroom."""
    source = """
        for number in range(20000): print(number)
        wait_for_knock()
        print("y" * 40000)
        import sys; sys.stderr.write("last words")
    """
    reach = {"swarm_constraints": (f"node.id!={cluster.manager.id}",)}
    async with open_launcher(cluster, tmp_path, **reach) as launcher:
        log_path = Logs(tmp_path / "data", open_blobs(tmp_path / "data" / "blobs")).path("TheRun")
        run = await start_run(launcher, builds.script(source), tmp_path, run_id="TheRun", log_path=log_path)
        await eventually(lambda: "listening" in run.log(), within_secs=30, what="all that it says at first")
    async with open_launcher(cluster, tmp_path, **reach) as launcher:
        (found,) = await launcher.list()
        assert (found.run_id, found.is_alive) == (run.id, True)
        assert found.placement == run.placement
        assert await launcher.adopt(run.id, found.placement)
        await run.knock()
        assert await launcher.wait(run.id) == Exited(exit_code=0)
        assert run.log() == [*map(str, range(20000)), "listening", "y" * 40000, "last words"]
        await launcher.forget(run.id)


async def test_what_others_do_to_a_run(cluster: Cluster, builds: ContainerBuilds, tmp_path: Path) -> None:
    """A service that somebody removes ends its run, with the reason; one that is running is not forgotten."""
    async with open_launcher(cluster, tmp_path) as launcher:
        run = await start_run(launcher, builds.script("wait_for_knock()"), tmp_path)
        with pytest.raises(LaunchError, match="still running"):
            await launcher.forget(run.id)
        with pytest.raises(LaunchError, match="not offered on Docker Swarm"):
            await launcher.freeze(run.id)
        leaving = launcher.leaving()
        cluster.manager.docker("service", "rm", run.placement["service"])
        assert (await anext(leaving)).run_id == run.id  # it has its time, as on a node that is drained
        await launcher.stop(run.id, grace_secs=5)
        assert (await launcher.wait(run.id)).exit_code in (137, 143)
        await launcher.forget(run.id)


async def test_neighbours_are_out_of_reach(cluster: Cluster, builds: ContainerBuilds, tmp_path: Path) -> None:
    """Runs on one node do not reach each other by their addresses there, though the port of the node is open to us."""
    place = {"swarm_constraints": (f"node.id=={cluster.nodes[1].id}",)}
    async with open_launcher(cluster, tmp_path, **place) as launcher:
        victim = await start_run(launcher, builds.script("wait_for_knock()"), tmp_path)
        words = ("ps", "-q", "--filter", f"label=greenroom.run={victim.id}")
        (container,) = cluster.nodes[1].docker(*words).split()
        address = cluster.nodes[1].docker(
            "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container
        )
        source = f"""
            import socket
            try:
                socket.create_connection(("{address}", 4321), timeout=2)
                print("reached")
            except OSError as error:
                print("stopped")
        """
        run = await start_run(launcher, builds.script(source), tmp_path)
        await launcher.wait(run.id)
        assert run.log() == ["stopped"]
        await victim.knock()
        assert await launcher.wait(victim.id) == Exited(exit_code=0)
        for run_id in (run.id, victim.id):
            await launcher.forget(run_id)


async def test_what_runs_use(cluster: Cluster, builds: ContainerBuilds, tmp_path: Path) -> None:
    """Each is measured on its own node; one of a node whose engine is out of reach is not, and nothing else suffers."""
    busy = "print('on')\nwhile True: pass"
    for node, engines, is_told in (
        (cluster.manager, None, True),
        (cluster.nodes[1], cluster.node_engines, True),
        (cluster.nodes[1], None, False),
    ):
        place = {"swarm_constraints": (f"node.id=={node.id}",), "swarm_node_engines": engines}
        async with open_launcher(cluster, tmp_path, **place) as launcher:
            run = await start_run(launcher, builds.script(busy), tmp_path)
            await eventually(lambda run=run: "on" in run.log(), within_secs=30, what="its first line")
            seen: list[Usage] = []

            async def used(launcher: SwarmLauncher = launcher, run_id: str = run.id, seen: list[Usage] = seen) -> bool:
                seen += [usage for id_, usage in (await launcher.usage()).items() if id_ == run_id]
                return len(seen) > 1 and seen[-1].cpu_secs - seen[0].cpu_secs > 0.05

            if is_told:
                await eventually(used, within_secs=30, what="processor time")
                assert seen[-1].memory_bytes > 2**20
                assert seen[-1].processes >= 1
            else:
                assert await launcher.usage() == {}
            await launcher.stop(run.id, grace_secs=0)
            await launcher.wait(run.id)
            await launcher.forget(run.id)


async def test_thirty_runs_are_spread_by_what_they_reserve(cluster: Cluster, tmp_path: Path) -> None:
    """A node takes only as many runs as their memory fits beside what is reserved there; the others share the rest."""
    sleeper = container_actor(tmp_path / "actors", "sleeper", main=SLEEPER)
    node = cluster.manager
    resources = json.loads(cluster.manager.docker("node", "inspect", node.id))[0]["Description"]["Resources"]
    reserved = resources["MemoryBytes"] - int(5.5 * 256 * 1024 * 1024)
    image = cluster.manager.docker("image", "inspect", "-f", "{{.Id}}", "greenroom-tests:base")
    words = ("--no-resolve-image", "--reserve-memory", str(reserved), "--constraint", f"node.id=={node.id}")
    cluster.manager.docker("service", "create", "--name", "filler", *words, image, "sleep", "infinity")
    try:
        async with serving(cluster, tmp_path, sleeper, max_starts_per_sec=100) as greenroom:
            ids = await batch_runs(greenroom, "sleeper", 30)
            places = [runs_on(cluster, node, greenroom) for node in cluster.nodes]
            assert set().union(*places) == set(ids)
            counts = [len(place) for place in places]
            assert (sum(counts), counts[0]) == (30, 5), counts
            assert abs(counts[1] - counts[2]) <= 1, counts
    finally:
        cluster.manager.docker("service", "rm", "filler")


async def test_a_run_that_fits_nowhere_says_so(cluster: Cluster, tmp_path: Path) -> None:
    """With its reason and what to do, and nothing of it is left in the Swarm."""
    sleeper = container_actor(tmp_path / "actors", "sleeper", main=SLEEPER)
    async with serving(
        cluster, tmp_path, sleeper, swarm_placement_secs=1, swarm_constraints="node.labels.none==1"
    ) as greenroom:
        run = await greenroom.data_of("POST", "/actors/~sleeper/runs?memory=256")
        ended = await greenroom.ended(run["id"])
        assert ended["status"] == "FAILED"
        assert "scheduling constraints not satisfied on 3 nodes" in ended["statusMessage"]
        assert "swarm_constraints" in ended["statusMessage"]
        label = installation_of(greenroom.data).label
        await eventually(
            lambda: cluster.manager.docker("service", "ls", "-q", "--filter", f"label={label}") == "",
            what="the removal of the service",
        )


async def test_a_node_is_drained_under_load(cluster: Cluster, tmp_path: Path) -> None:
    """No request fails: each run there serves on until one elsewhere does, and ends when its requests are answered."""
    standby = {"maxRequestsPerActorRun": 4, "desiredRequestsPerActorRun": 3, "idleTimeoutSecs": 60}
    probe = container_actor(tmp_path / "actors", "probe", standby)
    async with serving(cluster, tmp_path, probe) as greenroom:
        async with Load(greenroom, "probe", callers=9, ms=300) as load:
            await eventually(lambda: len(load.by_run) >= 3, within_secs=60, what="runs that serve")
            node = next(node for node in cluster.nodes[1:] if runs_on(cluster, node, greenroom))
            leaving = runs_on(cluster, node, greenroom)
            cluster.availability(node, "drain")
            try:
                await eventually(lambda: not runs_on(cluster, node, greenroom), within_secs=60, what="an empty node")
                before = sum(load.answers.values())
                await eventually(lambda: sum(load.answers.values()) > before + 20, what="more answers")
            finally:
                cluster.availability(node, "active")
        assert set(load.answers) == {"200"}, load.answers
        for run_id in leaving:
            ended = await greenroom.ended(run_id)
            assert ended["status"] == "SUCCEEDED"
            assert f"node {node.name} is being drained" in ended["statusMessage"]


async def test_batch_runs_of_a_drained_node_migrate(cluster: Cluster, tmp_path: Path) -> None:
    """They hear of it, have their time although they do nothing, and start again elsewhere; others notice nothing."""
    listener = container_actor(tmp_path / "actors", "listener", main=LISTENER)
    async with serving(cluster, tmp_path, listener, migration_grace_secs=8, abort_grace_secs=1) as greenroom:
        ids = await batch_runs(greenroom, "listener", 3)

        async def all_listen() -> bool:
            return all(["connected" in await greenroom.log_of(run_id) for run_id in ids])

        await eventually(all_listen, within_secs=30, what="connected runs")
        node = next(node for node in cluster.nodes[1:] if runs_on(cluster, node, greenroom))
        moved = runs_on(cluster, node, greenroom)
        began = time.monotonic()
        cluster.availability(node, "drain")
        try:

            async def all_moved() -> bool:
                runs = [await greenroom.run(run_id) for run_id in moved]
                return all(run["stats"].get("migrationCount") == 1 for run in runs)

            await eventually(all_moved, within_secs=60, what="the migration")
            assert time.monotonic() - began >= 8  # Swarm itself would have sent its signal after some 3 s
            assert not runs_on(cluster, node, greenroom)
            for run_id in ids:
                log, run = await greenroom.log_of(run_id), await greenroom.run(run_id)
                expected = int(run_id in moved)
                assert (run["status"], run["stats"].get("migrationCount", 0)) == ("RUNNING", expected), log
                assert log.count("heard migrating") == expected, log
        finally:
            cluster.availability(node, "active")


async def test_engines_of_nodes_out_of_reach(cluster: Cluster, tmp_path: Path) -> None:
    """
    By the manager alone a run is stopped, its exit code and its log are whole; a drained node stops it at once, and it
    starts again elsewhere.
    """
    sleeper = container_actor(tmp_path / "actors", "sleeper", main=SLEEPER)
    reach = {"swarm_node_engines": "", "swarm_constraints": f"node.id!={cluster.manager.id}", "abort_grace_secs": 5}
    async with serving(cluster, tmp_path, sleeper, **reach) as greenroom:
        aborted, moved = await batch_runs(greenroom, "sleeper", 2)
        await greenroom.data_of("POST", f"/actor-runs/{aborted}/abort")
        ended = await greenroom.ended(aborted)
        assert (ended["status"], ended["exitCode"]) == ("ABORTED", 143)
        assert "Z up\n" in await greenroom.log_of(aborted)
        node = next(node for node in cluster.nodes if runs_on(cluster, node, greenroom) == {moved})
        cluster.availability(node, "drain")
        try:

            async def is_back() -> bool:
                run = await greenroom.run(moved)
                assert run["status"] == "RUNNING", await greenroom.log_of(moved)
                return bool(run["stats"].get("migrationCount") == 1)

            await eventually(is_back, within_secs=30, what="the run elsewhere")
            assert runs_on(cluster, node, greenroom) == set()
        finally:
            cluster.availability(node, "active")


async def test_a_node_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    """
    Within 15 s another run serves in place of a standby run that was there, a batch run that may be restarted runs
    again, and any other has failed with the reason.
    """
    sleeper = container_actor(tmp_path / "actors", "sleeper", main=SLEEPER)
    probe = container_actor(tmp_path / "actors", "probe", {"idleTimeoutSecs": 60})
    others = list(cluster.nodes)
    with cluster.one_more() as victim:
        async with serving(cluster, tmp_path, sleeper, probe) as greenroom:
            for node in others:
                cluster.availability(node, "pause")
            try:
                (failing,) = await batch_runs(greenroom, "sleeper", 1)
                (restarting,) = await batch_runs(greenroom, "sleeper", 1, "memory=256&restartOnError=true")
                standby = (await greenroom.call("probe", "/count")).json()["runId"]
            finally:
                for node in others:
                    cluster.availability(node, "active")
            assert runs_on(cluster, victim, greenroom) == {failing, restarting, standby}
            killed = time.monotonic()
            victim.kill()

            async def serves() -> bool:
                answer = await greenroom.call("probe", "/count")
                return answer.status_code == 200 and answer.json()["runId"] != standby

            async def is_back() -> bool:
                run = await greenroom.run(restarting)
                return (run["status"], run["stats"].get("restartCount")) == ("RUNNING", 1)

            await asyncio.gather(
                eventually(serves, within_secs=15, what="another run"),
                eventually(is_back, within_secs=15, what="the restart"),
                greenroom.ended(failing, within_secs=15),
                greenroom.ended(standby, within_secs=15),
            )
            print(f"lost and replaced after {time.monotonic() - killed:.1f} s")
            for run_id in (failing, standby):
                run = await greenroom.run(run_id)
                assert run["status"] == "FAILED"
                assert f"The node {victim.name} was lost" in run["statusMessage"]
