"""How long a frozen run takes to answer, beyond a warm one: one request at a time over several frozen Actors."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

from loadtests.figures import percentile
from loadtests.server import TOKEN, Server

STANDBY = {"idleTimeoutSecs": 3600, "freezeAfterSecs": 0.5, "maxRequestsPerActorRun": 1}
_FREEZE_LIMIT_SECS = 30.0


def resumes(server: Server, names: list[str], wanted: int) -> list[float]:
    """Milliseconds from the request to the first byte, beyond the median of warm ones, of *wanted* frozen runs."""
    for name in names:
        answer_ms(server, name)  # it is started
    runs = _actors_by_run(server)
    if len(runs) != len(names):
        raise SystemExit(f"{len(runs)} runs serve {len(names)} Actors")
    frozen: list[float] = []
    warm: list[float] = []
    while len(frozen) < wanted:
        for run in list(runs):
            _until_frozen(run)
        for run, name in runs.items():
            if _state(run) != "T":  # nobody has called it since
                raise SystemExit(f"{name} was frozen and went on by itself")
            frozen.append(answer_ms(server, name))
            warm.append(answer_ms(server, name))
    return [value - percentile(warm, 0.5) for value in frozen[:wanted]]


def answer_ms(server: Server, actor: str) -> float:
    """From the request to its first byte, on a connection of its own that is open already."""
    request = (
        f"GET / HTTP/1.1\r\nHost: local--{actor}.localhost:{server.port}\r\n"
        f"Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        sent = time.monotonic()
        connection.sendall(request)
        answer = connection.recv(65536)
        first_byte = time.monotonic()
        while chunk := connection.recv(65536):
            answer += chunk
    if not answer.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"{actor} answered {answer.decode(errors='replace')}")
    return (first_byte - sent) * 1000


def _actors_by_run(server: Server) -> dict[Path, str]:
    """What is on record of the process of each run that lives, and its Actor's name."""
    found = {}
    for record in server.data.glob("process/runs/*/shim.json"):
        pid = json.loads(record.read_text())["actor_pid"]
        # The Actor's copy is named for it, and its program runs there or in what was unpacked of it.
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        full_name = next(word.partition(b"=")[2] for word in environment if word.startswith(b"ACTOR_FULL_NAME="))
        found[record] = full_name.decode().rpartition("/")[2]
    return found


def _until_frozen(record: Path) -> None:
    deadline = time.monotonic() + _FREEZE_LIMIT_SECS
    while _state(record) != "T":
        if time.monotonic() > deadline:
            raise SystemExit(f"a run was not frozen within {_FREEZE_LIMIT_SECS:g} s")
        time.sleep(0.01)


def _state(record: Path) -> str:
    pid = json.loads(record.read_text())["actor_pid"]
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
