"""Listening for a caller's departure while its request is held, without losing a byte of its body."""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.proxy.asgi import Message, Receive, Wire


class ReplayReceive:
    """
    An ASGI ``receive`` that can be listened to ahead of time; what it heard is given again to the real reader.

    Reads ahead at most one message of an unfinished body, so a held upload stays in the caller's socket. With a *wire*
    nothing is read ahead: to ask for a body is to tell a caller who waits for a 100 that it is wanted.
    """

    def __init__(self, receive: Receive, wire: Wire | None = None) -> None:
        self._receive = receive
        self._wire = wire
        self._heard: deque[Message] = deque()

    async def __call__(self) -> Message:
        """The next message, heard already or new."""
        if self._heard:
            return self._heard.popleft()
        return await self._receive()

    def give_again(self, body: bytes) -> None:
        """Its reader had taken all of *body*, and begins anew."""
        self._heard.appendleft({"type": "http.request", "body": body, "more_body": False})

    async def wait_until_gone(self) -> bool:
        """True when the caller has left; False when nothing more can be listened to without reading the body."""
        if self._wire is not None:
            return await _until_gone(self._wire)
        while True:
            if self._heard:
                last = self._heard[-1]
                if last["type"] in ("http.disconnect", "websocket.disconnect"):
                    return True
                if last.get("more_body") or last["type"] == "websocket.receive":
                    return False
            self._heard.append(await self._receive())


async def _until_gone(wire: Wire) -> bool:
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    wire.when_gone(lambda: None if gone.done() else gone.set_result(None))
    try:
        await gone
    finally:
        wire.when_gone(None)
    return True
