"""A tunnel between two real connections, and their far ends: a caller and an Actor who speak raw frames."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from gateway.proxy.splice.tunnel import Tunnel, TunnelEnd

KEY = b"\x01\x02\x03\x04"
FIN = 0x80
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MAX_MESSAGE_BYTES = 1 << 20


def frame(opcode: int, payload: bytes = b"", *, is_masked: bool, is_final: bool = True, reserved: int = 0) -> bytes:
    """One frame on the wire."""
    size = len(payload)
    first = bytes([opcode | reserved << 4 | (FIN if is_final else 0)])
    mask = 0x80 if is_masked else 0
    if size < 126:
        head = first + bytes([mask | size])
    elif size < 65536:
        head = first + bytes([mask | 126]) + size.to_bytes(2)
    else:
        head = first + bytes([mask | 127]) + size.to_bytes(8)
    return head + KEY + masked(payload, KEY) if is_masked else head + payload


def masked(payload: bytes, key: bytes) -> bytes:
    """Masked, or unmasked."""
    size = len(payload)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(pad)).to_bytes(size)


def close_payload(code: int, reason: str = "") -> bytes:
    """What a close frame says."""
    return code.to_bytes(2) + reason.encode()


class Got(NamedTuple):
    """A frame that came."""

    opcode: int
    payload: bytes
    is_final: bool

    @property
    def code(self) -> int:
        """Of a close frame."""
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2])

    @property
    def reason(self) -> str:
        """Of a close frame."""
        return self.payload[2:].decode()


@dataclass
class End:
    """A caller (whose frames are masked) or an Actor."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_caller: bool

    def send(self, opcode: int, payload: bytes = b"", *, is_final: bool = True, reserved: int = 0) -> bytes:
        """Send a frame; its bytes."""
        data = frame(opcode, payload, is_masked=self.is_caller, is_final=is_final, reserved=reserved)
        self.writer.write(data)
        return data

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame."""
        self.send(CLOSE, close_payload(code, reason))

    async def get(self) -> Got:
        """The next frame, unmasked. Raises IncompleteReadError where the stream ends before it."""
        first, second = await self.reader.readexactly(2)
        assert bool(second & 0x80) is not self.is_caller, "towards servers frames are masked, towards clients never"
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
        key = b"" if self.is_caller else await self.reader.readexactly(4)
        payload = await self.reader.readexactly(size)
        return Got(first & 15, masked(payload, key) if key else payload, bool(first & FIN))

    async def said_goodbye(self) -> tuple[int, str]:
        """The code and the reason of the close frame that must come next, and the end of the stream after it."""
        got = await self.get()
        assert await self.rest() == b""
        return got.code, got.reason

    async def rest(self) -> bytes:
        """All that comes until the end; a reset is one."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""

    def reset(self) -> None:
        """Vanish with a reset, as a machine does whose process was killed with unread input."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def hang_up(self) -> None:
        """End the stream in this direction only."""
        self.writer.write_eof()


@dataclass
class Rig:
    """One tunnel with its ends."""

    caller: End
    actor: End
    tunnel: Tunnel
    client_transport: asyncio.Transport
    actor_transport: asyncio.Transport
    ends: list[TunnelEnd]
    is_over: asyncio.Event
    activity: list[None] = field(default_factory=list)

    async def end(self) -> TunnelEnd:
        """How it ended; it does so once."""
        await self.is_over.wait()
        (end,) = self.ends
        return end


class _Waiting(asyncio.Protocol):
    def __init__(self) -> None:
        self.made: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        transport.pause_reading()  # as whoever reads heads does, once it has one
        self.made.set_result(transport)


@contextlib.asynccontextmanager
async def tunnel(
    protocol: bytes = b"websocket",
    *,
    has_extensions: bool = False,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
) -> AsyncIterator[Rig]:
    """
    An open tunnel, whose caller comes by *tls* (the server's side of it, and his own).

    In the end both of its connections must be gone, and that was told once.
    """
    loop = asyncio.get_running_loop()
    waiting = _Waiting()
    accepted: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = loop.create_future()
    front = await loop.create_server(lambda: waiting, "127.0.0.1", 0, ssl=tls and tls[0])
    back = await asyncio.start_server(lambda *wire: accepted.set_result(wire), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(
        *front.sockets[0].getsockname(), ssl=tls and tls[1], server_hostname="tunnel.example" if tls else None
    )
    client_transport = await waiting.made
    actor_transport, made = await loop.create_connection(_Waiting, *back.sockets[0].getsockname())
    await made.made
    ends: list[TunnelEnd] = []
    is_over = asyncio.Event()
    activity: list[None] = []

    def end(how: TunnelEnd) -> None:
        ends.append(how)
        is_over.set()

    opened = Tunnel(
        client=client_transport,
        actor=actor_transport,
        protocol=protocol,
        has_extensions=has_extensions,
        max_message_bytes=max_message_bytes,
        on_activity=lambda: activity.append(None),
        on_end=end,
    )
    client_transport.set_protocol(opened.client_side)
    actor_transport.set_protocol(opened.actor_side)
    rig = Rig(
        caller=End(reader, writer, is_caller=True),
        actor=End(*await accepted, is_caller=False),
        tunnel=opened,
        client_transport=client_transport,
        actor_transport=actor_transport,
        ends=ends,
        is_over=is_over,
        activity=activity,
    )
    try:
        async with asyncio.timeout(15):
            yield rig
            for one in (rig.caller, rig.actor):
                one.writer.close()
            await rig.end()
    finally:
        opened.abort()
        for one in (rig.caller, rig.actor):
            if not one.writer.is_closing():
                one.writer.transport.abort()
        for server in (front, back):
            server.close()
    assert len(ends) == 1
