"""A real ``greenroom serve`` (or ``gateway``) in a process of its own, and how the journeys talk to it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import websockets

from gateway.actor_files.snapshot import pack_folder

ACTORS = Path(__file__).parent.parent / "actors"
# Servers of tests that run side by side must not go for the same ports: a request of one would reach the other's run.
_PLACE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 5
PORT_RANGE = f"{21000 + 2000 * _PLACE}-{22999 + 2000 * _PLACE}"
TOKEN = "test-token-of-the-administrator-0123456789"


def actor_folder(
    parent: Path,
    name: str,
    standby: Mapping[str, Any] | None = None,
    *,
    main: str | None = None,
    **fields: Any,
) -> Path:
    """A folder with the probe Actor (or *main* as its program), named *name*, with these standby settings."""
    folder = parent / name
    shutil.copytree(ACTORS / "probe", folder)
    definition = json.loads((folder / ".actor" / "actor.json").read_text())
    definition["name"] = name
    if standby is not None:
        definition["actorStandby"] = dict(standby)
    definition.update(fields)
    (folder / ".actor" / "actor.json").write_text(json.dumps(definition))
    if main is not None:
        (folder / "main.py").write_text(main)
    return folder


async def eventually(check: Any, *, within_secs: float = 10.0, what: str = "the condition") -> Any:
    """The first true value of *check* (sync or async), asked until it is true. Fails after *within_secs*."""
    deadline = time.monotonic() + within_secs
    while True:
        value = check()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not become true within {within_secs} s"
        await asyncio.sleep(0.02)


def children_of(pid: int) -> list[int]:
    """The pids of the children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers_of(pid: int) -> list[int]:
    """The workers of ``greenroom serve``, which has other children too; more than one while it reloads."""
    return [child for child in children_of(pid) if "gateway.worker" in _words_of(child)]


def holders_of(pid: int) -> list[int]:
    """The holders of events sockets of ``greenroom serve``: one, or none for a moment after its death."""
    return [child for child in children_of(pid) if "gateway.event_holder" in _words_of(child)]


def _words_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:  # it has ended in this moment
        return []


@dataclass
class Greenroom:
    """
    One server on *data*; ``async with`` starts it, waits until it serves, and stops it.

    *verb* is what it is started as; *log_name* names its log, for several that share a folder.
    """

    data: Path
    actors: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    waits_for_builds: bool = True
    verb: str = "serve"
    log_name: str = "greenroom.log"
    process: subprocess.Popen[bytes] | None = None
    client: httpx.AsyncClient = field(init=False)

    async def __aenter__(self) -> Self:
        self.start()
        try:
            await self.wait_until_ready()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        if self.process is not None and self.process.poll() is None:
            await self.stop()

    def start(self) -> None:
        """Start the process; it writes its log beside the data folder."""
        settings = {
            "log_level": "info",
            "port_range": PORT_RANGE,
            "wind_down_grace_secs": 3,
            "readiness_timeout_secs": 20,
            "pick_timeout_secs": 20,
            **self.settings,
        }
        command = [sys.executable, "-m", "gateway.cli", self.verb, "--port", str(self.port), "--data", str(self.data)]
        for actor in self.actors:
            command += ["--actors", str(actor)]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("GREENROOM_", "ACTOR_", "APIFY_"))
        }
        environment |= {"GREENROOM_TOKEN": TOKEN, "GREENROOM_CONFIG": str(self.data.parent / "none.toml")}
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                [*command, *self.arguments],
                stdout=log,
                stderr=log,
                env=environment | self.environment,
                start_new_session=True,
            )

    @property
    def log_path(self) -> Path:
        return self.data.parent / self.log_name

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    async def wait_until_ready(self) -> None:
        """Until it says where it serves and ``/health/ready`` is 200."""

        def url() -> str | None:
            assert self.process is not None
            assert self.process.poll() is None, f"greenroom ended with {self.process.returncode}:\n{self.log}"
            since = self.log_path.read_bytes()[self._log_start :].decode(errors="replace")
            return next((line for line in since.splitlines(keepends=True) if re.match(r"API: .*\n", line)), None)

        line = await eventually(url, within_secs=30, what="greenroom's start")
        self.port = int(line.rpartition(":")[2].partition("/")[0])
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            timeout=60,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )
        ready = await self.client.get("/health/ready")
        assert ready.status_code == 200, ready.text
        if self.actors and self.waits_for_builds and self.settings.get("launcher", "process") != "process":
            await self.wait_until_built()

    async def wait_until_built(self, within_secs: float = 120) -> None:
        """Until no build is under way; all of the Actors that it was given have succeeded."""

        async def built() -> bool:
            builds = (await self.data_of("GET", "/actor-builds?limit=1000"))["items"]
            return all(build.get("finishedAt") for build in builds)

        await eventually(built, within_secs=within_secs, what="the end of all builds")
        tagged = [actor["id"] for actor in (await self.data_of("GET", "/actors?my=1&limit=1000"))["items"]]
        for actor_id in tagged:
            actor = await self.data_of("GET", f"/actors/{actor_id}")
            assert actor["taggedBuilds"], self.log

    _log_start: int = 0

    async def stop(self, *, signals: int = 1, within_secs: float = 60) -> int:
        """SIGTERM (so many times) and wait; the exit code."""
        assert self.process is not None
        for _ in range(signals):
            self.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self.process.wait, within_secs)
        return self.process.returncode

    async def kill(self) -> None:
        """``kill -9``, as a power cut for the process."""
        assert self.process is not None
        self.process.kill()
        await asyncio.to_thread(self.process.wait, 10)

    # -- talking to it ------------------------------------------------------------------------------------------

    def host(self, actor: str, user: str = "local") -> str:
        """The standby host of an Actor."""
        return f"{user}--{actor}.localhost:{self.port}"

    async def call(
        self,
        actor: str,
        path: str = "/",
        *,
        token: str | None = TOKEN,
        method: str = "GET",
        headers: Mapping[str, str] | list[tuple[str, str]] = (),
        user: str = "local",
        **options: Any,
    ) -> httpx.Response:
        """A request to a standby host."""
        sent = [("Host", self.host(actor, user)), *dict(headers).items()]
        if token is not None:
            sent.append(("Authorization", f"Bearer {token}"))
        return await self.client.request(method, path, headers=sent, **options)

    async def api(self, method: str, path: str, *, token: str | None = TOKEN, **options: Any) -> httpx.Response:
        """A call of the API, ``/v2`` put before."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.client.request(method, f"/v2{path}", headers=headers | options.pop("headers", {}), **options)

    async def at(
        self,
        host: str,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> httpx.Response:
        """A request with exactly this ``Host``, and no token but what *headers* or *path* hold."""
        return await self.client.request(method, path, headers={"Host": host, **(headers or {})}, **options)

    async def raw(self, request: str) -> bytes:
        """All that is answered to the bytes of *request*, until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request.encode("latin-1"))
            return await asyncio.wait_for(reader.read(), 30)
        finally:
            writer.close()
            await writer.wait_closed()

    def websocket(self, actor: str, path: str = "/ws", *, token: str | None = TOKEN, **options: Any) -> Any:
        """``async with``: an open WebSocket to a standby host."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return websockets.connect(
            f"ws://{self.host(actor)}{path}",
            host="127.0.0.1",
            port=self.port,
            additional_headers=headers | options.pop("headers", {}),
            proxy=None,
            **options,
        )

    async def push(self, folder: Path, *, token: str = TOKEN) -> dict[str, Any]:
        """A folder becomes an Actor of the token's user, or a new build of it; the Actor."""
        archive = await asyncio.to_thread(pack_folder, folder)
        pushed = await self.data_of(
            "POST",
            "/greenroom/push",
            token=token,
            content=archive.archive,
            headers={"Content-Type": "application/gzip"},
        )
        build = pushed["build"]
        while not build.get("finishedAt"):  # with containers, which are built of images
            build = await self.data_of("GET", f"/actor-builds/{build['id']}?waitForFinish=60", token=token)
        assert build["status"] == "SUCCEEDED", build
        return dict(pushed["actor"])

    async def probe(
        self,
        name: str,
        standby: Mapping[str, Any] | None = None,
        *,
        token: str = TOKEN,
        main: str | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """The probe Actor, named *name* and with these settings, is pushed from a new folder; the Actor."""
        parent = Path(tempfile.mkdtemp(dir=self.data.parent))
        return await self.push(actor_folder(parent, name, standby, main=main, **fields), token=token)

    async def metric(self, name: str) -> float:
        """The value of one series."""
        text = (await self.client.get("/metrics")).text
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])

    async def data_of(self, method: str, path: str, **options: Any) -> Any:
        """The ``data`` of a successful API call."""
        answer = await self.api(method, path, **options)
        assert answer.status_code < 300, answer.text
        return answer.json()["data"]

    async def runs(self, **options: Any) -> list[dict[str, Any]]:
        """All runs that the token may see, oldest first."""
        return list((await self.data_of("GET", "/actor-runs?limit=1000", **options))["items"])

    async def runs_of(self, actor: Mapping[str, Any], **options: Any) -> list[dict[str, Any]]:
        """The runs of an Actor, those of the token's user, oldest first."""
        return list((await self.data_of("GET", f"/actors/{actor['id']}/runs?limit=1000", **options))["items"])

    async def run(self, run_id: str, **options: Any) -> dict[str, Any]:
        """A run's record."""
        return dict(await self.data_of("GET", f"/actor-runs/{run_id}", **options))

    async def ended(self, run_id: str, within_secs: float = 20, **options: Any) -> dict[str, Any]:
        """A run's record, once it has ended."""

        async def look() -> dict[str, Any] | None:
            run = await self.run(run_id, **options)
            return run if run.get("finishedAt") else None

        return dict(await eventually(look, within_secs=within_secs, what=f"the end of run {run_id}"))

    async def serving(self, actor: Mapping[str, Any], count: int, within_secs: float = 20, **options: Any) -> list[str]:
        """The ids of an Actor's runs, once exactly *count* of them live and all of those serve."""

        async def look() -> list[str] | None:
            runs = [await self.run(run["id"], **options) for run in await self.runs_of(actor, **options)]
            live = [run for run in runs if not run.get("finishedAt")]
            serves = len(live) == count and all(run["isContainerServerReady"] for run in live)
            return [run["id"] for run in live] if serves else None

        return list(await eventually(look, within_secs=within_secs, what=f"{count} serving runs"))

    async def wait_until_no_run_lives(self, within_secs: float = 20) -> list[dict[str, Any]]:
        """All runs, once every one of them has ended."""

        async def ended() -> list[dict[str, Any]] | None:
            runs = await self.runs()
            return runs if all(run.get("finishedAt") for run in runs) else None

        return list(await eventually(ended, within_secs=within_secs, what="the end of all runs"))

    async def log_of(self, run_id: str) -> str:
        """The log of a run."""
        return (await self.api("GET", f"/logs/{run_id}")).text

    async def user(self, name: str, *scopes: str) -> str:
        """A new user by the command line; his token."""
        await self.command("user", "add", name)
        extra = [word for scope in scopes for word in ("--scope", scope)]
        return (await self.command("token", "create", "--user", name, *extra)).strip()

    async def command(self, *words: str, expect: int = 0) -> str:
        """Run ``greenroom WORDS`` on the same data folder; its standard output."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.cli",
            *words,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ
            | {
                "GREENROOM_DATA": str(self.data),
                "GREENROOM_PORT": str(self.port),
                "GREENROOM_TOKEN": TOKEN,
                "GREENROOM_CONFIG": str(self.data.parent / "none.toml"),
            },
        )
        out, err = await process.communicate()
        assert process.returncode == expect, f"greenroom {' '.join(words)}: {err.decode()}"
        return out.decode()


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and error type of a refusal."""
    return answer.status_code, answer.json()["error"]["type"]


async def refused_start(data: Path, *arguments: str) -> tuple[int, str]:
    """``greenroom serve`` that is expected to end by itself: its exit code and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway.cli",
        "serve",
        "--data",
        str(data),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"GREENROOM_TOKEN": TOKEN, "GREENROOM_CONFIG": os.devnull},
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode()
