"""nginx and HAProxy in front of a recorder: doors for the same cases."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxy.suite.client import WAIT_SECS
from proxy.suite.stage import Door, Stage

HERE = Path(__file__).parent
_HOST = b"actor.localhost"


@contextlib.contextmanager
def reference_door(name: str, stage: Stage, folder: Path) -> Iterator[Door]:
    """A door through *name*, which is left out where it is not installed."""
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip(f"{name} is not installed")
    recorder = stage.recorder()
    port = _free_port()
    config = folder / f"{name}.conf"
    template = (HERE / ("nginx.conf" if name == "nginx" else "haproxy.cfg")).read_text()
    config.write_text(
        template.replace("@PORT@", str(port)).replace("@UPSTREAM@", str(recorder.port)).replace("@FOLDER@", str(folder))
    )
    arguments = ["-p", str(folder), "-c", str(config)] if name == "nginx" else ["-db", "-f", str(config)]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen([program, *arguments], stdout=output, stderr=output)
    try:
        _wait_until_open(port, process)
        yield Door(
            name=name,
            address=("127.0.0.1", port),
            host=_HOST,
            shut_host=_HOST,
            recorder=recorder,
            settle=lambda: None,
            path=name,
        )
    finally:
        process.terminate()
        process.wait(10)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait_until_open(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 2 * WAIT_SECS
    while True:
        assert process.poll() is None, "it ended; its output says why"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return
