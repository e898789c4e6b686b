"""A real parent process over stand-in workers, and how tests talk to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECS = 30.0

PARENT = """
import sys
from gateway.parent import serve
from gateway.refusals import Refused
from gateway.settings import Settings
try:
    settings = Settings.model_validate_json(sys.argv[1])
    command = [sys.executable, "tests/stand_in_worker.py"]
    sys.exit(serve(settings, worker_command=command, workers=int(sys.argv[2])))
except Refused as refused:
    print("greenroom:", refused, file=sys.stderr)
    sys.exit(refused.exit_code)
"""


class Parent:
    """A running parent, and what it says."""

    def __init__(self, data: Path, *, behaviour: str = "", workers: int = 1, **settings: object) -> None:
        self.data = data
        given = {"data": str(data), "port": 0, "token": "a-token-of-this-test", **settings}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, json.dumps(given), str(workers)],
            cwd=ROOT,
            env=os.environ | {"STAND_IN": behaviour, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.heard = ""

    def wait_for(self, text: str) -> None:
        """Until the parent or its worker has said *text*."""
        assert self.process.stdout is not None
        until = time.monotonic() + LIMIT_SECS
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while text not in self.heard:
                assert selector.select(until - time.monotonic()), f"not said: {text!r}; heard: {self.heard!r}"
                chunk = os.read(self.process.stdout.fileno(), 4096)
                assert chunk, f"ended without {text!r}; heard: {self.heard!r}"
                self.heard += chunk.decode()

    def wait(self) -> int:
        """Until it has ended: its exit code."""
        output, _ = self.process.communicate(timeout=LIMIT_SECS)
        self.heard += output.decode()
        return self.process.returncode

    @property
    def port(self) -> int:
        """Where it listens, as its lock file says."""

        def own_lines() -> list[str]:
            # A killed parent leaves its lines behind.
            lines = lock_lines(self.data)
            return lines if lines[:1] == [str(self.process.pid)] else []

        return int(wait_until(own_lines)[1].rpartition(":")[2])

    def behave(self, behaviour: str, *, lane: int | None = None) -> None:
        """How workers that start from now on do (in one lane, if one is given); as the first one without a word."""
        (self.data / ("stand-in" if lane is None else f"stand-in-{lane}")).write_text(behaviour)

    @property
    def children(self) -> list[str]:
        """The programs of its children that live, sorted: workers, and the holder of the events sockets."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found += [word for word in child.cmdline() if word.endswith(("event_holder", "worker.py"))]
        return sorted(found)

    def get(self, path: str, host: str = "127.0.0.1") -> str:
        """The worker's answer; waits for a worker."""
        connection = http.client.HTTPConnection(host, self.port, timeout=LIMIT_SECS)
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().read().decode()


def lock_lines(data: Path) -> list[str]:
    """The lock file of *data*."""
    try:
        return (data / "lock").read_text().splitlines()
    except FileNotFoundError:
        return []


def wait_until(condition: Callable[[], T], limit_secs: float = LIMIT_SECS) -> T:
    """What *condition* returns once it is true."""
    until = time.monotonic() + limit_secs
    while not (found := condition()):
        assert time.monotonic() < until, "the condition never held"
        time.sleep(0.01)
    return found


@contextlib.contextmanager
def parents(data: Path) -> Iterator[Callable[..., Parent]]:
    """Starts parents, on *data* where nothing else is said; none outlives the context."""
    started: list[Parent] = []

    def start_one(**options: object) -> Parent:
        parent = Parent(options.pop("data", data), **options)  # type: ignore[arg-type]
        started.append(parent)
        return parent

    yield start_one
    for parent in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(parent.process.pid).children():
                child.kill()
        parent.process.kill()
        parent.process.communicate()
