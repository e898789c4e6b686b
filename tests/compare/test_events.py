"""How soon an event passes, measured past any gateway: the measuring itself."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import loadtests
from loadtests.compare_events import first_events_ms
from loadtests.compare_targets import NotMeasured, free_port
from loadtests.server import Server

ACTOR = Path(loadtests.__file__).parent / "actors" / "events" / "main.py"


def server_on(port: int) -> Server:
    """As far as it is looked at."""
    return Server(port=port, data=Path(), log=Path(), pid=0)


@pytest.fixture
def actor() -> Iterator[int]:
    """The Actor alone, on its port, once it listens."""
    port = free_port()
    process = subprocess.Popen([sys.executable, ACTOR], env=os.environ | {"ACTOR_WEB_SERVER_PORT": str(port)})
    deadline = time.monotonic() + 20
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()


async def test_each_stream_gives_a_time(actor: int) -> None:
    """From the write to the read, so never nothing; and the first of its events counts, not the last."""
    took = await first_events_ms(server_on(actor), 5)
    assert len(took) == 5
    assert all(value > 0 for value in took)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", id="refused"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="no event"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nda", id="broken off"),
    ],
)
async def test_what_gives_no_figure(answer: bytes) -> None:
    """It is told, and never assumed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        with pytest.raises(NotMeasured):
            await first_events_ms(server_on(server.sockets[0].getsockname()[1]), 1)
