"""One stage per worker of pytest, and each way through Greenroom as a fixture."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from proxy.suite.stage import PATHS, POOLS, Door, Stage, greenroom_door


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The thread in which gateways and recorders live."""
    stage = Stage(tmp_path_factory.mktemp("stage"))
    yield stage
    stage.close()


@pytest.fixture(autouse=True)
def _no_internal_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever is sent by whom, Greenroom never meets an error of its own."""
    yield
    own = [record for record in caplog.get_records("call") if record.name.startswith("gateway")]
    assert [record.getMessage() for record in own if record.levelno >= logging.ERROR] == []


@pytest.fixture(
    params=[
        pytest.param((path, temperature), id=f"{path}-{temperature}")
        for path in PATHS
        for temperature in ("warm", "cold")
    ]
)
def door(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Door]:
    """Each way through Greenroom, at rest before and after."""
    path, temperature = request.param
    door = greenroom_door(stage, path, is_cold=temperature == "cold")
    door.settle()
    door.recorder.forget()
    assert door.stand is not None
    assert not (door.is_cold and door.stand.is_served(POOLS["open-cold"]))
    yield door
    door.settle()
