"""The events sockets of this process, as Redis knows them: renewed while they are open, forgotten when they are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count

from gateway.state.ports import RunEvent, StateUnavailable
from gateway.state.redis import socket_scripts as scripts
from gateway.state.redis.client import RedisClient
from gateway.state.redis.ears import Ears
from gateway.state.redis.keys import SOCKETS_SECS
from gateway.state.redis.reading import reading
from gateway.state.signals_codec import decode_event
from gateway.state.subscriptions import Subscription

_RENEW_SECS = SOCKETS_SECS / 3


class Sockets:
    """*process_id* tells this process's sockets from those of others."""

    def __init__(self, client: RedisClient, ears: Ears, process_id: str, *, queue_bound: int) -> None:
        self._client = client
        self._ears = ears
        self._process_id = process_id
        self._queue_bound = queue_bound
        self._numbers = count()
        self._open: set[tuple[str, str]] = set()

    @asynccontextmanager
    async def watch(self, run_id: str) -> AsyncIterator[AsyncIterator[RunEvent]]:
        """The events of one run; while this is entered, the run counts as connected."""
        channel = self._client.keys.channel("event", run_id)
        async with self._ears.listen(channel, bound=self._queue_bound, is_lasting=True) as heard:
            socket = (run_id, f"{self._process_id}-{next(self._numbers)}")
            self._open.add(socket)
            try:
                await scripts.renew_sockets(self._client, [socket])
                yield _events(heard)
            finally:
                self._open.discard(socket)
                with suppress(StateUnavailable):  # then it is forgotten by its time
                    await scripts.drop_socket(self._client, *socket)

    async def renew(self) -> None:
        """All that are open are connected for another while. Raises StateUnavailable."""
        await scripts.renew_sockets(self._client, sorted(self._open))

    async def renew_for_ever(self) -> None:
        """Often enough that none is forgotten."""
        while True:
            await asyncio.sleep(_RENEW_SECS)
            with suppress(StateUnavailable):
                await self.renew()


async def _events(heard: Subscription[bytes]) -> AsyncIterator[RunEvent]:
    async for message in heard.read():
        yield reading(decode_event, message)
