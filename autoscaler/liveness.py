"""
Runs whose Actors name a path for it are asked whether they are alive, as long as they serve; the dead are replaced.

The questions go to a run directly and past the gateway: they are no use of it, and no request waits for them. One that
is frozen is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.core.lifecycle import Readiness
from gateway.core.model import Address
from gateway.core.standby import PoolKey, StandbyConfig
from gateway.state.ports import RouteChange, RouteEnded, RoutesReset, RunRoute, Signals, StateUnavailable

_log = logging.getLogger(__name__)

FAILURES = 3
ANSWER_SECS = 5.0
_AT_ONCE = 50
_STATUS_LINE = re.compile(rb"HTTP/\d(?:\.\d)? (\d{3})")
_LONGEST_LINE_BYTES = 4096
_LINGER_SECS = 0.05


@dataclass(slots=True, eq=False)
class _Watched:
    """A run that serves: when it was asked last, and how often in a row it has not answered well."""

    run_id: str
    pool: PoolKey
    address: Address
    asked_at: float
    failures: int = 0
    is_asked: bool = False


@dataclass(slots=True, kw_only=True)
class Liveness:
    """
    *config* tells the settings of a pool, None where it has none any more. *give_up* is told of a dead run, and why.
    *clock* is monotonic. Who is due is looked for every *look_secs*.
    """

    signals: Signals
    config: Callable[[PoolKey], StandbyConfig | None]
    give_up: Callable[[str, str], None]
    clock: Callable[[], float] = time.monotonic
    look_secs: float = 0.5
    answer_secs: float = ANSWER_SECS
    _watched: dict[str, _Watched] = field(default_factory=dict)

    async def watch(self) -> None:
        """For ever. Raises StateUnavailable."""
        self._watched.clear()
        trouble: StateUnavailable | None = None
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(self._ask_for_ever())
            try:
                async with self.signals.watch_routes() as changes:
                    async for numbered in changes:
                        self._take_in(numbered.change)
            except StateUnavailable as error:  # kept aside: a TaskGroup would wrap it
                trouble = error
            finally:
                asking.cancel()
        if trouble is not None:
            raise trouble

    def _take_in(self, change: RouteChange) -> None:
        match change:
            case RunRoute():
                self._put(change)
            case RouteEnded():
                self._watched.pop(change.run_id, None)
            case RoutesReset():
                present = {route.run_id for route in change.routes}
                for run_id in self._watched.keys() - present:
                    del self._watched[run_id]
                for route in change.routes:
                    self._put(route)

    def _put(self, route: RunRoute) -> None:
        if route.readiness is not Readiness.SERVING or route.pool is None or route.address is None:
            self._watched.pop(route.run_id, None)
        elif route.run_id not in self._watched:
            self._watched[route.run_id] = _Watched(
                run_id=route.run_id,
                pool=route.pool,
                address=route.address,
                asked_at=self.clock(),
            )

    async def _ask_for_ever(self) -> None:
        slots = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                now = self.clock()
                for watched in self._watched.values():
                    config = self.config(watched.pool)
                    if config is None or config.liveness_path is None:
                        watched.asked_at, watched.failures = now, 0
                    elif now - watched.asked_at >= config.liveness_every_secs and not watched.is_asked:
                        watched.asked_at, watched.is_asked = now, True
                        group.create_task(self._ask(watched, config.liveness_path, slots))
                await asyncio.sleep(self.look_secs)

    async def _ask(self, watched: _Watched, path: str, slots: asyncio.Semaphore) -> None:
        try:
            async with slots:
                problem = await problem_of(watched.address, path, answer_secs=self.answer_secs)
        finally:
            watched.is_asked = False
        if self._watched.get(watched.run_id) is not watched:
            return  # it has been frozen meanwhile, drains or is gone: what it said counts for nothing
        watched.failures = watched.failures + 1 if problem else 0
        if watched.failures >= FAILURES:
            self._give_up(watched, f"{FAILURES} times in a row it was not alive: GET {path}: {problem}")

    def _give_up(self, watched: _Watched, reason: str) -> None:
        del self._watched[watched.run_id]
        _log.warning("replacing a run: %s", reason, extra={"run_id": watched.run_id})
        self.give_up(watched.run_id, reason)


async def problem_of(address: Address, path: str, *, answer_secs: float = ANSWER_SECS) -> str | None:
    """What is wrong with the answer of *path*, in words; None: it came in time, and its status is below 500."""
    try:
        async with asyncio.timeout(answer_secs):
            status = await _status_of(address, path)
    except TimeoutError:
        return f"no answer within {answer_secs:g} s"
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    if status is None:
        return "what answers is not HTTP"
    return f"answered {status}" if status >= 500 else None


async def _status_of(address: Address, path: str) -> int | None:
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=_LONGEST_LINE_BYTES)
    try:
        host = f"[{address.host}]" if ":" in address.host else address.host
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{address.port}\r\nUser-Agent: greenroom-liveness\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        found = _STATUS_LINE.match(await reader.readline())
        # A server whose connection is reset while it writes would complain in its log.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECS):
                while await reader.read(_LONGEST_LINE_BYTES):
                    pass
        return int(found[1]) if found else None
    finally:
        writer.close()
