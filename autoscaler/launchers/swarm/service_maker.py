"""The calls that make and remove a Swarm service, of a manager that may break off between hearing and answering."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import docker
from docker.errors import APIError

from autoscaler.launchers.chores import Chores
from autoscaler.launchers.docker.engine import Engine, EngineError, EngineUnavailable, NotInEngine

_RETRY_SECS = 0.5
_LONGEST_RETRY_SECS = 15.0
_REMOVAL_TRIES = 20


class ServiceMaker:
    """Makes and removes the services of one Greenroom. *chores* owns what has to be done after a failure."""

    def __init__(self, engine: Engine, chores: Chores) -> None:
        self._engine = engine
        self._chores = chores

    async def create(self, body: Mapping[str, Any]) -> str:
        """
        The id of a new service; *body* (the arguments of ``create_service``) has a name that no other one ever has.

        Raises LaunchError. What the manager has made all the same is removed as soon as it answers: a service runs by
        itself, and this one would be nobody's.
        """

        def create(client: docker.APIClient) -> str:
            try:
                made = client.create_service(**body)  # type: ignore[no-untyped-call]
            except APIError as error:
                if error.status_code != 409:
                    raise
                made = client.inspect_service(body["name"])  # type: ignore[no-untyped-call]  # it had made it already
            found: str = made["ID"]
            return found

        try:
            return await self._engine.ask_patiently(create)
        except EngineUnavailable:
            self._chores.do(self.remove(body["name"]))
            raise

    async def remove(self, service: str) -> None:
        """By its id or name. What a manager refuses to remove is removed after the next start of Greenroom."""
        tries_left, pause_secs = _REMOVAL_TRIES, _RETRY_SECS
        while tries_left:
            try:
                await self._engine.ask(lambda client: client.remove_service(service))  # type: ignore[no-untyped-call]
            except NotInEngine:
                return
            except EngineUnavailable:
                await asyncio.sleep(pause_secs)
                pause_secs = min(2 * pause_secs, _LONGEST_RETRY_SECS)
            except EngineError:
                tries_left -= 1
                await asyncio.sleep(_RETRY_SECS)
            else:
                return
