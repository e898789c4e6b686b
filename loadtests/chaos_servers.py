"""Real servers of a chaos test's own, on loopback, each with the verbs of its faults: Redis, PostgreSQL, HAProxy."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from loadtests.compare_targets import NotMeasured, family_of, tail_of
from loadtests.peers.tools import NotInstalled, tool

_START_SECS = 60.0
_STOP_SECS = 30.0
_USER = "greenroom"
_PASSWORD = "load-test"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@dataclass
class Program:
    """One process group of a test's own, whose output is kept in *log*; started, killed and started again."""

    name: str
    command: Sequence[str | Path]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it; it may take a moment until it serves."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.environment},
                start_new_session=True,
                **self.identity,
            )

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL for it and for all of its session, as when its machine is gone."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        # Its children are dead when their ports are free; whoever reaps them may take his time.
        deadline = time.monotonic() + _STOP_SECS
        while _lives(self.process.pid) and time.monotonic() < deadline:
            time.sleep(0.001)
        self.process = None

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end; what is left after half a minute is killed."""
        if self.process is None:
            return
        self.process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_SECS)
        self.kill()

    def signal_all(self, which: signal.Signals) -> None:
        """A signal to each process of its session: SIGSTOP, SIGCONT."""
        os.killpg(self.pid, which)

    def wait_until_listens(self, port: int) -> None:
        """Until it accepts connections at *port*. Raises NotMeasured."""
        deadline = time.monotonic() + _START_SECS
        while not listens(port):
            self.must_live(deadline)
            time.sleep(0.02)

    def must_live(self, deadline: float) -> None:
        """Raises NotMeasured, with the last of what it said, once it has ended or *deadline* has passed."""
        if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
            raise NotMeasured(f"{self.name} did not start: {tail_of(self.log)}")

    def pids(self) -> list[int]:
        """It and what descends from it."""
        return family_of(self.pid)


def _lives(group: int) -> bool:
    """Whether a process of this group, which its leader has left, is more than a zombie."""
    for member in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getpgid(member.pid) == group and member.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


class RedisServer:
    """Redis without persistence: started again, it is empty."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        path = shutil.which("redis-server")
        if path is None:
            raise NotMeasured("Redis is not installed (Debian: apt-get install redis-server)")
        (self.port,) = free_ports(1)
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": folder}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.program = Program("Redis", [path, *words], folder / "log")

    def start(self) -> None:
        """Until it answers."""
        self.program.start()
        self.program.wait_until_listens(self.port)

    @property
    def url(self) -> str:
        """The setting ``signals_url``."""
        return redis_url(self.port)

    def commands(self) -> dict[str, int]:
        """How often each command was called since the start, those inside of scripts apart."""
        calls = {}
        for line in self.ask("INFO", "commandstats").splitlines():
            if line.startswith("cmdstat_"):
                name, _, facts = line.removeprefix("cmdstat_").partition(":")
                calls[name] = int(facts.partition("calls=")[2].partition(",")[0])
        return calls

    def ask(self, *words: str) -> str:
        """One command of ours, and its answer where that is a text."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
            connection.sendall(f"*{len(words)}\r\n{parts}".encode())
            stream = connection.makefile("rb")
            first = stream.readline().decode().strip()
            return stream.read(int(first[1:])).decode() if first.startswith("$") else first


def redis_url(port: int) -> str:
    """The setting ``signals_url`` for a Redis, or a wire to it, at *port*."""
    return f"redis://127.0.0.1:{port}/0"


class PostgresServer:
    """PostgreSQL as it is by default: what it has acknowledged is on the disk."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        programs = _postgres_programs()
        identity = _an_account(folder)
        (self.port,) = free_ports(1)
        password = folder / "password"
        password.write_text(_PASSWORD)
        password.chmod(0o644)
        made = subprocess.run(
            [
                *(programs / "initdb", "-D", folder / "data", "-U", _USER, "--auth=scram-sha-256", "--encoding=UTF8"),
                *(f"--pwfile={password}", "--locale=C.UTF-8"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            **identity,
        )
        if made.returncode:
            raise NotMeasured(f"initdb failed: {' '.join(made.stdout.split())[-300:]}")
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "log_min_messages": "fatal",
        }
        words = [f"-c{name}={value}" for name, value in settings.items()]
        command = [programs / "postgres", "-D", folder / "data", "-p", str(self.port), *words]
        self.program = Program("PostgreSQL", command, folder / "log", identity=identity)

    def start(self) -> None:
        """Until it takes connections; after a crash it reads its log first."""
        self.program.start()
        self.program.wait_until_listens(self.port)


def postgres_url(port: int) -> str:
    """The setting ``records_url`` for a PostgreSQL, or a wire to it, at *port*."""
    return f"postgresql://{_USER}:{_PASSWORD}@127.0.0.1:{port}/postgres"


def _postgres_programs() -> Path:
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise NotMeasured("PostgreSQL is not installed (Debian: apt-get install postgresql)")


def _an_account(folder: Path) -> dict[str, Any]:
    """As whom PostgreSQL runs: it refuses to be root. The folder becomes his."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam(name)
            os.chown(folder, account.pw_uid, account.pw_gid)
            return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    raise NotMeasured("there is no user for PostgreSQL, which does not run as root")


_HAPROXY = """\
global
    nbthread 1
    maxconn 2000

defaults
    mode http
    option http-keep-alive
    timeout connect 2s
    timeout client 120s
    timeout server 120s
    # A gateway that takes no connection, or dies before it answers: another one, at once.
    option redispatch 1
    retries 3
    retry-on conn-failure empty-response

frontend callers
    bind 127.0.0.1:@PORT@
    # What may have had an effect is not sent twice.
    http-request disable-l7-retry if !{ method GET HEAD OPTIONS }
    http-after-response set-header X-Gateway %[srv_name]
    default_backend gateways

backend gateways
    balance leastconn
    option httpchk GET /health/live
    http-check expect status 200
    # Seen to be gone by its first connection that fails, or within half a second.
    default-server check inter 500ms fall 2 rise 1 observe layer4 error-limit 1 on-error mark-down
@SERVERS@
"""


class Balancer:
    """HAProxy before the gateways, each by name and port."""

    def __init__(self, folder: Path, gateways: Mapping[str, int]) -> None:
        folder.mkdir()
        try:
            found = tool("haproxy")
        except NotInstalled as error:
            raise NotMeasured(str(error)) from error
        (self.port,) = free_ports(1)
        servers = "\n".join(f"    server {name} 127.0.0.1:{port}" for name, port in gateways.items())
        path = folder / "haproxy.cfg"
        path.write_text(_HAPROXY.replace("@PORT@", str(self.port)).replace("@SERVERS@", servers))
        command = [found.path, "-db", "-f", path]
        self.program = Program("HAProxy", command, folder / "log", environment=found.environment)

    def start(self) -> None:
        """Until it takes connections."""
        self.program.start()
        self.program.wait_until_listens(self.port)
