"""Listening for a caller's departure while its request is held, without losing a byte of its body."""

from __future__ import annotations

from collections import deque

from gateway.proxy.asgi import Message, Receive


class ReplayReceive:
    """
    An ASGI ``receive`` that can be listened to ahead of time; what it heard is given again to the real reader.

    Reads ahead at most one message of an unfinished body, so a held upload stays in the caller's socket.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._heard: deque[Message] = deque()

    async def __call__(self) -> Message:
        """The next message, heard already or new."""
        if self._heard:
            return self._heard.popleft()
        return await self._receive()

    async def wait_until_gone(self) -> bool:
        """True when the caller has left; False when nothing more can be listened to without reading the body."""
        while True:
            if self._heard:
                last = self._heard[-1]
                if last["type"] in ("http.disconnect", "websocket.disconnect"):
                    return True
                if last.get("more_body") or last["type"] == "websocket.receive":
                    return False
            self._heard.append(await self._receive())
