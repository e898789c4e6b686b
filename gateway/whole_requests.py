"""
A request that has come whole is whole, also where its sender has gone before anybody looked at it.

Uvicorn forgets the body that it holds as soon as the connection ends. A process that reports its last word and exits
in the next millisecond, as the JavaScript SDK does, would have said nothing.
"""

from __future__ import annotations

from typing import Any, Protocol

from gateway.proxy.asgi import Message, Receive, Scope, Send


class Cycle(Protocol):
    """What is used of uvicorn's request-response cycle."""

    body: bytearray
    more_body: bool

    async def receive(self) -> Any: ...


class WholeRequest:
    """*app*, called with a ``receive`` that keeps what *cycle* has received; the disconnect comes after it."""

    def __init__(self, app: Any, cycle: Cycle) -> None:
        self._app = app
        self._cycle = cycle
        self._is_given = False

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Serve the request."""
        await self._app(scope, self._receive, send)

    async def _receive(self) -> Message:
        message: Message = await self._cycle.receive()
        if message["type"] == "http.request":
            self._is_given = not message["more_body"]
        elif not self._is_given and not self._cycle.more_body:
            self._is_given = True
            body, self._cycle.body = bytes(self._cycle.body), bytearray()
            return {"type": "http.request", "body": body, "more_body": False}
        return message
