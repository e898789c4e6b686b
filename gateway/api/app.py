"""Composes the API: every endpoint of every resource, authentication before it, one place for errors around it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api import (
    actors,
    builds,
    dataset_items,
    greenroom,
    key_value_records,
    logs,
    names,
    pools,
    quarantines,
    queue_heads,
    queue_requests,
    run_input,
    run_restarts,
    run_start,
    run_sync,
    runs,
    storages,
    users,
    versions,
)
from gateway.api.call import Endpoint, open_call
from gateway.api.envelope import failure, failure_headers
from gateway.api.errors import StoresUnavailable
from gateway.core.errors import GreenroomError, MethodNotAllowed, PageNotFound
from gateway.services import Services
from gateway.state.ports import StateUnavailable

_log = logging.getLogger(__name__)

ENDPOINTS: tuple[Endpoint, ...] = (
    *users.ENDPOINTS,
    *actors.ENDPOINTS,
    *versions.ENDPOINTS,
    *names.ENDPOINTS,
    *builds.ENDPOINTS,
    *runs.ENDPOINTS,
    *run_input.ENDPOINTS,
    *run_start.ENDPOINTS,
    *run_sync.ENDPOINTS,
    *run_restarts.ENDPOINTS,
    *logs.ENDPOINTS,
    *storages.ENDPOINTS,
    *queue_requests.ENDPOINTS,
    *queue_heads.ENDPOINTS,
    *key_value_records.ENDPOINTS,
    *dataset_items.ENDPOINTS,
    *greenroom.ENDPOINTS,
    *pools.ENDPOINTS,
    *quarantines.ENDPOINTS,
)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})


def api_app(services: Services) -> Starlette:
    """The ASGI app for ``/v2/…``; ``/v2/acts/…`` is the older spelling of ``/v2/actors/…`` and means the same."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in ENDPOINTS:
        by_path.setdefault(f"/v2{endpoint.path}", {})[endpoint.method] = endpoint
    app = Starlette(
        routes=[
            Route(path, _dispatcher(services, of_method), methods=list(of_method))
            for path, of_method in by_path.items()
        ],
        middleware=[Middleware(Border)],
        exception_handlers={GreenroomError: _on_greenroom_error, HTTPException: _on_http_exception},
    )
    app.router.redirect_slashes = False  # the border takes them away, so a redirect to one would never end
    return app


def _dispatcher(services: Services, of_method: dict[str, Endpoint]) -> Callable[[Request], Awaitable[Response]]:
    async def dispatch(request: Request) -> Response:
        endpoint = of_method["GET" if request.method == "HEAD" else request.method]
        return await endpoint.handler(await open_call(services, request, endpoint))

    return dispatch


def error_response(error: GreenroomError) -> Response:
    """What the caller gets to see of *error*."""
    return Response(
        failure(error),
        status_code=error.http_status,
        headers=failure_headers(error),
        media_type="application/json; charset=utf-8",
    )


def _on_greenroom_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, GreenroomError)
    return error_response(error)


def _on_http_exception(request: Request, error: Exception) -> Response:
    """The router's own two errors."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        answer = error_response(MethodNotAllowed(f"{request.method} is not a method of this page."))
        answer.headers.update(error.headers or {})
        return answer
    return error_response(PageNotFound("There is no such page. Is the address of the API right?"))


class Border:
    """
    What holds for every answer, errors included: CORS for browsers, no sniffing, and nothing of an unexpected error but
    that there was one. Before routing it tidies what clients spell in several ways.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                headers = MutableHeaders(scope=message)
                headers["Access-Control-Allow-Origin"] = "*"
                headers["Access-Control-Expose-Headers"] = "*"
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        if scope["method"] == "OPTIONS":
            await _preflight(Headers(scope=scope))(scope, receive, send_with_headers)
            return
        try:
            await self._app(_tidied(scope), receive, send_with_headers)
        except Exception as error:
            if has_started:  # all that is left is to cut the answer off, so that it does not look whole
                raise
            # The query is left out, as it may hold a token.
            _log.exception("%s %s failed", scope["method"], scope["path"])
            await error_response(_translated(error))(scope, receive, send_with_headers)


def _translated(error: Exception) -> GreenroomError:
    if isinstance(error, StateUnavailable):
        return StoresUnavailable("A store of Greenroom's can't be reached at the moment. Try again.")
    return GreenroomError("Something went wrong inside Greenroom; its log tells what.")


def _preflight(headers: Headers) -> Response:
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": ", ".join(sorted(_METHODS)),
            "Access-Control-Allow-Headers": headers.get("access-control-request-headers", "*"),
            "Access-Control-Max-Age": "86400",
            "Vary": "Access-Control-Request-Headers",
        },
    )


def _tidied(scope: Scope) -> Scope:
    """Without a slash at the end, under the newer of two spellings, and with the method that ``?method=`` asks for."""
    path = scope["path"].rstrip("/")
    if path == "/v2/acts" or path.startswith("/v2/acts/"):
        path = "/v2/actors" + path.removeprefix("/v2/acts")
    method = scope["method"]
    if method == "GET" and b"method=" in scope["query_string"]:
        asked = Request(scope).query_params.get("method", "").upper()
        method = asked if asked in _METHODS else method
    return {**scope, "path": path or "/", "method": method}
