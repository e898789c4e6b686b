"""The Actors that a server is given as folders: registered before it listens, announced once it serves."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gateway.actor_files.snapshot import pack_folder
from gateway.api.views import standby_url
from gateway.api.waiting import until_ended
from gateway.core.errors import DefinitionError, GreenroomError, RecordNotFound
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Actor, Build, Origin
from gateway.data_dir import FirstUser
from gateway.refusals import Refused
from gateway.services import Services
from gateway.state.ports import StateUnavailable

_LOOK_SECS = 60.0
_POLL_SECS = 0.02


def actor_folders(given: tuple[Path, ...]) -> list[Path]:
    """Each given folder that is an Actor, else its direct sub-folders that are. Raises Refused for one without any."""
    found: list[Path] = []
    for folder in given:
        if not folder.is_dir():
            raise Refused(f"--actors {folder}: there is no such folder.")
        if _is_actor(folder):
            found.append(folder)
            continue
        below = sorted(child for child in folder.iterdir() if child.is_dir() and _is_actor(child))
        if not below:
            raise Refused(
                f"--actors {folder}: neither this folder nor one directly below it has an .actor/actor.json "
                "(https://whitepaper.actor tells what belongs there)."
            )
        found += below
    return found


def _is_actor(folder: Path) -> bool:
    return (folder / ".actor").is_dir() or (folder / "apify.json").is_file()


async def register_all(services: Services, first: FirstUser) -> list[tuple[Actor, Build]]:
    """
    Those of the setting ``actors``, one after the other. Of several processes on one data folder one does it at a time,
    and the others find what it has made. Raises Refused.
    """
    folders = actor_folders(services.settings.actors)
    if not folders:
        return []
    with _alone(services.settings.data / "registering.lock") as has_lock:
        await _until(has_lock)
        return [await register(services, first, folder) for folder in folders]


async def register(services: Services, first: FirstUser, folder: Path) -> tuple[Actor, Build]:
    """The Actor in *folder* and its build, which may be under way yet. Raises Refused for a mistake in its files."""
    try:
        snapshot = await asyncio.to_thread(pack_folder, folder)
        actor, build = await services.builder.register(first.user, snapshot, origin=Origin.CLI)
    except DefinitionError as error:
        raise Refused(f"{folder / error.file}{f':{error.line}' if error.line else ''}: {error.problem}") from error
    except GreenroomError as error:
        raise Refused(f"{folder}: {error.message}") from error
    if build.status.is_terminal and build.status is not RunStatus.SUCCEEDED:
        raise Refused(f"{folder}: {build.status_message or 'the build failed'}")
    return actor, build


def announce(services: Services, first: FirstUser, registered: Sequence[tuple[Actor, Build]]) -> None:
    """When ready: one line per Actor, where the token lies, the API."""
    for actor, build in registered:
        if build.status.is_terminal:
            _announce_actor(services, first, actor)
        else:
            print(f"{first.user.username}/{actor.name}: build {build.build_number} is being made", flush=True)
    if services.settings.launcher == "process":
        print("Actors run as processes of this machine, without isolation: serve only code that you trust.", flush=True)
    print(f"token: {first.token_file or 'as given in GREENROOM_TOKEN'}", flush=True)
    print(f"API: {services.urls.public}/v2", flush=True)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[Callable[[], bool]]:
    """A lock between processes; what is yielded tries to take it, and tells whether it has."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def has_lock() -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    try:
        yield has_lock
    finally:
        os.close(descriptor)


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - the kernel tells nobody
        await asyncio.sleep(_POLL_SECS)


async def announce_builds(services: Services, first: FirstUser, registered: Sequence[tuple[Actor, Build]]) -> None:
    """Those whose builds were under way: the line of each when its build has ended, or why it has failed."""
    async with asyncio.TaskGroup() as group:
        for actor, build in registered:
            if not build.status.is_terminal:
                group.create_task(_announce_when_built(services, first, actor, build))


def _announce_actor(services: Services, first: FirstUser, actor: Actor) -> None:
    name, urls = first.user.username, services.urls
    url = standby_url(actor, name, urls)
    shown = f"{url}/" if url is not None else f"POST {urls.public}/v2/actors/{name}~{actor.name}/runs starts a run"
    print(f"{name}/{actor.name}: {shown}", flush=True)


async def _announce_when_built(services: Services, first: FirstUser, actor: Actor, build: Build) -> None:
    state = services.state

    async def read() -> Build:
        found = await state.records.build(build.id)
        if found is None:
            raise RecordNotFound("Build")
        return found

    with contextlib.suppress(RecordNotFound, StateUnavailable):
        ended = build
        while not ended.status.is_terminal:
            ended = await until_ended(state.signals, read, "build", build.id, _LOOK_SECS)
        if ended.status is RunStatus.SUCCEEDED:
            _announce_actor(services, first, actor)
        else:
            why = ended.status_message or ended.status
            print(f"{first.user.username}/{actor.name}: build {ended.build_number} {ended.status}: {why}", flush=True)
