"""Copies a container's output into its run's log as it comes, on a thread of its own."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal

from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.docker.log_lines import AlreadyKept, Assembler
from autoscaler.launchers.docker.streams import EngineStream
from autoscaler.launchers.shim_log import Log, pieces
from gateway.core.errors import LaunchError

_FRAME_HEAD = struct.Struct(">BxxxL")
_TAIL_BYTES = 2 * 1024 * 1024


class LogFollower:
    """
    Follows one container until its output ends, and calls *on_end* on its thread then.

    A follower takes up where an earlier one, perhaps of an earlier Greenroom, left off, so it may be followed by
    another one whenever the engine breaks off; unless ``is_full``. The engine's own following may miss the very end of
    the output (seen with 20.10: a last line without its newline), so whoever has followed a container to its end has
    another one read what is left, with *has_ended*. A Swarm's manager tells of its ``tasks`` in the same way; their
    stream never ends by itself.
    """

    def __init__(
        self,
        engine: Engine,
        container_id: str,
        log_path: Path,
        max_chars: int,
        on_end: Callable[[], None],
        *,
        has_ended: bool = False,
        kind: Literal["containers", "tasks"] = "containers",
    ) -> None:
        self.is_full = False
        self._engine = engine
        self._path = f"/{kind}/{container_id}/logs"
        self._log_path = log_path
        self._max_chars = max_chars
        self._on_end = on_end
        self._has_ended = has_ended
        self._stream: EngineStream | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=f"log-{container_id[:12]}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop following; the container runs on, and its output stays with the engine."""
        self._is_closed = True
        if self._stream is not None:
            self._stream.cancel()

    def _run(self) -> None:
        try:
            with contextlib.suppress(LaunchError, OSError):
                self._follow()
        finally:
            self._on_end()

    def _follow(self) -> None:
        fd = os.open(self._log_path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            log = Log(fd, self._max_chars)
            kept = AlreadyKept(_tail(fd))
            parameters = {"stdout": 1, "stderr": 1, "timestamps": 1, "follow": int(not self._has_ended)}
            if kept.since is not None:
                parameters["since"] = int(datetime.fromisoformat(kept.since.decode().strip()).timestamp())
            # Not by the library's own logs(), which does not tell standard output from error: pieces of long lines of
            # the two would be mixed.
            self._stream = EngineStream(self._engine, self._path, parameters)
            if not self._is_closed:
                with self._stream as stream:
                    self._copy(stream, log, kept)
        finally:
            os.close(fd)

    def _copy(self, stream: EngineStream, log: Log, kept: AlreadyKept) -> None:
        assembler = Assembler()

        def write(stamp: bytes, text: bytes) -> None:
            for piece in pieces(text):
                if kept.is_new(stamp + piece):
                    log.write(stamp, [piece])

        while len(head := stream.read(_FRAME_HEAD.size)) == _FRAME_HEAD.size:
            number, length = _FRAME_HEAD.unpack(head)
            record = stream.read(length)
            if len(record) != length:
                return
            for stamp, text in assembler.add(number, record):
                write(stamp, text)
            self.is_full = log.is_full
            if self.is_full:
                return
        if self._has_ended:
            for stamp, text in assembler.rest():
                write(stamp, text)


def _tail(fd: int) -> list[bytes]:
    """The last whole lines of a log."""
    size = os.fstat(fd).st_size
    start = max(0, size - _TAIL_BYTES)
    tail = os.pread(fd, size - start, start)
    lines = tail.split(b"\n")[:-1]
    return lines[1:] if start else lines
