"""
No I/O: CORS preflights without a token. Browsers never send credentials on them, so they can't be let in as requests,
and they must never wake an Actor: Greenroom answers them itself. What the Actor allows is said by its real answers.
"""

from __future__ import annotations

from gateway.proxy.plan import Headers


def is_preflight(method: str, headers: Headers) -> bool:
    """Whether this is a CORS preflight: OPTIONS with ``Origin`` and ``Access-Control-Request-Method``."""
    names = {name for name, _ in headers}
    return method == "OPTIONS" and b"origin" in names and b"access-control-request-method" in names


def preflight_answer(headers: Headers) -> Headers:
    """
    The answer's headers: what was asked for is allowed, by echo (wildcards don't cover ``Authorization``).

    Credentialed requests (cookies) are not allowed: there is no ``Access-Control-Allow-Credentials``.
    """
    asked = dict(reversed(headers))
    answer: Headers = [
        (b"access-control-allow-origin", asked[b"origin"]),
        (b"access-control-allow-methods", asked[b"access-control-request-method"]),
        (b"access-control-max-age", b"600"),
        (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    ]
    if b"access-control-request-headers" in asked:
        answer.append((b"access-control-allow-headers", asked[b"access-control-request-headers"]))
    return answer
