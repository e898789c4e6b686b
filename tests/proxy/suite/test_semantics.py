"""HTTP as RFC 9110 and 9112 have it, in both directions, over every way through Greenroom."""

from __future__ import annotations

from dataclasses import replace

import pytest
from proxy.suite.differences import SCENES_THAT_DIFFER, differs
from proxy.suite.scenes import Scene
from proxy.suite.semantics_cases import ALL_SCENES
from proxy.suite.stage import Door


@pytest.mark.parametrize("scene", [pytest.param(scene, id=scene.name) for scene in ALL_SCENES])
def test_scene(door: Door, scene: Scene) -> None:
    """Each scene's docstring is a promise; the ASGI proxy's listed differences really are some."""
    if differs(door, scene.name, SCENES_THAT_DIFFER):
        with pytest.raises((AssertionError, TimeoutError)):
            scene.play(replace(door, wait_secs=0.5))
        door.settle()
    else:
        scene.play(door)


def test_list_of_differences() -> None:
    """Names scenes that exist."""
    assert SCENES_THAT_DIFFER.keys() <= {scene.name for scene in ALL_SCENES}
