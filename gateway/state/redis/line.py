"""One connection to Redis that many callers share: what they ask goes out at once, the answers come in its order."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ReadOnlyError, ResponseError

from gateway.state.ports import StateUnavailable
from gateway.state.redis.address import RedisAddress
from gateway.state.redis.connecting import DRIVER_ERRORS, connect

_log = logging.getLogger(__name__)

Word: TypeAlias = str | bytes | int | float
StartTask: TypeAlias = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]

# More than a Redis that is slow by a second needs, and little enough for a lease of four seconds to be renewed in time.
PATIENCE_SECS = 2.0
_CLOSED = "it was closed"
_FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS = 0.05, 1.0


@dataclass(eq=False, slots=True)
class _Link:
    """One connection, and who waits for its answers."""

    connection: AbstractConnection
    waiting: deque[asyncio.Future[Any]] = field(default_factory=deque)


class Line:
    """
    *start_task* starts a coroutine that somebody owns. It connects when it is first used, and anew after trouble; until
    the pause after a trouble is over, whoever asks hears of it at once.
    """

    def __init__(self, address: RedisAddress, start_task: StartTask) -> None:
        self._address = address
        self._start_task = start_task
        self._link: _Link | None = None
        self._attempt: asyncio.Task[None] | None = None
        self._pause_secs = 0.0
        self._not_before = 0.0
        self._is_closed = False
        self.trouble: str | None = None
        """Why the last use failed; None while all is well."""

    async def ask(self, *words: Word, patience_secs: float = PATIENCE_SECS) -> Any:
        """
        The answer to one command. Raises StateUnavailable, or ResponseError for an answer that is an error.

        Whoever is cancelled leaves the line in order. Whoever runs out of patience gives it up for all, since the
        answers behind his are later still; unless his went on the connection, which may well be all right.
        """
        clock = asyncio.get_running_loop().time
        link: _Link | None = None
        sent_at = math.inf
        try:
            async with asyncio.timeout(patience_secs):
                link = await self._connected()
                packed = link.connection.pack_command(*words)
                answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                link.waiting.append(answer)
                sent_at = clock()
                await link.connection.send_packed_command(packed, check_health=False)
                got = await answer
        except ReadOnlyError as error:  # the master is another one by now
            raise self._failed(link, error) from error
        except (ResponseError, StateUnavailable):
            raise
        except TimeoutError as error:
            if link is not None and clock() - sent_at < patience_secs / 2:
                raise self._unavailable(in_words(error)) from error
            raise self._failed(link, error) from error
        except DRIVER_ERRORS as error:
            raise self._failed(link, error) from error
        self._pause_secs, self.trouble = 0.0, None
        return got

    def close(self) -> None:
        """For good; who still waits hears that it is closed."""
        self._is_closed = True
        if self._attempt is not None:
            self._attempt.cancel()
        self._drop(self._link, _CLOSED)

    def hang_up(self) -> None:
        """Give up the connection, as after a wait that was broken off; the next use makes another."""
        self._drop(self._link, "the connection was given up")

    async def _connected(self) -> _Link:
        if self._link is not None and self._link.connection.is_connected:
            return self._link
        if self._is_closed:
            raise self._unavailable(_CLOSED)
        if asyncio.get_running_loop().time() < self._not_before:
            raise self._unavailable(self.trouble or "it was lost a moment ago")
        # Of several steps, each as slow as Redis is: it may take longer than who began it has patience.
        if self._attempt is None or self._attempt.done():
            self._attempt = self._start_task(self._connect())
        await asyncio.wait([self._attempt])
        if self._link is None:
            raise self._unavailable(_CLOSED if self._is_closed else self.trouble or "it was lost at once")
        return self._link

    async def _connect(self) -> None:
        try:
            connection = await connect(self._address)
        except DRIVER_ERRORS as error:
            self._failed(None, error)
            return
        self._link = _Link(connection)
        self._start_task(self._read(self._link))

    async def _read(self, link: _Link) -> None:
        """Hand out the answers until the connection ends."""
        try:
            while True:
                answer: Any
                try:
                    answer = await link.connection.read_response()
                except ResponseError as error:
                    answer = error
                if not link.waiting:
                    raise ConnectionError(f"it speaks unasked: {answer!r:.200}")
                _hand_over(link.waiting.popleft(), answer)
        except DRIVER_ERRORS as error:
            if link is self._link:
                _log.warning("the connection to Redis at %s was lost: %s", self._address, in_words(error))
                self._failed(link, error)

    def _failed(self, link: _Link | None, error: BaseException) -> StateUnavailable:
        if link is None or link is self._link:
            self._pause_secs = min(max(2 * self._pause_secs, _FIRST_PAUSE_SECS), _LONGEST_PAUSE_SECS)
            self._not_before = asyncio.get_running_loop().time() + self._pause_secs
            self.trouble = in_words(error)
            self._drop(link, self.trouble)
        return self._unavailable(in_words(error))

    def _drop(self, link: _Link | None, why: str) -> None:
        if link is None:
            return
        if link is self._link:
            self._link = None
        shut(link.connection)
        for waiting in link.waiting:
            _hand_over(waiting, self._unavailable(why))
        link.waiting.clear()

    def _unavailable(self, why: str) -> StateUnavailable:
        return unavailable(self._address, why)


def shut(connection: AbstractConnection) -> None:
    """Close *connection* at once, also one whose other end takes nothing; whoever reads from it hears of the end."""
    writer = connection._writer  # noqa: SLF001 - its own way to close waits for the other end, or forgets the reader
    if writer is not None:
        writer.transport.abort()


def in_words(error: BaseException) -> str:
    """What is wrong, also of errors that have no words of their own."""
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return str(error).rstrip(". ") or type(error).__name__


def unavailable(address: RedisAddress, why: str) -> StateUnavailable:
    """The error that tells of trouble with the Redis at *address*."""
    return StateUnavailable(f"Redis at {address} can't be used: {why}. Look whether it runs, and at signals_url.")


def _hand_over(waiting: asyncio.Future[Any], answer: Any) -> None:
    if waiting.done():  # who asked has gone
        return
    if isinstance(answer, BaseException):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)
