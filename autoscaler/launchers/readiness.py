"""
The readiness probe: asks a run's web server ``GET /`` until it answers. Any HTTP answer means that it serves.

The probe carries ``x-apify-container-server-readiness-probe: 1``, as the platform's does, so an Actor can answer it
cheaply.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from dataclasses import dataclass

from gateway.core.model import Address

PROBE_HEADER = "x-apify-container-server-readiness-probe"

_LONGEST_INTERVAL_SECS = 0.25
_ANSWER_SECS = 2.0
_LINGER_SECS = 0.01
_STATUS_LINE = re.compile(rb"HTTP/\d(?:\.\d)? (\d{3})")
_STATUS_LINE_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """
    The *status* that the server answered with, or None where it didn't in time, with the *problem* in words.

    ``waited_secs`` is how long it took. A status of 500 or more serves too, but is worth a warning.
    """

    status: int | None
    problem: str | None = None
    waited_secs: float

    @property
    def is_serving(self) -> bool:
        """Whether there was an HTTP answer."""
        return self.status is not None


def next_interval(elapsed_secs: float, first_interval_secs: float) -> float:
    """
    The pause before the next probe: a sixtieth of the time so far, at least the first one, at most 250 ms.

    So asking adds less than 2 % to what the server itself takes, and costs little where that is long: with 2 ms first,
    2 ms until 120 ms have passed, 50 ms after 3 s. A first interval above 250 ms stays as it is.
    """
    return max(first_interval_secs, min(_LONGEST_INTERVAL_SECS, elapsed_secs / 60))


async def wait_until_serving(
    address: Address, *, timeout_secs: float, first_interval_secs: float = 0.002
) -> ProbeResult:
    """
    Ask until there is an HTTP answer, or *timeout_secs* have passed; never raises for what the server does.

    A server that accepts but is slow to answer is asked again after 2 s, while the first question stays open: there
    are never more than two connections. Adds at most one interval and a round trip to the server's own time.
    """
    prober = _Prober(address, first_interval_secs)
    try:
        async with asyncio.timeout(timeout_secs), asyncio.TaskGroup() as tasks:
            status = await prober.run(tasks)
        return ProbeResult(status=status, waited_secs=prober.elapsed_secs())
    except TimeoutError:
        return ProbeResult(status=None, problem=prober.problem, waited_secs=prober.elapsed_secs())


class _Prober:
    def __init__(self, address: Address, first_interval_secs: float) -> None:
        self._address = address
        self._family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._first_interval_secs = first_interval_secs
        self._began = time.monotonic()
        host = f"[{address.host}]" if ":" in address.host else address.host
        self._question = (
            f"GET / HTTP/1.1\r\nHost: {host}:{address.port}\r\n{PROBE_HEADER}: 1\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n"
        ).encode()
        self._nobody = f"nothing listens on port {address.port} of {address.host}"
        self.problem = self._nobody

    def elapsed_secs(self) -> float:
        return time.monotonic() - self._began

    async def run(self, tasks: asyncio.TaskGroup) -> int:
        """The status of the first answer; the questions still open then are dropped."""
        patient: asyncio.Task[int | None] | None = None
        while True:
            connection = await self._connect()
            if connection is not None:
                question = tasks.create_task(self._ask(connection))
                open_questions = {question} if patient is None else {question, patient}
                answered, _ = await asyncio.wait(
                    open_questions, timeout=_ANSWER_SECS, return_when=asyncio.FIRST_COMPLETED
                )
                statuses = [status for one in answered if (status := one.result()) is not None]
                if statuses:
                    for one in open_questions - answered:
                        one.cancel()
                    return statuses[0]
                if patient in answered:
                    patient = None
                if question not in answered:
                    if patient is None:
                        patient = question
                    else:
                        question.cancel()
            elif patient is not None and patient.done():
                if (status := patient.result()) is not None:
                    return status
                patient = None
            await asyncio.sleep(next_interval(self.elapsed_secs(), self._first_interval_secs))

    async def _connect(self) -> socket.socket | None:
        connection = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(_ANSWER_SECS):
                await asyncio.get_running_loop().sock_connect(connection, (self._address.host, self._address.port))
        except (OSError, TimeoutError):
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        return connection

    async def _ask(self, connection: socket.socket) -> int | None:
        """The status of the answer on this connection, or None where it isn't HTTP or the server hung up."""
        if self.problem == self._nobody:
            self.problem = f"port {self._address.port} accepts connections, but does not answer GET /"
        loop = asyncio.get_running_loop()
        with connection:
            try:
                await loop.sock_sendall(connection, self._question)
                head = b""
                while len(head) < _STATUS_LINE_BYTES:
                    chunk = await loop.sock_recv(connection, 4096)
                    if not chunk:
                        return None
                    head += chunk
            except OSError:
                return None
            found = _STATUS_LINE.match(head)
            if found is None:
                self.problem = f"what answers on port {self._address.port} is not HTTP"
                return None
            await _linger(connection)
            return int(found[1])


async def _linger(connection: socket.socket) -> None:
    """Take the rest of a short answer: a server whose connection is reset while it writes would complain in its log."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_LINGER_SECS):
            while await loop.sock_recv(connection, 64 * 1024):
                pass
    except (OSError, TimeoutError):
        pass
