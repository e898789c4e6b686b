"""
What Greenroom adds to a wake, process launcher: ``python -m loadtests.wake [--quick] [--json FILE]``.

The Actor stamps the machine's monotonic clock at its first line and when it listens. The overhead of one wake is

    (request sent → first line) - (bare spawn of the same command → first line)  +  (listen → first byte at the caller)

so neither the interpreter's start nor the Actor's own boot counts. Bare spawns are measured between the wakes; their
median is taken off. Wakes go one at a time over several sleeping Actors, whose runs wind down meanwhile.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from loadtests.figures import Report, arguments, finish, percentile
from loadtests.server import TOKEN, Server, running

ACTOR = Path(__file__).parent / "actors" / "stamps"
ACTORS = 25
IDLE_SECS = 1.0


@dataclass(frozen=True)
class Wake:
    """One cold request, in milliseconds."""

    sent_to_first_line: float
    boot: float
    listen_to_first_byte: float
    server_timing: str


def make_actors(folder: Path, count: int) -> list[Path]:
    """Copies of the stamping Actor under different names."""
    made = []
    for number in range(count):
        copy = folder / f"stamps-{number:02}"
        shutil.copytree(ACTOR, copy)
        definition = json.loads((copy / ".actor" / "actor.json").read_text())
        definition["name"] = copy.name
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


def main() -> None:
    """Measure and report."""
    given = arguments(__doc__ or "")
    wanted = 100 if given.quick else 300
    report = Report()
    with tempfile.TemporaryDirectory(prefix="greenroom-wake-") as folder:
        folders = make_actors(Path(folder), ACTORS)
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
    report.raw = {
        "overheads_ms": [round(value, 3) for value in overheads],
        "bare_spawn_ms": [round(value, 3) for value in bare],
        "server_timing": [one.server_timing for one in wakes[:20]],
    }
    finish(report, given)


if __name__ == "__main__":
    main()
