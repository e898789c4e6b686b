"""What the journeys on a Docker Swarm share: Actors with Dockerfiles, a Greenroom beside the Swarm, callers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import docker_engine
import httpx
import pytest
import swarm_cluster
from journeys.greenroom import Greenroom, actor_folder, eventually
from swarm_cluster import Cluster, Node

from autoscaler.launchers.swarm.launcher import SwarmLauncher
from autoscaler.launchers.swarm.opening import open_swarm
from gateway.installation import installation_of
from gateway.live_logs import Logs
from gateway.settings import Settings
from gateway.state.blobs import open_blobs

DOCKERFILE = """
FROM greenroom-tests:base
COPY . /actor
WORKDIR /actor
CMD ["python3", "-u", "main.py"]
"""


def open_with_base(count: int) -> Iterator[Cluster]:
    """A Swarm of so many nodes, the first of which has the tests' base image; skips where there can be none."""
    try:
        with swarm_cluster.open_cluster(count) as opened:
            swarm_cluster.load_base(opened.manager)
            yield opened
    except docker_engine.NoEngine as error:
        pytest.skip(str(error))


def container_actor(parent: Path, name: str, standby: dict[str, Any] | None = None, main: str | None = None) -> Path:
    """An Actor with a Dockerfile of the tests' own."""
    folder = actor_folder(parent, name, standby, main=main)
    program = folder / "main.py"
    program.write_text(program.read_text().replace('"127.0.0.1"', '"0.0.0.0"'))  # a container's own is nobody else's
    (folder / ".actor" / "Dockerfile").write_text(DOCKERFILE)
    return folder


@asynccontextmanager
async def serving(cluster: Cluster, tmp_path: Path, *actors: Path, **settings: Any) -> AsyncIterator[Greenroom]:
    """A Greenroom of its own on this machine; what is left of it in the Swarm is removed."""
    data = tmp_path / "data"
    given: dict[str, Any] = {
        "launcher": "swarm",
        "docker_host": cluster.manager.host,
        "run_host": cluster.address,
        "registry": cluster.registry,
        "swarm_node_engines": cluster.node_engines,
        "readiness_timeout_secs": 60,
        "pick_timeout_secs": 60,
        **settings,
    }
    given = {name: value for name, value in given.items() if value != ""}
    try:
        async with Greenroom(data, actors, given) as greenroom:
            for actor in actors:
                await built(greenroom, actor.name)
            yield greenroom
    finally:
        label = installation_of(data).label
        left = cluster.manager.docker("service", "ls", "-q", "--filter", f"label={label}").split()
        if left:
            cluster.manager.docker("service", "rm", *left)


async def built(greenroom: Greenroom, name: str) -> None:
    """Until the Actor's image is there."""

    async def has_image() -> bool:
        builds = await greenroom.data_of("GET", f"/actors/local~{name}/builds")
        statuses = {build["status"] for build in builds["items"]}
        assert not statuses & {"FAILED", "ABORTED"}, await greenroom.log_of(builds["items"][-1]["id"])
        return "SUCCEEDED" in statuses

    await eventually(has_image, within_secs=120, what=f"the build of {name}")


def runs_on(cluster: Cluster, node: Node, greenroom: Greenroom) -> set[str]:
    """The runs of this Greenroom that are on *node*."""
    return cluster.runs_on(node, installation_of(greenroom.data).label)


async def batch_runs(greenroom: Greenroom, actor: str, count: int, options: str = "memory=256") -> list[str]:
    """So many runs, each RUNNING; their ids."""
    started = await asyncio.gather(
        *(greenroom.data_of("POST", f"/actors/~{actor}/runs?{options}") for _ in range(count))
    )
    ids = [str(run["id"]) for run in started]

    async def all_run() -> bool:
        runs = {run["id"]: run for run in await greenroom.runs()}
        ended = [run_id for run_id in ids if runs[run_id].get("finishedAt")]
        assert not ended, await greenroom.log_of(ended[0])
        return all(runs[run_id]["status"] == "RUNNING" for run_id in ids)

    await eventually(all_run, within_secs=120, what=f"{count} runs")
    return ids


class Load:
    """Callers that ask an Actor again and again, each waiting for its answer; ``answers`` counts what they got."""

    def __init__(self, greenroom: Greenroom, actor: str, callers: int, ms: int) -> None:
        self.greenroom, self.actor, self.callers, self.ms = greenroom, actor, callers, ms
        self.answers: Counter[str] = Counter()
        self.by_run: Counter[str] = Counter()
        self._is_over = False

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        for _ in range(self.callers):
            self._group.create_task(self._call())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await self._group.__aexit__(None, None, None)

    async def _call(self) -> None:
        while not self._is_over:
            try:
                answer = await self.greenroom.call(self.actor, f"/slow?ms={self.ms}")
            except httpx.HTTPError as error:
                self.answers[type(error).__name__] += 1
                continue
            self.answers[str(answer.status_code) if answer.status_code == 200 else answer.text] += 1
            if answer.status_code == 200:
                self.by_run[answer.json()["runId"]] += 1


@asynccontextmanager
async def open_launcher(cluster: Cluster, folder: Path, **settings: Any) -> AsyncIterator[SwarmLauncher]:
    """The launcher alone."""
    engines = {"docker_host": cluster.manager.host, "swarm_node_engines": cluster.node_engines}
    given = {"registry": cluster.registry, **engines, **settings}
    logs = Logs(folder / "data", open_blobs(folder / "data" / "blobs"))
    chosen = Settings(data=folder / "data", launcher="swarm", **given)
    async with open_swarm(chosen, open_blobs(folder / "data" / "blobs"), logs) as launcher:
        yield launcher
