"""
Who calls a proxied host and whether he may, by the tokens that his request carries. Nothing is started here.

Each question comes in two forms: at once, from what is remembered of tokens, and asking the records where that is not
enough.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gateway.auth import Authenticator, Principal
from gateway.core.errors import RecordNotFound, RecordsNotAsked, TokenNotFound, UserNotAuthenticated
from gateway.core.standby import StandbyTarget
from gateway.state.ports import StateUnavailable

# Tokens of Greenroom's own making are recognised even when they no longer hold: they must not reach an Actor either.
_OWN_TOKEN_PREFIXES = ("greenroom_api_", "greenroom_run_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """
    Who calls a standby host; ``principal`` is None for nobody in particular at a public host.

    ``own`` are those of the tokens sent that are Greenroom's, so that they go no further. All of it may be believed
    ``until`` then (the authenticator's clock), unless everything is forgotten before.
    """

    principal: Principal | None
    own: frozenset[str]
    until: float = math.inf


def caller_at_once(tokens: Sequence[str], target: StandbyTarget, auth: Authenticator) -> Caller | None:
    """What ``caller_of`` says, without asking the records; None where these have to be asked."""
    if target.config.public:
        return own_tokens_at_once(tokens, auth)
    if not tokens:
        raise UserNotAuthenticated
    # The first that holds says who calls, so one that may or may not hold has to be asked for.
    remembered = auth.cached(tokens[0])
    if remembered is None:
        return None
    return _entitled(remembered.principal, tokens[0], tokens, target, remembered.until)


async def caller_of(tokens: Sequence[str], target: StandbyTarget, auth: Authenticator) -> Caller:
    """
    The first of *tokens* that holds says who calls.

    Raises the 401s and 404s of a standby host, and RecordsNotAsked where only the records could tell.
    """
    if target.config.public:
        return Caller(principal=None, own=await own_tokens(tokens, auth), until=0.0)
    if not tokens:
        raise UserNotAuthenticated
    for token in tokens:
        with contextlib.suppress(TokenNotFound):
            try:
                principal = await auth.principal(token)
            except StateUnavailable as error:
                raise RecordsNotAsked from error
            return _entitled(principal, token, tokens, target, 0.0)
    raise TokenNotFound


def own_tokens_at_once(tokens: Sequence[str], auth: Authenticator) -> Caller | None:
    """What ``own_tokens`` says, of a caller whom nobody asks who he is; None where the records have to be asked."""
    own, until = set(), math.inf
    for token in tokens:
        if token.startswith(_OWN_TOKEN_PREFIXES):
            own.add(token)
            continue
        known = auth.cached_as_known(token)
        if known is None:
            return None
        if known.is_known:
            own.add(token)
        until = min(until, known.until)
    return Caller(principal=None, own=frozenset(own), until=until)


async def own_tokens(tokens: Collection[str], auth: Authenticator) -> frozenset[str]:
    """
    Where no token is asked for: which of those sent are Greenroom's.

    Raises RecordsNotAsked where only the records could tell: one of Greenroom's must not reach an Actor.
    """
    try:
        return frozenset(
            [token for token in tokens if token.startswith(_OWN_TOKEN_PREFIXES) or await auth.is_known(token)]
        )
    except StateUnavailable as error:
        raise RecordsNotAsked from error


def _entitled(
    principal: Principal, token: str, tokens: Sequence[str], target: StandbyTarget, until: float
) -> Caller:  # fmt: skip
    if not principal.may("actors:run") or not target.may_run(principal.user_id):
        raise RecordNotFound("Actor")
    own = frozenset({token, *(other for other in tokens if other.startswith(_OWN_TOKEN_PREFIXES))})
    return Caller(principal=principal, own=own, until=until)
