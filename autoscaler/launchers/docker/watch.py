"""What happens to this Greenroom's containers, by the engine's stream of events; taken up again whenever it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autoscaler.launchers.docker.engine import Engine
from autoscaler.launchers.docker.streams import EngineStream
from gateway.core.errors import LaunchError
from gateway.installation import Installation

_log = logging.getLogger(__name__)

_FIRST_PAUSE_SECS = 0.1
_LONGEST_PAUSE_SECS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEvent:
    """``die``, ``oom`` or ``destroy`` of one container."""

    action: str
    container_id: str


class Watch:
    """
    One stream for all containers, on a thread; the callbacks run in the event loop.

    *on_event* is told of each event; *on_connected* after each connection, the first one too: what happened before it
    was not seen, so the callee looks for itself. *filters*: other events of the engine than those of containers.
    """

    def __init__(
        self,
        engine: Engine,
        installation: Installation,
        *,
        on_event: Callable[[ContainerEvent], None],
        on_connected: Callable[[], None],
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._engine = engine
        self._filters = json.dumps(
            filters or {"type": ["container"], "label": [installation.label], "event": ["die", "oom", "destroy"]}
        )
        self._on_event = on_event
        self._on_connected = on_connected
        self._loop = asyncio.get_running_loop()
        self._closed = threading.Event()
        self._stream: EngineStream | None = None
        self._thread = threading.Thread(target=self._run, name="docker-events", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """No more callbacks."""
        self._closed.set()
        if self._stream is not None:
            self._stream.cancel()

    def _run(self) -> None:
        pause_secs = _FIRST_PAUSE_SECS
        while not self._closed.is_set():
            try:
                self._follow()
                pause_secs = _FIRST_PAUSE_SECS
            except LaunchError as error:
                if self._closed.is_set():
                    return
                if pause_secs == _FIRST_PAUSE_SECS:
                    _log.warning("the engine's events are out of reach, trying again: %s", error.message)
            self._closed.wait(pause_secs)
            pause_secs = min(_LONGEST_PAUSE_SECS, 2 * pause_secs)

    def _follow(self) -> None:
        """Until the stream breaks."""
        self._stream = EngineStream(self._engine, "/events", {"filters": self._filters})
        with self._stream as stream:
            self._tell(self._on_connected)
            for line in stream.lines():
                if self._closed.is_set():
                    return
                event = json.loads(line)
                found = ContainerEvent(action=event["Action"], container_id=event["Actor"]["ID"])
                self._tell(lambda found=found: self._on_event(found))  # type: ignore[misc]

    def _tell(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and we with it
            self._loop.call_soon_threadsafe(callback)
