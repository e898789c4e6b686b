"""The engines of the nodes: what a manager can't do for a container on another machine, its own engine can."""

from __future__ import annotations

from docker.utils import kwargs_from_env

from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.swarm.tasks import Node

_PLACEHOLDER = "{address}"


class NodeEngine(Engine):
    """The engine of a node at *url*, spoken to with the certificates that ``DOCKER_CERT_PATH`` names, if any."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._connection = {**kwargs_from_env(), "base_url": url}


class NodeEngines:
    """
    Ways to the engines of nodes: that of *local_node_id* is *local*; the others answer at *template*, in which
    ``{address}`` stands for the node's address. Without a template the others are out of reach.
    """

    def __init__(self, local: Engine, local_node_id: str, template: str | None) -> None:
        self._local = local
        self._local_node_id = local_node_id
        self._template = template
        self._engines: dict[str, NodeEngine] = {}

    @property
    def reach_all(self) -> bool:
        """Whether every node's engine is in reach, by the settings."""
        return self._template is not None

    def of(self, node: Node | None) -> Engine | None:
        """The engine of *node*, None where that is out of reach. No call is made."""
        if node is None or node.is_lost:
            return None
        if node.id == self._local_node_id:
            return self._local
        if self._template is None:
            return None
        url = self._template.replace(_PLACEHOLDER, node.address)
        engine = self._engines.get(url)
        if engine is None:
            engine = self._engines[url] = NodeEngine(url)
        return engine

    def close(self) -> None:
        """No more calls; the local engine is somebody else's to close."""
        for engine in self._engines.values():
            engine.close()
