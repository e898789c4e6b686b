"""
The Lua scripts behind signals, each as a function whose docstring says what it does in one step.

Time is Redis' own, so the clocks of machines never have to agree. Large numbers leave Lua as text of digits: its own
way to print them is 1.7e+12.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.state.redis.client import FENCED, RedisClient, Script
from gateway.state.redis.keys import FENCE_SECS, POKE_SECS, ROUTES_SECS, SOCKETS_SECS
from gateway.state.redis.line import Word

_NOW = """
local function now_ms()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
"""
# A token that is empty is of somebody who never led, such as the one process that is all of a Greenroom.
_CHECK = f"""
local function is_fenced(fence, token)
    local newest = redis.call('GET', fence)
    return token ~= '' and newest and newest ~= token
end
local FENCED = redis.error_reply('{FENCED} a newer leader has been given a token')
"""
# Where the last version is lost, the next one is the time: far beyond all versions that there were before.
_VERSION = """
local function next_version(head, ttl_ms)
    if redis.call('HEXISTS', head, 'version') == 0 then
        redis.call('HSET', head, 'version', string.format('%.0f', now_ms()))
    end
    local version = redis.call('HINCRBY', head, 'version', 1)
    redis.call('PEXPIRE', head, ttl_ms)
    return string.format('%.0f', version)
end
"""
# A hash whose fields end one by one, which Redis itself has from 7.4 on only.
_KEEP = """
local function drop_old(hash, until_set)
    local old = redis.call('ZRANGEBYSCORE', until_set, '-inf', now_ms())
    for _, name in ipairs(old) do
        redis.call('HDEL', hash, name)
        redis.call('ZREM', until_set, name)
    end
end
local function expire_after(key, ttl_ms)
    if redis.call('PTTL', key) < tonumber(ttl_ms) then redis.call('PEXPIRE', key, ttl_ms) end
end
local function keep(hash, until_set, ttl_ms, first, last)
    drop_old(hash, until_set)
    local till = string.format('%.0f', now_ms() + ttl_ms)
    for i = first, last, 2 do
        redis.call('HSET', hash, ARGV[i], ARGV[i + 1])
        redis.call('ZADD', until_set, till, ARGV[i])
    end
    expire_after(hash, ttl_ms)
    expire_after(until_set, ttl_ms)
end
"""
_POKE = """
local function poke(list, ttl_ms)
    if redis.call('LLEN', list) == 0 then redis.call('RPUSH', list, '') end
    redis.call('PEXPIRE', list, ttl_ms)
end
"""

_TELL_ROUTE = Script.named(
    "tell_route",
    _NOW,
    _CHECK,
    _VERSION,
    """
    local token, ttl_ms, channel, kind, change, run_id = unpack(ARGV)
    if is_fenced(KEYS[1], token) then return FENCED end
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
    _NOW,
    _CHECK,
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
    _NOW,
    """
    local holder, ttl_ms, fence_ms, routes_ms = unpack(ARGV)
    local held, newest = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
    if held and held ~= holder then return {} end
    local token = newest
    if not held or not newest then
        token = string.format('%.0f', math.max(now_ms(), (newest or 0) + 1))
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
_KEEP_VALUES = Script.named(
    "keep_values",
    _NOW,
    _CHECK,
    _KEEP,
    """
    if KEYS[3] and is_fenced(KEYS[3], ARGV[1]) then return FENCED end
    keep(KEYS[1], KEYS[2], ARGV[2], 3, #ARGV)
    """,
)
_KEPT_VALUES = Script.named(
    "kept_values",
    _NOW,
    _KEEP,
    """
    drop_old(KEYS[1], KEYS[2])
    local found, pairs_of = redis.call('HGETALL', KEYS[1]), {}
    for i = 1, #found, 2 do
        pairs_of[#pairs_of + 1] = '[' .. cjson.encode(found[i]) .. ',' .. found[i + 1] .. ']'
    end
    return '[' .. table.concat(pairs_of, ',') .. ']'
    """,
)
_DROP_VALUE = Script.named(
    "drop_value",
    """
    redis.call('HDEL', KEYS[1], ARGV[1])
    redis.call('ZREM', KEYS[2], ARGV[1])
    if ARGV[2] ~= '' then redis.call('PUBLISH', ARGV[2], '') end
    """,
)
_REPORT_DEMAND = Script.named(
    "report_demand",
    _NOW,
    _KEEP,
    _POKE,
    """
    local ttl_ms, channel, poke_ms = unpack(ARGV, 1, 3)
    keep(KEYS[1], KEYS[2], ttl_ms, 4, 5)
    redis.call('PUBLISH', channel, '')
    if poke_ms ~= '' then poke(KEYS[3], poke_ms) end
    """,
)
_POKE_ALONE = Script.named("poke", _POKE, "poke(KEYS[1], ARGV[1])")
_SET_FENCED = Script.named(
    "set_fenced",
    _CHECK,
    """
    if is_fenced(KEYS[2], ARGV[1]) then return FENCED end
    redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
    """,
)
_RENEW_SOCKETS = Script.named(
    "renew_sockets",
    _NOW,
    """
    local ttl_ms = ARGV[1]
    local till = string.format('%.0f', now_ms() + ttl_ms)
    for i = 2, #ARGV, 2 do
        local of_run = KEYS[i / 2 + 1]
        redis.call('ZADD', KEYS[1], till, ARGV[i])
        redis.call('ZADD', of_run, till, ARGV[i + 1])
        redis.call('PEXPIRE', of_run, ttl_ms)
    end
    redis.call('PEXPIRE', KEYS[1], ttl_ms)
    """,
)
_DROP_SOCKET = Script.named(
    "drop_socket",
    """
    redis.call('ZREM', KEYS[2], ARGV[2])
    if redis.call('ZCARD', KEYS[2]) == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) end
    """,
)
_SEND_EVENT = Script.named(
    "send_event",
    _NOW,
    """
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms())
    local sockets = redis.call('ZCARD', KEYS[1])
    if redis.call('PUBLISH', ARGV[1], ARGV[2]) == 0 then return 0 end
    return sockets
    """,
)
_CONNECTED_RUNS = Script.named(
    "connected_runs",
    _NOW,
    """
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms())
    local connected = {}
    for _, run_id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
        if redis.call('PUBSUB', 'NUMSUB', ARGV[1] .. run_id)[2] > 0 then connected[#connected + 1] = run_id end
    end
    return connected
    """,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """The lease that guards a write, and the token of who writes; None: it never led."""

    lease: str
    token: int | None

    @property
    def words(self) -> str:
        """The token as scripts take it."""
        return "" if self.token is None else str(self.token)


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


async def tell_route(client: RedisClient, fence: Fence, kind: str, change: bytes, run_id: str) -> Told:
    """
    Keep (``route``) or forget (``ended``) the route of *run_id*, and tell whoever listens of the *change*; it gets the
    next version. Other kinds are only told.
    """
    key = client.keys.key
    return _told(
        await client.call(
            _TELL_ROUTE,
            [key("fence", fence.lease), key("routes"), key("routes", "head")],
            [fence.words, _ms(ROUTES_SECS), client.keys.channel("routes"), kind, change, run_id],
        )
    )


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
            [fence.words, _ms(ROUTES_SECS), client.keys.channel("routes"), above, *_flat(routes.items())],
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
        [holder, _ms(ttl_secs), _ms(FENCE_SECS), _ms(ROUTES_SECS)],
    )
    if not answer:
        return None
    token, before, is_whole, version = answer
    return Lease(token=int(token), token_before=int(before) if before else None, routes=_told((version, is_whole)))


async def resign(client: RedisClient, name: str, holder: str) -> None:
    """Give the lease back, if it is *holder*'s."""
    await client.call(_RESIGN, [client.keys.key("lease", name)], [holder])


async def keep_values(
    client: RedisClient, kind: Sequence[str], values: Mapping[str, bytes], *, ttl_secs: float, fence: Fence | None
) -> None:
    """Let each of *values* be kept by its name for *ttl_secs*; others of this kind keep their own time."""
    key = client.keys.key
    keys = [key(*kind), key(*kind, "until"), *([key("fence", fence.lease)] if fence else [])]
    words = fence.words if fence else ""
    await client.call(_KEEP_VALUES, keys, [words, _ms(ttl_secs), *_flat(values.items())])


async def kept_values(client: RedisClient, kind: Sequence[str]) -> bytes:
    """All values of this kind whose time is not over, as a JSON array of pairs of name and value."""
    found: bytes = await client.call(_KEPT_VALUES, [client.keys.key(*kind), client.keys.key(*kind, "until")])
    return found


async def drop_value(client: RedisClient, kind: Sequence[str], name: str, *, channel: str = "") -> None:
    """Forget one value, and say so on *channel*, if one is given."""
    await client.call(_DROP_VALUE, [client.keys.key(*kind), client.keys.key(*kind, "until")], [name, channel])


async def report_demand(client: RedisClient, gateway_id: str, report: bytes, *, ttl_secs: float, is_poke: bool) -> None:
    """Keep the report for *ttl_secs*, tell those who wait for one, and poke the leader if it is one."""
    key = client.keys.key
    await client.call(
        _REPORT_DEMAND,
        [key("demand"), key("demand", "until"), key("pokes")],
        [
            _ms(ttl_secs),
            client.keys.channel("reports"),
            _ms(POKE_SECS) if is_poke else "",
            gateway_id,
            report,
        ],
    )


async def poke(client: RedisClient) -> None:
    """Leave a poke where the leader waits, if there is none yet."""
    await client.call(_POKE_ALONE, [client.keys.key("pokes")], [_ms(POKE_SECS)])


async def set_fenced(client: RedisClient, fence: Fence, name: str, value: bytes, *, ttl_secs: float) -> None:
    """Replace the one value of that name, for *ttl_secs*."""
    key = client.keys.key
    await client.call(_SET_FENCED, [key(name), key("fence", fence.lease)], [fence.words, _ms(ttl_secs), value])


async def renew_sockets(client: RedisClient, sockets: Sequence[tuple[str, str]]) -> None:
    """These sockets, pairs of run and socket, are connected for another while."""
    if not sockets:
        return
    key = client.keys.key
    keys = [key("sockets"), *(key("sockets", run_id) for run_id, _ in sockets)]
    await client.call(_RENEW_SOCKETS, keys, [_ms(SOCKETS_SECS), *_flat(sockets)])


async def drop_socket(client: RedisClient, run_id: str, socket_id: str) -> None:
    """This socket is not connected any more."""
    key = client.keys.key
    await client.call(_DROP_SOCKET, [key("sockets"), key("sockets", run_id)], [run_id, socket_id])


async def send_event(client: RedisClient, run_id: str, event: bytes) -> int:
    """
    Send it to the events sockets of the run; how many there were.

    None, if no process listens, whatever is kept of sockets: theirs has been killed.
    """
    sent: int = await client.call(
        _SEND_EVENT, [client.keys.key("sockets", run_id)], [client.keys.channel("event", run_id), event]
    )
    return sent


async def connected_runs(client: RedisClient) -> frozenset[str]:
    """The runs that have a socket whose sign of life still counts, and whose process listens."""
    found = await client.call(_CONNECTED_RUNS, [client.keys.key("sockets")], [client.keys.channel("event", "")])
    return frozenset(run_id.decode() for run_id in found)


def _told(answer: Sequence[bytes | int]) -> Told:
    version, is_whole = answer
    return Told(version=int(version), is_whole=bool(is_whole))


def _ms(secs: float) -> int:
    """Redis refuses an expiry of nothing."""
    return max(1, round(secs * 1000))


def _flat(pairs: Iterable[tuple[Word, Word]]) -> list[Word]:
    return [word for pair in pairs for word in pair]
