"""One kept connection to the balancer, and requests by it whose every outcome is a value."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any

from loadtests.server import TOKEN


@dataclass(frozen=True)
class Reply:
    """An answer, or why there is none: *status* is None then and *problem* says it."""

    status: int | None
    body: bytes = b""
    gateway: str = ""
    problem: str = ""

    @property
    def value(self) -> Any:
        """The JSON in it; None for what is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def error_type(self) -> str:
        """The type of a refusal, empty where it has none."""
        value = self.value
        error = value.get("error") if isinstance(value, dict) else None
        return str(error.get("type", "")) if isinstance(error, dict) else ""


class Caller:
    """Asks one port, one request at a time; connects anew when its connection has ended."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def close(self) -> None:
        """No more requests."""
        if self._ends is not None:
            self._ends[1].transport.abort()
            self._ends = None

    async def ask(
        self,
        method: str,
        path: str,
        *,
        host: str,
        within_secs: float,
        body: bytes = b"",
        kind: str = "application/json",
    ) -> Reply:
        """One request. Nothing is raised but cancellation."""
        try:
            async with asyncio.timeout(within_secs):
                reply, is_kept = await self._exchange(method, path, host, body, kind)
        except TimeoutError:
            self.close()
            return Reply(None, problem=f"no answer within {within_secs:g} s")
        except (OSError, EOFError, ValueError, IndexError, asyncio.LimitOverrunError) as error:
            self.close()
            return Reply(None, problem=f"{type(error).__name__}: {error}")
        if not is_kept:
            self.close()
        return reply

    async def _exchange(self, method: str, path: str, host: str, body: bytes, kind: str) -> tuple[Reply, bool]:
        if self._ends is not None and self._ends[0].at_eof():
            self.close()
        if self._ends is None:
            self._ends = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._ends
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {TOKEN}"]
        if method != "GET":
            lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.split("\r\n")
        if not first.startswith("HTTP/1."):
            raise ValueError(f"no HTTP: {first[:80]!r}")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        is_kept = fields.get("connection", "").lower() != "close"
        if fields.get("transfer-encoding", "").lower() == "chunked":
            answer = await _chunks(reader)
        elif "content-length" in fields:
            answer = await reader.readexactly(int(fields["content-length"]))
        else:
            answer, is_kept = await reader.read(), False
        status = int(first.split()[1])
        reply = Reply(status, answer, fields.get("x-gateway", ""))
        if status >= 300:
            text = answer[:200].decode(errors="replace")
            reply = Reply(status, answer, reply.gateway, f"{status} {reply.error_type or text}")
        return reply, is_kept


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    pieces = []
    while size := int(await reader.readline(), 16):
        pieces.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while (await reader.readline()).strip():
        pass
    return b"".join(pieces)


@contextlib.contextmanager
def closing(*callers: Caller) -> Any:
    """They are closed at the end."""
    try:
        yield
    finally:
        for caller in callers:
            caller.close()
