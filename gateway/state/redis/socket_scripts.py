"""The scripts behind events sockets, each as a function whose docstring says what it does in one step."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.state.redis.client import RedisClient, Script
from gateway.state.redis.keys import SOCKETS_SECS
from gateway.state.redis.lua import NOW, flat, ms

_RENEW_SOCKETS = Script.named(
    "renew_sockets",
    NOW,
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
    NOW,
    """
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms())
    local sockets = redis.call('ZCARD', KEYS[1])
    if redis.call('PUBLISH', ARGV[1], ARGV[2]) == 0 then return 0 end
    return sockets
    """,
)
_CONNECTED_RUNS = Script.named(
    "connected_runs",
    NOW,
    """
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms())
    local connected = {}
    for _, run_id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
        if redis.call('PUBSUB', 'NUMSUB', ARGV[1] .. run_id)[2] > 0 then connected[#connected + 1] = run_id end
    end
    return connected
    """,
)


async def renew_sockets(client: RedisClient, sockets: Sequence[tuple[str, str]]) -> None:
    """These sockets, pairs of run and socket, are connected for another while."""
    if not sockets:
        return
    key = client.keys.key
    keys = [key("sockets"), *(key("sockets", run_id) for run_id, _ in sockets)]
    await client.call(_RENEW_SOCKETS, keys, [ms(SOCKETS_SECS), *flat(sockets)])


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
