"""
What Greenroom adds to a wake, process launcher: ``python -m loadtests.wake [--quick] [--json FILE]``.

The Actor stamps the machine's monotonic clock at its first line and when it listens. The overhead of one wake is

    (request sent → first line) - (bare spawn of the same command → first line)  +  (listen → first byte at the caller)

so neither the interpreter's start nor the Actor's own boot counts. Bare spawns are measured between the wakes; their
median is taken off. Wakes go one at a time over several sleeping Actors, whose runs wind down meanwhile.

``resume_p50_ms``, ``_p95``  a frozen run's answer, beyond the median of warm ones
``ramp_failed``              requests that failed while 0, 200, 500, 1,000 and then 0 are in flight on a sleeping pool
``sleeping_1000_cpu``        the share of a core that Greenroom uses for 1,000 Actors that nobody calls
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests import wake_frozen, wake_ramp, wake_sleeping
from loadtests.figures import Report, arguments, finish, percentile
from loadtests.server import TOKEN, Server, running

ACTOR_FOLDER = Path(__file__).parent / "actors"
ACTORS = 25
SLEEPING_SECS = 30.0
IDLE_SECS = 1.0


@dataclass(frozen=True)
class Wake:
    """One cold request, in milliseconds."""

    sent_to_first_line: float
    boot: float
    listen_to_first_byte: float
    server_timing: str


def make_actors(folder: Path, count: int, name: str = "stamps", standby: Mapping[str, Any] | None = None) -> list[Path]:
    """Copies of the Actor *name* under different names, with these settings beside its own."""
    made = []
    for number in range(count):
        copy = folder / f"{name}-{number:02}"
        shutil.copytree(ACTOR_FOLDER / name, copy)
        definition = json.loads((copy / ".actor" / "actor.json").read_text())
        definition["name"] = copy.name
        definition["actorStandby"] |= standby or {}
        (copy / ".actor" / "actor.json").write_text(json.dumps(definition))
        made.append(copy)
    return made


def wake(server: Server, actor: str) -> Wake | None:
    """Call a sleeping Actor; None when it turned out to be warm."""
    request = (
        f"GET / HTTP/1.1\r\nHost: local--{actor}.localhost:{server.port}\r\n"
        f"Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        sent = time.monotonic_ns()
        connection.sendall(request)
        answer = connection.recv(65536)
        first_byte = time.monotonic_ns()
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"{actor} answered {head.decode()}\n{body.decode()}")
    lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"server-timing")]
    timing = lines[0].partition(b": ")[2].decode() if lines else ""
    if "start;" not in timing:  # only requests that were held are told
        return None
    first_line, listening = (int(number) for number in body.split())
    return Wake(
        sent_to_first_line=(first_line - sent) / 1e6,
        boot=(listening - first_line) / 1e6,
        listen_to_first_byte=(first_byte - listening) / 1e6,
        server_timing=timing,
    )


def bare_spawn_ms(python: Path, folder: Path) -> float:
    """From just before the spawn to the program's first line, by the same command without Greenroom."""
    began = time.monotonic_ns()
    command = ["sh", "-c", f"exec {python} main.py bare"]
    output = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, env={"PATH": "/usr/bin:/bin"}, check=True)
    return (int(output.stdout) - began) / 1e6


def measure(server: Server, folders: list[Path], wanted: int) -> tuple[list[Wake], list[float]]:
    """*wanted* wakes, each followed by a bare spawn."""
    python = next(server.data.glob("process/envs/*/bin/python3"), None)
    wakes: list[Wake] = []
    bare: list[float] = []
    slept_since = dict.fromkeys(folders, 0.0)
    while len(wakes) < wanted:
        for folder in folders:
            # It was used a while ago, so its run was wound down in the meantime.
            time.sleep(max(0.0, slept_since[folder] + IDLE_SECS + 0.7 - time.monotonic()))
            found = wake(server, folder.name)
            slept_since[folder] = time.monotonic()
            if found is None:
                continue
            wakes.append(found)
            if python is None:
                python = next(server.data.glob("process/envs/*/bin/python3"))
            bare.append(bare_spawn_ms(python, folder))
            if len(wakes) % 25 == 0:
                print(f"{len(wakes)} of {wanted} wakes", flush=True)
    return wakes, bare


def add_wakes(report: Report, folder: Path, wanted: int) -> None:
    """Cold requests: what Greenroom adds to the start of a process."""
    folders = make_actors(folder, ACTORS)
    with running(folders, {"log_level": "warning"}) as server:
        measure(server, folders, len(folders))  # environments are made, files are in the cache
        wakes, bare = measure(server, folders, wanted)
    bare_ms = percentile(bare, 0.5)
    overheads = [one.sent_to_first_line - bare_ms + one.listen_to_first_byte for one in wakes]
    report.add("wake_overhead_p95_ms", percentile(overheads, 0.95), "ms", 25)
    report.add("wake_overhead_p50_ms", percentile(overheads, 0.5), "ms")
    report.add("to_first_line_p50_ms", percentile([one.sent_to_first_line for one in wakes], 0.5) - bare_ms, "ms")
    report.add("to_first_line_p95_ms", percentile([one.sent_to_first_line for one in wakes], 0.95) - bare_ms, "ms")
    report.add("from_listen_p50_ms", percentile([one.listen_to_first_byte for one in wakes], 0.5), "ms")
    report.add("from_listen_p95_ms", percentile([one.listen_to_first_byte for one in wakes], 0.95), "ms")
    report.add("bare_spawn_p50_ms", bare_ms, "ms")
    report.add("wakes", len(wakes), "", 100, "at_least")
    report.raw |= {
        "overheads_ms": [round(value, 3) for value in overheads],
        "bare_spawn_ms": [round(value, 3) for value in bare],
        "server_timing": [one.server_timing for one in wakes[:20]],
    }


def add_resumes(report: Report, folder: Path, wanted: int) -> None:
    """Requests to frozen runs."""
    folders = make_actors(folder, ACTORS, standby=wake_frozen.STANDBY)
    with running(folders, {"log_level": "warning"}) as server:
        beyond = wake_frozen.resumes(server, [one.name for one in folders], wanted)
    report.add("resume_p50_ms", percentile(beyond, 0.5), "ms", 20)
    report.add("resume_p95_ms", percentile(beyond, 0.95), "ms", 40)
    report.raw["resume_ms"] = [round(value, 3) for value in beyond]


def add_ramp(report: Report, folder: Path, step_secs: float) -> None:
    """Many requests at once, of a sudden."""
    (holder,) = make_actors(folder, 1, "holds")
    wake_ramp.allow_many_files()
    with running([holder], {"log_level": "warning"}) as server:
        outcomes = asyncio.run(wake_ramp.ramp(server, holder.name, step_secs))
    answered = outcomes.pop("200", 0)
    report.add("ramp_failed", outcomes.total(), "requests", 0)
    report.add("ramp_answered", answered, "requests", 1000, "at_least")
    report.raw["ramp_failures"] = dict(outcomes.most_common(20))


def add_sleeping(report: Report, folder: Path) -> None:
    """A thousand Actors, and nobody."""
    made = make_actors(folder, wake_sleeping.ACTORS)
    with running([folder], {"log_level": "warning"}, start_secs=300) as server:
        report.add(f"sleeping_{len(made)}_cpu", wake_sleeping.cpu_share(server, SLEEPING_SECS), "cores", 0.01)


def main() -> None:
    """Measure and report."""
    given = arguments(__doc__ or "")
    wakes, resumes, step_secs = (100, 100, 2.0) if given.quick else (300, 300, 5.0)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="greenroom-wake-", ignore_cleanup_errors=True) as name:
        folders = [Path(name) / part for part in ("wakes", "resumes", "ramp", "sleeping")]
        add_wakes(report, folders[0], wakes)
        add_resumes(report, folders[1], resumes)
        add_ramp(report, folders[2], step_secs)
        add_sleeping(report, folders[3])
    finish(report, given)


if __name__ == "__main__":
    main()
