"""No I/O: the words of ASGI, and the two things that every room of the proxy asks of a scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Wire(Protocol):
    """
    What Greenroom's own server for HTTP/1.1 tells of a request beyond ASGI, as the extension ``greenroom``.

    ``target`` is as it was sent: ASGI can't tell ``/a?`` from ``/a``. A server that says so much knows of itself which
    answers have no body, whatever their headers say. ``status`` is that of the answer, once it has begun. ``memo`` is
    for what an app wants to remember of requests with these very headers over this connection; None: they have values
    of their own.
    """

    target: bytes
    has_whole_body: bool
    status: int | None
    memo: dict[str, Any] | None

    def send(self, message: Message) -> Awaitable[None]:
        """That of the request: whoever was given another may not use ``answer``."""

    def answer(self, status: int, lines: Lines, body: bytes) -> bool:
        """The whole answer in one; False, and nothing done, where the caller takes none at the moment."""

    def when_gone(self, tell: Callable[[], None] | None) -> None:
        """Call *tell*, and none before it, when the caller leaves before he is answered; at once if he has left."""


class Lines(NamedTuple):
    """
    For that server, beside the headers of an answer, as ``greenroom`` in the same message: the same headers as text,
    known to be good, and the body's length where they state it.
    """

    text: bytes
    length: int | None


def wire_of(scope: Scope) -> Wire | None:
    """The extension, where the server has it."""
    extensions = scope.get("extensions")
    return extensions.get("greenroom") if extensions else None


def host_of(scope: Scope) -> bytes:
    """The ``Host`` header; empty where there is none."""
    for name, value in scope["headers"]:
        if name == b"host":
            host: bytes = value
            return host
    return b""


def raw_path_of(scope: Scope) -> bytes:
    """The path as it was sent, without query; from a server that does not tell it, the decoded one, quoted again."""
    return scope.get("raw_path") or quote(scope["path"]).encode("ascii")
