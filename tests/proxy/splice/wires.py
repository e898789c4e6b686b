"""
The protocol class between fake transports: one caller and one connection to the run that serves him, with all of a real
gateway behind it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from proxy.suite.stage import TOKEN, Stand, open_stand
from uvicorn.server import ServerState

from gateway.proxy.route_table import LiveRun
from gateway.proxy.splice.back import Back
from gateway.proxy.splice.front import Front
from gateway.proxy.splice.pool import Pool

REQUEST = (
    b"GET /path?a=b HTTP/1.1\r\nHost: bob--shut-warm.localhost\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
    b"User-Agent: test\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n"
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: test\r\nDate: Thu, 26 Nov 2026 04:40:29 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 100\r\n\r\n" + b"x" * 100
)


class Wire:
    """A transport that goes nowhere and keeps what is written."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.written: list[bytes] = []
        self._address = address

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, pieces: list[bytes]) -> None:
        self.written.append(b"".join(pieces))

    def get_extra_info(self, name: str) -> Any:
        return (self._address, 1) if name == "peername" else None

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        """Nothing stands."""


class Bench:
    """One caller and one connection to the *run* that serves him."""

    def __init__(self, stand: Stand, run: LiveRun) -> None:
        self.stand, self.run = stand, run
        self.splicing = stand.gateway.splicing
        self.front, self.caller = self.connect()
        assert run.route.address is not None
        self.actor = Wire()
        self.pool = Pool(run.route.address, self.splicing.lobby.wheel)
        self.splicing.pools._pools[run] = self.pool
        self._back = Back(self.pool, self.splicing.answers, lambda _: None)
        self._back.connection_made(cast(Any, self.actor))
        self.pool.keep(self._back, time.monotonic())
        self._back.is_reused = True

    def connect(self, address: str = "127.0.0.1") -> tuple[Front, Wire]:
        """Another connection of a caller."""
        caller = Wire(address)
        front = Front(cast(Any, None), ServerState(), {}, None, shared=self.splicing, inner=cast(Any, None))
        front.connection_made(cast(Any, caller))
        return front, caller

    def exchange(self, request: bytes = REQUEST, answer: bytes = ANSWER) -> None:
        """A request, and its answer."""
        self.front.data_received(request)
        self.answer(answer)

    def answer(self, answer: bytes = ANSWER) -> None:
        """That of the Actor."""
        self._back.data_received(answer)


@contextlib.asynccontextmanager
async def open_bench(folder: Path) -> AsyncIterator[Bench]:
    """Warm: the token is known, the connection lies ready, and one request was answered."""
    async with open_stand(folder, proxy_protocol="splice") as stand:
        run = next(one for one in stand.gateway.desk.routes.all_runs() if one.route.actor_id.startswith("Shut"))
        await stand.gateway.services.auth.principal(TOKEN)
        bench = Bench(stand, run)
        bench.exchange()
        yield bench
        bench.front.connection_lost(None)
