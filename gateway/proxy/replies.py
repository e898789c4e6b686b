"""Errors and small answers of the gateway itself at proxied hosts, over HTTP and on a WebSocket handshake alike."""

from __future__ import annotations

import json

from gateway.core.errors import GreenroomError
from gateway.proxy.asgi import Scope, Send
from gateway.proxy.plan import Headers


def error_headers(error: GreenroomError) -> Headers:
    """Those of the error envelope, with ``Retry-After`` where it pays to come again."""
    headers: Headers = [(b"content-type", b"application/json; charset=utf-8"), (b"cache-control", b"no-store")]
    if error.retry_after_secs is not None:
        headers.append((b"retry-after", str(error.retry_after_secs).encode()))
    if error.http_status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="greenroom"'))
    # A page of another origin has to be able to read why its call failed.
    headers.append((b"access-control-allow-origin", b"*"))
    return headers


def error_body(error: GreenroomError) -> bytes:
    """The error envelope."""
    return json.dumps(error.body()).encode()


async def send_error(scope: Scope, send: Send, error: GreenroomError, extra: Headers) -> None:
    """The error envelope with its status, and *extra* headers."""
    await send_reply(scope, send, error.http_status, [*error_headers(error), *extra], error_body(error))


async def send_reply(scope: Scope, send: Send, status: int, headers: Headers, body: bytes) -> None:
    """A whole answer; on a WebSocket handshake it refuses the upgrade with this answer."""
    if status != 204:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
        return
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
