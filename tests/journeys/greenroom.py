"""A real ``greenroom serve`` in a process of its own, and how the journeys talk to it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ACTORS = Path(__file__).parent.parent / "actors"
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


@dataclass
class Greenroom:
    """One server on *data*; ``async with`` starts it, waits until it serves, and stops it."""

    data: Path
    actors: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    client: httpx.AsyncClient = field(init=False)

    async def __aenter__(self) -> Greenroom:
        self.start()
        await self.wait_until_ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        if self.process is not None and self.process.poll() is None:
            await self.stop()

    def start(self) -> None:
        """Start the process; it writes its log to ``<data>/../greenroom.log``."""
        settings = {
            "log_level": "info",
            "wind_down_grace_secs": 3,
            "readiness_timeout_secs": 20,
            "pick_timeout_secs": 20,
            **self.settings,
        }
        command = [sys.executable, "-m", "gateway.cli", "serve", "--port", str(self.port), "--data", str(self.data)]
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
        return self.data.parent / "greenroom.log"

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

    async def data_of(self, method: str, path: str, **options: Any) -> Any:
        """The ``data`` of a successful API call."""
        answer = await self.api(method, path, **options)
        assert answer.status_code < 300, answer.text
        return answer.json()["data"]

    async def runs(self, **options: Any) -> list[dict[str, Any]]:
        """All runs that the token may see, oldest first."""
        return list((await self.data_of("GET", "/actor-runs?limit=1000", **options))["items"])

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
