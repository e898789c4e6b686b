"""Who calls a proxied host and whether he may, by the tokens that his request carries. Nothing is started here."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from gateway.auth import Authenticator, Principal
from gateway.core.errors import RecordNotFound, TokenNotFound, UserNotAuthenticated
from gateway.core.standby import StandbyTarget
from gateway.proxy.asgi import Scope
from gateway.proxy.headers import candidates_of, credentials_of
from gateway.proxy.plan import Credentials

# Tokens of Greenroom's own making are recognised even when they no longer hold: they must not reach an Actor either.
_OWN_TOKEN_PREFIXES = ("greenroom_api_", "greenroom_run_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls a standby host; ``principal`` is None for nobody in particular at a public host."""

    principal: Principal | None
    credentials: Credentials


async def caller_of(scope: Scope, target: StandbyTarget, auth: Authenticator) -> Caller:
    """The first of the tokens sent that holds says who calls. Raises the 401s and 404s of a standby host."""
    if target.config.public:
        return Caller(principal=None, credentials=await own_credentials(scope, auth))
    candidates = candidates_of(scope["headers"], scope["query_string"])
    if not candidates:
        raise UserNotAuthenticated
    for candidate in candidates:
        with contextlib.suppress(TokenNotFound):
            principal = await auth.principal(candidate)
            break
    else:
        raise TokenNotFound
    if not principal.may("actors:run") or not target.may_run(principal.user_id):
        raise RecordNotFound("Actor")
    own = {candidate, *(other for other in candidates if other.startswith(_OWN_TOKEN_PREFIXES))}
    return Caller(principal=principal, credentials=credentials_of(scope["headers"], scope["query_string"], own))


async def own_credentials(scope: Scope, auth: Authenticator) -> Credentials:
    """Where no token is asked for: which of those sent are Greenroom's, so that they go no further."""
    own = {
        candidate
        for candidate in candidates_of(scope["headers"], scope["query_string"])
        if candidate.startswith(_OWN_TOKEN_PREFIXES) or await auth.is_known(candidate)
    }
    return credentials_of(scope["headers"], scope["query_string"], own)
