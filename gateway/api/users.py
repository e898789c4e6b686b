"""Users: who the token is, and what is public about others."""

from __future__ import annotations

from starlette.responses import Response

from gateway.api.call import Call, Endpoint, answer
from gateway.api.views import user_private_view, user_public_view
from gateway.core.errors import RecordNotFound


async def get_me(call: Call) -> Response:
    """The user that the token belongs to; open to every good token, since the SDKs ask at their start."""
    user = await call.records.user(call.principal.user_id)
    if user is None:
        raise RecordNotFound("User")
    return answer(user_private_view(user, call.services.box.derive("proxy-password", user.id)))


async def get_user(call: Call) -> Response:
    """The public part of any user, by id or username."""
    reference = call.path("user")
    user = await call.records.user(reference) or await call.records.user_by_name(reference)
    if user is None:
        raise RecordNotFound("User")
    return answer(user_public_view(user))


ENDPOINTS = (
    Endpoint(method="GET", path="/users/me", handler=get_me, scope=None),
    Endpoint(method="GET", path="/users/{user}", handler=get_user, scope="actors:read"),
)
