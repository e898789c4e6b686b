"""
No I/O: the request line, read strictly (RFC 9112 §3): ``METHOD target HTTP/1.1`` with one space each, and nothing else.

Targets come as path and query (``/a?b``), as a whole address (``http://host/a?b``), which has to name the same host as
the ``Host`` header, or as ``*`` with OPTIONS. Whichever way it came, the Actor gets a path, or ``*``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.core.errors import HttpVersionNotSupported, InvalidRequest, TargetTooLong
from gateway.proxy.headers import refuse_method

MAX_TARGET_BYTES = 32 * 1024

HOST = rb"(?:[0-9A-Za-z._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?"
"""A name or an address, with or without a port. Names in other scripts come as ``xn--…``."""

# The usual line at one stroke; whatever else there is, and what is wrong with it, is found out at leisure.
_USUAL = re.compile(rb"(?!CONNECT |TRACE )([A-Z][A-Z0-9_-]{0,31}+) (/[^\x00-\x20\x7f#]*+) HTTP/1\.([01])")
# Bytes outside ASCII may not stand there either, but curl sends them, and they end nothing.
_BAD_IN_TARGET = re.compile(rb"[\x00-\x20\x7f#]")
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_WHOLE_ADDRESS = re.compile(rb"https?://(" + HOST + rb")([/?].*)?", re.IGNORECASE | re.DOTALL)
_AROUND_TARGET = len("M" * 32 + "  HTTP/1.1")
_new = tuple.__new__  # a NamedTuple's own constructor takes twice as long


class RequestLine(NamedTuple):
    """
    A request line. ``minor`` is that of HTTP/1.``minor``; ``authority`` the host in a target that was a whole address.

    ``target`` is what goes to the Actor, byte for byte as sent: it begins with a slash, or is ``*``.
    """

    method: bytes
    target: bytes
    minor: int
    authority: bytes = b""


def parse_line(data: bytes, start: int, end: int) -> RequestLine:
    """
    The request line ``data[start:end]``, its line break not included.

    Raises InvalidRequest (400), MethodNotAllowed for CONNECT and TRACE (405), TargetTooLong (414) and
    HttpVersionNotSupported (505).
    """
    found = _USUAL.fullmatch(data, start, end)
    if found is None or end - start > MAX_TARGET_BYTES:
        return _unusual(data[start:end])
    method, target, minor = found.groups()
    return _new(RequestLine, (method, target, 1 if minor == b"1" else 0, b""))


def agreed_host(line: RequestLine, host: bytes) -> bytes:
    """
    The host that is asked for, where *host* is what the ``Host`` header says (empty where HTTP/1.0 left it out).

    Raises InvalidRequest where a target that is a whole address names another one: RFC 9112 §3.2.2 would believe the
    target, but who stands before or behind us may believe the header.
    """
    if not line.authority:
        return host
    if host and host.lower() != line.authority.lower():
        raise InvalidRequest("The request target and the Host header name different hosts.")
    return host or line.authority


def _unusual(line: bytes) -> RequestLine:
    if len(line) > MAX_TARGET_BYTES + _AROUND_TARGET:
        raise TargetTooLong(f"The request target may have {MAX_TARGET_BYTES} bytes.")
    parts = line.split(b" ")
    if len(parts) != 3 or not _VERSION.fullmatch(parts[2]):
        raise InvalidRequest("The request line must be 'METHOD target HTTP/1.1', with one space between each.")
    method, target, version = parts
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise HttpVersionNotSupported
    refuse_method(method)
    if len(target) > MAX_TARGET_BYTES:
        raise TargetTooLong(f"The request target may have {MAX_TARGET_BYTES} bytes.")
    if _BAD_IN_TARGET.search(target):
        raise InvalidRequest("The request target holds characters that may not stand there: percent-encode them.")
    minor = 1 if version == b"HTTP/1.1" else 0
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return RequestLine(method, target, minor)
    if found := _WHOLE_ADDRESS.fullmatch(target):
        return RequestLine(method, _path_of(found[2] or b"", method), minor, found[1])
    raise InvalidRequest("The request target must be a path, or an http address of the same host, or '*' with OPTIONS.")


def _path_of(rest: bytes, method: bytes) -> bytes:
    """What of a whole address comes after its host; an empty path is ``/``, with OPTIONS ``*`` (RFC 9112 §3.2.4)."""
    if rest.startswith(b"/"):
        return rest
    return b"*" if not rest and method == b"OPTIONS" else b"/" + rest
