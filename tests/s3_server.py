"""A server that speaks S3, of the tests' own: moto in a process of its own, on loopback."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count

import httpx
import pytest

_START_SECS = 60.0
KEYS = {"AWS_ACCESS_KEY_ID": "greenroom", "AWS_SECRET_ACCESS_KEY": "secret-of-s3"}


class S3Server:
    """One server; ``url`` names its buckets, which ``create_bucket`` makes."""

    def __init__(self) -> None:
        for name in ("moto", "flask_cors"):
            pytest.importorskip(name, reason="moto's server is not installed: install Greenroom with its extra dev")
        self.port = _free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._names = count()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it, with no bucket, and wait until it answers."""
        words = (sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port))
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SECS
        while True:
            assert self._process.poll() is None, "it ended by itself"
            try:
                httpx.get(f"{self.endpoint}/moto-api/", timeout=5)
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End it; what it held is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It goes on accepting connections, as its kernel does, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def create_bucket(self) -> str:
        """The name of a new one."""
        name = f"greenroom-{next(self._names)}"
        httpx.put(f"{self.endpoint}/{name}", timeout=30).raise_for_status()
        return name

    def url(self, bucket: str, prefix: str = "") -> str:
        """The setting ``blobs_url`` for it."""
        return f"s3://{bucket}{prefix}?endpoint={self.endpoint}"


@contextlib.contextmanager
def running() -> Iterator[S3Server]:
    """A server that is gone afterwards."""
    server = S3Server()
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
