"""Where connections to runs lie between two requests, and how new ones are made."""

from __future__ import annotations

import asyncio

from gateway.core.model import Address
from gateway.proxy.decisions import monotonic
from gateway.proxy.reuse import IDLE_SECS, LAST_BYTES_SECS, MAX_IDLE
from gateway.proxy.route_table import LiveRun
from gateway.proxy.sockets import is_quiet
from gateway.proxy.splice.answer_cache import AnswerHeads
from gateway.proxy.splice.back import Back
from gateway.proxy.splice.wheel import NEVER, Wheel
from gateway.proxy.upstream import UpstreamRefused


class Pool:
    """The idle connections to one run, the one used last on top. The wheel closes those that lie for too long."""

    __slots__ = ("_wheel", "address", "deadline", "idle", "is_forgotten", "visit_at")

    def __init__(self, address: Address, wheel: Wheel) -> None:
        self._wheel = wheel
        self.address = address
        self.idle: list[Back] = []
        self.is_forgotten = False
        self.deadline = NEVER
        self.visit_at = NEVER

    def take(self, now: float, *, must_look: bool) -> Back | None:
        """One that should still stand; with *must_look* one that stood a moment ago. None where there is none."""
        idle = self.idle
        while idle:
            back = idle.pop()
            transport = back.transport
            if back.idle_until > now and not transport.is_closing() and not (must_look and not is_quiet(transport)):
                return back
            transport.abort()
        return None

    def keep(self, back: Back, now: float) -> None:
        """Put *back* in, unless its run has ended or enough lie ready."""
        if self.is_forgotten or len(self.idle) >= MAX_IDLE:
            back.transport.close()
            return
        back.idle_until = now + IDLE_SECS
        self.idle.append(back)
        if self.deadline == NEVER:
            self.deadline = back.idle_until
            self._wheel.watch(self)

    def drop(self, back: Back) -> None:
        """It has ended."""
        if back in self.idle:
            self.idle.remove(back)

    def end(self) -> None:
        """Close what is idle, and keep nothing more."""
        self.is_forgotten = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close what is idle."""
        for back in list(self.idle):
            back.transport.abort()
        self.idle.clear()
        self._wheel.forget(self)
        self.deadline = NEVER

    def expired(self, now: float) -> None:
        """Close those whose time is over; the oldest lies at the bottom."""
        old = [back for back in self.idle if back.idle_until <= now]
        for back in old:
            self.idle.remove(back)
            back.transport.abort()
        self.deadline = min((back.idle_until for back in self.idle), default=NEVER)


class _Last:
    """Sees to it that the connections of an ended run end, too."""

    __slots__ = ("_pool", "_pools", "deadline", "visit_at")

    def __init__(self, pools: Pools, pool: Pool, now: float) -> None:
        self._pools = pools
        self._pool = pool
        self.deadline = now + LAST_BYTES_SECS
        self.visit_at = NEVER

    def expired(self, now: float) -> None:
        """Cut those on which nothing has come since the last look although it would have been read."""
        if self._pools.cut_silent(self._pool):
            self.deadline = now + LAST_BYTES_SECS


class Pools:
    """All connections of the protocol class to runs. Belongs to one event loop; call ``aclose`` in the end."""

    def __init__(self, wheel: Wheel, answers: AnswerHeads, *, connect_timeout_secs: float) -> None:
        self._wheel = wheel
        self._answers = answers
        self._connect_timeout_secs = connect_timeout_secs
        self._pools: dict[LiveRun, Pool] = {}
        self.of = self._pools.get
        """Where the connections to a run lie; None where there has been none yet."""
        self._open: set[Back] = set()
        self._empty: asyncio.Event | None = None

    async def connect(self, run: LiveRun) -> Back:
        """
        A new connection to *run*; raises UpstreamRefused where none comes about in time.

        To be used at once: whoever is cancelled meanwhile leaves nothing behind.
        """
        address = run.route.address
        assert address is not None
        pool = self._pools.get(run)
        if pool is None or pool.address != address:
            if pool is not None:
                self.forget(run, monotonic())
            pool = Pool(address, self._wheel)
            pool.is_forgotten = run.is_gone
            if not run.is_gone:
                self._pools[run] = pool
        back = Back(pool, self._answers, self._gone)
        try:
            async with asyncio.timeout(self._connect_timeout_secs):
                await asyncio.get_running_loop().create_connection(lambda: back, address.host, address.port)
        except TimeoutError as error:
            raise UpstreamRefused(address, f"took no connection within {self._connect_timeout_secs:g} s") from error
        except OSError as error:
            raise UpstreamRefused(address, f"took no connection ({error.strerror or error})") from error
        except asyncio.CancelledError:
            if back.transport is not None:
                back.transport.abort()
            raise
        if not back.is_lost:
            self._open.add(back)
        return back

    def forget(self, run: LiveRun, now: float) -> None:
        """*run* has ended: close what is idle, and keep nothing of what is still in use, which is cut when silent."""
        pool = self._pools.pop(run, None)
        if pool is not None:
            pool.end()
            self._wheel.watch(_Last(self, pool, now))

    def close_idle(self, run: LiveRun) -> None:
        """*run* is to stand still: when it goes on, its server's patience with them may be at an end."""
        pool = self._pools.get(run)
        if pool is not None:
            pool.close_idle()

    def cut_silent(self, pool: Pool) -> bool:
        """Cut those of *pool* on which nothing has come since the last call; whether any is left."""
        is_any_left = False
        for back in [one for one in self._open if one.pool is pool]:
            if back.is_read_paused or back.has_news:
                back.has_news = False
                is_any_left = True
            else:
                back.transport.abort()
        return is_any_left

    def idle_connections(self, run: LiveRun) -> int:
        """How many connections to *run* lie ready."""
        pool = self._pools.get(run)
        return len(pool.idle) if pool is not None else 0

    def let_go(self, back: Back) -> None:
        """*back* belongs to somebody else now."""
        self._open.discard(back)

    async def aclose(self) -> None:
        """Cut every connection, and wait until they are gone."""
        for pool in self._pools.values():
            pool.end()
        self._pools.clear()
        for back in list(self._open):
            back.transport.abort()
        if self._open:
            self._empty = asyncio.Event()
            await self._empty.wait()

    def _gone(self, back: Back) -> None:
        self._open.discard(back)
        if not self._open and self._empty is not None:
            self._empty.set()
