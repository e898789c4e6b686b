"""One events socket without a network: how long an Actor that says nothing keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

from quick_loop import QuickLoop, at_once

from gateway.held_socket import PING_SECS, HeldSocket

HEAD = (
    b"GET /events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PONG = b"\x8a\x80\0\0\0\0"


class Actor:
    """The other end, as the socket's transport: it answers pings unless ``is_blocked``."""

    def __init__(self) -> None:
        self.is_blocked = False
        self.is_cut = False
        self.pings = 0
        self._loop = asyncio.get_running_loop()
        self._held = HeldSocket(HEAD, lambda _: None)
        self._held.connection_made(cast(Any, self))

    def set_write_buffer_limits(self, high: int) -> None:
        """It has room for all."""

    def write(self, data: bytes) -> None:
        if data.startswith(b"\x89"):
            self.pings += 1
            if not self.is_blocked:
                self._loop.call_soon(self._held.data_received, PONG)

    def abort(self) -> None:
        self.is_cut = True
        self._held.connection_lost(None)


def with_actor(main: Callable[[Actor], Coroutine[Any, Any, None]]) -> None:
    """Run *main* on a loop whose time passes at once."""

    async def run() -> None:
        await main(Actor())

    at_once(run())


def test_an_actor_that_is_blocked_for_minutes_keeps_its_socket() -> None:
    """Four of them, again and again, as long as it answers in between."""

    async def main(actor: Actor) -> None:
        for _ in range(3):
            actor.is_blocked = True
            await asyncio.sleep(240)
            actor.is_blocked = False
            await asyncio.sleep(2 * PING_SECS)
        assert actor.pings > 3 * 10
        assert not actor.is_cut

    with_actor(main)


def test_an_actor_that_never_answers_is_cut_in_the_end() -> None:
    """Else the socket of one that has vanished without a word would count for ever."""

    async def main(actor: Actor) -> None:
        actor.is_blocked = True
        await asyncio.sleep(400)
        assert actor.is_cut

    with_actor(main)


def test_a_holder_that_stood_still_cuts_nobody() -> None:
    """It has not listened either, however long that was."""

    async def main(actor: Actor) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, QuickLoop)
        await asyncio.sleep(3.5 * PING_SECS)
        actor.is_blocked = True  # what it says next comes only some time after the holder goes on
        loop.stand_still(3600)
        await asyncio.sleep(PING_SECS)
        actor.is_blocked = False
        await asyncio.sleep(2 * PING_SECS)
        assert not actor.is_cut

    with_actor(main)
