"""
An Actor whose WebSockets are those of the library ``websockets``; what it does depends on the path.

Also answers ``/port`` with its port, so that a test can come to it past the gateway, and ``/refuse`` with 403.
"""

import asyncio
import contextlib
import http
import os
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

PORT = int(os.environ["ACTOR_WEB_SERVER_PORT"])


async def echo(socket, query):
    """Says back what it hears."""
    async for message in socket:
        await socket.send(message)


async def lengths(socket, query):
    """Says how long it is."""
    async for message in socket:
        await socket.send(str(len(message)))


async def fragments(socket, query):
    """Sends one message in three fragments, then one that ends when something is heard."""
    await socket.send(["a", "b", "c"])

    async def slowly():
        yield "begun, "
        await socket.recv()
        yield "and ended"

    await socket.send(slowly())
    await socket.wait_closed()


async def pinging(socket, query):
    """Pings and says so when the pong has come."""
    await (await socket.ping(b"from the Actor"))
    await socket.send("pong")
    await socket.wait_closed()


async def closing(socket, query):
    """Closes as it is told."""
    await socket.close(int(query["code"][0]), query["reason"][0])


async def dying(socket, query):
    """Cuts the connection when it hears something."""
    await socket.recv()
    socket.transport.abort()


async def large(socket, query):
    """Sends a message of so many bytes."""
    await socket.send(bytes(int(query["bytes"][0])))
    await socket.wait_closed()


async def handle(socket):
    url = urlsplit(socket.request.path)
    kind = {"fragments": fragments, "ping": pinging, "close": closing, "die": dying, "large": large,
            "lengths": lengths}.get(url.path.strip("/"), echo)  # fmt: skip
    with contextlib.suppress(ConnectionClosed):
        await kind(socket, parse_qs(url.query))
    await socket.wait_closed()
    print(f"{url.path} was closed with {socket.close_code} {socket.close_reason}", flush=True)


def answer(connection, request):
    """What is no WebSocket."""
    if request.path == "/port":
        return connection.respond(http.HTTPStatus.OK, str(PORT))
    if request.path == "/refuse":
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not here")
    if "Upgrade" not in request.headers:
        return connection.respond(http.HTTPStatus.OK, "ready")
    return None


def last_of(connection, offered):
    """The last subprotocol that was offered."""
    return offered[-1] if offered else None


async def main():
    options = {"ping_interval": None, "max_size": 32 * 1024 * 1024, "close_timeout": 5}
    async with serve(handle, "", PORT, process_request=answer, select_subprotocol=last_of, **options) as server:
        await server.serve_forever()


asyncio.run(main())
