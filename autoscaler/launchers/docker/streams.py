"""An answer of the engine that goes on and on, read on one thread and ended from another."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import requests
from docker.types.daemon import CancellableStream

from autoscaler.launchers.docker.engine import Engine, EngineUnavailable, translated


class EngineStream:
    """
    A GET of *path* below the API's root, e.g. ``/events``; a context manager for one thread.

    ``cancel`` may be called by any thread, at any time: whoever reads finds the end of the stream then.
    """

    def __init__(self, engine: Engine, path: str, parameters: Mapping[str, Any]) -> None:
        self._engine = engine
        self._path = path
        self._parameters = parameters
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._response: requests.Response | None = None

    def __enter__(self) -> Self:
        """Raises LaunchError: no engine, or it refuses."""
        client = self._engine.streaming()
        url = f"{client.base_url}/v{client.api_version}{self._path}"
        with translated(self._engine.url):
            response = client.get(url, params=self._parameters, stream=True, timeout=None)
        with self._lock:
            self._response = response
            if self._is_cancelled:
                self._shut_down(response)
        if response.status_code != 200:
            text = response.text
            self.__exit__(None, None, None)
            raise EngineUnavailable(f"The engine answers {response.status_code} to {self._path}: {text.strip()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._response is not None:
                self._response.close()
            self._response = None

    def cancel(self) -> None:
        """End it."""
        with self._lock:
            self._is_cancelled = True
            if self._response is not None:
                self._shut_down(self._response)

    @staticmethod
    def _shut_down(response: requests.Response) -> None:
        with contextlib.suppress(Exception):  # it may be ending by itself at this very moment
            CancellableStream(iter(()), response).close()

    def read(self, count: int) -> bytes:
        """Just *count* bytes, fewer at the end. Raises LaunchError where the stream breaks."""
        assert self._response is not None
        with translated(self._engine.url):
            data: bytes = self._response.raw.read(count)
        return data

    def lines(self) -> Iterator[bytes]:
        """Line by line, as they come. Raises LaunchError where the stream breaks."""
        assert self._response is not None
        with translated(self._engine.url):
            yield from self._response.iter_lines(chunk_size=1)
