"""No I/O: what the gateway itself answers, as the bytes of HTTP/1.1."""

from __future__ import annotations

from http import HTTPStatus

from gateway.core.errors import GreenroomError
from gateway.proxy.plan import Headers
from gateway.proxy.replies import error_body, error_headers


def error_answer(error: GreenroomError, *, method: bytes, request_id: str | None, connection: bytes | None) -> bytes:
    """The error envelope; *connection* is the value of that header."""
    headers = error_headers(error)
    if request_id is not None:
        headers.append((b"x-actor-request-id", request_id.encode()))
    return answer(error.http_status, headers, error_body(error), method=method, connection=connection)


def answer(status: int, headers: Headers, body: bytes, *, method: bytes, connection: bytes | None) -> bytes:
    """A whole answer; to HEAD without its body."""
    parts = [b"HTTP/1.1 %d %s\r\n" % (status, _phrase(status))]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    if status != 204:
        parts.append(b"content-length: %d\r\n" % len(body))
    if connection is not None:
        parts += (b"connection: ", connection, b"\r\n")
    parts.append(b"\r\n")
    if method != b"HEAD":
        parts.append(body)
    return b"".join(parts)


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
