"""All routes published at once, while one of them changes."""

from __future__ import annotations

import asyncio

from redis_server import RedisServer, new_namespace

from gateway.core.lifecycle import Readiness
from gateway.state.ports import LEADER, RunRoute
from gateway.state.redis.address import parse_address
from gateway.state.redis.signals import open_redis_signals


def route(readiness: Readiness) -> RunRoute:
    return RunRoute(run_id="one", actor_id="a", user_id="u", live_view_label="one", readiness=readiness)


async def test_a_change_that_overtakes_the_publishing_is_not_lost(redis_server: RedisServer) -> None:
    """A script that Redis has not seen yet is sent twice, and what is told meanwhile comes before it."""
    with redis_server.client() as client:
        client.script_flush()
    async with open_redis_signals(parse_address(redis_server.url()), namespace=new_namespace()) as leader:
        await leader.lead(LEADER, "me", ttl_secs=60)
        await leader.put_route(route(Readiness.STARTING))
        async with asyncio.TaskGroup() as group:
            group.create_task(leader.publish_routes())
            group.create_task(leader.put_route(route(Readiness.SERVING)))
        assert [found.readiness for found in await leader.routes()] == [Readiness.SERVING]
