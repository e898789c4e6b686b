"""
A Docker engine that a test may kill: with its own folders, in a network namespace of its own.

Whoever is ``inside`` of the namespace reaches the containers by their addresses, and so does what he starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import docker_engine

_CLONE_NEWNET = 0x40000000
_START_SECS = 60


@dataclass
class OwnEngine:
    """An engine below *folder*; ``with`` starts it with the base image, and in the end nothing of it is left."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    namespace: str = field(default_factory=lambda: f"gr-test-{os.getpid()}-{time.monotonic_ns() % 100000}")

    @property
    def host(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        subprocess.run(["ip", "-n", self.namespace, "link", "set", "lo", "up"], check=True)
        try:
            self.start()
            docker_engine.import_base(self.host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(AssertionError):
            for found in self.docker("ps", "-aq").split():
                self.docker("rm", "-f", found)
        self.stop()
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for _ in range(50):
            if not self._processes():
                break
            time.sleep(0.1)
        for line in Path("/proc/mounts").read_text().splitlines():
            if (mount := line.split()[1]).startswith(str(self.folder)):
                subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.namespace], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start dockerd and wait until it answers."""
        folder = self.folder
        with (folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("nsenter", f"--net=/run/netns/{self.namespace}", "dockerd", "--bridge=none"),
                    *("--data-root", folder / "data", "--exec-root", folder / "exec", "-p", folder / "pid"),
                    *("-H", self.host),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECS
        while not docker_engine.answers(self.host):
            assert self.process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the engine did not start"
            time.sleep(0.05)

    def stop(self) -> None:
        """As a service manager does: dockerd ends its containers, then itself."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL to dockerd, and by the kernel to its containerd; the containers live on without them."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        # Where nobody reaps them the two look alive to the next dockerd.
        for name in ("pid", "exec/containerd/containerd.pid"):
            (self.folder / name).unlink(missing_ok=True)

    def docker(self, *words: str) -> str:
        """What the docker command prints."""
        done = subprocess.run(["docker", "-H", self.host, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread, and what it starts meanwhile, is in the engine's network namespace."""
        libc = ctypes.CDLL(None, use_errno=True)

        def enter(fd: int) -> None:
            if libc.setns(fd, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        other = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
        try:
            enter(other)
            yield
        finally:
            enter(own)
            os.close(own)
            os.close(other)

    def _processes(self) -> list[int]:
        """Those that have its folder in their command line, and dockerd's own."""
        mark = os.fsencode(self.folder) + b"/"
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes():
                    found.append(int(path.parent.name))
        return [pid for pid in found if pid != os.getpid()]
