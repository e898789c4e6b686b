"""Ports are handed out in turn, once each, and only those that a server could open."""

from __future__ import annotations

import socket

import pytest

from autoscaler.launchers.ports import Ports
from gateway.core.errors import LaunchError


@pytest.fixture
def listening() -> int:
    """A port of the tests' range that somebody listens on."""
    for port in range(20990, 20900, -1):
        with socket.socket() as server:
            try:
                server.bind(("127.0.0.1", port))
            except OSError:
                continue
            server.listen()
            yield port
            return


def test_in_turn():
    """A port that was given back is not the next one to be used: clients of its last run may still ask there."""
    ports = Ports(20800, 20803)
    taken = []
    for number in range(4):
        taken.append(ports.take(f"run{number}"))
        ports.give_back(f"run{number}")
    assert sorted(taken) == [20800, 20801, 20802, 20803]


def test_one_port_a_run():
    """A run that is placed again gives back the port it had."""
    ports = Ports(20800, 20801)
    first = ports.take("run")
    second = ports.take("run")
    assert first != second
    assert ports.of("run") == second
    assert ports.take("other") == first


def test_used_up():
    """When all are held, the error names the range and the setting."""
    ports = Ports(20800, 20801)
    ports.take("a")
    ports.take("b")
    with pytest.raises(LaunchError, match=r"20800 to 20801.*port_range"):
        ports.take("c")


def test_passes_over_what_others_listen_on(listening):
    """A port where another program listens is never handed out, whichever address it listens at."""
    ports = Ports(listening, listening)
    with pytest.raises(LaunchError, match="are taken"):
        ports.take("run")
    with pytest.raises(LaunchError, match=rf"insists on port {listening}.*in use"):
        ports.take_this("run", listening)


def test_lingering_connections_are_no_obstacle(listening):
    """A port whose last server left connections behind in TIME_WAIT can be used, as servers do by SO_REUSEADDR."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.accept()
            accepted.close()
            assert client.recv(1) == b""
    assert Ports(port, port).take("run") == port
