"""Services of a manager that breaks off: each is some run's, or it is removed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn, cast

import pytest
import requests
from docker.errors import APIError, NotFound

from autoscaler.launchers.chores import Chores
from autoscaler.launchers.docker.engine import Engine, EngineError, EngineUnavailable, translated
from autoscaler.launchers.swarm import service_maker
from autoscaler.launchers.swarm.service_maker import ServiceMaker

BODY = {"name": "greenroom-run"}


class Manager(Engine):
    """Its own client. *breaks_off*: so many calls it carries out, and does not answer; *is_away*: it does neither."""

    def __init__(self, *, breaks_off: int = 0, patience_secs: float = 10.0) -> None:
        super().__init__("unix:///nowhere", patience_secs=patience_secs)
        self.services: dict[str, str] = {}
        self.breaks_off = breaks_off
        self.is_away = 0
        self.removed = asyncio.Event()

    async def ask(self, call: Callable[[Any], Any]) -> Any:
        await asyncio.sleep(0)
        with translated("stub"):
            if self.is_away:
                self.is_away -= 1
                raise ConnectionRefusedError
            answer = call(self)
            if self.breaks_off:
                self.breaks_off -= 1
                raise requests.ConnectionError("broken off")
            return answer

    def create_service(self, name: str) -> dict[str, str]:
        if name in self.services:
            _refuse(409)
        self.services[name] = f"id-{len(self.services)}"
        return {"ID": self.services[name]}

    def inspect_service(self, name: str) -> dict[str, str]:
        return {"ID": self.services[name]}

    def remove_service(self, service: str) -> None:
        if self.services.pop(service, None) is None:
            raise NotFound("no such service")
        self.removed.set()


def _refuse(status: int) -> NoReturn:
    response = requests.Response()
    response.status_code = status
    raise APIError("refused", response=response)


@pytest.fixture(autouse=True)
def _is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_maker, "_RETRY_SECS", 0.0)


async def test_what_a_manager_made_before_it_broke_off_is_taken_up() -> None:
    """By its name, which no other one has."""
    manager = Manager(breaks_off=1)
    async with Chores() as chores, asyncio.timeout(20):
        assert await ServiceMaker(manager, chores).create(BODY) == "id-0"
    assert manager.services == {"greenroom-run": "id-0"}


async def test_what_a_manager_made_and_never_told_of_is_removed() -> None:
    """However long that takes: a service lives by itself, and no run knows of this one."""
    manager = Manager(breaks_off=1, patience_secs=-1)
    async with Chores() as chores, asyncio.timeout(20):
        with pytest.raises(EngineUnavailable):
            await ServiceMaker(manager, chores).create(BODY)
        assert manager.services
        manager.is_away = 100
        await manager.removed.wait()
    assert not manager.services


async def test_a_removal_that_is_refused_for_good_ends() -> None:
    """It is made again after the next start."""
    manager = Manager()
    manager.remove_service = cast(Any, lambda _: _refuse(500))  # type: ignore[method-assign]
    async with Chores() as chores, asyncio.timeout(20):
        await ServiceMaker(manager, chores).remove("greenroom-run")


async def test_what_is_refused_is_told() -> None:
    """And nothing is left to remove."""
    manager = Manager()
    manager.create_service = cast(Any, lambda name: _refuse(400))  # type: ignore[method-assign]
    async with Chores() as chores:
        with pytest.raises(EngineError):
            await ServiceMaker(manager, chores).create(BODY)
