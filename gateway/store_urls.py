"""
No I/O: the addresses of the stores that several processes share, as settings: which are accepted, how they are shown.

    signals    redis://[user:password@]host:port/db, rediss:// with TLS, unix:///path/of/socket,
               redis+sentinel://host:port[,host:port…]/db?service=NAME, rediss+sentinel:// with TLS
    records    postgresql://user:password@host:port/db
    blobs      s3://bucket[/prefix]?endpoint=http://127.0.0.1:9000&region=…

What else such an address may hold is known by the adapter that opens it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

LONGEST_URL = 2000
MASK = "***"

SIGNALS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
RECORDS_SCHEMES = ("postgresql",)
BLOBS_SCHEMES = ("s3",)

_REDIS_PORT = 6379
_SECRET_WORD = re.compile(r"pass|secret|token|key", re.IGNORECASE)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_DATABASE_NUMBER = re.compile(r"/?|/[0-9]{1,4}")


def signals_problem(url: str) -> str | None:
    """Why *url* can't be that of the signals; None where it can. What is told holds nothing of *url*."""
    parts = _split(url, SIGNALS_SCHEMES)
    if parts is None:
        return (
            "redis://HOST:PORT/DB, rediss://…, redis+sentinel://HOST:PORT,…/DB?service=NAME or unix:///PATH is expected"
        )
    if parts.scheme == "unix":
        return None if parts.path.startswith("/") and len(parts.path) > 1 else "unix:///PATH of a socket is expected"
    if not all(_is_place(place) for place in _places(parts)):
        return "a host, and after it :PORT (1 to 65535), is expected between '//' and the next '/'"
    if not _DATABASE_NUMBER.fullmatch(parts.path):
        return "after the host, the number of a database is expected, e.g. /0"
    has_service = bool(dict(parse_qsl(parts.query)).get("service"))
    if parts.scheme.endswith("+sentinel") and not has_service:
        return "with Sentinel, the name of the service is expected, e.g. ?service=mymaster"
    if not parts.scheme.endswith("+sentinel") and "," in parts.netloc:
        return "several hosts are for redis+sentinel:// only"
    return None


def records_problem(url: str) -> str | None:
    """Why *url* can't be that of the records; None where it can. What is told holds nothing of *url*."""
    parts = _split(url, RECORDS_SCHEMES)
    if parts is None:
        return "postgresql://USER:PASSWORD@HOST:PORT/DATABASE is expected"
    if not all(_is_place(place) for place in _places(parts)):
        return "a host, and after it :PORT (1 to 65535), is expected between '@' and the next '/'"
    if not parts.path.strip("/") or "/" in parts.path[1:]:
        return "after the host, the name of a database is expected, e.g. /greenroom"
    return None


def blobs_problem(url: str) -> str | None:
    """Why *url* can't be that of the blobs; None where it can. What is told holds nothing of *url*."""
    parts = _split(url, BLOBS_SCHEMES)
    if parts is None:
        return "s3://BUCKET[/PREFIX][?endpoint=http://HOST:PORT&region=NAME] is expected"
    if "@" in parts.netloc:
        return "keys don't belong into it: give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY as variables"
    if not _BUCKET.fullmatch(parts.netloc):
        return "after s3://, the name of a bucket is expected: 3 to 63 of a-z, 0-9, '.' and '-'"
    endpoint = dict(parse_qsl(parts.query)).get("endpoint")
    if endpoint is not None:
        place = _split(endpoint, ("http", "https"))
        if place is None or not _is_place(place.netloc):
            return "endpoint=http://HOST:PORT or https://HOST:PORT is expected"
    return None


def has_password(url: str) -> bool:
    """Whether *url* holds something that not everybody may see."""
    return masked(url) != url


def masked(url: str) -> str:
    """*url* without what not everybody may see, for people and logs."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    user_part, at, places = parts.netloc.rpartition("@")
    user, colon, _ = user_part.partition(":")
    netloc = f"{user}:{MASK}@{places}" if colon else f"{user}{at}{places}"
    query = "&".join(_masked_pair(pair) for pair in parts.query.split("&")) if parts.query else ""
    return (
        urlunsplit(parts._replace(netloc=netloc, query=query))
        if (netloc, query) != (parts.netloc, parts.query)
        else url
    )


def first_place(url: str) -> tuple[str, int] | None:
    """Host and port of the first server that *url* names; None where it names none, such as the URL of a socket."""
    try:
        place = next(_places(urlsplit(url)))
        parts = urlsplit(f"//{place}")
        return (parts.hostname, parts.port or _REDIS_PORT) if parts.hostname else None
    except ValueError:
        return None


def _masked_pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}={MASK}" if equals and _SECRET_WORD.search(unquote(name)) else pair


def _split(url: str, schemes: tuple[str, ...]) -> SplitResult | None:
    """The parts of *url*; None where it is not one of *schemes*, or where a password has a '/', '?' or '#' in it."""
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    is_whole = not parts.fragment and "@" not in parts.path and "@" not in parts.query
    return parts if parts.scheme in schemes and "://" in url and is_whole else None


def _places(parts: SplitResult) -> Iterator[str]:
    yield from parts.netloc.rpartition("@")[2].split(",")


def _is_place(text: str) -> bool:
    """``host``, ``host:port`` or ``[::1]:port``."""
    found = re.fullmatch(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?", text)
    return found is not None and (found[1] is None or 1 <= int(found[1]) <= 65535)
