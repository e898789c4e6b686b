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
from autoscaler.launchers.docker.engine import Engine, EngineError, EngineUnavailable, NotInEngine
from autoscaler.launchers.docker.images import Images
from gateway.core.errors import LaunchError
from gateway.installation import Installation

_NEVER = "0001-01-01T00:00:00Z"
_BROKEN_OFF = (
    "The Docker engine broke off while it was starting the run. Whether its program began is not known, so it is not "
    "started once more."
)


class ContainerGone(LaunchError):
    """The container that was to be started is not there any more; its program has not begun."""


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
        """Start it, once. Raises LaunchError with what the runtime says, and ContainerGone."""

        def start(client: docker.APIClient) -> None:
            if has_broken_off:
                # It may have been started, and may have ended since: its program must not begin twice. That it never
                # was is not to be believed: an engine that is killed may not have come to writing it down.
                if client.inspect_container(container_id)["State"]["StartedAt"] == _NEVER:
                    raise LaunchError(_BROKEN_OFF)
                return
            client.start(container_id)

        has_broken_off = False
        while True:
            try:
                await self._engine.ask_patiently(start, unless_sent=not has_broken_off)
            except EngineError as error:
                is_gone = isinstance(error, NotInEngine) and not has_broken_off
                raise (ContainerGone if is_gone else LaunchError)(start_problem(error.message)) from error
            except EngineUnavailable as error:
                if has_broken_off or not error.was_sent:
                    raise
                has_broken_off = True
            else:
                return
