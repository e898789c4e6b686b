"""The scripts behind routes and leases, each as a function whose docstring says what it does in one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.state.redis.client import RedisClient, Script
from gateway.state.redis.keys import FENCE_SECS, ROUTES_SECS, SLOTS_SECS
from gateway.state.redis.line import Word
from gateway.state.redis.lua import CHECK, NOW, Fence, flat, ms
from gateway.state.redis.slots_script import BORN

# Where the last version is lost, the next one is the time in microseconds: beyond all that there were before, since no
# Redis does a million changes a second.
_VERSION = """
local function next_version(head, ttl_ms)
    if redis.call('HEXISTS', head, 'version') == 0 then
        redis.call('HSET', head, 'version', string.format('%.0f', now_us()))
    end
    local version = redis.call('HINCRBY', head, 'version', 1)
    redis.call('PEXPIRE', head, ttl_ms)
    return string.format('%.0f', version)
end
"""

_TELL_ROUTE = Script.named(
    "tell_route",
    NOW,
    CHECK,
    BORN,
    _VERSION,
    """
    local token, ttl_ms, channel, kind, change, run_id, born_ms = unpack(ARGV)
    if is_fenced(KEYS[1], token) then return FENCED end
    if born_ms then is_born(KEYS[4], born_ms) end
    if kind == 'route' then redis.call('HSET', KEYS[2], run_id, change) end
    if kind == 'ended' then redis.call('HDEL', KEYS[2], run_id) end
    redis.call('PEXPIRE', KEYS[2], ttl_ms)
    local version = next_version(KEYS[3], ttl_ms)
    redis.call('PUBLISH', channel, version .. ' ' .. kind .. ' ' .. change)
    return {version, redis.call('HEXISTS', KEYS[3], 'whole')}
    """,
)
_PUBLISH_ROUTES = Script.named(
    "publish_routes",
    NOW,
    CHECK,
    _VERSION,
    """
    local token, ttl_ms, channel, above = unpack(ARGV, 1, 4)
    if is_fenced(KEYS[1], token) then return FENCED end
    redis.call('DEL', KEYS[2])
    for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
    redis.call('PEXPIRE', KEYS[2], ttl_ms)
    redis.call('HSET', KEYS[3], 'whole', 1)
    local version = redis.call('HGET', KEYS[3], 'version')
    if version and tonumber(version) < tonumber(above) then redis.call('HSET', KEYS[3], 'version', above) end
    version = next_version(KEYS[3], ttl_ms)
    redis.call('PUBLISH', channel, version .. ' reset ')
    return {version, 1}
    """,
)
_PICTURE = Script.named(
    "picture",
    """
    local version = redis.call('HGET', KEYS[2], 'version')
    if redis.call('HEXISTS', KEYS[2], 'whole') == 0 then return {version or '0', 0, '[]'} end
    return {version, 1, '[' .. table.concat(redis.call('HVALS', KEYS[1]), ',') .. ']'}
    """,
)
_LEAD = Script.named(
    "lead",
    NOW,
    """
    local holder, ttl_ms, fence_ms, routes_ms = unpack(ARGV)
    local held, newest = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
    if held and held ~= holder then return {} end
    local token = newest
    if not held or not newest then
        token = string.format('%.0f', math.max(now_us(), (newest or 0) + 1))
        redis.call('SET', KEYS[2], token)
    end
    redis.call('SET', KEYS[1], holder, 'PX', ttl_ms)
    redis.call('PEXPIRE', KEYS[2], fence_ms)
    if not KEYS[3] then return {token, newest or '', 1, '0'} end
    redis.call('PEXPIRE', KEYS[3], routes_ms)
    redis.call('PEXPIRE', KEYS[4], routes_ms)
    local version = redis.call('HGET', KEYS[4], 'version')
    return {token, newest or '', redis.call('HEXISTS', KEYS[4], 'whole'), version or '0'}
    """,
)
_RESIGN = Script.named(
    "resign",
    """
    if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
    """,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The version of a change of routes; ``is_whole``: Redis has all routes, as far as it knows."""

    version: int
    is_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """
    A lease that was taken or renewed: its token, the newest that had been given before (None: Redis knew of none), and
    what Redis has of the routes.
    """

    token: int
    token_before: int | None
    routes: Told


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """All routes as a JSON array, and the version of the last change among them."""

    told: Told
    routes: bytes


async def tell_route(
    client: RedisClient, fence: Fence, kind: str, change: bytes, run_id: str, *, is_new: bool = False
) -> Told:
    """
    Keep (``route``) or forget (``ended``) the route of *run_id*, and tell whoever listens of the *change*; it gets the
    next version. Other kinds are only told. *is_new*: no gateway can have borrowed a slot of this run yet.
    """
    key = client.keys.key
    keys = [key("fence", fence.lease), key("routes"), key("routes", "head")]
    words: list[Word] = [fence.words, ms(ROUTES_SECS), client.keys.channel("routes"), kind, change, run_id]
    if is_new:
        keys.append(key("slots", "run", run_id))
        words.append(ms(SLOTS_SECS))
    return _told(await client.call(_TELL_ROUTE, keys, words))


async def publish_routes(client: RedisClient, fence: Fence, routes: Mapping[str, bytes], *, above: int) -> Told:
    """
    Let *routes*, by run, be all that there are; whoever listens hears that he must read them anew.

    The version is beyond *above*, which somebody may have seen already.
    """
    key = client.keys.key
    return _told(
        await client.call(
            _PUBLISH_ROUTES,
            [key("fence", fence.lease), key("routes"), key("routes", "head")],
            [fence.words, ms(ROUTES_SECS), client.keys.channel("routes"), above, *flat(routes.items())],
        )
    )


async def picture(client: RedisClient) -> Picture:
    """All routes with their version, at one moment; none while they are not whole."""
    version, is_whole, routes = await client.call(
        _PICTURE, [client.keys.key("routes"), client.keys.key("routes", "head")]
    )
    return Picture(told=_told((version, is_whole)), routes=routes)


async def lead(client: RedisClient, name: str, holder: str, *, ttl_secs: float, guards_routes: bool) -> Lease | None:
    """
    Take or renew the lease; None while somebody else holds it. Who holds it without a break keeps his token, each other
    one is higher than all before. With *guards_routes* the routes live on too.
    """
    key = client.keys.key
    routes = [key("routes"), key("routes", "head")] if guards_routes else []
    answer = await client.call(
        _LEAD,
        [key("lease", name), key("fence", name), *routes],
        [holder, ms(ttl_secs), ms(FENCE_SECS), ms(ROUTES_SECS)],
    )
    if not answer:
        return None
    token, before, is_whole, version = answer
    return Lease(token=int(token), token_before=int(before) if before else None, routes=_told((version, is_whole)))


async def resign(client: RedisClient, name: str, holder: str) -> None:
    """Give the lease back, if it is *holder*'s."""
    await client.call(_RESIGN, [client.keys.key("lease", name)], [holder])


def _told(answer: Sequence[bytes | int]) -> Told:
    version, is_whole = answer
    return Told(version=int(version), is_whole=bool(is_whole))
