"""What is asked of the sockets below asyncio's transports, on whichever event loop."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct

_TCP_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux
_GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


def keep_watch(sock: socket.socket) -> None:
    """
    Let the kernel notice a machine that vanished: streams and sockets may be silent for hours.

    Of a listening socket, on Linux: with each connection that is accepted from it.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def acknowledge_at_once(sock: socket.socket | None) -> None:
    """
    Don't delay the ACK of what came: there is more to come.

    A server that writes head and body apart without TCP_NODELAY (Python's http.server, many others) holds the body
    back until the head is acknowledged, which the kernel does 40 ms later where it expects to send something.
    The kernel forgets the wish, hence at each such read; a whole answer in one read costs nothing.
    """
    if _TCP_QUICKACK is not None and sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 1)


def is_quiet(transport: asyncio.BaseTransport) -> bool:
    """Whether nothing waits to be read, end of stream included; one system call."""
    return not _polled(transport, select.POLLIN)


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the other side has ended the connection, or its half, behind what was not read yet."""
    return _polled(transport, _GONE)


def reset_on_abort(transport: asyncio.BaseTransport) -> None:
    """
    Let ``abort`` reset the connection, where its plain end would look as if all had been said.

    Only there: a reset can destroy what is still on its way.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _polled(transport: asyncio.BaseTransport, events: int) -> bool:
    sock = transport.get_extra_info("socket")
    number = sock.fileno() if sock is not None else -1
    if number < 0:
        return True
    poll = select.poll()
    poll.register(number, events)
    return bool(poll.poll(0))
