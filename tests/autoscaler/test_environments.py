"""Environments of builds, with real interpreters, pip and npm; nothing is fetched from a network."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autoscaler.launchers.environments import Environments, Prepared
from autoscaler.launchers.installing import installer_environment
from gateway.actor_files.definition import parse_definition
from gateway.actor_files.snapshot import open_archive, pack_source_files
from gateway.core.errors import LaunchError
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build, Origin, snapshot_key
from gateway.live_logs import Logs
from gateway.state.blobs import open_blobs

NEEDS_NODE = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")


def wheel(name: str, code: str) -> bytes:
    """The smallest wheel that pip takes: one module."""
    buffer = io.BytesIO()
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return buffer.getvalue()


PROBE = "libs/probe-1.0-py3-none-any.whl"
WITH_PROBE = {
    "requirements.txt": f"--no-index\n./{PROBE}\n",
    PROBE: wheel("probe", "SAYS = 'installed'"),
    "src/__main__.py": "import probe; print(probe.SAYS)",
}


class Bench:
    """Blobs, logs and builds in one folder; ``environments`` opens anew at each call, as after a restart."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "process"
        self.blobs = open_blobs(folder / "blobs")
        self.logs = Logs(folder, self.blobs)

    def environments(self) -> Environments:
        return Environments(self.root, self.blobs, self.logs)

    async def build(self, files: dict[str, str | bytes], build_id: str = "b" * 17) -> Build:
        definition = {"actorSpecification": 1, "name": "hello", "version": "0.1"}
        given = {".actor/actor.json": json.dumps(definition), **files}
        snapshot = pack_source_files(
            [
                {
                    "name": name,
                    "format": "BASE64",
                    "content": base64.b64encode(content if isinstance(content, bytes) else content.encode()).decode(),
                }
                for name, content in given.items()
            ]
        )
        await self.blobs.put(snapshot_key(snapshot.sha256), snapshot.archive)
        with open_archive(snapshot.archive) as opened:
            resolved = parse_definition(opened).resolved
        return Build(
            id=build_id,
            actor_id="a" * 17,
            user_id="u" * 17,
            version_number="0.1",
            build_number="0.1.1",
            status=RunStatus.SUCCEEDED,
            started_at=datetime(2026, 1, 2, tzinfo=UTC),
            origin=Origin.CLI,
            snapshot=snapshot.sha256,
            definition=resolved,
        )

    async def log(self, build: Build) -> str:
        return b"".join([chunk async for chunk in self.logs.read(build.id)]).decode()

    def complete(self) -> list[Path]:
        return sorted(self.root.glob("envs/*/.complete"))


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
async def environments(bench) -> AsyncIterator[Environments]:
    async with bench.environments() as environments:
        yield environments


async def output(prepared: Prepared) -> str:
    """What the Actor prints when it is started as the launcher would."""
    path = ":".join([*map(str, prepared.path_dirs), os.environ["PATH"]])
    process = await asyncio.create_subprocess_exec(
        *prepared.argv,
        cwd=prepared.cwd,
        env={**prepared.extra_env, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    text, _ = await process.communicate()
    return text.decode().strip()


def silent(line: str) -> None:
    """Nobody listens."""


async def test_without_requirements_the_actor_sees_the_standard_library_only(bench, environments):
    """Its interpreter is an environment of its own: nothing of Greenroom's packages, no pip; cwd is the source."""
    code = """
        import importlib.util, os, sys
        found = [name for name in ("starlette", "gateway", "pip") if importlib.util.find_spec(name)]
        print(sys.prefix, found, sorted(os.listdir()))
    """
    build = await bench.build({"src/__main__.py": textwrap.dedent(code)})
    lines: list[str] = []
    prepared = await environments.prepare(build, lines.append)
    env = bench.complete()[0].parent
    assert prepared == Prepared(
        cwd=bench.root / "sources" / build.snapshot,
        argv=(str(env / "bin" / "python3"), "-m", "src"),
        path_dirs=(env / "bin",),
        extra_env={"VIRTUAL_ENV": str(env)},
    )
    assert await output(prepared) == f"{env} [] ['.actor', 'src']"
    assert "Making a Python" in lines[0]
    log = await bench.log(build)
    assert all(line in log for line in lines)
    assert not bench.logs.path(build.id).exists()


async def test_what_is_prepared_is_known_and_outlives_a_restart(bench):
    """``ready`` answers from memory; after a restart ``prepare`` makes nothing again; other builds share it."""
    build = await bench.build({"src/__main__.py": ""})
    async with bench.environments() as environments:
        assert environments.ready(build) is None
        prepared = await environments.prepare(build, silent)
        assert environments.ready(build) is prepared
    lines: list[str] = []
    async with bench.environments() as environments:
        assert await environments.prepare(build, lines.append) == prepared
        other = await bench.build({"src/__main__.py": "1"}, build_id="c" * 17)
        assert (await environments.prepare(other, lines.append)).argv == prepared.argv
    assert lines == []


async def test_what_somebody_deleted_is_made_again(bench, environments):
    """An emptied cache is no error."""
    build = await bench.build({"src/__main__.py": "print('here')"})
    await environments.prepare(build, silent)
    shutil.rmtree(bench.root / "sources")
    (bench.root / "sources").mkdir()
    assert environments.ready(build) is None
    assert await output(await environments.prepare(build, silent)) == "here"


async def test_requirements_are_installed(bench, environments):
    """pip installs into the build's environment, and its output is heard, and kept in the log that was there."""
    build = await bench.build(WITH_PROBE)
    bench.logs.append(build.id, "Build 0.1.1 succeeded.")
    await bench.logs.keep(build.id)
    lines: list[str] = []
    prepared = await environments.prepare(build, lines.append)
    assert await output(prepared) == "installed"
    assert any("Successfully installed probe-1.0" in line for line in lines)
    log = await bench.log(build)
    assert log.index("Build 0.1.1 succeeded.") < log.index("Successfully installed probe-1.0")


@pytest.mark.slow
async def test_a_failing_install_is_told_and_tried_again(bench, environments):
    """The error has the last lines and where the rest is; what was half made is never used."""
    build = await bench.build({"requirements.txt": "--no-index\nno-such-package-here\n", "src/__main__.py": ""})
    for _ in range(2):
        with pytest.raises(LaunchError) as caught:
            await environments.prepare(build, silent)
        assert "No matching distribution found for no-such-package-here" in caught.value.message
        assert "build's log" in caught.value.message
        assert environments.ready(build) is None
        assert bench.complete() == []
    assert (await bench.log(build)).count("Making a Python") == 2


async def test_simultaneous_calls_join(bench, environments):
    """Of many callers one begins the work and all hear it, the late ones from its beginning."""
    build = await bench.build({"src/__main__.py": ""})
    heard: list[list[str]] = [[] for _ in range(4)]
    results = await asyncio.gather(*(environments.prepare(build, lines.append) for lines in heard))
    assert all(result is results[0] for result in results)
    assert all(lines == heard[0] for lines in heard)
    assert sum("Making a Python" in line for line in heard[0]) == 1


async def test_two_builds_of_one_environment_make_it_once(bench):
    """Also where two processes have the same data folder: the second waits for the first."""
    builds = [await bench.build({"src/__main__.py": f"print({n})"}, build_id=f"{n}" * 17) for n in range(2)]
    lines: list[str] = []
    async with bench.environments() as one, bench.environments() as other:
        prepared = await asyncio.gather(one.prepare(builds[0], lines.append), other.prepare(builds[1], lines.append))
    assert [await output(each) for each in prepared] == ["0", "1"]
    assert sum("Making a Python" in line for line in lines) == 1


async def test_the_work_goes_on_when_its_caller_leaves(bench, environments):
    """A caller who is cancelled takes nothing from those who wait with him."""
    build = await bench.build({"src/__main__.py": ""})
    begun = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(environments.prepare(build, lambda line: begun.set()))
        await begun.wait()
        second = group.create_task(environments.prepare(build, silent))
        first.cancel()
    assert first.cancelled()
    assert environments.ready(build) is second.result()
    assert (await bench.log(build)).count("Making a Python") == 1


async def test_stopping_in_the_middle_ends_the_installer(bench):
    """Leaving the context kills what runs, tells those who wait, and leaves nothing that counts as whole."""
    build = await bench.build(WITH_PROBE)
    begun = asyncio.Event()
    async with asyncio.TaskGroup() as group, bench.environments() as environments:
        waiting = group.create_task(_error_of(environments, build, lambda line: begun.set()))
        await begun.wait()
    assert "Greenroom stopped" in str(waiting.result())
    assert bench.complete() == []
    with pytest.raises(LaunchError, match="is stopping"):
        await environments.prepare(build, silent)
    async with bench.environments() as environments:
        assert await output(await environments.prepare(build, silent)) == "installed"


async def _error_of(environments: Environments, build: Build, progress) -> LaunchError:
    with pytest.raises(LaunchError) as caught:
        await environments.prepare(build, progress)
    return caught.value


async def test_an_error_of_the_body_leaves_as_it_is(bench):
    """The context wraps nobody's exception into a group."""
    with pytest.raises(KeyError):
        async with bench.environments():
            raise KeyError("x")


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path[:0] = [{repo!r}]
from tests.autoscaler.test_environments import Bench, WITH_PROBE

def die(line):
    if "Processing" in line:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    bench = Bench(Path({folder!r}))
    async with bench.environments() as environments:
        await environments.prepare(await bench.build(WITH_PROBE), die)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_kill_in_the_middle_leaves_no_half_environment(bench, tmp_path):
    """After SIGKILL while pip works, the next process makes the environment anew, and it is whole."""
    repo = str(Path(__file__).parents[2])
    script = KILLED.format(repo=repo, folder=str(tmp_path))
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await process.wait() == -signal.SIGKILL
    assert [path for path in bench.root.glob("envs/*") if path.is_dir()]
    assert bench.complete() == []
    build = await bench.build(WITH_PROBE)
    async with bench.environments() as environments:
        assert await output(await environments.prepare(build, silent)) == "installed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param("no blob", "not in the blobs", id="source lost"),
        pytest.param("no command", "nothing says how", id="nothing to start"),
        pytest.param("broken blob", "not a whole gzipped tar", id="broken source"),
    ],
)
async def test_builds_that_cannot_be_prepared(bench, environments, change, message):
    """Every reason reaches the caller as LaunchError, in words."""
    build = await bench.build({"x.txt": ""} if change == "no command" else {"src/__main__.py": ""})
    if change == "no blob":
        await bench.blobs.delete(snapshot_key(build.snapshot))
    if change == "broken blob":
        await bench.blobs.put(snapshot_key(build.snapshot), b"broken")
    with pytest.raises(LaunchError, match=message):
        await environments.prepare(build, silent)
    assert environments.ready(build) is None


async def test_without_node_the_reason_is_told(bench, environments, monkeypatch, tmp_path):
    """An Actor for Node.js on a machine without it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    build = await bench.build({"package.json": '{"scripts": {"start": "node main.js"}}'})
    with pytest.raises(LaunchError, match=r"needs Node\.js"):
        await environments.prepare(build, silent)


@NEEDS_NODE
async def test_node_without_packages_needs_no_npm(bench, environments):
    """Nothing to install, nothing done."""
    build = await bench.build({"package.json": "{}", "Dockerfile": 'FROM x\nCMD ["node", "main.js"]', "main.js": ""})
    lines: list[str] = []
    prepared = await environments.prepare(build, lines.append)
    assert (prepared.argv, prepared.path_dirs, lines) == (("node", "main.js"), (), [])


TINY = {
    "package.json": '{"name": "app", "version": "1.0.0", "dependencies": {"tiny": "file:./tiny"}}',
    "tiny/package.json": '{"name": "tiny", "version": "1.0.0", "bin": {"tiny-tool": "tool.js"}}',
    "tiny/index.js": "module.exports = 'installed';",
    "tiny/tool.js": "#!/usr/bin/env node\nconsole.log(require('tiny'));\n",
    "main.js": "console.log(require('tiny'));",
    "Dockerfile": 'FROM x\nCMD ["/usr/local/bin/node", "main.js"]',
}
TINY_LOCK = """{"name": "app", "version": "1.0.0", "lockfileVersion": 3, "requires": true, "packages": {
    "": {"name": "app", "version": "1.0.0", "dependencies": {"tiny": "file:./tiny"}},
    "node_modules/tiny": {"resolved": "tiny", "link": true},
    "tiny": {"version": "1.0.0", "bin": {"tiny-tool": "tool.js"}}}}"""


@pytest.mark.slow
@NEEDS_NODE
@pytest.mark.parametrize("lock", [None, TINY_LOCK], ids=["npm install", "npm ci"])
async def test_npm_packages_are_installed(bench, environments, lock):
    """``npm ci`` with a lock file, else ``npm install``; programs of packages are in the PATH."""
    files = {**TINY, "package-lock.json": lock} if lock else TINY
    build = await bench.build(files)
    lines: list[str] = []
    prepared = await environments.prepare(build, lines.append)
    assert f"npm {'ci' if lock else 'install'}" in lines[0]
    assert prepared.path_dirs == (prepared.cwd / "node_modules" / ".bin",)
    assert await output(prepared) == "installed"
    assert (prepared.path_dirs[0] / "tiny-tool").exists()
    assert "The packages are ready" in await bench.log(build)
    async with bench.environments() as restarted:
        again: list[str] = []
        assert await restarted.prepare(build, again.append) == prepared
        assert again == []


@pytest.mark.slow
@NEEDS_NODE
async def test_a_failing_npm_is_told(bench, environments):
    """With its last lines; and nothing of it counts as whole."""
    build = await bench.build({**TINY, "package-lock.json": "{}"})
    with pytest.raises(LaunchError, match=r"npm ci .*failed with exit code"):
        await environments.prepare(build, silent)
    assert bench.complete() == []


def test_what_installers_see_of_the_servers_environment():
    """Settings, proxies and certificates; no secret of Greenroom's, and nothing that leads pip elsewhere."""
    passed = {
        "PATH": "/bin",
        "HOME": "/h",
        "PIP_INDEX_URL": "https://x",
        "npm_config_registry": "https://x",
        "https_proxy": "http://p",
        "NO_PROXY": "localhost",
        "SSL_CERT_FILE": "/ca",
    }
    withheld = {"GREENROOM_TOKEN": "t", "AWS_SECRET_ACCESS_KEY": "k", "PIP_TARGET": "/t", "PYTHONPATH": "/p"}
    assert installer_environment({**passed, **withheld}) == passed
