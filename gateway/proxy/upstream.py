"""
Connections to runs: a lean HTTP/1.1 client with a pool of kept-alive connections per address.

What may be called when::

    exchange = await upstreams.send(address, head, method=…, body_length=…)
    [await exchange.write(chunk)]*  →  exchange.finish()          as the body comes; another task may do this
    await exchange.head(deadline)  →  [await exchange.next_piece()]* until b""
    exchange.release()                                            always, in ``finally``

A connection is used again only if request and answer ended as their framing says and not a byte was left over. There
is no task, queue or timer per request: one future per wait, and one wheel for the limits of all waits for an answer.

    UpstreamError
    ├── UpstreamRefused   no connection: not a byte was sent, or it may be sent twice, so any run may take the request
    ├── UpstreamDropped   the request was sent (at least in part), the connection ended, nothing of the answer came
    ├── UpstreamInvalid   what came is no HTTP answer
    ├── UpstreamTimeout   the first byte did not come in time
    └── UpstreamCut       the head had come; then the body broke off, broke the rules, or stood still for too long
    Abandoned             ``abandon`` was called: the caller is gone
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gateway.core.model import Address
from gateway.proxy.answer_reader import AnswerHead, AnswerReader, NotHttp
from gateway.proxy.connection import Connection, OpenConnections, Pool
from gateway.proxy.headers import CHUNKED
from gateway.proxy.reuse import IDEMPOTENT_WORDS, IDLE_SECS, LAST_BYTES_SECS, MAX_IDLE
from gateway.proxy.splice.upload import MAX_KEPT_BYTES
from gateway.proxy.splice.wheel import Wheel

_JOINED_BYTES = 32 * 1024  # up to here a copy costs less than a second buffer for the kernel
_LAST_BYTES_SECS = LAST_BYTES_SECS


class UpstreamError(Exception):
    """
    An exchange with a run failed; *address* says with which.

    The text is made to be read after "The Actor's web server": "dropped the connection".
    """

    def __init__(self, address: Address, message: str) -> None:
        super().__init__(message)
        self.address = address


class UpstreamRefused(UpstreamError):
    """No connection could be made: nothing was sent, and nothing of the caller's body was taken, unless ``taken``."""

    taken: bytes | None = None
    """The whole body, where the request may be sent twice and this was the second try: it is for whoever tries next."""


class UpstreamDropped(UpstreamError):
    """The connection ended before anything of the answer came; the Actor may have seen the request."""


class UpstreamInvalid(UpstreamError):
    """The Actor answered with something that is not HTTP/1.1."""


class UpstreamTimeout(UpstreamError):
    """The first byte of the answer did not come in time."""


class UpstreamCut(UpstreamError):
    """The answer ended in the middle of its body."""


class Abandoned(Exception):
    """Nobody wants the answer any more."""


class Exchange:
    """
    One request and its answer. Made by ``Upstreams.send``; see the module for what may be called when.

    Where a *reused* connection turns out to be dead before a byte of the answer came, the method is idempotent and
    the request was sent whole (a body of up to 64 KiB is kept for that), ``head`` sends it once more on a new one.
    """

    __slots__ = (
        "_connection", "_is_chunked", "_kept", "_kept_bytes", "_method", "_remaining", "_unsent", "_upstreams",
        "is_sent",
    )  # fmt: skip

    def __init__(
        self,
        upstreams: Upstreams,
        connection: Connection,
        head: bytes,
        method: str,
        body_length: int | None,
        *,
        is_held: bool,
    ) -> None:
        self._upstreams = upstreams
        self._connection = connection
        self._method = method
        self._is_chunked = body_length == CHUNKED
        self._remaining = body_length or 0
        self.is_sent = body_length is None or body_length == 0
        is_repeatable = connection.is_reused and method in IDEMPOTENT_WORDS and self._remaining <= MAX_KEPT_BYTES
        self._kept: list[bytes] | None = [head] if is_repeatable else None
        self._kept_bytes = 0  # of the body
        self._unsent = head if is_held else b""
        if not is_held:
            connection.transport.write(head)

    @property
    def has_answer(self) -> bool:
        """Whether the final head has come."""
        return self._connection.reader is not None and self._connection.reader.head is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come: the answer is complete or broken."""
        connection = self._connection
        return (
            connection.is_lost
            or connection.error is not None
            or (connection.reader is not None and connection.reader.is_complete)
        )

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer has come in good order and all of it was taken."""
        reader = self._connection.reader
        return reader is not None and reader.is_complete and not self._connection.pieces

    async def write(self, chunk: bytes) -> bool:
        """
        Send a piece of body, waiting while the Actor reads slower than the caller writes.

        False when no more is wanted: the answer is complete, or the connection is gone (``head`` tells which).
        """
        connection = self._connection
        if not chunk:
            return connection.is_wanted() or self._may_repeat()
        if not self._is_chunked:
            self._remaining -= len(chunk)
            if self._remaining < 0:
                connection.fail(UpstreamDropped(self._address, "was sent more body than announced"))
                return False
        framed = b"".join((b"%x\r\n" % len(chunk), chunk, b"\r\n")) if self._is_chunked else chunk
        self._keep(framed)
        if connection.is_wanted():
            self._write(framed)
            await connection.wait_for_room()
        return connection.is_wanted() or self._may_repeat()

    def finish(self) -> None:
        """The body is complete."""
        if self.is_sent:
            return
        if self._is_chunked:
            self._keep(b"0\r\n\r\n")
            if self._connection.is_wanted():
                self._write(b"0\r\n\r\n")
        elif self._remaining:
            self._connection.fail(UpstreamDropped(self._address, "was sent less body than announced"))
            return
        self.is_sent = True
        self._connection.wake()  # a connection lost before this moment may be tried once more only now

    async def wait_for_head(self, until: float) -> bool:
        """Wait for the head until *until* at most; whether it came or can come no more."""
        while not (self.has_answer or self.is_over):
            if self._upstreams.loop.time() >= until:
                return False
            await self._connection.wait_for_bytes(until)
        return True

    async def wait_for_continue(self, until: float) -> bool:
        """For ``Expect: 100-continue``: whether the body is wanted, as a 100 or silence until *until* says."""
        while not (self.has_answer or self.is_over):
            reader = self._connection.reader
            if (reader is not None and reader.saw_continue) or self._upstreams.loop.time() >= until:
                return True
            await self._connection.wait_to_write(until)
        return False

    async def head(self, deadline: float | None) -> AnswerHead:
        """
        The answer's head, once it came; *deadline* on the loop's clock.

        Raises UpstreamDropped, UpstreamInvalid, UpstreamTimeout, UpstreamRefused (in the second try), Abandoned.
        """
        while True:
            connection = self._connection
            assert connection.reader is not None
            if isinstance(connection.error, NotHttp):
                raise UpstreamInvalid(
                    self._address, f"answered with something that is not HTTP ({connection.error})"
                ) from connection.error
            if connection.error is not None:
                raise connection.error
            if connection.reader.head is not None:
                return connection.reader.head
            if connection.is_lost:
                if not self._may_repeat():
                    raise UpstreamDropped(self._address, "dropped the connection before it answered")
                if self.is_sent:
                    await self._repeat()
                    continue
            if deadline is not None and self._upstreams.loop.time() >= deadline:
                connection.fail(UpstreamTimeout(self._address, "sent no first byte of its answer in time"))
                continue
            await connection.wait_for_bytes(deadline)

    def take_whole(self) -> bytes | None:
        """The whole body, where it has come with its head; None where it has to be read."""
        connection = self._connection
        if connection.reader is None or not connection.reader.is_complete or connection.error is not None:
            return None
        return connection.take_piece()

    async def next_piece(self, idle_secs: float | None = None) -> bytes:
        """
        More of the body, as it came; ``b""`` at its end. Taking it lets more be read.

        Raises UpstreamCut where the body breaks off or stands still for *idle_secs*, and Abandoned.
        """
        connection = self._connection
        until = None if idle_secs is None else self._upstreams.loop.time() + idle_secs
        while not connection.pieces:
            assert connection.reader is not None
            if isinstance(connection.error, NotHttp):
                raise UpstreamCut(
                    self._address, f"broke the rules in the middle of its answer ({connection.error})"
                ) from connection.error
            if connection.error is not None:
                raise connection.error
            if connection.reader.is_complete:
                return b""
            if connection.is_lost:
                raise UpstreamCut(self._address, "cut its answer short")
            if until is not None and self._upstreams.loop.time() >= until:
                connection.fail(UpstreamCut(self._address, f"sent nothing more of its answer for {idle_secs:g} s"))
                continue
            await connection.wait_for_bytes(until)
        if isinstance(connection.error, Abandoned):
            raise connection.error
        return connection.take_piece()

    async def body(self, idle_secs: float | None = None) -> AsyncIterator[bytes]:
        """The body piece by piece; raises as ``next_piece`` does."""
        while piece := await self.next_piece(idle_secs):
            yield piece

    def abandon(self) -> None:
        """The caller is gone: cut the connection at once; whoever waits in this exchange gets Abandoned."""
        self._connection.fail(Abandoned())

    def take_over(self, protocol: asyncio.Protocol) -> None:
        """After a 101: the connection and what was read ahead now belong to *protocol*."""
        connection = self._connection
        assert connection.reader is not None
        leftover = connection.reader.leftover
        connection.pool.drop(connection)
        self._upstreams.let_go(connection)
        connection.transport.set_protocol(protocol)
        protocol.connection_made(connection.transport)
        if connection.is_lost:
            protocol.connection_lost(None)
            return
        if leftover:
            protocol.data_received(leftover)
        connection.resume_reading()
        connection.is_lost = True  # for us: what happens to it from here on is told to *protocol*

    def release(self) -> None:
        """Done with it: back into the pool if all ended in good order, else cut."""
        connection = self._connection
        reader = connection.reader
        is_clean = (
            self.is_sent
            and reader is not None
            and reader.is_complete
            and reader.head is not None
            and reader.head.keeps_alive
            and not reader.leftover
            and not connection.pieces  # else the next caller would get what nobody took of this answer
            and connection.error is None
            and not connection.is_lost
            and not connection.transport.is_closing()
            and not connection.transport.get_write_buffer_size()
        )
        if is_clean:
            self._upstreams.keep(connection)
        elif not connection.is_lost:
            connection.transport.abort()

    @property
    def _address(self) -> Address:
        return self._connection.pool.address

    def _write(self, framed: bytes) -> None:
        head, self._unsent = self._unsent, b""
        if not head:
            self._connection.transport.write(framed)
        elif len(framed) <= _JOINED_BYTES:
            self._connection.transport.write(head + framed)
        else:
            self._connection.transport.writelines([head, framed])

    def _keep(self, framed: bytes) -> None:
        if self._kept is not None:
            self._kept_bytes += len(framed)
            if self._kept_bytes > MAX_KEPT_BYTES:
                self._kept = None
                self._connection.wake()
            else:
                self._kept.append(framed)

    def _may_repeat(self) -> bool:
        reader = self._connection.reader
        return (
            self._kept is not None
            and self._connection.is_lost
            and self._connection.error is None
            and reader is not None
            and not reader.saw_bytes
        )

    async def _repeat(self) -> None:
        assert self._kept is not None
        kept, self._kept = self._kept, None
        stale = self._connection
        try:
            self._connection = await self._upstreams.connect(stale.pool)
        except UpstreamRefused as refused:
            refused.taken = b"".join(one[one.index(b"\r\n") + 2 : -2] if self._is_chunked else one for one in kept[1:])
            raise
        if stale.error is not None:  # abandoned meanwhile
            self._connection.error = stale.error
            self._connection.transport.abort()
        self._connection.reader = AnswerReader(self._method, last=self._connection.last)
        self._connection.transport.write(b"".join(kept))


class Upstreams:
    """
    All connections of this process to runs. Belongs to one event loop; call ``aclose`` in the end.

    *idle_secs* and *max_idle_per_address* are the rules of ``reuse``.
    """

    def __init__(
        self,
        *,
        connect_timeout_secs: float = 5.0,
        idle_secs: float = IDLE_SECS,
        max_idle_per_address: int = MAX_IDLE,
        wheel: Wheel | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._wheel = Wheel() if wheel is None else wheel
        self._connect_timeout_secs = connect_timeout_secs
        self._idle_secs = idle_secs
        self._max_idle_per_address = max_idle_per_address
        self._pools: dict[Address, Pool] = {}
        self._open = OpenConnections()
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(
        self,
        address: Address,
        head: bytes,
        *,
        method: str = "GET",
        body_length: int | None = None,
        is_upgrade: bool = False,
        is_held: bool = False,
    ) -> Exchange:
        """
        Connect, or take a kept connection, and send *head*; the body (*body_length*: bytes, CHUNKED or None) follows.

        *is_held*: it follows at once, so the head waits for it.

        Raises UpstreamRefused where no connection comes about in time; then nothing was sent.
        """
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = Pool(address)
        # What can't be repeated deserves a look before: the other side may have closed a moment ago.
        connection = None if is_upgrade else self._take(pool, must_look=method not in IDEMPOTENT_WORDS)
        if connection is None:
            connection = await self.connect(pool)
        connection.reader = AnswerReader(method, is_upgrade=is_upgrade, last=connection.last)
        return Exchange(self, connection, head, method, body_length, is_held=is_held)

    def forget(self, address: Address) -> None:
        """
        The run there has ended: close what is idle, and keep nothing of what is still in use (ports are reused).

        What is in use ends as the run's own kernel says; where nothing is heard of that, it is cut within 2 s.
        """
        pool = self._pools.pop(address, None)
        if pool is not None:
            pool.is_forgotten = True
            for connection in pool.idle:
                connection.transport.abort()
            pool.idle.clear()
            self._last_bytes(pool)

    def close_idle(self, address: Address) -> None:
        """The run there is to stand still: when it goes on, its server's patience with them may be at an end."""
        pool = self._pools.get(address)
        if pool is not None:
            for connection in pool.idle:
                connection.transport.abort()
            pool.idle.clear()

    def _last_bytes(self, pool: Pool) -> None:
        def cut() -> None:
            if self._open.cut_silent(pool):
                self._last_bytes(pool)

        self.loop.call_later(_LAST_BYTES_SECS, cut)

    async def aclose(self) -> None:
        """Cut every connection, and wait until they are gone."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for address in list(self._pools):
            self.forget(address)
        await self._open.abort()

    def idle_connections(self, address: Address) -> int:
        """How many connections to *address* lie ready."""
        pool = self._pools.get(address)
        return len(pool.idle) if pool else 0

    # For exchanges and connections

    async def connect(self, pool: Pool) -> Connection:
        """A new connection; raises UpstreamRefused."""
        try:
            async with asyncio.timeout(self._connect_timeout_secs):
                _, connection = await self.loop.create_connection(
                    lambda: Connection(pool, self._open, self.loop, self._wheel), pool.address.host, pool.address.port
                )
        except TimeoutError as error:
            raise UpstreamRefused(
                pool.address, f"took no connection within {self._connect_timeout_secs:g} s"
            ) from error
        except OSError as error:
            raise UpstreamRefused(pool.address, f"took no connection ({error.strerror or error})") from error
        return connection

    def let_go(self, connection: Connection) -> None:
        """*connection* belongs to somebody else now."""
        self._open.discard(connection)

    def keep(self, connection: Connection) -> None:
        """Put *connection* back, unless its run has ended or enough lie ready."""
        pool = connection.pool
        if pool.is_forgotten or len(pool.idle) >= self._max_idle_per_address:
            connection.transport.close()
            return
        connection.reader = None
        connection.is_reused = True
        connection.idle_until = self.loop.time() + self._idle_secs
        connection.resume_reading()
        pool.idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(self._idle_secs, self._sweep)

    def _take(self, pool: Pool, *, must_look: bool) -> Connection | None:
        now = self.loop.time()
        while pool.idle:
            connection = pool.idle.pop()
            if connection.transport.is_closing():
                continue
            if connection.idle_until > now and not (must_look and not connection.is_quiet()):
                return connection
            connection.transport.abort()
        return None

    def _sweep(self) -> None:
        """Close what has been idle for too long; one timer for all, and none while nothing is idle."""
        self._sweeper = None
        now = self.loop.time()
        is_any_left = False
        for pool in self._pools.values():
            expired = [connection for connection in pool.idle if connection.idle_until <= now]
            for connection in expired:
                pool.idle.remove(connection)
                connection.transport.abort()
            is_any_left = is_any_left or bool(pool.idle)
        if is_any_left:
            self._sweeper = self.loop.call_later(self._idle_secs / 2, self._sweep)
