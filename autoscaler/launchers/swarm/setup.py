"""
Before ``greenroom serve`` listens: is there a Swarm to manage? Prints where runs reach this machine.

A program of its own, so that the small parent process does not carry the ``docker`` library for all its life.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sys

from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.swarm.launcher import swarm_of
from gateway.core.errors import LaunchError
from gateway.refusals import Refused
from gateway.settings import Settings


async def set_up(settings: Settings) -> str:
    """The address of this machine in the Swarm. Raises LaunchError."""
    engine = Engine(settings.docker_host)
    try:
        info = await engine.ask(lambda client: client.info())
        address = str(swarm_of(info, engine.url).get("NodeAddr"))
        if not engine.is_local:
            raise LaunchError(
                f"The manager at {engine.url} is not on this machine, so where runs reach Greenroom has to be told: by "
                "--set run_host=ADDRESS, an address of this machine that the nodes of the Swarm reach."
            )
        if ipaddress.ip_address(address).is_loopback:
            raise LaunchError(
                f"The Swarm's manager calls itself {address}, which no container can reach: give it an address of this "
                "machine by 'docker swarm init --advertise-addr ADDRESS', or tell one by --set run_host=ADDRESS."
            )
        return address
    finally:
        engine.close()


def main() -> int:
    """Settings as JSON on stdin; the address on stdout, or what is wrong on stderr."""
    try:
        print(asyncio.run(set_up(Settings(**json.load(sys.stdin)))))
    except (LaunchError, Refused) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
