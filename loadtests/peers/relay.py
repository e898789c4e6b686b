"""
The peer "relay": bytes from one side to the other and back on uvloop, and nothing else.

What a caller's connection says goes to one connection of its own to the first upstream, whatever host is asked for. So
this is what the event loop and the kernel cost, which no proxy in Python can go below.

``python -m loadtests.peers.relay PORT HOST=ADDRESS …``
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop


class Side(asyncio.Protocol):
    """One connection of two; what comes before the other stands waits."""

    def __init__(self, other: Side | None = None) -> None:
        self.other = other
        self.transport: asyncio.Transport | None = None
        self.early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.other is not None and self.other.early:
            self.transport.write(self.other.early)

    def data_received(self, data: bytes) -> None:
        other = self.other
        if other is None or other.transport is None:
            self.early += data
        else:
            other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


async def relay(port: int, address: str) -> None:
    """Until cancelled."""
    host, _, upstream_port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:

        class Caller(Side):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                actor = self.other = Side(self)
                group.create_task(loop.create_connection(lambda: actor, host, int(upstream_port)))

        server = await loop.create_server(Caller, "127.0.0.1", port)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(relay(int(sys.argv[1]), sys.argv[2].partition("=")[2]))
