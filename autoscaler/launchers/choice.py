"""Opens the launcher that the settings name, with all that it needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from autoscaler.launchers.base import Launcher
from gateway.installation import installation_of
from gateway.live_logs import Logs
from gateway.secret_box import SecretBox
from gateway.settings import Settings
from gateway.state.ports import Blobs


@asynccontextmanager
async def open_launcher(settings: Settings, blobs: Blobs, logs: Logs) -> AsyncIterator[Launcher]:
    """The launcher, until the context is left; runs live on. Raises LaunchError."""
    # Each imports what the other does without.
    if settings.launcher == "docker":
        from autoscaler.launchers.docker.engine import Engine
        from autoscaler.launchers.docker.images import ImageRules, Images
        from autoscaler.launchers.docker.launcher import DockerLauncher

        engine = Engine(settings.docker_host, patience_secs=settings.docker_patience_secs)
        installation = installation_of(settings.data)
        box = SecretBox.from_data_dir(settings.data)
        rules = ImageRules.of(settings, box, network=installation.network)
        images = Images(engine, installation, blobs, rules)
        async with (
            images,
            DockerLauncher(
                engine,
                installation,
                images,
                log_path=logs.path,
                max_log_chars=settings.max_log_chars,
                subnet=settings.docker_subnet,
                pids_limit=settings.container_pids_limit,
                open_files_limit=settings.container_open_files_limit,
                read_only=settings.container_read_only,
            ) as docker,
        ):
            yield docker
        return
    if settings.launcher == "swarm":
        from autoscaler.launchers.swarm.opening import open_swarm

        async with open_swarm(settings, blobs, logs) as swarm:
            yield swarm
        return
    from autoscaler.launchers.environments import Environments
    from autoscaler.launchers.process import ProcessLauncher

    root = settings.data / "process"
    async with (
        Environments(root, blobs, logs) as environments,
        ProcessLauncher(root, environments, port_range=settings.port_range) as process,
    ):
        yield process
