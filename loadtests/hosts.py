"""
What ten thousand Actors cost that nobody calls: ``python -m loadtests.hosts [--quick] [--json FILE]``.

``mem_10k_hosts_mb``    the same figure as in ``loadtests.compare``: 10,000 more Actors, each with a token; the worker's
                        memory once each host was asked, above that of one without them
``routes_10k_actors_s`` how much longer it takes until Greenroom serves, medians of five starts
``idle_cpu``            share of a core while nothing happens, without them and (``idle_cpu_10k``) with them

``--quick`` makes 2,000 and names the figures accordingly; they have no limits then.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from loadtests.compare_greenroom import worker_of
from loadtests.compare_hosts import MANY_HOSTS, add_hosts, visit
from loadtests.compare_targets import cpu_secs, rss_mbytes
from loadtests.compare_upstreams import host_of
from loadtests.figures import Report, arguments, finish
from loadtests.server import TOKEN, Server, running
from loadtests.wake import make_actors

_WARM_REQUESTS = 400
_STARTS = 5
_IDLE_SECS = 15.0
_SETTLING_SECS = 3.0


@dataclass(frozen=True)
class Seen:
    """One Greenroom: MiB once it was warm, share of a core while it was idle."""

    rss_mbytes: float
    idle_cpu: float


@contextmanager
def serving(folder: Path, data: Path) -> Iterator[Server]:
    """A Greenroom with the one Actor in *folder*, warm."""
    with running([folder], {}, data=data) as server:
        visit(server, [(host_of(folder.name), TOKEN)] * _WARM_REQUESTS, status=200)
        yield server


def look(server: Server) -> Seen:
    """What it takes while nothing happens."""
    time.sleep(_SETTLING_SECS)
    worker = worker_of(server.pid)
    before = cpu_secs(worker)
    time.sleep(_IDLE_SECS)
    return Seen(rss_mbytes(worker), (cpu_secs(worker) - before) / _IDLE_SECS)


def start_secs(folder: Path, data: Path) -> float:
    """Until it serves: the median of some starts."""
    took = []
    for _ in range(_STARTS):
        began = time.monotonic()
        with running([folder], {}, data=data):
            took.append(time.monotonic() - began)
    return median(took)


def main() -> None:
    """Measure and report."""
    given = arguments(__doc__ or "")
    count = MANY_HOSTS // 5 if given.quick else MANY_HOSTS
    name = f"{count // 1000}k"
    report = Report()
    with tempfile.TemporaryDirectory(prefix="greenroom-hosts-", ignore_cleanup_errors=True) as folder:
        (actor,) = make_actors(Path(folder), 1)
        data = Path(folder) / "data"
        with serving(actor, data):
            pass  # environments are made, files are in the cache
        start = start_secs(actor, data)
        with serving(actor, data) as server:
            rest = look(server)
        hosts = add_hosts(data, count, actor.name)
        start_with_them = start_secs(actor, data)
        with serving(actor, data) as server:
            known = look(server)
            # They have no build: known, their token checked, and refused for that.
            visit(server, hosts, status=404, saying=b"A build")
            asked = rss_mbytes(worker_of(server.pid))
    report.add(f"mem_{name}_hosts_mb", asked - rest.rss_mbytes, "MiB", None if given.quick else 15)
    report.add(f"mem_{name}_known_mb", known.rss_mbytes - rest.rss_mbytes, "MiB")
    report.add("mem_rest_mb", rest.rss_mbytes, "MiB")
    report.add(f"routes_{name}_actors_s", start_with_them - start, "s", None if given.quick else 2)
    report.add("start_s", start, "s")
    report.add("idle_cpu", rest.idle_cpu, "")
    report.add(f"idle_cpu_{name}", known.idle_cpu, "")
    finish(report, given)


if __name__ == "__main__":
    main()
