"""
The system-events socket of each run: what the system has to say to an Actor (``aborting``, ``persistState``, …).

The secret in the path is all that it asks for; SDKs send no header. An unknown or finished run is accepted and then
closed with 1008, since a refused first connection is fatal in the Python SDK. Source: apify-wire.md §2.

Most connections never come here: ``gateway.held_sockets`` passes them on to a process that outlives this one. Here are
those that it does not take, because their secret is wrong or because there is no such process.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.auth import events_secret
from gateway.core.model import RestartKind, Run
from gateway.core.system_events import abort_frames, migrating_frame
from gateway.secret_box import SecretBox
from gateway.services import Services
from gateway.state.ports import RunEvent

POLICY_VIOLATION = 1008
DONE = 1000
UNKNOWN_RUN = "the run is unknown or has ended"
RUN_ENDED = "the run has ended"

_MAX_SOCKETS_PER_RUN = 10


def is_events_secret(box: SecretBox, run_id: str, secret: str) -> bool:
    """Whether *secret* is the one in the address of the run's events socket."""
    return hmac.compare_digest(secret.encode(), events_secret(box, run_id).encode())


def pending_frames(run: Run, now: datetime, migration_grace_secs: float) -> tuple[str, ...]:
    """What a run is about to undergo and was told before: repeated to a socket that has not heard it."""
    if run.abort_wish is not None or run.wound_down_because is not None:
        return abort_frames(now)
    wish = run.restart_wish
    if wish is not None and wish.kind is RestartKind.MIGRATION:
        left = wish.requested_at + timedelta(seconds=migration_grace_secs) - now
        return (migrating_frame(now, left.total_seconds()),)
    return ()


@dataclass(frozen=True, slots=True)
class EventSockets:
    """Serves ``/events/{run_id}/{secret}``."""

    services: Services
    _open: Counter[str] = field(default_factory=Counter)

    async def serve(self, socket: WebSocket) -> None:
        """One connection, until the run ends or the Actor goes."""
        # The Actor may go at any moment, also before it was told anything.
        with contextlib.suppress(WebSocketDisconnect):
            await socket.accept()
            run_id = socket.path_params["run_id"]
            if not is_events_secret(self.services.box, run_id, socket.path_params["secret"]):
                await socket.close(POLICY_VIOLATION, "unknown run")
                return
            if self._open[run_id] >= _MAX_SOCKETS_PER_RUN:
                await socket.close(POLICY_VIOLATION, "too many connections of this run")
                return
            self._open[run_id] += 1
            try:
                await self._serve(socket, run_id)
            finally:
                self._open[run_id] -= 1
                if not self._open[run_id]:
                    del self._open[run_id]

    async def _serve(self, socket: WebSocket, run_id: str) -> None:
        async with self.services.state.signals.watch_events(run_id) as events:
            # Read once the subscription stands, so that an end or an abort can't fall between.
            run = await self.services.state.records.run(run_id)
            if run is None or run.status.is_terminal:
                await socket.close(POLICY_VIOLATION, UNKNOWN_RUN)
                return
            for frame in pending_frames(run, self.services.now(), self.services.settings.migration_grace_secs):
                await socket.send_text(frame)
            await self._relay(socket, events)

    async def _relay(self, socket: WebSocket, events: AsyncIterator[RunEvent]) -> None:
        async with asyncio.TaskGroup() as group:
            listener = group.create_task(_until_gone(socket))
            speaker = group.create_task(_speak(socket, events))
            await asyncio.wait([listener, speaker], return_when=asyncio.FIRST_COMPLETED)
            listener.cancel()
            speaker.cancel()


async def _until_gone(socket: WebSocket) -> None:
    """Clients say nothing here; whatever they send is not looked at."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


async def _speak(socket: WebSocket, events: AsyncIterator[RunEvent]) -> None:
    with contextlib.suppress(WebSocketDisconnect):  # kept from the TaskGroup, which would wrap it
        async for event in events:
            for frame in event.frames:
                await socket.send_text(frame)
            if event.ends:
                await socket.close(DONE, RUN_ENDED)
                return
