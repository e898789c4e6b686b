"""Before anything serves: the network of containers, made where it is missing, by the launcher's own program."""

from __future__ import annotations

import subprocess
import sys

from gateway.data_dir import make_data_dir
from gateway.refusals import Refused
from gateway.settings import Settings

SETUP = {"docker": "autoscaler.launchers.docker.setup", "swarm": "autoscaler.launchers.swarm.setup"}
_SETUP_SECS = 60


def with_network_of_runs(settings: Settings) -> Settings:
    """``with_run_network`` where the settings leave anything to it. Raises Refused."""
    # With Docker the network rules depend on the subnet too, whoever says where runs reach Greenroom.
    if settings.launcher == "docker" or (settings.launcher in SETUP and settings.run_host is None):
        make_data_dir(settings.data)
        return with_run_network(settings)
    return settings


def with_run_network(settings: Settings) -> Settings:
    """*settings* with what they leave to the engine: where runs reach Greenroom, and their subnet. Raises Refused."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", SETUP[settings.launcher]],
            input=settings.model_dump_json(),
            capture_output=True,
            text=True,
            timeout=_SETUP_SECS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Refused(f"the Docker engine did not answer within {_SETUP_SECS} s: look after it.") from error
    if done.returncode != 0:
        raise Refused(*done.stderr.strip().splitlines()[-1:])
    address, *subnet = done.stdout.split()
    found = {"run_host": settings.run_host or address}
    if subnet:
        found["docker_subnet"] = subnet[0]
    return settings.model_copy(update=found)
