"""
The filter at work: one connection, one request, one answer. What may pass is written anew to the engine, on a
connection of its own; the engine's answer is copied byte for byte as it comes, until either side ends.

With an engine that is out of reach the client is left without an answer, as by the engine itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
from collections.abc import Callable
from pathlib import Path

from autoscaler.launchers.docker.socket_filter.bodies import read_json
from autoscaler.launchers.docker.socket_filter.forbidden import Forbidden, Malformed, NotYet, answer_to
from autoscaler.launchers.docker.socket_filter.ownership import EngineAway, Ownership, connected
from autoscaler.launchers.docker.socket_filter.request import Request
from autoscaler.launchers.docker.socket_filter.rules import Call, judge
from gateway.core.errors import GreenroomError
from gateway.installation import Installation

_log = logging.getLogger(__name__)

MAX_CONNECTIONS = 4096
_HEAD_SECS = 10.0
_BODY_SECS = 60.0  # of one in JSON
_LAST_WORDS_SECS = 5.0  # for what a client still sends that has its answer already
_HALF_CLOSED_SECS = 600.0  # for the answer to a client that has sent all that it will
_ACCEPT_PAUSE_SECS = 0.2
_COPY_BYTES = 64 * 1024
_BASE64 = re.compile(rb"[A-Za-z0-9+/_=-]{1,65536}")


class SocketFilter:
    """
    Lets pass to the engine at *engine* what Greenroom needs. *installation* tells whose objects these are; None: that
    is not known yet. Once known it stays, whatever becomes of where it stands.
    """

    def __init__(self, engine: Path, installation: Callable[[], Installation | None]) -> None:
        self._engine = engine
        self._find_installation = installation
        self._known: tuple[Installation, Ownership] | None = None
        self._connections = 0

    async def serve(self, listener: socket.socket) -> None:
        """Until cancelled; then every connection ends."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as connections:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:  # no file descriptors left, for example
                    _log.error("a connection can't be accepted: %s", error)
                    await asyncio.sleep(_ACCEPT_PAUSE_SECS)
                    continue
                if self._connections >= MAX_CONNECTIONS:
                    connection.close()
                    continue
                self._connections += 1
                connections.create_task(self._serve_one(connection))

    async def _serve_one(self, connection: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_unix_connection(sock=connection)
            try:
                await self._answer(Request(reader), writer)
            except EngineAway as error:
                _log.warning("%s", error)
            except OSError as error:  # TimeoutError is one
                _log.debug("a connection broke: %s", error)
            finally:
                writer.close()
        except Exception:
            _log.exception("a connection was given up")
        finally:
            self._connections -= 1

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_SECS):
                if not await request.read_head():
                    return
            call, head, content = await self._judged(request)
        except GreenroomError as error:
            if isinstance(error, Forbidden | Malformed):
                _log.warning("refused: %s", error.message)
            writer.write(answer_to(error))
            await writer.drain()
        else:
            await self._pass_on(request, writer, head + content, is_stream=call.stream)
        writer.write_eof()
        async with asyncio.timeout(_LAST_WORDS_SECS):  # closing with something unread would take the answer back
            await request.left()

    async def _judged(self, request: Request) -> tuple[Call, bytes, bytes]:
        """What may pass: the call, and its head and body (that of a stream not yet) as the engine is told of them."""
        installation, ownership = self._whose()
        call = judge(request.method, request.target, installation)
        content = b""
        if not call.stream:
            async with asyncio.timeout(_BODY_SECS):
                given = await request.whole_body()
            if call.body is not None:
                content = json.dumps(call.body(read_json(given), installation)).encode()
            elif given:
                raise Malformed("This call takes no body.")
        return call, _head(call, await ownership.target(call), len(content), request.registry_config), content

    def _whose(self) -> tuple[Installation, Ownership]:
        if self._known is None:
            installation = self._find_installation()
            if installation is None:
                raise NotYet(
                    "The socket filter does not know its Greenroom yet: its data folder has no 'installation'."
                )
            self._known = installation, Ownership(self._engine, installation)
        return self._known

    async def _pass_on(
        self, request: Request, writer: asyncio.StreamWriter, message: bytes, *, is_stream: bool
    ) -> None:
        engine_reader, engine_writer = await connected(self._engine)
        try:
            engine_writer.write(message)
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(_send_on(request, engine_writer, limit, is_stream=is_stream))
                await _copy(engine_reader, writer)
                sending.cancel()
        finally:
            engine_writer.close()


async def _send_on(request: Request, engine: asyncio.StreamWriter, limit: asyncio.Timeout, *, is_stream: bool) -> None:
    """The body of a stream; then wait for the client's end, of which the engine is told: it gives up what it does."""
    try:
        if is_stream:
            async for piece in request.body():
                engine.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await engine.drain()
            engine.write(b"0\r\n\r\n")
        await engine.drain()
        await request.left()
        engine.write_eof()
        limit.reschedule(asyncio.get_running_loop().time() + _HALF_CLOSED_SECS)
    except (OSError, Malformed):
        engine.transport.abort()  # what broke off must not look whole


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one of both sides ends."""
    with contextlib.suppress(OSError):
        while data := await reader.read(_COPY_BYTES):
            writer.write(data)
            await writer.drain()


def _head(call: Call, target: str, content_length: int, registry_config: bytes | None) -> bytes:
    lines = [f"{call.method} {target} HTTP/1.1", "Host: docker", "Connection: close"]
    if call.stream:
        lines += ["Content-Type: application/x-tar", "Transfer-Encoding: chunked"]
        if registry_config is not None and _BASE64.fullmatch(registry_config):
            lines.append(f"X-Registry-Config: {registry_config.decode()}")
    elif call.body is not None:
        lines.append("Content-Type: application/json")
    if call.method == "POST" and not call.stream:
        lines.append(f"Content-Length: {content_length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
