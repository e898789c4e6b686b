"""The two calls that make a run a container, create and start, of an engine that may break off between them."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import docker
from docker.errors import APIError

from autoscaler.launchers.base import LaunchSpec
from autoscaler.launchers.docker.containers import ContainerRules, container_body, start_problem
from autoscaler.launchers.docker.disk_rules import disk_mbytes, may_have_quotas, refuses_quotas
from autoscaler.launchers.docker.engine import Engine, EngineError, NotInEngine
from autoscaler.launchers.docker.images import Images
from gateway.core.errors import LaunchError
from gateway.installation import Installation

_NEVER = "0001-01-01T00:00:00Z"


class ContainerMaker:
    """Makes the containers of one Greenroom; *limits* are fields of ContainerRules."""

    def __init__(self, engine: Engine, installation: Installation, images: Images, **limits: Any) -> None:
        self._engine = engine
        self._installation = installation
        self._images = images
        self.rules = ContainerRules(installation=installation, cores=1, **limits)

    def learn(self, info: dict[str, Any]) -> None:
        """What the engine says of itself decides what it can enforce."""
        self.rules = replace(self.rules, cores=int(info.get("NCPU") or 1), disk_quota=may_have_quotas(info))

    async def create(self, spec: LaunchSpec) -> str:
        """The id of a new container for *spec*, whose image is made where it is missing. Raises LaunchError."""
        # A restart in place makes a second container of the same run, so the run's id alone would not do.
        name = f"greenroom-{self._installation.id}-{spec.run_id}-{secrets.token_hex(2)}"
        try:
            return await self._create_once(spec, name)
        except NotInEngine:
            self._images.is_missing(spec.build)
            await self._images.prepare(spec.build, lambda line: None)
            return await self._create_once(spec, name)

    async def _create_once(self, spec: LaunchSpec, name: str) -> str:
        body = container_body(spec, self._images.name(spec.build), self.rules, disk_mbytes(spec.memory_mbytes))

        def create(client: docker.APIClient) -> str:
            try:
                made = client.create_container_from_config(dict(body), name)  # type: ignore[no-untyped-call]
            except APIError as error:
                if error.status_code != 409:
                    raise
                made = client.inspect_container(name)  # an engine that broke off had made it all the same
            found: str = made["Id"]
            return found

        try:
            return await self._engine.ask_patiently(create)
        except EngineError as error:
            if not self.rules.disk_quota or not refuses_quotas(error.message):
                raise
            self.rules = replace(self.rules, disk_quota=False)
        return await self._create_once(spec, name)

    async def start(self, container_id: str) -> None:
        """Start it, once. Raises LaunchError with what the runtime says."""
        tries = 0

        def start(client: docker.APIClient) -> None:
            nonlocal tries
            tries += 1
            # An engine that broke off may have started it, and then it may have ended: it must not begin twice.
            if tries == 1 or client.inspect_container(container_id)["State"]["StartedAt"] == _NEVER:
                client.start(container_id)

        try:
            await self._engine.ask_patiently(start)
        except EngineError as error:
            raise LaunchError(start_problem(error.message)) from error
