"""No I/O: the words of ASGI, and the two things that every room of the proxy asks of a scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def host_of(scope: Scope) -> bytes:
    """The ``Host`` header; empty where there is none."""
    return next((value for name, value in scope["headers"] if name == b"host"), b"")


def raw_path_of(scope: Scope) -> bytes:
    """The path as it was sent, without query; from a server that does not tell it, the decoded one, quoted again."""
    return scope.get("raw_path") or quote(scope["path"]).encode("ascii")
