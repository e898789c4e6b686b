"""
No I/O: the head of an HTTP/2 request, as it has to be for a proxy whose other side speaks HTTP/1.1.

zttp holds it to RFC 9113 §8. Beyond that it is held to all that a head of HTTP/1.1 is held to, by the same functions,
as the one that it becomes: what no HTTP/1.1 client can say, none of HTTP/2 can have said either.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.core.errors import InvalidRequest
from gateway.proxy.headers import as_text, refuse_bad_headers
from gateway.proxy.plan import Headers
from gateway.proxy.splice.request_head import HeadLimits, analyse
from gateway.proxy.splice.request_line import parse_line


def plain_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """
    *headers* as an HTTP/1.1 client would have sent them: ``host`` first (zttp puts ``:authority`` last), and the
    cookies, which may come one by one, in one line (RFC 9113 §8.2.3).
    """
    first: Headers = []
    others: Headers = []
    cookies: list[bytes] = []
    cookie_at = 0
    for name, value in headers:
        if name == b"host":
            first.append((name, value))
        elif name == b"cookie":
            cookie_at = cookie_at if cookies else len(others)
            cookies.append(value)
        else:
            others.append((name, value))
    if cookies:
        others.insert(cookie_at, (b"cookie", b"; ".join(cookies)))
    return first + others


def refuse_bad_head(method: bytes, target: bytes, headers: Headers, limits: HeadLimits) -> None:
    """Raise the error that the same request would get over HTTP/1.1; *headers* are plain ones."""
    refuse_bad_headers(headers)
    if parse_line(b"%b %b HTTP/1.1" % (method, target), 0, len(method) + len(target) + 10).authority:
        raise InvalidRequest("The path of a request does not hold its host.")
    analyse(as_text(headers).removesuffix(b"\r\n"), minor=1, limits=limits)
