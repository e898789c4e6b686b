"""A whole gateway with a recorder in place of an Actor, in a thread of its own, as the suite of HTTP/1.1 has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from proxy.suite.stage import Door, Stage, greenroom_door


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The thread in which the gateway and its recorder live."""
    stage = Stage(tmp_path_factory.mktemp("stage"))
    yield stage
    stage.close()


@pytest.fixture(params=["warm", "cold"])
def door(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Door]:
    """The way to a public Actor, warm or cold, at rest before and after."""
    door = greenroom_door(stage, "splice", is_cold=request.param == "cold")
    door.settle()
    door.recorder.forget()
    yield door
    door.settle()
    assert door.recorder.garbage == []
