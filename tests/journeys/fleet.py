"""A Greenroom of several processes on one machine: gateways, autoscalers, and a Redis of their own between them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
from journeys.greenroom import PORT_RANGE, TOKEN, Greenroom, eventually
from redis_server import RedisServer

from autoscaler.launchers.process_table import started_at
from autoscaler.launchers.run_folders import RunFolders, read_record

SETTINGS: Mapping[str, Any] = {
    "log_level": "info",
    "port_range": PORT_RANGE,
    "wind_down_grace_secs": 3,
    "readiness_timeout_secs": 20,
    "pick_timeout_secs": 20,
}


@dataclass
class AutoscalerProcess:
    """One ``greenroom autoscaler``, whose runs reach the API at *port*."""

    data: Path
    port: int
    name: str
    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    client: httpx.AsyncClient | None = None

    @property
    def log_path(self) -> Path:
        return self.data.parent / f"{self.name}.log"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    async def start(self) -> Self:
        """Returns when it says where it answers; it may not lead yet."""
        since = self._spawn()

        def told() -> str | None:
            assert self.process is not None
            assert self.process.poll() is None, f"the autoscaler ended with {self.process.returncode}:\n{self.log}"
            found = re.search(rb"health: (http://\S+)/health/ready\n", self.log_path.read_bytes()[since:])
            return found[1].decode() if found else None

        url = await eventually(told, within_secs=30, what="the autoscaler's start")
        self.client = httpx.AsyncClient(base_url=url, timeout=10, trust_env=False)
        return self

    def _spawn(self) -> int:
        """Start the process; where its log begins."""
        command = [sys.executable, "-m", "gateway.cli", "autoscaler"]
        command += ["--port", str(self.port), "--data", str(self.data)]
        for name, value in {**SETTINGS, "autoscaler_port": 0, **self.settings}.items():
            command += ["--set", f"{name}={value}"]
        with self.log_path.open("ab") as log:
            since = log.tell()
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=clean_environment() | self.environment, start_new_session=True
            )
        return since

    async def health(self) -> dict[str, Any]:
        """What it says of itself; nothing where it doesn't answer."""
        assert self.client is not None
        try:
            return dict((await self.client.get("/health/ready")).json())
        except httpx.HTTPError:
            return {}

    async def leads(self) -> bool:
        """Whether it says that it does."""
        return bool((await self.health()).get("leading"))

    def send(self, number: signal.Signals) -> None:
        """A signal to its one process."""
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        """``kill -9``."""
        self.send(signal.SIGKILL)
        await self._has_ended()

    async def stop(self) -> int:
        """SIGTERM, and wait; the exit code."""
        self.send(signal.SIGTERM)
        return await self._has_ended()

    async def _has_ended(self) -> int:
        assert self.process is not None
        code = await asyncio.to_thread(self.process.wait, 30)
        if self.client is not None:
            await self.client.aclose()
            self.client = None
        return code


@dataclass
class Fleet:
    """
    ``async with`` starts two gateways (the first with *actors*) and two autoscalers; in the end all have ended, and
    with them every run. They share a data folder; with *is_apart* each gateway has one of its own, as on a machine of
    its own. *variables* are further ones of all of them.
    """

    folder: Path
    redis: RedisServer
    actors: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    is_apart: bool = False
    gateways_wanted: int = 2
    autoscalers_wanted: int = 2
    gateways: list[Greenroom] = field(default_factory=list)
    autoscalers: list[AutoscalerProcess] = field(default_factory=list)

    @property
    def data(self) -> Path:
        """The folder that they share, or the autoscalers alone."""
        return self.folder / "data"

    @property
    def environment(self) -> dict[str, str]:
        """What they have in common, with passwords that belong into no command line."""
        return {
            "GREENROOM_SIGNALS_URL": self.redis.url(),
            "GREENROOM_TOKEN": TOKEN,
            "GREENROOM_CONFIG": str(self.folder / "none.toml"),
            **self.variables,
        }

    async def __aenter__(self) -> Self:
        try:
            for _ in range(self.gateways_wanted):
                await self.add_gateway()
            for _ in range(self.autoscalers_wanted):
                await self.add_autoscaler()
            if self.autoscalers_wanted:
                await self.leader()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def add_gateway(self, *arguments: str) -> Greenroom:
        """One more gateway, once it serves."""
        number = len(self.gateways) + 1
        gateway = Greenroom(
            self.folder / f"data-of-gateway{number}" if self.is_apart else self.data,
            self.actors if number == 1 else (),
            self.settings,
            arguments,
            self.environment,
            verb="gateway",
            log_name=f"gateway{number}.log",
        )
        await gateway.__aenter__()
        self.gateways.append(gateway)
        return gateway

    async def add_autoscaler(self) -> AutoscalerProcess:
        """One more autoscaler, once it answers."""
        name = f"autoscaler{len(self.autoscalers) + 1}"
        autoscaler = AutoscalerProcess(self.data, self.gateways[0].port, name, self.settings, self.environment)
        self.autoscalers.append(autoscaler)
        return await autoscaler.start()

    async def leader(self, within_secs: float = 10) -> AutoscalerProcess:
        """The autoscaler that leads, as soon as one does."""

        async def look() -> AutoscalerProcess | None:
            for one in self.autoscalers:
                if one.client is not None and await one.leads():
                    return one
            return None

        found = await eventually(look, within_secs=within_secs, what="a leader")
        assert isinstance(found, AutoscalerProcess)
        return found

    async def _end(self) -> None:
        for autoscaler in self.autoscalers:
            if autoscaler.process is not None and autoscaler.process.poll() is None:
                autoscaler.send(signal.SIGCONT)
                await autoscaler.stop()
        for gateway in self.gateways:
            await gateway.__aexit__()
        await asyncio.to_thread(end_all_runs, self.data)


def end_all_runs(data: Path) -> int:
    """
    What autoscalers have let go of lives on: tell the guard of each run of the process launcher to end it. How many
    there were.
    """
    folders = RunFolders(data / "process")
    records = [record for run_id in folders.all() if (record := read_record(folders.of(run_id))) is not None]
    living = [record for record in records if started_at(record["shim_pid"]) == record["shim_started"]]
    for record in living:
        with contextlib.suppress(ProcessLookupError):
            os.kill(record["shim_pid"], signal.SIGQUIT)
    deadline = time.monotonic() + 10
    while any(started_at(record["shim_pid"]) == record["shim_started"] for record in living):
        assert time.monotonic() < deadline, "runs outlive the test"
        time.sleep(0.02)
    return len(living)


def clean_environment() -> dict[str, str]:
    """This process's, without what would speak to Greenroom or to Actors."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("GREENROOM_", "ACTOR_", "APIFY_"))
    }


@dataclass
class Prober:
    """What became of requests that were made all the time: how many, those that failed, and the longest."""

    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    longest_secs: float = 0.0


@asynccontextmanager
async def probing(*gateways: Greenroom, actor: str) -> AsyncIterator[Prober]:
    """While it is entered, one warm request after the other goes to each of *gateways*; each has answered some."""
    prober = Prober()
    stops = asyncio.Event()
    answered: Counter[int] = Counter()

    async def probe(gateway: Greenroom) -> None:
        while not stops.is_set():
            began = time.monotonic()
            try:
                answer = await gateway.call(actor)
            except httpx.HTTPError as error:
                prober.failures.append(repr(error))
            else:
                if answer.status_code == 200:
                    prober.answers.append(answer.text)
                    answered[gateway.port] += 1
                else:
                    prober.failures.append(answer.text)
            prober.longest_secs = max(prober.longest_secs, time.monotonic() - began)
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        for gateway in gateways:
            group.create_task(probe(gateway))
        try:
            await eventually(lambda: all(answered[gateway.port] > 5 for gateway in gateways), what="warm answers")
            yield prober
        finally:
            stops.set()
