"""No I/O: what a ``signals_url`` means. No error text has the URL in it, since there may be a password in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from gateway.core.errors import InvalidConfig

_SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "unix")
_PORT, _SENTINEL_PORT = 6379, 26379
_MAX_DATABASE = 65_535
_MAX_SENTINELS = 20
# Files for TLS, by the names that they have in the URLs of redis-py too.
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_EXAMPLES = (
    "redis://user:password@host:6379/0, rediss://… for TLS, redis+sentinel://host:26379,host:26379/0?service=NAME, "
    "unix:///path/of/the/socket"
)
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """
    Where a Redis is and how to get in.

    ``places`` are host and port, of the one server or of all Sentinels, which then know where ``service`` is; empty for
    a unix socket at ``path``. ``files`` are those for TLS.
    """

    places: tuple[tuple[str, int], ...] = ()
    path: str | None = None
    service: str | None = None
    database: int = 0
    has_tls: bool = False
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    files: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """For logs and errors: no user, no password."""
        if self.path is not None:
            return self.path
        places = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.places)
        return f"{self.service} of the Sentinels {places}" if self.service is not None else places


def parse_address(url: str) -> RedisAddress:
    """Raises InvalidConfig, which says what is wrong and how it should look."""
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _SCHEMES:
        raise _wrong(f"it begins with one of {', '.join(f'{name}://' for name in _SCHEMES)}")
    is_sentinel = scheme.endswith("+sentinel")
    try:
        # The port of several places is no number, and each has one of its own.
        parts = urlsplit(f"redis://{rest}")
    except ValueError:
        raise _wrong("its host can't be read") from None
    query = _query(parts, is_sentinel=is_sentinel, has_tls=scheme.startswith("rediss"), is_unix=scheme == "unix")
    credentials, _, places = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    common: dict[str, Any] = {
        "has_tls": scheme.startswith("rediss"),
        "username": unquote(username) or None,
        "password": unquote(password) or None,
        "files": {name: query[name] for name in _FILES if name in query},
    }
    if scheme == "unix":
        if places or not parts.path.startswith("/"):
            raise _wrong("a unix socket has an absolute path, after three slashes")
        return RedisAddress(path=unquote(parts.path), database=_database(query.get("db", "0")), **common)
    default_port = _SENTINEL_PORT if is_sentinel else _PORT
    found = tuple(_place(place, default_port) for place in places.split(","))
    if not is_sentinel and len(found) > 1:
        raise _wrong("several hosts are for redis+sentinel:// alone")
    if len(found) > _MAX_SENTINELS:
        raise _wrong(f"at most {_MAX_SENTINELS} Sentinels")
    return RedisAddress(
        places=found,
        service=query["service"] if is_sentinel else None,
        database=_database(parts.path.removeprefix("/") or "0"),
        **common,
    )


def check_namespace(namespace: str) -> str:
    """*namespace*, if keys can begin with it. Raises InvalidConfig."""
    if not _NAMESPACE.fullmatch(namespace):
        raise InvalidConfig("A namespace of Redis keys is 1 to 63 letters, digits, dots, hyphens and underscores.")
    return namespace


def _query(parts: SplitResult, *, is_sentinel: bool, has_tls: bool, is_unix: bool) -> dict[str, str]:
    if parts.fragment:
        raise _wrong("it has no #; in a password that is %23")
    known = {"service"} if is_sentinel else {"db"} if is_unix else set()
    known |= set(_FILES) if has_tls else set()
    query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    for name in query:
        if name not in known:
            raise _wrong(f"after its ? there may be {', '.join(sorted(known)) or 'nothing'}, not {name:.40}")
    if is_sentinel and not query.get("service"):
        raise _wrong("Sentinels are asked for a service by name: ?service=NAME")
    return query


def _place(place: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"redis://{place}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _wrong("a port is a number from 1 to 65535") from None
    if not host or port == 0 or len(host) > 255 or any(char.isspace() for char in host):
        raise _wrong("each host is a name or an IP address, with :port where it is not the usual one")
    return host, port or default_port


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= _MAX_DATABASE):
        raise _wrong(f"after the host comes the number of the database, from 0 to {_MAX_DATABASE}")
    return int(text)


def _wrong(what: str) -> InvalidConfig:
    return InvalidConfig(f"signals_url: {what}. Examples: {_EXAMPLES}.", data={"field": "signals_url"})
