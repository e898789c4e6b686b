"""A GiB in each direction through a real server, whose memory hardly grows: at most 4 MiB for each stream."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from journeys.greenroom import TOKEN, Greenroom, actor_folder, workers_of

MIB = 1024 * 1024
_BLOCK = bytes(range(256)) * 1024  # 256 KiB
_GIB_BLOCKS = 4096
_MOST_PER_STREAM = 4 * MIB
_STREAMS = 2

# Sends or reads what is asked for, with nothing but a socket, so that most of the time is the gateway's.
_ACTOR = """
import hashlib, os, socket, threading

BLOCK = bytes(range(256)) * 1024

def serve(sock):
    stream = sock.makefile("rb")
    while line := stream.readline():
        length = 0
        while (header := stream.readline()) != b"\\r\\n":
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        target = line.split(b" ")[1]
        if target.startswith(b"/down/"):
            count = int(target[6:])
            sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % (count * len(BLOCK)))
            for _ in range(count):
                sock.sendall(BLOCK)
            continue
        digest = hashlib.sha256()
        while length:
            data = stream.read1(min(length, len(BLOCK)))
            digest.update(data)
            length -= len(data)
        sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 32\\r\\n\\r\\n" + digest.digest())

server = socket.create_server(("0.0.0.0", int(os.environ["ACTOR_WEB_SERVER_PORT"])))
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


@pytest.fixture(params=["splice", "asgi"])
async def greenroom(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Greenroom]:
    """A server that takes one path or the other, with one warm Actor."""
    actor = actor_folder(tmp_path, "bulk", {"isEnabled": True, "maxRequestsPerActorRun": 50}, main=_ACTOR)
    async with Greenroom(
        tmp_path / "data", actors=(actor,), settings={"proxy_protocol": request.param, "log_level": "warning"}
    ) as server:
        assert (await server.call("bulk", "/down/1")).content == _BLOCK
        yield server


async def _down(greenroom: Greenroom, blocks: int) -> bytes:
    reader, writer = await _ask(greenroom, b"GET /down/%d HTTP/1.1\r\n" % blocks, b"")
    digest, left = hashlib.sha256(), blocks * len(_BLOCK)
    while left:
        data = await reader.read(len(_BLOCK))
        assert data, "cut"
        digest.update(data)
        left -= len(data)
    writer.close()
    return digest.digest()


async def _up(greenroom: Greenroom, blocks: int) -> bytes:
    async with asyncio.TaskGroup() as group:
        reader, writer = await _connect(greenroom)
        writer.write(_head(greenroom, b"POST /up HTTP/1.1\r\n", b"Content-Length: %d\r\n" % (blocks * len(_BLOCK))))

        async def send() -> None:
            for _ in range(blocks):
                writer.write(_BLOCK)
                await writer.drain()

        group.create_task(send())
        await reader.readuntil(b"\r\n\r\n")
        digest = await reader.readexactly(32)
    writer.close()
    return digest


async def _ask(greenroom: Greenroom, first: bytes, lines: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await _connect(greenroom)
    writer.write(_head(greenroom, first, lines))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    return reader, writer


async def _connect(greenroom: Greenroom) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", greenroom.port, limit=MIB)


def _head(greenroom: Greenroom, first: bytes, lines: bytes) -> bytes:
    host = greenroom.host("bulk").encode()
    return first + b"Host: " + host + b"\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n" + lines + b"\r\n"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("direction", ["down", "up"])
async def test_flat_memory(greenroom: Greenroom, direction: str) -> None:
    """Two GiB streams at once, by checksum, in the memory that 64 MiB took, and little more."""
    assert greenroom.process is not None
    worker = psutil.Process(workers_of(greenroom.process.pid)[0])
    stream = _down if direction == "down" else _up
    await stream(greenroom, 256)
    before = most = worker.memory_info().rss
    is_over = asyncio.Event()

    async def watch() -> None:
        nonlocal most
        while not is_over.is_set():
            most = max(most, worker.memory_info().rss)
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        streams = [group.create_task(stream(greenroom, _GIB_BLOCKS)) for _ in range(_STREAMS)]
        digests = {await one for one in streams}
        is_over.set()
        await watching
    expected = hashlib.sha256()
    for _ in range(_GIB_BLOCKS):
        expected.update(_BLOCK)
    assert digests == {expected.digest()}
    assert most - before <= _STREAMS * _MOST_PER_STREAM, f"grew by {(most - before) / MIB:.1f} MiB"
