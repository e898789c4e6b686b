"""The Docker launcher alone, on the real engine of the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import docker_engine
import pytest
from launcher_builds import ContainerBuilds, open_launcher

from gateway.installation import installation_of


@pytest.fixture
def builds(docker_host: str, tmp_path: Path) -> Iterator[ContainerBuilds]:
    """Scripts as images; whatever is left of them in the end is removed."""
    made = ContainerBuilds(tmp_path)
    yield made
    made.close()
    docker_engine.remove_all(docker_host, installation_of(tmp_path).label)


@pytest.fixture
async def launcher(tmp_path: Path, builds: ContainerBuilds) -> AsyncIterator[Any]:
    """An open launcher on the test's own folder."""
    async with open_launcher("docker", tmp_path, builds) as launcher:
        yield launcher
