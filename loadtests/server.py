"""A ``greenroom serve`` of the load test's own, on loopback, with data that goes with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TOKEN = "load-test-token-0123456789-0123456789"


@dataclass(frozen=True)
class Server:
    """Where it listens, where its data and its log lie, and its parent's process id (for accounting)."""

    port: int
    data: Path
    log: Path
    pid: int


@contextlib.contextmanager
def running(
    actors: Sequence[Path],
    settings: Mapping[str, object],
    *,
    start_secs: float = 60,
    prefix: Sequence[str] = (),
    data: Path | None = None,
) -> Iterator[Server]:
    """
    Start it, wait until it serves, and stop it at the end.

    *prefix* stands before the command (``taskset -c 0``). Data that is given, in *data*, is kept.
    """
    with tempfile.TemporaryDirectory(prefix="greenroom-load-", ignore_cleanup_errors=True) as folder:
        data = data or Path(folder) / "data"
        log = Path(folder) / "log"
        command = [*prefix, sys.executable, "-m", "gateway.cli", "serve", "--port", "0", "--data", str(data)]
        for actor in actors:
            command += ["--actors", str(actor)]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GREENROOM_")}
        environment |= {"GREENROOM_TOKEN": TOKEN, "GREENROOM_CONFIG": str(Path(folder) / "none.toml")}
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, start_new_session=True)
        try:
            yield Server(port=_port(process, log, time.monotonic() + start_secs), data=data, log=log, pid=process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _port(process: subprocess.Popen[bytes], log: Path, deadline: float) -> int:
    while time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("API: "):
                return int(line.rpartition(":")[2].partition("/")[0])
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise SystemExit(f"greenroom did not start:\n{log.read_text(errors='replace')[-3000:]}")
