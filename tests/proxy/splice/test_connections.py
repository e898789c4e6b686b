"""How many connections may stand, in all and from one address; who has gone makes room, whoever tells of it."""

from __future__ import annotations

import pytest

from gateway.proxy.splice.connections import Connections


class Transport:
    """As far as it is looked at."""

    def __init__(self) -> None:
        self.is_gone = False

    def is_closing(self) -> bool:
        return self.is_gone


def connections(limit: int = 100, per_address: int = 2, trusted: tuple[str, ...] = ()) -> Connections:
    return Connections(limit=limit, limit_per_address=per_address, trusted=trusted)


def test_a_limit_in_all() -> None:
    """Whatever the address; what has gone makes room."""
    counted = connections(limit=2)
    first, second, third = Transport(), Transport(), Transport()
    assert counted.admit(first, "192.0.2.1") is None
    assert counted.admit(second, "127.0.0.1") is None
    assert counted.admit(third, "192.0.2.3") == "max_connections"
    counted.gone(first, "192.0.2.1")
    assert counted.admit(third, "192.0.2.3") is None


@pytest.mark.parametrize(
    ("address", "trusted", "is_limited"),
    [
        pytest.param("192.0.2.1", (), True, id="a stranger"),
        pytest.param("2001:db8::1", (), True, id="a stranger by IPv6"),
        pytest.param("127.0.0.1", (), False, id="this machine"),
        pytest.param("::1", (), False, id="this machine by IPv6"),
        pytest.param("10.0.0.7", ("10.0.0.0/8",), False, id="a trusted proxy"),
        pytest.param("10.0.0.7", ("10.1.0.0/16",), True, id="another proxy than the trusted"),
        pytest.param("", (), False, id="a socket without an address"),
    ],
)
def test_a_limit_by_address(address: str, trusted: tuple[str, ...], is_limited: bool) -> None:
    """For who speaks for himself alone."""
    counted = connections(trusted=trusted)
    stand = [Transport() for _ in range(3)]
    outcomes = [counted.admit(one, address) for one in stand]
    assert outcomes == [None, None, "max_connections_per_address" if is_limited else None]


def test_one_address_takes_no_room_of_another() -> None:
    """Each has its own."""
    counted = connections()
    stand = [Transport() for _ in range(4)]
    assert [counted.admit(one, f"192.0.2.{at % 2}") for at, one in enumerate(stand)] == [None] * 4


def test_a_connection_counts_once() -> None:
    """Also when it is handed on to somebody else, who counts it again."""
    counted = connections()
    one, other = Transport(), Transport()
    assert [counted.admit(one, "192.0.2.1") for _ in range(5)] == [None] * 5
    assert counted.admit(other, "192.0.2.1") is None


def test_who_ended_untold_makes_room() -> None:
    """A connection that was handed on ends without a word; it is found when room is needed."""
    counted = connections()
    stand = [Transport(), Transport()]
    for one in stand:
        counted.admit(one, "192.0.2.1")
    stand[0].is_gone = True
    assert counted.admit(Transport(), "192.0.2.1") is None


def test_nothing_is_left_of_addresses_that_have_gone() -> None:
    """However many have called."""
    counted = connections(limit=10**6)
    for number in range(1000):
        one = Transport()
        counted.admit(one, f"10.0.{number // 250}.{number % 250}")
        counted.gone(one, f"10.0.{number // 250}.{number % 250}")
    assert len(counted) == 0
    assert counted._by_address == {}
