"""From the settings to an open Swarm launcher."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from autoscaler.launchers.docker.containers import ContainerRules
from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.docker.images import ImageRules, Images
from autoscaler.launchers.docker.network import ensure_network
from autoscaler.launchers.swarm.images import SwarmImages
from autoscaler.launchers.swarm.launcher import SwarmLauncher
from gateway.installation import installation_of
from gateway.live_logs import Logs
from gateway.secret_box import SecretBox
from gateway.settings import Settings
from gateway.state.ports import Blobs

_SPARE_SECS = 15.0  # between the end of a migration's time and Swarm's own end of it


@asynccontextmanager
async def open_swarm(settings: Settings, blobs: Blobs, logs: Logs) -> AsyncIterator[SwarmLauncher]:
    """The launcher, until the context is left; runs live on. Raises LaunchError."""
    engine = Engine(settings.docker_host)
    installation = installation_of(settings.data)
    if settings.swarm_node_engines is None:
        # Swarm's time is the only one that a stop has, so it is as long as a graceful abort has.
        stop_grace_secs = settings.abort_grace_secs
    else:
        stop_grace_secs = max(settings.swarm_leave_secs, settings.migration_grace_secs + _SPARE_SECS)
    # Images are built where a single engine's runs would be, by the same rules.
    await ensure_network(engine, installation, settings.docker_subnet)
    box = SecretBox.from_data_dir(settings.data)
    images = Images(engine, installation, blobs, ImageRules.of(settings, box, network=installation.network))
    async with (
        images,
        SwarmLauncher(
            engine,
            installation,
            SwarmImages(engine, installation, images, settings.registry),
            containers=ContainerRules(
                installation=installation,
                cores=os.cpu_count() or 1,
                pids_limit=settings.container_pids_limit,
                open_files_limit=settings.container_open_files_limit,
                read_only=settings.container_read_only,
            ),
            constraints=settings.swarm_constraints,
            node_engines=settings.swarm_node_engines,
            placement_secs=settings.swarm_placement_secs,
            stop_grace_secs=stop_grace_secs,
            log_path=logs.path,
            max_log_chars=settings.max_log_chars,
        ) as launcher,
    ):
        yield launcher
