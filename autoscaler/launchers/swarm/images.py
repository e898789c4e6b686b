"""Images where every node finds them: in a registry, else on the one engine that built them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import docker

from autoscaler.image_cleaning import KeptImage
from autoscaler.launchers.docker.engine import Engine, NotInEngine
from autoscaler.launchers.docker.images import Images
from gateway.core.errors import LaunchError
from gateway.core.model import Build
from gateway.installation import Installation


class SwarmImages:
    """
    What *images* makes on *engine*, pushed to *registry* (host, port, perhaps a path).

    Nodes are told of an image by its digest, so that one which has it asks nobody, and all run the same.
    """

    def __init__(self, engine: Engine, installation: Installation, images: Images, registry: str | None) -> None:
        self._engine = engine
        self._installation = installation
        self._images = images
        self._registry = registry
        self._references: dict[str, str] = {}

    @property
    def reach_all(self) -> bool:
        """Whether every node can have them."""
        return self._registry is not None

    def is_there(self, build: Build) -> bool:
        """Whether it was there when it was last asked for; no call."""
        return build.id in self._references

    async def prepare(self, build: Build, progress: Callable[[str], None]) -> None:
        """Make the image unless it is there, and push it. Raises LaunchError."""
        await self._images.prepare(build, progress)
        name = self._images.name(build)
        if self._registry is None:
            # By its id: with a name, each start would ask the public registry for a newer one.
            image = await self._engine.ask(lambda client: client.inspect_image(name))  # type: ignore[no-untyped-call]
            self._references[build.id] = image["Id"]
            return
        repository, _, tag = f"{self._registry}/{name}".rpartition(":")
        self._references[build.id] = await self._engine.ask(lambda client: _push(client, name, repository, tag))

    async def list_images(self) -> Sequence[KeptImage]:
        """Those on the engine that builds; what a registry keeps is its own affair."""
        return await self._images.list_images()

    async def remove_image(self, build_id: str) -> bool:
        """Remove one there, by both of its names; a node that runs it keeps its own copy."""
        self._references.pop(build_id, None)
        if self._registry is not None:
            name = f"{self._registry}/{self._installation.image_name}:{build_id}"
            with contextlib.suppress(NotInEngine):
                await self._engine.ask(lambda client: client.remove_image(name))
        return await self._images.remove_image(build_id)

    async def reference(self, build: Build) -> str:
        """What a service calls the image. Raises LaunchError."""
        if build.id not in self._references:
            await self.prepare(build, lambda line: None)
        return self._references[build.id]


def _push(client: docker.APIClient, name: str, repository: str, tag: str) -> str:
    client.tag(name, repository, tag)
    output: Any = client.push(repository, tag, stream=True, decode=True)
    for item in output:
        if "error" in item:
            raise LaunchError(
                f"The image could not be pushed to {repository}: {item['error']}. Look at the setting registry, and at "
                "'docker login' for whom Greenroom runs as."
            )
    image: dict[str, Any] = client.inspect_image(f"{repository}:{tag}")  # type: ignore[no-untyped-call]
    digest = next((one for one in image.get("RepoDigests") or () if one.startswith(f"{repository}@")), None)
    return digest or f"{repository}:{tag}"
