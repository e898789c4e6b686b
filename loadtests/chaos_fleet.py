"""
The house of a chaos test: three gateways behind HAProxy, two autoscalers, Redis and PostgreSQL, each its own process.

All are on this machine and share one data folder, for blobs and for the runs of the process launcher; a wire lies
between each of Greenroom's processes and each of its stores.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.chaos_plan import AUTOSCALERS, GATEWAYS
from loadtests.chaos_probes import FRESH, LIMIT, WAKES, WARM
from loadtests.chaos_servers import (
    Balancer,
    PostgresServer,
    Program,
    RedisServer,
    free_ports,
    postgres_url,
    redis_url,
)
from loadtests.chaos_wire import Wires, wired
from loadtests.compare_targets import NotMeasured, tail_of
from loadtests.locust_setup import SetupFailed, Site, push_copy
from loadtests.server import TOKEN

_READY_SECS = 60.0
_HEALTH_SECS = 2.0
ONE_AT_A_TIME = {"desiredRequestsPerActorRun": 1, "maxRequestsPerActorRun": 1, "maxRuns": 3, "minRuns": 3}
SLEEPS_SOON = {"idleTimeoutSecs": 1}


def health(port: int, path: str = "/health/ready") -> tuple[int, Any]:
    """Status and JSON of a health page; status 0 where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_HEALTH_SECS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()
    try:
        return answer.status, json.loads(body)
    except ValueError:
        return answer.status, None


def wait_until(check: Any, within_secs: float, what: str, pause_secs: float = 0.05) -> Any:
    """The first true value of *check*. Raises NotMeasured after *within_secs*."""
    deadline = time.monotonic() + within_secs
    while not (value := check()):
        if time.monotonic() > deadline:
            raise NotMeasured(f"{what}: not within {within_secs:g} s")
        time.sleep(pause_secs)
    return value


def greenroom(
    verb: str,
    folder: Path,
    name: str,
    *,
    signals: str,
    records: str | None = None,
    settings: Mapping[str, object],
    prefix: Sequence[str] = (),
) -> Program:
    """
    A process of Greenroom on the data folder ``<folder>/data``, in which without *records* its SQLite lies too.

    Addresses with passwords go by its environment. *prefix* stands before the command (``taskset -c 0``).
    """
    command = [*prefix, sys.executable, "-m", "gateway.cli", verb, "--data", str(folder / "data")]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    environment = {
        "GREENROOM_TOKEN": TOKEN,
        "GREENROOM_CONFIG": str(folder / "none.toml"),
        "GREENROOM_SIGNALS_URL": signals,
    }
    if records is not None:
        environment["GREENROOM_RECORDS_URL"] = records
    return Program(name, command, folder / f"{name}.log", environment=environment)


@dataclass
class Fleet:
    """All of it. Processes are known by the names of the plan."""

    folder: Path
    redis: RedisServer
    postgres: PostgresServer
    balancer: Balancer
    wires: Wires
    programs: dict[str, Program]
    ports: dict[str, int]
    began: float = field(default_factory=time.monotonic)

    def start(self, name: str) -> None:
        """One process of Greenroom; it serves a moment later."""
        self.programs[name].start()

    def is_ready(self, name: str) -> bool:
        """Whether it says so itself."""
        return health(self.ports[name])[0] == 200

    def wait_until_ready(self, *names: str) -> None:
        """Raises NotMeasured with the last of what one said that is not."""
        for name in names:
            try:
                wait_until(lambda name=name: self.is_ready(name), _READY_SECS, f"{name} is ready")
            except NotMeasured as error:
                raise NotMeasured(f"{error}: {tail_of(self.programs[name].log)}") from error

    def leader(self) -> str | None:
        """The autoscaler that says that it leads; None while none does."""
        for name in AUTOSCALERS:
            _, told = health(self.ports[name])
            if isinstance(told, dict) and told.get("leading") is True:
                return name
        return None

    @property
    def site(self) -> Site:
        """The house as its callers know it."""
        return Site("127.0.0.1", self.balancer.port, "localhost", TOKEN, "local")

    def push_actors(self) -> None:
        """Those of the probers. Raises NotMeasured."""
        place = self.folder / "actors"
        place.mkdir()
        try:
            push_copy(self.site, place, "counts", WARM, {"minRuns": 1})
            push_copy(self.site, place, "counts", LIMIT, ONE_AT_A_TIME)
            for name in (*WAKES, FRESH):
                push_copy(self.site, place, "counts", name, SLEEPS_SOON)
        except SetupFailed as error:
            raise NotMeasured(str(error)) from error

    def runs(self) -> list[dict[str, Any]]:
        """All runs. Raises SetupFailed."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.site.call("GET", f"/actor-runs?limit=1000&offset={len(found)}")["items"]
            found += page
            if len(page) < 1000:
                return found


# A gateway that is ahead of all others, and an autoscaler that is behind.
CLOCKS_APART = {"gateway-1": "+60s", "autoscaler-1": "-60s"}


def at_another_time(offset: str) -> list[str]:
    """What stands before a command whose clock is to be off by *offset*, its monotonic one apart. NotMeasured."""
    found = shutil.which("faketime")
    if found is None:
        raise NotMeasured("clocks are set apart by faketime (Debian: apt-get install faketime)")
    return ["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", found, "-m", "-f", offset]


@contextlib.contextmanager
def housed(folder: Path, *, pick_timeout_secs: float, clocks: Mapping[str, str] | None = None) -> Iterator[Fleet]:
    """
    A whole house, once each of its processes is ready and somebody leads. Raises NotMeasured.

    *clocks* are those that are off, by how much.
    """
    folder.chmod(0o755)  # PostgreSQL is another user's
    with contextlib.ExitStack() as stack:
        redis, postgres = RedisServer(folder / "redis"), PostgresServer(folder / "postgres")
        stack.callback(redis.program.kill)
        stack.callback(postgres.program.kill)
        redis.start()
        postgres.start()
        names = (*GATEWAYS, *AUTOSCALERS)
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        links = {f"{name}:{store}" for name in names for store in ("redis", "records")}
        own = dict(zip(sorted(links), free_ports(len(links)), strict=True))
        target = {"redis": redis.port, "records": postgres.port}
        wires = stack.enter_context(wired({link: (own[link], target[link.partition(":")[2]]) for link in own}))
        balancer = Balancer(folder / "haproxy", {name: ports[name] for name in GATEWAYS})
        shared = {
            "log_level": "info",
            "public_port": balancer.port,
            "pick_timeout_secs": pick_timeout_secs,
            "wind_down_grace_secs": 1,
            "trusted_proxies": "127.0.0.1",
            "max_connections_per_address": 10_000,
        }
        programs = {}
        for name in names:
            is_gateway = name in GATEWAYS
            # An autoscaler's port is where runs reach the gateways.
            own_port = {"port": ports[name]} if is_gateway else {"port": balancer.port, "autoscaler_port": ports[name]}
            programs[name] = greenroom(
                "gateway" if is_gateway else "autoscaler",
                folder,
                name,
                signals=redis_url(own[f"{name}:redis"]),
                records=postgres_url(own[f"{name}:records"]),
                settings=shared | own_port,
                prefix=at_another_time(clocks[name]) if clocks and name in clocks else (),
            )
        fleet = Fleet(folder, redis, postgres, balancer, wires, programs, ports)
        stack.callback(end_runs, folder)
        for program in programs.values():
            stack.callback(program.kill)
        stack.callback(balancer.program.kill)
        for name in names:
            fleet.start(name)
        fleet.wait_until_ready(*GATEWAYS)
        wait_until(fleet.leader, _READY_SECS, "an autoscaler leads")
        balancer.start()
        yield fleet


def end_runs(folder: Path) -> None:
    """What the killed processes left: their runs live on, as they should, but not after the test."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            # Only what was started on the data folder of this very test: shims and Actors have it in their words.
            if str(folder) in " ".join(process.cmdline()) or process.cwd().startswith(str(folder)):
                process.kill()
