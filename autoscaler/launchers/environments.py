"""
What a build needs to run as a process: its source unpacked, its interpreter environment, its start command.

Everything lies below ``<data>/process``, and nothing is ever written into the Actor's own folder::

    sources/<sha256>/   an unpacked snapshot, shared by all runs; renamed into place when it is whole
    envs/<key>/         a virtual environment, or package.json with its node_modules; whole once ``.complete`` is there
    */<name>.lock       held by the one process that works on <name>, or by an installer that outlived it

A virtual environment can't be moved, so it is made in its place; what has no ``.complete`` is made anew.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from autoscaler.launchers import recipes
from autoscaler.launchers.installing import in_thread, installer_environment, locked, run_installer
from autoscaler.launchers.recipes import NodeRecipe, PythonRecipe
from gateway.actor_files.command import start_command
from gateway.actor_files.snapshot import unpack
from gateway.core.errors import GreenroomError, LaunchError
from gateway.core.model import Build, snapshot_key
from gateway.live_logs import Logs
from gateway.state.ports import Blobs, StateUnavailable

INSTALL_TIMEOUT_SECS = 1800.0  # as the platform gives a build

_COMPLETE = ".complete"
_NODE_MODULES = "node_modules"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPLAYED_LINES = 500
_SPOOL_BYTES = 4 * 1024 * 1024

_PIP = ("-I", "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off")
_NPM = ("--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier", "--progress=false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """How to start one build: in *cwd*, *argv*, with *path_dirs* before the system's PATH, and *extra_env*."""

    cwd: Path
    argv: tuple[str, ...]
    path_dirs: tuple[Path, ...] = ()
    extra_env: Mapping[str, str] = field(default_factory=dict)


class _Job:
    """The one preparation of one build that is under way: who listens to it, and its end."""

    def __init__(self, build: Build, logs: Logs) -> None:
        self.build = build
        self.done: asyncio.Future[Prepared] = asyncio.get_running_loop().create_future()
        self._logs = logs
        self._is_logged = False
        self._lines: deque[str] = deque(maxlen=_REPLAYED_LINES)
        self._listeners: list[Callable[[str], None]] = []

    @contextmanager
    def heard_by(self, progress: Callable[[str], None]) -> Iterator[None]:
        """*progress* hears all lines, also the earlier ones."""
        for line in self._lines:
            progress(line)
        self._listeners.append(progress)
        try:
            yield
        finally:
            self._listeners.remove(progress)

    async def open_log(self) -> None:
        """From here on lines go to the build's log, too."""
        if not self._is_logged:
            await self._logs.reopen(self.build.id)
            self._is_logged = True

    def say(self, line: str) -> None:
        self._lines.append(line)
        if self._is_logged:
            self._logs.append(self.build.id, line)
        for listener in tuple(self._listeners):
            listener(line)

    async def close_log(self) -> None:
        if self._is_logged:
            await self._logs.keep(self.build.id)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # it counts as seen, should every caller have left


class Environments:
    """
    Makes and remembers what builds need. An async context manager: leaving it ends the work that is under way.

    Any number of processes may share *root*.
    """

    def __init__(self, root: Path, blobs: Blobs, logs: Logs) -> None:
        root = root.absolute()
        self._sources = root / "sources"
        self._envs = root / "envs"
        self._blobs = blobs
        self._logs = logs
        self._ready: dict[str, Prepared] = {}
        self._jobs: dict[str, _Job] = {}
        self._group: asyncio.TaskGroup | None = None
        self._workers: set[asyncio.Task[None]] = set()
        self._node_versions: dict[Path, str] = {}

    async def __aenter__(self) -> Self:
        for folder in (self._sources, self._envs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._group = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None
        group, self._group = self._group, None
        for worker in self._workers:
            worker.cancel()
        try:
            # Not with the caller's error: the group would wrap it, and its own workers never raise one.
            await group.__aexit__(None, None, None)
        finally:
            for job in self._jobs.values():  # those whose worker had not even begun
                job.fail(LaunchError("Greenroom stopped before this build was prepared."))
            self._jobs.clear()

    def ready(self, build: Build) -> Prepared | None:
        """What ``prepare`` would return, if nothing has to be made. Cost: one look into a dict and a stat or two."""
        prepared = self._ready.get(build.id)
        if prepared is None:
            return None
        if all(os.path.isdir(folder) for folder in (prepared.cwd, *prepared.path_dirs)):  # noqa: PTH112 - the wake path
            return prepared
        del self._ready[build.id]  # somebody tidied up: made anew when it is needed
        return None

    async def prepare(self, build: Build, progress: Callable[[str], None]) -> Prepared:
        """
        Make what is missing, telling *progress* line by line; simultaneous calls for the same build join.

        The work goes on when its callers are cancelled. Raises LaunchError, with the last lines of what failed.
        """
        prepared = self.ready(build)
        if prepared is not None:
            return prepared
        job = self._jobs.get(build.id)
        if job is None:
            if self._group is None:
                raise LaunchError("Greenroom is stopping and prepares no builds.")
            job = self._jobs[build.id] = _Job(build, self._logs)
            worker = self._group.create_task(self._work(job))
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        with job.heard_by(progress):
            return await asyncio.shield(job.done)

    async def _work(self, job: _Job) -> None:
        """One job from begin to end. Its error is its callers', never the group's."""
        try:
            try:
                async with asyncio.timeout(INSTALL_TIMEOUT_SECS):
                    prepared = await self._make(job)
            finally:
                await job.close_log()
            self._ready[job.build.id] = prepared
            job.done.set_result(prepared)
        except LaunchError as error:
            job.fail(error)
        except GreenroomError as error:
            job.fail(LaunchError(error.message))
        except TimeoutError:
            job.fail(LaunchError(f"The build was not prepared within {INSTALL_TIMEOUT_SECS:g} s; see the build's log."))
        except (OSError, StateUnavailable) as error:
            job.fail(LaunchError(f"The build can't be prepared: {error}."))
        except Exception as error:  # a bug reaches those who wait, with its traceback
            job.fail(error)
        finally:
            job.fail(LaunchError("Greenroom stopped before this build was prepared."))
            self._jobs.pop(job.build.id, None)

    async def _make(self, job: _Job) -> Prepared:
        build = job.build
        source = await self._unpacked(build)
        files = await in_thread(_SourceFolder, source)
        snapshot = str(build.snapshot)
        argv = start_command(build.definition, files)
        path_dirs: list[Path] = []
        extra_env: dict[str, str] = {}
        python = recipes.python_recipe(files, argv, snapshot=snapshot, interpreter=_interpreter())
        if python is not None:
            env = await self._python_env(python, source, job)
            path_dirs.append(env / "bin")
            extra_env["VIRTUAL_ENV"] = str(env)
        node = await self._node_recipe(files, argv, snapshot)
        if node is not None and node.needs_install and await self._node_modules(node, source, job):
            path_dirs.append(source / _NODE_MODULES / ".bin")
        return Prepared(
            cwd=source,
            argv=recipes.resolve(argv, _executables(path_dirs)),
            path_dirs=tuple(folder for folder in path_dirs if folder.is_dir()),
            extra_env=extra_env,
        )

    # Sources

    async def _unpacked(self, build: Build) -> Path:
        if build.snapshot is None or not _SHA256.fullmatch(build.snapshot):
            raise LaunchError(f"Build {build.build_number} has no source.")
        target = self._sources / build.snapshot
        if target.is_dir():
            return target
        async with locked(self._sources / f"{build.snapshot}.lock", _nothing):
            if target.is_dir():
                return target
            chunks = await self._blobs.open(snapshot_key(build.snapshot))
            if chunks is None:
                raise LaunchError(
                    f"The source of build {build.build_number} is not in the blobs any more: build again."
                )
            partial = self._sources / f".{build.snapshot}.partial"
            await in_thread(_remove, partial)
            with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as archive:
                async for chunk in chunks:
                    archive.write(chunk)
                archive.seek(0)
                await in_thread(unpack, archive, partial)
            partial.rename(target)
        return target

    # Python

    async def _python_env(self, recipe: PythonRecipe, source: Path, job: _Job) -> Path:
        env = self._envs / recipe.key
        if _is_complete(env):
            return env
        async with locked(self._envs / f"{recipe.key}.lock", _waits(job)) as lock:
            if _is_complete(env):
                return env
            await in_thread(_remove, env)
            await job.open_log()
            began = time.monotonic()
            job.say(f"Making a Python {platform.python_version()} environment.")
            environ = installer_environment(os.environ)
            with _telling_where_the_log_is():
                pip = ("--without-pip",) if recipe.is_bare else ()
                venv = (_base_python(), "-I", "-m", "venv", *pip, env)
                await run_installer(venv, cwd=self._envs, env=environ, say=job.say, lock=lock)
                if not recipe.is_bare:
                    requirements = source / (recipe.requirements_file or "")
                    if recipe.requirements is not None:
                        requirements = env / "project-requirements.txt"
                        requirements.write_text(recipe.requirements)
                    install = (env / "bin" / "python", *_PIP, "-r", requirements)
                    await run_installer(install, cwd=source, env=environ, say=job.say, lock=lock)
            (env / _COMPLETE).touch()
            job.say(f"The environment is ready after {time.monotonic() - began:.1f} s.")
        return env

    # Node.js

    async def _node_recipe(self, files: Mapping[str, bytes], argv: tuple[str, ...], snapshot: str) -> NodeRecipe | None:
        """The recipe for the Node.js that is there. Raises LaunchError where one is needed and none is."""
        node = shutil.which("node")
        recipe = recipes.node_recipe(
            files,
            snapshot=snapshot,
            node=await self._node_version(Path(node)) if node and "package.json" in files else "",
        )
        if node is None and (recipes.needs_node(argv) or (recipe is not None and recipe.needs_install)):
            raise LaunchError("This Actor needs Node.js, and there is no node in Greenroom's PATH: install Node.js.")
        return recipe

    async def _node_version(self, node: Path) -> str:
        if node not in self._node_versions:
            process = await asyncio.create_subprocess_exec(
                node, "--version", stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await process.communicate()
            self._node_versions[node] = f"{output.decode().strip()} {platform.machine()}"
        return self._node_versions[node]

    async def _node_modules(self, recipe: NodeRecipe, source: Path, job: _Job) -> bool:
        """Install and link ``node_modules`` into the unpacked source; False where npm made none."""
        env = self._envs / recipe.key
        if not _is_complete(env):
            async with locked(self._envs / f"{recipe.key}.lock", _waits(job)) as lock:
                if not _is_complete(env):
                    await self._npm(recipe, source, env, job, lock)
        modules = env / _NODE_MODULES
        if not modules.is_dir():
            return False
        _link(source / _NODE_MODULES, modules)
        return True

    async def _npm(self, recipe: NodeRecipe, source: Path, env: Path, job: _Job, lock: int) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise LaunchError("This Actor has npm packages, and there is no npm in Greenroom's PATH: install npm.")
        await in_thread(_remove, env)
        await job.open_log()
        began = time.monotonic()
        command = "ci" if recipe.has_lock else "install"
        job.say(f"Installing npm packages (npm {command}).")
        await in_thread(_copy_for_npm, recipe, source, env)
        with _telling_where_the_log_is():
            environ = installer_environment(os.environ)
            await run_installer((npm, command, *_NPM), cwd=env, env=environ, say=job.say, lock=lock)
        (env / _COMPLETE).touch()
        job.say(f"The packages are ready after {time.monotonic() - began:.1f} s.")


class _SourceFolder(Mapping[str, bytes]):
    """The files of an unpacked source, without what was linked into it; each is read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: set[str] = set()
        for path, folders, names in os.walk(folder):
            if Path(path) == folder:
                folders[:] = [name for name in folders if name != _NODE_MODULES]
            prefix = Path(path).relative_to(folder)
            self._names.update((prefix / name).as_posix() for name in names)

    def __getitem__(self, name: str) -> bytes:
        if name not in self._names:
            raise KeyError(name)
        return (self._folder / name).read_bytes()

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _base_python() -> str:
    """The interpreter that Greenroom's own environment was made from: Actors must not see Greenroom's packages."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)  # what venv itself goes by


def _interpreter() -> str:
    return f"{sys.version} {_base_python()} {platform.machine()}"


def _executables(folders: list[Path]) -> dict[str, Path]:
    """Programs by name; those of earlier folders win."""
    return {
        path.name: path
        for folder in reversed(folders)
        if folder.is_dir()
        for path in folder.iterdir()
        if os.access(path, os.X_OK)
    }


def _is_complete(env: Path) -> bool:
    return (env / _COMPLETE).exists()


def _nothing() -> None:
    """Unpacking takes so little that nobody needs to hear who else does it."""


def _waits(job: _Job) -> Callable[[], None]:
    return lambda: job.say("Waiting for the same environment, which is being made already.")


@contextmanager
def _telling_where_the_log_is() -> Iterator[None]:
    try:
        yield
    except LaunchError as error:
        raise LaunchError(f"{error.message}\nThe whole output is in the build's log.") from error


def _remove(folder: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _copy_for_npm(recipe: NodeRecipe, source: Path, env: Path) -> None:
    if recipe.needs_source:
        shutil.copytree(source, env, ignore=shutil.ignore_patterns(_NODE_MODULES))
        return
    env.mkdir(parents=True)
    for name in recipe.files:
        shutil.copyfile(source / name, env / name)


def _link(link: Path, target: Path) -> None:
    """Let *link* point to *target* at each moment from here on; a folder of that name in the source gives way."""
    if link.is_symlink() and link.readlink() == target:
        return
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    fresh = link.with_name(f".{link.name}-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)
