"""The network of all runs: one bridge of this Greenroom's own, on which containers can't reach each other."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker
from docker.types import IPAMConfig, IPAMPool

from autoscaler.launchers.docker.addresses import automatic_range
from autoscaler.launchers.docker.engine import Engine, EngineError, NotInEngine
from gateway.core.errors import LaunchError
from gateway.installation import INSTALLATION_LABEL, Installation


@dataclass(frozen=True, slots=True)
class RunNetwork:
    """The network as it is: its *subnet*, and *gateway*, the address at which runs reach this machine."""

    subnet: str
    gateway: str


async def ensure_network(engine: Engine, installation: Installation, subnet: str | None) -> RunNetwork:
    """
    The network, made where it is missing: *subnet*, or one that the engine finds free.

    Raises LaunchError, also where a network of that name is not ours or has another subnet than the wanted one.
    """

    def ensure(client: docker.APIClient) -> RunNetwork:
        try:
            found = client.inspect_network(installation.network)
        except docker.errors.NotFound:
            found = _make(client, installation, subnet or _free_subnet(client, installation))
        return _checked(found, installation, subnet)

    try:
        return await engine.ask(ensure)
    except NotInEngine:
        raise
    except EngineError as error:
        raise LaunchError(
            f"The network {installation.network} can't be made: {error.message}. A subnet that nothing else uses can "
            "be named by --set docker_subnet=10.213.0.0/16."
        ) from error


def _make(client: docker.APIClient, installation: Installation, subnet: str) -> Mapping[str, Any]:
    gateway = str(next(ipaddress.IPv4Network(subnet).hosts()))
    client.create_network(
        installation.network,
        driver="bridge",
        # With a subnet of our own choice containers may be given addresses of our own choice.
        ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=subnet, gateway=gateway, iprange=automatic_range(subnet))]),
        options={
            "com.docker.network.bridge.name": installation.bridge,
            "com.docker.network.bridge.enable_icc": "false",
        },
        labels={INSTALLATION_LABEL: installation.id},
        check_duplicate=True,
        enable_ipv6=False,
    )
    made: Mapping[str, Any] = client.inspect_network(installation.network)
    return made


def _free_subnet(client: docker.APIClient, installation: Installation) -> str:
    """The engine knows which of its pools are free of its own networks and of the machine's routes: let it choose."""
    name = f"{installation.network}-probe"
    probe = client.create_network(name, driver="bridge", labels={INSTALLATION_LABEL: installation.id})
    try:
        subnet: str = client.inspect_network(probe["Id"])["IPAM"]["Config"][0]["Subnet"]
    finally:
        client.remove_network(probe["Id"])
    return subnet


def _checked(found: Mapping[str, Any], installation: Installation, subnet: str | None) -> RunNetwork:
    config = found["IPAM"]["Config"][0]
    options = found.get("Options") or {}
    how = f"remove it with 'docker network rm {installation.network}', and Greenroom makes it anew"
    if (found.get("Labels") or {}).get(INSTALLATION_LABEL) != installation.id:
        raise LaunchError(f"A network {installation.network} is there that Greenroom has not made: {how}.")
    if options.get("com.docker.network.bridge.enable_icc") != "false":
        raise LaunchError(f"The network {installation.network} lets containers reach each other: {how}.")
    if subnet is not None and config["Subnet"] != subnet:
        raise LaunchError(f"The network {installation.network} has the subnet {config['Subnet']}, not {subnet}: {how}.")
    return RunNetwork(subnet=config["Subnet"], gateway=config["Gateway"])
