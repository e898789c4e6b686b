"""What is measured by ``loadtests.compare``: proxies on a core of their own, each with its accounting."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.peers.roster import Peer, Site, write_configuration
from loadtests.peers.templates import Upstream
from loadtests.peers.tools import Tool

_START_SECS = 30


class NotMeasured(Exception):
    """A sample that could not be taken; the text says why."""


@dataclass(frozen=True)
class Cores:
    """The core of the proxies, and the one of everything else: callers, upstreams, the load test itself."""

    proxy: int
    load: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The first two that this process may use. Raises NotMeasured where there is but one, or no telling."""
        if not hasattr(os, "sched_getaffinity") or shutil.which("taskset") is None:
            raise NotMeasured("processes are kept on their cores by Linux and its taskset (Debian's util-linux)")
        usable = sorted(os.sched_getaffinity(0))
        if len(usable) < 2:
            raise NotMeasured("two cores are needed: one for the proxy, one for its callers and upstreams")
        return cls(*usable[:2])

    @staticmethod
    def pinned(core: int) -> list[str]:
        """What stands before a command to keep it on *core*."""
        return ["taskset", "-c", str(core)]


@dataclass(frozen=True, kw_only=True)
class Target:
    """
    One proxy that serves. ``pids`` are the processes on its bill: all of a peer's; of Greenroom's all but the Actors
    and their shims. ``serving`` is the one whose memory counts.
    """

    name: str
    title: str
    port: int
    pids: Callable[[], list[int]]
    serving: Callable[[], int]
    tail: Callable[[], str]
    has_sockets: bool = True
    only_in: str = ""

    @property
    def at(self) -> str:
        """Its address."""
        return f"127.0.0.1:{self.port}"

    def cpu_secs(self) -> float:
        """CPU time that its processes have used so far."""
        return sum(cpu_secs(pid) for pid in self.pids())

    def rss_mbytes(self) -> float:
        """Resident memory of the serving process."""
        return rss_mbytes(self.serving())


def rss_mbytes(pid: int) -> float:
    """Resident memory of one process."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def cpu_secs(pid: int) -> float:
    """CPU time of one process, from the kernel's own account: by nanoseconds where it keeps them, else by ticks."""
    with contextlib.suppress(OSError):
        tasks = [one.read_text() for one in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        if tasks:
            return sum(int(text.split()[0]) for text in tasks) / 1e9
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    """The direct children of a process."""
    try:
        tasks = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:  # it has just ended
        return []


def family_of(pid: int) -> list[int]:
    """A process and all that descend from it."""
    return [pid, *(member for child in children_of(pid) for member in family_of(child))]


def free_port() -> int:
    """A port that nobody listens on at the moment, nor on the next one."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


def ask(port: int, host: str, path: str = "/", *, timeout: float = 5, lines: str = "") -> tuple[int, bytes]:
    """One request, its status and its whole answer. Raises OSError."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{lines}Connection: close\r\n\r\n"
        connection.sendall(head.encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    if not answer.startswith(b"HTTP/1."):
        raise ConnectionError("no HTTP answer")
    return int(answer[9:12]), answer


@contextlib.contextmanager
def process(
    command: Sequence[str], tool: Tool, core: int, folder: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """One process on *core* with its output in ``folder/log``, ended at the end."""
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(
            [*Cores.pinned(core), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **tool.environment, **(environment or {})},
            start_new_session=True,
        )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextlib.contextmanager
def serving_peer(peer: Peer, tool: Tool, upstreams: tuple[Upstream, ...], core: int, folder: Path) -> Iterator[Target]:
    """*peer*, once each of its routes answers. Raises NotMeasured."""
    folder.mkdir(parents=True, exist_ok=True)
    site = Site(port=free_port(), folder=folder, upstreams=upstreams)
    write_configuration(peer, site)
    with process(peer.command(site, tool.path), tool, core, folder, dict(peer.environment)) as started:
        wait_until_answers(started, folder, site.port, [upstreams[0].host] if peer.configure else [], any_status=True)
        if peer.configure:
            peer.configure(site)
        wait_until_answers(started, folder, site.port, [one.host for one in upstreams])
        yield Target(
            name=peer.name,
            title=peer.title,
            port=site.port,
            pids=lambda: family_of(started.pid),
            # Of a master and its worker, the one that works; of one process, itself.
            serving=lambda: max(family_of(started.pid), key=cpu_secs),
            tail=lambda: tail_of(folder / "log"),
            has_sockets=peer.has_sockets,
            only_in=peer.only_in,
        )


def wait_until_answers(
    started: subprocess.Popen[bytes], folder: Path, port: int, hosts: list[str], *, any_status: bool = False
) -> None:
    """Until every host of *hosts* answers 200, or anything at all. Raises NotMeasured with what it logged."""
    deadline = time.monotonic() + _START_SECS
    for host in hosts:
        while True:
            with contextlib.suppress(OSError):
                if ask(port, host)[0] == 200 or any_status:
                    break
            if started.poll() is not None or time.monotonic() > deadline:
                raise NotMeasured(f"it did not serve {host}: {tail_of(folder / 'log')}")
            time.sleep(0.02)


def tail_of(log: Path) -> str:
    """The end of a log, in one line."""
    try:
        return " ".join(log.read_text(errors="replace")[-600:].split())
    except OSError:
        return ""
