"""
When images of builds are removed: those that no tag points to, that no live run uses, and that have grown old.

An image of a build that was deleted, with its Actor or by itself, or that did not succeed, is removed at once; one of a
build under way never. A run of a build without an image makes it anew from its snapshot, so nothing is lost but time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from gateway.core.errors import LaunchError
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build
from gateway.state.ports import Records
from gateway.state.steady import steadily

_log = logging.getLogger(__name__)

_CHECK_SECS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptImage:
    """An image that is there: of which build, and since when."""

    build_id: str
    made_at: datetime


class ImageStore(Protocol):
    """Where images are kept."""

    async def list_images(self) -> Sequence[KeptImage]: ...

    async def remove_image(self, build_id: str) -> bool:
        """Whether it is gone; False where something still uses it. Raises LaunchError."""
        ...


@runtime_checkable
class HasImages(Protocol):
    """A launcher whose runs are started from images of builds."""

    @property
    def images(self) -> ImageStore: ...


def removable(
    images: Sequence[KeptImage],
    builds: Mapping[str, Build],
    *,
    tagged: Collection[str],
    in_use: Collection[str],
    now: datetime,
    keep: timedelta,
) -> list[str]:
    """
    The builds whose images may go; see the module.

    *builds* are the records that there are, by id; *tagged* and *in_use* are ids of builds.
    """
    found = []
    for image in images:
        build = builds.get(image.build_id)
        if image.build_id in in_use or image.build_id in tagged or (build is not None and not build.status.is_terminal):
            continue
        if build is None or build.status is not RunStatus.SUCCEEDED or now - image.made_at >= keep:
            found.append(image.build_id)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCleaning:
    """Removes images by that rule, at once and then every hour."""

    store: ImageStore
    records: Records
    keep: timedelta
    now: Callable[[], datetime]

    async def clean_for_ever(self) -> None:
        """Until cancelled; trouble with the engine or the records only delays it."""
        await steadily("the removal of old images", self._clean_for_ever)

    async def clean(self) -> list[str]:
        """Once; the builds whose images are gone. Raises LaunchError."""
        images = await self.store.list_images()
        builds: dict[str, Build] = {}
        tagged: set[str] = set()
        for image in images:
            build = await self.records.build(image.build_id)
            actor = await self.records.actor(build.actor_id) if build is not None else None
            if build is not None and actor is not None:
                builds[build.id] = build
                tagged.update(pointed.build_id for pointed in actor.tagged_builds.values())
        # Read last, so that no run that began meanwhile is overlooked.
        in_use = {run.build_id for run in await self.records.active_runs()}
        found = removable(images, builds, tagged=tagged, in_use=in_use, now=self.now(), keep=self.keep)
        removed = [build_id for build_id in found if await self.store.remove_image(build_id)]
        if removed:
            _log.info("removed the images of %d builds that nothing needs: %s", len(removed), ", ".join(removed))
        return removed

    async def _clean_for_ever(self) -> None:
        while True:
            try:
                await self.clean()
            except LaunchError as error:
                _log.warning("old images stay where they are: %s", error)
            await asyncio.sleep(_CHECK_SECS)
