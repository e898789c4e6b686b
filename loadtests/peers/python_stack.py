"""
The peer "python": the reverse proxy that one writes with uvicorn, Starlette and httpx, with their own means.

``python -m loadtests.peers.python_stack PORT HOST=ADDRESS …``
"""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import AsyncIterator

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def application(routes: dict[str, str]) -> Starlette:
    """Requests by host to the address that *routes* names, streamed both ways."""
    # httpx's documentation: one client for all requests, so that connections are pooled.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=1024, keepalive_expiry=60)
    client = httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(300, connect=5), trust_env=False)

    async def forward(request: Request) -> Response:
        host = request.headers.get("host", "")
        address = routes.get(host.partition(":")[0])
        if address is None:
            return PlainTextResponse("unknown host\n", 404)
        request_id = uuid.uuid4().hex
        caller = request.client.host if request.client else ""
        headers = [(name, value) for name, value in request.headers.items() if name not in HOP_BY_HOP]
        headers += [
            ("X-Forwarded-For", caller),
            ("X-Forwarded-Host", host),
            ("X-Forwarded-Proto", "http"),
            ("Forwarded", f'for={caller};host="{host}";proto=http'),
            ("Via", "1.1 python"),
            ("X-Actor-Request-ID", request_id),
        ]
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        target = f"http://{address}{request.url.path}" + (f"?{request.url.query}" if request.url.query else "")
        sent = client.build_request(
            request.method, target, headers=headers, content=request.stream() if has_body else None
        )
        answer = await client.send(sent, stream=True)
        passed = {name: value for name, value in answer.headers.items() if name not in HOP_BY_HOP}
        passed["x-actor-request-id"] = request_id
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, headers=passed, background=BackgroundTask(answer.aclose)
        )

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    return Starlette(routes=[Route("/{path:path}", forward, methods=METHODS)], lifespan=lifespan)


def main() -> None:
    """Serve until told to stop."""
    port, *routes = sys.argv[1:]
    app = application(dict(route.split("=", 1) for route in routes))
    uvicorn.run(
        app,
        port=int(port),
        # uvloop and httptools, as uvicorn's documentation advises; no access log, no headers of its own.
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="error",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main()
