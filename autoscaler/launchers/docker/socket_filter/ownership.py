"""Whose object is it? The filter asks the engine, and remembers what can't change: the labels of a container."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import httptools

from autoscaler.launchers.docker.socket_filter.forbidden import Forbidden, NotThere
from autoscaler.launchers.docker.socket_filter.rules import Call, Kind
from gateway.installation import INSTALLATION_LABEL, Installation

_REMEMBERED = 10_000
_ASK_SECS = 60.0
_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_PATHS: dict[Kind, str] = {"containers": "/containers/{}/json", "images": "/images/{}/json", "networks": "/networks/{}"}


class EngineAway(Exception):
    """The engine does not answer: there is nothing that a client could be told."""


class Ownership:
    """What of the engine at *engine* is *installation*'s."""

    def __init__(self, engine: Path, installation: Installation) -> None:
        self._engine = engine
        self._installation = installation
        self._own: OrderedDict[str, None] = OrderedDict()

    async def target(self, call: Call) -> str:
        """
        The target of *call*, its object named by what can't come to mean another one meanwhile.

        Raises Forbidden (somebody else's), NotThere or EngineAway.
        """
        if call.kind is None:
            return call.target()
        if call.reference in self._own:
            return call.target()
        status, content = await _ask(self._engine, _PATHS[call.kind].replace("{}", call.reference))
        if status == 404:
            raise NotThere(_message(content))
        described = json.loads(content) if status == 200 else {}
        place = described if call.kind == "networks" else described.get("Config") or {}
        if (place.get("Labels") or {}).get(INSTALLATION_LABEL) != self._installation.id:
            raise Forbidden(f"{call.kind} {call.reference} without the label {self._installation.label}")
        if call.kind == "images":  # one image may have several names, and the call may be about just this one
            return call.target()
        full_id = str(described["Id"])
        if call.kind == "containers" and call.reference == full_id:
            self._own[full_id] = None
            if len(self._own) > _REMEMBERED:
                self._own.popitem(last=False)
        return call.target(full_id)


class _Answer:
    def __init__(self) -> None:
        self.content = bytearray()
        self.is_complete = False

    def on_body(self, piece: bytes) -> None:
        self.content += piece

    def on_message_complete(self) -> None:
        self.is_complete = True


async def connected(engine: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the engine. Raises EngineAway."""
    try:
        return await asyncio.open_unix_connection(str(engine))
    except OSError as error:
        raise EngineAway(f"the engine at {engine} does not answer: {error.strerror or error}") from error


async def _ask(engine: Path, path: str) -> tuple[int, bytes]:
    answer = _Answer()
    parser: Any = httptools.HttpResponseParser(answer)
    async with asyncio.timeout(_ASK_SECS):
        reader, writer = await connected(engine)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode())
            while not answer.is_complete:
                data = await reader.read(65536)
                if not data or len(answer.content) > _MAX_ANSWER_BYTES:
                    raise EngineAway("the engine broke off an answer")
                parser.feed_data(data)
        finally:
            writer.close()
    return parser.get_status_code(), bytes(answer.content)


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return "no such object"
