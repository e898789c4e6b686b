"""Scenes: large bodies in either direction, and sides that read slowly."""

from __future__ import annotations

import hashlib
import threading
import time

from proxy.suite.recorder import Turn
from proxy.suite.scenes import is_in_step, only_request, plays, request_of, says, scene, wait_gone
from proxy.suite.stage import Door

MIB = 1024 * 1024
_BLOCK = bytes(range(256)) * 256
# The kernel's buffers of four sockets may take 20 MiB of it, the gateway's own little more: never all of the flood.
_FLOOD = 128 * MIB
_MOST_WAITING = 48 * MIB


def _blocks(count: int) -> bytes:
    total = hashlib.sha256()
    for _ in range(count):
        total.update(_BLOCK)
    return total.digest()


async def _digest(turn: Turn) -> None:
    """Answer with the checksum of the body."""
    body = await turn.body()
    await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n" + hashlib.sha256(body).digest())


@scene
def ten_mib_up(door: Door) -> None:
    """A large body of known length arrives as it was sent."""
    plays(door, _digest)
    with door.connect() as client:
        client.send(request_of(door, b"Content-Length: %d" % (10 * MIB), method=b"POST") + _BLOCK * 160)
        assert client.final().body == _blocks(160)
        is_in_step(door, client)


@scene
def ten_mib_up_in_chunks(door: Door) -> None:
    """A large body of unknown length arrives as it was sent."""
    plays(door, _digest)
    with door.connect() as client:
        client.send(request_of(door, b"Transfer-Encoding: chunked", method=b"POST"))
        client.send((b"10000\r\n" + _BLOCK + b"\r\n") * 160 + b"0\r\n\r\n")
        assert client.final().body == _blocks(160)
        is_in_step(door, client)


@scene
def ten_mib_down(door: Door) -> None:
    """A large answer of known length arrives as it was sent."""
    says(door, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (10 * MIB), *[_BLOCK] * 160)
    with door.connect() as client:
        client.send(request_of(door))
        assert hashlib.sha256(client.final().body).digest() == _blocks(160)
        is_in_step(door, client)


@scene
def ten_mib_down_in_chunks(door: Door) -> None:
    """A large answer of unknown length arrives as it was sent."""
    chunk = b"10000\r\n" + _BLOCK + b"\r\n"
    says(door, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[chunk] * 160, b"0\r\n\r\n")
    with door.connect() as client:
        client.send(request_of(door))
        assert hashlib.sha256(client.final().body).digest() == _blocks(160)
        is_in_step(door, client)


@scene
def ten_mib_both_ways_at_once(door: Door) -> None:
    """An Actor that sends back what it gets, while it gets it, is no dead-lock."""

    async def echo(turn: Turn) -> None:
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (10 * MIB))
        left = 10 * MIB
        while left:
            piece = await turn.some_body()
            left -= len(piece)
            await turn.write(piece)
        turn.close()

    plays(door, echo)
    with door.connect() as client:
        sender = threading.Thread(
            target=client.send,
            args=(request_of(door, b"Content-Length: %d" % (10 * MIB), method=b"POST") + _BLOCK * 160,),
        )
        sender.start()
        try:
            assert hashlib.sha256(client.final().body).digest() == _blocks(160)
        finally:
            sender.join(20)


@scene
def a_caller_who_reads_slowly(door: Door) -> None:
    """The Actor is slowed down: not more than some MiB wait between the two."""
    written = 0

    async def flood(turn: Turn) -> None:
        nonlocal written
        await turn.body()
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (_FLOOD))
        for _ in range(_FLOOD // len(_BLOCK)):
            await turn.write(_BLOCK)
            written += len(_BLOCK)

    plays(door, flood)
    with door.connect(read_buffer_bytes=65_536) as client:
        client.send(request_of(door))
        client.head()
        before = -1
        while before != written:  # until nothing moves any more
            before = written
            time.sleep(0.1)
        assert written < _MOST_WAITING
        number = only_request(door).connection.number
    wait_gone(door, number)


@scene
def an_actor_that_reads_slowly(door: Door) -> None:
    """The caller is slowed down: not more than some MiB wait between the two."""

    async def stall(turn: Turn) -> None:
        begun.open()
        await go.opened()
        turn.reset()

    begun, go = door.recorder.gate(), door.recorder.gate()
    plays(door, stall)
    with door.connect() as client:
        client.send(request_of(door, b"Content-Length: %d" % (_FLOOD), method=b"POST"))
        begun.wait()
        client.sock.settimeout(0.3)
        sent = 0
        try:
            while sent < _FLOOD:
                sent += client.sock.send(_BLOCK)
        except TimeoutError:
            pass
        finally:
            go.open()
        assert sent < _MOST_WAITING
