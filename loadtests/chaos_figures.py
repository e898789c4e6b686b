"""The figures of a grown-up house that need no fault: what Redis and several processes cost."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from loadtests import wake
from loadtests.chaos_caller import Caller, closing
from loadtests.chaos_fleet import end_runs, greenroom, health, wait_until
from loadtests.chaos_probes import host_of
from loadtests.chaos_routes import add_routes
from loadtests.chaos_servers import Program, RedisServer, free_ports
from loadtests.compare_greenroom import STANDBY, make_actors, serving_greenroom
from loadtests.compare_samples import Bench
from loadtests.compare_targets import Cores, NotMeasured, Target, ask, children_of, cpu_secs, rss_mbytes, tail_of
from loadtests.compare_upstreams import SMALL, Programs
from loadtests.figures import Report, percentile
from loadtests.locust_setup import Site, push
from loadtests.server import TOKEN, Server, running

_READY_SECS = 60.0
_WARM = "warm"
_WARM_REQUESTS, _FEW_REQUESTS = 10_000, 500
_CALLERS = 8
_WAKES_IN_TURN = 5
_TOKEN_LINE = f"Authorization: Bearer {TOKEN}\r\n"


@dataclass
class House:
    """Gateways and an autoscaler on one data folder, with Redis between them; records in SQLite."""

    redis: RedisServer
    gateways: list[Server]
    programs: list[Program]
    autoscaler: Program

    @property
    def site(self) -> Site:
        """The house as callers of its first gateway know it."""
        return Site("127.0.0.1", self.gateways[0].port, "localhost", TOKEN, "local")

    def push(self, folders: Sequence[Path]) -> None:
        """They are Actors now."""
        for folder in folders:
            push(self.site, folder)


@contextlib.contextmanager
def housed(
    folder: Path, settings: Mapping[str, object], *, gateways: Sequence[int] = (1,), prefix: Sequence[str] = ()
) -> Iterator[House]:
    """A house with a gateway for each of *gateways*, of so many workers. Raises NotMeasured."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        redis = RedisServer(folder / "redis")
        stack.callback(redis.program.kill)
        redis.start()
        ports = free_ports(len(gateways) + 1)
        shared = {**settings, "public_port": ports[0]}
        autoscaler = greenroom(
            "autoscaler",
            folder,
            "autoscaler",
            signals=redis.url,
            settings=shared | {"port": ports[0], "autoscaler_port": ports[-1]},
        )
        made = [
            greenroom(
                "gateway",
                folder,
                f"gateway-{number}",
                signals=redis.url,
                settings=shared | {"port": ports[number], "workers": workers},
                prefix=prefix,
            )
            for number, workers in enumerate(gateways)
        ]
        # An autoscaler that is stopped leaves its runs alive, for the next one.
        stack.callback(end_runs, folder)
        for program in (autoscaler, *made):
            stack.callback(program.stop)
            program.start()
        for program, port in zip(made, ports, strict=False):
            _wait_until_ready(program, port)
        wait_until(lambda: _leads(ports[-1]), _READY_SECS, f"the autoscaler leads: {tail_of(autoscaler.log)}")
        yield House(
            redis,
            [
                Server(port, folder / "data", program.log, program.pid)
                for program, port in zip(made, ports, strict=False)
            ],
            made,
            autoscaler,
        )


def _leads(port: int) -> bool:
    told = health(port)[1]
    return isinstance(told, dict) and told.get("leading") is True


def _wait_until_ready(program: Program, port: int) -> None:
    deadline = time.monotonic() + _READY_SECS
    while health(port)[0] != 200:
        program.must_live(deadline)
        time.sleep(0.01)


def gateway_pids(pid: int) -> list[int]:
    """A gateway's parent, workers and holder of events sockets."""
    return [pid, *children_of(pid)]


def wait_until_warm(server: Server, name: str) -> None:
    """Until a run of the Actor answers. Raises NotMeasured."""
    deadline = time.monotonic() + _READY_SECS
    status = 0
    while status != 200:
        if time.monotonic() > deadline:
            raise NotMeasured(f"{name} answered {status}: {tail_of(server.log)}")
        with contextlib.suppress(OSError):
            status, _ = ask(server.port, host_of(name), timeout=30, lines=_TOKEN_LINE)


# --- CPU ------------------------------------------------------------------------------------------------------------


def add_cpu(report: Report, is_quick: bool) -> None:
    """A warm request: a gateway of one worker and one of two against ``greenroom serve``, in turn."""
    programs, cores = Programs.found(), Cores.of_this_machine()
    rounds = 9 if is_quick else 15
    with (
        tempfile.TemporaryDirectory(prefix="greenroom-chaos-", ignore_cleanup_errors=True) as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        folder.chmod(0o755)  # nginx' workers may be another user's
        bench = Bench(programs, folder)
        embedded, _ = stack.enter_context(serving_greenroom("splice", folder / "embedded", programs, cores))
        house = stack.enter_context(housed(folder / "house", {}, gateways=(1, 2), prefix=Cores.pinned(cores.proxy)))
        house.push(make_actors(folder / "house-actors", programs, cores))
        targets = [embedded]
        for title, server in zip(("one worker", "two workers"), house.gateways, strict=True):
            for actor in SMALL:
                wait_until_warm(server, actor)
            targets.append(_target(title, server))
        samples = [[bench.steady(target, 1.0).cpu_us for target in targets] for _ in range(rounds)]
    report.add("cpu_vs_embedded", median(one / serve for serve, one, _ in samples), "", 1.05)
    report.add(
        "requests_per_cpu_second_2_workers_vs_1", median(one / two for _, one, two in samples), "", 0.9, "at_least"
    )
    report.raw["cpu_us"] = [[round(value, 2) for value in sample] for sample in samples]


def _target(title: str, server: Server) -> Target:
    return Target(
        name=title,
        title=title,
        port=server.port,
        pids=lambda: gateway_pids(server.pid),
        serving=lambda: max(gateway_pids(server.pid), key=cpu_secs),
        tail=lambda: tail_of(server.log),
    )


# --- Commands in Redis ----------------------------------------------------------------------------------------------


def add_commands(report: Report, is_quick: bool) -> None:
    """Many warm requests over three gateways against few in as long a time: commands that grow with them."""
    with tempfile.TemporaryDirectory(prefix="greenroom-chaos-", ignore_cleanup_errors=True) as name:
        (actor,) = wake.make_actors(Path(name), 1, "counts", STANDBY)
        with housed(Path(name) / "house", {}, gateways=(1, 1, 1)) as house:
            house.push([actor])
            for server in house.gateways:
                wait_until_warm(server, actor.name)
            ports = [server.port for server in house.gateways]
            # Slots are borrowed by the first requests, and kept.
            requests_over(ports, actor.name, _FEW_REQUESTS, 1.0)
            began = time.monotonic()
            many = _commands_during(house.redis, lambda: requests_over(ports, actor.name, _WARM_REQUESTS, 0.0))
            took = time.monotonic() - began
            few = _commands_during(house.redis, lambda: requests_over(ports, actor.name, _FEW_REQUESTS, took))
    more = sum(many.values()) - sum(few.values())
    # A periodic report more or less falls into either time; one command for each request would be 1.
    report.add("redis_commands_per_warm_request", round(max(0, more) / (_WARM_REQUESTS - _FEW_REQUESTS), 2), "", 0)
    report.raw["redis_commands"] = {"many": many, "few": few, "secs": took}


def requests_over(ports: Sequence[int], actor: str, count: int, spread_secs: float) -> None:
    """*count* warm requests over all gateways, not faster than within *spread_secs*. Raises NotMeasured."""
    asyncio.run(_requests(ports, actor, count, spread_secs))


async def _requests(ports: Sequence[int], actor: str, count: int, spread_secs: float) -> None:
    left = iter(range(count))
    began = time.monotonic()

    async def some(port: int) -> None:
        caller = Caller(port)
        with closing(caller):
            for number in left:
                await asyncio.sleep(max(0.0, began + spread_secs * number / count - time.monotonic()))
                reply = await caller.ask("GET", "/", host=host_of(actor), within_secs=30)
                if reply.status != 200:
                    raise NotMeasured(f"a warm request failed: {reply.problem}")

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(_CALLERS):
                group.create_task(some(ports[number % len(ports)]))
    except* NotMeasured as errors:
        raise NotMeasured(str(errors.exceptions[0])) from errors
    await asyncio.sleep(max(0.0, began + spread_secs - time.monotonic()))


def _commands_during(redis: RedisServer, work: Callable[[], None]) -> dict[str, int]:
    before = redis.commands()
    work()
    after = redis.commands()
    return {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}


# --- Wakes ----------------------------------------------------------------------------------------------------------


def add_wakes(report: Report, is_quick: bool) -> None:
    """Sleeping Actors, called in one process and over Redis in turn."""
    rounds = 3 if is_quick else 8
    with (
        tempfile.TemporaryDirectory(prefix="greenroom-chaos-", ignore_cleanup_errors=True) as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        (folder / "actors").mkdir()
        actors = wake.make_actors(folder / "actors", wake.ACTORS)
        quiet = {"log_level": "warning"}
        embedded = stack.enter_context(running(actors, quiet))
        house = stack.enter_context(housed(folder / "house", quiet))
        house.push(actors)
        servers = (embedded, house.gateways[0])
        for server in servers:
            wake.measure(server, actors, len(actors))  # environments are made, files are in the cache
        took: tuple[list[float], list[float]] = ([], [])
        # A few here, a few there, so that whatever else the machine does is in both.
        turns = [actors[start : start + _WAKES_IN_TURN] for start in range(0, len(actors), _WAKES_IN_TURN)]
        for some in rounds * turns:
            for server, into in zip(servers, took, strict=True):
                wakes, _ = wake.measure(server, some, len(some))
                into += [one.sent_to_first_line + one.listen_to_first_byte for one in wakes]
    alone, over_redis = took
    # The bare spawn is in both, and goes out of the difference.
    report.add("wake_added_by_redis_p95_ms", percentile(over_redis, 0.95) - percentile(alone, 0.95), "ms", 10)
    report.add("wake_added_by_redis_p50_ms", percentile(over_redis, 0.5) - percentile(alone, 0.5), "ms")
    report.raw["wakes_ms"] = {"alone": [round(v, 2) for v in alone], "redis": [round(v, 2) for v in over_redis]}


# --- Routes ---------------------------------------------------------------------------------------------------------


def add_start(report: Report, is_quick: bool) -> None:
    """A gateway of an empty house, and one of a house with ten thousand more Actors that each have a run."""
    starts = 3 if is_quick else 5
    with tempfile.TemporaryDirectory(prefix="greenroom-chaos-", ignore_cleanup_errors=True) as name:
        (actor,) = wake.make_actors(Path(name), 1, "counts", STANDBY)
        with housed(Path(name) / "house", {}) as house:
            house.push([actor])
            (server,), (program,) = house.gateways, house.programs
            wait_until_warm(server, actor.name)
            # Live views take no slots, which a Redis so young would not grant to a gateway that starts again.
            run = house.site.call("GET", f"/acts/local~{actor.name}/runs/last")
            rest = _starts(program, server, run["containerUrl"].partition("//")[2].partition(":")[0], starts)
            house.autoscaler.stop()
            with add_routes(house.redis.url, server.data, actor.name) as last:
                full = _starts(program, server, last, starts)
    report.add("routes_10k_actors_s", full.secs - rest.secs, "s", 2)
    report.add("routes_10k_actors_mb", full.mbytes - rest.mbytes, "MiB", 100)
    report.add("gateway_start_s", rest.secs, "s")
    report.add("gateway_mb", rest.mbytes, "MiB")


@dataclass(frozen=True)
class Start:
    """Until a request to the last of its routes was answered, and MiB of its largest process then."""

    secs: float
    mbytes: float


def _starts(program: Program, server: Server, host: str, count: int) -> Start:
    """The medians of *count* starts."""
    took, mbytes = [], []
    for _ in range(count):
        program.stop()
        began = time.monotonic()
        program.start()
        _wait_until_ready(program, server.port)
        while not _answers(server, host):
            if time.monotonic() > began + _READY_SECS:
                raise NotMeasured(f"{host} is no route {_READY_SECS:g} s after the start")
        took.append(time.monotonic() - began)
        mbytes.append(max(rss_mbytes(pid) for pid in gateway_pids(program.pid)))
    return Start(median(took), median(mbytes))


def _answers(server: Server, host: str) -> bool:
    with contextlib.suppress(OSError):
        return ask(server.port, host, lines=_TOKEN_LINE)[0] == 200
    return False


MEASURES: dict[str, Callable[[Report, bool], None]] = {
    "redis_commands_per_warm_request": add_commands,
    "cpu_vs_embedded, requests_per_cpu_second_2_workers_vs_1": add_cpu,
    "wake_added_by_redis_p95_ms": add_wakes,
    "routes_10k_actors_s, routes_10k_actors_mb": add_start,
}
