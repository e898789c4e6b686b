"""
Before ``greenroom serve`` listens: the runs' network, made where it is missing. Prints where runs reach this machine,
and their subnet.

A program of its own, so that the small parent process does not carry the ``docker`` library for all its life.
"""

from __future__ import annotations

import asyncio
import json
import sys

from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.docker.network import RunNetwork, ensure_network
from gateway.core.errors import LaunchError
from gateway.installation import installation_of
from gateway.refusals import Refused
from gateway.settings import Settings


async def set_up(settings: Settings) -> RunNetwork:
    """The runs' network, with the address of this machine on it. Raises LaunchError or Refused."""
    engine = Engine(settings.docker_host)
    try:
        if not engine.is_local:
            raise LaunchError(
                f"The Docker engine at {engine.url} is not of this machine: Greenroom reaches runs by the addresses "
                "of their containers, which takes an engine on the same Linux machine."
            )
        return await ensure_network(engine, installation_of(settings.data), settings.docker_subnet)
    finally:
        engine.close()


def main() -> int:
    """Settings as JSON on stdin; address and subnet on stdout, or what is wrong on stderr."""
    try:
        network = asyncio.run(set_up(Settings(**json.load(sys.stdin))))
        print(network.gateway, network.subnet)
    except (LaunchError, Refused) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
