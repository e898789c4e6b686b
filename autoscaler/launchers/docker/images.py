"""Images of builds: made by the engine from the build's snapshot, and known by the id of the build."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

import docker

from autoscaler.launchers.docker.engine import Engine, NotInEngine
from gateway.core.errors import LaunchError
from gateway.core.model import Build, snapshot_key
from gateway.installation import BUILD_LABEL, INSTALLATION_LABEL, Installation
from gateway.state.ports import Blobs

_DOCKERFILE = ".greenroom.Dockerfile"


class Images:
    """The images of one Greenroom on one engine."""

    def __init__(self, engine: Engine, installation: Installation, blobs: Blobs) -> None:
        self._engine = engine
        self._installation = installation
        self._blobs = blobs
        self._known: set[str] = set()

    def name(self, build: Build) -> str:
        """The image's name, whether it is there or not."""
        return f"{self._installation.image_name}:{build.id}"

    def is_there(self, build: Build) -> bool:
        """Whether it was there when it was last asked for; no call."""
        return build.id in self._known

    def is_missing(self, build: Build) -> None:
        """The engine did not have it."""
        self._known.discard(build.id)

    async def prepare(self, build: Build, progress: Callable[[str], None]) -> None:
        """Make the image unless it is there. Raises LaunchError with the end of the engine's output."""
        try:
            await self._engine.ask(lambda client: client.inspect_image(self.name(build)))  # type: ignore[no-untyped-call]
        except NotInEngine:
            await self._make(build, progress)
        self._known.add(build.id)

    async def _make(self, build: Build, progress: Callable[[str], None]) -> None:
        dockerfile = build.definition.get("dockerfile")
        if build.snapshot is None or not isinstance(dockerfile, str):
            raise LaunchError(f"Build {build.build_number} has no Dockerfile.")
        chunks = await self._blobs.open(snapshot_key(build.snapshot))
        if chunks is None:
            raise LaunchError(f"The source of build {build.build_number} is not in the blobs any more: build again.")
        source = b"".join([chunk async for chunk in chunks])
        context = _with_dockerfile(source, dockerfile)

        def make(client: docker.APIClient) -> None:
            tail: list[str] = []
            for line in _lines(
                client.build(
                    fileobj=context,
                    custom_context=True,
                    dockerfile=_DOCKERFILE,
                    tag=self.name(build),
                    rm=True,
                    forcerm=True,
                    decode=True,
                    labels={INSTALLATION_LABEL: self._installation.id, BUILD_LABEL: build.id},
                )
            ):
                progress(line)
                tail = [*tail, line][-20:]
            if tail and tail[-1].startswith("ERROR: "):
                raise LaunchError("The image could not be built:\n" + "\n".join(tail))

        await self._engine.ask(make)


def _lines(output: Iterator[dict[str, Any]]) -> Iterator[str]:
    for item in output:
        if "error" in item:
            yield f"ERROR: {item['error']}"
            return
        yield from (line for line in item.get("stream", "").splitlines() if line.strip())


def _with_dockerfile(source: bytes, dockerfile: str) -> io.BytesIO:
    context = io.BytesIO()
    content = dockerfile.encode()
    with tarfile.open(fileobj=io.BytesIO(source)) as given, tarfile.open(fileobj=context, mode="w") as made:
        for member in given:
            made.addfile(member, given.extractfile(member) if member.isfile() else None)
        info = tarfile.TarInfo(_DOCKERFILE)
        info.size = len(content)
        made.addfile(info, io.BytesIO(content))
    context.seek(0)
    return context
