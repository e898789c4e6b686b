"""
The pools of an Actor, below ``/v2/greenroom``: what is there now, and what the autoscaler wanted when and why.

They are for the user whose runs a pool has: to others they do not exist.
"""

from __future__ import annotations

from starlette.responses import Response

from gateway.api.access import visible_actor
from gateway.api.call import Call, Endpoint, answer
from gateway.api.pagination import listing, page_of
from gateway.api.pool_views import PoolNow, pool_view, pools_now
from gateway.api.views import decision_view
from gateway.core.errors import RecordNotFound
from gateway.core.model import Page
from gateway.core.standby import PoolKey

_NEWEST = Page(limit=1, desc=True)


async def list_pools(call: Call) -> Response:
    """
    ``GET /v2/greenroom/actors/{actor}/pools``: those of the Actor that have runs of the caller's, or would have with
    his next request, each with its last decision.
    """
    actor = await visible_actor(call)
    target = call.services.directory.target(actor.id.lower())
    if target is None or target.generation is None:  # its first build may have ended a moment ago
        await call.services.directory.renew(actor.id)
        target = call.services.directory.target(actor.id.lower())
    user_id = call.principal.user_id
    reports = await call.signals.demand_reports()
    routes = await call.signals.routes()
    keys = {route.pool for route in routes if route.pool is not None}
    keys |= {key for report in reports for key in report.pools}
    if target is not None:
        keys.add(target.pool_for(user_id))
    own = [key for key in keys if key.target_id == actor.id and key.user_id == user_id]
    troubles, loads = await call.signals.troubles(), await call.signals.loads()
    pools = pools_now(own, target, routes, reports, troubles, loads)
    page = page_of(call.query)
    shown = pools[page.offset : page.offset + page.limit]
    return answer(listing([await _with_decision(call, pool) for pool in shown], page, len(pools)))


async def list_decisions(call: Call) -> Response:
    """``GET /v2/greenroom/pools/{pool}/decisions``: the oldest first, or with ``desc`` the newest."""
    try:
        pool = PoolKey.parse(call.path("pool"))
    except ValueError:
        raise RecordNotFound("Pool") from None
    target = await call.records.actor(pool.target_id) or await call.records.task(pool.target_id)
    if target is None or pool.user_id != call.principal.user_id:
        raise RecordNotFound("Pool")
    page = page_of(call.query)
    found = await call.records.list_decisions(pool.id, page)
    return answer(listing([decision_view(decision) for decision in found.items], page, found.total))


async def _with_decision(call: Call, pool: PoolNow) -> dict[str, object]:
    found = await call.records.list_decisions(pool.key.id, _NEWEST)
    last = decision_view(found.items[0]) if found.items else None
    return {**pool_view(pool), "decisions": found.total, "lastDecision": last}


ENDPOINTS = (
    Endpoint(method="GET", path="/greenroom/actors/{actor}/pools", handler=list_pools, scope="runs:read"),
    Endpoint(method="GET", path="/greenroom/pools/{pool}/decisions", handler=list_decisions, scope="runs:read"),
)
