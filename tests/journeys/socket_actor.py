"""The Actor of tests/actors/sockets on a Greenroom, and raw WebSocket callers of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from journeys.greenroom import ACTORS, TOKEN, Greenroom
from proxy.splice.tunnel_rig import End

NAME = "sockets"


async def push(
    greenroom: Greenroom, name: str = NAME, standby: dict[str, Any] | None = None, *, addition: str = ""
) -> dict[str, Any]:
    """The Actor is pushed; it runs on this interpreter, since it needs ``websockets``. *addition* makes it another."""
    return await greenroom.probe(
        name,
        standby,
        main=(ACTORS / "sockets" / "main.py").read_text() + addition,
        scripts={"run": f"exec {sys.executable} main.py"},
    )


@dataclass(frozen=True)
class Place:
    """Where the Actor is to be found: through a Greenroom, or past it."""

    port: int
    headers: tuple[str, ...]


async def through(greenroom: Greenroom, name: str = NAME) -> Place:
    """By its standby host."""
    return Place(greenroom.port, (f"Host: {greenroom.host(name)}", f"Authorization: Bearer {TOKEN}"))


async def past(greenroom: Greenroom, name: str = NAME) -> Place:
    """Its run's own port."""
    port = int((await greenroom.call(name, "/port")).text)
    return Place(port, (f"Host: 127.0.0.1:{port}",))


@dataclass
class RawSocket(End):
    """A raw caller after its handshake."""

    head: str = ""

    def header(self, name: str) -> str | None:
        """A header of the answer."""
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None


@contextlib.asynccontextmanager
async def raw_socket(place: Place, path: str = "/", headers: Sequence[str] = ()) -> AsyncIterator[RawSocket]:
    """An open WebSocket, whose frames are the caller's own business."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    try:
        key = base64.b64encode(bytes(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            *place.headers,
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            *headers,
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert head.startswith("HTTP/1.1 101 "), head
        yield RawSocket(reader, writer, is_caller=True, head=head[:-4])
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
