"""
The network of all runs on a Swarm: on each node a bridge of this Greenroom's own, which leads to no other node.

A run needs no other run, so nothing is gained by an overlay, which would join them. How a bridge is made (without
traffic between its containers) is an engine's own affair: a *configuration* that lies on each node. Where the engines
are out of reach there is none, and containers of one node can reach each other unless the node's firewall forbids it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import docker

from autoscaler.launchers.docker.engine import Engine, EngineError, NotInEngine
from gateway.core.errors import LaunchError
from gateway.installation import INSTALLATION_LABEL, Installation


async def ensure_config(engine: Engine, installation: Installation) -> None:
    """How the runs' bridge is made on the node of *engine*. Raises LaunchError."""

    def ensure(client: docker.APIClient) -> None:
        try:
            client.inspect_network(_config_name(installation))
        except docker.errors.NotFound:
            _create(
                client,
                {
                    "Name": _config_name(installation),
                    "CheckDuplicate": True,
                    "ConfigOnly": True,
                    "Labels": {INSTALLATION_LABEL: installation.id},
                    "Options": {
                        "com.docker.network.bridge.name": installation.node_bridge,
                        "com.docker.network.bridge.enable_icc": "false",
                    },
                },
            )

    await engine.ask(ensure)


async def ensure_network(engine: Engine, installation: Installation, *, by_config: bool) -> str:
    """
    The name of the Swarm's network for runs, which is made where it is missing; *by_config*: as each node's
    configuration says. Raises LaunchError.
    """
    name = f"{installation.network}-{'nodes' if by_config else 'plain'}"
    body: dict[str, Any] = {"Name": name, "CheckDuplicate": True, "Driver": "bridge", "Scope": "swarm"}
    if by_config:
        body["ConfigFrom"] = {"Network": _config_name(installation)}  # such a network can't have labels
    else:
        body["Labels"] = {INSTALLATION_LABEL: installation.id}

    def ensure(client: docker.APIClient) -> None:
        try:
            client.inspect_network(name)
        except docker.errors.NotFound:
            _create(client, body)

    try:
        await engine.ask(ensure)
    except NotInEngine:
        raise
    except EngineError as error:
        raise LaunchError(f"The network {name} can't be made: {error.message}.") from error
    return name


def _config_name(installation: Installation) -> str:
    return f"{installation.network}-config"


def _create(client: docker.APIClient, body: Mapping[str, Any]) -> None:
    """By hand: the library does not know networks made of configurations."""
    response = client.post(f"{client.base_url}/v{client.api_version}/networks/create", json=dict(body))
    if response.status_code >= 300:
        raise EngineError(f"Docker: {response.json().get('message', response.text)}", response.status_code)
