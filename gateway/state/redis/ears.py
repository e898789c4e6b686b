"""
What a process hears of the others: one connection in Redis' subscriber mode, shared by all who listen.

It is trusted only as long as it hears itself: once a second a word goes out by the line for calls and must come back
here. A connection that is open and dead, or one to a server that is not the master any more, is so found out.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from gateway.state.ports import StateUnavailable
from gateway.state.redis.client import RedisClient
from gateway.state.redis.connecting import DRIVER_ERRORS, connect
from gateway.state.redis.line import PATIENCE_SECS, in_words, shut, unavailable
from gateway.state.subscriptions import Subscription

_log = logging.getLogger(__name__)

_BEAT_SECS = 1.0
# Twice what a word takes at worst where Redis is slow by as much as is borne.
_DEAF_SECS = 5.0
_FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS = 0.05, 1.0


class Ears:
    """*on_hearing* is awaited whenever it hears, for the first time or again."""

    def __init__(self, client: RedisClient, *, on_hearing: Callable[[], Awaitable[None]]) -> None:
        self._client = client
        self._on_hearing = on_hearing
        self._own = client.keys.channel("ears", secrets.token_hex(8))
        self._connection: Any = None
        self._hears = asyncio.Event()
        self._trouble = "it was not reached yet"
        self._heard_itself_at = 0.0
        self._listeners: dict[str, set[Subscription[bytes]]] = {}
        self._lasting: set[Subscription[bytes]] = set()
        # How many confirmations are under way, by channel: it is subscribed when the last one is there.
        self._asked: Counter[str] = Counter()
        self._confirmed: dict[str, asyncio.Event] = {}

    @property
    def trouble(self) -> str | None:
        """Why nothing is heard; None while all is well."""
        return None if self._hears.is_set() else self._trouble

    async def run(self) -> None:
        """For ever: hear, and after trouble hear again."""
        pause_secs = 0.0
        while True:
            began_at = asyncio.get_running_loop().time()
            try:
                await self._hear()
            except (*DRIVER_ERRORS, StateUnavailable) as error:
                self._lose(in_words(error))
            if asyncio.get_running_loop().time() - began_at > _DEAF_SECS:
                pause_secs = 0.0
            await asyncio.sleep(pause_secs)
            pause_secs = min(max(2 * pause_secs, _FIRST_PAUSE_SECS), _LONGEST_PAUSE_SECS)

    @asynccontextmanager
    async def listen(self, channel: str, *, bound: int, is_lasting: bool = False) -> AsyncIterator[Subscription[bytes]]:
        """
        What comes on *channel* from now on. Raises StateUnavailable where Redis does not confirm that in time.

        When the connection is lost, readers get StateUnavailable; with *is_lasting* they hear no more of it than that
        what was said meanwhile is missing.
        """
        heard: Subscription[bytes] = Subscription(bound)
        self._listeners.setdefault(channel, set()).add(heard)
        if is_lasting:
            self._lasting.add(heard)
        try:
            await self._subscribed(channel)
            yield heard
        finally:
            self._lasting.discard(heard)
            self._listeners[channel].discard(heard)
            if not self._listeners[channel]:
                del self._listeners[channel]
                await self._unsubscribe(channel)

    async def _subscribed(self, channel: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECS):
                await self._hears.wait()
                if channel not in self._confirmed:
                    await self._subscribe(channel)
                await self._confirmed[channel].wait()
        except TimeoutError:
            raise unavailable(self._client.address, self.trouble or "it does not answer in time") from None
        except DRIVER_ERRORS as error:
            raise unavailable(self._client.address, in_words(error)) from error

    async def _subscribe(self, channel: str) -> None:
        self._confirmed[channel] = asyncio.Event()
        self._asked[channel] += 1
        self._client.issued["SUBSCRIBE"] += 1
        await self._say("SUBSCRIBE", channel)

    async def _unsubscribe(self, channel: str) -> None:
        if self._confirmed.pop(channel, None) is not None and self._connection is not None:
            self._client.issued["UNSUBSCRIBE"] += 1
            with suppress(*DRIVER_ERRORS):  # whoever reads finds that out too
                await self._say("UNSUBSCRIBE", channel)

    async def _say(self, *words: str) -> None:
        connection = self._connection
        if connection is not None and connection.is_connected:
            await connection.send_packed_command(connection.pack_command(*words), check_health=False)

    async def _hear(self) -> None:
        self._connection = connection = await connect(self._client.address)
        try:
            await self._begin()
            while True:
                left_secs = self._heard_itself_at + _DEAF_SECS - asyncio.get_running_loop().time()
                message = await connection.read_response(timeout=left_secs) if left_secs > 0 else None
                if message is None:
                    raise TimeoutError
                await self._take(message[0], message[1].decode(), message[2])
        finally:
            await connection.disconnect(nowait=True)

    async def _begin(self) -> None:
        """Subscribe anew to all that is listened to; the first word that it hears of itself opens the ears."""
        self._heard_itself_at = asyncio.get_running_loop().time()
        for channel in (self._own, *self._listeners):  # a copy: others may come meanwhile
            await self._subscribe(channel)

    async def _take(self, kind: bytes, channel: str, payload: Any) -> None:
        if kind == b"subscribe":
            self._asked[channel] -= 1
            if not self._asked[channel]:
                del self._asked[channel]
                if channel in self._confirmed:
                    self._confirmed[channel].set()
            # The own channel was subscribed first, so the others are confirmed a moment later.
            if not self._asked and not self._hears.is_set():
                self._hears.set()
                await self._on_hearing()
        elif kind == b"message":
            if channel == self._own:
                self._heard_itself_at = asyncio.get_running_loop().time()
                return
            for listener in self._listeners.get(channel, ()):
                listener.put(payload)

    def _lose(self, why: str) -> None:
        if self._hears.is_set():
            _log.warning("nothing is heard from Redis at %s: %s", self._client.address, why)
        self._trouble = why
        self._connection = None
        self._hears.clear()
        self._asked.clear()
        self._confirmed.clear()
        for listeners in self._listeners.values():
            for listener in listeners - self._lasting:
                listener.fail(unavailable(self._client.address, why))

    async def beat(self) -> None:
        """For ever: say the word that must come back."""
        while True:
            await asyncio.sleep(_BEAT_SECS)
            with suppress(StateUnavailable):  # then it does not come back
                await self._client.command("PUBLISH", self._own, "")

    def close(self) -> None:
        """Hear no more, once ``run`` was cancelled."""
        if self._connection is not None:
            shut(self._connection)
