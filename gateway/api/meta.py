"""Where a start came from, for the ``meta`` of runs and builds."""

from __future__ import annotations

from typing import Any

from gateway.api.call import Call
from gateway.client_address import client_of
from gateway.core.model import Origin

# What a client may say of itself; the other origins are for Greenroom to know.
_CLAIMABLE = frozenset({Origin.DEVELOPMENT, Origin.WEB, Origin.CLI, Origin.CI, Origin.MCP})
_MAX_USER_AGENT_CHARS = 500


def request_origin(call: Call) -> Origin:
    """ACTOR for the token of a run, else what ``X-Apify-Request-Origin`` says, else API."""
    if call.principal.run_id is not None:
        return Origin.ACTOR
    claimed = call.request.headers.get("x-apify-request-origin", "").upper()
    return next((origin for origin in _CLAIMABLE if origin == claimed), Origin.API)


def request_meta(call: Call) -> dict[str, Any]:
    """The caller's address and program."""
    meta: dict[str, Any] = {}
    if call.request.client is not None:
        settings = call.services.settings
        meta["clientIp"] = client_of(
            call.request.client.host,
            call.request.scope["headers"],
            trusted=settings.trusted_proxies,
            scheme=settings.public_scheme,
        ).address
    agent = call.request.headers.get("user-agent")
    if agent:
        meta["userAgent"] = agent[:_MAX_USER_AGENT_CHARS]
    return meta
