"""The listening sockets themselves; what is said of ports that are taken stands in ``test_parent.py``."""

from __future__ import annotations

import contextlib
import select
import socket
import sys

import pytest

from gateway.listening import listen, listen_in_lanes


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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each accepted socket would have to be told")
@pytest.mark.parametrize("lanes", [1, 2])
def test_a_caller_whose_machine_vanishes_is_noticed(lanes: int) -> None:
    """The kernel asks for him within a minute of silence, be it that nobody sends anything for hours."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(sock) for in_lane in listen_in_lanes(lanes, "127.0.0.1", 0) for sock in in_lane]
        for address in {sock.getsockname() for sock in sockets}:
            stack.enter_context(socket.create_connection(address[:2])).send(b"G")
            heard = select.select(sockets, [], [], 10)[0]
            accepted, _ = heard[0].accept()
            stack.enter_context(accepted)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, every, times = (
                accepted.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert idle + every * times <= 60
