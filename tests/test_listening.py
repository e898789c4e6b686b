"""The listening sockets themselves; what is said of ports that are taken stands in ``test_parent.py``."""

from __future__ import annotations

import contextlib
import select
import socket

import pytest

from gateway.listening import listen


@pytest.mark.skipif(not hasattr(socket, "TCP_DEFER_ACCEPT"), reason="this system accepts connections at once")
def test_a_connection_is_accepted_with_its_first_bytes() -> None:
    """Not before, so that no worker has one whose request could come when it no longer serves; silence has a limit."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(sock) for sock in listen("127.0.0.1", 0)]
        address = sockets[0].getsockname()
        speaks = stack.enter_context(socket.create_connection(address))
        stack.enter_context(socket.create_connection(address))
        assert select.select(sockets[:1], [], [], 0) == ([], [], [])
        speaks.send(b"G")
        assert select.select(sockets[:1], [], [], 10)[0]
        first, name = sockets[0].accept()
        stack.enter_context(first)
        assert name == speaks.getsockname()
        assert select.select(sockets[:1], [], [], 10)[0]
        silent, _ = sockets[0].accept()
        stack.enter_context(silent)
