"""One authenticated call of the API, what the handlers of all resources are given, and the answers they make."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.body import parse_object, read_body
from gateway.api.envelope import success
from gateway.api.fields import Fields, Query
from gateway.auth import ANONYMOUS, Principal
from gateway.core.errors import TokenNotFound, TokenNotProvided
from gateway.services import Services
from gateway.state.ports import Changed, Records, Signals, StateUnavailable
from gateway.state.storage_ports import Storages

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """
    Who asks for what. *scope* is what the endpoint asks of a token; one of a run that lacks it comes this far only at
    endpoints that are open to a run about what is its own, and the access rooms hold it to that.
    """

    services: Services
    request: Request
    principal: Principal
    query: Query
    scope: str | None

    @property
    def records(self) -> Records:
        return self.services.state.records

    @property
    def storages(self) -> Storages:
        return self.services.state.storages

    @property
    def signals(self) -> Signals:
        return self.services.state.signals

    @property
    def is_anonymous(self) -> bool:
        """Whether it came without a token, with a signature in its place."""
        return self.principal is ANONYMOUS

    def path(self, name: str) -> str:
        """A decoded segment of the path."""
        return str(self.request.path_params[name])

    async def body(self) -> bytes:
        """The decoded body within its bound."""
        return await read_body(self.request, self.services.settings.max_api_body_bytes)

    async def json(self) -> Fields:
        """The JSON object that was sent; none is an empty one."""
        return parse_object(await self.body())

    @property
    def is_limited_to_own_run(self) -> bool:
        """Whether this is the token of a run, at an endpoint that is open to it only about what is its own."""
        return self.principal.run_id is not None and self.scope is not None and not self.principal.may(self.scope)

    async def tell(self, kind: str, record_id: str) -> None:
        """
        Signal that a record changed. The change is stored already, so a signal that is lost must not become a 5xx:
        clients would repeat the call. Whoever listens looks at the records from time to time anyway.
        """
        try:
            if kind == "actor":
                # Who calls its host next, at this gateway, must find it as it is now; the others learn by the signal.
                await self.services.directory.renew(record_id)
            await self.signals.changed(Changed(kind=kind, id=record_id))
        except StateUnavailable:
            _log.warning("a change was stored but not signalled: %s %s", kind, record_id, exc_info=True)


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """
    One method on one path below ``/v2``. *scope* None: any good token may. *own_run*: the token of a run may, without
    the scope, about its own run, the runs that it started and its own storages, or to read an Actor that it may run.
    *after_end*: so may the token of the run in the path for a moment after its end (``just_ended``). *signed*: a
    signature in the query may stand for a token; the handler must check it (``storage_of_path`` does).
    """

    method: str
    path: str
    handler: Handler
    scope: str | None
    own_run: bool = False
    after_end: bool = False
    signed: bool = False


def given_token(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """The token of a call: ``Authorization: Bearer``, else ``?token=``. Raises TokenNotProvided."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    token = value.strip() if kind.lower() == "bearer" else ""
    token = token or query.get("token", "")
    if not token:
        raise TokenNotProvided
    return token


async def open_call(services: Services, request: Request, endpoint: Endpoint) -> Call:
    """Authenticate *request* for *endpoint*. Raises TokenNotProvided, TokenNotFound, InsufficientPermissions."""
    principal = await _principal(services, request, endpoint)
    is_of_run = endpoint.own_run and principal.run_id is not None
    if endpoint.scope is not None and principal is not ANONYMOUS and not is_of_run:
        principal.require(endpoint.scope)
    return Call(
        services=services,
        request=request,
        principal=principal,
        query=Query(request.query_params),
        scope=endpoint.scope,
    )


async def _principal(services: Services, request: Request, endpoint: Endpoint) -> Principal:
    try:
        token = given_token(request.headers, request.query_params)
    except TokenNotProvided:
        if endpoint.signed and request.query_params.get("signature"):
            return ANONYMOUS
        raise
    try:
        return await services.auth.principal(token)
    except TokenNotFound:
        run_id = request.path_params.get("run")
        late = await services.auth.just_ended(token, run_id, services.box) if endpoint.after_end and run_id else None
        if late is None:
            raise
        return late


def answer(view: Any, status: int = 200) -> Response:
    """*view* in the envelope."""
    return Response(success(view), status_code=status, media_type="application/json; charset=utf-8")


def no_content() -> Response:
    """204."""
    return Response(status_code=204)
