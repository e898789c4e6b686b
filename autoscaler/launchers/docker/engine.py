"""
The way to one Docker engine: calls in threads, each thread with a client of its own, and errors in Greenroom's words.

Nothing but this package knows the ``docker`` library. Its calls block, so every one of them is made off the event loop.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, NotFound
from docker.utils import kwargs_from_env

from gateway.core.errors import LaunchError, MachineTrouble

API_VERSION = "1.41"  # of engine 20.10, the oldest one that is still in stable distributions

_THREADS = 64  # each start holds one for its whole second when many start at once
_TIMEOUT_SECS = 60.0
_PATIENCE_SECS = 30.0
_PAUSE_SECS = 0.25

_T = TypeVar("_T")


class EngineError(LaunchError):
    """The engine refused a call; ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(message)
        self.status = status


class NotInEngine(EngineError):
    """What the call was about is not there (any more)."""


class EngineUnavailable(MachineTrouble):
    """
    The engine does not answer: not started, restarting, or out of reach.

    ``was_sent``: it may have carried out the call all the same; False where not even a connection came about.
    """

    def __init__(self, message: str, *, was_sent: bool = True) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class Engine:
    """
    One engine, at *url* or where ``DOCKER_HOST`` (with its TLS variables) says, else at its usual socket.

    ``ask`` runs a call on a thread; calls of several threads go side by side.
    """

    def __init__(self, url: str | None = None, *, patience_secs: float = _PATIENCE_SECS) -> None:
        self._patience_secs = patience_secs
        self._connection: dict[str, Any] = {"base_url": url} if url else {**kwargs_from_env()}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="docker")
        self._local = threading.local()
        self._version: str | None = None
        self._streaming: docker.APIClient | None = None
        self._clients: list[docker.APIClient] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where the engine is."""
        return str(self._connection.get("base_url") or "unix:///var/run/docker.sock")

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, by its socket, so that containers' addresses and cgroups are in reach."""
        return self.url.startswith(("unix://", "http+unix://")) and os.uname().sysname == "Linux"

    def connect(self, timeout_secs: float | None = _TIMEOUT_SECS) -> docker.APIClient:
        """A client for one thread that wants its own, e.g. for a stream that it follows. Raises LaunchError."""
        with translated(self.url):
            version = self._version or self._oldest_version()
            return docker.APIClient(**self._connection, version=version, timeout=timeout_secs)  # type: ignore[arg-type]

    def _oldest_version(self) -> str:
        """Ours, unless the engine has given that up: newer engines drop the oldest versions of their API."""
        client = docker.APIClient(**self._connection, version=API_VERSION, timeout=int(_TIMEOUT_SECS))
        try:
            least = client.version(api_version=False).get("MinAPIVersion", API_VERSION)
        finally:
            client.close()
        self._version = max(API_VERSION, least, key=lambda version: [int(part) for part in version.split(".")])
        return self._version

    def streaming(self) -> docker.APIClient:
        """The client of all streams, each of which has a connection of its own. Raises LaunchError."""
        with self._lock:
            if self._streaming is None:
                self._streaming = self.connect(timeout_secs=None)
            return self._streaming

    async def ask(self, call: Callable[[docker.APIClient], _T]) -> _T:
        """
        What *call* returns, made on a thread. Raises EngineError, NotInEngine or EngineUnavailable.

        A cancelled caller does not undo the call: it goes on, and its result is lost.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, call)

    async def ask_patiently(self, call: Callable[[docker.APIClient], _T], *, unless_sent: bool = False) -> _T:
        """
        The same, but an engine that is just being restarted is waited for, up to *patience_secs* of the constructor.

        *call* may be made again although the engine had carried it out, so it must allow for that; *unless_sent*: it
        is made again only where not even a connection had come about.
        """
        until = time.monotonic() + self._patience_secs
        while True:
            try:
                return await self.ask(call)
            except EngineUnavailable as error:
                if time.monotonic() > until or (unless_sent and error.was_sent):
                    raise
                await asyncio.sleep(_PAUSE_SECS)

    def _call(self, call: Callable[[docker.APIClient], _T]) -> _T:
        client = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self.connect()
            with self._lock:
                self._clients.append(client)
        with translated(self.url):
            return call(client)

    def close(self) -> None:
        """No more calls; those under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for client in (*self._clients, *([self._streaming] if self._streaming is not None else [])):
                client.close()


class translated:  # noqa: N801 - used as a function, and a class costs half of what a generator does
    """Turns the library's errors into LaunchErrors that say what to do."""

    __slots__ = ("_url",)

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, LaunchError):
            return
        if isinstance(error, NotFound):
            raise NotInEngine(f"Docker: {error.explanation or error}", 404) from error
        if isinstance(error, APIError):
            raise EngineError(f"Docker: {error.explanation or error}", error.status_code or 500) from error
        if isinstance(error, DockerException | requests.RequestException | urllib3.exceptions.HTTPError | OSError):
            innermost = _innermost(error)
            why = getattr(innermost, "strerror", None) or str(innermost) or type(innermost).__name__
            raise EngineUnavailable(
                f"The Docker engine at {self._url} does not answer: {why}. Start it, or name another one by "
                "DOCKER_HOST or --set docker_host=URL.",
                was_sent=not isinstance(innermost, FileNotFoundError | ConnectionRefusedError),
            ) from error


def _innermost(error: BaseException) -> BaseException:
    """The operating system's own error, which the libraries wrap several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error
