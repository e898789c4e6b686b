"""
An Actor as people use them: a page, an echo, a stream of events, a WebSocket; as standby and as a run with a live view.

``/`` a page; ``POST /echo`` says back what it was sent; ``/events?count=5&pause=0.2`` server-sent events;
``/ws`` echoes the text messages of a WebSocket.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
from urllib.parse import parse_qs, urlsplit

PAGE = b"<!doctype html><title>usage</title><h1>It serves</h1>" + b"<p>A page of a usual size.</p>" * 60
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def answer(writer, body, kind):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


async def events(writer, query):
    """*count* events, one each *pause* seconds."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(int(query.get("count", ["5"])[0])):
        event = b"data: %d\n\n" % number
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await writer.drain()
        await asyncio.sleep(float(query.get("pause", ["0.2"])[0]))
    writer.write(b"0\r\n\r\n")


async def frames(reader):
    """What comes, frame by frame: opcode and payload. Callers of load tests send no fragments."""
    while True:
        first, length = await reader.readexactly(2)
        length &= 127
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await reader.readexactly(8), "big")
        mask = await reader.readexactly(4)
        masked = await reader.readexactly(length)
        yield first & 15, bytes(byte ^ mask[at & 3] for at, byte in enumerate(masked))


def frame(opcode, payload):
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes([128 | opcode]) + length + payload


async def socket(reader, writer, key):
    """Echo until the caller closes."""
    accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
    writer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )
    async for opcode, payload in frames(reader):
        if opcode == 9:  # a ping
            writer.write(frame(10, payload))
        elif opcode in (1, 2):
            writer.write(frame(opcode, payload))
        elif opcode == 8:
            writer.write(frame(8, payload))
            await writer.drain()
            return
        await writer.drain()


async def serve(reader, writer):
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            url = urlsplit(first.split()[1])
            body = await reader.readexactly(int(fields.get("content-length", 0)))
            if "sec-websocket-key" in fields:
                await socket(reader, writer, fields["sec-websocket-key"])
                break
            if url.path == "/events":
                await events(writer, parse_qs(url.query))
            elif url.path == "/echo":
                answer(writer, body, fields.get("content-type", "application/octet-stream"))
            else:
                answer(writer, PAGE, "text/html; charset=utf-8")
            await writer.drain()
    writer.close()


async def main():
    port = int(os.environ["ACTOR_WEB_SERVER_PORT"])
    async with await asyncio.start_server(serve, "127.0.0.1", port, backlog=256) as server:
        await server.serve_forever()


asyncio.run(main())
