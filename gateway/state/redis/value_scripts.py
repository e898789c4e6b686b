"""
The scripts behind values that end by themselves (demand, loads, troubles, presence) and pokes, each as a function whose
docstring says what it does in one step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.state.redis.client import RedisClient, Script
from gateway.state.redis.keys import POKE_SECS
from gateway.state.redis.lua import CHECK, NOW, Fence, flat, ms

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

_KEEP_VALUES = Script.named(
    "keep_values",
    NOW,
    CHECK,
    _KEEP,
    """
    if KEYS[3] and is_fenced(KEYS[3], ARGV[1]) then return FENCED end
    keep(KEYS[1], KEYS[2], ARGV[2], 3, #ARGV)
    """,
)
_KEPT_VALUES = Script.named(
    "kept_values",
    NOW,
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
    NOW,
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
    CHECK,
    """
    if is_fenced(KEYS[2], ARGV[1]) then return FENCED end
    redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
    """,
)


async def keep_values(
    client: RedisClient, kind: Sequence[str], values: Mapping[str, bytes], *, ttl_secs: float, fence: Fence | None
) -> None:
    """Let each of *values* be kept by its name for *ttl_secs*; others of this kind keep their own time."""
    key = client.keys.key
    keys = [key(*kind), key(*kind, "until"), *([key("fence", fence.lease)] if fence else [])]
    words = fence.words if fence else ""
    await client.call(_KEEP_VALUES, keys, [words, ms(ttl_secs), *flat(values.items())])


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
            ms(ttl_secs),
            client.keys.channel("reports"),
            ms(POKE_SECS) if is_poke else "",
            gateway_id,
            report,
        ],
    )


async def poke(client: RedisClient) -> None:
    """Leave a poke where the leader waits, if there is none yet."""
    await client.call(_POKE_ALONE, [client.keys.key("pokes")], [ms(POKE_SECS)])


async def set_fenced(client: RedisClient, fence: Fence, name: str, value: bytes, *, ttl_secs: float) -> None:
    """Replace the one value of that name, for *ttl_secs*."""
    key = client.keys.key
    await client.call(_SET_FENCED, [key(name), key("fence", fence.lease)], [fence.words, ms(ttl_secs), value])
