"""
Images of builds: made by the engine from the build's snapshot, and known by the id of the build.

Which images there are is asked once, when this is opened, and from then on remembered: a wake asks a dict.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Any, Self

from autoscaler.image_cleaning import KeptImage
from autoscaler.launchers.chores import Chores
from autoscaler.launchers.docker.engine import Engine, EngineError, NotInEngine
from autoscaler.launchers.docker.image_build import ImageBuild, broken_off
from autoscaler.launchers.docker.image_context import ImageContext, build_arguments, image_context
from autoscaler.run_environment import opened
from gateway.build_maker import ENV_VARS_IN_BUILD
from gateway.core.errors import GreenroomError, LaunchError
from gateway.core.model import Build, snapshot_key
from gateway.installation import BUILD_LABEL, INSTALLATION_LABEL, Installation
from gateway.secret_box import SecretBox
from gateway.settings import Settings
from gateway.state.ports import Blobs, StateUnavailable

# What images of the platform carry.
_PLATFORM_LABEL = "com.apify.actBuildId"
_SPOOL_BYTES = 4 * 1024 * 1024
_THREADS = 64
_REPLAYED_LINES = 500
_LEAST_MASKED_CHARS = 4
# Runs come first where the processor is short: a container has 1024 unless it says otherwise.
_CPU_SHARES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRules:
    """
    How images are built: on *network* (None: the engine's own), with so much memory for each step, no longer than
    *timeout_secs* without a word. *open_secret* gives the value of a secret variable.
    """

    memory_mbytes: int = 4096
    timeout_secs: float = 1800.0
    node_image: str = "node:22-slim"
    python_image: str = "python:3.12-slim"
    open_secret: Callable[[str], str] = str
    network: str | None = None

    @classmethod
    def of(cls, settings: Settings, box: SecretBox, network: str | None = None) -> ImageRules:
        """As the settings say."""
        return cls(
            memory_mbytes=settings.build_memory_mbytes,
            timeout_secs=settings.build_timeout_secs,
            node_image=settings.docker_node_image,
            python_image=settings.docker_python_image,
            open_secret=box.open,
            network=network,
        )


@dataclass(slots=True)
class _Making:
    """The one making of an image that is under way, and who listens to it."""

    done: asyncio.Future[None] | None = None
    worker: asyncio.Task[None] | None = None
    lines: list[str] = field(default_factory=list)
    listeners: list[Callable[[str], None]] = field(default_factory=list)

    def tell(self, lines: Sequence[str]) -> None:
        self.lines = [*self.lines, *lines][-_REPLAYED_LINES:]
        for listener in tuple(self.listeners):
            for line in lines:
                listener(line)


class Images:
    """The images of one Greenroom on one engine. An async context manager: leaving it ends what is being built."""

    def __init__(
        self, engine: Engine, installation: Installation, blobs: Blobs, rules: ImageRules | None = None
    ) -> None:
        self._engine = engine
        self._installation = installation
        self._blobs = blobs
        self._rules = rules or ImageRules()
        self._known: set[str] = set()
        self._makings: dict[str, _Making] = {}
        self._chores = Chores()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="image")

    async def __aenter__(self) -> Self:
        """Raises LaunchError: no engine."""
        self._known.update(image.build_id for image in await self.list_images())
        await self._chores.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._chores.__aexit__(None, None, None)
        self._threads.shutdown(wait=False, cancel_futures=True)

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
        """
        Make the image unless it is there. Raises LaunchError: which step failed, with the end of its output.

        Simultaneous calls for one build share the work and hear all of it. It is ended when the last of them is
        cancelled: then nothing of it is left in the engine but layers that are whole.
        """
        making = self._makings.get(build.id)
        if making is None:
            if await self._is_in_engine(build):
                return
            making = self._makings.get(build.id) or self._begin(build)
        assert making.done is not None
        for line in making.lines:
            progress(line)
        making.listeners.append(progress)
        try:
            await asyncio.shield(making.done)
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            raise LaunchError("Greenroom stopped before the image was built.") from None
        finally:
            making.listeners.remove(progress)
            if not making.listeners and not making.done.done():
                self._end(build, making)

    async def list_images(self) -> Sequence[KeptImage]:
        """What there is of this Greenroom."""
        filters = {"label": [self._installation.label, BUILD_LABEL]}
        found = await self._engine.ask(lambda client: client.images(filters=filters))
        return [
            KeptImage(build_id=image["Labels"][BUILD_LABEL], made_at=datetime.fromtimestamp(image["Created"], UTC))
            for image in found
            if f"{self._installation.image_name}:{image['Labels'][BUILD_LABEL]}" in (image.get("RepoTags") or ())
        ]

    async def remove_image(self, build_id: str) -> bool:
        """Remove an image with the layers that nothing else needs; False where a container still uses it."""
        name = f"{self._installation.image_name}:{build_id}"
        self._known.discard(build_id)
        try:
            await self._engine.ask(lambda client: client.remove_image(name))
        except NotInEngine:
            return True
        except EngineError as error:
            if error.status != 409:
                raise
            self._known.add(build_id)
            return False
        return True

    # Making

    async def _is_in_engine(self, build: Build) -> bool:
        try:
            await self._engine.ask(lambda client: client.inspect_image(self.name(build)))  # type: ignore[no-untyped-call]
        except NotInEngine:
            self._known.discard(build.id)
            return False
        self._known.add(build.id)
        return True

    def _end(self, build: Build, making: _Making) -> None:
        if self._makings.get(build.id) is making:
            del self._makings[build.id]  # whoever wants it from now on begins anew
        if making.worker is not None:
            making.worker.cancel()

    def _begin(self, build: Build) -> _Making:
        making = self._makings[build.id] = _Making()

        async def work() -> None:
            try:
                making.worker = asyncio.current_task()
                await self._make(build, making)
            finally:
                if self._makings.get(build.id) is making:
                    del self._makings[build.id]

        try:
            making.done = self._chores.begin(work())
        except LaunchError:
            self._makings.pop(build.id, None)
            raise
        return making

    async def _make(self, build: Build, making: _Making) -> None:
        try:
            context = await self._context(build)
        except LaunchError:
            raise
        except GreenroomError as error:
            raise LaunchError(error.message) from error
        except (OSError, StateUnavailable) as error:
            raise LaunchError(f"The source of the build can't be read: {error}.") from error
        with context.file:
            if context.is_default:
                making.tell(["There is no Dockerfile, so this one is used:", *context.text.splitlines()])
            await self._build(build, context, making)
        if not await self._is_in_engine(build):
            raise broken_off(self._engine.url)

    async def _context(self, build: Build) -> ImageContext:
        chunks = await self._blobs.open(snapshot_key(build.snapshot)) if build.snapshot is not None else None
        if chunks is None:
            raise LaunchError(f"The source of build {build.build_number} is not in the blobs any more: build again.")
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as archive:
            async for chunk in chunks:
                archive.write(chunk)
            archive.seek(0)
            context: ImageContext = await self._in_thread(self._packed, archive)
            return context

    def _packed(self, archive: IO[bytes]) -> ImageContext:
        return image_context(archive, node_image=self._rules.node_image, python_image=self._rules.python_image)

    async def _build(self, build: Build, context: ImageContext, making: _Making) -> None:
        loop = asyncio.get_running_loop()
        variables = self._variables(build)
        mask = _mask([variable for variable in variables.secrets if len(variable) >= _LEAST_MASKED_CHARS])

        def tell(lines: list[str]) -> None:
            loop.call_soon_threadsafe(making.tell, [mask(line) for line in lines])

        image_build = ImageBuild(
            self._engine,
            context.file,
            self._parameters(build, context, variables.all),
            tell,
            timeout_secs=self._rules.timeout_secs,
        )
        try:
            await self._in_thread(image_build.run, on_cancel=image_build.cancel)
        except LaunchError as error:
            raise LaunchError(mask(error.message)) from error

    def _parameters(self, build: Build, context: ImageContext, variables: Mapping[str, str]) -> dict[str, Any]:
        is_rebuilt = build.status.is_terminal  # its image was removed meanwhile
        return {
            "dockerfile": context.dockerfile,
            "tag": self.name(build),
            "rm": True,
            "forcerm": True,
            "nocache": not build.options.get("useCache") and not is_rebuilt,
            "buildargs": build_arguments(context, variables),
            "network_mode": self._rules.network,
            "container_limits": {
                "memory": self._rules.memory_mbytes * 1024 * 1024,
                "memswap": self._rules.memory_mbytes * 1024 * 1024,
                "cpushares": _CPU_SHARES,
            },
            "labels": {
                INSTALLATION_LABEL: self._installation.id,
                BUILD_LABEL: build.id,
                _PLATFORM_LABEL: build.id,
            },
        }

    def _variables(self, build: Build) -> _Variables:
        if not build.options.get(ENV_VARS_IN_BUILD):
            return _Variables({}, ())
        values = opened(build.env_vars, self._rules.open_secret)
        secret = {variable.name for variable in build.env_vars if variable.is_secret}
        return _Variables(values, tuple(value for name, value in values.items() if name in secret))

    async def _in_thread(
        self, work: Callable[..., Any], *given: Any, on_cancel: Callable[[], None] | None = None
    ) -> Any:
        """What *work* returns; it is over when this returns, also when cancelled."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, work, *given)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if on_cancel is not None:
                on_cancel()
            await asyncio.wait([future])
            if not future.cancelled() and future.exception() is None and isinstance(future.result(), ImageContext):
                future.result().file.close()  # nobody will
            raise


@dataclass(frozen=True, slots=True)
class _Variables:
    all: Mapping[str, str]
    secrets: tuple[str, ...]


def _is_cancelled() -> bool:
    """Whether the caller itself is, and not only what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _mask(secrets: Sequence[str]) -> Callable[[str], str]:
    def mask(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "*****")
        return text

    return mask
