"""
What each thing costs, and whether costs add up: ``python -m loadtests.scaling [--quick] [--json FILE]``.

``deploy/SCALING.md`` reckons with straight lines: so much at rest, so much more for each request per second, each
Actor, each run, each gateway. Each line is drawn through a small size and a middle one, and then held to a third, four
times the middle one:

``requests``  cores of Greenroom at three rates of warm requests          (``cpu_us_per_request``)
``actors``    memory of the worker with so many Actors, each asked once   (``kb_per_actor``)
``runs``      memory and cores of Greenroom with so many runs that idle   (``kb_per_run``, ``cpu_ms_per_run``)
``gateways``  commands in Redis each second with so many idle gateways    (``redis_commands_per_gateway``)

``…_predicted_ratio`` is what the line says of the third size over what was measured there: above 1 the line asks for
more than is needed, below 1 it asks for too little, which 0.8 bounds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests import wake
from loadtests.chaos_figures import housed, requests_over, wait_until_warm
from loadtests.compare_greenroom import STANDBY, worker_of
from loadtests.compare_hosts import add_hosts, visit
from loadtests.compare_targets import NotMeasured, children_of, cpu_secs, rss_mbytes
from loadtests.figures import Report, arguments, finish
from loadtests.locust_metrics import read_series, total
from loadtests.peers.tools import NotInstalled
from loadtests.server import Server, running

_SETTLING_SECS = 3.0
_RUNS_READY_SECS = 120.0


@dataclass(frozen=True)
class Line:
    """``at_rest`` and so much more for each, through two points."""

    at_rest: float
    each: float

    @classmethod
    def through(cls, small: tuple[float, float], middle: tuple[float, float]) -> Line:
        """By (size, cost) twice; the sizes differ."""
        each = (middle[1] - small[1]) / (middle[0] - small[0])
        return cls(small[1] - each * small[0], each)

    def at(self, size: float) -> float:
        """What it says of a size."""
        return self.at_rest + self.each * size


def hold(report: Report, what: str, each: str, unit: str, factor: float, points: Sequence[tuple[float, float]]) -> None:
    """The cost of each (by *factor* in its *unit*), and the line against the largest of the three *points*."""
    small, middle, large = points
    line = Line.through(small, middle)
    report.add(each, line.each * factor, unit)
    report.add(f"{what}_predicted_ratio", line.at(large[0]) / large[1], "", 0.8, "at_least")
    report.raw[what] = {"points": [list(point) for point in points], "at_rest": line.at_rest, "each": line.each}


def greenroom_cpu_secs(server: Server) -> float:
    """Parent, worker and holder of events sockets; not shims and Actors."""
    return sum(cpu_secs(pid) for pid in (server.pid, *children_of(server.pid)))


def add_requests(report: Report, is_quick: bool) -> None:
    """Three rates, by callers of ours that are on time."""
    secs = 5.0 if is_quick else 20.0
    with tempfile.TemporaryDirectory(prefix="greenroom-scaling-", ignore_cleanup_errors=True) as name:
        (actor,) = wake.make_actors(Path(name), 1, "counts", STANDBY)
        with running([actor], {}) as server:
            wait_until_warm(server, actor.name)
            points = []
            for rate in (50, 200, 800):
                before, began = greenroom_cpu_secs(server), time.monotonic()
                requests_over([server.port], actor.name, round(rate * secs), secs)
                took = time.monotonic() - began
                points.append((rate * secs / took, (greenroom_cpu_secs(server) - before) / took))
    hold(report, "requests", "cpu_us_per_request", "us", 1e6, points)


def add_actors(report: Report, is_quick: bool) -> None:
    """Three houses, one after the other on the same records."""
    sizes = (500, 1000, 4000) if is_quick else (1000, 4000, 16_000)
    points: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="greenroom-scaling-", ignore_cleanup_errors=True) as name:
        (actor,) = wake.make_actors(Path(name), 1)
        data = Path(name) / "data"
        with running([actor], {}, data=data):
            pass
        for number, size in enumerate(sizes):
            folder = Path(name) / f"data-{number}"
            with running([actor], {}, data=folder):
                pass
            hosts = add_hosts(folder, size, actor.name)
            with running([actor], {}, data=folder) as server:
                visit(server, hosts, status=404, saying=b"A build")
                points.append((size, rss_mbytes(worker_of(server.pid))))
    hold(report, "actors", "kb_per_actor", "KiB", 1024, points)


def add_runs(report: Report, is_quick: bool) -> None:
    """Runs that nobody calls, kept by ``minRuns``."""
    sizes = (10, 40, 160)
    secs = 10.0 if is_quick else 30.0
    memory, cpu, each_run = [], [], []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="greenroom-scaling-", ignore_cleanup_errors=True) as name:
            (actor,) = wake.make_actors(
                Path(name), 1, "counts", {"minRuns": size, "maxRuns": size, "memoryMbytes": 128}
            )
            with running([actor], {}) as server:
                wait_until_warm(server, actor.name)
                _wait_for_runs(server, size)
                time.sleep(_SETTLING_SECS)
                before, began = greenroom_cpu_secs(server), time.monotonic()
                time.sleep(secs)
                cpu.append((size, (greenroom_cpu_secs(server) - before) / (time.monotonic() - began)))
                memory.append((size, rss_mbytes(worker_of(server.pid))))
                each_run.append(_shim_mbytes(str(server.data)) / size)
    hold(report, "runs", "kb_per_run", "KiB", 1024, memory)
    hold(report, "runs_cpu", "cpu_ms_per_run", "ms/s", 1000, cpu)
    report.add("shim_and_actor_mb_per_run", each_run[-1], "MiB")


def _wait_for_runs(server: Server, count: int) -> None:
    deadline = time.monotonic() + _RUNS_READY_SECS
    while True:
        series = read_series(f"http://127.0.0.1:{server.port}")
        if total(series, "greenroom_runs", readiness="serving") == count:
            return
        if time.monotonic() > deadline:
            raise NotMeasured(f"{count} runs did not serve within {_RUNS_READY_SECS:g} s")
        time.sleep(0.2)


def _shim_mbytes(data: str) -> float:
    """Memory of what runs on this data folder beside Greenroom itself: by shares, since they are mostly one program."""
    import psutil

    found = 0.0
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if "gateway.worker" in words or "gateway.cli" in words or "gateway.event_holder" in words:
                continue
            if process.cwd().startswith(data) or any(data in word for word in words):
                found += process.memory_full_info().pss / 2**20
        except psutil.Error:
            continue
    return found


def add_gateways(report: Report, is_quick: bool) -> None:
    """What gateways and an autoscaler say to Redis while nothing happens."""
    secs = 10.0 if is_quick else 30.0
    points = []
    for size in (1, 2, 4):
        with (
            tempfile.TemporaryDirectory(prefix="greenroom-scaling-", ignore_cleanup_errors=True) as name,
            housed(Path(name) / "house", {}, gateways=(1,) * size) as house,
        ):
            time.sleep(_SETTLING_SECS)
            before = sum(house.redis.commands().values())
            time.sleep(secs)
            points.append((size, (sum(house.redis.commands().values()) - before) / secs))
    hold(report, "gateways", "redis_commands_per_gateway", "1/s", 1, points)


MEASURES: dict[str, Callable[[Report, bool], None]] = {
    "cpu_us_per_request": add_requests,
    "kb_per_actor": add_actors,
    "kb_per_run": add_runs,
    "redis_commands_per_gateway": add_gateways,
}


def main() -> None:
    """Measure and report."""
    given = arguments(__doc__ or "")
    report = Report()
    for name, measure in MEASURES.items():
        print(f"measuring {name}", flush=True)
        try:
            measure(report, given.quick)
        except (NotMeasured, NotInstalled, SystemExit) as error:
            report.missing[name] = str(error)[-400:]
    finish(report, given)


if __name__ == "__main__":
    main()
