"""Routes on Redis: who leads publishes them, keeps them whole and may be refused; all others follow."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from gateway.state.ports import (
    LEADER,
    NumberedChange,
    PoolBlocked,
    PoolFreed,
    RouteEnded,
    RoutesReset,
    RunRoute,
)
from gateway.state.redis import route_scripts as scripts
from gateway.state.redis.client import RedisClient
from gateway.state.redis.ears import Ears
from gateway.state.redis.lua import Fence
from gateway.state.redis.reading import reading
from gateway.state.redis.route_scripts import Told
from gateway.state.signals_codec import decode_change, decode_routes, encode_change
from gateway.state.subscriptions import Subscription

_log = logging.getLogger(__name__)

_RESET = "reset"


class Routes:
    """One process's part in the routes. What it has put itself it can publish again, should Redis have lost it."""

    def __init__(self, client: RedisClient, ears: Ears, *, queue_bound: int) -> None:
        self._client = client
        self._ears = ears
        self._queue_bound = queue_bound
        self._token: int | None = None
        self._own: dict[str, bytes] = {}
        self._has_published = False
        self._is_behind = False
        self._last_version = 0

    @property
    def fence(self) -> Fence:
        """What this process's writes as a leader carry."""
        return Fence(lease=LEADER, token=self._token)

    async def tell(self, change: RunRoute | RouteEnded | PoolBlocked | PoolFreed) -> int:
        """The version of the change."""
        kind, encoded = encode_change(change)
        run_id = ""
        # Before Redis has it: a change that is lost on the way is a part of what is published again.
        if isinstance(change, RunRoute):
            run_id = change.run_id
            self._own[run_id] = encoded
        elif isinstance(change, RouteEnded):
            run_id = change.run_id
            self._own.pop(run_id, None)
        try:
            told = await scripts.tell_route(
                self._client, self.fence, kind, encoded, run_id, is_new=isinstance(change, RunRoute) and change.is_new
            )
        except BaseException:
            self._is_behind = self._is_behind or run_id != ""
            raise
        return await self._made_whole(told, least_version=self._last_version + 1)

    async def publish(self) -> int:
        """The routes that this process has put, and not ended, are all that there are."""
        while True:
            token, own = self._token, dict(self._own)
            told = await scripts.publish_routes(self._client, self.fence, own, above=self._last_version)
            self._last_version = told.version
            if token != self._token:  # a new lead has begun meanwhile, with no routes yet
                return told.version
            self._has_published, self._is_behind = True, False
            # A change that was told meanwhile may have come first: a script that Redis has not seen is sent twice.
            if own == self._own:
                return told.version

    async def lead(self, holder: str, *, ttl_secs: float) -> int | None:
        """Take or renew the lease that guards the routes; what Redis has lost of them is published again."""
        lease = await scripts.lead(self._client, LEADER, holder, ttl_secs=ttl_secs, guards_routes=True)
        # A lower one than its own is of a Redis that came back with what it had saved some time ago.
        if lease is None or (lease.token_before or 0) > (self._token or 0):
            self._forget()  # another one has led, who knows what has become of the runs
        if lease is None:
            return None
        is_new = lease.token != self._token
        self._token = lease.token
        try:
            await self._made_whole(lease.routes, least_version=self._last_version)
        finally:
            if is_new:
                self._forget()
        return lease.token

    def _forget(self) -> None:
        self._own.clear()
        self._has_published = self._is_behind = False

    async def _made_whole(self, told: Told, *, least_version: int) -> int:
        """
        Publish all again where Redis came back empty, or (after a failover) with less than it had, or could not be told
        of a change. The version that then counts. Redis has less where it is below *least_version*.
        """
        if self._has_published and (not told.is_whole or told.version < least_version or self._is_behind):
            _log.warning("Redis at %s does not have all routes: they are published again", self._client.address)
            return await self.publish()
        self._last_version = told.version
        return told.version

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[NumberedChange]]:
        """All changes, from the picture at the beginning on; while there is none, nothing comes."""
        channel = self._client.keys.channel("routes")
        async with self._ears.listen(channel, bound=self._queue_bound) as heard:
            yield self._follow(heard)

    async def _follow(self, heard: Subscription[bytes]) -> AsyncIterator[NumberedChange]:
        known: int | None = None
        is_to_read = True
        messages = heard.read()
        while True:
            if is_to_read:
                heard.clear()  # all of it is older than what is read now
                picture = await scripts.picture(self._client)
                is_to_read, known = False, None
                if picture.told.is_whole:
                    known = picture.told.version
                    reset = RoutesReset(routes=reading(decode_routes, picture.routes))
                    yield NumberedChange(version=known, change=reset)
            version, kind, change = reading(_split, await anext(messages))
            if known is None:
                is_to_read = kind == _RESET
            elif version <= known:
                continue
            elif kind == _RESET or version > known + 1:  # in a gap lie changes that were dropped here or never came
                is_to_read = True
            else:
                known = version
                yield NumberedChange(version=version, change=reading(partial(decode_change, kind), change))


def _split(message: bytes) -> tuple[int, str, bytes]:
    version, kind, change = message.split(b" ", 2)
    return int(version), kind.decode(), change
