"""Greenroom as ``loadtests.compare`` measures it: a whole installation whose Actors are the fast upstreams."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from loadtests.compare_events import EVENTS
from loadtests.compare_targets import Cores, NotMeasured, Target, ask, children_of, tail_of
from loadtests.compare_upstreams import SMALL, Programs, small_configuration
from loadtests.server import TOKEN, Server, running

_FIRST_ANSWER_SECS = 60
STANDBY = {
    # 32 callers and a thousand sockets share one run, with every slot accounted for.
    "desiredRequestsPerActorRun": 2000,
    "maxRequestsPerActorRun": 4000,
    "idleTimeoutSecs": 3600,
}
TOKEN_LINE = f"Authorization: Bearer {TOKEN}\r\n"


def make_actors(folder: Path, programs: Programs, cores: Cores) -> list[Path]:
    """
    An Actor for each of ``SMALL``, which runs nginx, one named ``big``, which runs our Go upstream, and ``EVENTS``.

    They are ordinary Actors (access by token, one pool each) but that their programs move to the other core.
    """
    pinned = " ".join(Cores.pinned(cores.load))
    environment = " ".join(f"{name}={value}" for name, value in programs.nginx.environment.items())
    made = []
    for name in SMALL:
        place = folder / "places" / name
        place.mkdir(parents=True)
        (place / "template.conf").write_text(small_configuration(port="@PORT@", folder=place))
        start = (
            f"sed s/@PORT@/$ACTOR_WEB_SERVER_PORT/ {place}/template.conf > {place}/nginx.conf && "
            f"exec env {environment} {pinned} {programs.nginx.path} -p {place} -c {place}/nginx.conf"
        )
        made.append(_actor(folder, name, start))
    made.append(_actor(folder, "big", f"exec {pinned} {programs.upstream.path}"))
    events = Path(__file__).parent / "actors" / EVENTS / "main.py"
    made.append(_actor(folder, EVENTS, f"exec {pinned} {sys.executable} {events}"))
    return made


def _actor(folder: Path, name: str, start: str) -> Path:
    actor = folder / "actors" / name
    (actor / ".actor").mkdir(parents=True)
    definition = {
        "actorSpecification": 1,
        "name": name,
        "version": "0.1",
        "usesStandbyMode": True,
        "actorStandby": STANDBY,
        "scripts": {"run": start},
    }
    (actor / ".actor" / "actor.json").write_text(json.dumps(definition))
    return actor


@contextlib.contextmanager
def serving_greenroom(
    path: str, folder: Path, programs: Programs, cores: Cores, *, data: Path | None = None
) -> Iterator[tuple[Target, Server]]:
    """
    ``greenroom serve`` with HTTP/1.1 by *path* (``splice`` or ``asgi``), once each Actor's run serves.

    Everything is as it is by default, the log at level ``info`` included. Raises NotMeasured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    actors = make_actors(folder, programs, cores)
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(
                running(actors, {"proxy_protocol": path}, prefix=Cores.pinned(cores.proxy), data=data)
            )
        except SystemExit as error:
            raise NotMeasured(" ".join(str(error).split())[-400:]) from error
        for name in (*SMALL, "big"):
            _wait_until_warm(server, name)
        yield (
            Target(
                name=path,
                title=f"Greenroom ({'protocol class' if path == 'splice' else 'ASGI proxy'})",
                port=server.port,
                pids=lambda: [server.pid, *_own_children(server.pid)],
                serving=lambda: worker_of(server.pid),
                tail=lambda: tail_of(server.log),
            ),
            server,
        )


def _wait_until_warm(server: Server, name: str) -> None:
    deadline = time.monotonic() + _FIRST_ANSWER_SECS
    status, answer = 0, b""
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            status, answer = ask(server.port, f"local--{name}.localhost", timeout=30, lines=TOKEN_LINE)
        if status == 200:
            return
        time.sleep(0.1)
    raise NotMeasured(f"Greenroom's Actor {name} answered {status} {answer[-300:]!r}: {tail_of(server.log)}")


def _words_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def _own_children(pid: int) -> list[int]:
    """The worker and the holder of events sockets; what descends from the worker are shims and Actors."""
    return [child for child in children_of(pid) if any(word.startswith("gateway.") for word in _words_of(child))]


def worker_of(pid: int) -> int:
    """The process that serves. Raises NotMeasured while there is not exactly one."""
    workers = [child for child in _own_children(pid) if "gateway.worker" in _words_of(child)]
    if len(workers) != 1:
        raise NotMeasured(f"Greenroom has {len(workers)} workers at the moment")
    return workers[0]
