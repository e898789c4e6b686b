"""
The system-events socket of each run: what the system has to say to an Actor (``aborting``, ``persistState``, …).

The secret in the path is all that it asks for; SDKs send no header. An unknown or finished run is accepted and then
closed with 1008, since a refused first connection is fatal in the Python SDK. Source: apify-wire.md §2.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.auth import events_secret
from gateway.core.system_events import abort_frames
from gateway.services import Services
from gateway.state.ports import RunEvent

_POLICY_VIOLATION = 1008
_DONE = 1000


@dataclass(frozen=True, slots=True)
class EventSockets:
    """Serves ``/events/{run_id}/{secret}``."""

    services: Services

    async def serve(self, socket: WebSocket) -> None:
        """One connection, until the run ends or the Actor goes."""
        # The Actor may go at any moment, also before it was told anything.
        with contextlib.suppress(WebSocketDisconnect):
            await self._serve(socket, socket.path_params["run_id"], socket.path_params["secret"])

    async def _serve(self, socket: WebSocket, run_id: str, secret: str) -> None:
        await socket.accept()
        if not hmac.compare_digest(secret.encode(), events_secret(self.services.box, run_id).encode()):
            await socket.close(_POLICY_VIOLATION, "unknown run")
            return
        async with self.services.state.signals.watch_events(run_id) as events:
            # Read once the subscription stands, so that an end or an abort can't fall between.
            run = await self.services.state.records.run(run_id)
            if run is None or run.status.is_terminal:
                await socket.close(_POLICY_VIOLATION, "the run is unknown or has ended")
                return
            if run.abort_wish is not None or run.wound_down_because is not None:
                for frame in abort_frames(self.services.now()):
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
                await socket.close(_DONE, "the run has ended")
                return
