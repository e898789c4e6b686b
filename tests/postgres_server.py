"""A PostgreSQL server of the tests' own: on loopback, in a folder of its own, stopped and paused at will."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

_START_SECS = 60.0
_STOP_SECS = 30.0
_CRASH_SECS = 7.0  # after a pause it sometimes does not hear of it
_USER = "greenroom"
# Nothing of it is kept, so nothing is synced; several workers of pytest and their many pools are its clients.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "fatal",
}


def programs() -> Path:
    """The folder of ``initdb`` and ``postgres``; skips the test where there is none."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: -int(folder.parent.name))
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")


class PostgresServer:
    """One server; ``url`` names its databases, which ``create_database`` makes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._programs = programs()
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:  # it refuses to run as root
            account = _an_account()
            os.chown(folder, account.pw_uid, account.pw_gid)
            self._identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count()
        subprocess.run(
            [
                *(self._programs / "initdb", "-D", folder / "data", "-U", _USER, "--auth=trust", "--no-sync"),
                # Not the order of bytes: nothing may rely on it.
                *("--encoding=UTF8", "--locale=C.UTF-8", *_order_of_a_language(self._programs)),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            **self._identity,
        )

    def start(self, **others: str) -> None:
        """Run it, and wait until it answers."""
        settings = [f"-c{name}={value}" for name, value in {**_SETTINGS, **others}.items()]
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), *settings],
                stdout=output,
                stderr=output,
                cwd=self.folder,
                **self._identity,
            )
        deadline = time.monotonic() + _START_SECS
        while True:
            assert self._process.poll() is None, (self.folder / "output").read_text()
            try:
                psycopg.connect(self._dsn("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "output").read_text()
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it and all its connections; ``SIGQUIT`` as in a crash."""
        if self._process is None:
            return
        of_it = [psutil.Process(self._process.pid), *self._children()]
        self._process.send_signal(how)
        try:
            self._process.wait(_CRASH_SECS if how is signal.SIGQUIT else _STOP_SECS)
        except subprocess.TimeoutExpired:
            for process in of_it:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait(_STOP_SECS)
        self._process = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It goes on accepting connections, as its kernel does, and answers nothing."""
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        server.suspend()  # first: from now on it has no new children
        stopped = [*self._children(), server]
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def _children(self) -> list[psutil.Process]:
        assert self._process is not None
        return psutil.Process(self._process.pid).children(recursive=True)

    def create_database(self, *, template: str = "template0") -> str:
        """The name of a new one."""
        name = f"greenroom{next(self._names)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop_database(self, name: str) -> None:
        """With whoever is still connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """The rows of one statement, as somebody beside Greenroom."""
        with psycopg.connect(self._dsn(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def put(self, name: str, content: bytes) -> Path:
        """A new file in its folder, which it may read and nobody else."""
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        if self._identity:
            os.chown(path, self._identity["user"], self._identity["group"])
        return path

    def url(self, database: str) -> str:
        """The setting ``records_url`` for it."""
        return f"postgresql://{_USER}:secret-of-postgres@127.0.0.1:{self.port}/{database}"

    def _dsn(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user={_USER} dbname={database}"


@contextlib.contextmanager
def running() -> Iterator[PostgresServer]:
    """A server that is gone afterwards, with its folder."""
    programs()
    folder = Path(tempfile.mkdtemp(prefix="greenroom-postgres-"))
    try:
        server = PostgresServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _order_of_a_language(programs: Path) -> tuple[str, ...]:
    """What makes it sort texts as people do, where it can, which takes version 15."""
    said = subprocess.run([programs / "initdb", "--version"], check=True, capture_output=True, text=True).stdout
    return ("--locale-provider=icu", "--icu-locale=en-US") if int(said.split()[2].split(".")[0]) >= 15 else ()


def _an_account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("there is no user for PostgreSQL's server, which does not run as root")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
