"""How soon a server-sent event is with its caller: from its Actor's write to the caller's read, by one clock."""

from __future__ import annotations

import asyncio
import time

from loadtests.compare_targets import NotMeasured
from loadtests.compare_upstreams import host_of
from loadtests.server import TOKEN, Server

EVENTS = "events"
_WARM_UP = 20
_LIMIT_SECS = 30


async def first_events_ms(server: Server, streams: int) -> list[float]:
    """
    For each of *streams*, one after the other, the milliseconds that its first event took. Raises NotMeasured.

    One at a time, since callers who wait for each other would be measured too.
    """
    try:
        async with asyncio.timeout(_LIMIT_SECS):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            try:
                took = [await _first_event_ms(server, reader, writer) for _ in range(_WARM_UP + streams)]
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError, ValueError) as error:
        raise NotMeasured(f"a stream of events broke off: {error!r}") from error
    return took[_WARM_UP:]


async def _first_event_ms(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
    host = f"{host_of(EVENTS)}:{server.port}"
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ValueError(head.partition(b"\r\n")[0])
    first: float | None = None
    while size := int(await reader.readuntil(b"\r\n"), 16):
        event = await reader.readexactly(size + 2)
        if first is None:
            first = (time.monotonic_ns() - int(event.removeprefix(b"data: "))) / 1e6
    await reader.readexactly(2)
    if first is None:
        raise ValueError("a stream without events")
    return first
