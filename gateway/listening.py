"""The listening sockets of ``greenroom serve`` and ``gateway``."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import Any

from gateway.proxy.sockets import keep_watch
from gateway.refusals import USAGE, Refused

_BACKLOG = 2048
_DEFER_SECS = 1


def listen(host: str, port: int, run_host: str | None = None, *, given_by: str = "--port N") -> list[socket.socket]:
    """
    The listening sockets for *host*; port 0 takes a free one. Raises Refused, saying what to do: *given_by* is how
    the port is chosen.

    For 127.0.0.1 the same port is opened on ::1 too, where that is possible: some browsers resolve ``*.localhost``
    to it first. The last one is for *run_host*, where that is an address which the others don't serve.

    Where the system can, a connection is accepted when its first bytes are there, or after a second: so a worker that
    stops accepting has none whose request is still to come.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )[0]
    except (OSError, UnicodeError) as error:
        raise Refused(
            f"the address {host!r} to listen on is unknown ({error}): give another one with --host.", exit_code=USAGE
        ) from error
    try:
        sockets = [_bound(family, address)]
    except OSError as error:
        raise Refused(_why_not(error, host, port, given_by)) from error
    if host in ("127.0.0.1", "localhost"):
        twin_host = "::1" if family == socket.AF_INET else "127.0.0.1"
        twin_family = socket.AF_INET6 if family == socket.AF_INET else socket.AF_INET
        with contextlib.suppress(OSError):
            sockets.append(_bound(twin_family, (twin_host, sockets[0].getsockname()[1])))
    if run_host is not None and host not in (run_host, "0.0.0.0", "::", "", "*"):
        port = sockets[0].getsockname()[1]
        try:
            sockets.append(_bound(socket.AF_INET6 if ":" in run_host else socket.AF_INET, (run_host, port)))
        except OSError as error:
            raise Refused(_why_not(error, run_host, port, given_by)) from error
    return sockets


def listen_in_lanes(
    lanes: int, host: str, port: int, run_host: str | None = None, *, given_by: str = "--port N"
) -> list[list[socket.socket]]:
    """
    As ``listen``, so many times: the system spreads new connections evenly over these lanes. Raises Refused.

    One socket for all workers would not do: whoever is awake takes all that is there, 233 of 300 connections were seen
    to go to one of two. A lane's queue is lost with its last descriptor, so somebody must hold them all.
    """
    # Alone first: who shares a port would share it with another Greenroom of the same user, too.
    sockets = listen(host, port, run_host, given_by=given_by)
    if lanes == 1:
        return [sockets]
    addresses = [(sock.family, sock.getsockname()) for sock in sockets]
    for sock in sockets:
        sock.close()
    try:
        return [[_bound(*address, is_shared=True) for address in addresses] for _ in range(lanes)]
    except OSError as error:
        raise Refused(_why_not(error, host, addresses[0][1][1], given_by)) from error


def _bound(family: int, address: tuple[Any, ...], *, is_shared: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and address[0] != "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if hasattr(socket, "TCP_DEFER_ACCEPT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER_SECS)
        keep_watch(sock)  # the kernel passes it on to what is accepted
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _why_not(error: OSError, host: str, port: int, given_by: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is taken by another program: stop that one, "
            f"or choose another port with {given_by} (0 takes a free one)."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} on {host} needs rights that this user lacks: choose one above 1023 with {given_by}."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine: give another one with --host."
    return f"can't listen on {host}, port {port}: {error.strerror}."
